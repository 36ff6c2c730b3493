package orders

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/payqi"
)

// Inquiry is a row of inquiries: a payment that PayQI is asked about, since its
// order's deadline passed without news of it.
type Inquiry struct {
	PaymentID string              `json:"payment_id"`
	State     string              `json:"state"` // open, over
	Since     time.Time           `json:"since"` // when it was first found silent
	Asks      int                 `json:"asks"`
	AskAt     time.Time           `json:"ask_at"`    // the next time, or the end of the lease of one under way
	AskUntil  time.Time           `json:"ask_until"` // then it is over, whatever PayQI says
	AskedAt   *time.Time          `json:"asked_at"`
	Answer    string              `json:"answer"` // to the last one: PayQI's word, or why it could not be used
	Amount    decimal.NullDecimal `json:"amount"` // Amount and Currency of an answer that it completed
	Currency  *string             `json:"currency"`
}

const (
	inquiryOpen = "open"
	inquiryOver = "over"

	inquiryFor   = 48 * time.Hour  // after the deadline, or after a person asks again
	inquiryLease = 2 * time.Minute // of one round: more than its askings take
	inquiryRound = 5               // payments, each with at most 10 s of patience
	firstPause   = time.Minute     // after an answer without news; doubled each time, to
	longestPause = time.Hour
	asksAMinute  = 100 // of all workers together: PayQI's own limit

	causePoll = "poll:payqi"
)

// inquire has PayQI asked about a payment from now on.
func (f *File) inquire(p *Payment, now time.Time) {
	f.inquiries = slices.DeleteFunc(f.inquiries, func(q Inquiry) bool { return q.PaymentID == p.ID }) // of an earlier event of the batch
	f.inquiries = append(f.inquiries, Inquiry{PaymentID: p.ID, State: inquiryOpen, Since: now, AskAt: now, AskUntil: now.Add(inquiryFor)})
}

func saveInquiries(tx database.Tx, rows []Inquiry) error {
	return database.InsertOr(tx, "inquiries", `payment_id, state, since, asks, ask_at, ask_until, answer`, rows,
		`ON CONFLICT (payment_id) DO UPDATE SET state = excluded.state, asks = 0, ask_at = excluded.ask_at, ask_until = excluded.ask_until`)
}

// Inquire asks PayQI about the payments whose time has come. Several workers may
// at once: each takes others, and together they keep within PayQI's limit.
// Without access to PayQI it does nothing.
func (b *Book) Inquire(ctx context.Context) error {
	for b.PayQI != nil && b.PayQI.Rest() == 0 && ctx.Err() == nil {
		due, err := b.claimInquiries(ctx)
		if err != nil || len(due) == 0 {
			return err
		}
		for _, q := range due {
			if err := b.askAbout(ctx, q); err != nil {
				return err
			}
		}
	}
	return nil
}

// claimInquiries leases a few inquiries that are due, each asking counted
// before it is made.
func (b *Book) claimInquiries(ctx context.Context) (due []Inquiry, err error) {
	err = b.db.InTx(ctx, func(tx database.Tx) (err error) {
		due, err = claimInquiries(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claim inquiries: %w", err)
	}
	return due, nil
}

// claimInquiries is for one worker at a time, so that the count of the last
// minute is right.
func claimInquiries(tx database.Tx) (due []Inquiry, err error) {
	if err := tx.Exec(`SELECT pg_advisory_xact_lock(hashtext('quayside inquiries'))`).Error; err != nil {
		return nil, err
	}
	err = tx.Exec(`UPDATE inquiries SET state = ? WHERE state = ? AND ask_until <= ? AND ask_at <= ?`, inquiryOver, inquiryOpen, tx.Now, tx.Now).Error
	if err != nil {
		return nil, err
	}
	err = tx.Raw(`UPDATE inquiries SET asks = asks + 1, asked_at = @now, ask_at = @lease WHERE payment_id = ANY(ARRAY
			(SELECT payment_id FROM inquiries WHERE state = @open AND ask_at <= @now ORDER BY ask_at
			LIMIT least(@round, greatest(0, @most - (SELECT count(*) FROM inquiries WHERE asked_at > @minute))) FOR UPDATE SKIP LOCKED)) RETURNING *`,
		map[string]any{
			"now": tx.Now, "lease": tx.Now.Add(inquiryLease), "open": inquiryOpen, "round": inquiryRound,
			"most": asksAMinute, "minute": tx.Now.Add(-time.Minute),
		}).Scan(&due).Error
	return due, err
}

// askAbout asks about one payment and hears the answer.
func (b *Book) askAbout(ctx context.Context, q Inquiry) error {
	p, asked := b.PayQI.Payment(ctx, q.PaymentID)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the lease ends, and another worker asks
	}
	if asked != nil {
		slog.WarnContext(ctx, "PayQI could not be asked about a payment", "payment_id", q.PaymentID, "attempt", q.Asks, "error", asked)
	}
	err := b.db.InTx(ctx, func(tx database.Tx) error { return b.hearAnswer(tx, q, p, asked) })
	if err != nil {
		return fmt.Errorf("inquiry about payment %s: %w", q.PaymentID, err)
	}
	return nil
}

// answers are the words of PayQI for how a payment stands, as the events that say so.
var answers = map[string]EventType{
	"pending": PaymentPendingEvent, "completed": PaymentCompletedEvent, "failed": PaymentFailedEvent, "expired": PaymentExpiredEvent,
}

// hearAnswer applies an answer as the event that says the same, if it says
// anything new, and plans the next asking.
func (b *Book) hearAnswer(tx database.Tx, q Inquiry, p *payqi.Payment, asked error) error {
	var rows []*Payment
	if err := tx.Raw(`SELECT * FROM payments WHERE id = ?`, q.PaymentID).Scan(&rows).Error; err != nil || len(rows) == 0 {
		return fmt.Errorf("payment %s of an inquiry: %w", q.PaymentID, err)
	}
	known := rows[0]
	n, answer := newsOf(known, p, asked)
	if n != nil {
		verdicts, err := b.Hear(tx, []News{*n})
		if err != nil {
			return err
		}
		if verdicts[0].State != Applied {
			answer += ": " + verdicts[0].Reason
		}
	}
	q.Answer, q.State = answer, inquiryOpen
	if n != nil && n.Type != PaymentPendingEvent || known.stands() > StandsPending {
		q.State = inquiryOver
	}
	if n != nil && n.Type == PaymentCompletedEvent {
		q.Amount, q.Currency = n.Amount, &n.Currency
	}
	pause := longestPause
	if shift := q.Asks - 1; shift < 6 {
		pause = min(longestPause, firstPause<<max(shift, 0))
	}
	err := tx.Exec(`UPDATE inquiries SET state = ?, answer = ?, ask_at = ?, amount = COALESCE(amount, ?), currency = COALESCE(currency, ?) WHERE payment_id = ?`,
		q.State, q.Answer, tx.Now.Add(max(pause, b.PayQI.Rest())), q.Amount, q.Currency, q.PaymentID).Error
	if err != nil {
		return fmt.Errorf("note the answer: %w", err)
	}
	return nil
}

// newsOf makes news of an answer: nil when it says nothing new, or nothing that
// can be believed. The text is for people.
func newsOf(known *Payment, p *payqi.Payment, asked error) (n *News, answer string) {
	if asked != nil {
		return nil, fault.Message(asked)
	}
	n = &News{
		Type: answers[p.Status], Cause: causePoll, PaymentID: p.ID, PayAddress: p.PayAddress, DestinationTag: p.DestinationTag, TxHash: p.TxHash,
	}
	switch {
	case p.OrderID != "" && p.OrderID != known.OrderID && known.AttachedBy == nil:
		return nil, fmt.Sprintf("%s, but of order %s: it was not applied", p.Status, p.OrderID)
	case n.Type == "":
		return nil, fmt.Sprintf("%q, which says nothing new", p.Status)
	case n.Type == PaymentCompletedEvent && (!p.Amount.Valid || !p.Amount.Decimal.IsPositive() || p.Currency == ""):
		return nil, p.Status + ", but of no readable amount and currency: it was not applied"
	case n.Type == PaymentCompletedEvent:
		n.Amount, n.Currency = p.Amount, p.Currency
	case n.Type == PaymentPendingEvent && known.PendingSeen != nil, n.Type != PaymentCompletedEvent && known.stands() > StandsPending:
		return nil, p.Status
	}
	return n, p.Status
}

// silent reports whether the order has been given up while the payment could
// still bring its money, and PayQI has not said how it ended.
func (f *File) silent(p *Payment, now time.Time) bool {
	return f.Status == Expired && !now.Before(f.Deadline) && p.open()
}

// reviewSilence opens the cases of payments that PayQI says nothing of, closes
// those of which it does, and has it asked.
func (f *File) reviewSilence(now time.Time) {
	for _, p := range f.Payments {
		m := matter{
			code: SilentPayment, about: p.ID, payment: p.ID,
			summary: fmt.Sprintf("The order's deadline passed and PayQI has not said how payment %s ended.", p.ID),
		}
		was := f.Cases[m.key()]
		asleep := was == nil || !was.open()
		f.keep(f.silent(p, now), m, now)
		if c := f.Cases[m.key()]; asleep && c != nil && c.open() {
			f.inquire(p, now)
		}
	}
}

// askAgain has PayQI asked at once, and for as long as at first.
func (r *ruling) askAgain() error {
	if r.b.PayQI == nil {
		return fault.New(fault.NotImplemented, "no_payqi_key", "PAYQI_API_URL and PAYQI_API_KEY are not set: look the payment up at PayQI")
	}
	p := r.f.paymentOf(text(r.c.PaymentID))
	if !r.f.silent(p, r.d.now) {
		return fault.New(fault.Conflict, "payment_settled", "payment %s is not open any more", p.ID)
	}
	r.f.inquire(p, r.d.now)
	r.open = true
	return nil
}

// fellSilent is how many payments in a row must pass their deadline, with no
// event of any kind meanwhile, until that is PayQI's doing and not the
// customers': PayQI tells how every payment ended, by its deadline at the latest.
const fellSilent = 3

var noEvents = Alarm{Code: NoEvents, About: "payqi"}

// MindSilence opens a case when PayQI's events have stopped coming while they
// should, and closes it when one comes.
func (b *Book) MindSilence(ctx context.Context) error {
	var now struct {
		Silent         int  // payments since the newest event
		Open, Returned bool // the case, and whether there is new reason for one that was closed
	}
	err := b.db.Read(ctx).Raw(`WITH newest AS (SELECT COALESCE((SELECT received_at FROM inbox ORDER BY id DESC LIMIT 1), '-infinity') AS at)
		SELECT (SELECT count(*) FROM inquiries WHERE since > newest.at) AS silent,
			EXISTS (SELECT 1 FROM cases WHERE key = @key AND state = 'open') AS open,
			NOT EXISTS (SELECT 1 FROM cases WHERE key = @key AND state = 'closed' AND closed_by <> @itself AND closed_at >= newest.at) AS returned
		FROM newest`, map[string]any{"key": noEvents.Key(), "itself": itself}).Scan(&now).Error
	switch {
	case err != nil:
		return fmt.Errorf("look for PayQI's events: %w", database.Classify(err))
	case now.Open && now.Silent == 0:
		return b.db.InTx(ctx, func(tx database.Tx) error { return b.Quiet(tx, []string{noEvents.Key()}) })
	case now.Open || now.Silent < fellSilent || !now.Returned:
		return nil
	}
	a := noEvents
	a.Summary = fmt.Sprintf("%d payments have passed their deadline and no event of any kind has come meanwhile: PayQI's webhooks may not reach this shop.", now.Silent)
	slog.ErrorContext(ctx, "PayQI's events have stopped coming", "payments", now.Silent)
	return b.db.InTx(ctx, func(tx database.Tx) error { return b.Raise(tx, []Alarm{a}) })
}
