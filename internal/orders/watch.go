package orders

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"quayside/internal/database"
	"quayside/internal/web"
)

var openStreams = promauto.NewGauge(prometheus.GaugeOpts{
	Name: "quayside_status_streams",
	Help: "Streams of status events that customers' pages hold open.",
})

// watch tells those who look at orders when one has changed, whichever process
// changed it. Postgres is asked with one statement for all of them, only while
// somebody looks; LISTEN would not pass through every pooler. Every change of an
// order is a step of its timeline, so the number of steps is its version.
type watch struct {
	book *Book

	every     time.Duration // between two looks
	heartbeat time.Duration // of a stream that has nothing to say
	maxAge    time.Duration // of a stream; its reader comes again
	most      int           // streams of this process
	perOrder  int           // streams of one order

	mu      sync.Mutex
	orders  map[string]*watched // by id
	streams int
	stop    context.CancelFunc // of the goroutine that looks; nil while nobody does
	ending  chan struct{}      // closed by end
	ended   bool
}

// watched is an order somebody looks at.
type watched struct {
	version int
	message []byte // that version, for a stream
	readers map[*reader]bool
}

// reader is one stream. It takes the newest message when it has time: a slow
// one misses those between, and holds up nobody.
type reader struct {
	order string
	wake  chan struct{} // holds one
}

func newWatch(b *Book) *watch {
	return &watch{
		book: b, every: 500 * time.Millisecond, heartbeat: 15 * time.Second, maxAge: 15 * time.Minute, most: 2000, perOrder: 20,
		orders: map[string]*watched{}, ending: make(chan struct{}),
	}
}

// join begins to watch an order that the caller has seen in a version, and sends
// first for it. The caller must leave. Errors: 503 when there are too many streams.
func (w *watch) join(order string, version int, first []byte) (*reader, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.orders[order]
	switch {
	case w.ended:
		return nil, web.Refuse(http.StatusServiceUnavailable, "stopping", "This server is stopping; connect again.")
	case w.streams >= w.most, o != nil && len(o.readers) >= w.perOrder:
		return nil, web.Refuse(http.StatusServiceUnavailable, "too_many_streams", "Too many streams are open; ask for the status instead, or connect later.")
	case o == nil:
		o = &watched{version: version, message: first, readers: map[*reader]bool{}}
		w.orders[order] = o
	}
	r := &reader{order: order, wake: make(chan struct{}, 1)}
	if o.version > version { // it changed since the caller looked
		r.wake <- struct{}{}
	}
	o.readers[r] = true
	w.streams++
	openStreams.Inc()
	if w.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		w.stop = stop
		go w.look(ctx)
	}
	return r, nil
}

func (w *watch) leave(r *reader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.orders[r.order]
	delete(o.readers, r)
	if len(o.readers) == 0 {
		delete(w.orders, r.order)
	}
	openStreams.Dec()
	if w.streams--; w.streams == 0 {
		w.stop()
		w.stop = nil
	}
}

// newest is the last change of the reader's order.
func (w *watch) newest(r *reader) (version int, message []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.orders[r.order]
	return o.version, o.message
}

// end makes every stream end, and refuses new ones.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ended = true
		close(w.ending)
	}
}

// look asks for changes until ctx ends. While Postgres is away, streams stay
// open and their readers keep what they have.
func (w *watch) look(ctx context.Context) {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := w.lookOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !away:
			slog.WarnContext(ctx, "open status pages do not change for now", "error", err)
		case err == nil && away:
			slog.InfoContext(ctx, "open status pages change again")
		}
		away = err != nil
	}
}

// lookPatience is for one look. The next begins after it.
const lookPatience = 5 * time.Second

func (w *watch) lookOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	ids, versions := w.seen()
	changed, err := database.Column[string](ctx, w.book.db, `SELECT o.id FROM orders o JOIN unnest($1::text[], $2::int[]) AS seen(id, version) USING (id)
		WHERE o.timeline_length <> seen.version`, ids, versions)
	if err != nil || len(changed) == 0 {
		return err
	}
	var rows []Order
	if err := w.book.db.Read(ctx).Raw(`SELECT * FROM orders WHERE id = ANY(?)`, database.Array(changed)).Scan(&rows).Error; err != nil {
		return fmt.Errorf("load changed orders: %w", database.Classify(err))
	}
	views, err := w.book.views(ctx, rows)
	if err != nil {
		return err
	}
	now, err := w.book.db.Now(ctx)
	if err != nil {
		return err
	}
	for i := range views {
		message, err := statusMessage(views[i].forCustomer(w.book.terms.ShopName, now))
		if err != nil {
			return err
		}
		w.tell(views[i].ID, views[i].version, message)
	}
	return nil
}

func (w *watch) seen() (ids []string, versions []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, o := range w.orders {
		ids, versions = append(ids, id), append(versions, o.version)
	}
	return ids, versions
}

// tell hands a message to all who look at an order, without waiting for them.
func (w *watch) tell(order string, version int, message []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.orders[order]
	if o == nil {
		return // they left meanwhile
	}
	o.version, o.message = version, message
	for r := range o.readers {
		select {
		case r.wake <- struct{}{}:
		default: // it has not taken the one before, and will find this one
		}
	}
}

// statusMessage is s as a message of a stream.
func statusMessage(s statusView) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("status of order %s: %w", s.ID, err)
	}
	return fmt.Appendf(nil, "id: %d\nevent: status\ndata: %s\n\n", s.Version, data), nil
}
