package orders

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"quayside/internal/queue"
)

// request returns the shipment request of an order.
func (s *shop) request(order string) uuid.UUID {
	s.Helper()
	return one[uuid.UUID](s, `SELECT id FROM shipment_requests WHERE order_id = ?`, order)
}

func (s *shop) requestState(order string) string {
	s.Helper()
	return one[string](s, `SELECT concat_ws(' ', state, attempts, last_error) FROM shipment_requests WHERE order_id = ?`, order)
}

func (s *shop) fulfil(order string) {
	s.Helper()
	if err := s.book.fulfil(context.Background(), s.request(order)); err != nil {
		s.Error(err)
	}
}

var errCarrier = errors.New("the carrier is on strike")

// A provider that fails is asked again, after a pause that doubles, for the
// same request; once it has taken it, never more.
func TestFulfil(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.product("pot", 10)
	s.pay("1001", "mug", "pot")
	s.carrier.answer = func(ctx context.Context) error {
		if until, bounded := ctx.Deadline(); !bounded || time.Until(until) >= requestLease {
			t.Errorf("asked without a deadline inside the lease: %v", until)
		}
		if len(s.carrier.asked) < 3 {
			return errCarrier
		}
		return nil
	}
	s.fulfil("1001")
	s.want("first", s.requestState("1001"), "queued 1 the carrier is on strike")
	s.clock.Add(5*time.Second - time.Microsecond)
	s.fulfil("1001")
	s.want("too early", s.requestState("1001"), "queued 1 the carrier is on strike")
	s.clock.Add(time.Microsecond)
	s.fulfil("1001")
	s.clock.Add(10*time.Second - time.Microsecond)
	s.fulfil("1001")
	s.want("second", s.requestState("1001"), "queued 2 the carrier is on strike")
	s.clock.Add(time.Microsecond)
	s.fulfil("1001")
	s.want("third", s.requestState("1001"), "handed_over 3 ")
	s.clock.Add(time.Hour)
	s.fulfil("1001")
	if err := s.book.fulfil(t.Context(), uuid.New()); err != nil {
		t.Errorf("no such request: %v", err)
	}
	if len(s.carrier.asked) != 3 {
		t.Fatalf("asked %d times", len(s.carrier.asked))
	}
	for i, r := range s.carrier.asked {
		if r.ID != s.request("1001") || r.OrderID != "1001" || r.Attempts != i+1 {
			t.Errorf("asked for %+v", r)
		}
	}
	if l := s.carrier.lines; len(l) != 2 || l[0].SKU != "mug" || l[0].Quantity != 1 || l[0].Name != "A mug" || l[1].SKU != "pot" {
		t.Errorf("lines %+v", s.carrier.lines)
	}
}

// After twelve failures, nearly three hours, a person is told and the order is held.
func TestFulfilGivesUp(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.pay("1001", "mug")
	s.carrier.answer = func(context.Context) error { return errCarrier }
	for range 15 {
		s.fulfil("1001")
		s.clock.Set(one[time.Time](s, `SELECT greatest(not_before, ?) FROM shipment_requests`, s.clock.Now()))
	}
	s.want("request", s.requestState("1001"), "dead 12 the carrier is on strike")
	s.want("order", s.status("1001")+" "+s.cases("1001"), "paid paid on_hold committed FULFILMENT_DEAD!")
	if len(s.carrier.asked) != 12 {
		t.Errorf("asked %d times", len(s.carrier.asked))
	}
	if waited := one[time.Time](s, `SELECT at FROM timeline WHERE kind = 'fulfilment_dead'`).Sub(opening); waited != 10235*time.Second {
		t.Errorf("gave up after %s, want 5+10+…+5120 s", waited)
	}
	s.want("timeline", one[string](s, `SELECT string_agg(kind || ' ' || cause, ', ') FROM timeline WHERE kind LIKE 'fulfil%'`), "fulfilment_dead job:orders.fulfil")
}

// An attempt that ends the process is an attempt: after twelve the provider is
// not asked again, and a person is told.
func TestFulfilCrashes(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.pay("1001", "mug")
	s.carrier.answer = func(context.Context) error { panic("killed") }
	crashes := 0
	for range 15 {
		func() {
			defer func() {
				if recover() != nil {
					crashes++
				}
			}()
			s.fulfil("1001")
		}()
		s.clock.Add(requestLease - time.Microsecond)
		s.fulfil("1001") // in other hands, for all we know
		s.clock.Add(time.Microsecond)
	}
	if crashes != 12 {
		t.Errorf("crashed %d times", crashes)
	}
	s.want("order", s.status("1001")+" "+s.cases("1001"), "paid paid on_hold committed FULFILMENT_DEAD!")
}

// A request that was withdrawn while the provider was asked for the last time is no case.
func TestFulfilWithdrawn(t *testing.T) {
	s := newShopOf(t, 3, Terms{})
	s.product("mug", 10)
	s.pay("1001", "mug")
	if _, err := s.db.Exec(t.Context(), `UPDATE shipment_requests SET attempts = 11`); err != nil {
		t.Fatal(err)
	}
	s.carrier.answer = func(context.Context) error { return errors.Join(errCarrier, s.cancel("1001")) }
	s.fulfil("1001")
	s.want("request", s.requestState("1001"), "withdrawn 12 ")
	s.want("order", s.status("1001")+" "+s.cases("1001"), "cancelled refund_due none none CANCELLED_PAID")
	s.fulfil("1001")
	if len(s.carrier.asked) != 1 {
		t.Errorf("asked %d times", len(s.carrier.asked))
	}
}

// A request waits as long as its order is held, and uses up no attempt.
func TestFulfilHeld(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.pay("1001", "mug")
	s.hear(s.of("1001", completed("pay_1001", "99")))
	s.clock.Add(time.Minute)
	s.fulfil("1001")
	if err := s.book.Work(t.Context()); err != nil {
		t.Error(err)
	}
	s.want("held", s.requestState("1001")+" "+s.cases("1001"), "queued 0  AMOUNT_CHANGED!")
	if _, err := s.db.Exec(t.Context(), `UPDATE cases SET state = 'closed', closed_at = now(), closed_by = 'admin:test'`); err != nil {
		t.Fatal(err)
	}
	if err := s.book.Work(t.Context()); err != nil {
		t.Error(err)
	}
	s.want("decided", s.requestState("1001"), "handed_over 1 ")
}

// Two workers with the same request ask the provider once.
func TestFulfilAtOnce(t *testing.T) {
	s := newShopOf(t, 3, Terms{})
	s.product("mug", 100)
	s.pay("1001", "mug")
	s.carrier.answer = func(context.Context) error {
		if len(s.carrier.asked) == 1 {
			s.fulfil("1001") // while the first still waits for its answer
		}
		return nil
	}
	s.fulfil("1001")
	if len(s.carrier.asked) != 1 {
		t.Errorf("asked %d times", len(s.carrier.asked))
	}
	s.want("request", s.requestState("1001"), "handed_over 1 ")

	s.carrier.answer, s.carrier.asked = nil, nil
	for i := range 20 {
		id := fmt.Sprint(i)
		s.pay(id, "mug")
		r := s.request(id)
		ask := func() {
			if err := s.book.fulfil(context.Background(), r); err != nil {
				t.Error(err)
			}
		}
		both(ask, ask)
	}
	if len(s.carrier.asked) != 20 {
		t.Errorf("asked %d times for 20 orders", len(s.carrier.asked))
	}
}

// A worker finds requests whose bell was lost: it rings again, not too often,
// or asks itself when there is no Redis.
func TestFulfilSweep(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.pay("1001", "mug")
	rung := func() (n int) {
		for _, name := range s.bell.Rung() {
			if name == fulfilJob.Name {
				n++
			}
		}
		return n
	}
	for i, tc := range []struct {
		wait time.Duration
		rung int
	}{{0, 1}, {queue.RingAgain - time.Microsecond, 1}, {time.Microsecond, 2}, {0, 2}, {queue.RingAgain, 3}} {
		s.clock.Add(tc.wait)
		if err := s.book.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		if rung() != tc.rung {
			t.Errorf("sweep %d: rang %d times, want %d", i, rung(), tc.rung)
		}
	}
	s.want("not asked", s.requestState("1001"), "queued 0 ")
	s.open(draft("1002", "mug"))
	s.clock.Add(time.Hour)
	if err := s.book.Work(t.Context()); err != nil {
		t.Error(err)
	}
	s.want("asked", s.requestState("1001"), "handed_over 1 ")
	s.want("expired by the way", s.status("1002"), "expired unpaid none none")
}
