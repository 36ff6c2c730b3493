package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"quayside/internal/orders"
	"quayside/internal/webhooks"
)

// shopClient speaks to a running quayside as a shop does, over the admin API.
type shopClient struct {
	url, key string
	http     *http.Client
}

func newShopClient(baseURL, key string) *shopClient {
	return &shopClient{url: strings.TrimRight(baseURL, "/"), key: key, http: &http.Client{Timeout: 10 * time.Second, CheckRedirect: stay}}
}

// stay keeps a client from following a redirect: what it sends is for one place.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// refusal is an answer of the API that says no, in the problem's own words.
type refusal struct {
	method, path string
	Status       int
	Code, Detail string
}

func (r *refusal) Error() string {
	return strings.TrimRight(fmt.Sprintf("%s %s: %d %s: %s", r.method, r.path, r.Status, r.Code, r.Detail), ": ")
}

// refused reports whether err is an answer with this status.
func refused(err error, status int) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.Status == status
}

// call sends body (nil for none) as JSON and reads the answer into out. A
// refusal is an error, *refusal.
func (s *shopClient) call(ctx context.Context, method, path string, body, out any) error {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, payload)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+s.key)
	r.Header.Set("Content-Type", "application/json")
	res, err := s.http.Do(r)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", s.url, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return err
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		r := &refusal{method: method, path: path, Status: res.StatusCode}
		_ = json.Unmarshal(answer, r) // what is no problem says nothing
		r.Status = res.StatusCode
		return r
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

func (s *shopClient) order(ctx context.Context, id string) (v orders.View, err error) {
	err = s.call(ctx, http.MethodGet, "/api/v1/orders/"+url.PathEscape(id), nil, &v)
	return v, err
}

// player plays PayQI, the sender: it builds events as the guide's "Event Structure"
// shows them, signs and sends them.
type player struct {
	url, secret string
	http        *http.Client
}

func newPayQI(baseURL, secret string) *player {
	return &player{url: strings.TrimRight(baseURL, "/") + "/webhooks/payqi", secret: secret, http: &http.Client{
		Timeout: 30 * time.Second, CheckRedirect: stay,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64},
	}}
}

// eventOf is an event about an order. Fields may be changed before it is sent.
type eventOf struct {
	ID      string      `json:"id,omitempty"`
	Type    string      `json:"type"`
	Created int64       `json:"created"`
	Data    paymentData `json:"data"`
}

type paymentData struct {
	ID             string         `json:"id"`
	Amount         json.Number    `json:"amount"`
	Currency       string         `json:"currency"`
	Status         string         `json:"status"`
	PayAddress     string         `json:"pay_address"`
	DestinationTag string         `json:"destination_tag"`
	TxHash         *string        `json:"tx_hash"`
	Metadata       map[string]any `json:"metadata"`
}

// demoAddress is where the played payments go: an address in the form of the
// XRP Ledger that nobody has.
const demoAddress = "rQuaysideDemoAddressNobodyHasThis"

// newEvent builds an event of type about a payment for o, as PayQI would.
func newEvent(eventType string, o orders.View, payment string) eventOf {
	e := eventOf{
		ID: "evt_" + randomHex(12), Type: eventType, Created: time.Now().Unix(),
		Data: paymentData{
			ID: payment, Amount: json.Number(o.Total.String()), Currency: o.Currency, Status: strings.TrimPrefix(eventType, "payment."),
			PayAddress: demoAddress, DestinationTag: tagOf(payment), Metadata: map[string]any{"order_id": o.ID},
		},
	}
	if eventType == string(orders.PaymentCompletedEvent) {
		hash := strings.ToUpper(randomHex(32))
		e.Data.TxHash = &hash
	}
	return e
}

// tagOf makes a destination tag that stays the same for a payment.
func tagOf(payment string) string {
	var n uint32 = 2166136261
	for _, c := range []byte(payment) {
		n = (n ^ uint32(c)) * 16777619
	}
	return strconv.FormatUint(uint64(n%900_000_000+100_000), 10)
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// The headers of the guide, "Create Webhook Endpoint" and "Replay Attacks".
const (
	signatureHeader = "X-PayQI-Signature"
	timestampHeader = "X-PayQI-Timestamp"
)

// answer is what the webhook said.
type answer struct {
	Status int     `json:"status"`
	Text   string  `json:"text"`
	Millis float64 `json:"elapsed_ms"` // from the first byte sent to the last one read
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.Status, a.Text) }

// signature values of send.
const (
	signGood   = "good"
	signBad    = "bad"    // of another secret
	signUpper  = "upper"  // good, in upper-case hex
	signPrefix = "prefix" // good, behind sha256=
	signNone   = "none"
)

var signatures = []string{signGood, signBad, signUpper, signPrefix, signNone}

// sign is the value of X-PayQI-Signature, "" for none.
func (p *player) sign(body []byte, signature string) string {
	switch good := webhooks.Sign(p.secret, body); signature {
	case signGood:
		return good
	case signUpper:
		return strings.ToUpper(good)
	case signPrefix:
		return "sha256=" + good
	case signBad:
		return webhooks.Sign("not the secret of this shop", body)
	}
	return ""
}

// send posts body with the signature asked for; timestamp "" sends none.
func (p *player) send(ctx context.Context, body []byte, signature, timestamp string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	if s := p.sign(body, signature); s != "" {
		r.Header.Set(signatureHeader, s)
	}
	if timestamp != "" {
		r.Header.Set(timestampHeader, timestamp)
	}
	began := time.Now()
	res, err := p.http.Do(r)
	if err != nil {
		return answer{}, fmt.Errorf("%s does not answer: %w", p.url, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	millis := math.Round(float64(time.Since(began).Microseconds())/100) / 10
	return answer{res.StatusCode, strings.TrimSpace(string(text)), millis}, err
}

// tell sends e once, in time and well signed.
func (p *player) tell(ctx context.Context, e eventOf) (answer, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return answer{}, err
	}
	return p.send(ctx, body, signGood, now())
}

func now() string { return strconv.FormatInt(time.Now().Unix(), 10) }
