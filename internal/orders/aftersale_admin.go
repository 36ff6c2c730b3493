package orders

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/shopspring/decimal"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

// afterSaleRoutes adds what becomes of goods after they left.
func (b *Book) afterSaleRoutes(api huma.API) {
	orders := []string{"Orders"}
	missing, both := []int{http.StatusNotFound}, []int{http.StatusNotFound, http.StatusConflict}
	huma.Register(api, huma.Operation{
		OperationID: "edit-shipment", Security: web.Needs("orders:write"), Method: http.MethodPatch, Path: "/api/v1/orders/{id}/shipments/{shipment_id}",
		Summary: "Change carrier or tracking number of a parcel", Tags: orders, Errors: missing,
		Description: "The customer's page shows it at once; the letter that went out stays as it was.",
	}, b.editShipment)
	huma.Register(api, huma.Operation{
		OperationID: "deliver-shipment", Security: web.Needs("orders:write"), Method: http.MethodPost, Path: "/api/v1/orders/{id}/shipments/{shipment_id}/delivery", DefaultStatus: http.StatusOK,
		Summary: "Report that a parcel has arrived", Tags: orders, Errors: both,
		Description: "When all parcels of an order have arrived, its fulfillment_status is delivered. 409 shipment_delivered: it was reported before.",
	}, b.deliver)
	huma.Register(api, huma.Operation{
		OperationID: "return-goods", Security: web.Needs("orders:write"), Method: http.MethodPost, Path: "/api/v1/orders/{id}/returns", DefaultStatus: http.StatusCreated,
		Summary: "Report that shipped lines came back", Tags: orders, Errors: both,
		Description: "They go back on the shelf or are written off. What the order costs less for it is due back to the customer, unless you say refund 0: " +
			"approve it with POST /orders/{id}/refunds. 409 line_not_shipped, line_returned.",
	}, b.takeBack)
}

// ShipmentPath names a parcel of an order in a path.
type ShipmentPath struct {
	OrderPath
	ShipmentID string `path:"shipment_id" maxLength:"64" doc:"The parcel's id"`
}

type shipmentOutput struct{ Body ShipmentView }

// ShipmentEdit is the body of PATCH /orders/{id}/shipments/{shipment_id}.
type ShipmentEdit struct {
	Carrier        *string `json:"carrier,omitempty" maxLength:"100" example:"DHL" doc:"Who carries the parcel; stays when absent"`
	TrackingNumber *string `json:"tracking_number,omitempty" maxLength:"100" example:"JD014600003" doc:"Of the parcel; stays when absent"`
}

type editShipmentInput struct {
	ShipmentPath
	Body ShipmentEdit
}

func (b *Book) editShipment(ctx context.Context, in *editShipmentInput) (*shipmentOutput, error) {
	if !plain(text(in.Body.Carrier), 100) || !plain(text(in.Body.TrackingNumber), 100) {
		return nil, fault.New(fault.Unprocessable, "invalid_shipment", "the shipment breaks a rule").
			With(fault.Field{Location: "carrier, tracking_number", Message: "must be without control characters"})
	}
	id, err := pathID(in.ShipmentID, "shipment")
	if err != nil {
		return nil, err
	}
	return b.changeParcel(ctx, in.ID, func(tx database.Tx) (*Shipment, error) {
		return b.Label(tx, in.ID, id, web.Actor(ctx), in.Body.Carrier, in.Body.TrackingNumber)
	})
}

// Delivery is the body of POST /orders/{id}/shipments/{shipment_id}/delivery.
type Delivery struct {
	DeliveredAt time.Time `json:"delivered_at,omitzero" doc:"When it arrived (RFC 3339); now when absent"`
}

type deliverInput struct {
	ShipmentPath
	Body Delivery
}

func (b *Book) deliver(ctx context.Context, in *deliverInput) (*shipmentOutput, error) {
	id, err := pathID(in.ShipmentID, "shipment")
	if err != nil {
		return nil, err
	}
	return b.changeParcel(ctx, in.ID, func(tx database.Tx) (*Shipment, error) {
		return b.Deliver(tx, in.ID, id, web.Actor(ctx), in.Body.DeliveredAt)
	})
}

// changeParcel carries out a request that makes or changes a parcel of an
// order, and answers with the parcel.
func (b *Book) changeParcel(ctx context.Context, order string, how func(tx database.Tx) (*Shipment, error)) (*shipmentOutput, error) {
	return access.Once(ctx, b.db, func(ctx context.Context, tx database.Tx) (out *shipmentOutput, err error) {
		err = b.audited(ctx, tx, order, func() (string, error) {
			sh, err := how(tx)
			if err != nil {
				return "", err
			}
			v, err := b.parcel(ctx, order, sh.ID)
			out = &shipmentOutput{v}
			return order, err
		})
		return out, err
	})
}

// NewReturn is the body of POST /orders/{id}/returns.
type NewReturn struct {
	Items   []int      `json:"items" minItems:"1" maxItems:"100" doc:"The lines that came back"`
	Restock bool       `json:"restock" doc:"Whether they go back on the shelf; otherwise they are written off"`
	Refund  *web.Money `json:"refund,omitempty" doc:"How much less the order costs for it, which is then due back; the price of the lines when absent"`
	Reason  string     `json:"reason" minLength:"1" maxLength:"500" doc:"Why; the timeline keeps it" example:"Wrong colour"`
}

type returnInput struct {
	OrderPath
	Body NewReturn
}

// ReturnView is a return as the admin API promises it.
type ReturnView struct {
	ID         string    `json:"id" doc:"Of the return"`
	Lines      []int     `json:"lines" doc:"The lines of the order that came back"`
	Restocked  bool      `json:"restocked" doc:"Back on the shelf; otherwise written off"`
	Refund     web.Money `json:"refund" doc:"How much less the order costs for it"`
	Reason     string    `json:"reason" doc:"Why"`
	ReturnedAt time.Time `json:"returned_at" doc:"When it was reported"`
	ReturnedBy string    `json:"returned_by" doc:"Who reported it"`
}

func viewOfReturn(r Return, lines []int) ReturnView {
	return ReturnView{
		ID: r.ID.String(), Lines: lines, Restocked: r.Restocked, Refund: web.Money{Decimal: r.Refund}, Reason: r.Reason,
		ReturnedAt: r.ReturnedAt.UTC(), ReturnedBy: r.ReturnedBy,
	}
}

func (b *Book) takeBack(ctx context.Context, in *returnInput) (*returnOutput, error) {
	if err := checkNote("reason", in.Body.Reason); err != nil {
		return nil, err
	}
	what := Homecoming{Lines: in.Body.Items, Restock: in.Body.Restock, Reason: in.Body.Reason}
	if in.Body.Refund != nil {
		what.Refund = &decimal.Decimal{}
		*what.Refund = in.Body.Refund.Decimal
	}
	return access.Once(ctx, b.db, func(ctx context.Context, tx database.Tx) (out *returnOutput, err error) {
		err = b.audited(ctx, tx, in.ID, func() (string, error) {
			r, err := b.TakeBack(tx, in.ID, web.Actor(ctx), what)
			if err == nil {
				out = &returnOutput{viewOfReturn(*r, in.Body.Items)}
			}
			return in.ID, err
		})
		return out, err
	})
}

type returnOutput struct{ Body ReturnView }
