package orders

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"quayside/internal/web"
)

// Scene is where an order stands in the one word that decides what its
// customer sees. It is the field "state" of the page's twins.
type Scene string

// The scenes.
const (
	SceneAwaitingPayment      Scene = "awaiting_payment"
	SceneAwaitingConfirmation Scene = "awaiting_confirmation"
	SceneUnderpaid            Scene = "underpaid"
	ScenePaymentFailed        Scene = "payment_failed"
	SceneInReview             Scene = "in_review" // unpaid, and a person looks at a payment
	SceneExpired              Scene = "expired"
	SceneCancelled            Scene = "cancelled"
	ScenePaid                 Scene = "paid"
	SceneOnHold               Scene = "on_hold"    // paid, and a person looks at the order before it ships
	SceneGoodsGone            Scene = "goods_gone" // paid too late: nothing left to ship
	ScenePartlyShipped        Scene = "partly_shipped"
	SceneShipped              Scene = "shipped"
	SceneDelivered            Scene = "delivered"
	SceneReturned             Scene = "returned" // all that shipped came back
)

// stage is how a scene is drawn.
type stage struct {
	headline string
	tone     string // the colour and the mark: wait, work, good, sent, warn, bad, off
	step     int    // which of steps it stands at; -1 shows none
}

var stages = map[Scene]stage{
	SceneAwaitingPayment:      {"Awaiting payment", "wait", 0},
	SceneAwaitingConfirmation: {"Awaiting confirmation", "work", 1},
	SceneUnderpaid:            {"Part of the money has arrived", "warn", 0},
	ScenePaymentFailed:        {"The payment failed", "bad", 0},
	SceneInReview:             {"We are checking a payment", "warn", 0},
	SceneExpired:              {"Expired", "off", -1},
	SceneCancelled:            {"Cancelled", "off", -1},
	ScenePaid:                 {"Paid", "good", 2},
	SceneOnHold:               {"Paid, on hold", "warn", 2},
	SceneGoodsGone:            {"Paid, but goods are missing", "warn", 2},
	ScenePartlyShipped:        {"Partly shipped", "sent", 3},
	SceneShipped:              {"Shipped", "sent", 3},
	SceneDelivered:            {"Delivered", "good", 3},
	SceneReturned:             {"Returned", "off", -1},
}

var steps = []string{"Awaiting payment", "Awaiting confirmation", "Paid", "Shipped"}

// step is one of steps as it is drawn: done, now or next.
type step struct{ Name, State string }

// Steps is the way of the order, nil when it has left it.
func (s statusView) Steps() []step {
	stage, known := stages[s.State]
	at := stage.step
	if !known || at < 0 {
		return nil
	}
	list := make([]step, len(steps))
	for i, name := range steps {
		list[i] = step{name, "next"}
		switch {
		case i < at:
			list[i].State = "done"
		case i == at:
			list[i].State = "now"
		}
	}
	return list
}

// scene derives the scene; the first line that fits.
func (v *View) scene() Scene {
	switch {
	case v.FulfillmentStatus == CameBack:
		return SceneReturned
	case v.FulfillmentStatus == Delivered:
		return SceneDelivered
	case v.Status == Fulfilled:
		return SceneShipped
	case v.Status == Paid && v.FulfillmentStatus == Partial:
		return ScenePartlyShipped
	case v.Status == Paid && v.heldFor(func(c Code) bool { return c == StockGone }):
		return SceneGoodsGone
	case v.Status == Paid && v.FulfillmentStatus == OnHold:
		return SceneOnHold
	case v.Status == Paid:
		return ScenePaid
	case v.Status == Cancelled:
		return SceneCancelled
	case v.Status == Expired:
		return SceneExpired
	case v.heldFor(func(c Code) bool { return c != UnderpaidCase }): // that one settles itself
		return SceneInReview
	case v.PaymentStatus == Underpaid:
		return SceneUnderpaid
	case v.PaymentStatus == AwaitingConfirmation:
		return SceneAwaitingConfirmation
	case v.Status == PaymentFailed:
		return ScenePaymentFailed
	}
	return SceneAwaitingPayment
}

func (v *View) heldFor(reason func(Code) bool) bool {
	for _, h := range v.Holds {
		if reason(h.Code) {
			return true
		}
	}
	return false
}

// advice says what happens next, or what to do.
func (s statusView) advice() string {
	said := []string{s.mainAdvice()}
	paid := s.Status == Paid || s.Status == Fulfilled
	if paid && s.RefundDue.IsPositive() {
		why := "You have paid %s more than needed; we will pay it back."
		if slices.ContainsFunc(s.Items, func(it ItemView) bool { return it.Returned }) {
			why = "%s are due to you; we will pay them back."
		}
		said = append(said, fmt.Sprintf(why, s.money(s.RefundDue)))
	}
	if s.unmatched && s.State != SceneInReview {
		said = append(said, "A payment has come that does not fit this order, for instance in another currency. A person is looking at it, and we will write to you.")
	}
	if back := s.backAdvice(); back != "" {
		said = append(said, back)
	}
	return strings.Join(said, " ")
}

func (s statusView) mainAdvice() string {
	switch s.State {
	case SceneShipped:
		return "Your order is on its way."
	case SceneDelivered:
		return "Your order has arrived. Enjoy it!"
	case SceneReturned:
		return "Your goods have come back to us."
	case ScenePartlyShipped:
		if s.held {
			return "Part of your order is on its way. Before the rest follows, a person has to look at it; we will write to you."
		}
		return "Part of your order is on its way; the rest follows."
	case SceneGoodsGone:
		return s.goneAdvice()
	case SceneOnHold:
		return "Your money has arrived. Before we ship, a person has to look at this order; we will write to you. You need not do anything."
	case ScenePaid:
		return "Your money has arrived, and we are getting your order ready."
	case SceneCancelled, SceneExpired:
		return s.overAdvice()
	case SceneInReview:
		return "A person is looking at a payment for this order, and we will write to you. If you have paid, please do not pay again."
	case SceneUnderpaid:
		return s.underpaidAdvice()
	case SceneAwaitingConfirmation:
		return "Your payment has been seen and is being confirmed. You need not do anything: this page changes by itself."
	case ScenePaymentFailed:
		if s.PayAddress == nil {
			return "The payment did not go through, but your goods are still kept for you. The details for paying again will appear here."
		}
		return "The payment did not go through, but your goods are still kept for you. You can pay again with these details."
	case SceneAwaitingPayment:
	}
	switch {
	case s.PayAddress == nil:
		return "We have put your goods aside. The payment details will appear here in a moment."
	case s.DestinationTag != nil:
		return "Send exactly this amount, and enter the destination tag: without it the money cannot be matched to your order."
	}
	return "Send exactly this amount to this address."
}

func (s statusView) goneAdvice() string {
	if slices.ContainsFunc(s.Choices, func(c ChoiceView) bool { return c.Chosen }) {
		return "You have chosen to wait. We send your order when the goods are there again, and your money is safe. You can still choose otherwise."
	}
	return "Your money has arrived, but too late: some of the goods were sold in the meantime. We are sorry. Your money is safe. " +
		"Please choose below what we shall do, and do not pay again."
}

// backAdvice says where money stands that goes back.
func (s statusView) backAdvice() string {
	homeless := func(r Repayment) bool {
		return r.State == RefundApproved && r.Address == nil && r.Currency == s.Currency
	}
	var said []string
	if sum := sumUp(s.Repayments, func(r Repayment) bool { return r.State != RefundApproved }); sum != "" {
		said = append(said, fmt.Sprintf("We have sent %s back to you.", sum))
	}
	if sum := sumUp(s.Repayments, homeless); sum != "" {
		said = append(said, fmt.Sprintf("We owe you %s: please say below where to send it.", sum))
	}
	if sum := sumUp(s.Repayments, func(r Repayment) bool { return r.State == RefundApproved && !homeless(r) }); sum != "" {
		said = append(said, fmt.Sprintf("We will send %s back to you, and write to you when it is on its way.", sum))
	}
	return strings.Join(said, " ")
}

// sumUp is what the repayments that fit amount to, "" when none does.
func sumUp(list []Repayment, fits func(Repayment) bool) string {
	sums := map[string]decimal.Decimal{}
	for _, r := range list {
		if fits(r) {
			sums[r.Currency] = sums[r.Currency].Add(r.Amount.Decimal)
		}
	}
	var said []string
	for _, currency := range slices.Sorted(maps.Keys(sums)) {
		said = append(said, Amount(sums[currency])+" "+currency)
	}
	return strings.Join(said, " and ")
}

// overAdvice is for an order that takes no money any more.
func (s statusView) overAdvice() string {
	switch {
	case s.State == SceneCancelled && s.RefundDue.IsPositive():
		return fmt.Sprintf("This order was cancelled. We have received %s for it and will pay it back; we will write to you.", s.money(s.RefundDue))
	case s.State == SceneCancelled && len(s.Repayments) > 0:
		return "This order was cancelled. You owe nothing; please do not pay for it any more."
	case s.State == SceneCancelled:
		return "This order was cancelled. You owe nothing; please do not pay for it."
	case s.RefundDue.IsPositive():
		return fmt.Sprintf("The order was not paid in full in time, and the goods were given back for sale. We have received %s and will pay it back; "+
			"we will write to you. Please do not pay any more.", s.money(s.RefundDue))
	}
	return "The order was not paid in time, and the goods were given back for sale. You owe nothing: please do not pay any more, you are welcome to order again. " +
		"Have you just paid? Then do nothing: when your payment arrives, we take the order up again, or write to you."
}

func (s statusView) underpaidAdvice() string {
	got := fmt.Sprintf("We have received %s of %s.", s.AmountPaid, s.money(s.Total))
	switch {
	case s.confirming:
		return fmt.Sprintf("%s Another payment has been seen and is being confirmed: please wait for it before you send more.", got)
	case s.PayAddress == nil:
		return fmt.Sprintf("%s The details for sending the missing %s will appear here.", got, s.money(*s.Missing))
	case s.DestinationTag != nil:
		return fmt.Sprintf("%s Please send the missing %s to the address below, with the same destination tag.", got, s.money(*s.Missing))
	}
	return fmt.Sprintf("%s Please send the missing %s to the address below.", got, s.money(*s.Missing))
}

func (s statusView) money(m web.Money) string { return m.String() + " " + s.Currency }
