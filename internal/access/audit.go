package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"quayside/internal/database"
	"quayside/internal/web"
)

// Change is what a write did to what.
type Change struct {
	Subject string // order/1001
	Before  any    // as the API shows it, nil when it was not there
	After   any
}

type changeKey struct{}

// Changed says what the write of ctx, which is within [Once], has done: to
// subject, which before was so, nil for not there, and now is after, both as the
// API shows them to who acts. No secret may be in them.
func Changed(ctx context.Context, subject string, before, after any) {
	if c, ok := ctx.Value(changeKey{}).(*Change); ok {
		*c = Change{subject, before, after}
	}
}

var errUntold = errors.New("a write does not say what it has changed: call access.Changed")

// Record enters what c changed into the audit log, in the transaction that
// changes it: by whom, and by which request, says ctx. [Once] does so by itself.
func Record(ctx context.Context, tx database.Tx, c Change) error {
	if c.Subject == "" {
		return errUntold
	}
	before, after, err := difference(c.Before, c.After)
	if err != nil {
		return fmt.Errorf("audit %s: %w", c.Subject, err)
	}
	r := web.RequestOf(ctx)
	err = tx.Exec(`WITH said AS (SELECT CAST(@before AS jsonb) AS before, CAST(@after AS jsonb) AS after, uuid_send(gen_random_uuid()) AS salt),
		entry AS (INSERT INTO audit_log (at, actor, key_id, operation, method, path, subject, request_id, before, after, salt, change_digest)
			SELECT @at, @actor, @key, @operation, @method, @path, @subject, @request, before, after, salt, `+ChangeDigest+` FROM said RETURNING id)
		INSERT INTO audit_unsealed SELECT id FROM entry`, map[string]any{
		"before": before, "after": after, "at": tx.Now, "actor": web.Actor(ctx), "key": web.CallerID(ctx), "operation": r.Operation,
		"method": r.Method, "path": r.Path, "subject": c.Subject, "request": web.RequestID(ctx),
	}).Error
	if err != nil {
		return fmt.Errorf("audit %s: %w", c.Subject, err)
	}
	return nil
}

// ChangeDigest is, in SQL, what the chain holds of before and after: they can
// be blanked, and what it was computed of is gone with the salt.
const ChangeDigest = `sha256(salt || convert_to(jsonb_build_array(before, after)::text, 'UTF8'))`

// difference writes before and after out, nil for what is not there. Of two
// objects it leaves out what is the same in both.
func difference(before, after any) (*string, *string, error) {
	b, err := json.Marshal(before)
	if err != nil {
		return nil, nil, err
	}
	a, err := json.Marshal(after)
	if err != nil {
		return nil, nil, err
	}
	var was, is map[string]json.RawMessage
	if json.Unmarshal(b, &was) == nil && json.Unmarshal(a, &is) == nil && was != nil && is != nil {
		for key, value := range was {
			if bytes.Equal(value, is[key]) {
				delete(was, key)
				delete(is, key)
			}
		}
		if b, err = json.Marshal(was); err != nil {
			return nil, nil, err
		}
		if a, err = json.Marshal(is); err != nil {
			return nil, nil, err
		}
	}
	return present(b), present(a), nil
}

func present(j []byte) *string {
	if string(j) == "null" {
		return nil
	}
	s := string(j)
	return &s
}
