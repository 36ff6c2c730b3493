package orders

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"quayside/internal/web"
)

// The customer's page needs no login: whoever has the link sees the order. It
// shows no address and no name, loads nothing from elsewhere, and works
// without JavaScript.

//go:embed page.html
var pageSource string

//go:embed page.css
var pageStyle string

var page = template.Must(template.New("page").Parse(pageSource))

// pagePolicy lets the one inline style through and nothing else.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// statusView is what a customer may know of an order.
type statusView struct {
	ID                string            `json:"id"`
	Status            Status            `json:"status"`
	PaymentStatus     PaymentStatus     `json:"payment_status"`
	FulfillmentStatus FulfillmentStatus `json:"fulfillment_status"`
	Currency          string            `json:"currency"`
	Total             web.Money         `json:"total"`
	AmountPaid        web.Money         `json:"amount_paid"`
	Missing           *web.Money        `json:"missing"` // what is still to pay; null when nothing is awaited
	PayAddress        *string           `json:"pay_address"`
	DestinationTag    *string           `json:"destination_tag"`
	ExpiresAt         time.Time         `json:"expires_at"`
	OnHold            bool              `json:"on_hold"`
	Items             []ItemView        `json:"items"`
	Shipments         []ShipmentView    `json:"shipments"`
}

func (v *View) forCustomer() statusView {
	s := statusView{
		ID: v.ID, Status: v.Status, PaymentStatus: v.PaymentStatus, FulfillmentStatus: v.FulfillmentStatus, Currency: v.Currency,
		Total: v.Total, AmountPaid: v.AmountPaid, ExpiresAt: v.ExpiresAt, OnHold: v.FulfillmentStatus == OnHold, Items: v.Items, Shipments: v.Shipments,
	}
	if v.Status == Pending || v.Status == PaymentFailed {
		s.Missing = &web.Money{Decimal: v.AmountDue.Sub(v.AmountPaid.Decimal)}
		s.PayAddress, s.DestinationTag = v.PayAddress, v.DestinationTag
	}
	return s
}

// Headline says in one line where the order stands.
func (s statusView) Headline() string {
	switch {
	case s.Status == Fulfilled:
		return "Shipped"
	case s.Status == Paid && s.OnHold:
		return "Paid, on hold"
	case s.Status == Paid:
		return "Paid"
	case s.Status == Cancelled:
		return "Cancelled"
	case s.Status == Expired:
		return "Expired"
	case s.PaymentStatus == Underpaid:
		return "Part of the money has arrived"
	case s.PaymentStatus == AwaitingConfirmation:
		return "Payment seen, awaiting confirmation"
	case s.Status == PaymentFailed:
		return "The payment failed"
	}
	return "Awaiting payment"
}

// Advice says what happens next, or what to do.
func (s statusView) Advice() string {
	switch {
	case s.Status == Fulfilled:
		return "Your order is on its way."
	case s.Status == Paid && s.OnHold:
		return "We have your money. Something about this order needs a person's look; we will write to you."
	case s.Status == Paid:
		return "We have your money and are getting your order ready."
	case s.Status == Cancelled && s.AmountPaid.IsPositive(), s.Status == Expired && s.AmountPaid.IsPositive():
		return "We have received money for this order and will pay it back; we will write to you."
	case s.Status == Cancelled:
		return "This order was cancelled. Please do not pay for it."
	case s.Status == Expired:
		return "The time to pay is over and the goods were given back. Please do not pay any more; order again instead."
	case s.PaymentStatus == AwaitingConfirmation:
		return "You need not do anything; this page changes when the payment is confirmed."
	case s.PayAddress == nil:
		return "The payment details will appear here in a moment."
	case s.Status == PaymentFailed:
		return "Your goods are still kept. You can try again with these details."
	}
	return "Send exactly this amount. Without the destination tag the money cannot be matched to your order."
}

// Waiting reports whether the page is worth reloading by itself.
func (s statusView) Waiting() bool {
	return s.Status == Pending || s.Status == PaymentFailed || s.Status == Paid
}

// PayBy is until when the goods are kept.
func (s statusView) PayBy() string { return s.ExpiresAt.Format("2 Jan 2006, 15:04 UTC") }

// StatusPage serves GET /o/{token}: 200, or 404 for any other token.
func (b *Book) StatusPage(c *gin.Context) {
	v, err := b.byToken(c)
	c.Header("Content-Security-Policy", pagePolicy)
	c.Header("Referrer-Policy", "no-referrer")
	c.Header("Cache-Control", "no-store")
	c.Header("X-Robots-Tag", "noindex")
	if err != nil {
		web.Fail(c, err)
		return
	}
	var body bytes.Buffer
	data := struct {
		statusView
		Style template.CSS
	}{v.forCustomer(), template.CSS(pageStyle)} //nolint:gosec // our own file
	if err := page.Execute(&body, data); err != nil {
		web.Fail(c, fmt.Errorf("status page: %w", err))
		return
	}
	c.Data(http.StatusOK, "text/html; charset=utf-8", body.Bytes())
}

// StatusAsJSON serves GET /o/{token}/status for shops that draw their own page.
func (b *Book) StatusAsJSON(c *gin.Context) {
	c.Header("Cache-Control", "no-store")
	c.Header("X-Robots-Tag", "noindex")
	v, err := b.byToken(c)
	if err != nil {
		web.Fail(c, err)
		return
	}
	c.JSON(http.StatusOK, v.forCustomer())
}

// byToken finds the order of a link. Only whole tokens reach the database.
func (b *Book) byToken(c *gin.Context) (*View, error) {
	token := c.Param("token")
	if len(token) != tokenLength {
		token = ""
	}
	return b.find(c.Request.Context(), "status_token = ?", token)
}
