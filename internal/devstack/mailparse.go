package devstack

import (
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
)

// parseMail reads what it can; what it cannot read is still in Raw.
func parseMail(raw string) Mail {
	out := Mail{Raw: raw}
	msg, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		out.Subject, out.Text = "(unreadable)", clean(raw)
		return out
	}
	out.From = decodeWords(msg.Header.Get("From"))
	out.Subject = decodeWords(msg.Header.Get("Subject"))
	out.MessageID = clean(strings.Trim(msg.Header.Get("Message-Id"), " <>"))
	out.Order = clean(msg.Header.Get("X-Order-Id"))
	out.readPart(textproto.MIMEHeader(msg.Header), msg.Body, 0)
	return out
}

// readPart takes the first text/plain and the first text/html of a message; attachments stay in Raw.
func (m *Mail) readPart(h textproto.MIMEHeader, body io.Reader, depth int) {
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		kind = "text/plain" // RFC 2045, 5.2
	}
	if place, _, err := mime.ParseMediaType(h.Get("Content-Disposition")); err == nil && place == "attachment" {
		return
	}
	const maxDepth = 10
	if strings.HasPrefix(kind, "multipart/") && depth < maxDepth {
		for parts := multipart.NewReader(body, params["boundary"]); ; {
			part, err := parts.NextRawPart()
			if err != nil {
				return // the end, or as far as it can be read
			}
			m.readPart(part.Header, part, depth+1)
		}
	}
	switch {
	case kind == "text/plain" && m.Text == "":
		m.Text = decodeBody(h, params["charset"], body)
	case kind == "text/html" && m.HTML == "":
		m.HTML = decodeBody(h, params["charset"], body)
	}
}

// decodeBody returns as much of a broken body as there is.
func decodeBody(h textproto.MIMEHeader, charset string, body io.Reader) string {
	switch strings.ToLower(strings.TrimSpace(h.Get("Content-Transfer-Encoding"))) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	b, _ := io.ReadAll(body)
	text := strings.ReplaceAll(string(b), "\r\n", "\n")
	if strings.EqualFold(charset, "iso-8859-1") {
		return latin1(text)
	}
	return clean(text)
}

// latin1 reads every byte as the code point of the same number.
func latin1(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

// decodeWords reads RFC 2047's =?utf-8?q?…?= in a header.
func decodeWords(s string) string {
	var d mime.WordDecoder
	if out, err := d.DecodeHeader(s); err == nil {
		s = out
	}
	return clean(s)
}

// header is one line of a mail's head, unfolded and decoded.
type header struct{ Name, Value string }

// readHeaders lists the head of a mail in its order; what is no header is left out.
func readHeaders(raw string) (all []header) {
	for line := range strings.Lines(raw) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		switch {
		case line[0] == ' ' || line[0] == '\t':
			if len(all) > 0 {
				all[len(all)-1].Value += " " + strings.TrimSpace(line)
			}
		case ok:
			all = append(all, header{name, strings.TrimSpace(value)})
		}
	}
	for i := range all {
		all[i].Name, all[i].Value = clean(all[i].Name), decodeWords(all[i].Value)
	}
	return all
}

func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
