package dock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/inventory"
	"quayside/internal/queue"
)

const (
	stint       = 10 * time.Second // of one job: then the next import has its turn, and a worker that stops is not kept
	maxAttempts = 20               // at one batch: about an hour of failing
	sweepSize   = 100
)

type importArgs struct {
	ImportID uuid.UUID `json:"import_id"`
}

var (
	importJob = queue.Job[importArgs]{Name: "dock.import", Queue: queue.Bulk, Timeout: 3 * stint}

	linesTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "quayside_import_lines_total", Help: "Lines of imported files, by kind and outcome (applied, failed); not those of dry runs.",
	}, []string{"kind", "outcome"})
)

// Register tells the worker about this package's jobs.
func (d *Dock) Register(m *queue.Mux) {
	queue.Handle(m, importJob, func(ctx context.Context, a importArgs) error {
		more, err := d.carryOn(ctx, a.ImportID, stint)
		if more && err == nil {
			d.bell.Ring(importJob.With(a))
		}
		return err
	})
}

// carryOn imports batch after batch, until there is none left, somebody else is
// at it, ctx ends or patience does; then there may be more.
func (d *Dock) carryOn(ctx context.Context, id uuid.UUID, patience time.Duration) (more bool, err error) {
	for until := time.Now().Add(patience); ; {
		more, err := d.step(ctx, id)
		if err != nil || !more || time.Now().After(until) || ctx.Err() != nil {
			return more, err
		}
	}
}

// step imports the next batch in one transaction: the effects of its lines,
// their errors, and that the batch is done, or nothing of it.
func (d *Dock) step(ctx context.Context, id uuid.UUID) (more bool, err error) {
	attempts, err := d.claim(ctx, id)
	if err != nil || attempts == 0 {
		return false, err
	}
	if attempts > maxAttempts {
		return false, d.stop(ctx, id)
	}
	var s *batchRun
	if err = d.run(ctx, id, &s); err != nil {
		return false, errors.Join(err, d.postpone(context.WithoutCancel(ctx), id, err))
	}
	if s == nil {
		return false, nil
	}
	if !s.DryRun {
		linesTotal.WithLabelValues(s.Kind, "applied").Add(float64(s.applied))
		linesTotal.WithLabelValues(s.Kind, "failed").Add(float64(len(s.errors)))
	}
	return s.State == Waiting, nil
}

// claim counts an attempt before it begins, in a transaction of its own: a
// process that dies in it has used one up. 0: there is nothing to do, or
// somebody else is at it.
func (d *Dock) claim(ctx context.Context, id uuid.UUID) (attempts int, err error) {
	err = d.db.InTx(ctx, func(tx database.Tx) error {
		attempts = 0
		return tx.Raw(`UPDATE imports SET attempts = attempts + 1 WHERE id =
			(SELECT id FROM imports WHERE id = ? AND state = 'waiting' AND not_before <= ? FOR UPDATE SKIP LOCKED) RETURNING attempts`, id, tx.Now).Scan(&attempts).Error
	})
	if err != nil {
		return 0, fmt.Errorf("claim import %s: %w", id, err)
	}
	return attempts, nil
}

// batchRun is a batch that is being imported.
type batchRun struct {
	Import
	kind    *Kind
	applied int
	errors  []LineError
}

// waitingBatch is a row of import_batches.
type waitingBatch struct {
	Number, Line, Lines int
	Body                []byte
}

// run is the transaction of a batch; done stays nil when there is none to do.
func (d *Dock) run(ctx context.Context, id uuid.UUID, done **batchRun) (err error) {
	defer caught(&err)
	return d.db.InTx(ctx, func(tx database.Tx) error {
		*done = nil
		var rows []Import
		err := tx.Raw(`SELECT * FROM imports WHERE id = ? AND state = 'waiting' FOR UPDATE SKIP LOCKED`, id).Scan(&rows).Error
		if err != nil || len(rows) == 0 {
			return err
		}
		s := &batchRun{Import: rows[0], kind: KindOf(rows[0].Kind)}
		var next []waitingBatch
		err = tx.Raw(`SELECT number, line, lines, body FROM import_batches WHERE import_id = ? AND number >= ? ORDER BY number LIMIT 2`, id, s.NextBatch).Scan(&next).Error
		if err != nil {
			return fmt.Errorf("next batch of import %s: %w", id, err)
		}
		if len(next) == 0 {
			return fmt.Errorf("import %s waits, and no line of it does", id)
		}
		if err := d.importLines(tx, s, next[0]); err != nil {
			return err
		}
		if err := s.save(tx, next[0], len(next) == 1); err != nil {
			return err
		}
		*done = s
		return nil
	})
}

// importLines carries out each line, or notes why it cannot be.
func (d *Dock) importLines(tx database.Tx, s *batchRun, b waitingBatch) error {
	records, err := s.kind.records(s.Format, s.Layout, b.Line, b.Body)
	if err != nil {
		return err
	}
	if len(records) != b.Lines {
		return fmt.Errorf("batch %d of import %s has %d lines, not %d", b.Number, s.ID, len(records), b.Lines)
	}
	lines := make([]line, len(records))
	var skus []string
	for i := range records {
		r := &records[i]
		if r.err == nil {
			lines[i], r.err = s.kind.read(r.body)
		}
		if r.err == nil {
			skus = append(skus, lines[i].skus()...)
		}
	}
	if !s.DryRun { // which gives up its locks line by line
		if _, err := inventory.Load(tx, skus); err != nil { // all at once and in their order: two batches never wait for each other
			return err
		}
	}
	for i, r := range records {
		why, err := r.err, error(nil)
		if why == nil {
			why, err = d.try(tx, s, lines[i])
		}
		if err != nil {
			return fmt.Errorf("line %d of import %s: %w", r.line, s.ID, err)
		}
		if why == nil {
			s.applied++
			continue
		}
		e := s.kind.errorOf(s.Import, r.line, why)
		if e.Code == "internal" {
			slog.ErrorContext(tx.Statement.Context, "line of an import failed by our fault", "import_id", s.ID, "line", r.line, "error", why)
		}
		s.errors = append(s.errors, e)
	}
	return nil
}

// try carries out one line within a savepoint of its own: it has its whole
// effect, or none and a reason. err is a failure that is not the line's: the
// batch as a whole must be tried again.
func (d *Dock) try(tx database.Tx, s *batchRun, l line) (why, err error) {
	if err := tx.Exec(`SAVEPOINT line`).Error; err != nil {
		return nil, err
	}
	why = applied(d, tx, l, s.CreatedBy)
	if fault.KindOf(database.Classify(why)) == fault.Unavailable || tx.Statement.Context.Err() != nil {
		return nil, errors.Join(why, tx.Statement.Context.Err())
	}
	if why != nil || s.DryRun {
		if err := tx.Exec(`ROLLBACK TO SAVEPOINT line`).Error; err != nil {
			return nil, errors.Join(why, err)
		}
	}
	return database.Classify(why), tx.Exec(`RELEASE SAVEPOINT line`).Error
}

// applied is l.apply whose panic is an error.
func applied(d *Dock, tx database.Tx, l line, actor string) (err error) {
	defer caught(&err)
	return l.apply(d, tx, actor)
}

// save writes down what became of the batch, which is the last one or not.
func (s *batchRun) save(tx database.Tx, b waitingBatch, last bool) error {
	if err := tx.Exec(`DELETE FROM import_batches WHERE import_id = ? AND number = ?`, s.ID, b.Number).Error; err != nil {
		return fmt.Errorf("batch %d of import %s: %w", b.Number, s.ID, err)
	}
	if err := database.Insert(tx, "import_errors", "import_id, line, code, message, fields", s.errors); err != nil {
		return fmt.Errorf("errors of import %s: %w", s.ID, err)
	}
	s.Applied += s.applied
	s.Failed += len(s.errors)
	s.NextBatch = b.Number + 1
	s.Attempts, s.Reason, s.RungAt = 0, "", tx.Now
	if last {
		s.State, s.EndedAt = Done, &tx.Now
	}
	return database.Update(tx, "imports", "applied, failed, next_batch, attempts, reason, rung_at, state, ended_at", []Import{s.Import})
}

// postpone lets a batch that failed as a whole wait: 1 s after the first try,
// doubling to 5 min.
func (d *Dock) postpone(ctx context.Context, id uuid.UUID, why error) error {
	reason, _, _ := strings.Cut(fault.Message(why), "\n")
	return d.db.InTx(ctx, func(tx database.Tx) error {
		err := tx.Exec(`UPDATE imports SET reason = ?, not_before = ?::timestamptz + least(interval '5 minutes', interval '1 second' * power(2, least(attempts, 10) - 1))
			WHERE id = ? AND state = 'waiting'`, reason, tx.Now, id).Error
		if err != nil {
			return fmt.Errorf("postpone import %s: %w", id, err)
		}
		return nil
	})
}

// stop gives an import up, for a person to look at.
func (d *Dock) stop(ctx context.Context, id uuid.UUID) error {
	slog.ErrorContext(ctx, "import stopped", "import_id", id, "attempts", maxAttempts)
	return d.db.InTx(ctx, func(tx database.Tx) error {
		err := tx.Exec(`UPDATE imports SET state = 'stopped', ended_at = ? WHERE id = ? AND state = 'waiting' AND attempts > ?`, tx.Now, id, maxAttempts).Error
		if err != nil {
			return fmt.Errorf("stop import %s: %w", id, err)
		}
		return nil
	})
}

// Sweep rings again for imports that wait.
func (d *Dock) Sweep(ctx context.Context) error {
	waiting, err := d.waiting(ctx)
	for _, id := range waiting {
		d.bell.Ring(importJob.With(importArgs{ImportID: id}))
	}
	return err
}

// Work is Sweep without Redis: it goes on with the imports that wait itself, a
// stint with each. When ctx ends it begins no other batch.
func (d *Dock) Work(ctx context.Context) error {
	waiting, err := d.waiting(ctx)
	if err != nil {
		return err
	}
	under, done := queue.Finish(ctx)
	defer done()
	for _, id := range waiting {
		for until := time.Now().Add(stint); ctx.Err() == nil && time.Now().Before(until); {
			more, serr := d.step(under, id)
			if err = errors.Join(err, serr); serr != nil || !more {
				break
			}
		}
	}
	return err
}

// waiting marks the imports for which no bell has rung and no batch was done
// lately, and returns them.
func (d *Dock) waiting(ctx context.Context) ([]uuid.UUID, error) {
	var ids []uuid.UUID
	err := d.db.InTx(ctx, func(tx database.Tx) error {
		ids = nil
		return tx.Raw(`UPDATE imports SET rung_at = @now WHERE id = ANY(ARRAY(SELECT id FROM imports
			WHERE state = 'waiting' AND not_before <= @now AND rung_at <= @rung ORDER BY not_before LIMIT @limit FOR UPDATE SKIP LOCKED)) RETURNING id`,
			map[string]any{"now": tx.Now, "rung": tx.Now.Add(-queue.RingAgain), "limit": sweepSize}).Scan(&ids).Error
	})
	if err != nil {
		return nil, fmt.Errorf("sweep imports: %w", err)
	}
	return ids, nil
}

// caught turns a panic into an error that names its place.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}
