package database

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Line is what a connection can tell of the way to the server, for doctor.
type Line struct {
	Peer      string // host:port
	Encrypted bool
	Pooled    bool          // by something between, such as PgBouncer: it gives out process ids of its own
	Bounded   bool          // our limit on the time of a statement is in force
	Ahead     time.Duration // the server's clock less ours, as exact as half of Took
	Took      time.Duration // one question and its answer
}

// Line opens a connection and examines it. now is our clock.
func (db *DB) Line(ctx context.Context, now func() time.Time) (l Line, err error) {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return l, fmt.Errorf("connect: %w", Classify(err))
	}
	defer conn.Release()
	wire := conn.Conn().PgConn()
	l.Peer = wire.Conn().RemoteAddr().String()
	_, l.Encrypted = wire.Conn().(*tls.Conn)
	var pid uint32
	var server time.Time
	var limit string
	if err := conn.QueryRow(ctx, `SELECT pg_backend_pid(), current_setting('statement_timeout')`).Scan(&pid, &limit); err != nil {
		return l, fmt.Errorf("ask who serves: %w", Classify(err))
	}
	l.Pooled, l.Bounded = pid != wire.PID(), limit != "0"
	asked, began := now(), time.Now()
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&server); err != nil {
		return l, fmt.Errorf("ask for the time: %w", Classify(err))
	}
	l.Took = time.Since(began)
	l.Ahead = server.Sub(asked.Add(l.Took / 2))
	return l, nil
}

// Obstacle is why a server cannot be used.
type Obstacle int

// The obstacles.
const (
	Unexplained Obstacle = iota
	NoHost               // no such name
	NoAnswer             // refused, or silent
	NoTLS                // one side wants TLS, or the certificate is not good
	NoLogin              // user or password is wrong, or pg_hba.conf refuses
	NoDatabase           // it does not exist, or the role may not connect
	NoRoom               // every connection is taken
	NoParameter          // PgBouncer refuses a setting that comes with the connection
	NotReady             // starting, stopping or recovering
)

// ObstacleOf finds out what err is about. detail is the server's or the
// network's own word, without any password.
func ObstacleOf(err error) (o Obstacle, detail string) {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return obstacleOfCode(pg), pg.Message
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return NoTLS, innermost(err)
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return NoTLS, e.Error()
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return NoHost, e.Error()
	}
	text := err.Error()
	if strings.Contains(text, "server refused TLS") || strings.Contains(text, "tls: ") {
		return NoTLS, innermost(err)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return NoAnswer, e.Err.Error()
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return NoAnswer, "no answer in time"
	}
	return Unexplained, innermost(err)
}

func obstacleOfCode(pg *pgconn.PgError) Obstacle {
	switch {
	case pg.Code == "08P01" && strings.Contains(pg.Message, "startup parameter"):
		return NoParameter
	case pg.Code == "28000" && strings.Contains(pg.Message, "no encryption"), strings.Contains(pg.Message, "SSL required"):
		return NoTLS
	case strings.HasPrefix(pg.Code, "28"), strings.Contains(pg.Message, "auth failed"), strings.Contains(pg.Message, "no such user"):
		return NoLogin
	case pg.Code == "3D000", pg.Code == "42501", strings.Contains(pg.Message, "no such database"):
		return NoDatabase
	case pg.Code == "53300":
		return NoRoom
	case pg.Code == "57P03", pg.Code == "57P01":
		return NotReady
	}
	return Unexplained
}

// innermost is the text of the error that the others wrap.
func innermost(err error) string {
	for {
		switch e := err.(type) { //nolint:errorlint // it unwraps
		case interface{ Unwrap() error }:
			if e.Unwrap() == nil {
				return err.Error()
			}
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			all := e.Unwrap()
			if len(all) == 0 {
				return err.Error()
			}
			err = all[len(all)-1]
		default:
			return err.Error()
		}
	}
}

// Target is where address leads, for people: host:port/name, without user and
// password. It is "" for what is no address.
func Target(address string) string {
	c, err := pgx.ParseConfig(address)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(c.Host, fmt.Sprint(c.Port)) + "/" + c.Database
}

// User is the role that address logs in as.
func User(address string) string {
	c, err := pgx.ParseConfig(address)
	if err != nil {
		return ""
	}
	return c.User
}
