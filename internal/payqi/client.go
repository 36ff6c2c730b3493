// Package payqi speaks to PayQI's API: it creates payments and asks how they
// stand. It knows nothing of orders, and decides nothing.
package payqi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"quayside/internal/fault"
)

const (
	patience    = 10 * time.Second // for one answer, to its last byte; our own server gives up at 15 s
	maxAnswer   = 64 << 10         // bytes
	tripAfter   = 5                // failures in a row; then PayQI is left alone for a while
	leftAlone   = 30 * time.Second
	defaultRest = 10 * time.Second // after a 429 that names no time
	longestRest = time.Hour
)

// Client is a shop's access to PayQI. It is safe for concurrent use.
//
// Errors, by kind: Unavailable, try again later (nobody answers, 5xx, 429, an
// answer that cannot be read); NotImplemented, the settings are wrong (the key
// or the address is refused); NotFound, no such payment; Unprocessable, PayQI
// refuses what was asked.
type Client struct {
	base      string
	authorize func(*http.Request) // holds the key, so that no print of a Client shows it
	http      *http.Client
	breaker   *gobreaker.CircuitBreaker[*Payment]

	mu     sync.Mutex
	restTo time.Time // PayQI has asked to be left alone until then
}

// New returns a client for the API at address, such as https://api.payqi.example.
// Errors: see CheckAddress.
func New(address, key string) (*Client, error) {
	if err := CheckAddress(address); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext, TLSHandshakeTimeout: 3 * time.Second,
		MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10, ForceAttemptHTTP2: true,
		Proxy: http.ProxyFromEnvironment,
	}
	return &Client{
		base:      strings.TrimRight(address, "/"),
		authorize: func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key) },
		http: &http.Client{
			Timeout: patience, Transport: transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the key is for one place
		},
		breaker: gobreaker.NewCircuitBreaker[*Payment](gobreaker.Settings{
			Name: "payqi", Timeout: leftAlone,
			ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
			IsSuccessful: func(err error) bool { return fault.KindOf(err) != fault.Unavailable },
			IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
		}),
	}, nil
}

// CheckAddress says what is wrong with the address of PayQI's API: a key goes
// there, so it must be https, but for this machine itself.
func CheckAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || strings.ContainsAny(address, "?# ") || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("is not an absolute address; write for instance https://api.payqi.example")
	case !secure(u):
		return errors.New("begins with http://, which would show the key to everybody on the way; write https://")
	}
	return nil
}

// secure reports whether what goes to u cannot be read on the way.
func secure(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	here := u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
	return u.Hostname() != "" && (u.Scheme == "https" || u.Scheme == "http" && here)
}

// Order is what a payment is created for.
type Order struct {
	Key         string // idempotency key: the same one creates one payment only
	ID          string // becomes metadata.order_id, which every event then carries
	Amount      string // such as 10.00
	Currency    string
	Description string
}

// Create creates a payment, or gives the one that was created with the same key.
func (c *Client) Create(ctx context.Context, o Order) (*Payment, error) {
	body, err := json.Marshal(map[string]any{
		"amount": o.Amount, "currency": o.Currency, "description": o.Description, "metadata": map[string]string{"order_id": o.ID},
	})
	if err != nil {
		return nil, fmt.Errorf("encode payment of order %s: %w", o.ID, err)
	}
	p, err := c.call(ctx, http.MethodPost, "/api/payments", body, o.Key)
	if fault.KindOf(err) == fault.NotFound {
		return nil, fault.Wrap(fault.NotImplemented, "payqi_address", err, "there is no PayQI API at PAYQI_API_URL")
	}
	return p, err
}

// Payment asks how a payment stands.
func (c *Client) Payment(ctx context.Context, id string) (*Payment, error) {
	p, err := c.call(ctx, http.MethodGet, "/api/payments/"+url.PathEscape(id), nil, "")
	if err == nil && p.ID != id {
		return nil, unreadable(fmt.Errorf("it is about payment %s", p.ID))
	}
	return p, err
}

// Rest is how long PayQI should be left alone; 0 when it may be asked.
func (c *Client) Rest() time.Duration {
	c.mu.Lock()
	wait := time.Until(c.restTo)
	c.mu.Unlock()
	if c.breaker.State() == gobreaker.StateOpen {
		wait = max(wait, time.Second)
	}
	return max(wait, 0)
}

func (c *Client) call(ctx context.Context, method, path string, body []byte, key string) (*Payment, error) {
	if c.Rest() > 0 {
		return nil, away(errors.New("left alone for now, after it failed or asked for it"))
	}
	p, err := c.breaker.Execute(func() (*Payment, error) { return c.once(ctx, method, path, body, key) })
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return nil, away(err)
	}
	return p, err
}

func away(cause error) error {
	return fault.Wrap(fault.Unavailable, "payqi_away", cause, "PayQI does not answer now; try again")
}

func unreadable(cause error) error {
	return fault.Wrap(fault.Unavailable, "payqi_unreadable", cause, "PayQI's answer cannot be read")
}

func (c *Client) once(ctx context.Context, method, path string, body []byte, key string) (*Payment, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask PayQI: %w", err)
	}
	c.authorize(r)
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", key)
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, away(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, away(err)
	}
	if err := c.judge(res); err != nil {
		return nil, err
	}
	if len(answer) > maxAnswer {
		return nil, unreadable(fmt.Errorf("it is longer than %d bytes", maxAnswer))
	}
	p, err := read(answer)
	if err != nil {
		return nil, unreadable(err)
	}
	return p, nil
}

// judge says what a status means. The body of a refusal is not repeated: it may
// hold anything.
func (c *Client) judge(res *http.Response) error {
	said := fmt.Errorf("PayQI answered %s", res.Status)
	switch status := res.StatusCode; {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		c.rest(res.Header.Get("Retry-After"), status == http.StatusTooManyRequests)
		return away(said)
	case status >= 500, status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusConflict:
		return away(said) // 409: a request with the same key is under way
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fault.Wrap(fault.NotImplemented, "payqi_key", said, "PayQI refuses the key in PAYQI_API_KEY")
	case status == http.StatusNotFound:
		return fault.Wrap(fault.NotFound, "payqi_not_found", said, "PayQI knows no such payment")
	case status < 400:
		return fault.Wrap(fault.NotImplemented, "payqi_address", said, "PAYQI_API_URL leads elsewhere; set it to the place it leads to")
	}
	return fault.Wrap(fault.Unprocessable, "payqi_refused", said, said.Error())
}

// rest keeps everybody from asking until the time that Retry-After names, in
// seconds or as a date.
func (c *Client) rest(after string, always bool) {
	wait := time.Duration(0)
	if always {
		wait = defaultRest
	}
	if seconds, err := strconv.ParseUint(after, 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(after); err == nil {
		wait = time.Until(at)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := time.Now().Add(min(wait, longestRest)); until.After(c.restTo) {
		c.restTo = until
	}
}
