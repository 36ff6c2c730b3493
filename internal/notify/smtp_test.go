package notify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"quayside/internal/devstack"
	"quayside/internal/fault"
)

// What an answer means depends on how far the conversation came.
func TestClassify(t *testing.T) {
	reply := func(code int) error {
		return fmt.Errorf("smtp: %w", &textproto.Error{Code: code, Msg: "x"})
	}
	for _, c := range []struct {
		stage Stage
		err   error
		want  Outcome
	}{
		{atDot, nil, Accepted},
		{atDot, reply(251), Accepted}, // accepted, only not with a plain 250
		{atCompose, errors.New("no template"), Refused},
		{atConnect, errors.New("connection refused"), NotSent},
		{atGreet, io.EOF, NotSent},
		{atGreet, reply(421), NotSent},
		{atGreet, reply(554), Deferred}, // refuses us: every letter would be lost
		{atGreet, reply(535), Deferred}, // wrong password
		{atFrom, reply(553), Deferred},  // sender not allowed
		{atFrom, reply(451), Deferred},
		{atTo, reply(451), Deferred},
		{atTo, reply(530), Deferred}, // login wanted
		{atTo, reply(421), NotSent},
		{atTo, reply(550), Refused},
		{atTo, io.EOF, NotSent},
		{atData, reply(552), Refused},
		{atData, reply(452), Deferred},
		{atData, io.ErrUnexpectedEOF, NotSent}, // without a dot there is no letter
		{atDot, reply(554), Refused},
		{atDot, reply(451), Deferred},
		{atDot, reply(421), NotSent}, // the server says that it did not take it
		{atDot, io.EOF, Ambiguous},
		{atDot, context.DeadlineExceeded, Ambiguous},
		{atDot, textproto.ProtocolError("short response"), Ambiguous},
	} {
		if got := classify(c.stage, c.err); got.Outcome != c.want {
			t.Errorf("%s, %v: %s, want %s", c.stage, c.err, got.Outcome, c.want)
		}
	}
}

func message(to string) Message {
	return Message{
		From: "shop@example.com", FromName: "Quay & Söhne", To: to, MessageID: "letter-1@example.com", OrderID: "12\r\nBcc: evil@example.com",
		Subject: "Order 12: päid\r\nBcc: evil@example.com", Text: "Hello\n.\nBcc: x\n", HTML: "<p>Hello</p>",
	}
}

func catcher(t *testing.T) *devstack.MailCatcher {
	t.Helper()
	c, err := devstack.StartMailCatcher(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// hasty is a sender that gives up within moments.
func hasty(t *testing.T, address string) *SMTP {
	t.Helper()
	s, err := NewSMTP(address)
	if err != nil {
		t.Fatal(err)
	}
	s.dialTimeout, s.commandTimeout, s.dotTimeout = time.Second, 200*time.Millisecond, 200*time.Millisecond
	return s
}

// A letter arrives whole, once, with both parts and no header of a stranger's.
func TestSend(t *testing.T) {
	c := catcher(t)
	s, err := NewSMTP(c.SMTPURL)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Send(t.Context(), message("kunde@müller.example")); r.Outcome != Accepted || r.Err != nil {
		t.Fatalf("%+v", r)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	mails := c.Messages()
	if len(mails) != 1 {
		t.Fatalf("%d mails", len(mails))
	}
	m := mails[0]
	if m.MessageID != "letter-1@example.com" || m.Text != "Hello\n.\nBcc: x\n" || m.HTML != "<p>Hello</p>" ||
		len(m.To) != 1 || m.To[0] != "kunde@xn--mller-kva.example" || m.From != "Quay & Söhne <shop@example.com>" ||
		m.Subject != "Order 12: päid Bcc: evil@example.com" {
		t.Errorf("%+v", m)
	}
	raw, err := mail.ReadMessage(strings.NewReader(m.Raw))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All", "X-Order-Id": "12 Bcc: evil@example.com", "Bcc": "", "X-Mailer": "", "User-Agent": ""} {
		if got := raw.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if raw.Header.Get("Date") == "" {
		t.Error("no Date")
	}
}

// Every way in which a server goes wrong is told apart.
func TestServerFaults(t *testing.T) {
	c := catcher(t)
	s := hasty(t, c.SMTPURL)
	for _, f := range []struct {
		fault devstack.Fault
		want  Outcome
		stage Stage
		code  int
		kept  int
	}{
		{devstack.RefuseConnections, NotSent, atConnect, 0, 0},
		{devstack.Silent, NotSent, atGreet, 0, 0},
		{devstack.Greylist, Deferred, atTo, 451, 0},
		{devstack.Reject, Refused, atTo, 550, 0},
		{devstack.DropAfterDot, Ambiguous, atDot, 0, 1},
		{devstack.None, Accepted, atDot, 0, 2},
	} {
		if err := c.SetFault(f.fault); err != nil {
			t.Fatal(err)
		}
		r := s.Send(t.Context(), message("ada@example.com"))
		if r.Outcome != f.want || r.Stage != f.stage || r.Code != f.code || len(c.Messages()) != f.kept {
			t.Errorf("fault %d: %+v, %d kept", f.fault, r, len(c.Messages()))
		}
	}
	if err := c.SetFault(devstack.RefuseConnections); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "SMTP_URL") {
		t.Errorf("check: %v", err)
	}
}

// script is a server that answers each line by its first word: an answer may
// be "-" to hang up or "" to say nothing.
func script(t *testing.T, answers map[string]string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go converse(conn, answers)
		}
	}()
	return "smtp://" + l.Addr().String()
}

func converse(conn net.Conn, answers map[string]string) {
	defer conn.Close()
	say := func(key, usual string) bool {
		a, ok := answers[key]
		if !ok {
			a = usual
		}
		if a != "" && a != "-" {
			_, _ = io.WriteString(conn, a+"\r\n")
		}
		return a != "-"
	}
	if !say("banner", "220 test") {
		return
	}
	inData := false
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		word, _, _ := strings.Cut(lines.Text(), " ")
		usual := map[string]string{"DATA": "354 go", "QUIT": "221 bye"}[word]
		if usual == "" {
			usual = "250 ok"
		}
		switch {
		case inData && lines.Text() == ".":
			inData, word = false, "dot"
		case inData:
			continue
		}
		if !say(word, usual) {
			return
		}
		inData = inData || word == "DATA"
	}
}

// A server that took the letter and then misbehaves has taken it: go-mail's
// own Send would report an error. One that falls silent after the dot leaves
// it open; one that breaks off before it has nothing.
func TestAfterTheDot(t *testing.T) {
	for name, c := range map[string]struct {
		answers map[string]string
		want    Outcome
	}{
		"hangs up after 250":     {map[string]string{"QUIT": "-"}, Accepted},
		"error to QUIT":          {map[string]string{"QUIT": "500 no"}, Accepted},
		"error to RSET and NOOP": {map[string]string{"RSET": "500 no", "NOOP": "500 no"}, Accepted},
		"silent after the dot":   {map[string]string{"dot": ""}, Ambiguous},
		"hangs up at the dot":    {map[string]string{"dot": "-"}, Ambiguous},
		"nonsense at the dot":    {map[string]string{"dot": "hello?"}, Ambiguous},
		"554 to the dot":         {map[string]string{"dot": "554 spam"}, Refused},
		"452 to the dot":         {map[string]string{"dot": "452 full"}, Deferred},
		"hangs up at DATA":       {map[string]string{"DATA": "-"}, NotSent},
		"421 banner":             {map[string]string{"banner": "421 busy"}, NotSent},
		"554 banner":             {map[string]string{"banner": "554 go away"}, Deferred},
	} {
		t.Run(name, func(t *testing.T) {
			r := hasty(t, script(t, c.answers)).Send(t.Context(), message("ada@example.com"))
			if r.Outcome != c.want {
				t.Errorf("%+v", r)
			}
		})
	}
}

// The answer to the final dot may take longer than other answers, and a
// cancelled context ends even that wait.
func TestPatience(t *testing.T) {
	s := hasty(t, script(t, map[string]string{"dot": ""}))
	s.dotTimeout = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 3*s.commandTimeout)
	defer cancel()
	r := s.Send(ctx, message("ada@example.com"))
	if r.Outcome != Ambiguous || !errors.Is(r.Err, context.DeadlineExceeded) {
		t.Errorf("%+v", r)
	}
}

// A password is never sent in the clear.
func TestNoPasswordInTheClear(t *testing.T) {
	address := script(t, map[string]string{"EHLO": "250-test\r\n250 AUTH PLAIN LOGIN"})
	s := hasty(t, strings.Replace(address, "smtp://", "smtp://u:hunter2@", 1))
	r := s.Send(t.Context(), message("ada@example.com"))
	if r.Outcome != NotSent || r.Stage != atGreet {
		t.Errorf("%+v", r)
	}
	err := s.Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "TLS") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("check: %v", err)
	}
}

// A sender that was set wrong keeps letters waiting; an address that no
// letter can go to fails at once, before anybody is called.
func TestBeforeTheCall(t *testing.T) {
	s := hasty(t, "smtp://127.0.0.1:1")
	m := message("ada@example.com")
	m.From = "nobody"
	if r := s.Send(t.Context(), m); r.Outcome != NotSent {
		t.Errorf("%+v", r)
	}
	if r := s.Send(t.Context(), message("a@example.com\r\nBcc: b@example.com")); r.Outcome != Refused || r.Stage != atCompose {
		t.Errorf("%+v", r)
	}
}

// SMTP_URL is understood or refused with its form, never with its password.
func TestSMTPURL(t *testing.T) {
	for address, want := range map[string]string{
		"smtp://localhost":                   "localhost:587",
		"smtps://u:p%40ss@mail.example.com":  "mail.example.com:465",
		"smtp://u:p@mail.example.com:2525":   "mail.example.com:2525",
		"smtp://[::1]:25/?helo=shop.example": "[::1]:25",
	} {
		s, err := NewSMTP(address)
		if err != nil || s.addr != want {
			t.Errorf("%s: %+v, %v", address, s, err)
		}
	}
	for _, address := range []string{
		"", "localhost:25", "http://u:hunter2@x", "smtp://", "smtp://u:hunter2@host:port", "smtp://u:hunter2@host:70000", "smtp://u@host",
		"smtp://u:hunter2@host/path", "smtp://u:hunter2%zz@host", "smtp:u:hunter2", "smtp://:hunter2@host",
	} {
		_, err := NewSMTP(address)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "SMTP_URL") || !strings.Contains(err.Error(), "smtp://user:password@host:587") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
