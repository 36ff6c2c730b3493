package web

import (
	"encoding/json"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"
)

// An amount goes out with two decimals or as many more as it needs.
func TestMoneyOut(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0.00", "10": "10.00", "10.5": "10.50", "10.000": "10.00", "0.000001": "0.000001", "1.230": "1.23",
		"1.2340": "1.234", "100": "100.00", "-5": "-5.00", "-0.5": "-0.50", "1e3": "1000.00", "1e-8": "0.00000001", "123456789012345678.1": "123456789012345678.10",
	} {
		got, err := json.Marshal(struct{ M Money }{Money{decimal.RequireFromString(in)}})
		if err != nil || string(got) != `{"M":"`+want+`"}` {
			t.Errorf("%s is written %s, %v", in, got, err)
		}
	}
}

// Only a string of digits with at most one point is an amount.
func TestMoneyIn(t *testing.T) {
	for _, bad := range []string{
		`10`, `10.00`, `null`, `true`, `{}`, `[]`, `""`, `" 1"`, `"1 "`, `"1\n"`, `"+1"`, `"-1"`, `"1e3"`, `"1E3"`, `".5"`, `"5."`,
		`"1,5"`, `"1,000.00"`, `"0x10"`, `"NaN"`, `"Infinity"`, `"1_000"`, `"١"`, `"1.2.3"`, `"€1"`,
		`"1234567890123456789"`, `"0.1234567890123456789"`,
	} {
		var m Money
		if err := json.Unmarshal([]byte(bad), &m); err == nil || !m.IsZero() {
			t.Errorf("%s was read as %s", bad, m)
		}
	}
	var m Money
	if err := json.Unmarshal([]byte(`"\u0031.50"`), &m); err != nil || m.String() != "1.50" {
		t.Errorf("an escaped digit: %s, %v", m, err)
	}
	var o struct {
		M *Money `json:"m,omitempty"`
	}
	if err := json.Unmarshal([]byte(`{"m":null}`), &o); err != nil || o.M != nil {
		t.Errorf("an optional amount: %v, %v", o.M, err)
	}
}

// What was written reads back as the same amount and writes the same again.
func TestMoneyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.StringMatching(`[0-9]{1,18}(\.[0-9]{1,18})?`).Draw(t, "amount")
		m, err := ParseMoney(in)
		if err != nil || !m.Equal(decimal.RequireFromString(in)) {
			t.Fatalf("%s was read as %s, %v", in, m, err)
		}
		text, _ := json.Marshal(m)
		var back Money
		if err := json.Unmarshal(text, &back); err != nil || !back.Equal(m.Decimal) || back.String() != m.String() {
			t.Fatalf("%s came back as %s, %v", text, back, err)
		}
	})
}
