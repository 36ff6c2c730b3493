package orders

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"gorm.io/gorm"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

// OrderPath names an order in a path. Huma fills exported embedded types only.
type OrderPath struct {
	ID string `path:"id" maxLength:"64" doc:"The order's id"`
}

type orderOutput struct{ Body View }

// AdminRoutes adds the operations on orders and cases to api.
func (b *Book) AdminRoutes(api huma.API) {
	tags := web.Tag(api, "Orders", "What customers ordered, how it stands with the money and with the goods")
	missing, both := []int{http.StatusNotFound}, []int{http.StatusNotFound, http.StatusConflict}
	huma.Register(api, huma.Operation{
		OperationID: "create-order", Security: web.Needs("orders:write"), Method: http.MethodPost, Path: "/api/v1/orders", DefaultStatus: http.StatusCreated,
		Summary: "Open an order and reserve its stock", Tags: tags, Errors: []int{http.StatusConflict},
		Description: "Every line is reserved, or nothing is. Give the id to PayQI as metadata.order_id when you create the payment, and the customer the link in status_url. " +
			"409 order_exists: there is one with this id; insufficient_stock: errors tells the shortage of each line.",
	}, b.create)
	huma.Register(api, huma.Operation{
		OperationID: "list-orders", Security: web.Needs("orders:read"), Method: http.MethodGet, Path: "/api/v1/orders", Summary: "List orders, newest first", Tags: tags,
		Description: "Filters add up. q searches, the others compare.",
	}, b.list)
	huma.Register(api, huma.Operation{
		OperationID: "show-order", Security: web.Needs("orders:read"), Method: http.MethodGet, Path: "/api/v1/orders/{id}", Summary: "Show an order", Tags: tags, Errors: missing,
		Description: "With its lines, payments and parcels, and with what holds it.",
	}, b.show)
	huma.Register(api, huma.Operation{
		OperationID: "show-timeline", Security: web.Needs("orders:read"), Method: http.MethodGet, Path: "/api/v1/orders/{id}/timeline",
		Summary: "Show what happened to an order", Tags: tags, Errors: missing,
		Description: "Every change, by whom or by which event, oldest first. What is written here is never changed.",
	}, b.timeline)
	huma.Register(api, huma.Operation{
		OperationID: "cancel-order", Security: web.Needs("orders:write"), Method: http.MethodPost, Path: "/api/v1/orders/{id}/cancellation", DefaultStatus: http.StatusOK,
		Summary: "Cancel an order that has not shipped", Tags: tags, Errors: both,
		Description: "What it held of stock is free again, what was paid is due back, and the customer is written to. " +
			"409 order_shipped: a line is on its way; order_cancelled: it was cancelled before.",
	}, b.cancel)
	huma.Register(api, huma.Operation{
		OperationID: "ship-order", Security: web.Needs("orders:write"), Method: http.MethodPost, Path: "/api/v1/orders/{id}/shipments", DefaultStatus: http.StatusCreated,
		Summary: "Report that lines of a paid order have shipped", Tags: tags, Errors: both,
		Description: "The customer gets a letter with the tracking number; when no line is left, the order is fulfilled. " +
			"409 order_not_paid; order_held: its open cases must be decided first; line_shipped: it was sent before.",
	}, b.ship)
	huma.Register(api, huma.Operation{
		OperationID: "list-cases", Security: web.Needs("orders:read"), Method: http.MethodGet, Path: "/api/v1/cases",
		Summary: "List what a person must decide, newest first", Tags: web.Tag(api, "Cases", "What Quayside does not decide by itself; an open one that blocks holds its order back"),
		Description: "Some settle themselves, such as an underpayment that is made good. Filters add up.",
	}, b.listCases)
	b.afterSaleRoutes(api)
	b.checkoutRoutes(api)
	b.decisionRoutes(api)
	b.explainRoute(api)
	b.statsRoute(api)
}

// NewOrder is the body of POST /orders.
type NewOrder struct {
	ID        string         `json:"id,omitempty" maxLength:"64" doc:"Your own, sent to PayQI as metadata.order_id; made up when absent" example:"1001"`
	Customer  NewCustomer    `json:"customer" doc:"Who orders"`
	Currency  string         `json:"currency" maxLength:"12" example:"XRP" doc:"Of all prices, in capitals"`
	Items     []NewItem      `json:"items" minItems:"1" maxItems:"100" doc:"What is ordered, 1 to 100 lines"`
	ExpiresIn *int64         `json:"expires_in,omitempty" minimum:"1" maximum:"604800" doc:"Seconds until an unpaid order gives its stock back"`
	Metadata  map[string]any `json:"metadata,omitempty" doc:"Yours; kept as it is"`
}

// NewCustomer is who orders.
type NewCustomer struct {
	Email string `json:"email" maxLength:"254" example:"ada@example.com" doc:"Where letters go"`
	Name  string `json:"name,omitempty" maxLength:"200" example:"Ada" doc:"How letters address the customer"`
}

// NewItem is one line of a NewOrder.
type NewItem struct {
	SKU       string    `json:"sku" maxLength:"64" example:"mug-blue" doc:"The product"`
	Quantity  int64     `json:"quantity" minimum:"1" maximum:"1000000" doc:"How many units"`
	UnitPrice web.Money `json:"unit_price" doc:"Of one unit, in the currency of the order; at most 6 decimals for XRP and 8 for others"`
}

// Draft is what n asks for, ready for [Book.Open].
func (n NewOrder) Draft() Draft {
	draft := Draft{ID: n.ID, Email: n.Customer.Email, Name: n.Customer.Name, Currency: n.Currency, Metadata: n.Metadata}
	for _, it := range n.Items {
		draft.Items = append(draft.Items, DraftItem{SKU: it.SKU, Quantity: it.Quantity, UnitPrice: it.UnitPrice.Decimal})
	}
	if n.ExpiresIn != nil {
		ttl := time.Duration(*n.ExpiresIn) * time.Second
		draft.TTL = &ttl
	}
	return draft
}

func (b *Book) create(ctx context.Context, in *struct{ Body NewOrder }) (*orderOutput, error) {
	return b.change(ctx, "", func(tx database.Tx) (string, error) {
		f, err := b.Open(tx, in.Body.Draft(), web.Actor(ctx))
		if err != nil {
			return "", err
		}
		return f.ID, nil
	})
}

// change carries out a request that changes the order id, or opens one when it
// is ""; do returns the order's id. It answers with the order.
func (b *Book) change(ctx context.Context, id string, do func(tx database.Tx) (string, error)) (*orderOutput, error) {
	return access.Once(ctx, b.db, func(ctx context.Context, tx database.Tx) (out *orderOutput, err error) {
		err = b.audited(ctx, tx, id, func() (string, error) {
			id, err := do(tx)
			if err == nil {
				out, err = b.answer(ctx, id)
			}
			return id, err
		})
		return out, err
	})
}

// audited carries out do, which changes the order id, or opens one when it is
// "", and returns its id, and says for the audit log what that has changed.
func (b *Book) audited(ctx context.Context, tx database.Tx, id string, do func() (string, error)) error {
	var before, after *View
	if id != "" { // locked as do would first of all: what others change is not this request's
		if err := tx.Exec(`SELECT 1 FROM orders WHERE id = ? FOR NO KEY UPDATE`, id).Error; err != nil {
			return fmt.Errorf("lock order %s: %w", id, err)
		}
		v, err := b.Show(ctx, id)
		if err != nil {
			return err
		}
		before = v.recorded(ctx)
	}
	id, err := do()
	if err != nil {
		return err
	}
	v, err := b.Show(ctx, id)
	if err != nil {
		return err
	}
	after = v.recorded(ctx)
	access.Changed(ctx, "order/"+id, before, after)
	return nil
}

// recorded is the order as the audit log keeps it: without what opens its page.
func (v View) recorded(ctx context.Context) *View {
	v = v.shown(ctx)
	v.StatusURL = ""
	return &v
}

func (b *Book) answer(ctx context.Context, id string) (*orderOutput, error) {
	v, err := b.Show(ctx, id)
	if err != nil {
		return nil, err
	}
	return &orderOutput{v.shown(ctx)}, nil
}

// shown is the order as who acts may see it.
func (v View) shown(ctx context.Context) View {
	v.Customer = CustomerView{Email: web.Personal(ctx, v.Customer.Email), Name: web.Personal(ctx, v.Customer.Name)}
	return v
}

// Show returns an order. Errors: NotFound.
func (b *Book) Show(ctx context.Context, id string) (*View, error) {
	return b.find(ctx, "order "+id, "id = ?", id)
}

// find returns the one order where a column is key. An error calls it name: the
// key may be the token of a link, which no log may hold.
func (b *Book) find(ctx context.Context, name, where, key string) (*View, error) {
	var o Order
	err := b.db.Read(ctx).Where(where, key).Take(&o).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, fault.New(fault.NotFound, "order_not_found", "no such order")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, database.Classify(err))
	}
	vs, err := b.views(ctx, []Order{o})
	if err != nil {
		return nil, err
	}
	return &vs[0], nil
}

func (b *Book) show(ctx context.Context, in *OrderPath) (*orderOutput, error) {
	return b.answer(ctx, in.ID)
}

type listInput struct {
	web.PageParams
	Status            string    `query:"status" enum:"pending,paid,payment_failed,expired,cancelled,fulfilled" doc:"Only orders that stand here"`
	PaymentStatus     string    `query:"payment_status" enum:"refunded,overpaid,refund_due,paid,underpaid,awaiting_confirmation,unpaid" doc:"Only orders whose money stands here"`
	FulfillmentStatus string    `query:"fulfillment_status" enum:"none,on_hold,queued,partial,fulfilled,delivered,returned" doc:"Only orders whose goods stand here"`
	Email             string    `query:"email" maxLength:"254" doc:"Only orders of this customer: the address, whole, in any case"`
	Q                 string    `query:"q" maxLength:"254" doc:"Finds orders by the beginnings of words of the customer's name or address (ada exam finds ada@example.com), by the beginning of the order's id, or by a whole payment id, transaction hash or tracking number; in any case, at least 3 characters" example:"ada"`
	CreatedFrom       time.Time `query:"created_from" doc:"Only orders created at or after this time (RFC 3339)"`
	CreatedTo         time.Time `query:"created_to" doc:"Only orders created before this time (RFC 3339)"`
}

func (b *Book) list(ctx context.Context, in *listInput) (*struct{ Body web.Page[View] }, error) {
	if err := errors.Join(web.NeedsPII(ctx, "email", in.Email), web.NeedsPII(ctx, "q", in.Q)); err != nil {
		return nil, err
	}
	filter, err := in.filter()
	if err != nil {
		return nil, err
	}
	var rows []Order
	if in.Q == "" {
		err = newest(filter(b.db.Read(ctx)), in.Limit+1).Find(&rows).Error
	} else {
		var finders []finder
		if finders, err = findersOf(in.Q); err != nil {
			return nil, err
		}
		rows, err = b.search(ctx, finders, filter, in.Limit+1)
	}
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", database.Classify(err))
	}
	vs, err := b.views(ctx, rows)
	if err != nil {
		return nil, err
	}
	for i := range vs {
		vs[i] = vs[i].shown(ctx)
	}
	page := web.NewPage(vs, in.Limit, func(v View) string { return web.EncodeCursor(v.CreatedAt.Format(time.RFC3339Nano), v.ID) })
	return &struct{ Body web.Page[View] }{page}, nil
}

// newest sorts orders as lists show them.
func newest(q *gorm.DB, limit int) *gorm.DB { return q.Order("created_at DESC, id DESC").Limit(limit) }

// filter narrows a query to the rows behind the cursor that pass.
func (in *listInput) filter() (func(q *gorm.DB) *gorm.DB, error) {
	after, err := web.DecodeCursor(in.After, 2)
	if err != nil {
		return nil, err
	}
	var at time.Time
	if after != nil {
		if at, err = time.Parse(time.RFC3339Nano, after[0]); err != nil {
			return nil, web.BadCursor()
		}
	}
	return func(q *gorm.DB) *gorm.DB {
		for column, want := range map[string]string{"status": in.Status, "payment_status": in.PaymentStatus, "fulfillment_status": in.FulfillmentStatus} {
			if want != "" {
				q = q.Where(column+" = ?", want)
			}
		}
		if in.Email != "" {
			q = q.Where("lower(customer_email) = lower(?)", in.Email)
		}
		if !in.CreatedFrom.IsZero() {
			q = q.Where("created_at >= ?", in.CreatedFrom)
		}
		if !in.CreatedTo.IsZero() {
			q = q.Where("created_at < ?", in.CreatedTo)
		}
		if after != nil {
			q = q.Where("(created_at, id) < (?, ?)", at, after[1])
		}
		return q
	}, nil
}

type stepView struct {
	Seq     int        `json:"seq" doc:"Counts the steps of the order from 1"`
	At      time.Time  `json:"at" doc:"When"`
	Kind    string     `json:"kind" doc:"The type of event, or opened, deadline, cancelled, shipped, …"`
	Cause   string     `json:"cause" doc:"event:EVENT, admin:NAME, sweep:deadline, or what PayQI answered: checkout:payqi, poll:payqi"`
	Was     *Status    `json:"was" doc:"Status before; null for the first step"`
	Became  Status     `json:"became" doc:"Status after, often the same"`
	Note    string     `json:"note" doc:"What happened, in plain words"`
	EventID *uuid.UUID `json:"event_id" doc:"The id of the event in /api/v1/events"`
}

type timelineInput struct {
	OrderPath
	web.PageParams
}

func (b *Book) timeline(ctx context.Context, in *timelineInput) (*struct{ Body web.Page[stepView] }, error) {
	if _, err := b.Show(ctx, in.ID); err != nil {
		return nil, err
	}
	after, err := web.DecodeCursor(in.After, 1)
	if err != nil {
		return nil, err
	}
	q := b.db.Read(ctx).Where("order_id = ?", in.ID).Order("seq").Limit(in.Limit + 1)
	if after != nil {
		var seq int32
		if _, err := fmt.Sscan(after[0], &seq); err != nil {
			return nil, web.BadCursor()
		}
		q = q.Where("seq > ?", seq)
	}
	var rows []Step
	if err := q.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("timeline of order %s: %w", in.ID, database.Classify(err))
	}
	vs := make([]stepView, len(rows))
	for i, s := range rows {
		vs[i] = stepView{Seq: s.Seq, At: s.At.UTC(), Kind: s.Kind, Cause: s.Cause, Was: s.Was, Became: s.Became, Note: s.Note, EventID: s.InboxID}
	}
	page := web.NewPage(vs, in.Limit, func(s stepView) string { return web.EncodeCursor(fmt.Sprint(s.Seq)) })
	return &struct{ Body web.Page[stepView] }{page}, nil
}

// Cancellation is the body of POST /orders/{id}/cancellation.
type Cancellation struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"The customer reads it" example:"Ordered twice by mistake"`
}

type cancelInput struct {
	OrderPath
	Body Cancellation
}

func (b *Book) cancel(ctx context.Context, in *cancelInput) (*orderOutput, error) {
	if !plain(in.Body.Reason, 500) {
		return nil, fault.New(fault.Unprocessable, "invalid_reason", "the reason breaks a rule").
			With(fault.Field{Location: "reason", Message: "must be without control characters"})
	}
	return b.change(ctx, in.ID, func(tx database.Tx) (string, error) {
		_, err := b.Cancel(tx, in.ID, web.Actor(ctx), in.Body.Reason)
		return in.ID, err
	})
}

// NewShipment is the body of POST /orders/{id}/shipments.
type NewShipment struct {
	Carrier        string `json:"carrier,omitempty" maxLength:"100" example:"DHL" doc:"Who carries the parcel; the customer reads it"`
	TrackingNumber string `json:"tracking_number,omitempty" maxLength:"100" example:"JD014600003" doc:"Of the parcel; the customer reads it"`
	Items          []int  `json:"items,omitempty" minItems:"1" maxItems:"100" doc:"The lines in the parcel; all that have not shipped when absent"`
}

type shipInput struct {
	OrderPath
	Body NewShipment
}

func (b *Book) ship(ctx context.Context, in *shipInput) (*shipmentOutput, error) {
	if !plain(in.Body.Carrier, 100) || !plain(in.Body.TrackingNumber, 100) {
		return nil, fault.New(fault.Unprocessable, "invalid_shipment", "the shipment breaks a rule").
			With(fault.Field{Location: "carrier, tracking_number", Message: "must be without control characters"})
	}
	return b.changeParcel(ctx, in.ID, func(tx database.Tx) (*Shipment, error) {
		return b.Ship(tx, in.ID, web.Actor(ctx), Dispatch{Carrier: in.Body.Carrier, TrackingNumber: in.Body.TrackingNumber, Lines: in.Body.Items})
	})
}

// parcel is a shipment of an order as the API shows it.
func (b *Book) parcel(ctx context.Context, order string, id uuid.UUID) (ShipmentView, error) {
	v, err := b.Show(ctx, order)
	if err != nil {
		return ShipmentView{}, err
	}
	for _, s := range v.Shipments {
		if s.ID == id.String() {
			return s, nil
		}
	}
	return ShipmentView{}, fmt.Errorf("shipment %s of order %s is gone", id, order)
}

type casesInput struct {
	web.PageParams
	State   string `query:"state" enum:"open,closed" doc:"Only cases that are open, or closed"`
	Code    string `query:"code" maxLength:"64" doc:"Only cases of this kind, such as UNDERPAID"`
	OrderID string `query:"order_id" maxLength:"64" doc:"Only cases about this order"`
}

func (b *Book) listCases(ctx context.Context, in *casesInput) (*struct{ Body web.Page[CaseView] }, error) {
	q := b.db.Read(ctx).Order("id DESC").Limit(in.Limit + 1)
	for column, want := range map[string]string{"state": in.State, "code": in.Code, "order_id": in.OrderID} {
		if want != "" {
			q = q.Where(column+" = ?", want)
		}
	}
	after, err := web.AfterID(in.After)
	if err != nil {
		return nil, err
	}
	if after != nil {
		q = q.Where("id < ?", *after)
	}
	var rows []Case
	if err := q.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list cases: %w", database.Classify(err))
	}
	vs, err := b.viewCases(ctx, rows)
	if err != nil {
		return nil, err
	}
	page := web.NewPage(vs, in.Limit, func(c CaseView) string { return web.EncodeCursor(c.ID) })
	return &struct{ Body web.Page[CaseView] }{page}, nil
}
