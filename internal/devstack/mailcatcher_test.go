//go:build unix

package devstack

import (
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
	contains(t, page, "No mail yet", "shows up here", `http-equiv="refresh"`, "prefers-color-scheme")

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

	_, list := get(t, m.PageURL)
	res, one := get(t, fmt.Sprintf("%smail/%d", m.PageURL, mail.ID))
	for _, page := range []string{list, one} {
		contains(t, page, "&lt;script&gt;alert(1)&lt;/script&gt; € 5 paid", "anna@example.com, bob@example.com")
		if strings.Contains(page, "<script") {
			t.Errorf("script in %s", page)
		}
	}
	contains(t, one, "&lt;/pre&gt;&lt;script&gt;alert(2)", `sandbox="allow-popups`, "Café Quay &lt;shop@example.com&gt;")
	contains(t, res.Header.Get("Content-Security-Policy"), "default-src 'none'")
	if strings.Contains(one, "<b>Paid</b>") {
		t.Error("the mail's HTML is in the page itself")
	}
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
	contains(t, page, "<h1>s</h1>")
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
