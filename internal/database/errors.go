package database

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"quayside/internal/fault"
)

// Classify gives an error from Postgres its kind, so that HTTP and the queue
// know what to do; errors that have one, or that are none of Postgres's, pass
// unchanged. The classes are those of the Postgres manual, appendix A.
//
//	Unavailable    connection lost, server starting, stopping, full or read-only,
//	               deadlock, lock or statement timeout: the same may work later
//	Unprocessable  the data itself is refused: bad encoding, out of range, a
//	               CHECK, a reference, too deep. Trying again cannot help
func Classify(err error) error {
	if err == nil || fault.KindOf(err) != fault.Internal {
		return err
	}
	if errors.Is(err, ErrAgain) {
		return fault.Wrap(fault.Unavailable, Busy, err, "this is being changed by others just now, try again")
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case contended(pg.Code):
			return fault.Wrap(fault.Unavailable, Busy, err, "this is being changed by others just now, try again")
		case temporary(pg.Code):
			return fault.Wrap(fault.Unavailable, "database_unavailable", err, "the database cannot do this just now, try again")
		case refused(pg.Code):
			return fault.Wrap(fault.Unprocessable, "refused_by_database", err, "the database refuses this data")
		}
		return err
	}
	_, isNet := errors.AsType[net.Error](err)
	_, isConnect := errors.AsType[*pgconn.ConnectError](err)
	if isNet || isConnect || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err) {
		return fault.Wrap(fault.Unavailable, "database_unavailable", err, "the database does not answer, try again")
	}
	return err
}

// Busy is the code of an error that other transactions are the cause of, and
// never what was asked for itself: a deadlock, a serialization failure, a lock
// that was not to be had in time.
const Busy = "busy"

func contended(code string) bool {
	return code == "40001" || code == "40P01" || code == "55P03"
}

func temporary(code string) bool {
	switch code {
	case "57014", "57P01", "57P02", "57P03", "57P05", "25006", "25P03":
		return true
	}
	return strings.HasPrefix(code, "08") || strings.HasPrefix(code, "53")
}

func refused(code string) bool {
	switch code {
	case "22021", "22P05", "22P02", "22003", "22008", "54001", "23514", "23503", "23502":
		return true
	}
	return false
}

// undone reports whether the transaction was rolled back as if it had never
// been, so that running it again is safe and likely to succeed.
func undone(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return errors.Is(err, ErrAgain) || (ok && (pg.Code == "40001" || pg.Code == "40P01"))
}

// Violates reports whether err is the refusal of the named constraint or
// unique index.
func Violates(err error, constraint string) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.ConstraintName == constraint
}

// WaitedTooLong reports whether err is that of a statement which waited for a
// lock for longer than it may.
func WaitedTooLong(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "55P03"
}

// pause waits a little, longer each try, with jitter; false when ctx ended.
func pause(ctx context.Context, try int) bool {
	t := time.NewTimer(time.Duration(try) * (5*time.Millisecond + rand.N(20*time.Millisecond))) //nolint:gosec // jitter
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
