package orders

import (
	"cmp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

// EventType is one of PayQI's five events (docs/payqi-webhook-guide.txt, "Available Events").
type EventType string

// PayQI's events.
const (
	PaymentCreatedEvent   EventType = "payment.created"
	PaymentPendingEvent   EventType = "payment.pending"
	PaymentFailedEvent    EventType = "payment.failed"
	PaymentExpiredEvent   EventType = "payment.expired"
	PaymentCompletedEvent EventType = "payment.completed"
)

// News is what one event says, read and checked. Strings may be empty where
// the event was silent.
type News struct {
	InboxID        uuid.UUID // zero: it comes from no event, and Cause says from whom
	Key            string    // the event's id, or sha256:… of one without
	Cause          string    // of what comes from no event: checkout:payqi, poll:payqi, admin:NAME
	Type           EventType
	Created        int64 // signed Unix seconds, 0 when absent: a hint, never a reason to refuse
	PaymentID      string
	OrderRef       string // metadata.order_id
	Amount         decimal.NullDecimal
	Currency       string
	TxHash         string
	PayAddress     string
	DestinationTag *int64
	Again          string // by whom and why it was put to work again; empty for one that comes by itself

	// Trouble, when not nil, says why this must not be applied: the order it
	// names, if any, is held and a person looks at it.
	Trouble *Trouble
}

// Trouble is an event that cannot be believed as it stands.
type Trouble struct {
	Code   Code // UNREADABLE_EVENT, EVENT_CONFLICT
	Reason string
}

func (n News) cause() string { return cmp.Or(n.Cause, "event:"+n.Key) }

// inbox is the row of the event, nil when the news comes from none.
func (n News) inbox() *uuid.UUID {
	if n.InboxID == uuid.Nil {
		return nil
	}
	return &n.InboxID
}

// again is what the timeline adds for an event that a person put to work again.
func (n News) again() string {
	if n.Again == "" {
		return ""
	}
	return " (" + n.Again + ")"
}

// Counted is how the money of a payment counts.
type Counted string

// The ways a payment counts.
const (
	CountedNo        Counted = "no"        // not completed
	CountedMatched   Counted = "matched"   // towards its order
	CountedUnmatched Counted = "unmatched" // received, but a person must say what for
	CountedReused    Counted = "reused"    // its transaction counts for another payment already
)

// Payment is a row of payments: what PayQI has told us about one payment.
// Facts only grow. The *Seen fields hold the newest signed "created" of each
// type of event, 0 when it named none, nil when no such event came.
type Payment struct {
	ID             string              `json:"id"`
	OrderID        string              `json:"order_id"`    // empty: a person decided that it belongs to none
	AttachedBy     *string             `json:"attached_by"` // who linked it, whatever order its events name; nil: PayQI did
	CreatedSeen    *int64              `json:"created_seen"`
	PendingSeen    *int64              `json:"pending_seen"`
	FailedSeen     *int64              `json:"failed_seen"`
	ExpiredSeen    *int64              `json:"expired_seen"`
	CompletedSeen  *int64              `json:"completed_seen"`
	Amount         decimal.NullDecimal `json:"amount"` // Amount, Currency and TxHash of the first completed
	Currency       *string             `json:"currency"`
	TxHash         *string             `json:"tx_hash"`
	PayAddress     *string             `json:"pay_address"` // PayAddress and DestinationTag as first told
	DestinationTag *int64              `json:"destination_tag"`
	Counted        Counted             `json:"counted"`
	Refunded       decimal.Decimal     `json:"refunded"` // of Amount, what goes or went back
	Kept           decimal.Decimal     `json:"kept"`     // of Amount, what a person decided to keep
	Outlived       bool                `json:"outlived"` // it had failed or expired when the order was reopened
	FirstSeenAt    time.Time           `json:"first_seen_at"`
	CompletedAt    *time.Time          `json:"completed_at"` // when we learnt of it
}

// Standing is the highest thing ever heard of a payment.
type Standing int

// The standings, in rising order.
const (
	StandsNowhere Standing = iota
	StandsCreated
	StandsPending
	StandsFailed
	StandsExpired
	StandsCompleted
)

func (p *Payment) stands() Standing {
	switch {
	case p.CompletedSeen != nil:
		return StandsCompleted
	case p.ExpiredSeen != nil:
		return StandsExpired
	case p.FailedSeen != nil:
		return StandsFailed
	case p.PendingSeen != nil:
		return StandsPending
	case p.CreatedSeen != nil:
		return StandsCreated
	}
	return StandsNowhere
}

// learnMoney keeps what the first completed event says.
func (p *Payment) learnMoney(n News, now time.Time) {
	p.Amount, p.Currency, p.CompletedAt = n.Amount, &n.Currency, &now
	if n.TxHash != "" {
		p.TxHash = &n.TxHash
	}
}

// complete books a payment that completes, by a person's decision, without
// its event being applied.
func (p *Payment) complete(n News, counted Counted, now time.Time) {
	p.learnMoney(n, now)
	p.Counted = counted
	p.hear(n.Type, n.Created)
}

// left is what of a payment's money was neither sent back nor kept.
func (p *Payment) left() decimal.Decimal { return p.Amount.Decimal.Sub(p.Refunded).Sub(p.Kept) }

// hear notes that an event of this type came, with the newest created.
func (p *Payment) hear(t EventType, created int64) {
	seen := map[EventType]**int64{
		PaymentCreatedEvent: &p.CreatedSeen, PaymentPendingEvent: &p.PendingSeen, PaymentFailedEvent: &p.FailedSeen,
		PaymentExpiredEvent: &p.ExpiredSeen, PaymentCompletedEvent: &p.CompletedSeen,
	}[t]
	if *seen == nil || **seen < created {
		*seen = &created
	}
}

// learnAddress keeps the first address and tag told, and reports whether n
// tells of another.
func (p *Payment) learnAddress(n News) (differs bool) {
	if n.PayAddress != "" {
		if p.PayAddress == nil {
			p.PayAddress = &n.PayAddress
		}
		differs = *p.PayAddress != n.PayAddress
	}
	if n.DestinationTag != nil {
		if p.DestinationTag == nil {
			p.DestinationTag = n.DestinationTag
		}
		differs = differs || *p.DestinationTag != *n.DestinationTag
	}
	return differs
}

// regressed reports whether PayQI said failed or expired after it had said
// completed, by its own signed times. An older one is only late news.
func (p *Payment) regressed() bool {
	return p.CompletedSeen != nil && *p.CompletedSeen > 0 && max(at(p.FailedSeen), at(p.ExpiredSeen)) > *p.CompletedSeen
}

func at(seen *int64) int64 {
	if seen == nil {
		return 0
	}
	return *seen
}

// before orders completed payments by (created, id).
func (p *Payment) before(q *Payment) int {
	return cmp.Or(cmp.Compare(at(p.CompletedSeen), at(q.CompletedSeen)), cmp.Compare(p.ID, q.ID))
}

// claim is how a transaction is recognised: without case.
func claim(txHash string) string { return strings.ToUpper(txHash) }
