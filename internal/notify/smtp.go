package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	netmail "net/mail"
	"net/textproto"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"quayside/internal/crash"
	"quayside/internal/fault"
)

// Message is a letter ready for the wire.
type Message struct {
	From      string // RFC 5322, as MAIL_FROM
	FromName  string // shown when From brings no name
	To        string // one plain address
	MessageID string // without <>
	OrderID   string // goes into X-Order-ID, for filters and whoever answers the replies
	Subject   string
	Text      string
	HTML      string
}

// Sender hands a message to a mail server. It may be called by many at once
// and returns, at the latest, when ctx ends.
type Sender interface {
	Send(ctx context.Context, m Message) Result
}

// Outcome says what is known of a message after one attempt.
type Outcome string

// The outcomes, in the words of RFC 5321.
//
//	Accepted   the server took it: it is theirs now
//	NotSent    no server, no answer or 421: it surely did not arrive
//	Deferred   the server asks to come back later (4xx), or refuses us rather than the letter
//	Refused    the server will not have this letter (5xx), or it cannot be made
//	Ambiguous  the connection broke between the final dot and the answer
const (
	Accepted  Outcome = "accepted"
	NotSent   Outcome = "not_sent"
	Deferred  Outcome = "deferred"
	Refused   Outcome = "refused"
	Ambiguous Outcome = "ambiguous"
)

// Stage is how far an attempt came.
type Stage string

// The stages of an attempt.
const (
	atCompose Stage = "compose" // nothing was sent yet
	atConnect Stage = "connect"
	atGreet   Stage = "greet" // greeting, EHLO, STARTTLS, login
	atFrom    Stage = "from"  // MAIL FROM
	atTo      Stage = "to"    // RCPT TO
	atData    Stage = "data"  // headers and bodies, before the final dot
	atDot     Stage = "dot"   // waiting for the answer to it
)

// Result is what came of one attempt. Err is nil when it was accepted; its
// text may name the customer's address, so it is stored and never logged.
type Result struct {
	Outcome Outcome
	Stage   Stage
	Code    int // the server's reply, 0 when there was none
	Err     error
}

// classify turns an error at a stage into a Result.
//
// Before the final dot a server has nothing to deliver, so a broken connection
// is a plain failure; after it nobody can tell. A 5xx before RCPT TO, and a
// demand for a login (530, 535), refuses us and not this letter: an operator
// can mend that, so the letter waits.
func classify(stage Stage, err error) Result {
	r := Result{Stage: stage, Err: err}
	if reply, ok := errors.AsType[*textproto.Error](err); ok {
		r.Code = reply.Code
	}
	switch {
	case err == nil, stage == atDot && r.Code/100 == 2:
		r.Outcome, r.Err = Accepted, nil
	case stage == atCompose:
		r.Outcome = Refused
	case r.Code == 421:
		r.Outcome = NotSent
	case r.Code/100 == 4:
		r.Outcome = Deferred
	case r.Code/100 == 5 && (stage == atConnect || stage == atGreet || stage == atFrom || r.Code == 530 || r.Code == 535):
		r.Outcome = Deferred
	case r.Code/100 == 5:
		r.Outcome = Refused
	case stage == atDot:
		r.Outcome = Ambiguous
	default:
		r.Outcome = NotSent
	}
	return r
}

// SMTP sends through one mail server, with a connection for each message.
type SMTP struct {
	host, addr     string
	user, password string
	helo           string
	implicitTLS    bool

	roots *x509.CertPool // nil: the system's

	dialTimeout    time.Duration // to a connection
	commandTimeout time.Duration // for each answer
	dotTimeout     time.Duration // for the answer to the final dot; RFC 5321, 4.5.3.2.6 allows ten minutes
}

const smtpURLForm = "it has the form smtp://user:password@host:587 (STARTTLS when the server offers it) or smtps://user:password@host:465, user and password optional"

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

// NewSMTP makes a sender from SMTP_URL. It does not connect. A relay that
// insists on a real name in EHLO gets it by ?helo=mail.example.com; the
// default is the machine's name. Errors never show the password.
func NewSMTP(address string) (*SMTP, error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.Opaque != "" { // err would print the password
		return nil, badURL("is not the address of a mail server")
	}
	s := &SMTP{
		host: u.Hostname(), implicitTLS: u.Scheme == "smtps", helo: u.Query().Get("helo"),
		dialTimeout: 5 * time.Second, commandTimeout: 30 * time.Second, dotTimeout: 2 * time.Minute,
	}
	port := u.Port()
	switch {
	case u.Scheme != "smtp" && u.Scheme != "smtps":
		return nil, badURL("begins with %s://", u.Scheme)
	case u.Path != "" && u.Path != "/":
		return nil, badURL("has a path after the host")
	case port == "" && s.implicitTLS:
		port = "465"
	case port == "":
		port = "587"
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return nil, badURL("has a port outside 1 to 65535")
	}
	s.addr = net.JoinHostPort(s.host, port)
	s.user = u.User.Username()
	s.password, _ = u.User.Password()
	if (s.user == "") != (s.password == "") {
		return nil, badURL("has only one of user and password")
	}
	if s.helo == "" {
		s.helo, _ = os.Hostname()
	}
	if !hostName.MatchString(s.helo) {
		s.helo = "localhost"
	}
	return s, nil
}

func badURL(format string, args ...any) error {
	return fault.New(fault.Unprocessable, "smtp_url_invalid", "SMTP_URL %s: %s", fmt.Sprintf(format, args...), smtpURLForm)
}

// Send delivers m in a connection of its own.
func (s *SMTP) Send(ctx context.Context, m Message) Result {
	from, err := parseFrom(m.From)
	if err != nil {
		return classify(atFrom, err) // a setting to mend, not this letter's fault
	}
	if from.Name == "" {
		from.Name = m.FromName
	}
	msg, to, err := compose(m, from)
	if err != nil {
		return classify(atCompose, err)
	}
	ctx, end := crash.Begin(ctx)
	defer end()
	c, line, r := s.open(ctx)
	defer line.close()
	if r.Err != nil {
		return r
	}
	crash.At(ctx, "connected")
	if err := c.Mail("<" + from.Address + ">"); err != nil {
		return classify(atFrom, line.why(ctx, err))
	}
	if err := c.Rcpt("<" + to + ">"); err != nil {
		return classify(atTo, line.why(ctx, err))
	}
	w, err := c.Data()
	if err != nil {
		return classify(atData, line.why(ctx, err))
	}
	if _, err := msg.WriteTo(w); err != nil {
		return classify(atData, line.why(ctx, err)) // and no Close: it would send the dot after half a letter
	}
	crash.At(ctx, "before the final dot")
	line.patience.Store(int64(s.dotTimeout))
	r = classify(atDot, line.why(ctx, w.Close()))
	crash.At(ctx, "after the final dot")
	line.patience.Store(int64(s.dialTimeout))
	_ = c.Quit() // the letter's fate is sealed
	return r
}

// Check connects, greets, logs in and says goodbye. Its error is Unavailable
// and says what to mend.
func (s *SMTP) Check(ctx context.Context) error {
	c, line, r := s.open(ctx)
	defer line.close()
	if r.Err == nil {
		_ = c.Quit()
		return nil
	}
	mend := "is the address right, and may this machine reach it?"
	switch r.Refused() {
	case "login":
		mend = "is the login right? It is sent only over TLS, so the server must offer STARTTLS, or use smtps://"
	case "greeting":
		mend = "the server answered, but would not work with us"
	}
	return fault.Wrap(fault.Unavailable, "mail_server_unavailable", r.Err, fmt.Sprintf("the mail server of SMTP_URL, %s, cannot be used: %s", s.addr, mend))
}

// Way is how letters would travel, for doctor.
type Way struct {
	Server   string               // host:port
	TLS      *tls.ConnectionState // nil: in plain text
	LoggedIn bool
	Unproven error // why the certificate would not stand up to a check, where none is made (see tls); nil: it would
}

// Examine connects, logs in and asks whether letters from from are taken, and
// leaves without sending one. The Way is as far as it got; r.Err is nil when
// all went well, and r.Stage says where it ended otherwise.
func (s *SMTP) Examine(ctx context.Context, from string) (w Way, r Result) {
	w.Server = s.addr
	sender, err := parseFrom(from)
	if err != nil {
		return w, classify(atFrom, err)
	}
	c, line, r := s.open(ctx)
	defer line.close()
	if r.Err != nil {
		return w, r
	}
	w.LoggedIn = s.user != ""
	if state, ok := line.secured(c); ok {
		w.TLS = &state
		w.Unproven = s.prove(state)
	}
	if err := c.Mail("<" + sender.Address + ">"); err != nil {
		return w, classify(atFrom, line.why(ctx, err))
	}
	_ = c.Reset()
	_ = c.Quit()
	return w, Result{}
}

// prove checks the server's certificate as if it counted.
func (s *SMTP) prove(state tls.ConnectionState) error {
	o := x509.VerifyOptions{DNSName: s.host, Roots: s.roots, Intermediates: x509.NewCertPool()}
	for _, c := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(o)
	return err
}

// Refused reports whether the server will not have us or the letter, rather
// than being away: at is "login", "sender", "recipient", "greeting" or "".
func (r Result) Refused() (at string) {
	switch {
	case r.Code == 534 || r.Code == 535 || errors.Is(r.Err, mail.ErrNoSupportedAuthDiscovered):
		return "login"
	case r.Stage == atFrom:
		return "sender"
	case r.Stage == atTo:
		return "recipient"
	case r.Stage == atGreet:
		return "greeting"
	}
	return ""
}

// open connects and logs in. go-mail does the talking; deadlines are ours,
// because its single one would cover the whole conversation.
func (s *SMTP) open(ctx context.Context) (*smtp.Client, *wire, Result) {
	line := &wire{}
	o := []mail.Option{
		mail.WithHELO(s.helo), mail.WithTLSPolicy(mail.TLSOpportunistic), mail.WithTLSConfig(s.tls()),
		mail.WithTimeout(time.Hour), // never reached: wire has the deadlines, ctx the last word
		mail.WithDialContextFunc(func(context.Context, string, string) (net.Conn, error) { return s.dial(ctx, line) }), // go-mail's ctx ends after the login
	}
	if s.user != "" {
		o = append(o, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(s.user), mail.WithPassword(s.password))
	}
	client, err := mail.NewClient(s.host, o...)
	if err != nil {
		return nil, line, Result{Outcome: Deferred, Stage: atConnect, Err: err} // our settings, not the letter
	}
	c, err := client.DialToSMTPClientWithContext(ctx)
	switch {
	case err == nil:
		return c, line, Result{}
	case line.Conn == nil:
		return nil, line, classify(atConnect, err)
	}
	return nil, line, classify(atGreet, line.why(ctx, err))
}

func (s *SMTP) dial(ctx context.Context, line *wire) (net.Conn, error) {
	d := net.Dialer{Timeout: s.dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	line.hold(ctx, conn)
	line.patience.Store(int64(s.commandTimeout))
	if s.implicitTLS {
		line.tls = tls.Client(line, s.tls())
		return line.tls, nil
	}
	return line, nil
}

// tls checks the server's name, except where that protects nothing: STARTTLS
// is taken when offered, so whoever could forge a certificate could as well
// hide the offer. A relay in the next room then needs no certificate. With a
// login the certificate counts.
func (s *SMTP) tls() *tls.Config {
	return &tls.Config{
		ServerName: s.host, RootCAs: s.roots, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: !s.implicitTLS && s.user == "", //nolint:gosec // see above
	}
}

func compose(m Message, from *netmail.Address) (*mail.Msg, string, error) {
	to, err := wireAddress(m.To)
	if err != nil {
		return nil, "", err
	}
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := errors.Join(msg.FromFormat(from.Name, from.Address), msg.To(to)); err != nil {
		return nil, "", err
	}
	msg.Subject(plain(m.Subject, maxSubjectRunes))
	msg.SetDate()
	msg.SetMessageIDWithValue(m.MessageID)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no out-of-office replies, please
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")
	if m.OrderID != "" {
		msg.SetGenHeader("X-Order-ID", plain(m.OrderID, maxNameRunes))
	}
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	return msg, to, nil
}

// wire is a connection that gives each read and write so much time of its own.
type wire struct {
	net.Conn
	patience atomic.Int64
	release  func() bool
	tls      *tls.Conn // over it, from the start; nil with STARTTLS or without
}

// secured is the state of TLS, false when there is none.
func (w *wire) secured(c *smtp.Client) (tls.ConnectionState, bool) {
	if w.tls != nil {
		return w.tls.ConnectionState(), true
	}
	return c.TLSConnectionState()
}

// hold takes conn and breaks it off when ctx ends.
func (w *wire) hold(ctx context.Context, conn net.Conn) {
	w.Conn = conn
	w.release = context.AfterFunc(ctx, func() { _ = conn.Close() })
}

func (w *wire) until() time.Time { return time.Now().Add(time.Duration(w.patience.Load())) }

func (w *wire) Read(b []byte) (int, error) {
	if err := w.Conn.SetReadDeadline(w.until()); err != nil {
		return 0, err
	}
	return w.Conn.Read(b)
}

func (w *wire) Write(b []byte) (int, error) {
	if err := w.Conn.SetWriteDeadline(w.until()); err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

// SetDeadline is go-mail's, which would bound the whole conversation.
func (w *wire) SetDeadline(time.Time) error { return nil }

// why puts the reason beside an error that only says the connection is closed.
func (w *wire) why(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the server closed the connection: %w", err)
	}
	return err
}

func (w *wire) close() {
	if w.Conn == nil {
		return
	}
	w.release()
	_ = w.Conn.Close()
}
