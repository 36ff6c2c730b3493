//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"quayside/internal/orders"
)

// eachWay plays a story in two worlds: one with Redis and one without.
func eachWay(t *testing.T, story func(w *world)) {
	t.Parallel()
	for name, build := range map[string]func(*testing.T) *world{"redis": newWorld, "redis away": newWorldAway} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := build(t)
			w.serve()
			w.work()
			w.stock("mug", 10)
			story(w)
		})
	}
}

// An order is paid and shipped, its stock goes down once, and the customer
// gets the three letters that say so.
func TestWalkToShipped(t *testing.T) {
	eachWay(t, func(w *world) {
		o := w.open("walk", "mug")
		w.tell("payment.created", o)
		m := w.letter("walk", "received")
		contains(w.t, "the first letter", m.Text, "10.00 XRP", demoAddress, tagOf("pay_walk"), "https://shop.example/o/")
		w.stands("walk", "pending/unpaid/none")
		w.tell("payment.pending", o)
		w.stands("walk", "pending/awaiting_confirmation/none")
		if got := w.levels("mug"); got != "10/2" {
			w.t.Errorf("stock while pending is %s", got)
		}

		w.tell("payment.completed", o)
		paid := w.stands("walk", "paid/paid/queued")
		if paid.AmountPaid.String() != "10.00" || paid.PaymentID == nil || *paid.PaymentID != "pay_walk" || paid.TxHash == nil || paid.PaidAt == nil {
			w.t.Errorf("paid order: %+v", paid)
		}
		contains(w.t, "the second letter", w.letter("walk", "payment received").Text, "10.00 XRP", *paid.TxHash)
		if got := w.levels("mug"); got != "8/0" {
			w.t.Errorf("stock once paid is %s", got)
		}

		w.must(w.shop.call(w.t.Context(), http.MethodPost, "/api/v1/orders/walk/shipments", map[string]any{"carrier": "DHL", "tracking_number": "JD0146"}, nil))
		w.stands("walk", "fulfilled/paid/fulfilled")
		contains(w.t, "the third letter", w.letter("walk", "on its way").Text, "DHL", "JD0146")
		w.quiet()
		if got := w.letters("walk"); len(got) != 3 {
			w.t.Errorf("letters: %q", got)
		}
	})
}

func contains(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	for _, s := range wanted {
		if !strings.Contains(text, s) {
			t.Errorf("%s has no %q:\n%s", what, s, text)
		}
	}
}

// After a failure the goods stay reserved, the customer is told how to pay,
// and a second payment still pays the order.
func TestWalkFailed(t *testing.T) {
	eachWay(t, func(w *world) {
		o := w.open("fails", "mug")
		w.tell("payment.created", o)
		w.tell("payment.failed", o)
		w.stands("fails", "payment_failed/unpaid/none")
		w.letter("fails", "fail")
		if got := w.levels("mug"); got != "10/2" {
			w.t.Errorf("stock after the failure is %s", got)
		}
		w.answered("200 OK", newEvent("payment.completed", o, "pay_second_try"))
		if o := w.stands("fails", "paid/paid/queued"); *o.PaymentID != "pay_second_try" {
			w.t.Errorf("paid by %s", *o.PaymentID)
		}
	})
}

// When PayQI says expired the goods are free again and the customer is told.
func TestWalkExpired(t *testing.T) {
	eachWay(t, func(w *world) {
		o := w.open("expires", "mug")
		w.tell("payment.created", o)
		w.tell("payment.expired", o)
		w.stands("expires", "expired/unpaid/none")
		w.letter("expires", "expired")
		if got := w.levels("mug"); got != "10/0" {
			w.t.Errorf("stock after the expiry is %s", got)
		}
	})
}

// An order that PayQI never speaks of gives its goods back at its deadline.
func TestWalkDeadline(t *testing.T) {
	eachWay(t, func(w *world) {
		w.open("silent", "mug", "expires_in", 1)
		w.stands("silent", "expired/unpaid/none")
		w.letter("silent", "expired")
		if got := w.levels("mug"); got != "10/0" {
			w.t.Errorf("stock after the deadline is %s", got)
		}
	})
}

// An event that comes twenty times has one effect, and the sender hears so.
func TestWalkDuplicates(t *testing.T) {
	eachWay(t, func(w *world) {
		o := w.open("twenty", "mug")
		e := newEvent("payment.completed", o, "pay_twenty")
		w.answered("200 OK", e)
		for range 19 {
			w.answered("200 Already processed", e)
		}
		w.stands("twenty", "paid/paid/queued")
		w.letter("twenty", "payment received")
		w.answered("200 Already processed", e) // also once applied
		w.quiet()
		once(w, "twenty", 21)
	})
}

// Fifty deliveries of one event at once are one OK and one effect.
func TestWalkFiftyAtOnce(t *testing.T) {
	eachWay(t, func(w *world) {
		o := w.open("fifty", "mug")
		body, err := json.Marshal(newEvent("payment.completed", o, "pay_fifty"))
		w.must(err)
		got := atOnce(50, func(int) string {
			a, err := w.payqi.send(w.t.Context(), body, signGood, now())
			return fmt.Sprint(a, err)
		})
		if got["200 OK <nil>"] != 1 || got["200 Already processed <nil>"] != 49 {
			w.t.Errorf("answers: %v", got)
		}
		w.stands("fifty", "paid/paid/queued")
		w.letter("fifty", "payment received")
		w.quiet()
		once(w, "fifty", 50)
	})
}

// once checks that an order was paid once, of one event delivered so often.
func once(w *world, order string, deliveries int) {
	w.t.Helper()
	if n := w.count(`SELECT deliveries FROM inbox`); n != deliveries || w.count(`SELECT count(*) FROM inbox`) != 1 {
		w.t.Errorf("one event counts %d deliveries, want %d", n, deliveries)
	}
	if n := w.count(`SELECT count(*) FROM stock_movements WHERE order_id = ? AND kind = 'commit'`, order); n != 1 {
		w.t.Errorf("stock was taken %d times", n)
	}
	if n := w.count(`SELECT count(*) FROM timeline WHERE order_id = ? AND became = 'paid'`, order); n != 1 {
		w.t.Errorf("it became paid in %d steps", n)
	}
	if got := w.letters(order); len(got) != 1 {
		w.t.Errorf("letters: %q", got)
	}
}

// atOnce does a thing n times at once and counts the outcomes.
func atOnce(n int, do func(i int) string) map[string]int {
	var mu sync.Mutex
	var wg sync.WaitGroup
	start, count := make(chan struct{}), map[string]int{}
	for i := range n {
		wg.Go(func() {
			<-start
			got := do(i)
			mu.Lock()
			count[got]++
			mu.Unlock()
		})
	}
	close(start)
	wg.Wait()
	return count
}

// Of two hundred who want the last one, one gets it and the others are told.
func TestWalkLastOne(t *testing.T) {
	eachWay(t, func(w *world) {
		w.stock("rare", 1)
		got := atOnce(200, func(i int) string {
			body := draft(fmt.Sprintf("buyer-%d", i), "rare")
			body["items"] = []map[string]any{{"sku": "rare", "quantity": 1, "unit_price": "5.00"}}
			b, _ := json.Marshal(body)
			r := w.ask(http.MethodPost, "/api/v1/orders", string(b))
			return fmt.Sprint(r.status, " ", r.code())
		})
		if got["201 "] != 1 || got["409 insufficient_stock"] != 199 {
			w.t.Errorf("answers: %v", got)
		}
		if got := w.levels("rare"); got != "1/1" {
			w.t.Errorf("stock is %s", got)
		}
	})
}

// An event may come before its order: it waits, uses up no attempt, and counts
// as soon as the order is there.
func TestWalkEventBeforeOrder(t *testing.T) {
	eachWay(t, func(w *world) {
		future := orders.View{ID: "future", Currency: "XRP"}
		w.must(json.Unmarshal([]byte(`"10.00"`), &future.Total))
		w.tell("payment.completed", future)
		w.await("the event to be parked", func() bool {
			return w.count(`SELECT count(*) FROM inbox_open WHERE state = 'parked' AND attempts = 0`) == 1
		})
		w.open("future", "mug")
		w.stands("future", "paid/paid/queued")
		w.letter("future", "payment received")
		w.quiet()
		if got := w.letters("future"); len(got) != 1 {
			w.t.Errorf("letters: %q", got)
		}
	})
}

// Money that comes when the goods are sold makes the order paid and held, with
// a case and a letter; nothing can be shipped against it.
func TestWalkGoodsGone(t *testing.T) {
	eachWay(t, func(w *world) {
		w.stock("last", 2)
		slow := w.open("slow", "last", "expires_in", 1)
		w.stands("slow", "expired/unpaid/none")
		quick := w.open("quick", "last")
		w.tell("payment.completed", quick)
		w.stands("quick", "paid/paid/queued")

		w.tell("payment.completed", slow)
		o := w.stands("slow", "paid/paid/on_hold")
		if len(o.Holds) != 1 || o.Holds[0].Code != orders.StockGone {
			w.t.Errorf("holds: %+v", o.Holds)
		}
		w.letter("slow", "goods are missing")
		if r := w.ask(http.MethodGet, "/api/v1/cases?state=open&order_id=slow&code=STOCK_GONE", ""); r.status != 200 || !strings.Contains(r.body, `"retry_reservation"`) {
			w.t.Errorf("cases: %d %s", r.status, r.body)
		}
		if r := w.ask(http.MethodPost, "/api/v1/orders/slow/shipments", `{}`); r.status != 409 || r.code() != "order_held" {
			w.t.Errorf("shipping it: %d %s", r.status, r.body)
		}
		if got := w.levels("last"); got != "0/0" {
			w.t.Errorf("stock is %s", got)
		}
	})
}

// The guide's own curl call is taken when it is signed, touches nothing and
// raises no alarm; with the signature it shows it is refused.
func TestWalkGuidesCurl(t *testing.T) {
	guide, err := os.ReadFile("../../docs/payqi-webhook-guide.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(guide), "### Local Testing with ngrok")
	m := regexp.MustCompile(`(?s)-d '(.*?)'`).FindStringSubmatch(section)
	if m == nil {
		t.Fatal("the guide has no curl call")
	}
	eachWay(t, func(w *world) {
		if r := w.ask(http.MethodPost, "/webhooks/payqi", m[1], "X-PayQI-Signature", "test_signature"); r.status != 400 || r.body != "Invalid signature" {
			w.t.Errorf("as in the guide: %d %s", r.status, r.body)
		}
		for _, want := range []string{"200 OK", "200 Already processed"} {
			a, err := w.payqi.send(w.t.Context(), []byte(m[1]), signGood, "")
			if w.must(err); a.String() != want {
				w.t.Errorf("signed: %s, want %s", a, want)
			}
		}
		w.await("the event to be settled", func() bool { return w.count(`SELECT count(*) FROM inbox WHERE outcome = 'ignored'`) == 1 })
		if n := w.count(`SELECT (SELECT count(*) FROM cases) + (SELECT count(*) FROM payments)`); n != 0 {
			w.t.Errorf("it left %d rows", n)
		}
	})
}

// However the events of one payment arrive, and however often, the order ends
// with the same status, money, stock and holds.
func TestWalkAnyOrderOfArrival(t *testing.T) {
	t.Parallel()
	const seed = 20260101
	t.Logf("seed %d", seed)
	arrivals := sampleArrivals(rand.New(rand.NewPCG(seed, 0)))
	w := newWorld(t)
	w.serve()
	w.work()
	w.work()
	w.stock("mug", int64(2*len(arrivals)))
	w.deliver(arrivals)
	w.quiet()

	ends := map[string]map[string][]string{} // set → end → examples
	for i, a := range arrivals {
		end := w.text(`SELECT concat_ws(' ', status, payment_status, fulfillment_status, got::float, refund_due::float, stock, payment_id IS NULL,
			(SELECT string_agg(code, ',' ORDER BY code) FROM cases WHERE order_id = o.id AND state = 'open' AND blocks),
			(SELECT sum(on_hand_delta) || '/' || sum(reserved_delta) FROM stock_movements WHERE order_id = o.id)) FROM orders o WHERE id = ?`, arrivalID(i))
		if ends[a.set()] == nil {
			ends[a.set()] = map[string][]string{}
		}
		ends[a.set()][end] = append(ends[a.set()][end], fmt.Sprint(a))
	}
	if len(ends) != 31 {
		t.Errorf("%d sets of events were played, want every one of 31", len(ends))
	}
	for set, ways := range ends {
		if len(ways) != 1 {
			t.Errorf("the events %s end in %d ways: %v", set, len(ways), ways)
		}
		for end := range ways {
			if want := endOf(set); !strings.HasPrefix(end, want) {
				t.Errorf("the events %s end %s, want %s", set, end, want)
			}
		}
	}
}

// endOf is where a set of events must lead: the strongest one decides.
func endOf(set string) string {
	for _, e := range []struct{ has, end string }{
		{"completed", "paid paid "},
		{"expired", "expired unpaid none "},
		{"failed", "payment_failed unpaid none "},
		{"pending", "pending awaiting_confirmation none "},
	} {
		if strings.Contains(set, e.has) {
			return e.end
		}
	}
	return "pending unpaid none "
}

// arrival is a sequence of types of events, perhaps with repeats.
type arrival []string

// set names the types in it, whatever their order and number.
func (a arrival) set() string {
	s := slices.Clone(a)
	slices.Sort(s)
	return strings.Join(slices.Compact(s), "+")
}

var allTypes = arrival{"created", "pending", "completed", "failed", "expired"}

// sampleArrivals is every permutation of all five types, and of every subset
// some orders with repeats.
func sampleArrivals(r *rand.Rand) (list []arrival) {
	var permute func(done, rest arrival)
	permute = func(done, rest arrival) {
		if len(rest) == 0 {
			list = append(list, slices.Clone(done))
		}
		for i := range rest {
			permute(append(slices.Clone(done), rest[i]), slices.Delete(slices.Clone(rest), i, i+1))
		}
	}
	permute(nil, allTypes)
	for subset := 1; subset < 1<<len(allTypes); subset++ {
		var a arrival
		for i, eventType := range allTypes {
			if subset&(1<<i) != 0 {
				a = append(a, eventType)
			}
		}
		for range 5 {
			b := slices.Clone(a)
			for range r.IntN(4) {
				b = append(b, a[r.IntN(len(a))])
			}
			r.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
			list = append(list, b)
		}
	}
	return list
}

func arrivalID(i int) string { return fmt.Sprintf("arrival-%d", i) }

// deliver sends each arrival's events, one after the other, about an order of
// its own; eight orders at a time.
func (w *world) deliver(arrivals []arrival) {
	w.t.Helper()
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i, a := range arrivals {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := w.deliverOne(arrivalID(i), a); err != nil {
				w.t.Error(err)
			}
		})
	}
	wg.Wait()
}

func (w *world) deliverOne(id string, a arrival) error {
	var o orders.View
	if err := w.shop.call(w.t.Context(), http.MethodPost, "/api/v1/orders", draft(id, "mug"), &o); err != nil {
		return err
	}
	sent := map[string]eventOf{}
	for _, eventType := range a {
		e, again := sent[eventType]
		if !again {
			e = newEvent("payment."+eventType, o, "pay_"+id)
			e.Created = 1_700_000_000 + int64(slices.Index(allTypes, eventType)) // failed and expired say they are newer than completed: REGRESSION
			sent[eventType] = e
		}
		answer, err := w.payqi.tell(w.t.Context(), e)
		cut := err != nil
		if cut { // a connection may end at any time: as PayQI would, send it again, whether it had arrived or not
			answer, err = w.payqi.tell(w.t.Context(), e)
		}
		if err != nil {
			return fmt.Errorf("%s of %s: %w", eventType, id, err)
		}
		want := map[bool]string{false: "200 OK", true: "200 Already processed"}[again]
		if answer.String() != want && (!cut || answer.Status != http.StatusOK) {
			return fmt.Errorf("%s of %s: %s, want %s", eventType, id, answer, want)
		}
	}
	return nil
}
