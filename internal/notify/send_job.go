package notify

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/queue"
)

// sendPatience bounds one attempt: longer than the two minutes for the final
// dot, shorter than the 15 after which Sweep gives an attempt up.
const sendPatience = 3 * time.Minute

type sendArgs struct {
	LetterID uuid.UUID `json:"letter_id"`
}

var sendJob = queue.Job[sendArgs]{Name: "notify.send", Queue: queue.Post, Timeout: sendPatience}

// Register tells m how to send letters.
func (o *Outbox) Register(m *queue.Mux) { queue.Handle(m, sendJob, o.send) }

var lettersTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "quayside_letters_total",
	Help: "Attempts to send a letter, by kind and what became of it (sent, retry, failed, unknown, dropped, superseded).",
}, []string{"kind", "outcome"})

func (o *Outbox) send(ctx context.Context, args sendArgs) error {
	l, err := o.claim(ctx, args.LetterID)
	if err != nil || l == nil {
		return err
	}
	return o.attempt(ctx, *l)
}

// claimed is a letter that this attempt, and no other, is sending.
type claimed struct {
	Letter
	Was State // before it was claimed: queued, or unknown for the one resend
}

// claim takes the letter id, or with uuid.Nil the one that is due longest, and
// counts an attempt. It returns nil when there is nothing to do: not due,
// settled, or somebody else has it. A resend gives up its right to another.
func (o *Outbox) claim(ctx context.Context, id uuid.UUID) (*claimed, error) {
	which, args := `id = ? AND `, []any{id}
	if id == uuid.Nil {
		which, args = ``, nil
	}
	var got []claimed
	err := o.db.InTx(ctx, func(tx database.Tx) error {
		return tx.Raw(`UPDATE letters l SET state = 'sending', attempts = attempts + 1, started_at = now(),
				not_before = CASE c.was WHEN 'unknown' THEN timestamptz '`+never+`' ELSE not_before END
			FROM (SELECT id AS claim_id, state AS was FROM letters WHERE `+which+due+`
				ORDER BY not_before LIMIT 1 FOR UPDATE SKIP LOCKED) c
			WHERE l.id = c.claim_id RETURNING l.*, c.was`, args...).Scan(&got).Error
	})
	if err != nil || len(got) == 0 {
		return nil, wrapped(err, "claim letter %s", id)
	}
	return &got[0], nil
}

// attempt sends l with no transaction open and notes what came of it.
func (o *Outbox) attempt(ctx context.Context, l claimed) error {
	start := time.Now()
	sendCtx, cancel := context.WithTimeout(ctx, sendPatience)
	defer cancel()
	var r Result
	var err error
	l.Subject, l.Text, l.HTML, err = Render(o.opts.ShopName, l.Letter)
	if err != nil {
		r = classify(atCompose, err)
	} else {
		r = o.sender.Send(sendCtx, Message{
			From: o.opts.From, FromName: plain(o.opts.ShopName, maxNameRunes), To: l.Address,
			MessageID: l.MessageID, OrderID: l.OrderID, Subject: l.Subject, Text: l.Text, HTML: l.HTML,
		})
	}
	v, err := o.settleFirmly(ctx, l, r)
	if err != nil {
		return err
	}
	lettersTotal.WithLabelValues(string(l.Kind), v.label).Inc()
	report(ctx, l, r, v, time.Since(start))
	return nil
}

// settleFirmly settles even when ctx has ended, and tries for a minute while
// the database is away: what the mail server said must not be forgotten, or
// the customer gets the letter twice.
func (o *Outbox) settleFirmly(ctx context.Context, l claimed, r Result) (v verdict, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for wait := time.Second / 4; ; wait *= 2 {
		v, err = o.settle(ctx, l, r)
		if err == nil || fault.Permanent(err) {
			return v, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return v, err
		}
	}
}

// settle writes the outcome of an attempt, unless the letter has moved on. An
// attempt that was given up meanwhile (unknown) may still say how it ended.
func (o *Outbox) settle(ctx context.Context, l claimed, r Result) (v verdict, err error) {
	err = o.db.InTx(ctx, func(tx database.Tx) error {
		var now []Letter
		if err := tx.Raw(`SELECT id, state, attempts, last_error FROM letters WHERE id = ? FOR UPDATE`, l.ID).Scan(&now).Error; err != nil {
			return err
		}
		if len(now) == 0 || now[0].Attempts != l.Attempts || (now[0].State != Sending && now[0].State != Unknown) {
			v = verdict{label: "superseded"}
			return nil
		}
		v = judge(r, l.Attempts, l.Was == Unknown, now[0].LastError == outgrown)
		if err := tx.Exec(`UPDATE letters SET state = ?, subject = ?, text = ?, html = ?, last_error = ?,
				not_before = CASE WHEN ? THEN timestamptz '`+never+`' ELSE now() + make_interval(secs => ?) END,
				sent_at = CASE WHEN ? THEN now() END
			WHERE id = ?`, v.state, l.Subject, l.Text, l.HTML, v.lastError, v.forGood, v.wait.Seconds(), v.state == Sent, l.ID).Error; err != nil {
			return err
		}
		return o.tell(tx, l.Letter, v)
	})
	return v, wrapped(err, "settle letter %s", l.ID)
}

// tell tells Fate what became of l. Nobody misses a letter that the order had
// outgrown, and who hears of a first letter that it was sent had heard nothing else.
func (o *Outbox) tell(tx database.Tx, l Letter, v verdict) error {
	news := v.state == Failed && v.lastError != outgrown || v.state == Sent && l.ResendOf != nil
	if o.Fate == nil || !news {
		return nil
	}
	l.State, l.LastError = v.state, v.lastError
	f := Fate{Letter: l, First: l.ID}
	if l.ResendOf != nil {
		err := tx.Raw(`WITH RECURSIVE back AS (SELECT id, resend_of FROM letters WHERE id = ?
			UNION ALL SELECT l.id, l.resend_of FROM letters l JOIN back b ON l.id = b.resend_of)
			SELECT id FROM back WHERE resend_of IS NULL`, l.ID).Row().Scan(&f.First)
		if err != nil {
			return fmt.Errorf("first letter before %s: %w", l.ID, err)
		}
	}
	return o.Fate(tx, f)
}

// verdict is what becomes of a letter after an attempt.
type verdict struct {
	label     string // of the metric and the log
	state     State
	wait      time.Duration // until the next attempt, when there is one
	forGood   bool          // an unknown that is not sent again
	lastError string
}

const (
	firstPause    = 15 * time.Second
	longestPause  = 15 * time.Minute // so that letters leave soon after the server is back
	greylistPause = 5 * time.Minute  // what greylisting servers commonly want
	resendPause   = 30 * time.Minute // after which an ambiguous letter is sent once more
	maxAttempts   = 60               // with these pauses more than half a day
)

// judge decides what becomes of a letter.
//
//	result     first sending                    the one resend
//	accepted   sent                             sent
//	refused    failed                           failed
//	not sent   queued, doubling pause           unknown, doubling pause
//	deferred   the same, at least 5 min         the same, at least 5 min
//	ambiguous  unknown, resend after 30 min     unknown for good
//
// A letter the order has outgrown gets no further attempt: it is dropped, or
// stays unknown when it may have arrived. So is one whose attempts are used
// up: it failed, or stays unknown.
func judge(r Result, attempts int, resend, withdrawn bool) verdict {
	var v verdict
	if r.Err != nil {
		v.lastError = plain(fmt.Sprintf("%s: %v", r.Stage, r.Err), maxReasonRunes)
	}
	if withdrawn {
		v.lastError = outgrown
	}
	last := withdrawn || attempts >= maxAttempts
	switch {
	case r.Outcome == Accepted:
		v.label, v.state, v.lastError = "sent", Sent, ""
	case r.Outcome == Refused:
		v.label, v.state = "failed", Failed
	case r.Outcome == Ambiguous && !resend && !last:
		v.label, v.state, v.wait = "unknown", Unknown, resendPause
	case r.Outcome == Ambiguous, resend && last:
		v.label, v.state, v.forGood = "unknown", Unknown, true
	case withdrawn:
		v.label, v.state = "dropped", Dropped
	case last:
		v.label, v.state = "failed", Failed
	default:
		v.label, v.state, v.wait = "retry", Queued, pause(attempts, r.Outcome)
		if resend {
			v.state = Unknown
		}
	}
	return v
}

// pause doubles from firstPause to longestPause, with up to a fifth on top so
// that letters that failed together do not come back together.
func pause(attempts int, o Outcome) time.Duration {
	d := longestPause
	if attempts < 8 {
		d = min(d, firstPause<<max(0, attempts-1))
	}
	if o == Deferred {
		d = max(d, greylistPause)
	}
	return d + rand.N(d/5) //nolint:gosec // jitter
}

// report logs an attempt. A server's words may quote the customer's address,
// so only what happened before it knew one is logged in full.
func report(ctx context.Context, l claimed, r Result, v verdict, elapsed time.Duration) {
	level, known := map[State]slog.Level{Sent: slog.LevelInfo, Failed: slog.LevelError}[v.state]
	if !known {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("letter_id", l.ID.String()), slog.String("order_id", l.OrderID), slog.String("kind", string(l.Kind)),
		slog.Int("attempt", l.Attempts), slog.String("outcome", v.label), slog.Float64("elapsed_ms", float64(elapsed.Microseconds())/1000),
	}
	if r.Err != nil {
		attrs = append(attrs, slog.String("stage", string(r.Stage)), slog.Int("smtp_code", r.Code))
	}
	if r.Err != nil && r.Stage == atConnect {
		attrs = append(attrs, slog.Any("error", r.Err))
	}
	slog.LogAttrs(ctx, level, "letter attempted", attrs...)
}

func wrapped(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
