package orders

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/notify"
)

// again sends the order's letter of a kind again and returns what it says.
func (s *shop) again(id string, kind notify.Kind) (facts notify.Facts, err error) {
	err = s.try(func(tx database.Tx) (err error) { facts, err = s.tellAgain(tx, id, kind); return err })
	return facts, err
}

// tellAgain does what notify does with a letter that a person sends again.
func (s *shop) tellAgain(tx database.Tx, id string, kind notify.Kind) (notify.Facts, error) {
	first := notify.Letter{OrderID: id, Kind: kind, Facts: notify.Facts{Reason: "a mistake", Carrier: "DHL", TrackingNumber: "JD0", Parcel: []notify.Line{{Name: "A mug", Quantity: 1}}}}
	facts, err := s.book.Retell(tx, first, "admin:ada")
	if err != nil {
		return facts, err
	}
	_, err = s.book.outbox.Post(tx, []notify.Letter{{OrderID: id, Kind: kind, About: "resend/1", Address: "ada@new.example", Facts: facts, PostedBy: "admin:ada"}})
	return facts, err
}

// A letter is told again only while it is true: for each state an order can be
// in, the kinds that are, and no others.
func TestRetell(t *testing.T) {
	for name, c := range map[string]struct {
		reach func(s *shop)
		may   string
		why   string // of one that may not
	}{
		"new":              {func(*shop) {}, "order_received", "is pending by now"},
		"created":          {func(s *shop) { s.hear(s.of("1", news(PaymentCreatedEvent, "a"))) }, "order_received", "is pending by now"},
		"money on its way": {func(s *shop) { s.hear(s.of("1", news(PaymentPendingEvent, "a"))) }, "", "they might pay twice"},
		"a part, and more on its way": {func(s *shop) {
			s.hear(s.of("1", completed("a", "4")), s.of("1", news(PaymentPendingEvent, "b")))
		}, "", "they might pay twice"},
		"a part":   {func(s *shop) { s.hear(s.of("1", completed("a", "4"))) }, "order_received", "is pending by now"},
		"failed":   {func(s *shop) { s.hear(s.of("1", news(PaymentFailedEvent, "a"))) }, "order_received payment_failed", "is payment_failed by now"},
		"too late": {func(s *shop) { s.clock.Add(time.Hour) }, "", "is past its deadline"},
		"expired":  {func(s *shop) { s.hear(s.of("1", news(PaymentExpiredEvent, "a"))) }, "order_expired", "is expired by now"},
		"paid":     {func(s *shop) { s.hear(s.of("1", completed("a", "10"))) }, "payment_confirmed order_shipped", "has its goods after all"},
		"goods gone": {func(s *shop) {
			s.hear(s.of("1", news(PaymentExpiredEvent, "a")))
			s.pay("2", "mug")
			s.hear(s.of("1", completed("a", "10")))
		}, "order_shipped goods_gone", "is paid, but its goods are gone"},
		"cancelled": {func(s *shop) { _ = s.cancel("1") }, "order_cancelled", "is cancelled by now"},
		"fulfilled": {func(s *shop) { s.hear(s.of("1", completed("a", "10"))); _ = s.ship("1") }, "order_shipped", "is fulfilled by now"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			s.product("mug", 2)
			s.open(draft("1", "mug"))
			c.reach(s)
			steps := one[int](s, `SELECT timeline_length FROM orders WHERE id = '1'`)
			var may, why []string
			for _, kind := range notify.Kinds {
				if kind == notify.RefundSent {
					continue // what was sent was sent, however the order stands
				}
				_, err := s.again("1", kind)
				if err == nil {
					may = append(may, string(kind))
					continue
				}
				why = append(why, s.refused(err, fault.Conflict, "email_outgrown").Message)
			}
			s.want("may", strings.Join(may, " "), c.may)
			if all := strings.Join(why, "\n"); !strings.Contains(all, c.why) {
				t.Errorf("no %q in\n%s", c.why, all)
			}
			s.want("resends", one[string](s, `SELECT count(*)::text FROM letters WHERE about = 'resend/1'`), fmt.Sprint(len(may)))
			s.want("steps", one[string](s, `SELECT (timeline_length)::text FROM orders WHERE id = '1'`), fmt.Sprint(steps+len(may)))
		})
	}
}

// A letter told again says what is so now, keeps what only the first one knew,
// and the timeline says who sent it, but not whereto.
func TestRetellSaysWhatIsTrueNow(t *testing.T) {
	s := newShop(t)
	s.product("mug", 2)
	s.open(draft("1", "mug"))
	s.hear(s.of("1", completed("a", "4")))
	tag := int64(7)
	e := news(PaymentCreatedEvent, "b")
	e.PayAddress, e.DestinationTag = "rNew", &tag
	s.hear(s.of("1", e))
	f, err := s.again("1", notify.OrderReceived)
	s.want("facts", fmt.Sprint(err, " ", f.Got, " ", f.Missing, " ", f.PayAddress, " ", f.DestinationTag, " ", f.PayBy.Equal(opening.Add(time.Hour))), "<nil> 4.00 6.00 rNew 7 true")
	s.want("timeline", one[string](s, `SELECT concat_ws('|', kind, cause, was, became, note) FROM timeline WHERE order_id = '1' ORDER BY seq DESC LIMIT 1`),
		"email_sent_again|admin:ada|pending|pending|e-mail order_received sent again")
	_ = s.cancel("1")
	if f, err = s.again("1", notify.OrderCancelled); err != nil || f.Reason != "a mistake" || f.RefundDue != "4.00" || f.Carrier != "DHL" || f.TrackingNumber != "JD0" || len(f.Parcel) != 1 {
		t.Errorf("%v %+v", err, f)
	}
	_, err = s.again("none", notify.OrderReceived)
	s.refused(err, fault.NotFound, "order_not_found")
}

// Money that comes while a person sends the letter "please pay" again waits for
// that, and then drops it: nobody is asked to pay what is paid.
func TestRetellRacesMoney(t *testing.T) {
	s := newShopOf(t, 8, Terms{})
	s.product("mug", 2)
	s.open(draft("1", "mug"))
	n := s.of("1", completed("a", "10"))
	s.whileWaiting(
		func(tx database.Tx) error { _, err := s.tellAgain(tx, "1", notify.OrderReceived); return err },
		func(tx database.Tx) error { _, err := s.book.Hear(tx, []News{n}); return err },
	)
	s.want("letters", one[string](s, `SELECT string_agg(kind || ' ' || state, ', ' ORDER BY kind, about) FROM letters WHERE order_id = '1'`),
		"order_received dropped, order_received dropped, payment_confirmed queued")
}
