package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"quayside/internal/webhooks"
)

// verdict is what verify-signature says.
type verdict struct {
	Accepted bool    `json:"accepted"`
	Status   int     `json:"status"`
	Answer   string  `json:"answer"`
	Label    string  `json:"secret_label"` // of the one that signed it; "" when none did
	Event    string  `json:"event"`        // what it tells; "" unless it is authentic
	Causes   []cause `json:"causes"`       // why it is refused or will not be applied
	Body     string  `json:"body_sha256"`
	Size     int     `json:"body_bytes"`
	Checked  string  `json:"checked_with"` // labels of the secrets
}

// timing is when and how strictly the timestamp is judged.
type timing struct {
	now  time.Time
	mode webhooks.TimestampMode
}

// judge asks the very code that judges webhooks, and explains what it says.
func judge(in webhooks.Options, c capture, q inquiry) verdict {
	adm := in.Admit(c.header, c.body)
	var labels []string
	for _, s := range q.secrets {
		labels = append(labels, labelOf(s))
	}
	v := verdict{
		Accepted: adm.Status == http.StatusOK, Status: adm.Status, Answer: adm.Text, Label: adm.Label, Causes: []cause{},
		Body: fmt.Sprintf("%x", sha256.Sum256(c.body)), Size: len(c.body), Checked: strings.Join(labels, ", "),
	}
	if adm.Event == nil {
		v.Causes = append(v.Causes, whyNotAuthentic(c, q)...)
		for _, n := range c.notes {
			v.Causes = append(v.Causes, cause{n, "record it again, whole"})
		}
		// What else would be wrong once the signature is right?
		h := c.header.Clone()
		h.Set(signatureHeader, webhooks.Sign(q.secrets[0], c.body))
		adm = in.Admit(h, c.body)
		if adm.Event == nil {
			return v
		}
	} else {
		v.Event = tells(adm.Event)
	}
	if adm.Reason != "" {
		v.Causes = append(v.Causes, q.whyTooOld(adm.Reason, c.header.Values(timestampHeader), adm.Event.Created))
	}
	if why := adm.Event.Unreadable; why != "" {
		v.Causes = append(v.Causes, cause{
			"once authentic, it is kept but not applied: " + why, "a person must look at it (case UNREADABLE_EVENT); the sender must mend the event",
		})
	}
	return v
}

// tells says what an authentic event is about.
func tells(e *webhooks.Event) string {
	s := cmp.Or(e.Type, "an event without a type")
	if e.PaymentID != "" {
		s += " of payment " + e.PaymentID
	}
	if e.OrderRef != "" {
		s += " for order " + e.OrderRef
	}
	switch {
	case e.Test():
		s += "; a test event, which touches no order"
	case e.Unreadable == "" && !e.Known():
		s += "; none of PayQI's five types, so it is kept and ignored"
	}
	return s
}

// whyNotAuthentic explains a refusal that no timestamp is the reason for.
func whyNotAuthentic(c capture, q inquiry) []cause {
	if enc := c.header.Values("Content-Encoding"); len(enc) > 1 || len(enc) == 1 && !strings.EqualFold(enc[0], "identity") {
		return []cause{{"the body is compressed (Content-Encoding: " + strings.Join(enc, ", ") + "), and compressed bodies are not taken", "let no proxy compress requests to /webhooks/payqi"}}
	}
	if len(c.body) > webhooks.MaxBody {
		return []cause{{fmt.Sprintf("the body has %d bytes, at most %d are taken", len(c.body), webhooks.MaxBody), "PayQI's own have a few hundred: look at what it holds"}}
	}
	values := c.header.Values(signatureHeader)
	switch len(values) {
	case 0:
		return noSignature(c, q)
	case 1:
		return wrongSignature(values[0], c, q)
	}
	list := []cause{{fmt.Sprintf("the header %s came %d times; it must come once", signatureHeader, len(values)), "look for a proxy or a middleware that adds it again"}}
	for i, value := range values {
		if findSignature(value, c.header, c.body, q) == nil {
			list = append(list, cause{fmt.Sprintf("of these, number %d does not fit in any way", i+1), "keep the other one"})
		}
	}
	return list
}

// noSignature looks for the signature under another name.
func noSignature(c capture, q inquiry) []cause {
	for _, name := range slices.Sorted(maps.Keys(c.header)) {
		if !strings.Contains(strings.ToLower(name), "sign") && !strings.Contains(strings.ToLower(name), "payqi") || strings.Contains(strings.ToLower(name), "time") {
			continue
		}
		list := []cause{{"there is no header " + signatureHeader + ", but one that is called " + name, "send it as " + signatureHeader + "; upper and lower case do not matter, hyphens do"}}
		return append(list, findSignature(c.header[name][0], c.header, c.body, q)...)
	}
	return []cause{{"there is no header " + signatureHeader, "look for a proxy that drops headers it does not know; without it nobody can tell who sent this"}}
}

// wrongSignature explains a signature that does not match.
func wrongSignature(value string, c capture, q inquiry) []cause {
	if value == "" {
		return []cause{{"the signature is empty", "the sender has signed nothing: look at its log"}}
	}
	if list := findSignature(value, c.header, c.body, q); list != nil {
		return list
	}
	if why := senseless(value); why != "" {
		return []cause{{why, "send the 64 hex digits of HMAC-SHA256(secret, body)"}}
	}
	return []cause{{
		"the signature has the right form, but no known mistake explains it: it was made with another secret, or of another body",
		`compare the secrets by their labels, on both sides: printf %s "$PAYQI_WEBHOOK_SECRET" | sha256sum | cut -c1-8; and the bodies by their SHA-256, before anything parses them`,
	}}
}

// senseless says what is wrong with the form of a signature that could not be made sense of.
func senseless(value string) string {
	odd := strings.Trim(strings.ToLower(value), "0123456789abcdef")
	switch n := len(value); {
	case odd != "" && signaturePrefix.MatchString(value):
		return "the signature has the prefix " + signaturePrefix.FindString(value) + ", and what follows does not fit either"
	case odd != "":
		return fmt.Sprintf("the signature %q is not hex", firstRunes(value, 24))
	case n != 64:
		return fmt.Sprintf("the signature has %s, HMAC-SHA256 has 64 in hex", plural(n, "digit"))
	}
	return ""
}

func firstRunes(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

const sendSeconds = "send whole seconds since 1970 in decimal digits, or no timestamp at all"

// whyTooOld explains what is wrong with a timestamp.
func (t timing) whyTooOld(reason string, values []string, created int64) cause {
	switch {
	case len(values) == 0:
		return cause{"there is no header " + timestampHeader + ", and PAYQI_TIMESTAMP is " + string(t.mode), "have the sender add it, or set PAYQI_TIMESTAMP=" + timestampIfPresent}
	case len(values) > 1:
		return cause{fmt.Sprintf("the header %s came %d times; it must come once", timestampHeader, len(values)), "look for a proxy or a middleware that adds it again"}
	}
	text := values[0]
	n, err := strconv.ParseInt(text, 10, 64)
	digits := err == nil && strings.Trim(text, "0123456789") == ""
	for length, unit := range map[int]string{13: "milliseconds", 16: "microseconds", 19: "nanoseconds"} {
		if digits && len(text) == length {
			for range (length - 10) / 3 {
				n /= 1000
			}
			return cause{"the timestamp is in " + unit + ": " + strings.TrimSpace(t.window(time.Unix(n, 0), created).Cause), sendSeconds}
		}
	}
	if reason != "timestamp malformed" {
		return t.window(time.Unix(n, 0), created)
	}
	what := fmt.Sprintf("the timestamp %q is not decimal digits", firstRunes(text, 40))
	if _, err := time.Parse(time.RFC3339, text); err == nil {
		what = fmt.Sprintf("the timestamp %q is a date", text)
	} else if regexp.MustCompile(`^\d+\.\d+$`).MatchString(text) {
		what = fmt.Sprintf("the timestamp %q has a fraction", text)
	} else if digits {
		what = fmt.Sprintf("the timestamp has %s, seconds have 10", plural(len(text), "digit"))
	}
	return cause{what, sendSeconds}
}

// window says how far a time is from now, and whose clock is likely wrong.
func (t timing) window(at time.Time, created int64) cause {
	apart := t.now.Sub(at)
	const allowed = 5 * time.Minute
	if apart.Abs() <= allowed {
		return cause{"in seconds it would be in time", sendSeconds}
	}
	what := fmt.Sprintf("the timestamp is %s in the past, 5 minutes are allowed", apart.Round(time.Second))
	if apart < 0 {
		what = fmt.Sprintf("the timestamp is %s in the future, 5 minutes are allowed", -apart.Round(time.Second))
	}
	signed := time.Unix(created, 0)
	half := apart.Abs().Round(30 * time.Minute)
	switch {
	case created > 0 && signed.Sub(at).Abs() <= allowed && apart > 0:
		return cause{what + "; the event itself was made then, too", "if it was recorded then, judge it as of then with --at " + strconv.FormatInt(at.Unix(), 10) +
			"; if it has just come, it is an old request sent again, or the clock here is ahead"}
	case half > 0 && half <= 14*time.Hour && (apart.Abs()-half).Abs() < 90*time.Second:
		return cause{what + fmt.Sprintf("; that is %s, a time zone: the sender took local time for UTC", strings.TrimSuffix(half.String(), "0s")), "have the sender use Unix time, which has no time zone"}
	case created > 0 && t.now.Sub(signed).Abs() <= allowed:
		return cause{what + "; by its signed time the event is new, so the sender's clock for the header is wrong", "have the sender's clock set by NTP"}
	case apart < 0:
		return cause{what, "the sender's clock is ahead, or the one here is behind: compare both with NTP (timedatectl, chronyc tracking)"}
	}
	return cause{what, "if it was recorded then, judge it as of then with --at " + strconv.FormatInt(at.Unix(), 10) + "; else compare both clocks with NTP (timedatectl, chronyc tracking)"}
}

func (v verdict) print(w io.Writer, p paint) {
	out := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	answer := fmt.Sprintf("%d %s", v.Status, v.Answer)
	switch {
	case v.Accepted:
		out("%s: Quayside would answer %s; signed with secret %s\n", p.good("accepted"), answer, v.Label)
	case v.Label != "":
		out("%s: Quayside would answer %s; the signature is right (secret %s)\n", p.bad("refused"), answer, v.Label)
	default:
		out("%s: Quayside would answer %s\n", p.bad("refused"), answer)
	}
	if v.Event != "" {
		out("  %s\n", legible([]byte(v.Event)))
	}
	for i, c := range v.Causes {
		also := "cause"
		if i > 0 {
			also = "also "
		}
		out("\n  %s  %s\n  mend   %s\n", p.warn(also), legible([]byte(c.Cause)), legible([]byte(c.Mend)))
	}
	out("\n%s\n", p.faint(fmt.Sprintf("checked with secret %s; the body has %s, SHA-256 %s", v.Checked, plural(v.Size, "byte"), v.Body)))
}
