package orders

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
)

// Code names a kind of case: what a person must decide.
type Code string

// The codes of cases. The table below says what each one does.
const (
	LatePaid         Code = "LATE_PAID"
	StockGone        Code = "STOCK_GONE"
	UnderpaidCase    Code = "UNDERPAID"
	OverpaidCase     Code = "OVERPAID"
	WrongAddress     Code = "WRONG_ADDRESS"
	WrongCurrency    Code = "WRONG_CURRENCY"
	StaleEvent       Code = "STALE_EVENT"
	UnknownType      Code = "UNKNOWN_TYPE"
	DuplicatePayment Code = "DUPLICATE_PAYMENT"
	OrderMismatch    Code = "ORDER_MISMATCH"
	UnknownOrder     Code = "UNKNOWN_ORDER"
	CancelledPaid    Code = "CANCELLED_PAID"
	Regression       Code = "REGRESSION"
	AmountChanged    Code = "AMOUNT_CHANGED"
	TxReused         Code = "TX_REUSED"
	EventConflict    Code = "EVENT_CONFLICT"
	UnreadableEvent  Code = "UNREADABLE_EVENT"
	EventDead        Code = "EVENT_DEAD"
	FulfilmentDead   Code = "FULFILMENT_DEAD"
	SilentPayment    Code = "SILENT_PAYMENT"
	NoEvents         Code = "NO_EVENTS"
	MailDead         Code = "MAIL_DEAD"
	StockDrift       Code = "STOCK_DRIFT"
)

// Severity is how soon a person should look.
type Severity string

// The severities.
const (
	Info     Severity = "info"     // nothing is wrong, but somebody may want to know
	Warning  Severity = "warning"  // money or goods wait for a decision
	Critical Severity = "critical" // money may be in the wrong place
)

// Rule is what a kind of case means.
type Rule struct {
	Severity Severity
	Blocks   bool     // the order is not shipped while the case is open
	Returns  bool     // every decision takes its reason away: a new reason opens it again
	Actions  []string // what a person may choose, see decide.go
}

// Rules is the table of cases.
var Rules = map[Code]Rule{
	LatePaid:         {Info, false, false, []string{actAcknowledge}},
	StockGone:        {Critical, true, true, []string{actRetryStock, actPart, actWait, actRefund}},
	UnderpaidCase:    {Warning, true, true, []string{actWait, actAccept, actRefund}},
	OverpaidCase:     {Warning, false, true, []string{actRefund, actKeep}},
	WrongAddress:     {Critical, true, false, []string{actMatch, actRefund}},
	WrongCurrency:    {Warning, true, false, []string{actAccept, actRefund}},
	StaleEvent:       {Warning, false, false, []string{actRelease, actIgnore}},
	UnknownType:      {Info, false, false, []string{actAcknowledge}},
	DuplicatePayment: {Warning, false, false, []string{actRefund, actKeep}},
	OrderMismatch:    {Critical, true, false, []string{actAttach, actRefund, actIgnore}},
	UnknownOrder:     {Critical, false, false, []string{actAttach, actRefund, actIgnore}},
	CancelledPaid:    {Warning, false, true, []string{actRefund, actReopen, actKeep}},
	Regression:       {Critical, true, false, []string{actShip, actRefund}},
	AmountChanged:    {Critical, true, false, []string{actKeepFirst, actRefund}},
	TxReused:         {Critical, true, false, []string{actAcknowledge}},
	EventConflict:    {Critical, true, false, []string{actKeepFirst}},
	UnreadableEvent:  {Warning, true, true, []string{actRelease, actIgnore}},
	EventDead:        {Critical, true, true, []string{actRelease, actIgnore}},
	FulfilmentDead:   {Critical, true, false, []string{actRetry, actReroute}},
	SilentPayment:    {Warning, false, false, []string{actAcknowledge, actAskAgain}},
	NoEvents:         {Critical, false, true, []string{actAcknowledge}},
	MailDead:         {Warning, false, true, []string{actRetry, actReaddress, actAcknowledge}},
	StockDrift:       {Critical, false, true, []string{actRepair}},
}

// Case is a row of cases. An open one that blocks is a hold on its order.
type Case struct {
	ID         uuid.UUID         `json:"id"`
	Code       Code              `json:"code"`
	Key        string            `json:"key"` // what it is about; one case per key
	Severity   Severity          `json:"severity"`
	Blocks     bool              `json:"blocks"`
	State      string            `json:"state"` // open, closed
	OrderID    *string           `json:"order_id"`
	PaymentID  *string           `json:"payment_id"`
	InboxID    *uuid.UUID        `json:"inbox_id"`
	Summary    string            `json:"summary"` // one plain sentence
	Facts      map[string]string `json:"facts" gorm:"serializer:json"`
	OpenedAt   time.Time         `json:"opened_at"`
	ClosedAt   *time.Time        `json:"closed_at"`
	ClosedBy   *string           `json:"closed_by"`  // admin:NAME, or quayside when it settled itself
	Resolution *string           `json:"resolution"` // what was chosen
}

const (
	caseOpen   = "open"
	caseClosed = "closed"
	// itself closes cases whose reason has gone: an underpayment made good.
	itself = "quayside"
)

func (c *Case) open() bool { return c.State == caseOpen }
func (c *Case) hold() bool { return c.open() && c.Blocks }

// matter is a case about to be opened.
type matter struct {
	code    Code
	about   string // with the code the key: an order, a payment, an event
	payment string
	inbox   *uuid.UUID
	summary string
	facts   map[string]string
}

func (m matter) key() string { return string(m.code) + "/" + m.about }

func (m matter) row(order string, now time.Time) *Case {
	rule := Rules[m.code]
	c := &Case{
		ID: uuid.Must(uuid.NewV7()), Code: m.code, Key: m.key(), Severity: rule.Severity, Blocks: rule.Blocks,
		State: caseOpen, InboxID: m.inbox, Summary: m.summary, Facts: m.facts, OpenedAt: now,
	}
	if order != "" {
		c.OrderID = &order
	}
	if m.payment != "" {
		c.PaymentID = &m.payment
	}
	if c.Facts == nil {
		c.Facts = map[string]string{}
	}
	return c
}

// Alarm is a case that needs no order's lock: it holds nothing by itself.
type Alarm struct {
	Code      Code
	About     string // with the code what makes it one case: an event, a payment
	OrderID   string // may be empty, or name an order that does not exist
	PaymentID string
	InboxID   uuid.UUID // uuid.Nil when it is about no event
	Summary   string
	Facts     map[string]string
}

// RaiseUnknownOrder opens the case of money that nothing matches: that of the
// completed events given, once for each payment.
func (b *Book) RaiseUnknownOrder(tx database.Tx, news []News) error {
	alike, err := b.LookAlikes(tx, news)
	if err != nil {
		return err
	}
	var rows []*Case
	for _, n := range news {
		rows = append(rows, unknownOrder(n.PaymentID, n.InboxID, alike[n.InboxID]).row("", tx.Now))
	}
	return raiseCases(tx, rows)
}

// Key is the case's key.
func (a Alarm) Key() string { return matter{code: a.Code, about: a.About}.key() }

// Raise opens cases that hold no order, each once: an open one learns what is
// new, a decided one stays as it is, but for those that may come back.
func (b *Book) Raise(tx database.Tx, alarms []Alarm) error { return raise(tx, alarms) }

func raise(tx database.Tx, alarms []Alarm) error {
	var rows []*Case
	for _, a := range alarms {
		m := matter{code: a.Code, about: a.About, payment: a.PaymentID, inbox: News{InboxID: a.InboxID}.inbox(), summary: a.Summary, facts: a.Facts}
		rows = append(rows, m.row(a.OrderID, tx.Now))
	}
	return raiseCases(tx, rows)
}

func raiseCases(tx database.Tx, rows []*Case) error {
	slices.SortFunc(rows, func(c, d *Case) int { return strings.Compare(c.Key, d.Key) })
	rows = slices.CompactFunc(rows, func(c, d *Case) bool { return c.Key == d.Key }) // one statement cannot write a row twice
	err := database.InsertOr(tx, "cases", caseColumns, rows, `ON CONFLICT (key) DO UPDATE SET state = 'open', closed_at = NULL, closed_by = NULL, resolution = NULL,
			summary = excluded.summary, facts = excluded.facts
		WHERE cases.code IN ('`+string(UnreadableEvent)+`', '`+string(EventDead)+`', '`+string(MailDead)+`', '`+string(StockDrift)+`', '`+string(NoEvents)+`')
			AND (cases.state, cases.summary, cases.facts) IS DISTINCT FROM ('open', excluded.summary, excluded.facts)`)
	if err != nil {
		return fmt.Errorf("raise cases: %w", err)
	}
	return nil
}

// Quiet closes cases, by key, whose reason has gone.
func (b *Book) Quiet(tx database.Tx, keys []string) error {
	return b.CloseCases(tx, keys, itself, "settled itself")
}

// CloseCases closes cases, by key, with what was chosen and by whom. One that
// holds an order stays open: lifting a hold takes the order's lock, since goods
// may have to be put up for shipment at once.
func (b *Book) CloseCases(tx database.Tx, keys []string, by, resolution string) error {
	return closeCases(tx, keys, by, resolution)
}

func closeCases(tx database.Tx, keys []string, by, resolution string) error {
	if len(keys) == 0 {
		return nil
	}
	err := tx.Exec(`UPDATE cases SET state = 'closed', closed_at = ?, closed_by = ?, resolution = ?
		WHERE key = ANY(?) AND state = 'open' AND (order_id IS NULL OR NOT blocks)`, tx.Now, by, resolution, database.Array(keys)).Error
	if err != nil {
		return fmt.Errorf("close cases: %w", err)
	}
	return nil
}
