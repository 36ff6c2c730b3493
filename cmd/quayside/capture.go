package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
)

// capture is a request as somebody has recorded it.
type capture struct {
	header http.Header
	body   []byte   // nil when there is none in it
	notes  []string // what is odd about the recording itself
}

var (
	requestLine = regexp.MustCompile(`^[A-Z]+ \S+ HTTP/\d`)
	headerLine  = regexp.MustCompile(`^([A-Za-z0-9_-]+): ?(.*)$`)
)

// parseCapture reads a whole request as it went over the wire (nc, tcpflow),
// the output of curl -v, or header lines, also as tshark -V prints them.
func parseCapture(text []byte) capture {
	if requestLine.Match(text) {
		return parseRequest(text)
	}
	c := capture{header: http.Header{}}
	lines := strings.Split(string(text), "\n")
	curl := strings.Contains("\n"+string(text), "\n> ") // then < are the answer's headers, * remarks
	for _, l := range lines {
		l = strings.TrimSuffix(l, "\r")
		if curl {
			sent, ours := strings.CutPrefix(l, "> ")
			if !ours {
				continue
			}
			l = sent
		}
		l = strings.TrimSuffix(strings.TrimSpace(l), `\r\n`) // tshark spells the line's end out
		if m := headerLine.FindStringSubmatch(l); m != nil {
			c.header.Add(m[1], strings.Trim(m[2], " \t")) // as HTTP does
		}
	}
	return c
}

// parseRequest reads headers and body. The body ends where Content-Length says,
// so what a recorder adds at the end of its file does no harm.
func parseRequest(text []byte) capture {
	c := capture{header: http.Header{}}
	r := bufio.NewReader(bytes.NewReader(text))
	tp := textproto.NewReader(r)
	_, _ = tp.ReadLine()
	for {
		l, err := tp.ReadLine()
		if l == "" || err != nil {
			break
		}
		if m := headerLine.FindStringSubmatch(l); m != nil {
			c.header.Add(m[1], strings.Trim(m[2], " \t")) // as HTTP does
		}
	}
	body, _ := io.ReadAll(r) // from memory
	if strings.EqualFold(c.header.Get("Transfer-Encoding"), "chunked") {
		if req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text))); err == nil {
			if whole, err := io.ReadAll(req.Body); err == nil {
				body = whole
			}
		}
	}
	if n, err := strconv.Atoi(c.header.Get("Content-Length")); err == nil && n >= 0 {
		if len(body) < n && len(body) > 0 {
			c.notes = append(c.notes, fmt.Sprintf("the recording is cut: it holds %d of the body's %d bytes", len(body), n))
		}
		body = body[:min(n, len(body))]
	}
	if len(body) > 0 || c.header.Get("Content-Length") == "0" {
		c.body = body
	}
	return c
}
