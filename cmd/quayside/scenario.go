package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"quayside/internal/devstack"
	"quayside/internal/notify"
	"quayside/internal/orders"
)

// scenario is a story about one order that PayQI and a customer could tell,
// and how it must end. `trigger NAME` plays one, `dev --demo` a choice of them.
type scenario struct {
	name string
	line string // in plain words
	own  string // why it needs an order of its own; "" when any unpaid one will do
	ttl  int64  // seconds until its order expires, 0 for the usual
	to   string // the customer's address; "" for one that takes mail
	rare bool   // its order takes the last units of a product made for it
	late bool   // the play itself opens the order
	demo bool   // part of dev --demo
	play []act
	want ending
}

// ending is how a scenario must end.
type ending struct {
	state string // status/payment_status/fulfillment_status
	event string // what the inbox made of the last event; "" for nothing kept
	cases []orders.Code
	mails []notify.Kind // that were sent; order_received may have been, too
}

// mails abbreviates the list of an ending.
func mails(kinds ...notify.Kind) []notify.Kind { return kinds }

// states that many scenarios end in or wait for.
const (
	openState     = "pending/unpaid/none"
	paidState     = "paid/paid/queued"
	heldState     = "paid/paid/on_hold"
	overpaidState = "paid/overpaid/queued"
	failedState   = "payment_failed/unpaid/none"
	expiredState  = "expired/unpaid/none"

	answerOK      = "200 OK"
	answerKnown   = "200 Already processed"
	answerForged  = "400 Invalid signature"
	answerTooOld  = "400 Request too old"
	ownDeadline   = "its order must expire within a second"
	foreignSuffix = "-other"
)

// The five events.
const (
	created   = orders.PaymentCreatedEvent
	pending   = orders.PaymentPendingEvent
	completed = orders.PaymentCompletedEvent
	failed    = orders.PaymentFailedEvent
	expired   = orders.PaymentExpiredEvent
)

// scenarios is the list, in the order of the help: the guide's own five
// events, then what goes wrong with money, with events, and with orders.
var scenarios = slices.Concat(plainScenarios, moneyScenarios, eventScenarios, orderScenarios)

var plainScenarios = []scenario{
	{
		name: "created", line: "PayQI says where to pay, and the customer is told",
		play: []act{tell(created)},
		want: ending{state: openState, event: orders.Applied, mails: mails(notify.OrderReceived)},
	},
	{
		name: "pending", line: "the payment is seen on the ledger but not confirmed yet",
		play: []act{tell(created), mailed(notify.OrderReceived), tell(pending)},
		want: ending{state: "pending/awaiting_confirmation/none", event: orders.Applied, mails: mails(notify.OrderReceived)},
	},
	{
		name: "completed", line: "created, pending, completed: the order is paid", demo: true,
		play: []act{tell(created), tell(pending), tell(completed)},
		want: ending{state: paidState, event: orders.Applied, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "shipped", line: "paid, and then the shop ships it", demo: true,
		play: []act{tell(created), tell(completed), await(paidState), ship()},
		want: ending{state: "fulfilled/paid/fulfilled", event: orders.Applied, mails: mails(notify.PaymentConfirmed, notify.OrderShipped)},
	},
	{
		name: "failed", line: "the payment fails: the goods stay reserved", demo: true,
		play: []act{tell(created), tell(failed)},
		want: ending{state: failedState, event: orders.Applied, mails: mails(notify.PaymentFailed)},
	},
	{
		name: "retry", line: "the first payment fails, a second one completes", demo: true,
		play: []act{tell(created), tell(failed), await(failedState), mailed(notify.PaymentFailed), tell(completed, payment("second"))},
		want: ending{state: paidState, event: orders.Applied, mails: mails(notify.PaymentFailed, notify.PaymentConfirmed)},
	},
	{
		name: "expired", line: "the payment expires: the goods are released", demo: true,
		play: []act{tell(created), tell(expired)},
		want: ending{state: expiredState, event: orders.Applied, mails: mails(notify.OrderExpired)},
	},
}

var moneyScenarios = []scenario{
	{
		name: "underpaid", line: "half of the money comes: the order waits for the rest", demo: true,
		play: []act{tell(completed, half)},
		want: ending{state: "pending/underpaid/none", event: orders.Applied, cases: []orders.Code{orders.UnderpaidCase}},
	},
	{
		name: "made-good", line: "half of the money, then the other half: the case settles itself",
		play: []act{tell(completed, half), await("pending/underpaid/none"), tell(completed, payment("rest"), rest)},
		want: ending{state: paidState, event: orders.Applied, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "overpaid", line: "2 more than the price: paid, the excess is due back", demo: true,
		play: []act{tell(completed, more)},
		want: ending{state: overpaidState, event: orders.Applied, cases: []orders.Code{orders.OverpaidCase}, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "twice", line: "the customer pays twice: the second payment is due back",
		play: []act{tell(completed), await(paidState), tell(completed, payment("second"))},
		want: ending{state: overpaidState, event: orders.Applied, cases: []orders.Code{orders.DuplicatePayment}, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "wrong-currency", line: "the right number in another currency: it counts nothing", demo: true,
		play: []act{tell(completed, currency("RLUSD"))},
		want: ending{state: openState, event: orders.Applied, cases: []orders.Code{orders.WrongCurrency}},
	},
	{
		name: "wrong-address", line: "the money went to another destination tag than PayQI had named",
		play: []act{tell(created), mailed(notify.OrderReceived), tell(completed, otherTag)}, // the first address told is the one recorded
		want: ending{state: openState, event: orders.Applied, cases: []orders.Code{orders.WrongAddress}},
	},
	{
		name: "reused-hash", line: "a transaction that has paid another order is named again",
		play: []act{payAnother(), tell(completed, sameHash)},
		want: ending{state: openState, event: orders.Applied, cases: []orders.Code{orders.TxReused}},
	},
	{
		name: "amount-changed", line: "one payment completes twice, with two amounts: the first stands",
		play: []act{tell(completed), await(paidState), tell(completed, more)},
		want: ending{state: heldState, event: orders.Quarantined, cases: []orders.Code{orders.AmountChanged}, mails: mails(notify.PaymentConfirmed)},
	},
}

var eventScenarios = []scenario{
	{
		name: "duplicate", line: "one event is delivered 20 times at once: it counts once", demo: true,
		play: []act{deliver(delivery{times: 20, answers: answerOK + ", 19 × " + answerKnown}, completed)},
		want: ending{state: paidState, event: orders.Applied, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "forged", line: "signed with another secret: refused, nothing is kept", demo: true,
		play: []act{deliver(delivery{signature: signBad, answers: answerForged}, completed)},
		want: ending{state: openState},
	},
	{
		name: "stale", line: "10 minutes old: refused; sent again in time: it counts", demo: true,
		play: []act{
			deliver(delivery{timestamp: "-10m", answers: answerTooOld}, completed),
			deliver(delivery{}, completed, sameEvent),
		},
		want: ending{state: paidState, event: orders.Applied, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "out-of-order", line: "completed comes first, then the older news: it changes nothing",
		play: []act{tell(completed, dated(-20)), await(paidState), tell(pending, dated(-40)), tell(failed, dated(-50)), tell(created, dated(-60))},
		want: ending{state: paidState, event: orders.Applied, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "no-id", line: "the event has no id, as in the guide's curl call; its bytes stand in for one",
		play: []act{deliver(delivery{}, completed, noID), deliver(delivery{answers: answerKnown}, completed, sameEvent)},
		want: ending{state: paidState, event: orders.Applied, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "conflict", line: "the same event id with another amount: the first stands, the order is held", demo: true,
		play: []act{tell(completed), await(paidState), deliver(delivery{answers: answerKnown}, completed, sameEvent, more)},
		want: ending{state: heldState, event: orders.Quarantined, cases: []orders.Code{orders.EventConflict}, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "regression", line: "completed, and by PayQI's own clock later failed: the order is held",
		play: []act{tell(completed), await(paidState), tell(failed, dated(60))},
		want: ending{state: heldState, event: orders.Applied, cases: []orders.Code{orders.Regression}, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "unreadable", line: "well signed, but the event contradicts itself: kept for a person",
		play: []act{tell(completed, says("failed"))},
		want: ending{state: openState, event: orders.Quarantined, cases: []orders.Code{orders.UnreadableEvent}},
	},
	{
		name: "unknown-type", line: "an event of a type that PayQI does not have: kept and ignored",
		play: []act{tell("payment.refunded")},
		want: ending{state: openState, event: orders.Ignored, cases: []orders.Code{orders.UnknownType}},
	},
	{
		name: "test-event", line: "PayQI's testing tool sends pay_test_…: it touches no order",
		play: []act{tell(completed, testPayment)},
		want: ending{state: openState, event: orders.Ignored},
	},
}

var orderScenarios = []scenario{
	{
		name: "late", line: "our own deadline passes, then the money comes: paid all the same", demo: true,
		own: ownDeadline, ttl: 1,
		play: []act{await(expiredState), mailed(notify.OrderExpired), tell(completed)},
		want: ending{state: paidState, event: orders.Applied, cases: []orders.Code{orders.LatePaid}, mails: mails(notify.OrderExpired, notify.PaymentConfirmed)},
	},
	{
		name: "goods-gone", line: "late money, and the goods were sold meanwhile: paid, held, customer told", demo: true,
		own: "it takes the last units of a product", ttl: 1, rare: true,
		play: []act{await(expiredState), mailed(notify.OrderExpired), payAnother(), tell(completed)},
		want: ending{state: heldState, event: orders.Applied, cases: []orders.Code{orders.StockGone}, mails: mails(notify.OrderExpired, notify.GoodsGone)},
	},
	{
		name: "cancelled-paid", line: "the shop cancels, then the money comes: it is due back",
		play: []act{cancel("Ordered twice by mistake"), mailed(notify.OrderCancelled), tell(completed)},
		want: ending{state: "cancelled/refund_due/none", event: orders.Applied, cases: []orders.Code{orders.CancelledPaid}, mails: mails(notify.OrderCancelled)},
	},
	{
		name: "unknown-order", line: "the money comes before the order is known: it waits for the order", demo: true,
		own: "its order is opened after the event", late: true,
		play: []act{tell(completed), inboxSays(orders.Parked), openOrder()},
		want: ending{state: paidState, event: orders.Applied, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "nameless", line: "money names no order, but came to this one's address and tag: a person may attach it",
		play: []act{tell(created), inboxSays(orders.Applied), tell(completed, payment("nameless"), samePlace, noOrder), inboxSays(orders.Parked)},
		want: ending{state: openState, event: orders.Parked, cases: []orders.Code{orders.UnknownOrder}},
	},
	{
		name: "checkout", line: "the shop has PayQI create the payment, and the customer pays it",
		own:  "PayQI must know no payment of its order yet",
		play: []act{checkout(), tell(pending), tell(completed)},
		want: ending{state: paidState, event: orders.Applied, mails: mails(notify.PaymentConfirmed)},
	},
	{
		name: "silent", line: "the money came and PayQI says nothing: it is asked, and the order is paid after all",
		own: "its order must expire within seconds", ttl: 5,
		play: []act{checkout(), await(expiredState), mailed(notify.OrderExpired), endsInSilence(completed), decide(orders.SilentPayment, "ask_again")},
		want: ending{state: paidState, cases: []orders.Code{orders.LatePaid}, mails: mails(notify.OrderExpired, notify.PaymentConfirmed)},
	},
	{
		name: "mismatch", line: "an event of this order's payment names another order: a person decides",
		play: []act{tell(created), tell(completed, otherOrder)},
		want: ending{state: openState, event: orders.Quarantined, cases: []orders.Code{orders.OrderMismatch}},
	},
	{
		name: "mail-dead", line: "paid, but the customer's mailbox does not exist: a person corrects the address",
		own: "its customer has an address that refuses mail", to: "ada@" + devstack.NoMailbox,
		play: []act{tell(completed)},
		want: ending{state: paidState, event: orders.Applied, cases: []orders.Code{orders.MailDead}},
	},
}

// findScenario returns the scenario of that name.
func findScenario(name string) (scenario, bool) {
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
	if i < 0 {
		return scenario{}, false
	}
	return scenarios[i], true
}

// listScenarios writes one line per scenario.
func listScenarios(w io.Writer) {
	for _, s := range scenarios {
		own := ""
		if s.own != "" {
			own = " *"
		}
		_, _ = fmt.Fprintf(w, "  %-15s %s%s\n", s.name, s.line, own)
	}
	_, _ = fmt.Fprintln(w, "\n  * takes no --order: it needs one of its own")
}

// nearest is the scenario whose name is most like a mistyped one; "" when none is.
func nearest(name string) string {
	best, least := "", 3
	for _, s := range scenarios {
		if d := distance(strings.ToLower(name), s.name); d < least {
			best, least = s.name, d
		}
		if len(name) >= 4 && strings.Contains(s.name, strings.ToLower(name)) {
			return s.name
		}
	}
	return best
}

// The changes a scenario makes to an event before it is sent.
type change func(s *stage, e *eventOf)

func half(s *stage, e *eventOf) { e.Data.Amount = exactly(halfOf(s.order)) }
func rest(s *stage, e *eventOf) { e.Data.Amount = exactly(s.order.Total.Sub(halfOf(s.order))) }
func more(s *stage, e *eventOf) { e.Data.Amount = exactly(s.order.Total.Add(decimal.NewFromInt(2))) }

func exactly(d decimal.Decimal) json.Number { return json.Number(orders.Amount(d)) }

func halfOf(o orders.View) decimal.Decimal { return o.Total.Div(decimal.NewFromInt(2)).Truncate(6) }

func currency(code string) change { return func(_ *stage, e *eventOf) { e.Data.Currency = code } }
func says(status string) change   { return func(_ *stage, e *eventOf) { e.Data.Status = status } }

// payment makes the event tell of another payment for the order.
func payment(which string) change {
	return func(s *stage, e *eventOf) {
		e.Data.ID = paymentOf(s.order.ID) + "_" + which
		e.Data.DestinationTag = tagOf(e.Data.ID)
	}
}

// dated shifts the signed time, in seconds from now.
func dated(seconds int64) change {
	return func(_ *stage, e *eventOf) { e.Created = time.Now().Unix() + seconds }
}

func sameEvent(s *stage, e *eventOf)   { *e = s.sent }
func sameHash(s *stage, e *eventOf)    { e.Data.TxHash = s.otherHash }
func noID(_ *stage, e *eventOf)        { e.ID = "" }
func otherTag(_ *stage, e *eventOf)    { e.Data.DestinationTag = tagOf(e.Data.ID + foreignSuffix) }
func testPayment(_ *stage, e *eventOf) { e.Data.ID = "pay_test_" + randomHex(6) }
func samePlace(s *stage, e *eventOf)   { e.Data.DestinationTag = s.sent.Data.DestinationTag }
func noOrder(_ *stage, e *eventOf)     { e.Data.Metadata = nil }
func otherOrder(s *stage, e *eventOf) {
	e.Data.Metadata = map[string]any{"order_id": s.order.ID + foreignSuffix}
}

func paymentOf(order string) string { return "pay_" + order }
