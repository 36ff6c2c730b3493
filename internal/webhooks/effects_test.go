package webhooks

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/orders"
)

// told is what an event did, as the API lists it, one line for each effect.
func (s *shop) told(key string) string {
	s.t.Helper()
	r, err := s.in.find(context.Background(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := s.in.detail(context.Background(), r)
	if err != nil {
		s.t.Fatal(err)
	}
	return lines(d.Effects)
}

func lines(effects []orders.Effect) string {
	var all []string
	for _, e := range effects {
		all = append(all, e.Kind+": "+e.Says)
	}
	return strings.Join(all, "\n")
}

// would is what a replay of an event would do.
func (s *shop) would(key, note string) *Rehearsal {
	s.t.Helper()
	e, err := s.in.find(context.Background(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := s.in.Rehearse(context.Background(), e, "admin:ada", note)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// Each event tells what it did and nothing of what its neighbours did, also
// when one transaction applied them all; what is decided about it is told too.
func TestEffects(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.order("1001", "mug")
	s.accept(event("evt_1", "payment.created", "pay_1", "1001", "10.00"))
	s.accept(event("evt_2", "payment.completed", "pay_1", "1001", "4.00"))
	s.accept(event("evt_3", "payment.completed", "pay_2", "1001", "7.00"))
	is(t, "nothing yet", s.told("evt_3"), "")
	is(t, "apply", s.apply("evt_1", "evt_2", "evt_3"), nil)
	is(t, "one transaction", one[int](s, `SELECT count(DISTINCT at) FROM timeline WHERE inbox_id IS NOT NULL`), 1)

	is(t, "created", s.told("evt_1"), "step: Order 1001: PayQI: payment pay_1 created, transaction HASH-pay_1.") // its letter was outgrown at once
	is(t, "part", s.told("evt_2"), `step: Order 1001: PayQI: payment pay_1 completed, 4.00 XRP, transaction HASH-pay_1.
case_opened: Case UNDERPAID opened: 4.00 of 10.00 XRP received; the rest is missing.`)
	is(t, "rest", s.told("evt_3"), `step: Order 1001: PayQI: payment pay_2 completed, 7.00 XRP, transaction HASH-pay_2; it went from pending to paid.
stock: 2 units of mug left the warehouse for order 1001.
email: E-mail payment_confirmed to the customer of order 1001 was put up for sending.
case_opened: Case OVERPAID opened: 11.00 of 10.00 XRP received; 1.00 is due back.
case_closed: Case UNDERPAID closed.
shipment_request: The provider manual was asked to ship order 1001.`)

	s.accept(event("evt_4", "payment.created", "pay_1", "1002", "10.00")) // it belongs to another order
	s.accept(event("evt_5", "payment.completed", "pay_9", "none", "10.00"))
	s.accept(event("evt_6", "payment.settled", "pay_9", "none", "10.00"))
	is(t, "apply", s.apply("evt_4", "evt_5", "evt_6"), nil)
	is(t, "about another order", strings.HasSuffix(s.told("evt_4"), "\ncase_opened: Case ORDER_MISMATCH opened: Event evt_4 names order 1002, but payment pay_1 belongs to order 1001; it was not applied."), true)
	is(t, "parked", s.told("evt_5"), "")
	is(t, "no order", s.told("evt_6"), "case_opened: Case UNKNOWN_TYPE opened: PayQI sent an event of a type this version does not know; nothing was applied.")
	s.clock.Add(time.Second)
	is(t, "decide", s.decide("ORDER_MISMATCH/evt_4", orders.Decision{Action: "ignore"}), nil)
	_, after, _ := strings.Cut(s.told("evt_4"), "it was not applied.\ncase_opened")
	_, after, _ = strings.Cut(after, "\n")
	is(t, "decided", after, "step: Order 1001: ORDER_MISMATCH: ignore: because.\ncase_closed: Case ORDER_MISMATCH closed.")
}

// An event that came with an order's steps from before there were details
// tells its step, its stock and its case.
func TestEffectsOfOldSteps(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.order("1001", "mug")
	s.accept(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"))
	s.exec(`CREATE FUNCTION old() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.details = NULL; RETURN NEW; END $$`)
	s.exec(`CREATE TRIGGER old BEFORE INSERT ON timeline FOR EACH ROW EXECUTE FUNCTION old()`)
	s.work()
	is(t, "effects", s.told("evt_1"), `step: Order 1001: PayQI: payment pay_1 completed, 10.00 XRP, transaction HASH-pay_1; it went from pending to paid.
stock: 2 units of mug left the warehouse for order 1001.`)
}

// A rehearsed replay tells exactly what the replay then does, and changes
// nothing by itself: not a row, not a bell.
func TestRehearsal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set  func(s *shop) // puts evt_1 in its state
		note string
		want string
	}{
		"dead":    {func(s *shop) { s.die("evt_1", "payments", "true") }, "", "It would be applied. Order 1001 would go from pending to paid."},
		"waiting": {func(*shop) {}, "", "It would be applied. Order 1001 would go from pending to paid."},
		"quarantined": {func(s *shop) {
			s.poison("payments", "true", "check_violation")
			_ = s.apply("evt_1")
			s.exec(`DROP TRIGGER poison ON payments`)
		}, "", "It would be applied. Order 1001 would go from pending to paid."},
		"refused": {
			func(s *shop) { s.exec(`UPDATE inbox_open SET state = 'refused', reason = 'too old'`) }, "our clock was wrong",
			"It would be applied. Order 1001 would go from pending to paid.",
		},
		"parked": {
			func(s *shop) { s.exec(`UPDATE inbox_open SET state = 'parked', order_ref = '1001'`) }, "",
			"It would be applied. Order 1001 would go from pending to paid.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.product("mug", 10)
			s.order("1001", "mug")
			s.accept(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"))
			c.set(s)
			s.clock.Add(time.Second)
			before, told := s.rows(), s.told("evt_1")
			var would *Rehearsal
			is(t, "bells", s.rings(func() { would = s.would("evt_1", c.note); s.would("evt_1", c.note) }), 0)
			is(t, "database", s.rows(), before)
			is(t, "would", would.Would, c.want)
			is(t, "state", would.State, orders.Applied)
			is(t, "orders", fmt.Sprint(would.Orders[0].OrderID, " ", *would.Orders[0].Before, " ", *would.Orders[0].After), "1001 pending paid")

			s.replayed("evt_1", c.note)
			is(t, "apply", s.apply("evt_1"), nil)
			is(t, "effects", s.told("evt_1"), strings.TrimPrefix(told+"\n"+lines(would.Effects), "\n"))
			is(t, "order", s.status("1001"), "paid/paid/queued/committed")

			again := s.would("evt_1", c.note)
			is(t, "again", again.Would+lines(again.Effects), "Nothing: it is applied already.")
		})
	}
}

// A rehearsal says plainly when a replay would come to nothing, or be set
// aside again, or fail; what is refused to a replay is refused to it.
func TestRehearsalOfNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.order("1001", "mug")
	s.accept(event("evt_1", "payment.completed", "pay_1", "none", "10.00"))
	s.work()
	is(t, "parked", s.would("evt_1", "").Would, "Nothing: it would be parked again.")

	s.accept(event("evt_2", "payment.completed", "pay_2", "1001", "10.00"))
	before := s.rows()
	s.poison("payments", "true", "raise_exception")
	r := s.would("evt_2", "")
	is(t, "failing", r.State+" "+r.Would+" "+r.Reason, "received It would be put to work, but applying it fails just now; a worker would try it again. internal error")
	s.poison("payments", "true", "check_violation")
	r = s.would("evt_2", "")
	is(t, "impossible", r.State+" "+r.Would, "quarantined It would not be applied: it would be quarantined.")
	is(t, "its case", strings.Contains(lines(r.Effects), "case_opened: Case UNREADABLE_EVENT"), true)
	is(t, "database", s.rows(), before)

	s.exec(`UPDATE inbox_open SET state = 'refused' WHERE inbox_id = $1`, s.inboxID("evt_2"))
	e, err := s.in.find(t.Context(), "evt_2")
	is(t, "find", err, nil)
	_, err = s.in.Rehearse(t.Context(), e, "admin:ada", "")
	is(t, "without a note", errFields(err), "note")
	is(t, "effects", fmt.Sprint(s.effectsOf(uuid.New())), "[]")
}

func (s *shop) effectsOf(id uuid.UUID) (list []orders.Effect) {
	s.t.Helper()
	err := s.db.InTx(context.Background(), func(tx database.Tx) (err error) {
		list, err = s.book.EffectsOf(tx, id, "", "")
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}
