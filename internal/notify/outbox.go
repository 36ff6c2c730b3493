package notify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/queue"
)

// Options of an Outbox.
type Options struct {
	From     string // RFC 5322, MAIL_FROM; see ValidFrom
	ShopName string
}

// Outbox keeps letters in Postgres and sends them.
type Outbox struct {
	db     *database.DB
	bell   queue.Bell
	sender Sender
	opts   Options

	// Fate, when set, is told of letters that failed for good, and of resends
	// that were sent, in the transaction that notes it. It may lock no order:
	// the letter is locked already.
	Fate func(tx database.Tx, f Fate) error
}

// Fate is how a letter ended.
type Fate struct {
	Letter           // Sent or Failed
	First  uuid.UUID // the letter that was to tell it first: this one, or the one it is a resend of
}

// NewOutbox returns an outbox that sends through sender. It may be used by
// many goroutines and processes at once.
func NewOutbox(db *database.DB, bell queue.Bell, sender Sender, opts Options) *Outbox {
	return &Outbox{db: db, bell: bell, sender: sender, opts: opts}
}

// Post writes letters, to be sent once tx has committed. The caller fills
// OrderID, Kind, About, Address, Facts and, to wait, NotBefore. A letter that
// the customer has been or will be told already (same order, kind and about)
// is passed over; one that was dropped before it was sent is queued again. It
// returns those that will be sent: ID, OrderID, Kind and About.
func (o *Outbox) Post(tx database.Tx, letters []Letter) (posted []Letter, err error) {
	rows := slices.Clone(letters)
	// Two transactions that post the same letters meet in the same order: no deadlock.
	same := func(a, b Letter) int {
		return cmp.Or(cmp.Compare(a.OrderID, b.OrderID), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.About, b.About))
	}
	slices.SortStableFunc(rows, same)
	rows = slices.CompactFunc(rows, func(a, b Letter) bool { return same(a, b) == 0 })
	for i := range rows {
		l := &rows[i]
		if l.ID == uuid.Nil {
			id, err := uuid.NewV7()
			if err != nil {
				return nil, fmt.Errorf("name a letter of order %s: %w", l.OrderID, err)
			}
			l.ID = id
		}
		l.State, l.MessageID = Queued, "letter-"+l.ID.String()+"@"+o.domain()
		l.Facts = plainFacts(l.Facts) // a NUL in a name must not undo the payment it is about
		l.PostedAt, l.RungAt = tx.Now, tx.Now
		if l.NotBefore.IsZero() {
			l.NotBefore = tx.Now
		}
		if !l.NotBefore.After(tx.Now) {
			queue.RingAfter(tx, o.bell, sendJob.With(sendArgs{LetterID: l.ID}))
		}
	}
	posted, err = database.InsertReturning(tx, "letters",
		"id, order_id, kind, about, address, facts, state, not_before, rung_at, message_id, posted_at, resend_of, posted_by, note", rows,
		`ON CONFLICT ON CONSTRAINT a_customer_is_told_once DO UPDATE SET state = excluded.state, facts = excluded.facts,
			address = excluded.address, not_before = excluded.not_before, rung_at = excluded.rung_at, last_error = ''
		WHERE letters.state = 'dropped' RETURNING id, order_id, kind, about`)
	if err != nil {
		return nil, fmt.Errorf("post %d letters: %w", len(rows), err)
	}
	return posted, nil
}

// domain is that of the sender, for message ids.
func (o *Outbox) domain() string {
	from, err := parseFrom(o.opts.From)
	if err != nil {
		return "localhost"
	}
	return from.Address[strings.LastIndexByte(from.Address, '@')+1:]
}

// Withdrawal names letters that an order has outgrown.
type Withdrawal struct {
	OrderID string
	Kinds   []Kind
}

// outgrown is the last_error of a letter that was withdrawn. One that is just
// being sent keeps its state and this mark: if the attempt fails there is no other.
const outgrown = "withdrawn: the order has outgrown it"

// Withdraw drops letters that were not sent yet, and sees to it that none is
// tried again.
func (o *Outbox) Withdraw(tx database.Tx, withdrawals []Withdrawal) error {
	var orders, kinds []string
	for _, w := range withdrawals {
		for _, k := range w.Kinds {
			orders, kinds = append(orders, w.OrderID), append(kinds, string(k))
		}
	}
	if len(orders) == 0 {
		return nil
	}
	// The state is no plain column here, so that nobody takes letters_waiting for the way to them: it holds all that wait.
	err := tx.Exec(`UPDATE letters l SET state = CASE l.state WHEN 'queued' THEN 'dropped' ELSE l.state END, last_error = ?
		FROM unnest(?::text[], ?::text[]) w(order_id, kind)
		WHERE l.order_id = w.order_id AND l.kind = w.kind AND l.state || '' IN ('queued', 'sending', 'unknown')`,
		outgrown, database.Array(orders), database.Array(kinds)).Error
	if err != nil {
		return fmt.Errorf("withdraw letters of %d orders: %w", len(withdrawals), err)
	}
	return nil
}

// never is the not_before of a letter whose one resend is taken: it stays
// unknown for good.
const (
	never     = "9999-12-31T00:00:00Z"
	neverYear = 9999
)

// due finds letters that may be sent now: new ones, ones whose backoff is
// over, and unknown ones that have waited for their one resend. Those of a kind
// that this version does not know are left to newer workers.
var due = dueOf(Kinds)

func dueOf(kinds []Kind) string {
	var known []string
	for _, k := range kinds {
		known = append(known, "'"+string(k)+"'")
	}
	return `not_before <= now() AND (state = 'queued' OR (state = 'unknown' AND last_error <> '` + outgrown + `')) AND kind IN (` + strings.Join(known, ",") + `)`
}

// Sweep rings again for letters that are due and whose bell was lost, and
// gives up on attempts whose process died. Call it every second or two; several
// at once share the work.
func (o *Outbox) Sweep(ctx context.Context) error {
	return o.db.InTx(ctx, func(tx database.Tx) error {
		// An attempt takes at most sendPatience, so after 15 minutes nobody is at it.
		// Whether it got through nobody can tell: the resend waits as after a broken dot.
		err := tx.Exec(`UPDATE letters SET state = 'unknown', not_before = GREATEST(not_before, started_at + interval '30 minutes'),
				last_error = CASE last_error WHEN '` + outgrown + `' THEN last_error ELSE 'the process that sent it died' END
			WHERE id = ANY(ARRAY(SELECT id FROM letters WHERE state = 'sending' AND started_at < now() - interval '15 minutes'
				ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED))`).Error
		if err != nil {
			return fmt.Errorf("give up on lost attempts: %w", err)
		}
		// The longer a letter has waited the rarer it is rung, up to 30 s: behind a slow mail
		// server the queue would otherwise fill with rings for letters it already holds.
		var ids []uuid.UUID
		err = tx.Raw(`UPDATE letters SET rung_at = now()
			WHERE id = ANY(ARRAY(SELECT id FROM letters WHERE ` + due + `
					AND rung_at < now() - GREATEST(interval '1.5 seconds', LEAST(interval '30 seconds', (now() - not_before) / 2))
				ORDER BY not_before LIMIT 500 FOR UPDATE SKIP LOCKED))
			RETURNING id`).Scan(&ids).Error
		if err != nil {
			return fmt.Errorf("find letters to ring for: %w", err)
		}
		for _, id := range ids {
			queue.RingAfter(tx, o.bell, sendJob.With(sendArgs{LetterID: id}))
		}
		return nil
	})
}

// Work sends up to limit due letters in this goroutine, straight from
// Postgres, and returns how many it tried. It is for when Redis is away. When
// ctx ends it begins no other letter.
func (o *Outbox) Work(ctx context.Context, limit int) (n int, err error) {
	under, done := queue.Finish(ctx)
	defer done()
	for n < limit && ctx.Err() == nil {
		l, err := o.claim(under, uuid.Nil)
		if err != nil || l == nil {
			return n, err
		}
		n++
		if err := o.attempt(under, *l); err != nil {
			return n, err
		}
	}
	return n, nil
}
