package web

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/shopspring/decimal"

	"quayside/internal/fault"
)

// Money is an amount as the API writes it: a JSON string in plain decimal
// notation, "10.00". What comes in has no sign, no exponent and at most 18
// digits on either side of the point; what goes out has two decimals or as
// many more as it needs. Its currency stands beside it. An optional amount in
// a request is a *Money with omitempty.
type Money struct{ decimal.Decimal }

const moneyPattern = `^[0-9]{1,18}(\.[0-9]{1,18})?$`

var plainAmount = regexp.MustCompile(moneyPattern)

// ParseMoney reads an amount. Errors: Unprocessable (invalid_amount) for any
// other form.
func ParseMoney(s string) (Money, error) {
	if !plainAmount.MatchString(s) {
		return Money{}, fault.New(fault.Unprocessable, "invalid_amount", `must be an amount such as "10.00": digits, and a point before decimals`)
	}
	d, err := decimal.NewFromString(s)
	if err != nil {
		return Money{}, fault.Wrap(fault.Unprocessable, "invalid_amount", err, "must be an amount")
	}
	return Money{d}, nil
}

// String returns the amount with at least two decimals: "10.00", "0.000001".
func (m Money) String() string {
	s := m.Decimal.String()
	whole, decimals, _ := strings.Cut(s, ".")
	decimals = strings.TrimRight(decimals, "0")
	return whole + "." + decimals + strings.Repeat("0", max(2-len(decimals), 0))
}

// Format prints [Money.String] for every verb, where the one of the decimal
// inside would print 10 for 10.00.
func (m Money) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, m.String()) }

// MarshalText returns [Money.String].
func (m Money) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads an amount like [ParseMoney].
func (m *Money) UnmarshalText(text []byte) error {
	parsed, err := ParseMoney(string(text))
	if err == nil {
		*m = parsed
	}
	return err
}

// MarshalJSON returns [Money.String] as a JSON string.
func (m Money) MarshalJSON() ([]byte, error) { return []byte(`"` + m.String() + `"`), nil }

// UnmarshalJSON reads a JSON string like [ParseMoney]; a number or null is refused.
func (m *Money) UnmarshalJSON(data []byte) error {
	var s *string
	if err := json.Unmarshal(data, &s); err != nil || s == nil {
		return fault.New(fault.Unprocessable, "invalid_amount", `must be an amount in a string, such as "10.00"`)
	}
	return m.UnmarshalText([]byte(*s))
}

// Schema describes an amount to OpenAPI and to huma's validation.
func (Money) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: moneyPattern, PatternDescription: `an amount such as "10.00"`,
		Description: "An amount in the currency beside it", Examples: []any{"10.00"},
	}
}
