package webhooks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quayside/internal/database"
)

// tooOldHeaders carry a timestamp long past.
var tooOldHeaders = []string{"X-PayQI-Timestamp", "1"}

// body reads what is stored under a key, as it is.
func (s *shop) body(key string) []byte {
	s.t.Helper()
	return one[[]byte](s, `SELECT body FROM inbox WHERE key = ?`, key)
}

// counters of a stored event: deliveries and spellings.
func (s *shop) counters(key string) string {
	s.t.Helper()
	return one[string](s, `SELECT deliveries || ' deliveries, ' || (SELECT count(*) FROM inbox_spellings WHERE inbox_id = i.id) || ' spellings' FROM inbox i WHERE key = ?`, key)
}

// A new event is stored, received, with all its columns and its bell.
func TestStored(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	body := event("evt_1", "payment.completed", "pay_1", "1001", "10.00")
	s.accept(body)
	sum := sha256.Sum256([]byte(body))
	is(t, "row", one[string](s, `SELECT concat_ws(' ', key, event_id, type, payment_id, order_ref, secret_label, deliveries, outcome, settled_at, contradicts) FROM inbox`),
		"evt_1 evt_1 payment.completed pay_1 1001 "+labelOf(testSecret)+" 1")
	is(t, "bytes", bytes.Equal(one[[]byte](s, `SELECT digest FROM inbox`), sum[:]) && string(s.body("evt_1")) == body, true)
	is(t, "state", s.state("evt_1"), "received")
	s.applyRung(1)
	is(t, "bell", strings.Join(s.rung(), " "), "webhooks.apply")
	is(t, "time", one[bool](s, `SELECT received_at = last_seen_at AND abs(extract(epoch FROM now() - received_at)) < 60 FROM inbox`), true)
}

// What was stored is never stored again, in whatever state it is: the delivery
// is counted, another spelling is noted once, nothing else changes.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 5)
	s.order("1001", "mug")
	body := event("evt_1", "payment.completed", "pay_1", "1001", "10.00")
	for i, c := range []struct{ name, key, body, state string }{
		{"applied", "evt_1", body, "applied"},
		{"ignored", "evt_2", event("evt_2", "payment.refunded", "pay_2", "1001", "10"), "ignored"},
		{"parked", "evt_3", event("evt_3", "payment.completed", "pay_3", "unknown", "10"), "parked"},
		{"quarantined", "sha256:" + sha256Hex("{}"), "{}", "quarantined"},
	} {
		s.accept(c.body)
		s.applyRung(i + 1)
		s.expect(c.body, "200 Already processed") // while it is received
		s.work()
		is(t, c.name, s.state(c.key), c.state)
		before, rung := s.everything(), len(s.rung())
		s.expect(c.body, "200 Already processed")
		s.expect(c.body, "200 Already processed", tooOldHeaders...)
		if c.body != "{}" {
			spelled := strings.ReplaceAll(c.body, ",", " , ")
			s.expect(spelled, "200 Already processed")
			s.expect(spelled, "200 Already processed")
			is(t, c.name, s.counters(c.key), "6 deliveries, 1 spellings")
		}
		is(t, c.name+", no bell", len(s.rung()), rung)
		s.work()
		is(t, c.name+", no effect", s.everything(), before)
		is(t, c.name, s.state(c.key), c.state)
		is(t, c.name+" first bytes", string(s.body(c.key)), c.body)
	}
	is(t, "rows", s.count("inbox"), 4)
}

// rung are the names of the bells rung so far.
func (s *shop) rung() []string { return s.bell.Rung() }

// applyRung waits until so many bells for events have rung: a writer rings
// after it has answered.
func (s *shop) applyRung(want int) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		n := 0
		for _, name := range s.rung() {
			if name == "webhooks.apply" {
				n++
			}
		}
		if n >= want || time.Now().After(deadline) {
			is(s.t, "bells for events", n, want)
			return
		}
	}
}

// Without an id the body is the identity: the guide's curl body sent twice is
// one row, ignored, without any alarm.
func TestCurlBody(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	body := string(file(t, "event_curl.json"))
	s.accept(body)
	s.expect(body, "200 Already processed")
	s.work()
	s.expect(body, "200 Already processed")
	is(t, "states", s.states(), "sha256:"+sha256Hex(body)+" ignored")
	is(t, "deliveries", s.counters("sha256:"+sha256Hex(body)), "3 deliveries, 0 spellings")
	s.accept(body + "\n") // other bytes are another event then
	s.work()
	is(t, "cases", s.cases(), "")
}

// An event without an id is applied like any other, once.
func TestNoID(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 5)
	s.order("1001", "mug")
	body := strings.Replace(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"), `"id":"evt_1",`, "", 1)
	s.accept(body)
	s.work()
	s.expect(body, "200 Already processed")
	s.accept(body + " ") // the payment is the same, though: no second effect
	s.work()
	is(t, "order", s.status("1001")+" "+s.stock("mug"), "paid/paid/queued/committed 3/0")
}

// The same id with other content: both answered as processed, the other body
// kept beside the first, nothing of it applied, a case opened and the order
// held. The same other body again is counted; a third content is kept too.
func TestConflict(t *testing.T) {
	t.Parallel()
	base := event("evt_1", "payment.pending", "pay_1", "1001", "10.00")
	for name, change := range map[string][]string{
		"type":     {"payment.pending", "payment.completed", `"status":"pending",`, ""},
		"payment":  {`"pay_1"`, `"pay_2"`},
		"amount":   {"10.00", "10.01"},
		"currency": {"XRP", "RLUSD"},
		"status":   {`"status":"pending",`, ""},
		"address":  {`"status"`, `"pay_address":"rOther","status"`},
		"tag":      {`"status"`, `"destination_tag":0,"status"`},
		"hash":     {"HASH-pay_1", "HASH-pay_2"},
		"order":    {`"order_id":"1001"`, `"order_id":"9999"`, `"pay_1"`, `"pay_2"`}, // it is the first one's order that is held
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.product("mug", 5)
			s.order("1001", "mug")
			other := inside(t, base, change...)
			otherKey := "evt_1#" + sha256Hex(other)[:32]
			s.accept(base)
			if name != "amount" { // amount: while the first is still received
				s.work()
			}
			s.expect(other, "200 Already processed")
			s.expect(other, "200 Already processed")
			s.expect(other, "200 Already processed", tooOldHeaders...)
			s.expect(base, "200 Already processed")
			s.work()
			s.expect(other, "200 Already processed")
			s.work()
			is(t, "states", s.states(), "evt_1 applied, "+otherKey+" quarantined")
			is(t, "bodies", string(s.body("evt_1"))+string(s.body(otherKey)), base+other)
			is(t, "contradicts", one[string](s, `SELECT f.key FROM inbox i JOIN inbox f ON f.id = i.contradicts`), "evt_1")
			is(t, "counters", s.counters("evt_1")+", "+s.counters(otherKey), "2 deliveries, 0 spellings, 4 deliveries, 0 spellings")
			is(t, "cases", s.cases(), "EVENT_CONFLICT/"+otherKey+" of 1001!")
			is(t, "order", s.status("1001"), "pending/awaiting_confirmation/none/reserved")
			is(t, "payments", s.count("payments"), 1)
			s.expect(inside(t, other, "1893553445", "1893553449"), "200 Already processed") // another spelling of the other one is one more row
			is(t, "rows", s.count("inbox"), 3)
		})
	}
}

// The order id of a contradiction counts as content too; the first stands.
func TestConflictOfOrder(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 5)
	s.orders("mug", "1001", "1002")
	s.accept(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"))
	s.work()
	s.expect(event("evt_1", "payment.completed", "pay_1", "1002", "10.00"), "200 Already processed")
	s.work()
	is(t, "orders", s.status("1001")+" "+s.status("1002"), "paid/paid/on_hold/committed pending/unpaid/none/reserved")
}

// An event refused for its timestamp stays refused at every such delivery, and
// is released by the first that comes in time; its case settles itself.
func TestRefusedAndReleased(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 5)
	s.order("1001", "mug")
	body := event("evt_1", "payment.completed", "pay_1", "1001", "10.00")
	for range 3 {
		s.expect(body, "400 Request too old", tooOldHeaders...)
		s.work()
		is(t, "state", s.state("evt_1")+" "+s.cases(), "refused STALE_EVENT/evt_1 of 1001")
	}
	is(t, "kept", string(s.body("evt_1"))+s.counters("evt_1"), body+"3 deliveries, 0 spellings")
	is(t, "order", s.status("1001"), "pending/unpaid/none/reserved")
	is(t, "reason", one[string](s, `SELECT reason FROM events`), "timestamp outside the window of 5 minutes")
	is(t, "bells", len(s.rung()), 1) // of the order

	s.expect(body, "200 OK", "X-PayQI-Timestamp", fmt.Sprint(s.clock.Now().Unix()))
	s.applyRung(1)
	is(t, "released", s.state("evt_1")+" "+s.cases(), "received (STALE_EVENT/evt_1 of 1001)")
	s.work()
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
	s.expect(body, "200 Already processed", tooOldHeaders...)
	is(t, "state", s.state("evt_1")+", "+s.counters("evt_1"), "applied, 5 deliveries, 0 spellings")
}

// Twenty refused deliveries of one event at once are one row and one case; an
// unreadable or unknown event may be refused too.
func TestRefusedAtOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	bodies := []string{event("evt_1", "payment.completed", "pay_1", "1001", "10.00"), "{}", event("evt_2", "payment.refunded", "pay_1", "1001", "10.00")}
	var wg sync.WaitGroup
	for range 20 {
		for _, body := range bodies {
			wg.Go(func() { s.expect(body, "400 Request too old", tooOldHeaders...) })
		}
	}
	wg.Wait()
	is(t, "rows", one[string](s, `SELECT string_agg(state || ' ' || deliveries, ', ') FROM events`), "refused 20, refused 20, refused 20")
	is(t, "cases", s.count("cases"), 3)
}

// Several writers with the same event at the same moment: refused, one stores
// it and the others find it; in time, one releases it and the others come after.
func TestRefusedByWritersAtOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(s *setup) { s.conns = 4 })
	for round := range 10 {
		body := event(fmt.Sprint("evt_", round), "payment.created", "pay_1", "1001", "10")
		is(t, "refused", s.storeAtOnce(body, "old"), "too_old too_old too_old too_old")
		is(t, "in time", s.storeAtOnce(body, ""), "duplicate duplicate duplicate released")
	}
	is(t, "rows", one[string](s, `SELECT count(*) || ' ' || sum(deliveries) FROM inbox`), "10 80")
}

// storeAtOnce has four writers store one delivery each, and sorts their answers.
func (s *shop) storeAtOnce(body, stale string) string {
	got := make([]string, 4)
	var start, done sync.WaitGroup
	start.Add(1)
	for i := range got {
		done.Go(func() {
			start.Wait()
			batch := []*delivery{newDelivery(body, stale)}
			s.in.store(batch)
			got[i] = answers(batch)
		})
	}
	start.Done()
	done.Wait()
	slices.Sort(got)
	return strings.Join(got, " ")
}

// In one batch a refused delivery and one in time: the event is released,
// whichever came first, and answered each as it deserves.
func TestRefusedBesideInTime(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for i, stale := range [][]string{{"old", ""}, {"", "old"}, {"old", "old", ""}} {
		body := event(fmt.Sprint("evt_", i), "payment.created", "pay_1", "1001", "10")
		var batch []*delivery
		for _, why := range stale {
			batch = append(batch, newDelivery(body, why))
		}
		s.in.store(batch)
		is(t, fmt.Sprint("answers ", i), answers(batch), []string{"too_old released", "stored duplicate", "too_old too_old released"}[i])
		is(t, fmt.Sprint("state ", i), s.state(fmt.Sprint("evt_", i)), "received")
	}
	is(t, "cases", s.cases(), "(STALE_EVENT/evt_0 of 1001), (STALE_EVENT/evt_2 of 1001)")
}

func newDelivery(body, stale string) *delivery {
	return &delivery{Event: parseEvent([]byte(body)), body: []byte(body), label: "00000000", stale: stale, done: make(chan outcome, 1)}
}

// answers are the verdicts of a stored batch, in the order it was given.
func answers(batch []*delivery) string {
	var got []string
	for _, d := range batch {
		select {
		case o := <-d.done:
			got = append(got, o.answer.verdict)
		default:
			got = append(got, "silence")
		}
	}
	return strings.Join(got, " ")
}

// In one batch, several deliveries of several events in any order, with
// spellings and contradictions: each event is stored once, and every delivery answered.
func TestBatchOfRepeats(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	a, b := event("evt_a", "payment.created", "pay_1", "1001", "10"), event("evt_b", "payment.created", "pay_1", "1001", "10")
	spelled, other := a+" ", inside(t, a, "10,", "11,")
	given := []*delivery{newDelivery(b, ""), newDelivery(a, ""), newDelivery(b, ""), newDelivery(spelled, ""), newDelivery(other, ""), newDelivery(a, "old"), newDelivery(other, ""), newDelivery(b, "")}
	s.in.store(append([]*delivery(nil), given...))
	is(t, "answers", answers(given), "stored stored duplicate duplicate conflict duplicate conflict duplicate")
	is(t, "a", s.counters("evt_a"), "3 deliveries, 1 spellings")
	is(t, "b", s.counters("evt_b"), "3 deliveries, 0 spellings")
	is(t, "other", s.counters("evt_a#"+sha256Hex(other)[:32]), "2 deliveries, 0 spellings")
	is(t, "rows", s.count("inbox"), 3)
}

// Bytes are kept as they came: NUL escapes, invalid UTF-8, duplicate keys,
// spacing, and events that cannot be read at all.
func TestRawBytes(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 50)
	s.order("12345", "mug")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for name, body := range map[string]string{
		"NUL escaped":   inside(t, sample("evt_1"), `"data":`, `"note":"a\u0000b","data":`),
		"invalid UTF-8": inside(t, sample("evt_2"), `"data":`, "\"note\":\"\xff\xfe\xc0\x80\xed\xa0\x80\",\"data\":"),
		"spacing":       "\r\n\t " + sample("evt_3") + "\n\n",
		"no JSON":       string(every),
	} {
		s.accept(body)
		e := parseEvent([]byte(body))
		is(t, name, string(s.body(e.Key)), body)
		s.work()
		is(t, name, s.state(e.Key), map[bool]string{true: "applied", false: "quarantined"}[e.Unreadable == ""])
	}
}

// Fifty deliveries of one event at once, among others: exactly one is OK, the
// rest were processed already; one row, one effect.
func TestFiftyAtOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 50)
	bodies := map[string]string{}
	for i := range 3 { // so that a batch holds several keys
		s.order(fmt.Sprint("100", i), "mug")
		bodies[fmt.Sprint("evt_", i)] = event(fmt.Sprint("evt_", i), "payment.completed", fmt.Sprint("pay_", i), fmt.Sprint("100", i), "10.00")
	}
	var mu sync.Mutex
	got := map[string]int{}
	var start, done sync.WaitGroup
	start.Add(1)
	for range 50 {
		for key, body := range bodies {
			done.Go(func() {
				start.Wait()
				code, text := s.send(body)
				mu.Lock()
				defer mu.Unlock()
				got[fmt.Sprint(key, " ", code, " ", text)]++
			})
		}
	}
	start.Done()
	done.Wait()
	is(t, "answers", fmt.Sprint(got), "map[evt_0 200 Already processed:49 evt_0 200 OK:1 evt_1 200 Already processed:49 evt_1 200 OK:1 evt_2 200 Already processed:49 evt_2 200 OK:1]")
	s.work()
	is(t, "rows", one[string](s, `SELECT string_agg(key || ' ' || state || ' ' || deliveries, ', ' ORDER BY key) FROM events`), "evt_0 applied 50, evt_1 applied 50, evt_2 applied 50")
	is(t, "effects", fmt.Sprint(s.stock("mug"), " ", s.count("payments"), " ", one[int](s, `SELECT count(*) FROM timeline WHERE kind = 'payment.completed'`)), "44/0 3 3")
}

// A thousand different events from 64 senders: each is stored once, and each bell rings for at most 64.
func TestThousandEvents(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	var next atomic.Int64
	var done sync.WaitGroup
	for range 64 {
		done.Go(func() {
			for i := next.Add(1); i <= 1000; i = next.Add(1) {
				s.accept(event(fmt.Sprint("evt_", i), "payment.created", fmt.Sprint("pay_", i), "1001", "10"))
			}
		})
	}
	done.Wait()
	is(t, "rows", one[string](s, `SELECT count(*) || ' ' || count(DISTINCT key) || ' ' || sum(deliveries) FROM inbox`), "1000 1000 1000")
	is(t, "open", one[int](s, `SELECT count(*) FROM inbox_open WHERE state = 'received' AND attempts = 0`), 1000)
	if n := len(s.rung()); n < 1000/maxPerJob || n > 1000 {
		t.Errorf("%d bells", n)
	}
}

// Writers whose batches hold the same events in opposite orders never wait for
// each other in a circle: every delivery is answered OK or as processed.
func TestWritersNeverDeadlock(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(s *setup) { s.conns = 4 })
	const rounds, size = 8, 80
	var wrong atomic.Int64
	for round := range rounds {
		var done sync.WaitGroup
		for range 4 {
			batch := make([]*delivery, size)
			for i, j := range rand.Perm(size) {
				batch[i] = newDelivery(event(fmt.Sprint("evt_", round, "_", j), "payment.created", "pay_1", "1001", "10"), "")
			}
			done.Go(func() {
				s.in.store(batch)
				for _, d := range batch {
					if o := <-d.done; o.answer != stored && o.answer != duplicate {
						wrong.Add(1)
					}
				}
			})
		}
		done.Wait()
	}
	is(t, "not stored", wrong.Load(), 0)
	is(t, "rows", one[string](s, `SELECT count(*) || ' ' || sum(deliveries) FROM inbox`), fmt.Sprint(rounds*size, " ", 4*rounds*size))
	is(t, "one OK each", one[int](s, `SELECT count(*) FROM inbox_open`), rounds*size)
}

// A row that the database itself refuses gets 503, and harms none of those in
// its batch, new or repeated.
func TestRefusedRowHarmsNoOther(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.exec(`ALTER TABLE inbox ADD CONSTRAINT no_poison CHECK (payment_id <> 'pay_poison')`)
	s.accept(event("evt_old", "payment.created", "pay_1", "1001", "10"))
	var batch []*delivery
	for i := range 9 {
		payment := "pay_1"
		if i == 4 {
			payment = "pay_poison"
		}
		batch = append(batch, newDelivery(event(fmt.Sprint("evt_", i), "payment.created", payment, "1001", "10"), ""))
	}
	batch = append(batch, newDelivery(event("evt_old", "payment.created", "pay_1", "1001", "10"), ""),
		newDelivery(event("evt_x", "payment.created", "pay_poison", "1001", "10"), "old"), newDelivery(event("evt_y", "payment.created", "pay_1", "1001", "10"), "old"))
	s.in.store(append([]*delivery(nil), batch...))
	is(t, "answers", answers(batch), "stored stored stored stored not_stored stored stored stored stored duplicate not_stored too_old")
	is(t, "rows", s.count("inbox"), 10)
	s.exec(`ALTER TABLE inbox DROP CONSTRAINT no_poison`)
	s.expect(event("evt_4", "payment.created", "pay_poison", "1001", "10"), "200 OK") // it was not stored: the next try is the first
}

// When storing an event failed, a second delivery of it in the same batch is
// its first: it is stored as received, never taken for one out of time.
func TestTwinOfFailedDelivery(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.exec(`CREATE SEQUENCE failures`)
	s.exec(`CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF nextval('failures') = 1 THEN RAISE EXCEPTION 'too many connections' USING ERRCODE = '53300'; END IF; RETURN NEW; END $$`)
	s.exec(`CREATE TRIGGER fail_once BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION fail_once()`)
	body := event("evt_1", "payment.created", "pay_1", "1001", "10")
	batch := []*delivery{newDelivery(body, ""), newDelivery(body, ""), newDelivery(body, "")}
	s.in.store(append([]*delivery(nil), batch...))
	is(t, "answers", answers(batch), "not_stored stored duplicate")
	is(t, "state", s.state("evt_1")+" "+s.counters("evt_1")+s.cases(), "received 2 deliveries, 0 spellings")
	is(t, "bells", len(s.rung()), 1)
}

// A delivery of an event that was given up queues it again, from the start.
func TestDeadIsQueuedAgain(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 5)
	s.order("1001", "mug")
	body := event("evt_1", "payment.completed", "pay_1", "1001", "10.00")
	s.accept(body)
	s.applyRung(1)
	s.exec(`UPDATE inbox_open SET state = 'dead', attempts = 12, reason = 'x', not_before = now() + interval '20 years'`)
	s.work()
	is(t, "state", s.state("evt_1"), "dead")
	s.expect(body, "200 Already processed")
	is(t, "row", one[string](s, `SELECT state || ' ' || attempts || reason FROM inbox_open`), "received 0")
	s.applyRung(2)
	s.work()
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
}

// The answer comes after the commit: what was answered OK is there for another connection.
func TestAnsweredIsCommitted(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for i := range 50 {
		key := fmt.Sprint("evt_", i)
		s.accept(event(key, "payment.created", "pay_1", "1001", "10"))
		is(t, key, s.state(key), "received")
	}
}

// While another transaction holds a stored event's row, a repeated delivery
// gets 503 in time and new events are not delayed.
func TestLockedRowDelaysNoOther(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	held := event("evt_held", "payment.created", "pay_1", "1001", "10")
	s.accept(held)
	release := s.hold(`SELECT 1 FROM inbox WHERE key = 'evt_held' FOR UPDATE`)
	defer release()
	var done sync.WaitGroup
	done.Go(func() { s.expect(held, "503 Error") })
	for i := range 20 {
		s.accept(event(fmt.Sprint("evt_", i), "payment.created", "pay_1", "1001", "10"))
	}
	done.Wait()
	release()
	s.expect(held, "200 Already processed")
}

// hold runs a locking query on a connection of its own until released.
func (s *shop) hold(query string) (release func()) {
	s.t.Helper()
	locked, end, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		err := s.db.InTx(context.Background(), func(tx database.Tx) error {
			err := tx.Exec(query).Error
			close(locked)
			<-end
			return err
		})
		if err != nil {
			s.t.Error(err)
		}
	}()
	<-locked
	return sync.OnceFunc(func() { close(end); <-over })
}
