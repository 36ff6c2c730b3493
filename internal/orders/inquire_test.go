package orders

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
)

func (s *shop) inquire() {
	s.Helper()
	if err := s.book.Inquire(context.Background()); err != nil {
		s.Error(err)
	}
}

// silence opens an order whose payment is created, and lets its deadline pass.
func (s *shop) silence(id, payment string) {
	s.Helper()
	s.open(draft(id, "mug"))
	s.hear(s.of(id, news(PaymentCreatedEvent, payment)))
	s.clock.Add(30 * time.Minute)
	if _, err := s.book.Expire(context.Background(), 10); err != nil {
		s.Fatal(err)
	}
	s.want("after the deadline", s.status(id)+" "+s.cases(id), "expired unpaid none none SILENT_PAYMENT")
}

func (s *shop) inquiry() string {
	s.Helper()
	return one[string](s, `SELECT concat_ws(' ', state, asks, extract(epoch FROM ask_at - asked_at)::int, answer, trim_scale(amount), currency) FROM inquiries`)
}

// A payment that is open past its deadline is asked about; the answer is heard
// like an event: late money pays the order.
func TestSilentPayment(t *testing.T) {
	s := newShop(t)
	p := s.connect()
	s.product("mug", 10)
	s.silence("1001", "a")
	p.payments["a"] = map[string]any{"id": "a", "status": "completed", "amount": "10.00", "currency": "XRP", "tx_hash": "AB", "metadata": map[string]any{"order_id": "1001"}}
	s.inquire()
	s.want("order", s.status("1001")+" "+s.stock("mug")+" "+s.cases("1001"), "paid paid queued committed 8/0 LATE_PAID")
	s.want("payment", one[string](s, `SELECT concat_ws(' ', trim_scale(amount), currency, tx_hash, counted, completed_seen) FROM payments`), "10 XRP AB matched 0")
	s.want("step", one[string](s, `SELECT concat_ws(' ', kind, cause, was, became, coalesce(inbox_id::text, '-')) FROM timeline ORDER BY seq DESC LIMIT 1`), "payment.completed poll:payqi expired paid -")
	s.want("inquiry", s.inquiry(), "over 1 60 completed 10 XRP")
	s.want("case", one[string](s, `SELECT state || ' ' || closed_by FROM cases WHERE code = 'SILENT_PAYMENT'`), "closed quayside")
	s.clock.Add(time.Hour)
	s.inquire()
	s.want("asked", fmt.Sprint(p.gets), "[a]")
	late := completed("a", "10").hash("AB") // the event that comes after all
	s.want("verdict", s.hear(s.of("1001", late))[0].State, "applied")
	s.want("order", s.status("1001"), "paid paid queued committed")
}

// Each answer does what the event of that name does; one that is not known, or
// cannot be believed, changes nothing.
func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answer  map[string]any
		order   string // and its cases
		inquiry string
	}{
		{"failed", map[string]any{"status": "failed"}, "expired unpaid none none ", "over 1 60 failed"},
		{"expired", map[string]any{"status": "EXPIRED"}, "expired unpaid none none ", "over 1 60 expired"},
		{"pending", map[string]any{"status": "pending"}, "pending awaiting_confirmation none reserved ", "open 1 60 pending"},
		{"created", map[string]any{"status": "created"}, "expired unpaid none none SILENT_PAYMENT", `open 1 60 "created", which says nothing new`},
		{"another word", map[string]any{"status": "refunded"}, "expired unpaid none none SILENT_PAYMENT", `open 1 60 "refunded", which says nothing new`},
		{"no amount", map[string]any{"status": "completed", "currency": "XRP"}, "expired unpaid none none SILENT_PAYMENT", "open 1 60 completed, but of no readable amount and currency: it was not applied"},
		{"no currency", map[string]any{"status": "completed", "amount": "10"}, "expired unpaid none none SILENT_PAYMENT", "open 1 60 completed, but of no readable amount and currency: it was not applied"},
		{"an amount that is none", map[string]any{"status": "completed", "amount": "10,00", "currency": "XRP"}, "expired unpaid none none SILENT_PAYMENT", "open 1 60 PayQI's answer cannot be read"},
		{"another order", map[string]any{"status": "completed", "amount": "10", "currency": "XRP", "metadata": map[string]any{"order_id": "1002"}}, "expired unpaid none none SILENT_PAYMENT", "open 1 60 completed, but of order 1002: it was not applied"},
		{"another currency", map[string]any{"status": "completed", "amount": "10", "currency": "RLUSD"}, "expired unpaid none none WRONG_CURRENCY!", "over 1 60 completed 10 RLUSD"},
		{"too little", map[string]any{"status": "completed", "amount": "4", "currency": "XRP"}, "pending underpaid none reserved UNDERPAID!", "over 1 60 completed 4 XRP"},
		{"another payment", map[string]any{"id": "b", "status": "completed", "amount": "10", "currency": "XRP"}, "expired unpaid none none SILENT_PAYMENT", "open 1 60 PayQI's answer cannot be read"},
		{"not known", nil, "expired unpaid none none SILENT_PAYMENT", "open 1 60 PayQI knows no such payment"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			p := s.connect()
			s.product("mug", 10)
			s.silence("1001", "a")
			if tc.answer != nil {
				p.payments["a"] = map[string]any{"id": "a"}
				for name, value := range tc.answer {
					p.payments["a"][name] = value
				}
			}
			s.inquire()
			s.want("order", s.status("1001")+" "+s.cases("1001"), tc.order)
			s.want("inquiry", s.inquiry(), tc.inquiry)
		})
	}
}

// Without news the pauses grow to an hour, for two days; a person may have it
// asked again at once.
func TestInquiryPauses(t *testing.T) {
	s := newShop(t)
	p := s.connect()
	s.product("mug", 10)
	s.silence("1001", "a")
	p.payments["a"] = map[string]any{"id": "a", "status": "created"}
	var pauses []int
	for one[string](s, `SELECT state FROM inquiries`) == inquiryOpen && len(pauses) < 100 {
		asked := len(p.gets)
		s.inquire()
		if len(p.gets) > asked {
			pauses = append(pauses, one[int](s, `SELECT extract(epoch FROM ask_at - asked_at)::int / 60 FROM inquiries`))
		}
		s.clock.Set(one[time.Time](s, `SELECT ask_at FROM inquiries`))
	}
	s.want("pauses", fmt.Sprint(pauses[:8], len(pauses)), "[1 2 4 8 16 32 60 60] 53")
	s.decided("1001", SilentPayment, actAskAgain)
	s.inquire()
	s.want("asked again", fmt.Sprint(len(p.gets), " ", one[string](s, `SELECT state FROM inquiries`), " ", s.cases("1001")), "54 open SILENT_PAYMENT")
	s.book.PayQI = nil
	s.refused(s.decide("1001", SilentPayment, Decision{Action: actAskAgain}), fault.NotImplemented, "no_payqi_key")
	s.decided("1001", SilentPayment, actAcknowledge)
	s.want("cases", s.cases("1001"), "")
}

// Several workers ask about each payment once, keep within PayQI's limit
// together, and leave one alone that fails.
func TestInquiryWorkers(t *testing.T) {
	s := newShopOf(t, 8, Terms{})
	p := s.connect()
	s.product("mug", 10)
	s.silence("1001", "a")
	p.payments["a"] = map[string]any{"id": "a", "status": "created"}
	s.must(func(tx database.Tx) error {
		err := tx.Exec(`INSERT INTO payments (id, order_id, first_seen_at) SELECT 'p' || n, '1001', now() FROM generate_series(1, 120) n`).Error
		if err != nil {
			return err
		}
		return tx.Exec(`INSERT INTO inquiries (payment_id, state, since, ask_at, ask_until) SELECT 'p' || n, 'open', ?, ?, ? FROM generate_series(1, 120) n`,
			tx.Now, tx.Now, tx.Now.Add(time.Hour)).Error
	})
	work := func() {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(s.inquire)
		}
		wg.Wait()
	}
	work()
	seen := map[string]bool{}
	for _, id := range p.gets {
		seen[id] = true
	}
	s.want("asked in a minute", fmt.Sprint(len(p.gets), len(seen)), "100 100")
	s.clock.Add(59 * time.Second)
	work()
	s.want("within the minute", fmt.Sprint(len(p.gets)), "100")
	s.clock.Add(2 * time.Second)
	p.status = 500
	work()
	if n := len(p.gets); n < 105 || n > 110 { // five in a row, and what the others had begun
		t.Errorf("a PayQI that fails was asked %d times", n-100)
	}
}

// When payment after payment ends without a word, and nothing else comes
// either, a person is told; the next event ends it, and so does the person,
// until there is new reason.
func TestMindSilence(t *testing.T) {
	s := newShop(t)
	s.product("mug", 100)
	open := func() string {
		s.Helper()
		if err := s.book.MindSilence(context.Background()); err != nil {
			t.Error(err)
		}
		return one[string](s, `SELECT coalesce(max(state || ' ' || coalesce(closed_by, '-')), 'none') FROM cases WHERE code = 'NO_EVENTS'`)
	}
	n := 0
	silences := func(times int) {
		s.Helper()
		for range times { // recorded by the shop: no event tells of them
			n++
			id := fmt.Sprint("o", n)
			s.open(draft(id, "mug"))
			s.must(func(tx database.Tx) error { return s.book.Link(tx, id, "admin:test", "pay_"+id, "", nil) })
			s.clock.Add(30 * time.Minute)
			if _, err := s.book.Expire(context.Background(), 10); err != nil {
				t.Fatal(err)
			}
		}
	}
	event := func() {
		s.clock.Add(time.Second)
		_, err := s.db.Exec(context.Background(), `INSERT INTO inbox (id, key, body, digest, secret_label, received_at, last_seen_at)
			VALUES ($1, $2, '{}', 'x', 'test', $3, $3)`, uuid.Must(uuid.NewV7()), fmt.Sprint("evt_", n), s.clock.Now()) // v7, as the inbox makes them
		if err != nil {
			t.Fatal(err)
		}
		s.clock.Add(time.Second)
	}
	s.want("at first", open(), "none")
	silences(2)
	event()
	silences(2)
	s.want("two, an event, two", open(), "none")
	silences(1)
	s.want("three in a row", open(), "open -")
	s.want("again", open(), "open -")
	event()
	s.want("an event", open(), "closed quayside")
	silences(3)
	s.want("three more", open(), "open -")
	s.must(func(tx database.Tx) error {
		return s.book.CloseCases(tx, []string{noEvents.Key()}, "admin:ada", "acknowledge")
	})
	s.want("acknowledged", open(), "closed admin:ada")
	silences(1)
	s.want("still silent", open(), "closed admin:ada")
	event()
	s.want("an event after that", open(), "closed admin:ada")
	silences(3)
	s.want("silent once more", open(), "open -")
}

// Two workers that look for inquiries at the same moment do so one after the
// other: both would count the same minute.
func TestInquiryClaims(t *testing.T) {
	s := newShopOf(t, 4, Terms{})
	s.product("mug", 10)
	s.silence("1001", "a")
	s.must(func(tx database.Tx) error {
		err := tx.Exec(`INSERT INTO payments (id, order_id, first_seen_at) SELECT 'p' || n, '1001', now() FROM generate_series(1, 100) n`).Error
		if err != nil {
			return err
		}
		return tx.Exec(`INSERT INTO inquiries (payment_id, state, since, ask_at, ask_until, asked_at)
			SELECT 'p' || n, 'open', ?, ?, ?, CASE WHEN n > 1 THEN ?::timestamptz END FROM generate_series(1, 100) n`,
			tx.Now, tx.Now, tx.Now.Add(time.Hour), tx.Now).Error
	})
	var first, second []Inquiry
	s.whileWaiting(
		func(tx database.Tx) (err error) { first, err = claimInquiries(tx); return err },
		func(tx database.Tx) (err error) { second, err = claimInquiries(tx); return err })
	s.want("claimed", fmt.Sprint(len(first), len(second)), "1 0") // 99 were asked within the minute
}
