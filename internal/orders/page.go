package orders

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/shopspring/decimal"

	"quayside/internal/fault"
	"quayside/internal/web"
)

// The customer's page needs no login: whoever has the link sees the order. It
// shows no address and no name, loads nothing from elsewhere, and works without
// JavaScript. Its style and script stand inside it: while two versions of the
// program serve side by side, no page is without its own.

//go:embed page.html
var pageSource string

//go:embed page.css
var pageStyle string

//go:embed page.js
var pageScript string

var pages = template.Must(template.New("pages").Parse(pageSource))

// pageBuild changes with the page's own style, script or markup, so that an open
// page knows when to load itself anew rather than take in a part.
var pageBuild = func() string {
	sum := sha256.Sum256([]byte(pageSource + pageStyle + pageScript))
	return hex.EncodeToString(sum[:6])
}()

// pagePolicy lets the one style and the one script through, by their content,
// and nothing else.
var pagePolicy = "default-src 'none'; style-src " + digestOf(pageStyle) + "; script-src " + digestOf(pageScript) +
	"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

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

	State       Scene        `json:"state"`
	Headline    string       `json:"headline"`
	Advice      string       `json:"advice"`
	PayURI      *string      `json:"pay_uri"`      // opens a wallet; the content of the QR code
	SecondsLeft *int64       `json:"seconds_left"` // until expires_at; null when nothing is awaited
	RefundDue   web.Money    `json:"refund_due"`
	TxHash      *string      `json:"tx_hash"`
	ExplorerURL *string      `json:"explorer_url"`
	PaidAt      *time.Time   `json:"paid_at"`
	FulfilledAt *time.Time   `json:"fulfilled_at"`
	CancelledAt *time.Time   `json:"cancelled_at"`
	ShopName    string       `json:"shop_name"`
	Choices     []ChoiceView `json:"choices"` // what the customer may choose now
	Repayments  []Repayment  `json:"repayments"`
	Version     int          `json:"version"` // rises with every change; the id of the stream's messages

	held       bool // a person must decide something before more is shipped
	confirming bool // a payment is under way
	unmatched  bool // money came that counts for nothing yet
}

// Repayment is money that goes back to the customer, or went.
type Repayment struct {
	Amount         web.Money   `json:"amount"`
	Currency       string      `json:"currency"`        // that of the money that came
	State          RefundState `json:"state"`           // approved: it is to be sent; sent; confirmed
	Address        *string     `json:"address"`         // null until the customer or the shop has said where to
	DestinationTag *string     `json:"destination_tag"` // that goes with the address
	TxHash         *string     `json:"tx_hash"`         // of the transaction that sent it
	ExplorerURL    *string     `json:"explorer_url"`
}

// repayments are the refunds that go back, or went.
func (v *View) repayments() []Repayment {
	list := []Repayment{}
	for _, r := range v.Refunds {
		if r.State == RefundWaived || r.State == RefundWithdrawn {
			continue
		}
		list = append(list, Repayment{
			Amount: r.Amount, Currency: r.Currency, State: r.State, Address: r.Address, DestinationTag: r.DestinationTag, TxHash: r.TxHash,
			ExplorerURL: known(explorerURL(r.Currency, text(r.TxHash))),
		})
	}
	return list
}

// forCustomer is the order as its customer sees it at the time now.
func (v *View) forCustomer(shop string, now time.Time) statusView {
	s := statusView{
		ID: v.ID, Status: v.Status, PaymentStatus: v.PaymentStatus, FulfillmentStatus: v.FulfillmentStatus, Currency: v.Currency,
		Total: v.Total, AmountPaid: v.AmountPaid, ExpiresAt: v.ExpiresAt, OnHold: v.FulfillmentStatus == OnHold, Items: v.Items, Shipments: v.Shipments,
		State: v.scene(), RefundDue: v.RefundDue, TxHash: v.TxHash, PaidAt: v.PaidAt, FulfilledAt: v.FulfilledAt, CancelledAt: v.CancelledAt,
		ShopName: shop, Version: v.version, Choices: v.choices(), Repayments: v.repayments(), held: len(v.Holds) > 0,
	}
	for _, p := range v.Payments {
		s.confirming = s.confirming || p.State == standingNames[StandsPending]
		s.unmatched = s.unmatched || p.Counted == CountedUnmatched
	}
	if v.Status == Pending || v.Status == PaymentFailed {
		s.Missing = &web.Money{Decimal: v.AmountDue.Sub(v.AmountPaid.Decimal).RoundUp(decimalPlaces(v.Currency))}
		s.PayAddress, s.DestinationTag = v.PayAddress, v.DestinationTag
		left := max(0, int64(v.ExpiresAt.Sub(now).Seconds()))
		s.SecondsLeft = &left
		if s.PayAddress != nil {
			s.PayURI = known(payURI(v.Currency, *s.PayAddress, text(s.DestinationTag), s.Missing.Decimal))
		}
	}
	s.ExplorerURL = known(explorerURL(v.Currency, text(v.TxHash)))
	s.Headline, s.Advice = stages[s.State].headline, s.advice()
	return s
}

func known(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// pageView is a page about to be drawn: of an order or, with ID empty, a refusal.
type pageView struct {
	statusView
	Tone   string
	QR     *qrCode
	Style  template.CSS
	Script template.JS
	Build  string
	Reload int // seconds after which a browser without JavaScript looks again; 0: never
	Form   form
}

// draw completes the page with what is the same on all.
func (p pageView) draw() ([]byte, error) {
	p.Build, p.Style, p.Script = pageBuild, template.CSS(pageStyle), template.JS(pageScript) //nolint:gosec // our own files
	var err error
	if p.QR, err = drawQR(text(p.PayURI)); err != nil {
		return nil, err
	}
	var body bytes.Buffer
	if err := pages.Execute(&body, p); err != nil {
		return nil, fmt.Errorf("status page: %w", err)
	}
	return body.Bytes(), nil
}

// Asking reports whether the customer should pay: the details stand open.
func (p pageView) Asking() bool {
	return p.PayAddress != nil && (p.State == SceneAwaitingPayment || p.State == ScenePaymentFailed || p.State == SceneUnderpaid && !p.confirming)
}

// Payable reports whether the details are shown at all. They stay within reach
// while a payment is confirmed: what PayQI calls pending may yet fail.
func (p pageView) Payable() bool { return p.PayAddress != nil }

// PayLink is PayURI for a link: one of the schemes of payURI, from checked parts.
func (p pageView) PayLink() template.URL { return template.URL(text(p.PayURI)) } //nolint:gosec // see payURI

// PayBy is until when the goods are kept.
func (p pageView) PayBy() string { return p.ExpiresAt.Format("2 Jan 2006, 15:04 UTC") }

// Choice is what the customer may choose by that name, nil when it is not offered.
func (p pageView) Choice(name string) *ChoiceView {
	for _, c := range p.Choices {
		if c.Choice == name {
			return &c
		}
	}
	return nil
}

// Sent are the lines of the order that a choice would send.
func (p pageView) Sent(c *ChoiceView) []ItemView {
	return slices.DeleteFunc(slices.Clone(p.Items), func(it ItemView) bool { return !slices.Contains(c.Lines, it.Line) })
}

// Whole reports whether a choice would send all that is wanted.
func (p pageView) Whole(c *ChoiceView) bool { return !c.Refund.IsPositive() }

// Live reports whether the order may still change.
func (s statusView) Live() bool {
	back := slices.ContainsFunc(s.Repayments, func(r Repayment) bool { return r.State == RefundApproved })
	return back || !slices.Contains([]Scene{SceneShipped, SceneDelivered, SceneReturned, SceneCancelled}, s.State)
}

// Sum is the price of a line.
func (it ItemView) Sum() web.Money {
	return web.Money{Decimal: it.UnitPrice.Mul(decimal.NewFromInt(it.Quantity))}
}

// StatusPage serves GET /o/{token}: 200, or 404 for any other token.
func (b *Book) StatusPage(c *gin.Context) {
	private(c)
	s, err := b.customerView(c)
	if err != nil {
		b.drawRefusal(c, web.Refusal(c, err))
		return
	}
	b.drawOrder(c, http.StatusOK, s, form{})
}

// drawOrder answers the page of an order.
func (b *Book) drawOrder(c *gin.Context, status int, s statusView, f form) {
	p := pageView{statusView: s, Tone: stages[s.State].tone, Form: f}
	if s.Live() && len(s.Choices) == 0 { // a reload would empty the form
		p.Reload = 10
	}
	drawPage(c, status, p)
}

// drawRefusal answers the page of an order that cannot be shown.
func (b *Book) drawRefusal(c *gin.Context, why *web.Problem) {
	p := refusalOf(why.Status)
	p.ShopName = b.terms.ShopName
	drawPage(c, why.Status, p)
}

func drawPage(c *gin.Context, status int, p pageView) {
	c.Header("Content-Security-Policy", pagePolicy)
	c.Header("Referrer-Policy", "no-referrer")
	body, err := p.draw()
	if err != nil {
		web.Fail(c, err)
		return
	}
	c.Data(status, "text/html; charset=utf-8", body)
}

// refusalOf says in the customer's words why there is no order to see.
func refusalOf(status int) (p pageView) {
	if status == http.StatusNotFound {
		p.Tone = "off"
		p.Headline = "There is no order at this address"
		p.Advice = "The link may have been cut short. Please open it from our e-mail again, or copy all of it."
		return p
	}
	p.Tone, p.Reload = "warn", 10
	p.Headline = "Your order cannot be shown right now"
	p.Advice = "The fault is ours, and nothing is lost: your order and your payment are safe. This page tries again by itself in a moment."
	return p
}

// StatusAsJSON serves GET /o/{token}/status for shops that draw their own page.
func (b *Book) StatusAsJSON(c *gin.Context) {
	private(c)
	forAnyOrigin(c)
	s, err := b.customerView(c)
	if err != nil {
		web.Fail(c, err)
		return
	}
	c.JSON(http.StatusOK, s)
}

// private keeps what a link shows out of caches and search engines.
func private(c *gin.Context) {
	c.Header("Cache-Control", "no-store")
	c.Header("X-Robots-Tag", "noindex")
}

// forAnyOrigin lets the pages of a shop read the answer. The link itself is the
// secret; no cookie plays a part.
func forAnyOrigin(c *gin.Context) { c.Header("Access-Control-Allow-Origin", "*") }

func (b *Book) customerView(c *gin.Context) (statusView, error) {
	v, err := b.byToken(c)
	if err != nil {
		return statusView{}, err
	}
	return b.forCustomer(c.Request.Context(), v)
}

func (b *Book) forCustomer(ctx context.Context, v *View) (statusView, error) {
	now, err := b.db.Now(ctx)
	if err != nil {
		return statusView{}, err
	}
	return v.forCustomer(b.terms.ShopName, now), nil
}

var wholeToken = regexp.MustCompile(fmt.Sprintf(`^[a-z2-7]{%d}$`, tokenLength))

// byToken finds the order of a link. Only what may be a token reaches the database.
func (b *Book) byToken(c *gin.Context) (*View, error) {
	token := c.Param("token")
	if !wholeToken.MatchString(token) {
		return nil, fault.New(fault.NotFound, "order_not_found", "no such order")
	}
	return b.find(c.Request.Context(), "order of a link", "status_token = ?", token)
}
