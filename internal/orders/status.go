package orders

// Status is where an order stands. It is derived from the order's facts after
// every change (see File.derive); only cancellation and shipment are set.
//
//	             ┌───────────────┬──────────────────────────┐
//	             ▼               │ (new try)                │ (news extends the deadline)
//	open ──► pending ──────► payment_failed ──────► expired ┤
//	             │               │  deadline, or            │
//	             │               │  payment.expired         │
//	             ▼               ▼                          ▼
//	            paid ◄──────────────────────────────── (late money)
//	             │ every line shipped
//	             ▼
//	         fulfilled            cancelled: by a person, from all but fulfilled
//
// The words are those of docs/payqi-webhook-guide.txt, "Complete Handler Example".
type Status string

// The statuses of an order.
const (
	Pending       Status = "pending"
	PaymentFailed Status = "payment_failed"
	Paid          Status = "paid"
	Fulfilled     Status = "fulfilled"
	Expired       Status = "expired"
	Cancelled     Status = "cancelled"
)

// PaymentStatus is how the order stands with money.
type PaymentStatus string

// The payment statuses; the first that fits is shown.
const (
	Refunded             PaymentStatus = "refunded"   // all that came went back, or is decided to
	Overpaid             PaymentStatus = "overpaid"   // paid, with refund due
	RefundDue            PaymentStatus = "refund_due" // money for an order that takes none
	PaidUp               PaymentStatus = "paid"
	Underpaid            PaymentStatus = "underpaid"
	AwaitingConfirmation PaymentStatus = "awaiting_confirmation"
	Unpaid               PaymentStatus = "unpaid"
)

// FulfillmentStatus is how far the goods are.
type FulfillmentStatus string

// The fulfilment statuses this version reaches.
const (
	NotYet     FulfillmentStatus = "none"
	OnHold     FulfillmentStatus = "on_hold" // paid, but a case blocks shipping
	InQueue    FulfillmentStatus = "queued"  // the provider was asked to ship
	Partial    FulfillmentStatus = "partial"
	AllShipped FulfillmentStatus = "fulfilled"
	Delivered  FulfillmentStatus = "delivered" // all that shipped has arrived, or came back
	CameBack   FulfillmentStatus = "returned"  // all that shipped came back
)

// StockState is what an order holds of the shop's stock. It follows the status.
type StockState string

// The states of an order's stock.
const (
	StockReserved  StockState = "reserved"
	StockCommitted StockState = "committed"
	StockNone      StockState = "none"
)

// stock is what an order of status s holds; a paid one for which there was
// nothing left holds none all the same.
func (s Status) stock() StockState {
	switch s {
	case Pending, PaymentFailed:
		return StockReserved
	case Paid, Fulfilled:
		return StockCommitted
	case Expired, Cancelled:
	}
	return StockNone
}

// takesMoney reports whether what was got stands against goods.
func (s Status) takesMoney() bool { return s != Expired && s != Cancelled }
