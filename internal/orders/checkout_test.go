package orders

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/payqi"
)

// provider is a PayQI that creates one payment for each key, pay_1 onwards.
type provider struct {
	mu       sync.Mutex
	keys     []string                  // one for each payment, in order
	asked    []string                  // what was asked, with the number of the payment
	status   int                       // of the answer when it is not 0; no payment is created
	lose     bool                      // the next answer gets lost, its payment does not
	extra    map[string]any            // changes to the answers
	meantime func(payment string)      // happens before the answer
	payments map[string]map[string]any // what GET answers
	gets     []string
}

// connect gives the shop access to a PayQI.
func (s *shop) connect() *provider {
	s.Helper()
	p := &provider{payments: map[string]map[string]any{}}
	srv := httptest.NewServer(p)
	s.Cleanup(srv.Close)
	var err error
	if s.book.PayQI, err = payqi.New(srv.URL, "the key of a test"); err != nil {
		s.Fatal(err)
	}
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method == http.MethodGet {
		p.get(w, r.URL.Path[len("/api/payments/"):])
		return
	}
	if p.status != 0 {
		w.WriteHeader(p.status)
		return
	}
	key := r.Header.Get("Idempotency-Key")
	n := slices.Index(p.keys, key) + 1
	if n == 0 {
		p.keys = append(p.keys, key)
		n = len(p.keys)
	}
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	p.asked = append(p.asked, fmt.Sprint(n, " ", body["amount"], " ", body["currency"], " ", body["metadata"]))
	answer := map[string]any{"id": fmt.Sprintf("pay_%d", n), "pay_address": "rShop", "destination_tag": n, "checkout_url": "https://pay.example/" + fmt.Sprint(n)}
	for name, value := range p.extra {
		answer[name] = value
	}
	if p.meantime != nil {
		p.meantime(fmt.Sprintf("pay_%d", n))
	}
	if p.lose {
		p.lose = false
		panic(http.ErrAbortHandler)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (p *provider) get(w http.ResponseWriter, id string) {
	p.gets = append(p.gets, id)
	switch answer := p.payments[id]; {
	case p.status != 0:
		w.WriteHeader(p.status)
	case answer == nil:
		w.WriteHeader(http.StatusNotFound)
	default:
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func (s *shop) checkout(id string) (*WayToPay, bool, error) {
	return s.book.Checkout(asOwner(context.Background()), id, "admin:test")
}

// paysBy checks out an order and fails the test when it is refused.
func (s *shop) paysBy(id string) string {
	s.Helper()
	way, created, err := s.checkout(id)
	if err != nil {
		s.Fatal(err)
	}
	tag := "-"
	if way.DestinationTag != nil {
		tag = fmt.Sprint(*way.DestinationTag)
	}
	return fmt.Sprint(way.PaymentID, " ", Amount(way.Amount), " ", way.Currency, " ", text(way.PayAddress), " ", tag, " ", way.CheckoutURL, " ", created)
}

// A checkout creates one payment at PayQI, over what is owed; the payment is
// linked, the customer is told where to pay, and asking again is the same.
func TestCheckout(t *testing.T) {
	s := newShop(t)
	p := s.connect()
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.want("way", s.paysBy("1001"), "pay_1 10.00 XRP rShop 1 https://pay.example/1 true")
	s.want("again", s.paysBy("1001"), "pay_1 10.00 XRP rShop 1 https://pay.example/1 false")
	s.want("asked", fmt.Sprint(p.asked), "[1 10.00 XRP map[order_id:1001]]")
	s.want("payment", one[string](s, `SELECT concat_ws(' ', id, order_id, created_seen, pay_address, destination_tag, counted) FROM payments`), "pay_1 1001 0 rShop 1 no")
	s.want("row", one[string](s, `SELECT concat_ws(' ', number, amount, currency, state, payment_id, asked_by) FROM checkouts`), "1 10.000000000000000000 XRP linked pay_1 admin:test")
	s.want("timeline", one[string](s, `SELECT string_agg(concat_ws(' ', kind, cause, note), ', ' ORDER BY seq) FROM timeline WHERE seq > 1`),
		"payment.created checkout:payqi PayQI: payment pay_1 created")
	s.want("letters", s.letters("1001"), "order_received dropped, order_received queued")
	s.hear(s.of("", completed("pay_1", "10"))) // its event names no order: the link does
	s.want("order", s.status("1001"), "paid paid queued committed")
}

// Whatever gets lost between PayQI and us, the next call asks with the same
// key: there is one payment.
func TestCheckoutTakenUpAgain(t *testing.T) {
	s := newShop(t)
	p := s.connect()
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	p.lose = true
	_, _, err := s.checkout("1001")
	s.refused(err, fault.Unavailable, "payqi_away")
	s.want("after a lost answer", one[string](s, `SELECT state FROM checkouts`), "asking")
	// The process ends while it asks: nothing but the row with its lease is left.
	s.must(func(tx database.Tx) error {
		return tx.Exec(`UPDATE checkouts SET leased_until = ?`, tx.Now.Add(time.Second)).Error
	})
	_, _, err = s.checkout("1001")
	s.refused(err, fault.Conflict, "payment_in_progress")
	s.clock.Add(2 * time.Second)
	s.want("way", s.paysBy("1001"), "pay_1 10.00 XRP rShop 1 https://pay.example/1 true")
	s.want("payments at PayQI", fmt.Sprint(len(p.keys), " of ", len(p.asked)), "1 of 2")
}

// However many ask at once, PayQI creates one payment.
func TestCheckoutAtOnce(t *testing.T) {
	s := newShopOf(t, 8, Terms{})
	p := s.connect()
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			way, _, err := s.checkout("1001")
			if err != nil {
				s.refused(err, fault.Conflict, "payment_in_progress")
			} else if way.PaymentID != "pay_1" {
				t.Errorf("payment %s", way.PaymentID)
			}
		})
	}
	wg.Wait()
	s.want("payments at PayQI", fmt.Sprint(len(p.keys), one[int](s, `SELECT count(*) FROM payments`)), "1 1")
}

// A payment that is over makes room for another, with another key, over what
// is still missing.
func TestCheckoutAfterAnother(t *testing.T) {
	s := newShop(t)
	p := s.connect()
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.paysBy("1001")
	s.hear(s.of("1001", news(PaymentFailedEvent, "pay_1")))
	s.want("after a failure", s.paysBy("1001"), "pay_2 10.00 XRP rShop 2 https://pay.example/2 true")
	s.want("order", s.status("1001"), "pending unpaid none reserved")
	s.hear(s.of("1001", completed("pay_2", "4.000001")))
	s.want("the rest", s.paysBy("1001"), "pay_3 5.999999 XRP rShop 3 https://pay.example/3 true")
	s.hear(s.of("1001", completed("other", "1")))
	s.want("another amount is owed", s.paysBy("1001"), "pay_4 4.999999 XRP rShop 4 https://pay.example/4 true")
	s.hear(s.of("1001", news(PaymentPendingEvent, "pay_3")))
	s.want("money on its way", s.paysBy("1001"), "pay_4 4.999999 XRP rShop 4 https://pay.example/4 false")
	s.want("asked", fmt.Sprint(len(p.keys), len(p.asked)), "4 4")
}

// An unanswered checkout over an amount that is not owed any more is given up.
func TestCheckoutAbandoned(t *testing.T) {
	s := newShop(t)
	p := s.connect()
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	p.lose = true
	_, _, err := s.checkout("1001")
	s.refused(err, fault.Unavailable, "payqi_away")
	s.hear(s.of("1001", completed("other", "4")))
	s.want("way", s.paysBy("1001"), "pay_2 6.00 XRP rShop 2 https://pay.example/2 true")
	s.want("rows", one[string](s, `SELECT string_agg(state || ' ' || trim_scale(amount), ', ' ORDER BY number) FROM checkouts`), "abandoned 10, linked 6")
}

// What cannot be paid is not asked for.
func TestCheckoutRefused(t *testing.T) {
	s := newShop(t)
	_, _, err := s.checkout("1001")
	s.refused(err, fault.NotImplemented, "no_payqi_key")
	p := s.connect()
	s.product("mug", 100)
	_, _, err = s.checkout("nobody")
	s.refused(err, fault.NotFound, "order_not_found")
	s.pay("paid", "mug")
	s.open(draft("cancelled", "mug"))
	s.must(func(database.Tx) error { return s.cancel("cancelled") })
	s.open(draft("undecided", "mug"))
	foreign := completed("foreign", "10")
	foreign.Currency = "RLUSD"
	s.hear(s.of("undecided", foreign))
	s.open(draft("late", "mug"))
	for id, code := range map[string]string{"paid": "order_paid", "cancelled": "order_cancelled", "undecided": "money_undecided"} {
		_, _, err := s.checkout(id)
		s.refused(err, fault.Conflict, code)
	}
	s.clock.Add(30 * time.Minute)
	_, _, err = s.checkout("late")
	s.refused(err, fault.Conflict, "order_expired")
	s.want("asked", fmt.Sprint(len(p.asked), one[int](s, `SELECT count(*) FROM checkouts`)), "0 0")
}

// What PayQI answers is recorded only when it is what was asked for.
func TestCheckoutAnsweredWrongly(t *testing.T) {
	s := newShop(t)
	p := s.connect()
	s.product("mug", 100)
	s.pay("taken", "mug") // payment pay_taken
	s.open(draft("1001", "mug"))
	for i, tc := range []struct {
		extra  map[string]any
		status int
		kind   fault.Kind
		code   string
		state  string // of the checkout
	}{
		{map[string]any{"amount": "9.99"}, 0, fault.Conflict, "payqi_other_payment", "refused"},
		{map[string]any{"currency": "RLUSD"}, 0, fault.Conflict, "payqi_other_payment", "refused"},
		{map[string]any{"metadata": map[string]string{"order_id": "1002"}}, 0, fault.Conflict, "payqi_other_payment", "refused"},
		{map[string]any{"id": "pay_test_1"}, 0, fault.NotImplemented, "payqi_test_key", "refused"},
		{map[string]any{"id": "pay_taken"}, 0, fault.Conflict, "payment_linked", "refused"},
		{nil, 401, fault.NotImplemented, "payqi_key", "refused"},
		{nil, 422, fault.Unprocessable, "payqi_refused", "refused"},
		{map[string]any{"id": ""}, 0, fault.Unavailable, "payqi_unreadable", "asking"},
		{nil, 500, fault.Unavailable, "payqi_away", "asking"},
	} {
		p.extra, p.status = tc.extra, tc.status
		_, _, err := s.checkout("1001")
		s.refused(err, tc.kind, tc.code)
		s.want(fmt.Sprint("checkout ", i), one[string](s, `SELECT state FROM checkouts ORDER BY number DESC LIMIT 1`), tc.state)
	}
	s.want("payments", one[string](s, `SELECT string_agg(id, ' ') FROM payments`), "pay_taken")
	p.extra, p.status = map[string]any{"amount": "10", "currency": "xrp"}, 0
	way, created, err := s.checkout("1001")
	if err != nil || !created || way.PaymentID != "pay_6" { // the five that PayQI refused with a payment keep theirs
		t.Errorf("%+v %v %v", way, created, err)
	}
}

// An event may overtake the answer; and an order that is cancelled while PayQI
// is asked gets its payment linked, and nobody is told to pay it.
func TestCheckoutOvertaken(t *testing.T) {
	s := newShop(t)
	p := s.connect()
	s.product("mug", 100)
	s.open(draft("1001", "mug"))
	s.open(draft("1002", "mug"))
	p.meantime = func(payment string) { s.hear(s.of("1001", news(PaymentCreatedEvent, payment).to("rShop", 1))) }
	s.want("way", s.paysBy("1001"), "pay_1 10.00 XRP rShop 1 https://pay.example/1 true")
	s.want("steps", one[string](s, `SELECT string_agg(kind, ' ' ORDER BY seq) FROM timeline WHERE order_id = '1001'`), "opened payment.created")
	p.meantime = func(string) { s.must(func(database.Tx) error { return s.cancel("1002") }) }
	_, _, err := s.checkout("1002")
	s.refused(err, fault.Conflict, "order_cancelled")
	s.want("link", one[string](s, `SELECT order_id FROM payments WHERE id = 'pay_2'`), "1002")
}

// A shop that creates payments itself records them, as often as it likes; a
// payment has one order, and one address.
func TestLink(t *testing.T) {
	s := newShop(t)
	s.product("mug", 100)
	s.open(draft("1001", "mug"))
	s.open(draft("1002", "mug"))
	tag := int64(7)
	link := func(order, payment, address string, tag *int64) error {
		return s.try(func(tx database.Tx) error { return s.book.Link(tx, order, "admin:test", payment, address, tag) })
	}
	for range 2 {
		if err := link("1001", "a", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := link("1001", "a", "rShop", &tag); err != nil {
			t.Fatal(err)
		}
	}
	s.want("steps", one[string](s, `SELECT string_agg(cause || ' ' || note, ', ' ORDER BY seq) FROM timeline WHERE seq > 1`),
		"admin:test the shop: payment a created, admin:test the shop: payment a created")
	s.want("payment", one[string](s, `SELECT concat_ws(' ', id, order_id, created_seen, pay_address, destination_tag) FROM payments`), "a 1001 0 rShop 7")
	s.refused(link("1002", "a", "", nil), fault.Conflict, "payment_linked")
	s.refused(link("1001", "a", "rElsewhere", nil), fault.Conflict, "address_differs")
	other := int64(8)
	s.refused(link("1001", "a", "rShop", &other), fault.Conflict, "address_differs")
	s.refused(link("nobody", "b", "", nil), fault.NotFound, "order_not_found")
	v := s.hear(s.of("1002", completed("a", "10")))
	s.want("an event that names another order", fmt.Sprint(v[0].State, " ", s.cases("1001")), "quarantined ORDER_MISMATCH!")
	s.hear(s.of("", completed("a", "10")))
	s.want("order", s.status("1001"), "paid paid on_hold committed")
}
