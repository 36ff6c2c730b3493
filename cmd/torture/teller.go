//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shopspring/decimal"
)

// sender is PayQI and the shop: it asks again until it is answered, and keeps
// the journal.
type sender struct {
	w       *world
	journal *journal
	http    *http.Client
	n       atomic.Int64 // requests
	turn    atomic.Int64 // of the serves
	first   bool         // only the first of them is asked

	mu      sync.Mutex
	waiting map[int64]time.Time // requests without an answer, since when
	tallies
}

// tallies are for the line of progress; the report counts the journal.
type tallies struct{ sent, acked, refused, unknown int }

func newSender(w *world, j *journal) *sender {
	return &sender{w: w, journal: j, waiting: map[int64]time.Time{}, http: &http.Client{
		Timeout: 6 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256, MaxConnsPerHost: 256},
	}}
}

// request is something to be asked until it is answered.
type request struct {
	entry
	method, path string
	headers      func() map[string]string           // made anew for each try
	again        func(status int, text string) bool // asks once more after this answer; nil: only after 5xx
}

// ask asks until there is an answer, as PayQI would, and journals each try.
// Its error is only that ctx has ended, or that the journal cannot be written.
func (s *sender) ask(ctx context.Context, r request) (outcome, error) {
	r.N = s.n.Add(1)
	s.mu.Lock()
	s.waiting[r.N] = time.Now()
	s.mu.Unlock()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		out, err := s.try(ctx, r)
		if err != nil {
			return unknown, err
		}
		if out != unknown {
			s.mu.Lock()
			delete(s.waiting, r.N)
			s.mu.Unlock()
			return out, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return unknown, err
		}
	}
}

func (s *sender) try(ctx context.Context, r request) (outcome, error) {
	serves := s.w.of("serve")
	to := serves[int(s.turn.Add(1))%len(serves)]
	if s.first {
		to = serves[0]
	}
	before := r.entry
	before.Via = to.name
	if err := s.journal.note(before); err != nil {
		return unknown, err
	}
	after := entry{N: r.N, Act: r.Act, Story: r.Story, Via: to.name}
	began := time.Now()
	after.Status, after.Text = s.post(ctx, to, r)
	after.Millis = float64(time.Since(began).Microseconds()) / 1000
	switch st := after.Status; {
	case st >= 200 && st < 300:
		after.Outcome = ok
	case st == 0, st >= 500, st == http.StatusRequestTimeout, r.again != nil && r.again(st, after.Text):
		after.Outcome = unknown
	default:
		after.Outcome = refused
	}
	s.count(r.Act, after.Outcome)
	return after.Outcome, s.journal.note(after)
}

func (s *sender) count(act string, o outcome) {
	if act != actTell {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
	switch o {
	case ok:
		s.acked++
	case refused:
		s.refused++
	case unknown:
		s.unknown++
	}
}

// tally is how far the sender is, and since when its oldest question waits.
func (s *sender) tally() (t tallies, oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, since := range s.waiting {
		if oldest.IsZero() || since.Before(oldest) {
			oldest = since
		}
	}
	return s.tallies, oldest
}

// post is one try; status 0 is no answer.
func (s *sender) post(ctx context.Context, to *actor, r request) (status int, text string) {
	q, err := http.NewRequestWithContext(ctx, r.method, "http://"+to.addr+r.path, bytes.NewReader(r.Body))
	if err != nil {
		return 0, err.Error()
	}
	for name, value := range r.headers() {
		q.Header.Set(name, value)
	}
	q.Header.Set("Content-Type", "application/json")
	res, err := s.http.Do(q)
	if err != nil {
		return 0, "no answer"
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err != nil {
		return 0, "half an answer"
	}
	return res.StatusCode, strings.TrimSpace(string(answer[:min(len(answer), 200)]))
}

// The acts of the journal.
const (
	actOpen   = "open"
	actCancel = "cancel"
	actShip   = "ship"
	actTell   = "tell"
)

// teller tells one story. All that is drawn by lot in it comes from its own
// seed, so that it is the same in whatever company it is told.
type teller struct {
	*sender
	ctx   context.Context //nolint:containedctx // of the whole story
	rng   *rand.Rand
	story int
	kind  string
	run   string // sets the names of one run apart
	goods []good
	made  int // names given
}

// good is a product of the shop.
type good struct {
	sku   string
	stock int64
	rare  bool
}

// order is one that the shop has opened.
type order struct {
	id, currency string
	total        decimal.Decimal
}

func (t *teller) name(what string) string {
	t.made++
	return fmt.Sprintf("%s_%s_%d_%d", what, t.run, t.story, t.made)
}

// chance is true p times in 100.
func (t *teller) chance(p int) bool { return t.rng.IntN(100) < p }

// draft makes up an order of the goods given, or of some ample ones.
func (t *teller) draft(goods ...good) (order, []byte) {
	if goods == nil {
		for range 1 + t.rng.IntN(3) {
			goods = append(goods, t.goods[t.rng.IntN(ampleGoods)])
		}
	}
	o := order{id: t.name("order"), currency: []string{"XRP", "XRP", "BTC"}[t.rng.IntN(3)]}
	type line struct {
		SKU      string `json:"sku"`
		Quantity int64  `json:"quantity"`
		Price    string `json:"unit_price"`
	}
	var lines []line
	for _, g := range goods {
		l := line{SKU: g.sku, Quantity: 1 + t.rng.Int64N(3), Price: decimal.New(1+t.rng.Int64N(90_000_000), -6).String()}
		price, _ := decimal.NewFromString(l.Price) // we have just written it
		o.total = o.total.Add(price.Mul(decimal.NewFromInt(l.Quantity)))
		lines = append(lines, l)
	}
	body, err := json.Marshal(map[string]any{
		"id": o.id, "currency": o.currency, "items": lines, "customer": map[string]string{"email": o.id + "@buyer.example", "name": "Torture"},
	})
	if err != nil {
		panic(err)
	}
	return o, body
}

// open opens an order; ttl 0 is the shop's, which no run outlives. false: it
// was refused, or the run is over.
func (t *teller) open(ttl time.Duration, goods ...good) (order, bool) {
	o, body := t.draft(goods...)
	return o, t.put(o, body, ttl)
}

// put opens an order that was drafted before.
func (t *teller) put(o order, body []byte, ttl time.Duration) bool {
	if ttl > 0 {
		body = append(bytes.Clone(bytes.TrimSuffix(body, []byte("}"))), fmt.Sprintf(`,"expires_in":%d}`, int(ttl.Seconds()))...)
	}
	return t.admin(actOpen, o, "/api/v1/orders", body, nil)
}

func (t *teller) cancel(o order) bool {
	return t.admin(actCancel, o, "/api/v1/orders/"+o.id+"/cancellation", []byte(`{"reason":"the torture wants it"}`), nil)
}

// ship reports that an order has shipped, as soon as it is paid.
func (t *teller) ship(o order) bool {
	return t.admin(actShip, o, "/api/v1/orders/"+o.id+"/shipments", []byte(`{"carrier":"DHL","tracking_number":"JD0146"}`), func(status int, text string) bool {
		return status == http.StatusConflict && strings.Contains(text, "order_not_paid")
	})
}

func (t *teller) admin(act string, o order, path string, body []byte, again func(int, string) bool) bool {
	key := act + "-" + o.id
	out, err := t.ask(t.ctx, request{
		entry:  entry{Act: act, Story: t.story, Kind: t.kind, Order: o.id, Body: body},
		method: http.MethodPost, path: path,
		headers: func() map[string]string {
			return map[string]string{"Authorization": "Bearer " + adminKey, "Idempotency-Key": key}
		},
		again: func(status int, text string) bool {
			return strings.Contains(text, "idempotency_key_in_use") || again != nil && again(status, text)
		},
	})
	return err == nil && out == ok
}

// event makes up news of a payment for an order.
func (t *teller) event(kind string, o order, payment string) event {
	e := event{ID: t.name("evt"), Type: "payment." + kind, Created: time.Now().Unix()}
	e.Data = eventData{ID: payment, Amount: json.Number(o.total.String()), Currency: o.currency, Status: kind, Address: payAddress, Tag: tagOf(payment)}
	e.Data.Metadata.OrderID = o.id
	if kind == "completed" {
		sum := sha256.Sum256([]byte(payment))
		e.Data.TxHash = strings.ToUpper(hex.EncodeToString(sum[:]))
	}
	return e
}

// payAddress has the form of one of the XRP Ledger, and is nobody's.
const payAddress = "rTortureAddressThatNobodyHasXXXXX"

func tagOf(payment string) string {
	sum := sha256.Sum256([]byte(payment))
	return strconv.Itoa(int(sum[0])<<16 | int(sum[1])<<8 | int(sum[2]))
}

// tell sends events one after the other, each until it is answered.
func (t *teller) tell(events ...event) bool {
	for _, e := range events {
		if !t.send(e.ID, e.bytes(), truth) {
			return false
		}
	}
	return true
}

// atOnce sends events side by side, so that nobody knows which is first.
func (t *teller) atOnce(events ...event) {
	var all sync.WaitGroup
	for _, e := range events {
		all.Go(func() { t.send(e.ID, e.bytes(), truth) })
	}
	all.Wait()
}

// send sends one body until it is answered; true when PayQI was told 2xx.
func (t *teller) send(id string, body []byte, l lie) bool {
	out, err := t.ask(t.ctx, request{
		entry:  entry{Act: actTell, Story: t.story, Kind: t.kind, Key: keyOf(id, body), Lie: l, Body: body},
		method: http.MethodPost, path: "/webhooks/payqi", headers: func() map[string]string { return t.sign(body, l) },
	})
	return err == nil && out == ok
}

// sign makes PayQI's headers, at the moment of sending.
func (t *teller) sign(body []byte, l lie) map[string]string {
	secret, stamp := *t.w.signing.Load(), time.Now()
	h := map[string]string{}
	if l == forged {
		secret = "a secret that this shop never had"
	}
	if l == stale {
		stamp = stamp.Add(-time.Hour)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	h["X-PayQI-Signature"] = hex.EncodeToString(mac.Sum(nil))
	if l == prefixed {
		h["X-PayQI-Signature"] = "sha256=" + h["X-PayQI-Signature"]
	}
	if l == unsigned {
		delete(h, "X-PayQI-Signature")
	}
	h["X-PayQI-Timestamp"] = strconv.FormatInt(stamp.Unix(), 10)
	return h
}
