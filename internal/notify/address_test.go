package notify

import (
	"strings"
	"testing"

	"quayside/internal/fault"
)

// Exactly one plain address is accepted; what could smuggle in a second
// recipient, a command or a header is refused, with a sentence on what to mend.
func TestAddresses(t *testing.T) {
	for _, s := range []string{
		"ada@example.com", "a.b+c_d-e@mail.example.co.uk", "x@localhost", "kunde@müller.example", "δοκιμή@παράδειγμα.ελ",
		"o'brien@example.com", strings.Repeat("a", 64) + "@example.com",
	} {
		if err := ValidAddress(s); err != nil {
			t.Errorf("%q refused: %v", s, err)
		}
	}
	for _, s := range []string{
		"", " ", "ada", "@example.com", "ada@", "ada@@example.com", "a@b@example.com", "ada@example.com ", " ada@example.com",
		"ada@example.com\r\nBcc: evil@example.com", "ada@example.com\x00", "a\tb@example.com", "ada@example.com\n",
		"a@example.com,b@example.com", "a@example.com;b@example.com", "Ada <ada@example.com>", "<ada@example.com>",
		`"a b"@example.com`, "\"a\r\nRCPT TO:<x@y>\"@example.com", "ada@example.com (Ada)", "ada@[127.0.0.1]", "a..b@example.com",
		".a@example.com", "a.@example.com", "ada@example..com", "ada@-example.com", "ada@example.com.", "ada@exa mple.com",
		"ada\u202e@example.com", "ada\u200b@example.com", "ada@ex\xffample.com", "\xff@example.com", "ada@" + strings.Repeat("a", 64) + ".com",
		strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("abcdefghi.", 25) + "example", "ada@exa_mple.com", `a\b@example.com`,
	} {
		err := ValidAddress(s)
		if fault.KindOf(err) != fault.Unprocessable {
			t.Errorf("%q: %v", s, err)
		}
		if err != nil && len(s) > 15 && strings.Contains(err.Error(), s) {
			t.Errorf("the error repeats the address: %v", err)
		}
	}
}

// An international domain is spoken to the server in ASCII.
func TestDomainOnTheWire(t *testing.T) {
	if got, err := wireAddress("kunde@Müller.example"); err != nil || got != "kunde@xn--mller-kva.example" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSenders(t *testing.T) {
	for _, s := range []string{"shop@example.com", "Our Shop <shop@example.com>", `"Quay, Sons" <shop@example.com>`} {
		if err := ValidFrom(s); err != nil {
			t.Errorf("%q refused: %v", s, err)
		}
	}
	for _, s := range []string{"", "Our Shop", "a@example.com, b@example.com", "Shop\r\nBcc: x <shop@example.com>", `"a b"@example.com`} {
		if err := ValidFrom(s); fault.KindOf(err) != fault.Unprocessable {
			t.Errorf("%q: %v", s, err)
		}
	}
}
