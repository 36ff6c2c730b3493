package payqi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"
)

// Payment is what PayQI's API says of one payment. Strings are empty and
// pointers nil where it is silent.
type Payment struct {
	ID             string
	OrderID        string // metadata.order_id
	Status         string // lower case, such as completed; the caller decides which words it knows
	Amount         decimal.NullDecimal
	Currency       string // upper case
	PayAddress     string
	DestinationTag *int64 // 0 to 4294967295
	TxHash         string
	CheckoutURL    string // a page of PayQI's where the customer pays; https only
}

var (
	idForm      = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,255}$`)
	invoiceForm = regexp.MustCompile(`^xrp_(.+)_([0-9]{1,10})$`)
	amountForm  = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?$`)
)

// ValidID reports whether id has the form of a payment's id.
func ValidID(id string) bool { return idForm.MatchString(id) }

// TestPayment reports whether a payment belongs to PayQI's testing tool (guide,
// "Webhook Testing Tool"). Its events touch no order.
func TestPayment(id string) bool { return strings.HasPrefix(id, "pay_test_") }

// read reads an answer. PayQI does not document its names, so several are
// known for most fields; where two of them disagree, nothing is believed.
func read(body []byte) (*Payment, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var top map[string]any
	if err := d.Decode(&top); err != nil {
		return nil, errors.New("it is not a JSON object")
	}
	if d.More() {
		return nil, errors.New("it goes on after its end")
	}
	for _, wrapper := range []string{"data", "payment"} {
		if inner, nested := top[wrapper].(map[string]any); nested && top["id"] == nil && top["payment_id"] == nil {
			top = inner
		}
	}
	r := reader{fields: top}
	p := &Payment{
		ID: r.text(255, "id", "payment_id"), Status: strings.ToLower(r.text(32, "status")), Currency: strings.ToUpper(r.text(32, "currency")),
		PayAddress: r.text(128, "pay_address", "address"), TxHash: r.text(128, "tx_hash"), CheckoutURL: page(r.text(2000, "checkout_url", "payment_url", "url")),
	}
	if !ValidID(p.ID) {
		r.refuse("it names no payment id")
	}
	p.Amount = r.amount()
	p.DestinationTag = r.tag(p.ID)
	if metadata, ok := top["metadata"].(map[string]any); ok {
		p.OrderID = (&reader{fields: metadata}).text(64, "order_id")
	}
	return p, r.wrong
}

// reader keeps the first thing that is wrong.
type reader struct {
	fields map[string]any
	wrong  error
}

func (r *reader) refuse(format string, args ...any) {
	if r.wrong == nil {
		r.wrong = fmt.Errorf(format, args...)
	}
}

// text is the one text, or number as it is written, that stands under any of
// the names; "" when none is there.
func (r *reader) text(limit int, names ...string) (found string) {
	for _, name := range names {
		var s string
		switch v := r.fields[name].(type) {
		case nil:
		case string:
			s = v
		case json.Number:
			s = v.String()
		default:
			r.refuse("its %s is no text", name)
		}
		switch {
		case s == "":
		case len(s) > limit || !utf8.ValidString(s) || strings.ContainsFunc(s, odd):
			r.refuse("its %s is too long or holds characters that are none", name)
		case found != "" && found != s:
			r.refuse("it says two things of %s", strings.Join(names, " and "))
		default:
			found = s
		}
	}
	return found
}

func odd(c rune) bool { return unicode.IsControl(c) || c > unicode.MaxASCII }

func (r *reader) amount() decimal.NullDecimal {
	v := r.fields["amount"]
	if v == nil {
		return decimal.NullDecimal{}
	}
	amount, err := ParseAmount(v)
	if err != nil {
		r.refuse("its amount %w", err)
		return decimal.NullDecimal{}
	}
	return decimal.NewNullDecimal(amount)
}

// tag also looks into provider_invoice_id, xrp_PAYMENT_TAG, of the same payment.
func (r *reader) tag(payment string) *int64 {
	text := r.text(10, "destination_tag", "tag")
	if m := invoiceForm.FindStringSubmatch(r.text(300, "provider_invoice_id")); len(m) > 1 && m[1] == payment {
		if text != "" && text != m[2] {
			r.refuse("it says two things of destination_tag and provider_invoice_id")
		}
		text = m[2]
	}
	if text == "" {
		return nil
	}
	tag, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		r.refuse("its destination_tag is not a whole number from 0 to 4294967295")
		return nil
	}
	n := int64(tag)
	return &n
}

// page is address when a customer may be sent there, else "".
func page(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || !secure(u) {
		return ""
	}
	return address
}

// maxAmount is the first that does not fit 18 digits before the point.
var maxAmount = decimal.New(1, 18)

// ParseAmount reads an amount as PayQI writes it, in events as in answers: a
// JSON number (json.Number) or a numeric string, exactly, zero or more, at most
// 18 digits before and after the point. Length and exponent are bounded before
// any arithmetic. The error ends a sentence that begins with the field's name.
func ParseAmount(v any) (decimal.Decimal, error) {
	var text string
	switch t := v.(type) {
	case nil:
		return decimal.Zero, errors.New("is missing")
	case json.Number:
		text = t.String()
	case string:
		text = t
	default:
		return decimal.Zero, errors.New("is neither a number nor a numeric string")
	}
	if len(text) > 64 || !amountForm.MatchString(text) {
		return decimal.Zero, errors.New("is not a decimal number of sensible length")
	}
	d, err := decimal.NewFromString(text)
	switch {
	case err != nil:
		return decimal.Zero, errors.New("is not a decimal number")
	case d.IsNegative():
		return decimal.Zero, errors.New("is negative")
	case d.GreaterThanOrEqual(maxAmount), !d.Truncate(18).Equal(d):
		return decimal.Zero, errors.New("has more than 18 digits before or after the point")
	}
	return d.Truncate(18), nil
}
