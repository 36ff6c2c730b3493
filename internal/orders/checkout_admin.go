package orders

import (
	"context"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/payqi"
	"quayside/internal/web"
)

// checkoutRoutes adds to api how payments come to be.
func (b *Book) checkoutRoutes(api huma.API) {
	orders := []string{"Orders"}
	answer := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[WayToPayView](), true, "")
	huma.Register(api, huma.Operation{
		OperationID: "create-payment", Security: web.Needs("orders:write"), Method: http.MethodPost, Path: "/api/v1/orders/{id}/payments", DefaultStatus: http.StatusCreated,
		Summary: "Have PayQI create a payment for an order", Tags: orders,
		Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusNotImplemented},
		Description: "For what is still owed, with metadata.order_id. As long as a payment of the order is open, the answer is 200 and that payment: ask as often as you like. " +
			"409: the order takes no money now; payment_in_progress: PayQI is being asked. 501: PAYQI_API_KEY is not set, or PayQI refuses it; create the payment yourself then. 503: PayQI does not answer; ask again, and it still creates one payment only.",
		Responses: map[string]*huma.Response{"200": {
			Description: "The payment that is open already", Content: map[string]*huma.MediaType{"application/json": {Schema: answer}},
		}},
	}, b.createPayment)
	huma.Register(api, huma.Operation{
		OperationID: "link-payment", Security: web.Needs("orders:write"), Method: http.MethodPut, Path: "/api/v1/orders/{id}/payments/{payment_id}",
		Summary: "Record that a payment which you created at PayQI is for an order", Tags: orders,
		Errors: []int{http.StatusNotFound, http.StatusConflict},
		Description: "Its events then find the order, whatever order they name. To record it again changes nothing. " +
			"409 payment_linked: it belongs to another order; address_differs: it is known with another address or tag.",
	}, b.linkPayment)
}

// WayToPayView is a payment by which an order can be paid.
type WayToPayView struct {
	PaymentID      string    `json:"payment_id" doc:"PayQI's own"`
	Amount         web.Money `json:"amount" doc:"What it asks for"`
	Currency       string    `json:"currency" example:"XRP" doc:"Of the amount"`
	PayAddress     *string   `json:"pay_address" doc:"Where the customer pays; null until PayQI has said so"`
	DestinationTag *string   `json:"destination_tag" doc:"The tag the customer must name with the payment; null when there is none"`
	CheckoutURL    *string   `json:"checkout_url" doc:"PayQI's page to pay on; null when there is none"`
}

type checkoutOutput struct {
	Status int
	Body   WayToPayView
}

func (b *Book) createPayment(ctx context.Context, in *OrderPath) (*checkoutOutput, error) {
	if before, err := access.Before[checkoutOutput](ctx, b.db); before != nil || err != nil {
		return before, err
	}
	way, created, err := b.Checkout(ctx, in.ID, web.Actor(ctx))
	if err != nil {
		return nil, err
	}
	return access.Keep(ctx, b.db, checkoutAnswer(way, created))
}

// createdPayment is a payment that was created for an order, as the audit log keeps it.
type createdPayment struct {
	OrderID string `json:"order_id"`
	WayToPayView
}

func checkoutAnswer(way *WayToPay, created bool) *checkoutOutput {
	out := &checkoutOutput{Status: http.StatusOK, Body: WayToPayView{
		PaymentID: way.PaymentID, Amount: web.Money{Decimal: way.Amount}, Currency: way.Currency, PayAddress: way.PayAddress,
	}}
	if created {
		out.Status = http.StatusCreated
	}
	if way.DestinationTag != nil {
		tag := fmt.Sprint(*way.DestinationTag)
		out.Body.DestinationTag = &tag
	}
	if way.CheckoutURL != "" {
		out.Body.CheckoutURL = &way.CheckoutURL
	}
	return out
}

// PaymentLink is the body of PUT /orders/{id}/payments/{payment_id}.
type PaymentLink struct {
	PayAddress     string `json:"pay_address,omitempty" maxLength:"128" pattern:"^[!-~]*$" patternDescription:"visible ASCII characters" doc:"Where the customer pays, if PayQI has told you"`
	DestinationTag *int64 `json:"destination_tag,omitempty" minimum:"0" maximum:"4294967295" doc:"The tag that goes with the address"`
}

type linkInput struct {
	OrderPath
	PaymentID string `path:"payment_id" maxLength:"255" doc:"PayQI's id of the payment"`
	Body      *PaymentLink
}

func (b *Book) linkPayment(ctx context.Context, in *linkInput) (*orderOutput, error) {
	if !payqi.ValidID(in.PaymentID) || payqi.TestPayment(in.PaymentID) {
		return nil, fault.New(fault.Unprocessable, "invalid_payment_id", "this is no payment's id").
			With(fault.Field{Location: "path.payment_id", Message: "must be 1 to 255 of A-Z a-z 0-9 _ . : - and not begin with pay_test_"})
	}
	var what PaymentLink
	if in.Body != nil {
		what = *in.Body
	}
	return b.change(ctx, in.ID, func(tx database.Tx) (string, error) {
		return in.ID, b.Link(tx, in.ID, web.Actor(ctx), in.PaymentID, what.PayAddress, what.DestinationTag)
	})
}
