package notify

import (
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"quayside/internal/fault"
)

// The longest that RFC 5321 lets an address and its part before the @ be, in bytes.
const (
	maxAddressBytes = 254
	maxLocalBytes   = 64
)

// domains are what DNS can name, once written in ASCII; one label is enough.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// ValidAddress checks that s is exactly one plain e-mail address, to which a
// letter can be sent as it stands: name@domain without a display name, quotes
// or comments. Letters of any language are welcome on both sides of the @.
// Its errors are Unprocessable and say what to mend.
func ValidAddress(s string) error {
	_, err := wireAddress(s)
	return err
}

// ValidFrom checks a sender such as MAIL_FROM: a plain address, or a name
// with one in angle brackets.
func ValidFrom(s string) error {
	_, err := parseFrom(s)
	return err
}

func parseFrom(s string) (*mail.Address, error) {
	a, err := mail.ParseAddress(s)
	if err != nil || strings.ContainsFunc(s, unprintable) {
		return nil, badAddress("MAIL_FROM is not a sender such as shop@example.com or Our Shop <shop@example.com>")
	}
	wire, err := wireAddress(a.Address)
	if err != nil {
		return nil, err
	}
	return &mail.Address{Name: a.Name, Address: wire}, nil
}

// wireAddress is s as the mail server is told: with the domain in ASCII.
func wireAddress(s string) (string, error) {
	at := strings.LastIndexByte(s, '@')
	switch {
	case s == "":
		return "", badAddress("an e-mail address is needed, such as name@example.com")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unprintable):
		return "", badAddress("the e-mail address contains invisible or control characters: remove them")
	case strings.ContainsFunc(s, unicode.IsSpace):
		return "", badAddress("the e-mail address contains a space: remove it")
	case strings.ContainsAny(s, ",;"):
		return "", badAddress("give one e-mail address only, without , or ;")
	case strings.ContainsAny(s, `<>"()\`):
		return "", badAddress("give the plain e-mail address, without a name, quotes or brackets")
	case at < 1 || at == len(s)-1:
		return "", badAddress("an e-mail address has the form name@example.com")
	case len(s) > maxAddressBytes || at > maxLocalBytes:
		return "", badAddress("the e-mail address is too long: at most %d bytes before the @ and %d in all", maxLocalBytes, maxAddressBytes)
	}
	domain, err := domains.ToASCII(s[at+1:])
	if err != nil {
		return "", badAddress("the part of the e-mail address after the @ is not a domain such as example.com")
	}
	wire := s[:at] + "@" + domain
	if a, err := mail.ParseAddress(wire); err != nil || a.Address != wire || a.Name != "" || len(wire) > maxAddressBytes {
		return "", badAddress("this is not an e-mail address such as name@example.com: look for doubled dots and odd signs")
	}
	return wire, nil
}

// unprintable finds control, format (bidi overrides, zero width) and private characters.
func unprintable(r rune) bool {
	return !unicode.IsGraphic(r) || r == utf8.RuneError || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r)
}

func badAddress(format string, args ...any) error {
	return fault.New(fault.Unprocessable, "invalid_email", format, args...)
}
