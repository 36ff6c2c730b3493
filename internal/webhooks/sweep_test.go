package webhooks

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"quayside/internal/queue"
)

func (s *shop) sweep() {
	s.t.Helper()
	if err := s.in.Sweep(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

// rings counts the bells that f rings.
func (s *shop) rings(f func()) int {
	before := len(s.rung())
	f()
	return len(s.rung()) - before
}

// A sweep rings for events whose last bell is 1.5 s ago or more, 64 to a bell,
// and for none that wait for something else.
func TestSweepRings(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.crowd(130)
	s.in.Close() // its own bells have rung
	is(t, "all", s.rings(s.sweep), 3)
	is(t, "just rung", s.rings(s.sweep), 0)
	s.clock.Add(queue.RingAgain - time.Millisecond)
	is(t, "rung 1.499 s ago", s.rings(s.sweep), 0)
	s.clock.Add(time.Millisecond)
	is(t, "rung 1.5 s ago", s.rings(s.sweep), 3)

	s.clock.Add(time.Minute)
	for _, hide := range []string{`state = 'quarantined'`, `state = 'dead'`, `state = 'refused'`, `not_before = rung_at + interval '1 hour'`} {
		s.exec(`UPDATE inbox_open SET state = 'received', not_before = rung_at`)
		s.exec(`UPDATE inbox_open SET ` + hide)
		is(t, hide, s.rings(s.sweep), 0)
	}
}

// Sweeps at once ring for different events, and wait for nobody who has one in hand.
func TestSweepsAtOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(s *setup) { s.conns = 4 })
	s.crowd(64)
	release := s.hold(fmt.Sprintf(`SELECT 1 FROM inbox_open WHERE inbox_id = '%s' FOR UPDATE`, s.inboxID("evt_000")))
	ids, err := s.in.waiting(t.Context())
	is(t, "error", err, nil)
	is(t, "beside the one in hand", len(ids), 63)
	release()
	s.clock.Add(2 * time.Second)

	var mu sync.Mutex
	var all []uuid.UUID
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			ids, err := s.in.waiting(context.Background())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, ids...)
		})
	}
	done.Wait()
	is(t, "rung", len(all), 64)
	slices.SortFunc(all, func(a, b uuid.UUID) int { return cmp.Compare(a.String(), b.String()) })
	is(t, "different", len(slices.Compact(all)), 64)
}

// Work drains what waits without any bell, in the order of arrival, past an event that fails.
func TestWorkDrains(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.crowd(200)
	s.in.Close() // its own bells have rung
	s.poison("payments", "NEW.order_id = 'o100'", "raise_exception")
	rung := len(s.rung())
	if err := s.in.Work(t.Context()); err == nil {
		t.Error("the failure was not told")
	}
	is(t, "paid", s.paid(), 199)
	s.exec(`DROP TRIGGER poison ON payments`)
	s.work()
	is(t, "paid", s.paid(), 200)
	is(t, "bells for events", slices.Contains(s.rung()[rung:], "webhooks.apply"), false)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.in.Work(ended) // returns
	s.sound()
}

// An event that comes before its order is parked without using up attempts,
// and applied as soon as the order exists: creating it rings after its commit.
func TestParkedUntilOrder(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 50)
	s.accept(event("evt_1", "payment.pending", "pay_1", "1001", "10.00"), event("evt_2", "payment.completed", "pay_1", "1001", "10.00"), event("evt_3", "payment.completed", "pay_3", "1003", "10.00"))
	for range 5 {
		s.work()
		is(t, "rows", one[string](s, `SELECT string_agg(state || ' ' || attempts || ' ' || order_ref, ', ' ORDER BY inbox_id) FROM inbox_open`), "parked 0 1001, parked 0 1001, parked 0 1003")
	}
	is(t, "cases", s.cases(), "")
	is(t, "bells", s.rings(func() { s.order("1001", "mug") }) > 0 && slices.Contains(s.rung(), "webhooks.wake"), true)
	is(t, "wake", s.in.wake(t.Context(), "1001"), nil)
	is(t, "states", s.states(), "evt_1 applied, evt_2 applied, evt_3 parked")
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
	is(t, "again", s.in.wake(t.Context(), "1001"), nil)

	s.order("1003", "mug") // its bell is lost: the sweep finds out
	s.sweep()
	is(t, "swept", s.state("evt_3"), "received")
	s.work()
	is(t, "order", s.status("1003"), "paid/paid/queued/committed")
	s.sound()
}

// An order that is not committed, or was refused, wakes nothing.
func TestWakeAfterCommitOnly(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 1) // too few
	s.accept(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"))
	s.applyRung(1)
	s.work()
	n := s.rings(func() {
		func() {
			defer func() { _ = recover() }()
			quiet := *s
			quiet.t = fatalless{t}
			quiet.order("1001", "mug")
		}()
	})
	is(t, "bells", n, 0)
	s.work()
	is(t, "state", s.state("evt_1"), "parked")
}

// fatalless turns Fatal into a panic that the test expects.
type fatalless struct{ testing.TB }

func (fatalless) Fatal(...any) { panic("fatal") }

// A completed payment that names no order waits for the news that links it.
func TestParkedUntilLink(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 5)
	s.order("1001", "mug")
	s.accept(inside(t, event("evt_1", "payment.completed", "pay_1", "1001", "10.00"), `"order_id":"1001"`, ""))
	s.work()
	is(t, "state", s.state("evt_1")+" "+one[string](s, `SELECT COALESCE(order_ref, 'none') FROM inbox_open`), "parked none")
	s.accept(event("evt_2", "payment.created", "pay_1", "1001", "10.00"))
	s.work()
	s.work()
	is(t, "states", s.states(), "evt_1 applied, evt_2 applied")
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
}

// After 24 hours money that nothing matches opens one case for its payment;
// other news of an unknown order is ignored. When the order comes after all,
// the money is applied and the case settles itself.
func TestUnknownOrder(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 5)
	s.accept(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"), event("evt_2", "payment.completed", "pay_1", "1001", "10.00"),
		event("evt_3", "payment.pending", "pay_1", "1001", "10.00"), event("evt_4", "payment.expired", "pay_4", "1002", "10.00"),
		inside(t, event("evt_5", "payment.completed", "pay_5", "1001", "10.00"), `"order_id":"1001"`, ""))
	s.work()
	s.clock.Add(22*time.Hour + 59*time.Minute) // today is an hour ahead
	s.sweep()
	is(t, "before", s.cases()+s.states(), "evt_1 parked, evt_2 parked, evt_3 parked, evt_4 parked, evt_5 parked")
	s.clock.Add(2 * time.Minute) // what came is dated by Postgres, a moment after today was read
	for range 3 {
		s.sweep()
		is(t, "after", s.cases(), "UNKNOWN_ORDER/pay_1, UNKNOWN_ORDER/pay_5")
		is(t, "after", s.states(), "evt_1 parked, evt_2 parked, evt_3 ignored, evt_4 ignored, evt_5 parked")
	}
	s.order("1001", "mug")
	s.work()
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
	is(t, "cases", s.cases(), "(UNKNOWN_ORDER/pay_1), UNKNOWN_ORDER/pay_5")
	is(t, "states", s.states(), "evt_1 applied, evt_2 applied, evt_3 ignored, evt_4 ignored, evt_5 parked")
	s.sound()
}

// A case that a person has decided stays so when more news of it comes.
func TestUnknownOrderDecided(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.accept(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"))
	s.work()
	s.clock.Add(24 * time.Hour)
	s.sweep()
	s.exec(`UPDATE cases SET state = 'closed', closed_at = now(), closed_by = 'admin:ada', resolution = 'ignore'`)
	s.accept(event("evt_2", "payment.completed", "pay_1", "1001", "10.00"))
	s.work()
	s.clock.Add(24 * time.Hour)
	s.sweep()
	is(t, "cases", s.cases(), "(UNKNOWN_ORDER/pay_1)")
}

// The events of one payment, and when PayQI signed each of them.
var (
	five   = []string{"payment.created", "payment.pending", "payment.failed", "payment.expired", "payment.completed"}
	timely = map[string]int64{"payment.created": 1, "payment.pending": 2, "payment.failed": 3, "payment.expired": 4, "payment.completed": 5}
	undone = map[string]int64{"payment.created": 1, "payment.pending": 2, "payment.completed": 3, "payment.failed": 4, "payment.expired": 5} // completed, later not: REGRESSION
)

// run is one order with the events of a history in one order of arrival.
type run struct {
	order string
	group string // of runs that must end alike
	types []string
	times map[string]int64
}

// Every set of up to five events of one payment, in every order of arrival
// and with repetitions, while two workers apply whatever is there, ends in one
// state of money, stock and holds. All orders of the whole set, samples of the rest.
func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(s *setup) { s.conns = 4 })
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var runs []run
	add := func(group string, types []string, times map[string]int64) {
		runs = append(runs, run{fmt.Sprintf("o%04d", len(runs)), group, types, times})
	}
	for _, types := range permutations(five) {
		add("all", types, timely)
	}
	for set := 1; set < 1<<len(five); set++ {
		var types []string
		for i, typ := range five {
			if set>>i&1 == 1 {
				types = append(types, typ)
			}
		}
		for range 2 {
			arrival := slices.Clone(types)
			for range random.IntN(3) {
				arrival = append(arrival, types[random.IntN(len(types))]) // repeated
			}
			random.Shuffle(len(arrival), func(i, j int) { arrival[i], arrival[j] = arrival[j], arrival[i] })
			add(strings.Join(types, "+"), arrival, timely)
			if set&0b10000 != 0 && set&0b01100 != 0 {
				add(strings.Join(types, "+")+", undone", arrival, undone)
			}
		}
	}
	s.product("mug", int64(4*len(runs)))
	for part := range slices.Chunk(runs, 100) {
		var ids []string
		for _, r := range part {
			ids = append(ids, r.order)
		}
		s.orders("mug", ids...)
	}
	s.arrive(runs)
	s.work()
	is(t, "left", one[int](s, `SELECT count(*) FROM inbox_open`), 0)

	end := map[string]string{}
	for _, r := range runs {
		got := s.outcome(r.order)
		if want := end[r.group]; want != "" && got != want {
			t.Errorf("%s arrived as %v:\n%s, others\n%s", r.group, r.types, got, want)
		}
		end[r.group] = got
	}
	for group, want := range map[string]string{ // by hand
		"all":                                                      "paid paid committed got 10 due 0 holds ",
		"payment.created":                                          "pending unpaid reserved got 0 due 0 holds ",
		"payment.pending":                                          "pending awaiting_confirmation reserved got 0 due 0 holds ",
		"payment.failed":                                           "payment_failed unpaid reserved got 0 due 0 holds ",
		"payment.expired":                                          "expired unpaid none got 0 due 0 holds ",
		"payment.completed":                                        "paid paid committed got 10 due 0 holds ",
		"payment.created+payment.failed":                           "payment_failed unpaid reserved got 0 due 0 holds ",
		"payment.failed+payment.expired":                           "expired unpaid none got 0 due 0 holds ",
		"payment.failed+payment.completed, undone":                 "paid paid committed got 10 due 0 holds REGRESSION",
		strings.Join(five, "+") + ", undone":                       "paid paid committed got 10 due 0 holds REGRESSION",
		"payment.created+payment.pending+payment.expired":          "expired unpaid none got 0 due 0 holds ",
		"payment.created+payment.pending+payment.failed":           "payment_failed unpaid reserved got 0 due 0 holds ",
		"payment.pending+payment.failed+payment.completed, undone": "paid paid committed got 10 due 0 holds REGRESSION",
	} {
		is(t, group, end[group], want)
	}
	s.sound()
}

// outcome is what must not depend on the order of arrival.
func (s *shop) outcome(order string) string {
	s.t.Helper()
	return one[string](s, `SELECT concat_ws(' ', status, payment_status, stock, 'got', trim_scale(got), 'due', trim_scale(refund_due), 'holds',
		(SELECT COALESCE(string_agg(code, ',' ORDER BY code), '') FROM cases WHERE order_id = o.id AND state = 'open' AND blocks)) FROM orders o WHERE id = ?`, order)
}

// arrive sends the runs from eight senders, each run in its own order, while
// two workers apply random handfuls of what waits.
func (s *shop) arrive(runs []run) {
	s.t.Helper()
	over := make(chan struct{})
	var workers, senders sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for {
				var ids []uuid.UUID
				err := s.db.Read(context.Background()).Raw(`SELECT inbox_id FROM inbox_open WHERE state = 'received' ORDER BY random() LIMIT 30`).Scan(&ids).Error
				if err == nil {
					err = s.in.Apply(context.Background(), ids)
				}
				if err != nil {
					s.t.Error(err)
				}
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	for sender := range 8 {
		senders.Go(func() {
			for i := sender; i < len(runs); i += 8 {
				for _, typ := range runs[i].types {
					body := event("evt_"+runs[i].order+"_"+typ, typ, "pay_"+runs[i].order, runs[i].order, "10.00")
					code, text := s.send(strings.Replace(body, "1893553445", fmt.Sprint(1893553440+runs[i].times[typ]), 1))
					if code != 200 {
						s.t.Errorf("%d %s", code, text)
					}
				}
			}
		})
	}
	senders.Wait()
	close(over)
	workers.Wait()
}

func permutations(of []string) (all [][]string) {
	if len(of) == 0 {
		return [][]string{nil}
	}
	for i := range of {
		rest := slices.Concat(of[:i], of[i+1:])
		for _, p := range permutations(rest) {
			all = append(all, append([]string{of[i]}, p...))
		}
	}
	return all
}
