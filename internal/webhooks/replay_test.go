package webhooks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/orders"
)

// replay puts the event with this key to work again, as admin:ada.
func (s *shop) replay(key, note string) (again bool, err error) {
	s.t.Helper()
	return s.replayID(s.inboxID(key), note)
}

func (s *shop) replayID(id uuid.UUID, note string) (again bool, err error) {
	err = s.db.InTx(context.Background(), func(tx database.Tx) (err error) {
		again, err = s.in.Replay(tx, id, "admin:ada", note)
		return err
	})
	return again, err
}

// replayed replays an event that must have something to do.
func (s *shop) replayed(key, note string) {
	s.t.Helper()
	again, err := s.replay(key, note)
	if err != nil || !again {
		s.t.Fatalf("replay of %s: %v, %v", key, again, err)
	}
}

// die lets an event use up its attempts against a database that refuses it.
func (s *shop) die(key, table, when string) {
	s.t.Helper()
	s.poison(table, when, "raise_exception")
	s.exec(`UPDATE inbox_open SET attempts = 12 WHERE inbox_id = $1`, s.inboxID(key).String())
	if err := s.apply(key); err != nil {
		s.t.Fatal(err)
	}
	is(s.t, "state", s.state(key), "dead")
	s.exec(`DROP TRIGGER poison ON ` + table)
}

func (s *shop) requests(order string) int {
	s.t.Helper()
	return one[int](s, `SELECT count(*) FROM shipment_requests WHERE order_id = ?`, order)
}

// A dead event has all its attempts again. Its case holds the order until the
// event is applied; then it closes itself, and the goods are put up for
// shipment at once. The timeline tells who did it and why.
func TestReplayDead(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.order("1001", "mug")
	s.accept(event("evt_1", "payment.pending", "pay_1", "1001", "10.00"))
	s.die("evt_1", "payments", "true")
	s.accept(event("evt_2", "payment.completed", "pay_1", "1001", "10.00"))
	s.work()
	is(t, "order", s.status("1001"), "paid/paid/on_hold/committed")

	bells := s.rings(func() { s.replayed("evt_1", "the disk has room again") })
	is(t, "bells", bells, 1)
	is(t, "row", one[string](s, `SELECT state || ' ' || attempts || ' ' || reason FROM events WHERE key = 'evt_1'`), "received 0 ")
	is(t, "still held", s.cases()+" "+fmt.Sprint(s.requests("1001")), "EVENT_DEAD/evt_1 of 1001! 0")
	is(t, "apply", s.apply("evt_1"), nil)
	is(t, "state", s.state("evt_1"), "applied")
	is(t, "case", s.cases(), "(EVENT_DEAD/evt_1 of 1001!)")
	is(t, "closed by", one[string](s, `SELECT closed_by || ', ' || resolution FROM cases`), "quayside, settled itself")
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
	is(t, "requests", s.requests("1001"), 1)
	is(t, "timeline", one[string](s, `SELECT cause || ': ' || note FROM timeline WHERE order_id = '1001' ORDER BY seq DESC LIMIT 1`),
		"event:evt_1: PayQI: payment pay_1 pending, transaction HASH-pay_1 (applied again by admin:ada: the disk has room again)")
	is(t, "history", one[string](s, `SELECT string_agg(actor || ' ' || was || ' ' || note, ',') FROM replays`), "admin:ada dead the disk has room again")

	s.accept(event("evt_3", "payment.failed", "pay_1", "1001", "10.00"))
	s.die("evt_3", "payments", "true")
	s.replayed("evt_3", "")
	s.die("evt_3", "payments", "true") // again: it keeps the case it has
	is(t, "cases", s.cases(), "(EVENT_DEAD/evt_1 of 1001!), EVENT_DEAD/evt_3 of 1001!")
	s.sound()
}

// An applied event is left alone: replaying it changes not one row.
func TestReplayApplied(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(1)
	s.work()
	before := s.rows()
	for range 3 {
		again, err := s.replay(keys[0], "once more")
		is(t, "again", again, false)
		is(t, "error", err, nil)
		s.work()
	}
	is(t, "database", s.rows(), before)
}

// rows is the content of every table an event or a replay can change.
func (s *shop) rows() string {
	s.t.Helper()
	var all []string
	for _, table := range []string{
		"products", "stock_movements", "orders", "order_items", "timeline", "payments", "inbox", "inbox_open", "replays", "cases",
		"shipments", "shipment_lines", "shipment_requests", "shipment_request_lines", "letters",
	} {
		all = append(all, table+" "+one[string](s, `SELECT COALESCE(string_agg(r::text, '|' ORDER BY r::text), '') FROM `+table+` r`))
	}
	return strings.Join(all, "\n")
}

// effects are all that events have caused, but for the notes of when.
func (s *shop) effects() string {
	s.t.Helper()
	var all []string
	for table, columns := range map[string]string{
		"orders":            "id, status, payment_status, fulfillment_status, got, refund_due, payment_id, tx_hash, pay_address, destination_tag, stock, reservation, deadline, grace, paid_at",
		"payments":          "id, order_id, created_seen, pending_seen, failed_seen, expired_seen, completed_seen, amount, currency, tx_hash, counted, completed_at",
		"products":          "sku, on_hand, reserved",
		"stock_movements":   "effect_key",
		"shipment_requests": "id, state",
		"letters":           "order_id, kind, about, state",
		"cases":             "key, state, summary",
	} {
		all = append(all, table+" "+one[string](s, `SELECT COALESCE(string_agg(r::text, '|' ORDER BY r::text), '') FROM (SELECT `+columns+` FROM `+table+`) r`))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// Applying what was applied, which no replay does but a program that forgot
// could, adds nothing: not a unit of stock, not a drop of money, no letter, no
// shipment, no case. This is why replays are safe.
func TestAppliedAgainAddsNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 100)
	histories := map[string][]string{
		"paid": {"created", "pending", "completed"}, "failed": {"created", "failed"}, "revived": {"created", "expired", "completed"},
		"expired": {"pending", "expired"}, "again": {"completed", "failed"}, "waiting": {"created", "pending"},
	}
	for order, types := range histories {
		s.order(order, "mug")
		for _, typ := range types {
			s.accept(event("evt_"+order+"_"+typ, "payment."+typ, "pay_"+order, order, "10.00"))
		}
		s.work()
	}
	s.accept(event("evt_second", "payment.completed", "pay_second", "paid", "10.00")) // due back
	s.work()
	is(t, "left", s.count("inbox_open"), 0)
	before := s.effects()
	for range 3 {
		s.exec(`INSERT INTO inbox_open (inbox_id, state, not_before, rung_at) SELECT id, 'received', $1, $1 FROM inbox`, s.clock.Now())
		s.exec(`UPDATE inbox SET outcome = NULL, settled_at = NULL`)
		s.work()
		is(t, "effects", s.effects(), before)
	}
	s.sound()
}

// What waits for its order is looked at again, and waits on when it is not
// there; replays cost a parked event nothing.
func TestReplayParked(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 10)
	s.accept(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"))
	s.work()
	for range 3 {
		s.replayed("evt_1", "")
		s.work()
		is(t, "row", one[string](s, `SELECT state || ' ' || attempts || ' ' || order_ref FROM inbox_open`), "parked 0 1001")
	}
	s.order("1001", "mug")
	s.work()
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
	is(t, "replays", s.count("replays"), 3)
}

// Ignored events are read again: one whose order has come since is applied;
// one of an unknown type and PayQI's tests are ignored again, without another
// case.
func TestReplayIgnored(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 10)
	s.accept(
		event("evt_late", "payment.pending", "pay_1", "1001", "10.00"),
		event("evt_type", "payment.refunded", "pay_2", "1002", "10.00"),
		event("evt_test", "payment.completed", "pay_test_1", "1001", "10.00"))
	s.work()
	s.clock.Add(24 * time.Hour)
	s.sweep()
	is(t, "before", s.states(), "evt_late ignored, evt_test ignored, evt_type ignored")
	s.order("1001", "mug")
	s.work()
	is(t, "not by itself", s.states(), "evt_late ignored, evt_test ignored, evt_type ignored")

	for _, key := range []string{"evt_late", "evt_type", "evt_test"} {
		s.replayed(key, "")
	}
	is(t, "waiting", s.states(), "evt_late received, evt_test received, evt_type received")
	s.work()
	is(t, "after", s.states(), "evt_late applied, evt_test ignored, evt_type ignored")
	is(t, "order", s.status("1001"), "pending/awaiting_confirmation/none/reserved")
	is(t, "cases", s.cases(), "UNKNOWN_TYPE/evt_type")
	is(t, "open", s.count("inbox_open"), 0)
}

// What was set aside is read again with today's program. When it is applied
// now, its case closes, also one that is about no order; when not, it is set
// aside again, and its case comes back: whoever had it read again must know.
func TestReplayQuarantined(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	keys := s.crowd(4)
	s.poison("payments", "NEW.order_id = 'o000'", "check_violation")
	_ = s.apply(keys[0])
	s.exec(`DROP TRIGGER poison ON payments`)
	is(t, "refused by the database", s.state(keys[0])+" "+s.cases(), "quarantined UNREADABLE_EVENT/evt_000 of o000!")

	// As a version left it that could not read so much as its order.
	s.exec(`UPDATE inbox_open SET state = 'quarantined', reason = 'an older parser' WHERE inbox_id = $1`, s.inboxID(keys[1]).String())
	s.exec(`UPDATE inbox_open SET state = 'quarantined', reason = 'an older parser' WHERE inbox_id = $1`, s.inboxID(keys[3]).String())
	err := s.db.InTx(t.Context(), func(tx database.Tx) error {
		return s.book.Raise(tx, []orders.Alarm{
			{Code: orders.UnreadableEvent, About: keys[1], InboxID: s.inboxID(keys[1]), Summary: "unreadable"},
			{Code: orders.UnreadableEvent, About: keys[3], OrderID: "o002", InboxID: s.inboxID(keys[3]), Summary: "read as one about another order"},
		})
	})
	is(t, "raise", err, nil)

	s.accept(event("evt_bad", "payment.completed", "pay_bad", "o002", `"ten"`))
	s.work()
	bad := one[string](s, `SELECT key FROM events WHERE state = 'quarantined' AND key LIKE 'sha256:%'`)
	s.exec(`UPDATE cases SET state = 'closed', closed_at = now(), closed_by = 'admin:eve', resolution = 'ignore' WHERE key = 'UNREADABLE_EVENT/' || $1`, bad)

	for _, key := range []string{keys[0], keys[1], keys[3], bad} {
		s.replayed(key, "upgraded")
	}
	s.work()
	is(t, "states", s.state(keys[0])+" "+s.state(keys[1])+" "+s.state(bad), "applied applied quarantined")
	for key, want := range map[string]string{keys[0]: "closed by quayside", keys[1]: "closed by quayside", keys[3]: "open by ", bad: "open by "} { // only o002's lock may lift its hold
		is(t, key, one[string](s, `SELECT state || ' by ' || COALESCE(closed_by, '') FROM cases WHERE key = 'UNREADABLE_EVENT/' || ?`, key), want)
	}
	is(t, "order", s.status("o000"), "paid/paid/queued/committed")
	s.sound()
}

// A refused event is released by a person who says why, and by nobody who does
// not; its case is closed in that person's name.
func TestReplayRefused(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.order("1001", "mug")
	s.expect(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"), "400 Request too old", "X-PayQI-Timestamp", "1")
	for _, note := range []string{"", " ", "\t"} {
		_, err := s.replay("evt_1", note)
		is(t, "kind", fault.KindOf(err), fault.Unprocessable)
		is(t, "field", errFields(err), "note")
	}
	is(t, "untouched", s.state("evt_1")+" "+s.cases()+fmt.Sprint(s.count("replays")), "refused STALE_EVENT/evt_1 of 10010")
	s.replayed("evt_1", "our clock was wrong")
	is(t, "case", one[string](s, `SELECT closed_by || ', ' || resolution FROM cases`), "admin:ada, release: our clock was wrong")
	s.work()
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
	s.sound()
}

func errFields(err error) (names string) {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		for _, f := range e.Fields {
			names += f.Location
		}
	}
	return names
}

// A body that contradicts the event that stands is not replayed: that could
// change nothing. The one that stands can be.
func TestReplayContradiction(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.crowd(1)
	s.work()
	s.expect(event("evt_000", "payment.completed", "pay_o000", "o000", "11.00"), "200 Already processed")
	s.work()
	before := s.rows()
	id := one[uuid.UUID](s, `SELECT id FROM inbox WHERE contradicts IS NOT NULL`)
	_, err := s.replayID(id, "believe this one")
	is(t, "kind", fault.KindOf(err), fault.Conflict)
	is(t, "names the case", strings.Contains(fault.Message(err), "EVENT_CONFLICT"), true)
	_, err = s.replayID(uuid.New(), "")
	is(t, "unknown", fault.KindOf(err), fault.NotFound)
	is(t, "database", s.rows(), before)
}

// While a worker has the event in hand, a replay neither waits for it nor
// writes anything: it says to try again.
func TestReplayInAWorkersHands(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(s *setup) { s.conns = 4 })
	key := s.crowd(1)[0]
	release := s.hold(fmt.Sprintf(`SELECT 1 FROM inbox_open WHERE inbox_id = '%s' FOR UPDATE`, s.inboxID(key)))
	defer release()
	_, err := s.replay(key, "")
	var f *fault.Error
	is(t, "busy", errors.As(err, &f) && f.Kind == fault.Unavailable && f.Code == "busy", true)
	is(t, "replays", s.count("replays"), 0)
	release()
	s.replayed(key, "")
}

// Replayed events run alone, so that one that breaks its process once more
// takes no neighbours along.
func TestReplaysRunAlone(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(5)
	s.replayed(keys[1], "")
	s.replayed(keys[3], "")
	is(t, "apply", s.apply(keys...), nil)
	is(t, "paid", s.paid(), 5)
	is(t, "transactions", one[int](s, `SELECT count(DISTINCT xmin::text) FROM payments`), 3)
}

// Many people replay the same dead, ignored and waiting events while workers
// apply and PayQI sends them again: every effect once, nothing lost, and
// nobody gets another answer than done or try again.
func TestReplaysAtOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(s *setup) { s.conns = 16 })
	keys := s.crowd(24)
	s.in.Close()
	s.exec(`UPDATE inbox_open SET state = 'dead', attempts = 12 WHERE inbox_id IN (SELECT id FROM inbox WHERE key < 'evt_008')`)
	s.exec(`DELETE FROM inbox_open WHERE inbox_id IN (SELECT id FROM inbox WHERE key BETWEEN 'evt_008' AND 'evt_016')`)
	s.exec(`UPDATE inbox SET outcome = 'ignored', settled_at = now() WHERE key BETWEEN 'evt_008' AND 'evt_016'`)
	var start, done sync.WaitGroup
	start.Add(1)
	for range 8 {
		order := rand.Perm(len(keys))
		done.Go(func() {
			start.Wait()
			for _, i := range order {
				id := s.inboxID(keys[i])
				for {
					_, err := s.replayID(id, "")
					if fault.KindOf(err) != fault.Unavailable {
						if err != nil {
							t.Error(err)
						}
						break
					}
				}
			}
		})
		done.Go(func() {
			start.Wait()
			for _, i := range order {
				if err := s.in.Apply(context.Background(), []uuid.UUID{s.inboxID(keys[i])}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	start.Done()
	done.Wait()
	s.work()
	is(t, "paid", s.paid(), 24)
	is(t, "steps", one[int](s, `SELECT count(*) FROM timeline WHERE kind = 'payment.completed'`), 24)
	is(t, "letters", one[int](s, `SELECT count(*) FROM letters WHERE kind = 'payment_confirmed'`), 24)
	is(t, "open", s.count("inbox_open"), 0)
	s.sound()
}
