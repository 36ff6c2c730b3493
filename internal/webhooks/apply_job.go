package webhooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/orders"
	"quayside/internal/queue"
)

// maxAttempts is after how many tries an event is dead: with doubling from 1 s
// to 5 min that is about 24 minutes of failing.
const maxAttempts = 12

var (
	applyJob = queue.Job[applyArgs]{Name: "webhooks.apply", Queue: queue.Money, Timeout: 30 * time.Second}
	wakeJob  = queue.Job[wakeArgs]{Name: "webhooks.wake", Queue: queue.Money, Timeout: 30 * time.Second}

	settledTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "quayside_events_total", Help: "Events worked off, by type and state (applied, ignored, parked, quarantined, dead).",
	}, []string{"type", "state"})
	settleSeconds = promauto.NewHistogram(prometheus.HistogramOpts{
		Name: "quayside_event_wait_seconds", Help: "From the receipt of an event to the commit of its effects.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600},
	})
)

type applyArgs struct {
	InboxIDs []uuid.UUID `json:"inbox_ids"` // at most maxPerJob
}

type wakeArgs struct {
	OrderID string `json:"order_id"`
}

// Register tells the worker about this package's jobs.
func (in *Inbox) Register(m *queue.Mux) {
	queue.Handle(m, applyJob, func(ctx context.Context, a applyArgs) error { return in.Apply(ctx, a.InboxIDs) })
	queue.Handle(m, wakeJob, func(ctx context.Context, a wakeArgs) error { return in.wake(ctx, a.OrderID) })
}

// Apply works off the events named, as far as they still wait and nobody else
// has them. Events that were tried before, and those a person has put to work
// again, run alone, so that one that breaks its process takes no neighbours
// along.
func (in *Inbox) Apply(ctx context.Context, ids []uuid.UUID) error {
	claimed, err := in.claim(ctx, ids)
	if err != nil {
		return err
	}
	var fresh []uuid.UUID
	var all error
	for _, c := range claimed {
		switch {
		case c.Attempts > maxAttempts:
			all = errors.Join(all, in.bury(ctx, c.ID))
		case c.Attempts > 1 || c.Replayed:
			all = errors.Join(all, in.settle(ctx, []uuid.UUID{c.ID}))
		default:
			fresh = append(fresh, c.ID)
		}
	}
	if len(fresh) > 0 {
		all = errors.Join(all, in.settle(ctx, fresh))
	}
	return all
}

type claimed struct {
	ID       uuid.UUID
	Attempts int // this one included
	Replayed bool
}

// claim counts an attempt before it begins, in a transaction of its own: a
// process that dies in it has used one up.
func (in *Inbox) claim(ctx context.Context, ids []uuid.UUID) (rows []claimed, err error) {
	err = in.db.InTx(ctx, func(tx database.Tx) error {
		rows = nil
		return tx.Raw(`UPDATE inbox_open SET attempts = least(attempts + 1, 1000) WHERE inbox_id = ANY(ARRAY(
			SELECT inbox_id FROM inbox_open WHERE inbox_id = ANY(?) AND state = 'received' AND not_before <= ?
			ORDER BY inbox_id FOR UPDATE SKIP LOCKED)) RETURNING inbox_id AS id, attempts, replay_id IS NOT NULL AS replayed`, database.Array(ids), tx.Now).Scan(&rows).Error
	})
	if err != nil {
		return nil, fmt.Errorf("claim events: %w", err)
	}
	return rows, nil
}

// settle applies a batch in one transaction. When the data of one of them is
// refused, the batch is halved until the culprit stands alone; that one is set
// aside. Any other failure is written down and tried again later.
func (in *Inbox) settle(ctx context.Context, ids []uuid.UUID) error {
	err := in.apply(ctx, ids)
	switch {
	case err == nil:
		return nil
	case len(ids) > 1 && fault.KindOf(err) != fault.Unavailable:
		half := len(ids) / 2
		return errors.Join(in.settle(ctx, ids[:half]), in.settle(ctx, ids[half:]))
	case fault.Permanent(err):
		slog.ErrorContext(ctx, "event quarantined", "inbox_id", ids[0], "error", err)
		return in.setAside(ctx, ids[0], orders.Quarantined, orders.Trouble{Code: orders.UnreadableEvent, Reason: fault.Message(err)})
	}
	return errors.Join(err, in.postpone(ctx, ids, err))
}

// postpone lets failed events wait: a second after each of the first four
// tries, so that an outage that has passed is over soon for them too, then four
// times as long each time, to 5 min. Where others were in the way only the first
// try counts, so that it runs alone from then on: no lock held by a stranger
// makes an event dead.
func (in *Inbox) postpone(ctx context.Context, ids []uuid.UUID, why error) error {
	reason, _, _ := strings.Cut(why.Error(), "\n")
	counted := 1
	if e, ok := errors.AsType[*fault.Error](why); ok && e.Code == database.Busy {
		counted = 0
	}
	return in.db.InTx(ctx, func(tx database.Tx) error {
		err := tx.Exec(`UPDATE inbox_open SET attempts = greatest(attempts - 1 + @counted, 1), reason = @reason,
			not_before = CAST(@now AS timestamptz) + least(interval '5 minutes', interval '1 second' * power(4, @counted * least(greatest(attempts - 4, 0), 5)))
			WHERE inbox_id = ANY(@ids) AND state = 'received'`,
			map[string]any{"counted": counted, "reason": limit(reason, 500), "now": tx.Now, "ids": database.Array(ids)}).Error
		if err != nil {
			return fmt.Errorf("postpone events: %w", err)
		}
		return nil
	})
}

func limit(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// bury gives an event up after its last attempt: a case says so.
func (in *Inbox) bury(ctx context.Context, id uuid.UUID) error {
	slog.ErrorContext(ctx, "event dead", "inbox_id", id, "attempts", maxAttempts)
	return in.setAside(ctx, id, stateDead, orders.Trouble{
		Code: orders.EventDead, Reason: fmt.Sprintf("%d attempts to apply it failed", maxAttempts),
	})
}

// row is a waiting event as a worker loads it.
type row struct {
	ID                       uuid.UUID
	Key                      string
	Body                     []byte
	Contradicts              *uuid.UUID // the first event with its id, and what that one is about:
	FirstPayment, FirstOrder *string
	ReceivedAt               time.Time
	Deliveries               int
	ReplayedBy, ReplayNote   *string // who put it to work again, and why; nil: nobody
}

// lockRows locks waiting events that nobody else has, in the order of arrival.
func lockRows(tx database.Tx, ids []uuid.UUID) ([]row, error) {
	var rows []row
	err := tx.Raw(`SELECT i.id, i.key, i.body, i.contradicts, i.received_at, i.deliveries, f.payment_id AS first_payment, f.order_ref AS first_order,
			r.actor AS replayed_by, r.note AS replay_note
		FROM inbox_open o JOIN inbox i ON i.id = o.inbox_id LEFT JOIN inbox f ON f.id = i.contradicts LEFT JOIN replays r ON r.id = o.replay_id
		WHERE o.inbox_id = ANY(?) AND o.state = 'received' ORDER BY i.received_at, i.id FOR UPDATE OF o SKIP LOCKED`,
		database.Array(ids)).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("lock events: %w", err)
	}
	return rows, nil
}

// apply is one transaction: everything the events cause, and the note that it
// was caused, or nothing. A panic is an error that names its place.
func (in *Inbox) apply(ctx context.Context, ids []uuid.UUID) (err error) {
	defer caught(&err)
	var done []verdict
	err = in.db.InTx(ctx, func(tx database.Tx) (err error) {
		done, err = in.carryOut(tx, ids)
		return err
	})
	if err == nil {
		observe(done)
	}
	return err
}

// carryOut does all that apply does but commit.
func (in *Inbox) carryOut(tx database.Tx, ids []uuid.UUID) ([]verdict, error) {
	rows, err := lockRows(tx, ids)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	done, err := in.think(tx, rows)
	if err != nil {
		return nil, err
	}
	return done, note(tx, done)
}

// verdict is what became of one row.
type verdict struct {
	ID       uuid.UUID `json:"id"`
	State    string    `json:"state"`
	Reason   string    `json:"reason"`
	OrderRef *string   `json:"order_ref"`

	eventType  string
	receivedAt time.Time
	settledAt  time.Time
}

// think says what becomes of each row, asking the book about those that
// concern an order.
func (in *Inbox) think(tx database.Tx, rows []row) ([]verdict, error) {
	done := make([]verdict, len(rows))
	var news []orders.News
	var about []int // index in rows of each piece of news
	for i, r := range rows {
		e := parseEvent(r.Body)
		done[i] = verdict{ID: r.ID, OrderRef: some(e.OrderRef), eventType: e.label(), receivedAt: r.ReceivedAt, settledAt: tx.Now}
		switch n := e.news(r); {
		case n.Trouble == nil && e.Test():
			done[i].State, done[i].Reason = orders.Ignored, "a test event of PayQI"
		case n.Trouble == nil && !e.Known():
			done[i].State, done[i].Reason = orders.Ignored, "unknown type "+e.Type
			if err := in.raiseUnknownType(tx, e, r.ID); err != nil {
				return nil, err
			}
		default:
			news, about = append(news, n), append(about, i)
		}
	}
	heard, err := in.book.Hear(tx, news)
	if err != nil {
		return nil, err
	}
	var quiet []string // cases whose reason has gone
	for j, v := range heard {
		d := &done[about[j]]
		d.State, d.Reason = v.State, v.Reason
		if v.State != orders.Applied {
			continue
		}
		if n := news[j]; n.OrderRef == "" || tx.Now.Sub(d.receivedAt) >= maxParked { // it may have been money that nothing matched, until now
			quiet = append(quiet, orders.Alarm{Code: orders.UnknownOrder, About: news[j].PaymentID}.Key())
		}
		if r := rows[about[j]]; r.ReplayedBy != nil || r.Deliveries > 1 { // it may have been dead; those about no order: the others the book closes
			for _, code := range []orders.Code{orders.UnreadableEvent, orders.EventDead, orders.UnknownType} {
				quiet = append(quiet, orders.Alarm{Code: code, About: news[j].Key}.Key())
			}
		}
	}
	return done, in.book.Quiet(tx, quiet)
}

// news turns a stored event into what the book hears.
func (e *Event) news(r row) orders.News {
	n := orders.News{
		InboxID: r.ID, Key: r.Key, Type: orders.EventType(e.Type), Created: e.Created, PaymentID: e.PaymentID, OrderRef: e.OrderRef,
		Amount: e.Amount, Currency: e.Currency, TxHash: e.TxHash, PayAddress: e.Address, DestinationTag: e.Tag,
	}
	if r.ReplayedBy != nil {
		n.Again = "applied again by " + *r.ReplayedBy
		if note := text(r.ReplayNote); note != "" {
			n.Again += ": " + note
		}
	}
	switch {
	case e.Test(): // whatever else is wrong with it, it raises no alarm
	case r.Contradicts != nil: // it is the first one's order that is in doubt
		n.PaymentID, n.OrderRef = text(r.FirstPayment), text(r.FirstOrder)
		n.Trouble = &orders.Trouble{Code: orders.EventConflict, Reason: "it says something else than the first event with its id, which stands"}
	case e.Unreadable != "":
		n.Trouble = &orders.Trouble{Code: orders.UnreadableEvent, Reason: e.Unreadable}
	}
	return n
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (in *Inbox) raiseUnknownType(tx database.Tx, e *Event, id uuid.UUID) error {
	if !strings.HasPrefix(fold(e.Type), "payment.") {
		return nil
	}
	return in.book.Raise(tx, []orders.Alarm{{
		Code: orders.UnknownType, About: e.Key, InboxID: id,
		Summary: "PayQI sent an event of a type this version does not know; nothing was applied.",
	}})
}

// note settles the rows: applied and ignored ones leave inbox_open, the others
// wait there for their order or for a person.
func note(tx database.Tx, done []verdict) error {
	var settled, waiting []verdict
	for _, v := range done {
		if v.State == orders.Applied || v.State == orders.Ignored {
			settled = append(settled, v)
		} else {
			waiting = append(waiting, v)
		}
	}
	if len(settled) > 0 {
		_, err := tx.ExecRows(`WITH v AS (SELECT * FROM json_to_recordset(@rows) AS v(id uuid, state text, reason text)),
			gone AS (DELETE FROM inbox_open o USING v WHERE o.inbox_id = v.id)
			UPDATE inbox i SET outcome = v.state, reason = v.reason, settled_at = @now FROM v WHERE i.id = v.id`, settled)
		if err != nil {
			return fmt.Errorf("settle events: %w", err)
		}
	}
	if len(waiting) > 0 {
		_, err := tx.ExecRows(`UPDATE inbox_open o SET state = v.state, reason = v.reason, order_ref = v.order_ref,
			attempts = CASE v.state WHEN 'parked' THEN 0 ELSE o.attempts END
			FROM json_to_recordset(@rows) AS v(id uuid, state text, reason text, order_ref text) WHERE o.inbox_id = v.id`, waiting)
		if err != nil {
			return fmt.Errorf("set events aside: %w", err)
		}
	}
	return nil
}

func observe(done []verdict) {
	for _, v := range done {
		settledTotal.WithLabelValues(v.eventType, v.State).Inc()
		if v.State == orders.Applied {
			settleSeconds.Observe(time.Since(v.receivedAt).Seconds())
		}
	}
}

// setAside puts one event where a person finds it, with its case and hold.
// When what follows for its order cannot be written, only the hold and a step
// of its timeline are; and when its row cannot, the case alone is: it holds the
// order from its next change on.
func (in *Inbox) setAside(ctx context.Context, id uuid.UUID, state string, t orders.Trouble) error {
	err := in.shelve(ctx, id, state, t, in.hold)
	if err != nil && fault.KindOf(err) != fault.Unavailable {
		err = in.shelve(ctx, id, state, t, in.book.Hold)
	}
	if err != nil && fault.KindOf(err) != fault.Unavailable {
		err = in.shelve(ctx, id, state, t, func(tx database.Tx, n orders.News) error {
			return in.book.Raise(tx, []orders.Alarm{{
				Code: t.Code, About: n.Key, OrderID: n.OrderRef, PaymentID: n.PaymentID, InboxID: id,
				Summary: fmt.Sprintf("An authentic event could not be applied: %s.", t.Reason),
			}})
		})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("set event %s aside: %w", id, err), in.postpone(ctx, []uuid.UUID{id}, err))
	}
	return nil
}

// hold opens the case of an event that is set aside, and holds its order.
func (in *Inbox) hold(tx database.Tx, n orders.News) error {
	_, err := in.book.Hear(tx, []orders.News{n})
	return err
}

// shelve settles one event in a state of waiting, and tells of it.
func (in *Inbox) shelve(ctx context.Context, id uuid.UUID, state string, t orders.Trouble, tell func(database.Tx, orders.News) error) (err error) {
	defer caught(&err)
	var done []verdict
	err = in.db.InTx(ctx, func(tx database.Tx) (err error) {
		done, err = putBy(tx, id, state, t, tell)
		return err
	})
	if err == nil {
		observe(done)
	}
	return err
}

// putBy does all that shelve does but commit.
func putBy(tx database.Tx, id uuid.UUID, state string, t orders.Trouble, tell func(database.Tx, orders.News) error) ([]verdict, error) {
	rows, err := lockRows(tx, []uuid.UUID{id})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	e := parseEvent(rows[0].Body)
	n := e.news(rows[0])
	n.Trouble = &t
	if err := tell(tx, n); err != nil {
		return nil, err
	}
	done := []verdict{{ID: id, State: state, Reason: t.Reason, OrderRef: some(e.OrderRef), eventType: e.label()}}
	return done, note(tx, done)
}

// caught turns a panic into an error that names its place.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// label is the type for the metrics: one of a few words, whatever was sent.
func (e *Event) label() string {
	if e.Known() {
		return e.Type
	}
	return "unknown"
}
