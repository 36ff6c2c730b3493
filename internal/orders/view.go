package orders

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/web"
)

// View is an order as the admin API promises it. Columns may change; this may not.
type View struct {
	ID                string            `json:"id" example:"1001" doc:"The shop's own, or made up; PayQI's metadata.order_id"`
	Status            Status            `json:"status" enum:"pending,paid,payment_failed,expired,cancelled,fulfilled" doc:"Where it stands as a whole"`
	PaymentStatus     PaymentStatus     `json:"payment_status" enum:"refunded,overpaid,refund_due,paid,underpaid,awaiting_confirmation,unpaid" doc:"How it stands with the money"`
	FulfillmentStatus FulfillmentStatus `json:"fulfillment_status" enum:"none,on_hold,queued,partial,fulfilled,delivered,returned" doc:"How it stands with the goods; on_hold: holds says why"`
	Currency          string            `json:"currency" example:"XRP" doc:"Of all amounts"`
	Total             web.Money         `json:"total" doc:"What it costs: the sum of its lines"`
	AmountDue         web.Money         `json:"amount_due" doc:"What the order costs now: its total, less lines given up, or what a person accepted as full payment"`
	AmountPaid        web.Money         `json:"amount_paid" doc:"What completed payments brought, less what was refunded or kept"`
	RefundDue         web.Money         `json:"refund_due" doc:"Of amount_paid, what no goods stand against and nobody has decided about"`
	PaymentID         *string           `json:"payment_id" doc:"PayQI's payment that paid it, the first of several"`
	TxHash            *string           `json:"tx_hash" doc:"The transaction of that payment, once known"`
	PayAddress        *string           `json:"pay_address" doc:"Where the customer pays, once PayQI has said so"`
	DestinationTag    *string           `json:"destination_tag" doc:"The tag the customer must name with the payment"`
	Customer          CustomerView      `json:"customer" doc:"Who ordered"`
	Items             []ItemView        `json:"items" doc:"What was ordered"`
	Payments          []PaymentView     `json:"payments" doc:"All of PayQI's payments for it, also those that failed"`
	Shipments         []ShipmentView    `json:"shipments" doc:"What was sent"`
	Returns           []ReturnView      `json:"returns" doc:"What of it came back"`
	Refunds           []RefundView      `json:"refunds" doc:"What goes back or was decided to stay"`
	Holds             []HoldView        `json:"holds" doc:"Why a paid order does not ship"`
	Metadata          map[string]any    `json:"metadata" doc:"Yours, as it was given"`
	StatusURL         string            `json:"status_url" doc:"The customer's page; whoever has the link sees it"`
	CreatedAt         time.Time         `json:"created_at" doc:"When it was opened"`
	UpdatedAt         time.Time         `json:"updated_at" doc:"When anything about it changed last"`
	ExpiresAt         time.Time         `json:"expires_at" doc:"When an unpaid order gives its stock back"`
	PaidAt            *time.Time        `json:"paid_at" doc:"When it became paid in full"`
	FulfilledAt       *time.Time        `json:"fulfilled_at" doc:"When its last line was sent"`
	CancelledAt       *time.Time        `json:"cancelled_at" doc:"When it was cancelled"`

	gone    *gone // nil unless it is held because its goods are gone
	version int   // rises with every change: each is a step of the timeline
}

// CustomerView is who ordered.
type CustomerView struct {
	Email string `json:"email" doc:"Where letters go"`
	Name  string `json:"name" doc:"How letters address the customer; may be empty"`
}

// ItemView is one line of an order.
type ItemView struct {
	Line      int       `json:"line" doc:"Counts the lines of the order from 1"`
	SKU       string    `json:"sku" doc:"The product"`
	Name      string    `json:"name" doc:"Of the product, when it was ordered"`
	Quantity  int64     `json:"quantity" doc:"How many units"`
	UnitPrice web.Money `json:"unit_price" doc:"Of one unit, in the currency of the order"`
	Shipped   bool      `json:"shipped" doc:"Whether it was sent"`
	GivenUp   bool      `json:"given_up" doc:"The goods were not to be had; the price is due back"`
	Returned  bool      `json:"returned" doc:"It came back"`
}

// PaymentView is one of PayQI's payments for an order.
type PaymentView struct {
	ID          string     `json:"id" doc:"PayQI's own"`
	State       string     `json:"state" enum:"created,pending,failed,expired,completed" doc:"The highest PayQI has told of it"`
	Amount      *web.Money `json:"amount" doc:"Null until it completes"`
	Currency    *string    `json:"currency" doc:"Of the amount; null until it completes"`
	TxHash      *string    `json:"tx_hash" doc:"Its transaction, once known"`
	Counted     Counted    `json:"counted" enum:"no,matched,unmatched,reused" doc:"Whether its money counts towards the order"`
	Refunded    web.Money  `json:"refunded" doc:"Of amount, what goes or went back"`
	Kept        web.Money  `json:"kept" doc:"Of amount, what a person decided to keep"`
	CompletedAt *time.Time `json:"completed_at" doc:"When we learnt that it completed"`
}

// ShipmentView is one parcel.
type ShipmentView struct {
	ID             string     `json:"id" doc:"Of the parcel"`
	Carrier        string     `json:"carrier" doc:"Who carries it; may be empty"`
	TrackingNumber string     `json:"tracking_number" doc:"Of the parcel; may be empty"`
	Lines          []int      `json:"lines" doc:"The lines of the order in it"`
	ShippedAt      time.Time  `json:"shipped_at" doc:"When it was reported"`
	DeliveredAt    *time.Time `json:"delivered_at" doc:"When it arrived; null until somebody says so"`
}

// HoldView names the case that holds an order.
type HoldView struct {
	CaseID  string `json:"case_id" doc:"The case in /api/v1/cases"`
	Code    Code   `json:"code" doc:"Its kind"`
	Summary string `json:"summary" doc:"What it is about, in a sentence"`
}

var standingNames = map[Standing]string{
	StandsNowhere: "created", StandsCreated: "created", StandsPending: "pending",
	StandsFailed: "failed", StandsExpired: "expired", StandsCompleted: "completed",
}

func (b *Book) view(o Order) View {
	v := View{
		ID: o.ID, Status: o.Status, PaymentStatus: o.PaymentStatus, FulfillmentStatus: o.FulfillmentStatus, Currency: o.Currency,
		Total: web.Money{Decimal: o.Total}, AmountDue: web.Money{Decimal: o.owed()}, AmountPaid: web.Money{Decimal: o.Got}, RefundDue: web.Money{Decimal: o.RefundDue},
		PaymentID: o.PaymentID, TxHash: o.TxHash, PayAddress: o.PayAddress,
		Customer: CustomerView{Email: o.CustomerEmail, Name: o.CustomerName},
		Items:    []ItemView{}, Payments: []PaymentView{}, Shipments: []ShipmentView{}, Returns: []ReturnView{}, Refunds: []RefundView{}, Holds: []HoldView{},
		Metadata: o.Metadata, StatusURL: b.statusURL(&o), CreatedAt: o.CreatedAt.UTC(), UpdatedAt: o.UpdatedAt.UTC(), ExpiresAt: o.Deadline.UTC(),
		PaidAt: utc(o.PaidAt), FulfilledAt: utc(o.FulfilledAt), CancelledAt: utc(o.CancelledAt),
		version: o.TimelineLength,
	}
	if o.DestinationTag != nil {
		tag := fmt.Sprint(*o.DestinationTag)
		v.DestinationTag = &tag
	}
	return v
}

func (b *Book) statusURL(o *Order) string { return b.terms.PublicURL + "/o/" + o.StatusToken }

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// views completes orders with their parts: one query for each kind of part,
// however many orders there are.
func (b *Book) views(ctx context.Context, rows []Order) ([]View, error) {
	vs := make([]View, len(rows))
	at := make(map[string]*View, len(rows))
	ids := make([]string, len(rows))
	for i, o := range rows {
		vs[i] = b.view(o)
		ids[i], at[o.ID] = o.ID, &vs[i]
	}
	if len(ids) == 0 {
		return vs, nil
	}
	for _, add := range []func(context.Context, []string, map[string]*View) error{b.addItems, b.addPayments, b.addShipments, b.addReturns, b.addRefunds, b.addHolds, b.addGone} {
		if err := add(ctx, ids, at); err != nil {
			return nil, database.Classify(err)
		}
	}
	return vs, nil
}

func (b *Book) addItems(ctx context.Context, ids []string, at map[string]*View) error {
	var items []Item
	err := b.db.Read(ctx).Raw(`SELECT i.*, s.shipment_id, r.return_id FROM order_items i LEFT JOIN shipment_lines s USING (order_id, line) LEFT JOIN return_lines r USING (order_id, line)
		WHERE i.order_id = ANY(?) ORDER BY i.order_id, i.line`, database.Array(ids)).Scan(&items).Error
	if err != nil {
		return fmt.Errorf("lines of orders: %w", err)
	}
	for _, it := range items {
		v := at[it.OrderID]
		v.Items = append(v.Items, ItemView{
			Line: it.Line, SKU: it.SKU, Name: it.Name, Quantity: it.Quantity, UnitPrice: web.Money{Decimal: it.UnitPrice}, Shipped: it.shipped(), GivenUp: it.GivenUp, Returned: it.ReturnID != nil,
		})
	}
	return nil
}

func (b *Book) addPayments(ctx context.Context, ids []string, at map[string]*View) error {
	var payments []Payment
	err := b.db.Read(ctx).Raw(`SELECT * FROM payments WHERE order_id = ANY(?) ORDER BY first_seen_at, id`, database.Array(ids)).Scan(&payments).Error
	if err != nil {
		return fmt.Errorf("payments of orders: %w", err)
	}
	for _, p := range payments {
		v := at[p.OrderID]
		pv := PaymentView{
			ID: p.ID, State: standingNames[p.stands()], Currency: p.Currency, TxHash: p.TxHash, Counted: p.Counted, CompletedAt: utc(p.CompletedAt),
			Refunded: web.Money{Decimal: p.Refunded}, Kept: web.Money{Decimal: p.Kept},
		}
		if p.Amount.Valid {
			pv.Amount = &web.Money{Decimal: p.Amount.Decimal}
		}
		v.Payments = append(v.Payments, pv)
	}
	return nil
}

func (b *Book) addShipments(ctx context.Context, ids []string, at map[string]*View) error {
	var rows []struct {
		Shipment
		Line int
	}
	err := b.db.Read(ctx).Raw(`SELECT s.*, l.line FROM shipments s JOIN shipment_lines l ON l.shipment_id = s.id
		WHERE s.order_id = ANY(?) ORDER BY s.shipped_at, s.id, l.line`, database.Array(ids)).Scan(&rows).Error
	if err != nil {
		return fmt.Errorf("shipments of orders: %w", err)
	}
	for _, r := range rows {
		v := at[r.OrderID]
		if n := len(v.Shipments); n == 0 || v.Shipments[n-1].ID != r.ID.String() {
			v.Shipments = append(v.Shipments, viewOfShipment(r.Shipment))
		}
		last := &v.Shipments[len(v.Shipments)-1]
		last.Lines = append(last.Lines, r.Line)
	}
	return nil
}

func (b *Book) addReturns(ctx context.Context, ids []string, at map[string]*View) error {
	var rows []struct {
		Return
		Line int
	}
	err := b.db.Read(ctx).Raw(`SELECT r.*, l.line FROM returns r JOIN return_lines l ON l.return_id = r.id
		WHERE r.order_id = ANY(?) ORDER BY r.id, l.line`, database.Array(ids)).Scan(&rows).Error
	if err != nil {
		return fmt.Errorf("returns of orders: %w", err)
	}
	for _, r := range rows {
		v := at[r.OrderID]
		if n := len(v.Returns); n == 0 || v.Returns[n-1].ID != r.ID.String() {
			v.Returns = append(v.Returns, viewOfReturn(r.Return, nil))
		}
		last := &v.Returns[len(v.Returns)-1]
		last.Lines = append(last.Lines, r.Line)
	}
	return nil
}

func (b *Book) addRefunds(ctx context.Context, ids []string, at map[string]*View) error {
	var rows []Refund
	err := b.db.Read(ctx).Raw(`SELECT * FROM refunds WHERE order_id = ANY(?) ORDER BY id`, database.Array(ids)).Scan(&rows).Error
	if err != nil {
		return fmt.Errorf("refunds of orders: %w", err)
	}
	for _, r := range rows {
		v := at[*r.OrderID]
		v.Refunds = append(v.Refunds, viewOfRefund(r))
	}
	return nil
}

func viewOfShipment(s Shipment) ShipmentView {
	return ShipmentView{ID: s.ID.String(), Carrier: s.Carrier, TrackingNumber: s.TrackingNumber, Lines: []int{}, ShippedAt: s.ShippedAt.UTC(), DeliveredAt: utc(s.DeliveredAt)}
}

func (b *Book) addHolds(ctx context.Context, ids []string, at map[string]*View) error {
	var cases []Case
	err := b.db.Read(ctx).Raw(`SELECT id, order_id, code, summary, facts FROM cases
		WHERE order_id = ANY(?) AND state = 'open' AND blocks ORDER BY id`, database.Array(ids)).Scan(&cases).Error
	if err != nil {
		return fmt.Errorf("holds of orders: %w", err)
	}
	for _, c := range cases {
		v := at[*c.OrderID]
		v.Holds = append(v.Holds, HoldView{CaseID: c.ID.String(), Code: c.Code, Summary: c.Summary})
		if c.Code == StockGone {
			v.gone = newGone(c)
		}
	}
	return nil
}

// CaseView is a case as the admin API promises it.
type CaseView struct {
	ID         string            `json:"id" doc:"Of the case; in the order of time"`
	Code       Code              `json:"code" doc:"Its kind, such as UNDERPAID"`
	Severity   Severity          `json:"severity" enum:"info,warning,critical" doc:"info: good to know; warning: money or goods wait for a decision; critical: money may be in the wrong place"`
	Blocks     bool              `json:"blocks" doc:"The order does not ship while the case is open"`
	State      string            `json:"state" enum:"open,closed" doc:"Whether it still waits for a decision"`
	OrderID    *string           `json:"order_id" doc:"The order it is about, which may not exist here"`
	PaymentID  *string           `json:"payment_id" doc:"PayQI's payment it is about"`
	EventID    *uuid.UUID        `json:"event_id" doc:"The id of the event in /api/v1/events"`
	Summary    string            `json:"summary" doc:"What it is about, in a sentence"`
	Facts      map[string]string `json:"facts" doc:"What was expected, what came"`
	Actions    []string          `json:"actions" doc:"What a person may decide"`
	OpenedAt   time.Time         `json:"opened_at" doc:"When it was found"`
	ClosedAt   *time.Time        `json:"closed_at" doc:"When it was decided, or settled itself"`
	ClosedBy   *string           `json:"closed_by" doc:"Who decided: admin:NAME, or quayside when it settled itself"`
	Resolution *string           `json:"resolution" doc:"What was decided"`
}

func viewOfCase(c Case) CaseView {
	v := CaseView{
		ID: c.ID.String(), Code: c.Code, Severity: c.Severity, Blocks: c.Blocks, State: c.State, OrderID: c.OrderID,
		PaymentID: c.PaymentID, EventID: c.InboxID, Summary: c.Summary, Facts: c.Facts, Actions: Rules[c.Code].Actions,
		OpenedAt: c.OpenedAt.UTC(), ClosedAt: utc(c.ClosedAt), ClosedBy: c.ClosedBy, Resolution: c.Resolution,
	}
	if !c.open() || v.Actions == nil {
		v.Actions = []string{}
	}
	return v
}
