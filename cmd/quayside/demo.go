package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"quayside/internal/database"
	"quayside/internal/orders"
)

// demo plays customers and PayQI against a running service, over HTTP only.
type demo struct {
	w     io.Writer
	shop  *shopClient
	payqi *payqi
	db    *database.DB
	run   string // tells the orders of this run from earlier ones
}

// scene is one order and what happens to it.
type scene struct {
	name string
	what string // in plain words
	ttl  int64  // seconds until the order expires, 0 for the usual
	play func(ctx context.Context, d *demo, o orders.View) (answers string, err error)
	want string // status/payment_status/fulfillment_status at the end
	mail []string
}

const demoPatience = 20 * time.Second // for a thing to happen that should take milliseconds

// scenes is the programme of the demo.
var scenes = []scene{
	{
		name: "completed", what: "created, pending, completed", want: "paid/paid/queued",
		mail: []string{"payment_confirmed"},
		play: func(ctx context.Context, d *demo, o orders.View) (string, error) {
			return d.tellAll(ctx, o, "payment.created", "payment.pending", "payment.completed")
		},
	},
	{
		name: "shipped", what: "completed, then the shop ships it", want: "fulfilled/paid/fulfilled",
		mail: []string{"payment_confirmed", "order_shipped"},
		play: func(ctx context.Context, d *demo, o orders.View) (string, error) {
			answers, err := d.tellAll(ctx, o, "payment.created", "payment.completed")
			if err != nil {
				return answers, err
			}
			if err := d.await(ctx, o.ID, "paid/paid/queued"); err != nil {
				return answers, err
			}
			return answers, d.shop.call(ctx, http.MethodPost, "/api/v1/orders/"+o.ID+"/shipments",
				map[string]string{"carrier": "DHL", "tracking_number": "JD0146"}, nil)
		},
	},
	{
		name: "failed", what: "created, failed: the goods stay reserved", want: "payment_failed/unpaid/none",
		mail: []string{"payment_failed"},
		play: func(ctx context.Context, d *demo, o orders.View) (string, error) {
			return d.tellAll(ctx, o, "payment.created", "payment.failed")
		},
	},
	{
		name: "expired", what: "created, expired: the goods are released", want: "expired/unpaid/none",
		mail: []string{"order_expired"},
		play: func(ctx context.Context, d *demo, o orders.View) (string, error) {
			return d.tellAll(ctx, o, "payment.created", "payment.expired")
		},
	},
	{
		name: "duplicate", what: "one completed event delivered 20 times at once", want: "paid/paid/queued",
		mail: []string{"payment_confirmed"},
		play: func(ctx context.Context, d *demo, o orders.View) (string, error) { return d.storm(ctx, o, 20) },
	},
	{
		name: "late", what: "nothing comes, our own deadline expires it, then the money arrives", ttl: 1, want: "paid/paid/queued",
		mail: []string{"payment_confirmed"},
		play: func(ctx context.Context, d *demo, o orders.View) (string, error) {
			if err := d.await(ctx, o.ID, "expired/unpaid/none"); err != nil {
				return "", err
			}
			return d.tellAll(ctx, o, "payment.completed")
		},
	},
	{
		name: "underpaid", what: "half of the amount arrives: the order is held", want: "pending/underpaid/none",
		play: func(ctx context.Context, d *demo, o orders.View) (string, error) {
			e := newEvent("payment.completed", o, "pay_"+o.ID)
			e.Data.Amount = "5.00"
			a, err := d.payqi.tell(ctx, e)
			return a.String(), err
		},
	},
	{
		name: "forged", what: "completed, but signed with another secret", want: "pending/unpaid/none",
		play: func(ctx context.Context, d *demo, o orders.View) (string, error) {
			body, err := json.Marshal(newEvent("payment.completed", o, "pay_"+o.ID))
			if err != nil {
				return "", err
			}
			a, err := d.payqi.send(ctx, body, signBad, now())
			return a.String(), err
		},
	},
}

// playDemo plays every scene, prints what became of each and checks the books;
// ok when all of it is as it should be.
func playDemo(ctx context.Context, w io.Writer, h *house) (ok bool, err error) {
	cfg := h.cfg
	d := &demo{
		w: w, shop: newShopClient(cfg.PublicURL, cfg.AdminAPIKey.reveal()), db: h.db, run: randomHex(2),
		payqi: newPayQI(cfg.PublicURL, cfg.PayQIWebhookSecrets[0].reveal()),
	}
	_, _ = fmt.Fprintf(w, "\nThe demo plays %d customers and PayQI; every event is signed and sent over HTTP.\n\n", len(scenes))
	ok = true
	for _, s := range scenes {
		good, err := d.playScene(ctx, s)
		if err != nil {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			_, _ = fmt.Fprintf(w, "✗ %s: %v\n", s.name, err)
		}
		ok = ok && good && err == nil
	}
	_, _ = fmt.Fprintln(w)
	broken, err := checkInvariants(ctx, h.db, cfg.PaymentTolerance.String())
	if err != nil {
		return false, err
	}
	return reportFindings(w, broken) && ok, nil
}

func (d *demo) playScene(ctx context.Context, s scene) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	o, err := d.open(ctx, s)
	if err != nil {
		return false, err
	}
	answers, err := s.play(ctx, d, o)
	if err != nil {
		return false, err
	}
	waited := d.await(ctx, o.ID, s.want)
	for _, kind := range s.mail {
		if err := d.awaitMail(ctx, o.ID, kind); err != nil {
			waited = errors.Join(waited, err)
		}
	}
	ctx = context.WithoutCancel(ctx) // show where it stands, also when it took too long
	o, err = d.shop.order(ctx, o.ID)
	mails, merr := d.mailsOf(ctx, o.ID)
	if err := errors.Join(err, merr); err != nil {
		return false, err
	}
	mark := "✓"
	if waited != nil {
		mark = "✗"
	}
	_, _ = fmt.Fprintf(d.w, "%s %-16s %s\n    PayQI got %s → order %s, money %s, goods %s; mails: %s\n", mark, o.ID, s.what, answers,
		o.Status, o.PaymentStatus, goods(o), cmp.Or(strings.Join(mails, ", "), "none yet"))
	return waited == nil, waited
}

func (d *demo) open(ctx context.Context, s scene) (o orders.View, err error) {
	body := map[string]any{
		"id": fmt.Sprintf("%s-%s", s.name, d.run), "currency": "XRP",
		"customer": map[string]string{"email": s.name + "@customers.example", "name": "Ada"},
		"items":    []map[string]any{{"sku": "mug-blue", "quantity": 2, "unit_price": "5.00"}},
	}
	if s.ttl > 0 {
		body["expires_in"] = s.ttl
	}
	err = d.shop.call(ctx, http.MethodPost, "/api/v1/orders", body, &o)
	return o, err
}

// tellAll sends events of one payment one after the other and returns what
// PayQI was answered.
func (d *demo) tellAll(ctx context.Context, o orders.View, types ...string) (string, error) {
	var answers []string
	for _, t := range types {
		a, err := d.payqi.tell(ctx, newEvent(t, o, "pay_"+o.ID))
		if err != nil {
			return "", err
		}
		answers = append(answers, a.String())
	}
	return tally(answers), nil
}

// storm delivers one event many times at once.
func (d *demo) storm(ctx context.Context, o orders.View, times int) (string, error) {
	body, err := json.Marshal(newEvent("payment.completed", o, "pay_"+o.ID))
	if err != nil {
		return "", err
	}
	answers, errs := make([]string, times), make([]error, times)
	var wg sync.WaitGroup
	for i := range times {
		wg.Go(func() {
			a, err := d.payqi.send(ctx, body, signGood, now())
			answers[i], errs[i] = a.String(), err
		})
	}
	wg.Wait()
	return tally(answers), errors.Join(errs...)
}

// tally counts equal answers, the rarer first: "200 OK, 19 × 200 Already processed".
func tally(answers []string) string {
	count := map[string]int{}
	for _, a := range answers {
		count[a]++
	}
	kinds := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[a], count[b]), cmp.Compare(a, b))
	})
	for i, a := range kinds {
		if count[a] > 1 {
			kinds[i] = fmt.Sprintf("%d × %s", count[a], a)
		}
	}
	return strings.Join(kinds, ", ")
}

// goods says where an order's goods are.
func goods(o orders.View) string {
	switch {
	case o.FulfillmentStatus == orders.InQueue:
		return "ready to ship"
	case o.FulfillmentStatus != orders.NotYet:
		return string(o.FulfillmentStatus)
	case o.Status == orders.Pending || o.Status == orders.PaymentFailed:
		return "reserved"
	}
	return "released"
}

func stateOf(o orders.View) string {
	return fmt.Sprintf("%s/%s/%s", o.Status, o.PaymentStatus, o.FulfillmentStatus)
}

// await waits until an order stands where it should.
func (d *demo) await(ctx context.Context, id, want string) error {
	for {
		o, err := d.shop.order(ctx, id)
		if err == nil && stateOf(o) == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("order %s is %s after %s, want %s", id, stateOf(o), demoPatience, want)
		case <-time.After(15 * time.Millisecond):
		}
	}
}

// awaitMail waits until the mail server has taken a letter of this kind.
func (d *demo) awaitMail(ctx context.Context, id, kind string) error {
	for {
		sent, err := d.mailsOf(ctx, id)
		if err == nil && slices.Contains(sent, kind) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no mail %s about order %s after %s", kind, id, demoPatience)
		case <-time.After(15 * time.Millisecond):
		}
	}
}

// mailsOf returns the kinds of the letters about an order that were sent.
func (d *demo) mailsOf(ctx context.Context, id string) (kinds []string, err error) {
	err = d.db.Read(ctx).Raw(`SELECT kind FROM letters WHERE order_id = ? AND state = 'sent' ORDER BY sent_at`, id).Scan(&kinds).Error
	return kinds, err
}
