package orders

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/inventory"
)

// Return is a row of returns: goods of an order that came back.
type Return struct {
	ID         uuid.UUID       `json:"id"`
	OrderID    string          `json:"order_id"`
	Restocked  bool            `json:"restocked"` // on the shelf again; false: written off
	Refund     decimal.Decimal `json:"refund"`    // how much less the order costs for it, in its currency
	Reason     string          `json:"reason"`
	ReturnedAt time.Time       `json:"returned_at"`
	ReturnedBy string          `json:"returned_by"` // admin:NAME
}

// returnedLine is a row of return_lines.
type returnedLine struct {
	OrderID  string    `json:"order_id"`
	Line     int       `json:"line"`
	ReturnID uuid.UUID `json:"return_id"`
}

// Label changes what a parcel of an order says about its way; nil leaves it.
// Errors: NotFound.
func (b *Book) Label(tx database.Tx, order string, id uuid.UUID, actor string, carrier, tracking *string) (*Shipment, error) {
	return b.changeShipment(tx, order, id, func(sh *Shipment) (change, error) {
		if carrier != nil {
			sh.Carrier = *carrier
		}
		if tracking != nil {
			sh.TrackingNumber = *tracking
		}
		return change{kind: "shipment_labelled", cause: actor, note: fmt.Sprintf("the parcel goes with %q, tracking number %q", sh.Carrier, sh.TrackingNumber)}, nil
	})
}

// Deliver records that a parcel of an order has arrived. Errors: NotFound;
// Conflict when it was reported before; Unprocessable when it would have arrived
// before it left, or in the future.
func (b *Book) Deliver(tx database.Tx, order string, id uuid.UUID, actor string, at time.Time) (*Shipment, error) {
	return b.changeShipment(tx, order, id, func(sh *Shipment) (change, error) {
		switch {
		case sh.DeliveredAt != nil:
			return change{}, fault.New(fault.Conflict, "shipment_delivered", "the parcel was reported as delivered on %s", sh.DeliveredAt.UTC().Format(time.RFC3339))
		case at.IsZero():
			at = tx.Now
		case at.Before(sh.ShippedAt.Truncate(time.Second)) || at.After(tx.Now):
			return change{}, fault.New(fault.Unprocessable, "invalid_delivery", "the parcel cannot have arrived then").
				With(fault.Field{Location: "delivered_at", Message: "must lie between the time it was shipped and now"})
		}
		sh.DeliveredAt, sh.DeliveredBy = &at, &actor
		return change{kind: "delivered", cause: actor, note: "the parcel has arrived"}, nil
	})
}

func (b *Book) changeShipment(tx database.Tx, order string, id uuid.UUID, how func(sh *Shipment) (change, error)) (*Shipment, error) {
	d, f, err := b.file(tx, order)
	if err != nil {
		return nil, err
	}
	var rows []Shipment
	if err := tx.Raw(`SELECT * FROM shipments WHERE id = ? AND order_id = ?`, id, order).Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("shipment %s: %w", id, err)
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "shipment_not_found", "order %s has no shipment %s", order, id)
	}
	sh := rows[0]
	c, err := how(&sh)
	if err != nil {
		return nil, err
	}
	for i := range f.Items {
		if it := &f.Items[i]; it.ShipmentID != nil && *it.ShipmentID == id {
			it.DeliveredAt = sh.DeliveredAt
		}
	}
	f.relabelled = append(f.relabelled, sh)
	f.settled(c, f.Status, d)
	return &sh, b.clear(tx, d)
}

// Homecoming is what a person reports to have come back.
type Homecoming struct {
	Lines   []int            // that came back
	Restock bool             // they go back on the shelf; false: they are written off
	Refund  *decimal.Decimal // how much less the order costs for it; nil: their price
	Reason  string
}

// TakeBack records that shipped lines of an order came back. What the order
// costs less for it becomes due back; a person decides about that money as about
// any other. Errors: NotFound; Conflict when a line has not shipped or came back
// before; Unprocessable naming the field.
func (b *Book) TakeBack(tx database.Tx, order, actor string, what Homecoming) (*Return, error) {
	d, f, err := b.file(tx, order)
	if err != nil {
		return nil, err
	}
	price := decimal.Zero
	var back []*Item
	for i, line := range what.Lines {
		it, err := f.returnable(i, line, what.Lines)
		if err != nil {
			return nil, err
		}
		back = append(back, it)
		price = price.Add(it.UnitPrice.Mul(decimal.NewFromInt(it.Quantity)))
	}
	if what.Refund == nil {
		price = decimal.Min(price, f.owed())
		what.Refund = &price
	}
	if what.Refund.IsNegative() || what.Refund.GreaterThan(f.owed()) {
		return nil, fault.New(fault.Unprocessable, "invalid_refund", "the order does not cost that much").
			With(fault.Field{Location: "refund", Message: fmt.Sprintf("must be 0 to %s, what the order costs now", Amount(f.owed()))})
	}
	r := Return{ID: uuid.Must(uuid.NewV7()), OrderID: order, Restocked: what.Restock, Refund: *what.Refund, Reason: what.Reason, ReturnedAt: d.now, ReturnedBy: actor}
	for _, it := range back {
		it.ReturnID = &r.ID
		if what.Restock {
			d.shelf.Restock(order, f.Reservation, it.Line, inventory.Line{SKU: it.SKU, Quantity: it.Quantity}, actor)
		}
	}
	f.Returned = f.Returned.Add(r.Refund)
	f.returns = append(f.returns, r)
	f.settle(change{kind: "returned", cause: actor, note: fmt.Sprintf("%d lines came back, %s; the order costs %s %s less: %s", len(back), r.fate(), Amount(r.Refund), f.Currency, r.Reason)}, d)
	return &r, b.clear(tx, d)
}

func (r Return) fate() string {
	if r.Restocked {
		return "back on the shelf"
	}
	return "written off"
}

// returnable is the i-th of the lines that came back.
func (f *File) returnable(i, line int, lines []int) (*Item, error) {
	if line < 1 || line > len(f.Items) || slices.Index(lines, line) != i {
		return nil, fault.New(fault.Unprocessable, "unknown_line", "order %s has no such line", f.ID).
			With(fault.Field{Location: fmt.Sprintf("items[%d]", i), Message: fmt.Sprintf("must be a line from 1 to %d, named once", len(f.Items))})
	}
	switch it := &f.Items[line-1]; {
	case !it.shipped():
		return nil, fault.New(fault.Conflict, "line_not_shipped", "line %d of order %s has not shipped: cancel the order instead", line, f.ID)
	case it.ReturnID != nil:
		return nil, fault.New(fault.Conflict, "line_returned", "line %d of order %s came back before", line, f.ID)
	default:
		return it, nil
	}
}
