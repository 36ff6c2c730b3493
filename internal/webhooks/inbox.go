package webhooks

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"quayside/internal/crash"
	"quayside/internal/database"
	"quayside/internal/orders"
	"quayside/internal/queue"
	"quayside/internal/web"
)

// MaxBody is the largest body taken, in bytes. PayQI's own are a few hundred.
const MaxBody = 256 << 10

// Options of an Inbox.
type Options struct {
	Verifier  *Verifier
	Timestamp TimestampMode
	Clock     func() time.Time // for the timestamp window; nil: time.Now
	Writers   int              // that insert at once; 0: 2
}

// Inbox takes events in and works them off. Receive needs the writers of
// Start; a process that only works does not start them.
type Inbox struct {
	intake *database.DB // a pool of its own: nothing slow delays a webhook
	db     *database.DB
	bell   queue.Bell
	book   *orders.Book
	opts   Options
	intakeQueue
}

// NewInbox returns an inbox that stores through intake and applies through db.
func NewInbox(intake, db *database.DB, bell queue.Bell, book *orders.Book, o Options) *Inbox {
	if o.Writers == 0 {
		o.Writers = 2
	}
	in := &Inbox{intake: intake, db: db, bell: bell, book: book, opts: o}
	book.Opened, book.Events = in.wakeAfter, in
	return in
}

var verdicts = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "quayside_webhooks_total", Help: "Webhook requests by verdict (stored, duplicate, conflict, bad_signature, too_old, …), and why when it is about signature or timestamp.",
}, []string{"verdict", "reason"})

// answer is what PayQI gets (docs/payqi-webhook-guide.txt, "Create Webhook
// Endpoint", "Idempotency"), with our own word for the log and the metrics.
type answer struct {
	status  int
	text    string
	verdict string
}

var (
	stored       = answer{http.StatusOK, "OK", "stored"}
	released     = answer{http.StatusOK, "OK", "released"} // refused before, now in time
	duplicate    = answer{http.StatusOK, "Already processed", "duplicate"}
	conflict     = answer{http.StatusOK, "Already processed", "conflict"}
	badSignature = answer{http.StatusBadRequest, "Invalid signature", "bad_signature"}
	tooOld       = answer{http.StatusBadRequest, "Request too old", "too_old"}
	tooLarge     = answer{http.StatusRequestEntityTooLarge, "Body too large", "too_large"}
	compressed   = answer{http.StatusUnsupportedMediaType, "Compressed bodies are not taken", "compressed"}
	cutShort     = answer{http.StatusBadRequest, "Body incomplete", "cut_short"}
	slow         = answer{http.StatusRequestTimeout, "Body too slow", "too_slow"}
	notStored    = answer{http.StatusServiceUnavailable, "Error", "not_stored"}
)

// Receive answers POST /webhooks/payqi, in plain text.
//
//	200 OK                 stored, durably
//	200 Already processed  stored before; also when it contradicts what was stored (a case opens)
//	400 Invalid signature  not exactly one signature header, or a wrong one
//	400 Request too old    authentic, but its timestamp is malformed or outside the window
//	408, 413, 415          the body is too slow, over 256 KiB or compressed
//	503 Error              not stored: the sender must try again
func (in *Inbox) Receive(c *gin.Context) {
	a, reason, e := in.receive(c)
	why := "" // the reasons of others have no end
	if a == badSignature || a == tooOld {
		why = reason
	}
	verdicts.WithLabelValues(a.verdict, why).Inc()
	attrs := []slog.Attr{slog.String("verdict", a.verdict)}
	if reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	if e != nil {
		attrs = append(attrs, slog.String("event_id", e.Key), slog.String("event_type", e.Type), slog.String("payment_id", e.PaymentID))
	}
	web.Note(c, attrs...)
	if a.status == http.StatusServiceUnavailable {
		c.Header("Retry-After", web.RetryAfter())
	}
	c.String(a.status, a.text)
}

func (in *Inbox) receive(c *gin.Context) (a answer, reason string, e *Event) {
	if coded(c.Request.Header) { // Admit would say so too, but only after reading it
		return compressed, "", nil
	}
	if c.Request.ContentLength > MaxBody {
		return tooLarge, "", nil
	}
	if in.full() {
		return notStored, "too many requests are waiting to be stored", nil
	}
	body, a, reason := readBody(c)
	if body == nil {
		return a, reason, nil
	}
	adm := in.opts.Admit(c.Request.Header, body)
	if e = adm.Event; e == nil {
		return adm.answer, adm.Reason, nil
	}
	ctx, end := crash.Begin(c.Request.Context())
	defer end()
	crash.At(ctx, "admitted")
	a, err := in.keep(ctx, &delivery{Event: e, body: body, label: adm.Label, stale: adm.Reason})
	crash.At(ctx, "kept")
	switch {
	case err != nil:
		return notStored, err.Error(), e
	case a == tooOld:
		return a, adm.Reason, e
	case e.Unreadable != "":
		return a, e.Unreadable, e
	}
	return a, strings.Join(e.Flags, "; "), e
}

// readBody returns the raw bytes, or why there are none.
func readBody(c *gin.Context) ([]byte, answer, string) {
	size := max(c.Request.ContentLength, 512)
	buf := make([]byte, 0, min(size, MaxBody)+1)
	r := http.MaxBytesReader(c.Writer, c.Request.Body, MaxBody)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			if errors.Is(err, io.EOF) {
				return buf, answer{}, ""
			}
			a, reason := unread(err)
			return nil, a, reason
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
}

func unread(err error) (answer, string) {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge, ""
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return slow, err.Error()
	}
	return cutShort, err.Error()
}

// keep hands d to a writer and waits until it is committed, at most two seconds.
func (in *Inbox) keep(ctx context.Context, d *delivery) (answer, error) {
	d.done = make(chan outcome, 1)
	if !in.offer(d) {
		return notStored, errors.New("too many requests are waiting to be stored")
	}
	t := time.NewTimer(keepTimeout)
	defer t.Stop()
	select {
	case o := <-d.done:
		return o.answer, o.err
	case <-t.C:
		return notStored, errors.New("the database took too long")
	case <-ctx.Done():
		return notStored, errors.New("the sender hung up") // it may be stored all the same, and will be found again
	}
}

const keepTimeout = 2 * time.Second
