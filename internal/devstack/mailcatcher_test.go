//go:build unix

package devstack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"net/textproto"
	"strings"
	"syscall"
	"testing"
	"time"
)

func startCatcher(t *testing.T) *MailCatcher {
	t.Helper()
	m, err := StartMailCatcher(t.Context(), "", "")
	check(t, err)
	t.Cleanup(func() {
		check(t, m.Close())
		http.DefaultClient.CloseIdleConnections()
	})
	return m
}

// send is net/smtp's own client, so both ends are not ours.
func send(m *MailCatcher, raw string) error {
	return smtp.SendMail(strings.TrimPrefix(m.SMTPURL, "smtp://"), nil, "shop@example.com",
		[]string{"anna@example.com", "bob@example.com"}, []byte(strings.ReplaceAll(raw, "\n", "\r\n")))
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	res, err := http.Get(url)
	check(t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	check(t, err)
	return res, string(b)
}

const multipartMail = `From: =?utf-8?q?Caf=C3=A9_Quay?= <shop@example.com>
To: anna@example.com
Subject: =?utf-8?b?PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0PiDigqwgNSBwYWlk?=
Message-ID: <m1@example.com>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Thank you for =E2=82=AC 5. A line that is =
folded. </pre><script>alert(2)</script>
--inner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: base64

PGI+UGFpZDwvYj48c2NyaXB0PmFsZXJ0KDMpPC9zY3JpcHQ+
--inner--
--outer
Content-Type: text/plain
Content-Disposition: attachment; filename=terms.txt

not the text
--outer--
`

// A multipart mail comes out as it went in, and nothing of it can run on the page.
func TestMailRoundTrip(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	_, page := get(t, m.PageURL)
	contains(t, page, "No mail yet", "shows up here", "quayside trigger", `http-equiv="refresh"`, "prefers-color-scheme")

	check(t, send(m, multipartMail))
	mail, err := m.WaitFor(t.Context(), func(mail Mail) bool { return mail.MessageID == "m1@example.com" })
	check(t, err)
	for _, c := range []struct{ what, got, want string }{
		{"from", mail.From, "Café Quay <shop@example.com>"},
		{"to", strings.Join(mail.To, " "), "anna@example.com bob@example.com"},
		{"subject", mail.Subject, "<script>alert(1)</script> € 5 paid"},
		{"text", mail.Text, "Thank you for € 5. A line that is folded. </pre><script>alert(2)</script>"},
		{"html", mail.HTML, "<b>Paid</b><script>alert(3)</script>"},
		{"raw", mail.Raw, strings.ReplaceAll(multipartMail, "\n", "\r\n")},
	} {
		if c.got != c.want {
			t.Errorf("%s is %q, want %q", c.what, c.got, c.want)
		}
	}

	path := fmt.Sprintf("%smail/%d", m.PageURL, mail.ID)
	pages := map[string]string{}
	for _, view := range []string{"", "?view=html", "?view=text", "?view=headers", "?view=source", "?view=phone", "?view=odd"} {
		res, page := get(t, path+view)
		pages[view] = page
		contains(t, page, "&lt;script&gt;alert(1)&lt;/script&gt; € 5 paid", "anna@example.com, bob@example.com", "Café Quay &lt;shop@example.com&gt;")
		contains(t, res.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'sha256-")
		if strings.Count(page, "<script") != 1 || strings.Contains(page, "<b>Paid</b>") {
			t.Errorf("something of the mail could run in %s: %s", view, page)
		}
	}
	for _, view := range []string{"", "?view=html", "?view=phone", "?view=odd"} {
		contains(t, pages[view], `sandbox="allow-popups`)
	}
	contains(t, pages["?view=text"], "&lt;/pre&gt;&lt;script&gt;alert(2)")
	contains(t, pages["?view=headers"], "<dt>Message-ID</dt><dd>&lt;m1@example.com&gt;</dd>", "<dt>From</dt><dd>Café Quay")
	contains(t, pages["?view=source"], "From: =?utf-8?q?Caf=C3=A9_Quay?=", "ZXJ0KDMpPC9zY3JpcHQ")
}

// A mail without HTML, or without text, opens with what it has.
func TestMailWithOnePart(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	check(t, send(m, "Subject: a\nX-Order-ID: 1001\n\nwords"))
	check(t, send(m, "Subject: b\nContent-Type: text/html\n\n<p>words"))
	_, text := get(t, m.PageURL+"mail/1?view=phone")
	_, html := get(t, m.PageURL+"mail/2?view=text")
	contains(t, text, "<pre", "order 1001", "<dt>Order</dt><dd>1001</dd>")
	contains(t, html, "<iframe")
	if strings.Contains(text, "<iframe") || strings.Contains(html, "<pre") {
		t.Error("shows a part that is not there")
	}
}

// A search finds mails with all its words, in any case, wherever they stand,
// and says when there is none.
func TestSearchMails(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	check(t, send(m, "Subject: Order 1001 received\nFrom: Quay <shop@example.com>\nX-Order-ID: 1001\n\nPlease pay."))
	check(t, send(m, "Subject: Order 1002 received\n\nÖlçer & Söhne"))
	for q, want := range map[string]string{
		"": "2 1", "order": "2 1", "RECEIVED+1001": "1", "quay": "1", "bob@example.com": "2 1", "please": "1", "%C3%96L%C3%87ER": "2", "1003": "", "%27%22%3C": "",
	} {
		var list struct{ Messages []Mail }
		_, body := get(t, m.PageURL+"api/messages?q="+q)
		check(t, json.Unmarshal([]byte(body), &list))
		var got []string
		for _, mail := range list.Messages {
			got = append(got, fmt.Sprint(mail.ID))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", q, got, want)
		}
	}
	_, page := get(t, m.PageURL+`?q=%3Cnone%3E`)
	contains(t, page, "None of the 2 mails has “&lt;none&gt;” in it", `value="&lt;none&gt;"`, "0 of 2")
	_, page = get(t, m.PageURL+`mail/1?q=order`)
	contains(t, page, `href="/mail/1?q=order&amp;view=text"`, `href="/mail/2?q=order"`, `href="/?q=order"`)
}

// All mails are deleted by a button or a script, but not by a page from
// elsewhere that is open in the same browser.
func TestDeleteMails(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	ask := func(method, path, from string) int {
		r, err := http.NewRequest(method, m.PageURL+path, nil)
		check(t, err)
		if from != "" {
			r.Header.Set("Sec-Fetch-Site", from)
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		check(t, err)
		check(t, res.Body.Close())
		return res.StatusCode
	}
	for i, c := range []struct {
		method, path, from string
		status, left       int
	}{
		{"POST", "clear", "cross-site", 403, 1},
		{"DELETE", "api/messages", "cross-site", 403, 2},
		{"GET", "clear", "", 405, 3},
		{"POST", "clear", "same-origin", 303, 0},
		{"DELETE", "api/messages", "", 204, 0},
	} {
		check(t, send(m, "Subject: s\n\n"))
		if got, left := ask(c.method, c.path, c.from), len(m.Messages()); got != c.status || left != c.left {
			t.Errorf("%+v: %d, %d left", c, got, left)
		}
		if mails := m.Messages(); c.left > 0 && mails[len(mails)-1].ID != i+1 {
			t.Errorf("numbers begin again: %+v", mails)
		}
	}
	check(t, send(m, "Subject: s\n\n"))
	if got := m.Messages()[0].ID; got != 6 {
		t.Errorf("the next one has number %d", got)
	}
}

// Whoever listens for changes hears of each, and is let go when the catcher ends.
func TestMailChanges(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	res, err := http.Get(m.PageURL + "changes")
	check(t, err)
	defer func() { _ = res.Body.Close() }()
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream; charset=utf-8" {
		t.Errorf("type %s", kind)
	}
	lines := bufio.NewScanner(res.Body)
	hear := func(want string) {
		t.Helper()
		for lines.Scan() && lines.Text() == "" {
		}
		if lines.Text() != want {
			t.Errorf("heard %q, want %q", lines.Text(), want)
		}
	}
	hear(": listening")
	check(t, send(m, "Subject: s\n\n"))
	hear("data: changed")
	m.Clear()
	hear("data: changed")
	check(t, m.Close())
	hear("")
}

// The mail's own HTML is served where it has no origin, no scripts and no network.
func TestMailHTMLIsCaged(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	check(t, send(m, multipartMail))
	res, html := get(t, m.PageURL+"mail/1/html")
	contains(t, html, "<b>Paid</b>")
	policy := res.Header.Get("Content-Security-Policy")
	contains(t, policy, "default-src 'none'", "sandbox allow-popups", "form-action 'none'")
	for _, never := range []string{"script-src", "allow-scripts", "allow-same-origin", "http:", "*"} {
		if strings.Contains(policy, never) {
			t.Errorf("%s in %s", never, policy)
		}
	}
	res, raw := get(t, m.PageURL+"mail/1/raw")
	if kind := res.Header.Get("Content-Type"); kind != "text/plain; charset=utf-8" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("raw as %s", kind)
	}
	contains(t, raw, "Message-ID: <m1@example.com>")
	for _, path := range []string{"mail/2", "mail/x", "mail/0/html", "mail/-1/raw", "elsewhere"} {
		if res, _ := get(t, m.PageURL+path); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s is %s", path, res.Status)
		}
	}
}

// The JSON twin has the newest first, and an empty list when there is none.
func TestMailAPI(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	_, body := get(t, m.PageURL+"api/messages")
	if body != `{"messages":[]}` {
		t.Errorf("empty: %s", body)
	}
	check(t, send(m, "Subject: one\n\nbody"))
	check(t, send(m, "Subject: two\n\nbody"))
	_, body = get(t, m.PageURL+"api/messages")
	var list struct{ Messages []Mail }
	check(t, json.Unmarshal([]byte(body), &list))
	if res, one := get(t, m.PageURL+"api/messages/2"); res.StatusCode != http.StatusOK || !strings.Contains(body, one) {
		t.Errorf("one alone: %s", one)
	}
	if res, _ := get(t, m.PageURL+"api/messages/3"); res.StatusCode != http.StatusNotFound {
		t.Errorf("one that is not there: %s", res.Status)
	}
	if len(list.Messages) != 2 || list.Messages[0].Subject != "two" || list.Messages[1].Text != "body\n" {
		t.Errorf("got %s", body)
	}
}

// Mails that follow no rule are kept all the same.
func TestOddMails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ what, raw, subject, text string }{
		{"no header", "just words", "(unreadable)", "just words"},
		{"no type", "Subject: a\n\nb", "a", "b"},
		{"bad type", "Subject: a\nContent-Type: ;;\n\nb", "a", "b"},
		{"latin 1", "Subject: =?iso-8859-1?q?f=FCr?=\nContent-Type: text/plain; charset=ISO-8859-1\n\nf\xfcr", "für", "für"},
		{"not UTF-8", "Subject: a\xff\n\nb\xff", "a\uFFFD", "b\uFFFD"},
		{"no boundary", "Subject: a\nContent-Type: multipart/mixed\n\nb", "a", ""},
		{"cut short", "Subject: a\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nb", "a", "b"},
		{"bad base64", "Subject: a\nContent-Transfer-Encoding: base64\n\nYg==!!", "a", "b"},
	} {
		if got := parseMail(c.raw); got.Subject != c.subject || got.Text != c.text || got.Raw != c.raw {
			t.Errorf("%s: %+v", c.what, got)
		}
	}
}

// Only the last thousand mails are kept, under numbers that do not change.
func TestOldMailsGo(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	for range keepMails + 5 {
		m.keep(Mail{Subject: "s"})
	}
	mails := m.Messages()
	if len(mails) != keepMails || mails[0].ID != 6 || mails[keepMails-1].ID != keepMails+5 {
		t.Errorf("%d mails, %d to %d", len(mails), mails[0].ID, mails[len(mails)-1].ID)
	}
	_, page := get(t, m.PageURL+"mail/6")
	contains(t, page, "<h2>s</h2>")
}

// WaitFor sees mails that come later, and gives up with its context.
func TestWaitFor(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	check(t, send(m, "Subject: other\n\n"))
	got := make(chan Mail)
	go func() {
		mail, err := m.WaitFor(t.Context(), func(mail Mail) bool { return mail.Subject == "wanted" })
		if err != nil {
			t.Error(err)
		}
		got <- mail
	}()
	check(t, send(m, "Subject: another\n\n"))
	check(t, send(m, "Subject: wanted\n\n"))
	if mail := <-got; mail.ID != 3 {
		t.Errorf("got %+v", mail)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.WaitFor(ctx, func(Mail) bool { return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Every fault is what it says to a client, and is over when it is taken back.
func TestMailFaults(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	code := func(err error) int {
		var smtpErr *textproto.Error
		if errors.As(err, &smtpErr) {
			return smtpErr.Code
		}
		return 0
	}
	for _, c := range []struct {
		name  string
		fault Fault
		is    func(error) bool
		kept  int
	}{
		{"greylist", Greylist, func(err error) bool { return code(err) == 451 }, 0},
		{"reject", Reject, func(err error) bool { return code(err) == 550 }, 0},
		{"refuse", RefuseConnections, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }, 0},
		{"drop after dot", DropAfterDot, func(err error) bool {
			return err != nil && code(err) == 0 && !errors.Is(err, syscall.ECONNREFUSED)
		}, 1},
		{"none", None, func(err error) bool { return err == nil }, 1},
	} {
		before := len(m.Messages())
		check(t, m.SetFault(c.fault))
		if err := send(m, "Subject: "+c.name+"\n\nbody"); !c.is(err) {
			t.Errorf("%s: %v", c.name, err)
		}
		if kept := len(m.Messages()) - before; kept != c.kept {
			t.Errorf("%s: kept %d mails, want %d", c.name, kept, c.kept)
		}
	}
}

// A silent server takes the connection and says nothing; the end of the fault ends the connection.
func TestSilentFault(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	addr := strings.TrimPrefix(m.SMTPURL, "smtp://")
	greeted, err := net.Dial("tcp", addr)
	check(t, err)
	defer func() { _ = greeted.Close() }()
	line := make([]byte, 100)
	n, err := greeted.Read(line)
	check(t, err)
	contains(t, string(line[:n]), "220 ")

	check(t, m.SetFault(Silent))
	check(t, greeted.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := io.ReadAll(greeted); isTimeout(err) {
		t.Error("an old connection lives on")
	}
	conn, err := net.Dial("tcp", addr)
	check(t, err)
	defer func() { _ = conn.Close() }()
	check(t, conn.SetReadDeadline(time.Now().Add(150*time.Millisecond)))
	if n, err := conn.Read(line); n > 0 || !isTimeout(err) {
		t.Errorf("it said %q, %v", line[:n], err)
	}
	check(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	check(t, m.SetFault(None))
	if _, err := conn.Read(line); err == nil || isTimeout(err) {
		t.Errorf("the silent connection is still open: %v", err)
	}
	check(t, send(m, "Subject: a\n\nb"))
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
