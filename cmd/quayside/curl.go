package main

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// requestMade is a request as --print and --json show it.
type requestMade struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`                  // the text, "" when it is none
	Bytes   []byte            `json:"body_base64,omitempty"` // of a body that is no text
	Curl    string            `json:"curl,omitempty"`        // with --print
}

func (t *trigger) request(body []byte) requestMade {
	r := requestMade{Method: "POST", URL: t.payqi.url, Headers: map[string]string{"Content-Type": "application/json"}}
	if s := t.payqi.sign(body, t.signature); s != "" {
		r.Headers[signatureHeader] = s
	}
	if s := stamp(t.timestamp); s != "" {
		r.Headers[timestampHeader] = s
	}
	if utf8.Valid(body) {
		r.Body = string(body)
	} else {
		r.Bytes = body
	}
	return r
}

// printRequest prints a request instead of sending it.
func (t *trigger) printRequest(r requestMade, body []byte) error {
	for _, s := range t.secrets {
		if bytes.Contains(body, []byte(s)) {
			return misuse("the body holds a secret of this shop, which is not printed")
		}
	}
	r.Curl = t.curl(r, body)
	if t.asJSON {
		t.sayJSON(struct {
			Request requestMade `json:"request"`
		}{r})
		return nil
	}
	t.say("POST %s\n", r.URL)
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		t.say("%s: %s\n", name, r.Headers[name])
	}
	t.say("\n%s\n\n# The same bytes, to paste into a shell:\n%s\n", legible(body), r.Curl)
	return nil
}

// curl is a command that sends exactly these bytes. The timestamp is not
// signed, so the command takes the time at which it is run.
func (t *trigger) curl(r requestMade, body []byte) string {
	lines := []string{"curl -sS -i " + quoted(r.URL)}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		header := quoted(name + ": " + r.Headers[name])
		if name == timestampHeader && t.timestamp == stampNow {
			header = `"` + name + `: $(date +%s)"`
		}
		lines = append(lines, "-H "+header)
	}
	pipe := ""
	switch file, err := filepath.Abs(t.raw); {
	case t.raw != "" && t.raw != "-" && err == nil:
		lines = append(lines, "--data-binary "+quoted("@"+file))
	case plainText(body) && len(body) < 100_000 && !bytes.HasPrefix(body, []byte("@")): // which curl takes for a file, and Linux for too long
		lines = append(lines, "--data-binary "+quoted(string(body)))
	default:
		pipe = "printf " + printfFormat(body) + " | "
		lines = append(lines, "--data-binary @-")
	}
	return pipe + strings.Join(lines, " \\\n  ")
}

// quoted is a word of a POSIX shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// printfFormat makes printf write exactly these bytes.
func printfFormat(body []byte) string {
	var b strings.Builder
	for _, c := range body {
		switch {
		case c == '%':
			b.WriteString("%%")
		case c < ' ' || c > '~' || c == '\'' || c == '\\':
			_, _ = fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return "'" + b.String() + "'"
}

// plainText reports whether a terminal takes the bytes as they are.
func plainText(body []byte) bool {
	return utf8.Valid(body) && !bytes.ContainsFunc(body, func(r rune) bool { return !unicode.IsPrint(r) })
}

// legible is a body for people: a stranger's control characters do not reach
// the terminal.
func legible(body []byte) string {
	if !utf8.Valid(body) {
		return fmt.Sprintf("(%d bytes that are no text)", len(body))
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '�'
	}, string(body))
}
