package access

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

const (
	// patienceOnce is how long a request waits for one with the same key.
	patienceOnce = 4500 * time.Millisecond
	// keptOnce is how long answers are kept.
	keptOnce = 7 * 24 * time.Hour
)

// Once carries out a request of the admin API in one transaction and returns
// its answer; the transaction enters it into the audit log, as do says by
// [Changed]. When the request carries an Idempotency-Key, key and answer are
// written in that transaction: a repeat gets the answer and has no effect, in
// whichever process, and one that comes while the first is at work waits for
// it. A refused request leaves nothing behind. do gets a context in which
// [database.DB.Read] reads inside the transaction; T must survive JSON.
// Errors: those of do; Conflict idempotency_key_in_use; 422
// idempotency_key_reused for another body.
func Once[T any](ctx context.Context, db *database.DB, do func(ctx context.Context, tx database.Tx) (*T, error)) (out *T, err error) {
	return answered(ctx, db, func(tx database.Tx) (*T, error) {
		var c Change
		out, err := do(database.Inside(context.WithValue(ctx, changeKey{}, &c), tx), tx)
		if err != nil {
			return nil, err
		}
		return out, Record(ctx, tx, c)
	})
}

// Keep ends a request that took more than one transaction, of which the one with
// the effect has entered it into the audit log (see [Record]): it keeps the
// answer, out, for a repeat. Errors: as Once.
func Keep[T any](ctx context.Context, db *database.DB, out *T) (*T, error) {
	if web.OnceOf(ctx) == nil {
		return out, nil
	}
	return answered(ctx, db, func(database.Tx) (*T, error) { return out, nil })
}

// answered does, in a transaction, what was not done for the same request before.
func answered[T any](ctx context.Context, db *database.DB, do func(tx database.Tx) (*T, error)) (out *T, err error) {
	once := web.OnceOf(ctx)
	replayed := false
	err = db.InTx(ctx, func(tx database.Tx) (err error) {
		if once != nil {
			if out, err = claim[T](tx, once); out != nil || err != nil {
				replayed = err == nil
				return err
			}
		}
		if out, err = do(tx); err != nil || once == nil {
			return err
		}
		return keep(tx, once, out)
	})
	if err != nil {
		return nil, err
	}
	if replayed {
		once.Replayed()
	}
	return out, nil
}

// Before returns what was answered to this request before, nil when it is new.
// It is for what takes more than one transaction: ask it first, and end with
// [Keep]. Errors: as Once.
func Before[T any](ctx context.Context, db *database.DB) (out *T, err error) {
	once := web.OnceOf(ctx)
	if once == nil {
		return nil, nil
	}
	err = db.InTx(ctx, func(tx database.Tx) (err error) {
		out, err = recall[T](tx, once)
		return err
	})
	if out != nil && err == nil {
		once.Replayed()
	}
	return out, err
}

// claim writes the key down, which waits for whoever has done so and not
// committed yet. It returns the answer when there is one.
func claim[T any](tx database.Tx, o *web.Once) (*T, error) {
	if err := tx.LockPatience(patienceOnce); err != nil {
		return nil, err
	}
	res := tx.Exec(`INSERT INTO idempotency_keys (caller, operation, key, digest, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		o.Caller, o.Operation, o.Key, o.Digest, tx.Now)
	if database.WaitedTooLong(res.Error) {
		return nil, fault.New(fault.Conflict, "idempotency_key_in_use", "a request with this Idempotency-Key is still being carried out: repeat it in a moment")
	}
	if res.Error != nil {
		return nil, fmt.Errorf("claim an idempotency key: %w", res.Error)
	}
	if err := tx.LockPatience(0); err != nil || res.RowsAffected == 1 {
		return nil, err
	}
	return recall[T](tx, o)
}

func recall[T any](tx database.Tx, o *web.Once) (*T, error) {
	var rows []struct{ Digest, Answer string }
	err := tx.Raw(`SELECT digest, answer FROM idempotency_keys WHERE caller = ? AND operation = ? AND key = ?`, o.Caller, o.Operation, o.Key).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("read an idempotency key: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	if rows[0].Digest != o.Digest {
		return nil, web.Refuse(http.StatusUnprocessableEntity, "idempotency_key_reused", "This Idempotency-Key came with another body before: make up a new one for each wish.")
	}
	out := new(T)
	if err := json.Unmarshal([]byte(rows[0].Answer), out); err != nil {
		return nil, fmt.Errorf("read the answer to an idempotency key: %w", err)
	}
	return out, nil
}

func keep[T any](tx database.Tx, o *web.Once, out *T) error {
	answer, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("keep the answer to an idempotency key: %w", err)
	}
	err = tx.Exec(`UPDATE idempotency_keys SET answer = ? WHERE caller = ? AND operation = ? AND key = ?`, string(answer), o.Caller, o.Operation, o.Key).Error
	if err != nil {
		return fmt.Errorf("keep the answer to an idempotency key: %w", err)
	}
	return nil
}

// ForgetAnswers deletes the answers to Idempotency-Keys that are a week old.
func ForgetAnswers(ctx context.Context, db *database.DB) error {
	return db.InTx(ctx, func(tx database.Tx) error {
		if err := tx.Exec(`DELETE FROM idempotency_keys WHERE at < ?`, tx.Now.Add(-keptOnce)).Error; err != nil {
			return fmt.Errorf("forget old answers: %w", err)
		}
		return nil
	})
}
