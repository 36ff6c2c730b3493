package webhooks

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"quayside/internal/orders"
	"quayside/internal/payqi"
)

// Event is what the body of a webhook says (guide, "Event Structure"), read
// without guessing: keys match exactly, numbers stay exact.
type Event struct {
	Key       string // what makes it the same event: its id, or sha256:… of a body without one
	ID        string // "" when the body names none
	Type      string
	Created   int64 // Unix seconds, 0 when absent or senseless
	PaymentID string
	OrderRef  string // metadata.order_id, "" when missing
	Amount    decimal.NullDecimal
	Currency  string // upper-cased
	Status    string
	Address   string
	Tag       *int64
	TxHash    string

	Unreadable string   // why it must not be applied, or ""
	Flags      []string // oddities that stop nothing

	Digest  [sha256.Size]byte // of the body
	Meaning []byte            // digest of the fields that count; nil when unreadable
}

// Known reports whether the type is one of PayQI's five.
func (e *Event) Known() bool {
	switch orders.EventType(e.Type) {
	case orders.PaymentCreatedEvent, orders.PaymentPendingEvent, orders.PaymentFailedEvent,
		orders.PaymentExpiredEvent, orders.PaymentCompletedEvent:
		return true
	}
	return false
}

// Test reports whether the event comes from PayQI's testing tool (guide,
// "Local Testing with ngrok"): it never touches an order.
func (e *Event) Test() bool { return strings.HasPrefix(e.PaymentID, "pay_test_") }

var (
	idForm      = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,255}$`)
	orderForm   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	integerForm = regexp.MustCompile(`^-?(0|[1-9][0-9]{0,17})$`)
	addressForm = regexp.MustCompile(`^r[1-9A-HJ-NP-Za-km-z]{24,34}$`) // an XRP Ledger address
	hashForm    = regexp.MustCompile(`^[A-Fa-f0-9]{64}$`)
)

// parseEvent reads a signed body. It never fails: what cannot be read is an
// Event with Unreadable set and, as far as they were found, its references.
func parseEvent(body []byte) *Event {
	e := &Event{Digest: sha256.Sum256(body)}
	e.Key = "sha256:" + hex.EncodeToString(e.Digest[:])
	top, err := decode(body)
	if err != nil {
		e.Unreadable = err.Error()
		return e
	}
	r := reader{e: e}
	r.read(top)
	e.Unreadable = r.wrong
	if e.Unreadable == "" {
		if e.ID != "" {
			e.Key = e.ID
		}
		e.Meaning = e.meaning()
	}
	return e
}

// reader collects the first thing that is wrong with an event.
type reader struct {
	e     *Event
	wrong string
}

func (r *reader) refuse(format string, args ...any) {
	if r.wrong == "" {
		r.wrong = fmt.Sprintf(format, args...)
	}
}

func (r *reader) read(top map[string]any) {
	e := r.e
	if v, given := top["id"]; given {
		if e.ID = r.text(v, "id", 255); !idForm.MatchString(e.ID) {
			r.refuse("id must be 1 to 255 of A-Z a-z 0-9 _ . : -")
		}
	}
	if e.Type = r.text(top["type"], "type", 100); e.Type == "" {
		r.refuse("type is missing")
	}
	e.Created = r.created(top["created"])
	data, _ := top["data"].(map[string]any)
	if !e.Known() { // nothing of it will be applied, and its data may be of any shape
		if id, _ := data["id"].(string); idForm.MatchString(id) {
			e.PaymentID = id
		}
		return
	}
	e.PaymentID = r.text(data["id"], "data.id", 255)
	if !idForm.MatchString(e.PaymentID) {
		e.PaymentID = ""
		r.refuse("data.id is missing or not 1 to 255 of A-Z a-z 0-9 _ . : -")
	}
	if e.Test() {
		return
	}
	e.OrderRef = r.orderRef(data["metadata"])
	e.Currency = upper(r.text(data["currency"], "data.currency", 32))
	e.Status = r.text(data["status"], "data.status", 32)
	e.Address = r.text(data["pay_address"], "data.pay_address", 128)
	e.TxHash = r.text(data["tx_hash"], "data.tx_hash", 128)
	if strings.ContainsFunc(e.TxHash, func(c rune) bool { return c > unicode.MaxASCII }) {
		r.refuse("data.tx_hash holds letters beyond ASCII") // Go and Postgres raise those differently
	}
	e.Tag = r.tag(data["destination_tag"])
	r.amount(data["amount"])
	r.contradictions()
	if e.Address != "" && !addressForm.MatchString(e.Address) {
		e.Flags = append(e.Flags, "data.pay_address does not look like an XRP Ledger address")
	}
	if e.TxHash != "" && !hashForm.MatchString(e.TxHash) {
		e.Flags = append(e.Flags, "data.tx_hash does not look like a transaction hash")
	}
}

// text reads a string; null and absent are "".
func (r *reader) text(v any, name string, limit int) string {
	switch s := v.(type) {
	case nil:
		return ""
	case string:
		if len(s) > limit {
			r.refuse("%s is longer than %d bytes", name, limit)
			return ""
		}
		for _, c := range s {
			if c == utf8.RuneError || unicode.IsControl(c) || c&0xFFFE == 0xFFFE || (c >= 0xFDD0 && c <= 0xFDEF) {
				r.refuse("%s holds a character that is none", name)
				return ""
			}
		}
		return s
	}
	r.refuse("%s is not a string", name)
	return ""
}

// created is a hint only: what makes no sense is dropped.
func (r *reader) created(v any) int64 {
	n, ok := v.(json.Number)
	if ok && integerForm.MatchString(n.String()) {
		if s, err := n.Int64(); err == nil && s >= 0 && s <= 253402300799 { // to the year 9999
			return s
		}
	}
	if v != nil {
		r.e.Flags = append(r.e.Flags, "created is not a time in Unix seconds")
	}
	return 0
}

func (r *reader) orderRef(metadata any) string {
	m, _ := metadata.(map[string]any)
	switch v := m["order_id"].(type) {
	case string:
		if v != "" && !orderForm.MatchString(v) {
			r.refuse("data.metadata.order_id is not 1 to 64 of A-Z a-z 0-9 . _ -")
			return ""
		}
		return v
	case json.Number:
		if !integerForm.MatchString(v.String()) {
			r.refuse("data.metadata.order_id is a number but not an integer of at most 18 digits")
			return ""
		}
		return v.String()
	}
	return ""
}

func (r *reader) tag(v any) *int64 {
	var text string
	switch t := v.(type) {
	case nil:
		return nil
	case json.Number:
		text = t.String()
	case string:
		if text = t; text == "" {
			return nil
		}
	}
	tag, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		r.refuse("data.destination_tag is not a whole number from 0 to 4294967295")
		return nil
	}
	n := int64(tag)
	return &n
}

func (r *reader) amount(v any) {
	e, completed := r.e, r.e.Type == string(orders.PaymentCompletedEvent)
	amount, err := payqi.ParseAmount(v)
	switch {
	case err == nil && amount.IsPositive():
		e.Amount = decimal.NewNullDecimal(amount)
	case completed && err == nil:
		r.refuse("data.amount must be more than zero")
	case completed:
		r.refuse("data.amount %v", err)
	case err != nil && v != nil:
		e.Flags = append(e.Flags, "data.amount ignored: it "+err.Error())
	}
	if completed && e.Currency == "" {
		r.refuse("data.currency is missing")
	}
}

// contradictions compares data.status with the type.
func (r *reader) contradictions() {
	e := r.e
	said := strings.TrimPrefix(e.Type, "payment.")
	switch e.Status {
	case "", said:
	case "completed", "failed", "expired":
		r.refuse("type is %s but data.status is %s", e.Type, e.Status)
	default:
		if said == "completed" {
			r.refuse("type is %s but data.status is %s", e.Type, e.Status)
		}
	}
}

// meaning digests the fields whose change makes another event of it.
func (e *Event) meaning() []byte {
	amount, tag := "", ""
	if e.Amount.Valid {
		amount = e.Amount.Decimal.String()
	}
	if e.Tag != nil {
		tag = strconv.FormatInt(*e.Tag, 10)
	}
	h := sha256.New()
	for _, s := range []string{e.Type, e.PaymentID, amount, e.Currency, e.Status, e.Address, tag, strings.ToUpper(e.TxHash), e.OrderRef} {
		_, _ = fmt.Fprintf(h, "%d:%s,", len(s), s) // a hash takes everything
	}
	return h.Sum(nil)
}

// upper raises ASCII letters only: other scripts have no currency codes.
func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// maxDepth is how deep a body may nest.
const maxDepth = 64

// decode reads exactly one JSON object. Go's own decoder would take the last
// of two equal keys, and "STATUS" or "ſtatus" for "status".
func decode(body []byte) (map[string]any, error) {
	if !json.Valid(body) {
		return nil, errors.New("the body is not valid JSON")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	v, err := value(d, 0, read)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the body goes on after its end")
	}
	top, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the body is not a JSON object")
	}
	return top, nil
}

func value(d *json.Decoder, depth int, here keys) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, errors.New("the body is not valid JSON")
	}
	delim, nested := t.(json.Delim)
	if !nested {
		return t, nil
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("the body nests deeper than %d levels", maxDepth)
	}
	if delim == '{' {
		return object(d, depth, here)
	}
	var list []any
	for d.More() {
		v, err := value(d, depth+1, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err = d.Token()
	return list, err
}

func object(d *json.Decoder, depth int, here keys) (any, error) {
	m, folded := map[string]any{}, map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, errors.New("the body is not valid JSON")
		}
		key, _ := t.(string)
		f := fold(key)
		if folded[f] {
			return nil, fmt.Errorf("the body names a key twice, %.40q", key)
		}
		within, ours := here[f]
		if f != key && ours {
			return nil, fmt.Errorf("the body spells a key in other letters, %.40q", key)
		}
		folded[f] = true
		if m[key], err = value(d, depth+1, within); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return m, err
}

// keys are those we look at in an object, folded, with those inside them. The
// shop's own metadata may hold any other, in any letters.
type keys map[string]keys

var read = keys{"id": nil, "type": nil, "created": nil, "data": {
	"id": nil, "amount": nil, "currency": nil, "status": nil, "pay_address": nil, "destination_tag": nil, "tx_hash": nil,
	"metadata": {"order_id": nil},
}}

// fold makes keys equal that differ only by letter case, in Unicode's widest sense.
func fold(s string) string {
	return strings.Map(func(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }, s)
}
