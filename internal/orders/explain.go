package orders

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"quayside/internal/database"
	"quayside/internal/web"
)

// Explanation says in plain sentences where an order stands.
type Explanation struct {
	OrderID string   `json:"order_id" doc:"The order"`
	Stands  string   `json:"stands" doc:"Where it stands, in one sentence" example:"Not shipped because it is held: 4.50 of 10.00 XRP received; the rest is missing."`
	Waits   []string `json:"waits_for" doc:"What it waits for; empty when nothing is left to happen"`
	Moves   []string `json:"moves" doc:"What a person could do now, each with the request that does it"`
}

func (b *Book) explainRoute(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "explain-order", Security: web.Needs("orders:read"), Method: http.MethodGet, Path: "/api/v1/orders/{id}/explanation", Tags: []string{"Orders"},
		Summary: "Say in plain words where an order stands, what it waits for, and what would move it", Errors: []int{http.StatusNotFound},
		Description: "For people: the sentences may change. Programs read the order and its cases.",
	}, b.explain)
}

func (b *Book) explain(ctx context.Context, in *OrderPath) (*struct{ Body Explanation }, error) {
	v, err := b.Show(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	var cases []Case
	err = b.db.Read(ctx).Raw(`SELECT * FROM cases WHERE order_id = ? AND state = 'open' ORDER BY id`, v.ID).Scan(&cases).Error
	if err != nil {
		return nil, fmt.Errorf("cases of order %s: %w", v.ID, database.Classify(err))
	}
	return &struct{ Body Explanation }{explain(v, cases)}, nil
}

// explain thinks about an order and its open cases.
func explain(v *View, cases []Case) Explanation {
	e := Explanation{OrderID: v.ID, Stands: stands(v), Waits: []string{}, Moves: []string{}}
	e.Waits = append(e.Waits, waits(v)...)
	for _, c := range cases {
		if c.Blocks || len(Rules[c.Code].Actions) > 1 {
			e.Waits = append(e.Waits, fmt.Sprintf("A person must decide %s: %s", c.Code, c.Summary))
		}
		if c.Code == StockGone && v.gone != nil {
			e.Waits = append(e.Waits, fmt.Sprintf("Of its goods, now available: %s.", v.gone.says()))
		}
		e.Moves = append(e.Moves, fmt.Sprintf("POST /api/v1/cases/%s/resolutions with action %s", c.ID, list(Rules[c.Code].Actions)))
	}
	e.Moves = append(e.Moves, moves(v)...)
	return e
}

// stands says why the order is not further than it is.
func stands(v *View) string {
	due := fmt.Sprintf("%s %s", v.AmountDue, v.Currency)
	switch {
	case v.FulfillmentStatus == CameBack:
		return "Paid and shipped, and the goods came back."
	case v.FulfillmentStatus == Delivered:
		return "Paid, shipped and delivered."
	case v.Status == Fulfilled:
		return "Paid and shipped."
	case v.Status == Cancelled && v.RefundDue.IsPositive():
		return fmt.Sprintf("Cancelled, with %s %s due back to the customer.", v.RefundDue, v.Currency)
	case v.Status == Cancelled:
		return "Cancelled; no money is due back."
	case v.Status == Expired && v.RefundDue.IsPositive():
		return fmt.Sprintf("Expired: the money did not come in time, the stock was released, and %s %s that came are due back.", v.RefundDue, v.Currency)
	case v.Status == Expired:
		return "Expired: nothing complete came in time, and the stock was released."
	case v.Status == Paid && v.FulfillmentStatus == OnHold:
		var why []string
		for _, h := range v.Holds {
			why = append(why, strings.TrimSuffix(h.Summary, "."))
		}
		return fmt.Sprintf("Paid, but not shipped because it is held: %s.", strings.Join(why, "; "))
	case v.Status == Paid && v.FulfillmentStatus == Partial:
		return "Paid and shipped in part."
	case v.Status == Paid:
		return "Paid, and put up for shipment."
	case v.PaymentStatus == Underpaid:
		return fmt.Sprintf("Not shipped because %s of %s were received.", v.AmountPaid, due)
	case v.PaymentStatus == AwaitingConfirmation:
		return fmt.Sprintf("A payment of %s was seen and is not confirmed yet.", due)
	case v.Status == PaymentFailed:
		return "The payment failed; the stock stays reserved, so that the customer may try again."
	case len(v.Payments) == 0:
		return fmt.Sprintf("Waits for %s; PayQI has told of no payment yet.", due)
	}
	return fmt.Sprintf("Waits for %s.", due)
}

// waits says what has to happen, other than decisions.
func waits(v *View) (w []string) {
	if v.Status == Pending || v.Status == PaymentFailed {
		w = append(w, fmt.Sprintf("A completed payment of %s %s, until %s; then it expires.",
			Amount(v.AmountDue.Sub(v.AmountPaid.Decimal)), v.Currency, v.ExpiresAt.Format("2006-01-02 15:04:05 UTC")))
	}
	if v.Status == Paid && (v.FulfillmentStatus == InQueue || v.FulfillmentStatus == Partial) {
		w = append(w, "The shipment of "+openLines(v)+".")
	}
	for _, r := range v.Refunds {
		switch {
		case r.State == RefundApproved && r.Address == nil:
			w = append(w, fmt.Sprintf("An address to refund %s %s to.", r.Amount, r.Currency))
		case r.State == RefundApproved:
			w = append(w, fmt.Sprintf("Somebody to send %s %s to %s.", r.Amount, r.Currency, *r.Address))
		case r.State == RefundSent:
			w = append(w, fmt.Sprintf("The refund of %s %s to be confirmed.", r.Amount, r.Currency))
		}
	}
	return w
}

func openLines(v *View) string {
	var lines []string
	for _, it := range v.Items {
		if !it.Shipped && !it.GivenUp {
			lines = append(lines, fmt.Sprintf("%d × %s", it.Quantity, it.SKU))
		}
	}
	return strings.Join(lines, ", ")
}

// moves are requests that would take the order further, besides decisions.
func moves(v *View) (m []string) {
	order := "/api/v1/orders/" + v.ID
	add := func(fits bool, request string) {
		if fits {
			m = append(m, request)
		}
	}
	shipped := slices.ContainsFunc(v.Items, func(it ItemView) bool { return it.Shipped })
	add(v.Status == Paid && len(v.Holds) == 0, "POST "+order+"/shipments when it has been sent")
	add((v.Status.unpaid() && v.Status != Expired || v.Status == Paid) && !shipped, "POST "+order+"/cancellation")
	for _, s := range v.Shipments {
		add(s.DeliveredAt == nil, "POST "+order+"/shipments/"+s.ID+"/delivery when it has arrived")
	}
	add(slices.ContainsFunc(v.Items, func(it ItemView) bool { return it.Shipped && !it.Returned }), "POST "+order+"/returns when goods come back")
	add(v.Status == Cancelled || v.Status == Expired, "POST "+order+"/reopening")
	add(v.RefundDue.IsPositive(), "POST "+order+"/refunds or "+order+"/waivers")
	for _, r := range v.Refunds {
		add(r.State == RefundApproved, "POST /api/v1/refunds/"+r.ID+"/dispatch when it has been sent")
		add(r.State == RefundSent, "POST /api/v1/refunds/"+r.ID+"/confirmation when it is final")
	}
	return m
}

// list joins words as a person would: a, b or c.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
