package main

import (
	"crypto/hmac"
	"crypto/md5"  //nolint:gosec // to recognise a sender that uses it
	"crypto/sha1" //nolint:gosec // to recognise a sender that uses it
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// cause is one thing that is wrong, and what to do about it.
type cause struct {
	Cause string `json:"cause"`
	Mend  string `json:"mend"`
}

// guess is one way in which a part of the signature may have been made.
type guess struct {
	bytes []byte
	cause *cause // nil when it is the right way
	cost  int    // the cheapest explanation is given
}

// findSignature looks for the way in which the signature was made after all.
// Every form of the value is compared with every digest of every secret and
// body; nil when none of them fits.
func findSignature(value string, h http.Header, body []byte, q inquiry) []cause {
	forms, secrets, bodies := signatureForms(value), q.secretGuesses(), bodyGuesses(body, value, h)
	var best []cause
	least := 100
	for _, dg := range digests {
		for _, s := range secrets {
			for _, b := range bodies {
				if dg.cost > 0 && b.cost > 1 {
					continue // a rare digest of a rewritten body: too far from the truth to look for
				}
				mac := dg.of(s.bytes, b.bytes)
				for _, f := range forms {
					cost := dg.cost + s.cost + b.cost + f.cost
					if cost < least && f.fits(mac) {
						best, least = collect(f.cause, dg.cause, s.cause, b.cause), cost
					}
				}
			}
		}
	}
	return best
}

func collect(causes ...*cause) (list []cause) {
	for _, c := range causes {
		if c != nil {
			list = append(list, *c)
		}
	}
	return list
}

// digest is a way to make a signature from secret and body.
type digest struct {
	of    func(secret, body []byte) []byte
	cause *cause
	cost  int
}

func keyed(h func() hash.Hash) func(secret, body []byte) []byte {
	return func(secret, body []byte) []byte {
		m := hmac.New(h, secret)
		m.Write(body)
		return m.Sum(nil)
	}
}

const useSHA256 = "sign with HMAC-SHA256"

var digests = []digest{
	{keyed(sha256.New), nil, 0},
	{keyed(sha1.New), &cause{"the digest is HMAC-SHA1", useSHA256}, 1},
	{keyed(sha512.New), &cause{"the digest is HMAC-SHA512", useSHA256}, 1},
	{keyed(sha512.New384), &cause{"the digest is HMAC-SHA384", useSHA256}, 1},
	{keyed(md5.New), &cause{"the digest is HMAC-MD5", useSHA256}, 1},
	{plain(func(_, b []byte) []byte { return b }), &cause{"it is the plain SHA-256 of the body, without any secret", useSHA256 + " and the webhook secret as its key"}, 1},
	{plain(func(s, b []byte) []byte { return slices.Concat(s, b) }), &cause{"it is the SHA-256 of secret and body written together", useSHA256 + ": the secret is its key, not a part of the text"}, 1},
	{plain(func(s, b []byte) []byte { return slices.Concat(b, s) }), &cause{"it is the SHA-256 of body and secret written together", useSHA256 + ": the secret is its key, not a part of the text"}, 1},
}

func plain(join func(secret, body []byte) []byte) func(secret, body []byte) []byte {
	return func(secret, body []byte) []byte {
		sum := sha256.Sum256(join(secret, body))
		return sum[:]
	}
}

// form is what the signature's value may stand for.
type form struct {
	mac   []byte // whole; or
	start string // the first hex digits of one
	cause *cause
	cost  int
}

func (f form) fits(mac []byte) bool {
	if f.start != "" {
		return strings.HasPrefix(hex.EncodeToString(mac), f.start)
	}
	return hmac.Equal(f.mac, mac)
}

var signaturePrefix = regexp.MustCompile(`^(?i)(?:t=\d+,\s*v1=|(?:hmac-)?sha-?(?:1|256|384|512)\s*[=:]\s*|v\d[=,:]\s*|0x|hex[:=]\s*|base64[:=]\s*|signature[:=]\s*)`)

// signatureForms are the readings of a value, the plain one first.
func signatureForms(value string) (list []form) {
	list = readings(value, nil, 0)
	if bare := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\n\"'`;,", r) {
			return -1
		}
		return r
	}, value); bare != value && !strings.Contains(value, "=") {
		list = append(list, readings(bare, &cause{"the signature has spaces, quotes or line breaks in it", "send the 64 hex digits and nothing else"}, 1)...)
	}
	if p := signaturePrefix.FindString(strings.Trim(value, `"' `)); p != "" {
		rest := strings.TrimSpace(strings.Trim(value, `"' `)[len(p):])
		list = append(list, readings(rest, &cause{"the signature has the prefix " + strings.TrimSpace(p), "send the 64 hex digits without it: Quayside takes none"}, 1)...)
	}
	if u, err := url.PathUnescape(value); err == nil && u != value {
		list = append(list, readings(u, &cause{"the signature is percent-encoded", "send it as it is: a header needs no encoding"}, 1)...)
	}
	return list
}

// readings are what a value without decoration can be.
func readings(value string, decoration *cause, cost int) (list []form) {
	add := func(mac []byte, c *cause, more int) {
		if decoration != nil && c != nil {
			c = &cause{decoration.Cause + "; " + c.Cause, decoration.Mend + "; " + c.Mend}
		} else if c == nil {
			c = decoration
		}
		list = append(list, form{mac: mac, cause: c, cost: cost + more})
	}
	lower := strings.ToLower(value)
	isHex := strings.Trim(lower, "0123456789abcdef") == ""
	if b, err := hex.DecodeString(value); err == nil {
		add(b, nil, 0)
	}
	for _, enc := range []struct {
		*base64.Encoding
		name string
	}{
		{base64.StdEncoding, "base64"},
		{base64.RawStdEncoding, "base64 without its = at the end"},
		{base64.URLEncoding, "base64url"}, // only where - or _ tell it from base64
		{base64.RawURLEncoding, "base64url without its = at the end"},
	} {
		b, err := enc.DecodeString(value)
		if err != nil || len(b) < 16 {
			continue
		}
		c := &cause{"the signature is " + enc.name + ", Quayside takes hex", "write the digest as 64 hex digits: hexdigest() in Python, digest('hex') in Node"}
		add(b, c, 1)
		if inner, err := hex.DecodeString(string(b)); err == nil {
			add(inner, &cause{"the signature is hex that was encoded in base64 once more", "send the hex digits as they are"}, 1)
		}
	}
	whole := hex.EncodedLen(sha256.Size)
	switch n := len(value); {
	case isHex && n >= 8 && n < whole:
		c := cause{"the signature is cut: it has " + plural(n, "digit") + " of 64", "look for what shortens it: a column, a log, a line length"}
		list = append(list, form{start: lower, cause: &c, cost: cost + 1})
	case n > whole && strings.Trim(lower[:whole], "0123456789abcdef") == "":
		b, err := hex.DecodeString(value[:whole])
		if err == nil {
			add(b, &cause{"the signature has " + plural(n-whole, "letter") + " behind its 64 digits", "send the 64 hex digits and nothing else"}, 1)
		}
	}
	return list
}

// inquiry is what is known besides the request.
type inquiry struct {
	secrets, old []string
	timing
}

// secretGuesses are the keys that may have been used, the right ones first.
func (q inquiry) secretGuesses() (list []guess) {
	const sender = "the sender signs with "
	add := func(key string, cost int, what, mend string) {
		list = append(list, guess{[]byte(key), &cause{sender + what, mend}, cost})
	}
	for _, s := range q.secrets {
		list = append(list, guess{[]byte(s), nil, 0})
	}
	for _, s := range q.old {
		add(s, 1, "a secret that is not in use here any more (label "+labelOf(s)+")", "give the sender the new one, or add the old one to PAYQI_WEBHOOK_SECRET behind a comma while both are in use")
	}
	for _, s := range slices.Concat(q.secrets, q.old) {
		for suffix, what := range map[string]string{"\n": "a line break", "\r\n": "a line break of Windows (CR LF)", "\r": "a carriage return", " ": "a space"} {
			add(s+suffix, 1, "the secret and "+what+" behind it", "strip what it reads from a file or a variable: .strip() in Python, .trim() in JavaScript, printf instead of echo in a shell")
		}
		add(strings.TrimSpace(s), 1, "the secret without the spaces or line breaks that it has here", "remove them from the file or setting here")
		for _, q := range []string{`"`, `'`} {
			add(q+s+q, 1, "the secret in quotes", "take the quotes out of the sender's setting")
			add(strings.Trim(s, q), 1, "the secret without the quotes that it has here", "take the quotes out of the file or setting here")
		}
		bare, has := strings.CutPrefix(s, "whsec_")
		if has {
			add(bare, 1, "the secret without its whsec_", "use the secret whole: whsec_ is a part of it")
		}
		for _, text := range []string{s, bare} {
			for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
				if b, err := enc.DecodeString(text); err == nil {
					add(string(b), 1, "the secret decoded from base64", "use the letters of the secret as they are, and decode nothing")
				}
			}
			if b, err := hex.DecodeString(text); err == nil {
				add(string(b), 1, "the secret decoded from hex", "use the letters of the secret as they are, and decode nothing")
			}
		}
	}
	for _, nothing := range []string{"", "null", "undefined", "None"} {
		add(nothing, 2, "the empty secret, or the word for none ("+quotedOr(nothing)+")", "its setting is not read: look at the name of the variable and whether it is exported")
	}
	for _, example := range exampleSecrets {
		add(example, 2, "an example secret from documentation", "copy the secret from PayQI's dashboard, Settings > Webhooks")
	}
	return list
}

func quotedOr(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// labelOf is how Quayside names a secret.
func labelOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// rawBody is what to do when a body was changed after it had been signed.
const rawBody = "sign and send the same bytes, and hand on the raw body: nothing in between may parse it, print it anew or convert it"

// bodyGuesses are the texts that may have been signed, the body itself first.
func bodyGuesses(body []byte, signature string, h http.Header) (list []guess) {
	seen := map[string]bool{}
	add := func(text []byte, cost int, what, mend string) {
		if seen[string(text)] {
			return
		}
		seen[string(text)] = true
		g := guess{bytes: text, cost: cost}
		if what != "" {
			g.cause = &cause{what, mend}
		}
		list = append(list, g)
	}
	add(body, 0, "", "")
	text := string(body)
	add([]byte(text+"\n"), 1, "a line break at the end of the body was signed and is not here", rawBody)
	add([]byte(text+"\r\n"), 1, "a line break at the end of the body was signed and is not here", rawBody)
	add([]byte(strings.TrimRight(text, "\r\n")), 1, "a line break was added at the end of the body after it was signed", rawBody+" (curl: --data-binary, not --data; echo -n or printf)")
	add([]byte(strings.TrimSpace(text)), 1, "spaces or line breaks were added around the body after it was signed", rawBody)
	add([]byte(strings.ReplaceAll(text, "\r\n", "\n")), 1, "the line ends of the body were changed from LF to CR LF after it was signed", rawBody)
	add([]byte(strings.ReplaceAll(text, "\n", "\r\n")), 1, "the line ends of the body were changed from CR LF to LF after it was signed", rawBody)
	add([]byte(strings.ReplaceAll(text, "\n", "")), 1, "line breaks were added to the body after it was signed, or taken out (curl --data does that)", rawBody)
	add([]byte(strings.TrimPrefix(text, "\uFEFF")), 1, "a byte order mark was put before the body after it was signed", rawBody)
	add([]byte("\uFEFF"+text), 1, "a byte order mark before the body was signed and is not here", rawBody)
	const only = "sign the raw body and nothing else"
	for _, ts := range slices.Concat(h.Values(timestampHeader), signedTime.FindStringSubmatch(signature)) {
		add([]byte(ts+"."+text), 1, "timestamp, dot and body were signed together, as Stripe does", only)
		add([]byte(ts+text), 1, "timestamp and body were signed together", only)
	}
	add(nil, 2, "nothing was signed: the sender's body was empty when it signed", "sign after the body is made; a stream can be read only once")
	add([]byte(hex.EncodeToString(body)), 2, "the body was signed as hex", only)
	add([]byte(base64.StdEncoding.EncodeToString(body)), 2, "the body was signed as base64", only)
	add([]byte(latin1(body)), 1, "the letters of the body were converted to UTF-8 twice", rawBody)
	if n, ok := parseNode(body); ok {
		for _, s := range styles() {
			add(s.write(n), 2, "the body was parsed and written anew after it was signed; signed was the same JSON "+s.name, rawBody)
		}
		if inner, is := n.scalar.(string); is {
			add([]byte(inner), 1, "the body was wrapped into a JSON string after it was signed", rawBody)
		}
	}
	return list
}

var signedTime = regexp.MustCompile(`\bt=(\d+)`)

// latin1 undoes one conversion from Latin-1 to UTF-8 that was too many.
func latin1(body []byte) string {
	b := make([]byte, 0, len(body))
	for _, r := range string(body) {
		if r > 0xFF {
			return string(body)
		}
		b = append(b, byte(r)) //nolint:gosec // it fits: see above
	}
	if !utf8.Valid(b) {
		return string(body)
	}
	return string(b)
}
