// Package notify writes letters to customers and sends them by SMTP. A letter
// is posted inside the transaction of the thing it tells about, and sent later
// by a job, so there is never news of something that did not happen. It does
// not know what an order is: it is handed an address and facts.
package notify

import (
	"time"

	"github.com/google/uuid"
)

// Kind names a letter and its templates, templates/KIND.html and KIND.txt.
type Kind string

// The letters of docs/payqi-webhook-guide.txt, "Complete Handler Example", and
// those a shop needs around them.
const (
	OrderReceived    Kind = "order_received"    // with what to pay and, once known, where
	PaymentConfirmed Kind = "payment_confirmed" // paid, we are getting it ready
	PaymentFailed    Kind = "payment_failed"    // with a way to pay
	OrderExpired     Kind = "order_expired"
	OrderCancelled   Kind = "order_cancelled"
	OrderShipped     Kind = "order_shipped" // with tracking
	GoodsGone        Kind = "goods_gone"    // we have your money but the goods are gone: choose
	RefundSent       Kind = "refund_sent"   // one for each refund: what went where, by which transaction
)

// Facts is what a letter may say, as it was when the letter was posted.
// Amounts are exact decimal strings in Currency, empty when they do not apply.
type Facts struct {
	OrderID        string     `json:"order_id"`
	CustomerName   string     `json:"customer_name,omitempty"`
	Currency       string     `json:"currency"`
	Total          string     `json:"total"`
	Got            string     `json:"got,omitempty"`        // received so far, when more than nothing
	Missing        string     `json:"missing,omitempty"`    // still to pay, when something was received
	RefundDue      string     `json:"refund_due,omitempty"` // to be paid back
	PayAddress     string     `json:"pay_address,omitempty"`
	DestinationTag string     `json:"destination_tag,omitempty"`
	PayBy          *time.Time `json:"pay_by,omitempty"`     // until when the goods are kept
	StatusURL      string     `json:"status_url,omitempty"` // the customer's page
	TxHash         string     `json:"tx_hash,omitempty"`
	Carrier        string     `json:"carrier,omitempty"`
	TrackingNumber string     `json:"tracking_number,omitempty"`
	Reason         string     `json:"reason,omitempty"` // of a cancellation
	Refund         *Repayment `json:"refund,omitempty"` // of a refund that was sent
	Items          []Line     `json:"items"`
	Parcel         []Line     `json:"parcel,omitempty"` // what is in this parcel, when it is not the whole order; without prices
}

// Repayment is money that was sent back to the customer.
type Repayment struct {
	Amount         string `json:"amount"`
	Currency       string `json:"currency"` // of what was paid, whatever the order's is
	Address        string `json:"address"`
	DestinationTag string `json:"destination_tag,omitempty"`
	TxHash         string `json:"tx_hash"`
}

// Line is one line of an order in a letter.
type Line struct {
	Name     string `json:"name"`
	Quantity int64  `json:"quantity"`
	Price    string `json:"price,omitempty"` // of the whole line
}

// State is where a letter stands.
//
//	queued ─► sending ─► sent | failed | unknown ─► (30 min) sending, once more
//	   └─► dropped: the order outgrew it before it was sent
type State string

// The states a letter can be in.
const (
	Queued  State = "queued"
	Sending State = "sending" // an attempt is under way, or its process died
	Sent    State = "sent"    // the server took it
	Failed  State = "failed"  // refused for good, or attempts used up
	Unknown State = "unknown" // the connection broke where nobody can tell
	Dropped State = "dropped"
)

// Letter is a row of letters. There is at most one of a kind per order and
// what it is about.
type Letter struct {
	ID        uuid.UUID  `json:"id"`
	OrderID   string     `json:"order_id"`
	Kind      Kind       `json:"kind"`
	About     string     `json:"about"`   // payment, shipment or resend; "" for the order itself
	Address   string     `json:"address"` // the customer's e-mail address
	Facts     Facts      `json:"facts" gorm:"serializer:json"`
	State     State      `json:"state"`
	Attempts  int        `json:"attempts"`
	NotBefore time.Time  `json:"not_before"`
	RungAt    time.Time  `json:"rung_at"`
	MessageID string     `json:"message_id"` // stable over every attempt, without <>
	Subject   string     `json:"subject"`    // subject, text and html: the rendered copy
	Text      string     `json:"text"`
	HTML      string     `json:"html"`
	LastError string     `json:"last_error"`
	PostedAt  time.Time  `json:"posted_at"`
	StartedAt *time.Time `json:"started_at"`
	SentAt    *time.Time `json:"sent_at"`
	ResendOf  *uuid.UUID `json:"resend_of"` // the letter it tells again
	PostedBy  string     `json:"posted_by"` // admin:NAME who asked for a resend, else ""
	Note      string     `json:"note"`      // why
}
