package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Mail is one message that somebody sent to the catcher.
type Mail struct {
	ID        int       `json:"id"`         // counts from 1
	From      string    `json:"from"`       // header From, decoded; the envelope's sender when there is none
	To        []string  `json:"to"`         // the envelope's recipients, bare addresses
	Subject   string    `json:"subject"`    // decoded
	Text      string    `json:"text"`       // the text/plain part, UTF-8; "" when there is none
	HTML      string    `json:"html"`       // the text/html part, UTF-8; "" when there is none; as unsafe as it came
	MessageID string    `json:"message_id"` // without the angle brackets
	Order     string    `json:"order"`      // header X-Order-ID; "" when there is none
	Received  time.Time `json:"received"`
	Raw       string    `json:"raw"` // as sent, with CRLF
}

// MailCatcher is an SMTP server that keeps what it is given, and a page to read it on.
type MailCatcher struct {
	SMTPURL string // smtp://127.0.0.1:PORT
	PageURL string // http://127.0.0.1:PORT/

	gate    *gate
	smtp    *smtp.Server
	page    *http.Server
	serving sync.WaitGroup

	mu      sync.Mutex
	mails   []Mail // oldest first
	lastID  int
	bytes   int           // of all Raw
	changed chan struct{} // closed, and replaced, when a mail arrives or all are deleted

	stop    sync.Once
	stopErr error
}

const (
	keepMails    = 1000
	keepBytes    = 256 << 20
	maxMailBytes = 25 << 20
)

// StartMailCatcher listens on both addresses until Close; an empty one is a free loopback port.
// It knows no login and no TLS.
func StartMailCatcher(ctx context.Context, smtpAddr, httpAddr string) (*MailCatcher, error) {
	g, err := openGate(ctx, smtpAddr)
	if err != nil {
		return nil, fmt.Errorf("mail catcher: %w", err)
	}
	web, err := listen(ctx, httpAddr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mail catcher page: %w", err), g.Close())
	}
	m := &MailCatcher{
		SMTPURL: localURL("smtp", g.Addr()),
		PageURL: localURL("http", web.Addr()) + "/",
		gate:    g,
		changed: make(chan struct{}),
	}
	m.smtp = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &mailSession{catcher: m, conn: c.Conn()}, nil
	}))
	m.smtp.Domain = "mailcatcher.localhost"
	m.smtp.MaxMessageBytes = maxMailBytes
	m.smtp.EnableSMTPUTF8 = true
	m.smtp.ErrorLog = log.New(io.Discard, "", 0) // it reports every connection that breaks off
	m.page = &http.Server{Handler: m.handler(), ReadHeaderTimeout: 10 * time.Second}
	m.serving.Go(func() { _ = m.smtp.Serve(g) })   // until Close
	m.serving.Go(func() { _ = m.page.Serve(web) }) // until Close
	return m, nil
}

// Messages are the mails kept so far, the newest last.
func (m *MailCatcher) Messages() []Mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mails)
}

// WaitFor returns the oldest mail that matches, as soon as there is one.
func (m *MailCatcher) WaitFor(ctx context.Context, matches func(Mail) bool) (Mail, error) {
	for seen := 0; ; {
		m.mu.Lock()
		mails, changed := slices.Clone(m.mails), m.changed
		m.mu.Unlock()
		for _, mail := range mails {
			if mail.ID > seen && matches(mail) {
				return mail, nil
			}
			seen = max(seen, mail.ID)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Mail{}, fmt.Errorf("wait for a mail, %d others came: %w", seen, context.Cause(ctx))
		}
	}
}

// Close stops both servers and breaks off their connections. It may be called twice.
func (m *MailCatcher) Close() error {
	m.stop.Do(func() {
		err := errors.Join(m.gate.Close(), m.page.Close())
		m.serving.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		m.stopErr = errors.Join(err, m.smtp.Shutdown(ctx)) // waits for sessions, which have lost their connections
	})
	return m.stopErr
}

// SetFault changes how the catcher behaves from now on, and breaks off open SMTP connections. The
// error says that the port was taken while RefuseConnections had let go of it.
func (m *MailCatcher) SetFault(f Fault) error { return m.gate.set(f) }

func (m *MailCatcher) keep(mail Mail) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastID++
	mail.ID = m.lastID
	m.mails = append(m.mails, mail)
	m.bytes += len(mail.Raw)
	for len(m.mails) > keepMails || m.bytes > keepBytes {
		m.bytes -= len(m.mails[0].Raw)
		m.mails = slices.Delete(m.mails, 0, 1)
	}
	m.tell()
}

// Clear deletes all mails. Later ones count on from where these ended.
func (m *MailCatcher) Clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails, m.bytes = nil, 0
	m.tell()
}

// tell wakes all who wait for a change. The lock is held.
func (m *MailCatcher) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// onChange is closed at the next change.
func (m *MailCatcher) onChange() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// mailSession is one SMTP connection.
type mailSession struct {
	catcher *MailCatcher
	conn    net.Conn
	from    string
	to      []string
}

func (s *mailSession) Reset() { s.from, s.to = "", nil }

func (s *mailSession) Logout() error { return nil }

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := s.catcher.gate.now().refusal(); err != nil {
		return err
	}
	if strings.HasSuffix(strings.ToLower(to), "@"+NoMailbox) {
		return Reject.refusal()
	}
	s.to = append(s.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	mail := parseMail(string(raw))
	mail.To, mail.Received = s.to, time.Now()
	if mail.From == "" {
		mail.From = s.from
	}
	s.catcher.keep(mail)
	if s.catcher.gate.now() == DropAfterDot {
		return s.conn.Close()
	}
	return nil
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	if addr == "" {
		addr = anyPort
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}
