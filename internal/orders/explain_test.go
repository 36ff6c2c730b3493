package orders

import (
	"strings"
	"testing"

	"quayside/internal/database"
)

// The explanation of an order names where it stands, what it waits for and
// what would move it; each request it names exists in the admin API.
func TestExplanation(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		given  func(s *shop)
		stands string
		waits  string // each sentence begins with, in order
		moves  string // each holds, in order
	}{
		{"new", func(*shop) {}, "Waits for 10.00 XRP; PayQI has told of no payment yet.", "A completed payment of 10.00 XRP, until 20", "cancellation"},
		{"announced", func(s *shop) { s.hear(s.of("1001", news(PaymentCreatedEvent, "a"))) }, "Waits for 10.00 XRP.", "A completed payment of", "cancellation"},
		{"seen", func(s *shop) { s.hear(s.of("1001", news(PaymentPendingEvent, "a"))) }, "A payment of 10.00 XRP was seen and is not confirmed yet.", "A completed payment of", "cancellation"},
		{"failed", func(s *shop) { s.hear(s.of("1001", news(PaymentFailedEvent, "a"))) }, "The payment failed; the stock stays reserved", "A completed payment of", "cancellation"},
		{
			"short", func(s *shop) { s.hear(s.of("1001", completed("a", "4.5"))) }, "Not shipped because 4.50 of 10.00 XRP were received.",
			"A completed payment of 5.50 XRP,|A person must decide UNDERPAID: 4.50 of 10.00 XRP received; the rest is missing.", "wait, accept or refund|cancellation",
		},
		{"held", func(s *shop) {
			s.hear(s.of("1001", completed("a", "10").at(500)), s.of("1001", news(PaymentFailedEvent, "a").at(501)))
		}, "Paid, but not shipped because it is held: PayQI said that payment a completed", "A person must decide REGRESSION", "ship or refund|cancellation"},
		{"paid", func(s *shop) { s.hear(s.of("1001", completed("a", "10"))) }, "Paid, and put up for shipment.", "The shipment of 2 × mug.", "shipments|cancellation"},
		{"shipped", func(s *shop) {
			s.hear(s.of("1001", completed("a", "10")))
			if err := s.ship("1001"); err != nil {
				s.Error(err)
			}
		}, "Paid and shipped.", "", "delivery|returns"},
		{"expired", func(s *shop) { s.hear(s.of("1001", news(PaymentExpiredEvent, "a"))) }, "Expired: nothing complete came in time", "", "reopening"},
		{"cancelled with money", func(s *shop) {
			s.hear(s.of("1001", completed("a", "10")))
			if err := s.cancel("1001"); err != nil {
				s.Error(err)
			}
		}, "Cancelled, with 10.00 XRP due back to the customer.", "A person must decide CANCELLED_PAID", "refund, reopen or keep|reopening|waivers"},
		{"to be refunded", func(s *shop) {
			s.hear(s.of("1001", completed("a", "10")))
			if err := s.cancel("1001"); err != nil {
				s.Error(err)
			}
			s.must(func(tx database.Tx) error { _, err := s.book.Settle(tx, "1001", "admin:ada", Settlement{}); return err })
		}, "Cancelled; no money is due back.", "An address to refund 10.00 XRP to.", "reopening|dispatch"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.product("mug", 10)
			s.open(draft("1001", "mug"))
			tc.given(s)
			out, err := s.book.explain(t.Context(), &OrderPath{ID: "1001"})
			if err != nil {
				t.Fatal(err)
			}
			e := out.Body
			if !strings.HasPrefix(e.Stands, tc.stands) {
				t.Errorf("stands: %s\nwant: %s", e.Stands, tc.stands)
			}
			for _, part := range []struct {
				got  []string
				want string
				fits func(s, sub string) bool
			}{{e.Waits, tc.waits, strings.HasPrefix}, {e.Moves, tc.moves, strings.Contains}} {
				want := strings.Split(part.want, "|")
				if part.want == "" {
					want = nil
				}
				if len(part.got) != len(want) {
					t.Errorf("%d sentences %q, want %d: %q", len(part.got), part.got, len(want), want)
					continue
				}
				for i := range want {
					if !part.fits(part.got[i], want[i]) {
						t.Errorf("%q, want %q", part.got[i], want[i])
					}
				}
			}
		})
	}
}
