// Package webhooks receives PayQI's signed events, keeps each of them once,
// byte for byte, and applies it to the order it speaks of.
//
// Source for the wire format: docs/payqi-webhook-guide.txt.
package webhooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"
)

// MinSecret is the fewest bytes a webhook secret may have. HMAC takes an empty
// key without complaint, and would then accept what anybody signs.
const MinSecret = 16

// Verifier checks X-PayQI-Signature: hex(HMAC-SHA256(secret, raw body))
// (guide, "Signature Verification"). Several secrets may be active, for rotation.
type Verifier struct{ secrets []*secret }

type secret struct {
	label string    // first 8 hex digits of its SHA-256: names it without telling it
	macs  sync.Pool // keyed hash.Hash, ready for use
}

// NewVerifier takes the active secrets, literally: a whsec_ prefix is part of
// the secret and nothing is decoded. Errors: none given, or one too short.
func NewVerifier(secrets ...string) (*Verifier, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no webhook secret")
	}
	v := &Verifier{}
	for _, s := range secrets {
		if len(s) < MinSecret {
			return nil, fmt.Errorf("a webhook secret has %d bytes, at least %d are needed", len(s), MinSecret)
		}
		key := []byte(s)
		v.secrets = append(v.secrets, &secret{
			label: Label(s),
			macs:  sync.Pool{New: func() any { return hmac.New(sha256.New, key) }},
		})
	}
	return v, nil
}

// Verify returns the label of the secret that signed body. Every secret is
// tried, whichever fits, so that the time taken tells nothing.
func (v *Verifier) Verify(body []byte, signature string) (label string, ok bool) {
	var given [sha256.Size]byte
	if len(signature) != hex.EncodedLen(len(given)) {
		return "", false
	}
	if _, err := hex.Decode(given[:], []byte(signature)); err != nil {
		return "", false
	}
	for _, s := range v.secrets {
		var want [sha256.Size]byte
		mac, _ := s.macs.Get().(hash.Hash)
		mac.Reset()
		mac.Write(body)
		mac.Sum(want[:0])
		s.macs.Put(mac)
		if hmac.Equal(given[:], want[:]) {
			label, ok = s.label, true
		}
	}
	return label, ok
}

// Label names a secret without telling it; events carry that of the one that
// signed them.
func Label(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:4])
}

// Sign is what PayQI does, for the tools that play PayQI.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// TimestampMode says what to make of X-PayQI-Timestamp. The signature does not
// cover it, so it stops accidents only; the event id stops replays.
type TimestampMode string

// The modes. The guide's first examples and its curl call send no timestamp,
// so absent is accepted unless the shop asks for more.
const (
	TimestampIfPresent TimestampMode = "if-present"
	TimestampRequired  TimestampMode = "required"
	TimestampOff       TimestampMode = "off"
)

// maxSkew is the sender's own window (guide, "Replay Attacks").
const maxSkew = 5 * time.Minute

// check returns why the timestamp headers are refused, or "".
func (m TimestampMode) check(headers []string, now time.Time) string {
	switch {
	case m == TimestampOff:
		return ""
	case len(headers) == 0 && m == TimestampRequired:
		return "timestamp missing"
	case len(headers) == 0:
		return ""
	case len(headers) > 1:
		return "timestamp sent twice"
	}
	text := headers[0]
	if len(text) == 0 || len(text) > 12 { // 13 digits would be milliseconds
		return "timestamp malformed"
	}
	var seconds int64
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return "timestamp malformed"
		}
		seconds = seconds*10 + int64(c-'0')
	}
	if now.Sub(time.Unix(seconds, 0)).Abs() > maxSkew {
		return "timestamp outside the window of 5 minutes"
	}
	return ""
}
