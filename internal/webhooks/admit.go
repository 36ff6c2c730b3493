package webhooks

import (
	"net/http"
	"strings"
	"time"
)

// Admission is what is decided about a request before anything is stored: all
// that Receive knows of it, also for tools that explain a captured one.
type Admission struct {
	Status int
	Text   string // of the answer, as PayQI reads it; for one taken in it may still turn out to be known
	Reason string // why it is refused, or authentic but not in time; "" for one taken in
	Label  string // of the secret that signed it; "" when none did
	Event  *Event // nil unless it is authentic

	answer answer
}

// Admit judges a request by its headers and raw body.
func (o Options) Admit(h http.Header, body []byte) Admission {
	if coded(h) {
		return refuse(compressed, "the body is compressed")
	}
	if len(body) > MaxBody {
		return refuse(tooLarge, "the body is too large")
	}
	signatures := h.Values("X-Payqi-Signature")
	if len(signatures) != 1 {
		return refuse(badSignature, []string{"signature missing", "signature sent twice"}[min(len(signatures), 1)])
	}
	label, ok := o.Verifier.Verify(body, signatures[0])
	if !ok {
		return refuse(badSignature, "signature does not match")
	}
	a := Admission{answer: stored, Label: label, Event: parseEvent(body)}
	if stale := o.Timestamp.check(h.Values("X-Payqi-Timestamp"), o.now()); stale != "" {
		a.answer, a.Reason = tooOld, stale
	}
	a.Status, a.Text = a.answer.status, a.answer.text
	return a
}

func (o Options) now() time.Time {
	if o.Clock == nil {
		return time.Now()
	}
	return o.Clock()
}

func refuse(a answer, reason string) Admission {
	return Admission{Status: a.status, Text: a.text, Reason: reason, answer: a}
}

// coded reports whether the body went through an encoding, which no signature covers.
func coded(h http.Header) bool {
	enc := h.Values("Content-Encoding")
	return len(enc) > 1 || (len(enc) == 1 && !strings.EqualFold(enc[0], "identity"))
}

// KeysOf returns the keys under which body would be kept: its own, and the one
// it gets beside another body with the same id. /api/v1/events/{id} takes both.
func KeysOf(body []byte) (own, contradiction string) {
	d := delivery{Event: parseEvent(body)}
	return d.Key, d.contradictionKey()
}
