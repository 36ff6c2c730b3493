package webhooks

import "testing"

// created, pending, completed: the order is paid, its goods leave the shelf
// and the provider is asked to ship.
func TestPaid(t *testing.T) {
	s := newShop(t)
	s.product("mug", 5)
	s.order("1001", "mug")
	if got := s.status("1001") + " " + s.stock("mug"); got != "pending/unpaid/none/reserved 5/2" {
		t.Fatal(got)
	}
	for _, step := range []struct{ typ, want string }{
		{"payment.created", "pending/unpaid/none/reserved 5/2"},
		{"payment.pending", "pending/awaiting_confirmation/none/reserved 5/2"},
		{"payment.completed", "paid/paid/queued/committed 3/0"},
	} {
		if code, text := s.send(event("evt_"+step.typ, step.typ, "pay_1", "1001", "10.00")); code != 200 || text != "OK" {
			t.Fatal(code, text)
		}
		s.work()
		if got := s.status("1001") + " " + s.stock("mug"); got != step.want {
			t.Errorf("after %s: %s, want %s", step.typ, got, step.want)
		}
	}
}
