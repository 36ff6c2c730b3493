package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"quayside/internal/notify"
	"quayside/internal/orders"
	"quayside/internal/webhooks"
)

const (
	demoPatience = 20 * time.Second // for a scenario, all of which should take milliseconds
	sampleSKU    = "mug-blue"
	sampleUnits  = 2
)

// stage is where a scenario is played: against a running service, over HTTP only.
type stage struct {
	shop  *shopClient
	payqi *player
	api   *shopClient               // of the PayQI that dev plays; nil without one
	run   string                    // tells the orders of this run from earlier ones
	watch func(beat)                // told of everything that happens; may be nil
	pause func(ctx context.Context) // between two acts, for people; may be nil

	scenario  scenario
	order     orders.View // with its id, currency and total from the beginning
	sku       string
	before    *snapshot // when it had been opened
	sent      eventOf   // the last event
	otherHash *string   // of the transaction that paid the other order
	keys      []string  // of the events sent, as the inbox would keep them
	events    []event   // those it kept
}

// beat is a thing that happened on the stage.
type beat struct {
	What    string          `json:"what"`
	Event   string          `json:"type,omitempty"` // of a delivery
	Body    json.RawMessage `json:"body,omitempty"`
	Times   int             `json:"times,omitempty"`
	Answers []answer        `json:"answers,omitempty"`
}

// performance is how a scenario went.
type performance struct {
	Scenario string    `json:"scenario"`
	Line     string    `json:"description"`
	OrderID  string    `json:"order_id"`
	Beats    []beat    `json:"steps"`
	Before   *snapshot `json:"before"` // null when the order was opened during the play
	After    *snapshot `json:"after"`  // null when it could not be seen any more
	OK       bool      `json:"ok"`
	Wrong    []string  `json:"wrong"` // what is not as it should be
}

// act is a step of a scenario.
type act func(ctx context.Context, s *stage) error

// perform plays a scenario about the order with this id, or about one that it
// opens, and compares how it ended with how it must end.
func (s *stage) perform(ctx context.Context, sc scenario, orderID string) performance {
	s.scenario = sc
	r := performance{Scenario: sc.name, Line: sc.line, Wrong: []string{}, Beats: []beat{}}
	watch := s.watch
	s.watch = func(b beat) {
		r.Beats = append(r.Beats, b)
		if watch != nil {
			watch(b)
		}
	}
	playing, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	err := s.play(playing, orderID)
	r.OrderID, r.Before = s.order.ID, s.before
	if err == nil {
		err = s.ended(playing)
	}
	if ctx.Err() != nil { // somebody has stopped it
		r.Wrong = append(r.Wrong, "it was stopped")
		return r
	}
	if err != nil {
		r.Wrong = append(r.Wrong, strings.Split(err.Error(), "\n")...)
	}
	if s.order.ID != "" { // show where it stands, also when it took too long
		looking, cancel := context.WithTimeout(ctx, demoPatience)
		defer cancel()
		if r.After, err = s.shop.look(looking, s.order.ID, s.events); err != nil {
			r.Wrong = append(r.Wrong, strings.Split(err.Error(), "\n")...)
		} else if len(r.Wrong) == 0 {
			r.Wrong = append(r.Wrong, sc.want.compare(r.Before, r.After)...)
		}
	}
	r.OK = len(r.Wrong) == 0
	return r
}

func (s *stage) play(ctx context.Context, orderID string) error {
	if err := s.begin(ctx, orderID); err != nil {
		return err
	}
	for _, a := range s.scenario.play {
		if s.pause != nil {
			s.pause(ctx)
		}
		if err := a(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// begin takes the order named, or makes one.
func (s *stage) begin(ctx context.Context, orderID string) error {
	if orderID != "" {
		before, err := s.shop.look(ctx, orderID, nil)
		if err != nil {
			return err
		}
		s.before, s.order = before, before.Order
		if got := stateOf(s.order); got != openState {
			return fmt.Errorf("order %s is %s; a scenario begins with an unpaid one (%s). Without --order it opens one of its own", orderID, got, openState)
		}
		return nil
	}
	s.sku = sampleSKU
	if s.scenario.rare {
		s.sku = "last-" + s.run
	}
	if err := s.stockUp(ctx); err != nil {
		return err
	}
	s.order = orders.View{ID: s.scenario.name + "-" + s.run, Currency: "XRP"}
	s.order.Total.Decimal = decimal.NewFromInt(10)
	if s.scenario.late {
		return nil
	}
	return s.open(ctx)
}

// stockUp sees to it that the sample product is there to be sold.
func (s *stage) stockUp(ctx context.Context) error {
	product := map[string]any{"sku": s.sku, "name": "Blue mug", "on_hand": 200}
	if s.scenario.rare {
		product["name"], product["on_hand"] = "The last mugs", sampleUnits
	}
	err := s.shop.call(ctx, http.MethodPost, "/api/v1/products", product, nil)
	if err == nil || !refused(err, http.StatusConflict) { // it is there
		return err
	}
	var l level
	if err := s.shop.call(ctx, http.MethodGet, "/api/v1/products/"+s.sku, nil, &l); err != nil || l.Available >= 50*sampleUnits {
		return err
	}
	return s.shop.call(ctx, http.MethodPost, "/api/v1/products/"+s.sku+"/adjustments", map[string]any{"delta": 200, "reason": "restocked for a demonstration"}, nil)
}

// open opens the scenario's order.
func (s *stage) open(ctx context.Context) error {
	id, ttl := s.order.ID, s.scenario.ttl
	if err := s.openAs(ctx, id, ttl, &s.order); err != nil {
		return err
	}
	var err error
	if s.before, err = s.shop.look(ctx, id, nil); err != nil {
		return err
	}
	what := fmt.Sprintf("order %s opened: %d × %s, %s %s", id, sampleUnits, s.sku, s.order.Total, s.order.Currency)
	if ttl > 0 {
		what += fmt.Sprintf(", to be paid within %d s", ttl)
	}
	s.note(what)
	return nil
}

func (s *stage) openAs(ctx context.Context, id string, ttl int64, o *orders.View) error {
	body := map[string]any{
		"id": id, "currency": s.order.Currency,
		"customer": map[string]string{"email": cmp.Or(s.scenario.to, s.scenario.name+"@customers.example"), "name": "Ada"},
		"items":    []map[string]any{{"sku": cmp.Or(s.sku, sampleSKU), "quantity": sampleUnits, "unit_price": "5.00"}},
	}
	if ttl > 0 {
		body["expires_in"] = ttl
	}
	return s.shop.call(ctx, http.MethodPost, "/api/v1/orders", body, o)
}

func (s *stage) note(what string) { s.watch(beat{What: what}) }

// delivery is how an event is sent. The zero value is PayQI's own way.
type delivery struct {
	signature string // "" for good
	timestamp string // as of --timestamp; "" for now
	times     int    // at once; 0 for once
	answers   string // as tally writes them; "" for 200 OK
}

// tell sends an event as PayQI does.
func tell(eventType orders.EventType, changes ...change) act {
	return deliver(delivery{}, eventType, changes...)
}

// deliver sends an event about the scenario's order, and minds the answers.
func deliver(d delivery, eventType orders.EventType, changes ...change) act {
	return func(ctx context.Context, s *stage) error {
		e := newEvent(string(eventType), s.order, paymentOf(s.order.ID))
		for _, c := range changes {
			c(s, &e)
		}
		s.sent = e
		body, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b := beat{What: describe(e, d), Event: e.Type, Body: body, Times: max(d.times, 1)}
		b.Answers, err = s.payqi.deliver(ctx, body, cmp.Or(d.signature, signGood), stamp(cmp.Or(d.timestamp, stampNow)), b.Times, b.Times)
		if err != nil {
			return err
		}
		s.watch(b)
		own, contradiction := webhooks.KeysOf(body)
		s.keys = append(s.keys, own, contradiction)
		if want := cmp.Or(d.answers, answerOK); tally(b.Answers) != want {
			return fmt.Errorf("%s was answered %s, it should be %s", e.Type, tally(b.Answers), want)
		}
		return nil
	}
}

// describe says in a few words what is sent.
func describe(e eventOf, d delivery) string {
	what := fmt.Sprintf("%s of %s, %s %s", e.Type, e.Data.ID, e.Data.Amount, e.Data.Currency)
	if e.ID == "" {
		what += ", without id"
	}
	if d.signature != "" {
		what += ", signature " + d.signature
	}
	if d.timestamp != "" {
		what += ", timestamp " + d.timestamp
	}
	if d.times > 1 {
		what += fmt.Sprintf(", %d times at once", d.times)
	}
	return what
}

// deliver posts body so many times, so many at once, and returns the answers
// in the order of sending.
func (p *player) deliver(ctx context.Context, body []byte, signature, timestamp string, times, parallel int) ([]answer, error) {
	answers, errs := make([]answer, times), make([]error, times)
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i := range times {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			answers[i], errs[i] = p.send(ctx, body, signature, timestamp)
		})
	}
	wg.Wait()
	for _, err := range errs { // one stands for all: they went the same way
		if err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// The words of --timestamp.
const (
	stampNow  = "now"
	stampNone = "none"
)

// stamp is what goes into X-PayQI-Timestamp: the seconds of now or of a time
// relative to it (-10m), nothing for none, else the text itself.
func stamp(text string) string {
	switch d, relative := offset(text); {
	case text == stampNone:
		return ""
	case text == stampNow:
		return now()
	case relative:
		return strconv.FormatInt(time.Now().Add(d).Unix(), 10)
	}
	return text
}

// offset reads a time relative to now, which begins with its sign.
func offset(text string) (time.Duration, bool) {
	if !strings.HasPrefix(text, "-") && !strings.HasPrefix(text, "+") {
		return 0, false
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

// tally counts equal answers, the rarer first: "200 OK, 19 × 200 Already processed".
func tally(answers []answer) string {
	count := map[string]int{}
	for _, a := range answers {
		count[a.String()]++
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

// await waits until the order stands so.
func await(state string) act {
	return func(ctx context.Context, s *stage) error {
		if err := s.shop.stands(ctx, s.order.ID, state); err != nil {
			return err
		}
		s.note("the order is " + state)
		return nil
	}
}

// stands waits until an order stands as wanted: STATUS or all three.
func (s *shopClient) stands(ctx context.Context, id, want string) error {
	var last string
	err := until(ctx, fmt.Sprintf("order %s to be %s", id, want), func() (bool, error) {
		o, err := s.order(ctx, id)
		if err == nil {
			last = stateOf(o)
		}
		return last == want || strings.HasPrefix(last, want+"/"), err
	})
	if err != nil && last != "" {
		return fmt.Errorf("%w; it is %s", err, last)
	}
	return err
}

func stateOf(o orders.View) string {
	return fmt.Sprintf("%s/%s/%s", o.Status, o.PaymentStatus, o.FulfillmentStatus)
}

// mailed waits until the mail server has taken a letter of this kind.
func mailed(kind notify.Kind) act {
	return func(ctx context.Context, s *stage) error {
		err := until(ctx, fmt.Sprintf("the mail %s", kind), func() (bool, error) {
			sent, err := s.shop.mailsOf(ctx, s.order.ID)
			return slices.Contains(sent, kind), err
		})
		if err != nil {
			return err
		}
		s.note(fmt.Sprintf("the mail %s is sent", kind))
		return nil
	}
}

// mailsOf returns the kinds of the letters about an order that were sent, the oldest first.
func (s *shopClient) mailsOf(ctx context.Context, id string) (kinds []notify.Kind, err error) {
	letters, err := list[letter](ctx, s, "/api/v1/emails", url.Values{"order_id": {id}})
	slices.Reverse(letters)
	return sentOf(letters), err
}

func sentOf(letters []letter) (kinds []notify.Kind) {
	for _, l := range letters {
		if l.State == notify.Sent {
			kinds = append(kinds, l.Kind)
		}
	}
	return kinds
}

// ship reports the whole order as shipped.
func ship() act {
	return func(ctx context.Context, s *stage) error {
		err := s.shop.call(ctx, http.MethodPost, "/api/v1/orders/"+s.order.ID+"/shipments", map[string]string{"carrier": "DHL", "tracking_number": "JD0146"}, nil)
		if err == nil {
			s.note("the shop ships it: DHL JD0146")
		}
		return err
	}
}

func cancel(reason string) act {
	return func(ctx context.Context, s *stage) error {
		err := s.shop.call(ctx, http.MethodPost, "/api/v1/orders/"+s.order.ID+"/cancellation", map[string]string{"reason": reason}, nil)
		if err == nil {
			s.note("the shop cancels it: " + reason)
		}
		return err
	}
}

// checkout has PayQI create the payment for the order.
func checkout() act {
	return func(ctx context.Context, s *stage) error {
		var way orders.WayToPayView
		err := s.shop.call(ctx, http.MethodPost, "/api/v1/orders/"+s.order.ID+"/payments", nil, &way)
		switch {
		case refused(err, http.StatusNotImplemented):
			return fmt.Errorf("%w; `quayside dev` plays a PayQI that creates payments", err)
		case err != nil:
			return err
		case way.PaymentID != paymentOf(s.order.ID):
			return fmt.Errorf("payment %s was created by a PayQI that is not played: only `quayside dev` has one", way.PaymentID)
		}
		s.note(fmt.Sprintf("PayQI created payment %s over %s %s", way.PaymentID, way.Amount, way.Currency))
		return nil
	}
}

// endsInSilence makes the payment end so at the PayQI that is played, which tells nobody.
func endsInSilence(eventType orders.EventType) act {
	return func(ctx context.Context, s *stage) error {
		if s.api == nil {
			return errors.New("PAYQI_API_URL is not set: only the PayQI that `quayside dev` plays can be made to keep silent")
		}
		status := strings.TrimPrefix(string(eventType), "payment.")
		err := s.api.call(ctx, http.MethodPut, "/played/payments/"+paymentOf(s.order.ID), map[string]string{"status": status}, nil)
		if err == nil {
			s.note("at PayQI the payment is " + status + ", and no event comes")
		}
		return err
	}
}

// decide resolves the order's open case of this kind, once there is one.
func decide(code orders.Code, action string) act {
	return func(ctx context.Context, s *stage) error {
		var open []orders.CaseView
		err := until(ctx, fmt.Sprintf("a case %s", code), func() (_ bool, err error) {
			open, err = list[orders.CaseView](ctx, s.shop, "/api/v1/cases", url.Values{"order_id": {s.order.ID}, "code": {string(code)}, "state": {"open"}})
			return len(open) > 0, err
		})
		if err != nil {
			return err
		}
		err = s.shop.call(ctx, http.MethodPost, "/api/v1/cases/"+open[0].ID+"/resolutions", map[string]string{"action": action}, nil)
		if err == nil {
			s.note(fmt.Sprintf("a person decides %s: %s", code, action))
		}
		return err
	}
}

func openOrder() act { return func(ctx context.Context, s *stage) error { return s.open(ctx) } }

// payAnother opens a second order over the same goods, and pays it.
func payAnother() act {
	return func(ctx context.Context, s *stage) error {
		var o orders.View
		if err := s.openAs(ctx, s.order.ID+foreignSuffix, 0, &o); err != nil {
			return err
		}
		e := newEvent(string(completed), o, paymentOf(o.ID))
		s.otherHash = e.Data.TxHash
		a, err := s.payqi.tell(ctx, e)
		if err != nil {
			return err
		}
		if a.String() != answerOK {
			return fmt.Errorf("the payment of order %s was answered %s, it should be %s", o.ID, a, answerOK)
		}
		if err := s.shop.stands(ctx, o.ID, paidState); err != nil {
			return err
		}
		s.note(fmt.Sprintf("another order, %s, is opened and paid", o.ID))
		return nil
	}
}

// inboxSays waits until the last event is in a state.
func inboxSays(state string) act {
	return func(ctx context.Context, s *stage) error {
		own, _ := webhooks.KeysOf([]byte(jsonBody(s.sent)))
		err := until(ctx, "the event to be "+state, func() (bool, error) {
			e, err := s.shop.event(ctx, own)
			return e != nil && e.State == state, err
		})
		if err == nil {
			s.note("the event is " + state)
		}
		return err
	}
}

func jsonBody(e eventOf) string {
	b, err := json.Marshal(e)
	if err != nil {
		return "" // it has been sent, so it encodes
	}
	return string(b)
}

// ended waits for what a scenario must end with.
func (s *stage) ended(ctx context.Context) (err error) {
	want := s.scenario.want
	if err := s.shop.stands(ctx, s.order.ID, want.state); err != nil {
		return err
	}
	last := ""
	if s.events, err = s.shop.settled(ctx, s.keys); err != nil {
		return err
	}
	if n := len(s.events); n > 0 {
		last = s.events[n-1].State
	}
	if last == orders.Parked { // its order has come, and a worker takes it up
		return until(ctx, "the event to be "+want.event, func() (bool, error) {
			s.events, err = s.shop.settled(ctx, s.keys)
			return err == nil && len(s.events) > 0 && s.events[len(s.events)-1].State == want.event, err
		})
	}
	if last != want.event {
		return fmt.Errorf("the inbox has the event as %q, it should be %q", last, want.event)
	}
	var errs []error
	for _, kind := range want.mails {
		errs = append(errs, mailed(kind)(ctx, &stage{shop: s.shop, order: s.order, watch: func(beat) {}}))
	}
	errs = append(errs, s.shop.posted(ctx, s.order.ID))
	return errors.Join(errs...)
}

// posted waits until no letter about an order is under way.
func (s *shopClient) posted(ctx context.Context, id string) error {
	return until(ctx, "the mails about order "+id, func() (bool, error) {
		letters, err := list[letter](ctx, s, "/api/v1/emails", url.Values{"order_id": {id}})
		return !slices.ContainsFunc(letters, letter.underWay), err
	})
}

// compare says how an order differs from how it must end.
func (want ending) compare(before, after *snapshot) (wrong []string) {
	if got := stateOf(after.Order); got != want.state {
		wrong = append(wrong, fmt.Sprintf("the order is %s, it should be %s", got, want.state))
	}
	var codes []orders.Code
	for _, c := range after.Cases {
		if c.State == "open" && !before.has(c.ID) {
			codes = append(codes, c.Code)
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(codes)), slices.Sorted(slices.Values(want.cases))) {
		wrong = append(wrong, fmt.Sprintf("the open cases are %s, they should be %s", wordsOf(codes), wordsOf(want.cases)))
	}
	sent := sentOf(after.Letters)
	for _, kind := range want.mails {
		if !slices.Contains(sent, kind) {
			wrong = append(wrong, fmt.Sprintf("the mail %s was not sent", kind))
		}
	}
	for _, kind := range sentOf(slices.DeleteFunc(slices.Clone(after.Letters), before.hasSent)) {
		if kind != notify.OrderReceived && !slices.Contains(want.mails, kind) {
			wrong = append(wrong, fmt.Sprintf("a mail %s was sent, it should not be", kind))
		}
	}
	return wrong
}

func (s *snapshot) has(caseID string) bool {
	return s != nil && slices.ContainsFunc(s.Cases, func(c orders.CaseView) bool { return c.ID == caseID })
}

func (s *snapshot) hasSent(l letter) bool {
	return s != nil && slices.ContainsFunc(s.Letters, func(m letter) bool { return m.ID == l.ID && m.State == notify.Sent })
}

// wordsOf joins words with commas; none for an empty list.
func wordsOf[W ~string](words []W) string {
	var list []string
	for _, w := range words {
		list = append(list, string(w))
	}
	return cmp.Or(strings.Join(list, ", "), "none")
}
