package notify

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// secured is a mail server with TLS that knows one login, u and hunter2.
type secured struct {
	addr  string
	roots *x509.CertPool
	got   chan string // the login of each letter taken
}

func startSecured(t *testing.T, implicit bool) *secured {
	t.Helper()
	web := httptest.NewTLSServer(nil) // for its certificate, which is for 127.0.0.1
	web.Close()
	s := &secured{roots: x509.NewCertPool(), got: make(chan string, 10)}
	s.roots.AddCert(web.Certificate())
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &securedSession{server: s}, nil }))
	server.TLSConfig = &tls.Config{Certificates: web.TLS.Certificates}
	server.ErrorLog = log.New(io.Discard, "", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	if implicit {
		l = tls.NewListener(l, server.TLSConfig)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return s
}

type securedSession struct {
	server *secured
	user   string
}

func (s *securedSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *securedSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "u" || password != "hunter2" {
			return smtp.ErrAuthFailed
		}
		s.user = user
		return nil
	}), nil
}

func (s *securedSession) Mail(string, *smtp.MailOptions) error { return nil }
func (s *securedSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s *securedSession) Reset()                               {}
func (s *securedSession) Logout() error                        { return nil }

func (s *securedSession) Data(r io.Reader) error {
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		return err
	}
	s.server.got <- s.user
	return nil
}

// With TLS from the start or by STARTTLS a login works; a wrong password or a
// certificate nobody vouches for keeps the letter here.
func TestTLS(t *testing.T) {
	for _, scheme := range []string{"smtp://", "smtps://"} {
		server := startSecured(t, scheme == "smtps://")
		for _, c := range []struct {
			login string
			trust bool
			want  Outcome
			mend  string // a word of what Check says
		}{
			{"u:hunter2@", true, Accepted, ""},
			{"u:hunter3@", true, Deferred, "login"},
			{"u:hunter2@", false, NotSent, "certificate"},
		} {
			s := hasty(t, scheme+c.login+server.addr)
			if c.trust {
				s.roots = server.roots
			}
			r := s.Send(t.Context(), message("ada@example.com"))
			if r.Outcome != c.want {
				t.Errorf("%s %+v: %+v", scheme, c, r)
			}
			if r.Outcome == Accepted && <-server.got != "u" {
				t.Error("without a login")
			}
			err := s.Check(t.Context())
			if (err == nil) != (c.mend == "") || err != nil && (!strings.Contains(err.Error(), c.mend) || strings.Contains(err.Error(), "hunter")) {
				t.Errorf("%s %+v: check: %v", scheme, c, err)
			}
		}
	}
}

// Where TLS is only taken because it is offered, and no password is at stake,
// a home-made certificate is better than none; with smtps:// it counts.
func TestHomeMadeCertificate(t *testing.T) {
	server := startSecured(t, false)
	if r := hasty(t, "smtp://"+server.addr).Send(t.Context(), message("ada@example.com")); r.Outcome != Accepted {
		t.Errorf("%+v", r)
	}
	server = startSecured(t, true)
	r := hasty(t, "smtps://"+server.addr).Send(t.Context(), message("ada@example.com"))
	if _, ok := errors.AsType[*tls.CertificateVerificationError](r.Err); !ok || r.Outcome != NotSent {
		t.Errorf("%+v", r)
	}
}
