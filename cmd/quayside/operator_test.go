//go:build unix

package main

import (
	"net/http"
	"strings"
	"testing"

	"quayside/internal/orders"
	"quayside/internal/webhooks"
)

// An operator finds the order of a customer who has paid in vain, sees that
// the event was refused, releases it, and finds the money in the statistics.
func TestOperatorReleasesAnEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 10)
	o := w.open("lost", "mug", "customer", map[string]any{"email": "grace.hopper@navy.example", "name": "Grace Hopper"})
	e := newEvent("payment.completed", o, "pay_lost")
	a, err := w.payqi.send(t.Context(), []byte(jsonOf(e)), signGood, "1")
	w.must(err)
	if a.String() != "400 Request too old" {
		t.Fatal(a)
	}
	var found struct{ Data []orders.View }
	w.must(w.shop.call(t.Context(), http.MethodGet, "/api/v1/orders?q=HOPPER", nil, &found))
	if len(found.Data) != 1 || found.Data[0].ID != "lost" {
		t.Fatalf("found %+v", found)
	}
	var events struct{ Data []webhooks.EventView }
	w.must(w.shop.call(t.Context(), http.MethodGet, "/api/v1/events?order_id=lost&state=refused", nil, &events))
	if len(events.Data) != 1 {
		t.Fatalf("events %+v", events)
	}
	replays := "/api/v1/events/" + events.Data[0].ID + "/replays"
	for _, body := range []string{"", "{}", `{"note":"  "}`} {
		if r := w.ask(http.MethodPost, replays, body); r.status != 422 || r.code() != "note_required" || !strings.Contains(r.body, `"location":"note"`) {
			t.Errorf("without a reason: %d %s", r.status, r.body)
		}
	}
	r := w.ask(http.MethodPost, replays, `{"note":"our clock was wrong"}`)
	if r.status != http.StatusAccepted || !strings.Contains(r.body, `"by":"admin:bootstrap","note":"our clock was wrong","was":"refused"`) {
		t.Fatalf("released: %d %s", r.status, r.body)
	}
	w.stands("lost", "paid/paid/queued")
	w.letterTo("grace.hopper@navy.example", "payment received")
	contains(t, "timeline", w.ask(http.MethodGet, "/api/v1/orders/lost/timeline", "").body, "(applied again by admin:bootstrap: our clock was wrong)")
	contains(t, "cases", w.ask(http.MethodGet, "/api/v1/cases?order_id=lost", "").body, `"closed_by":"admin:bootstrap","resolution":"release: our clock was wrong"`)

	w.quiet()
	before := w.fingerprint()
	for range 3 {
		if r := w.ask(http.MethodPost, "/api/v1/events/"+e.ID+"/replays", ""); r.status != http.StatusOK || !strings.Contains(r.body, `"state":"applied"`) {
			t.Errorf("applied: %d %s", r.status, r.body)
		}
	}
	w.quiet()
	if after := w.fingerprint(); after != before {
		t.Errorf("replaying an applied event changed\n%s\nto\n%s", before, after)
	}
	for _, q := range []string{"pay_lost", *w.order("lost").TxHash, "grace nav", "LOS"} {
		found.Data = nil
		w.must(w.shop.call(t.Context(), http.MethodGet, "/api/v1/orders?q="+strings.ReplaceAll(q, " ", "%20"), nil, &found))
		if len(found.Data) != 1 || found.Data[0].ID != "lost" {
			t.Errorf("%s: found %+v", q, found)
		}
	}
	var v orders.StatsView
	w.must(w.shop.call(t.Context(), http.MethodGet, "/api/v1/stats?interval=day", nil, &v))
	if v.Orders.Created != 1 || v.Orders.Paid != 1 || *v.Orders.SuccessRate != 1 || len(v.Revenue) != 1 || v.Revenue[0].Amount.String() != "10.00" || len(v.Series) < 30 {
		t.Errorf("statistics %+v", v)
	}
}
