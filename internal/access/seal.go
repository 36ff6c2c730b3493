package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"quayside/internal/database"
)

// SealedLine is, in SQL, what a seal holds of the entry a of audit_log. It does
// not depend on any setting of who asks.
const SealedLine = `jsonb_build_array(a.id, (extract(epoch FROM a.at) * 1000000)::bigint, a.actor, a.key_id, a.operation, a.method, a.path, a.subject, a.request_id, encode(a.change_digest, 'hex'))::text`

const (
	sealLock = 0x7175617969736561 // whoever seals holds it
	sealPass = 500                // entries in a transaction
)

// Seal chains the entries of the audit log that have no seal yet, in the order
// of their ids. It does nothing while somebody else does so. It is apart from
// the writes that make the entries, which would otherwise wait for each other.
func Seal(ctx context.Context, db *database.DB) error {
	for {
		n, err := seal(ctx, db)
		if err != nil {
			return fmt.Errorf("seal the audit log: %w", err)
		}
		if n < sealPass {
			return nil
		}
	}
}

// seal chains a pass of entries, and returns how many.
func seal(ctx context.Context, db *database.DB) (n int, err error) {
	err = db.InTx(ctx, func(tx database.Tx) error {
		var mine bool
		n = 0
		if err := tx.Raw(`SELECT pg_try_advisory_xact_lock(?)`, int64(sealLock)).Scan(&mine).Error; err != nil || !mine {
			return err
		}
		var waiting []struct {
			ID   int64
			Line string
		}
		err := tx.Raw(`SELECT a.id, `+SealedLine+` AS line FROM audit_unsealed u JOIN audit_log a ON a.id = u.entry_id ORDER BY a.id LIMIT ?`, sealPass).Scan(&waiting).Error
		if err != nil || len(waiting) == 0 {
			return err
		}
		last, _, err := LastSeal(tx)
		if err != nil {
			return err
		}
		var ids, numbers []int64
		var hashes [][]byte
		for _, e := range waiting {
			sum := sha256.Sum256(append(last.Hash, e.Line...))
			last.Number, last.Hash = last.Number+1, sum[:]
			ids, numbers, hashes = append(ids, e.ID), append(numbers, last.Number), append(hashes, sum[:])
		}
		n = len(ids)
		return tx.Exec(`WITH done AS (DELETE FROM audit_unsealed WHERE entry_id = ANY(@ids))
			INSERT INTO audit_seals (number, entry_id, hash, sealed_at) SELECT n, e, h, @now FROM unnest(CAST(@numbers AS bigint[]), CAST(@ids AS bigint[]), CAST(@hashes AS bytea[])) AS t(n, e, h)`,
			map[string]any{"ids": database.Array(ids), "numbers": database.Array(numbers), "hashes": database.Array(hashes), "now": tx.Now}).Error
	})
	return n, err
}

// Sealed is a link of the chain.
type Sealed struct {
	Number int64
	Hash   []byte
}

// String is the link as somebody writes it down: NUMBER:HASH, in hex.
func (s Sealed) String() string {
	return strconv.FormatInt(s.Number, 10) + ":" + hex.EncodeToString(s.Hash)
}

// ParseSealed reads what [Sealed.String] writes.
func ParseSealed(s string) (Sealed, error) {
	number, hash, _ := strings.Cut(s, ":")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 {
		return Sealed{}, errNoSeal
	}
	h, err := hex.DecodeString(hash)
	if err != nil || len(h) != sha256.Size {
		return Sealed{}, errNoSeal
	}
	return Sealed{n, h}, nil
}

var errNoSeal = errors.New("a seal is NUMBER:HASH, as quayside check shows the last one")

// LastSeal returns the newest link, number 0 when there is none, and how many
// entries wait for theirs.
func LastSeal(tx database.Tx) (last Sealed, waiting int64, err error) {
	var rows []Sealed
	if err := tx.Raw(`SELECT number, hash FROM audit_seals ORDER BY number DESC LIMIT 1`).Scan(&rows).Error; err != nil {
		return last, 0, fmt.Errorf("find the last seal: %w", err)
	}
	if len(rows) > 0 {
		last = rows[0]
	}
	if err := tx.Raw(`SELECT count(*) FROM audit_unsealed`).Scan(&waiting).Error; err != nil {
		return last, 0, fmt.Errorf("count what waits for its seal: %w", err)
	}
	return last, waiting, nil
}

// Holds reports whether the chain still has s where it was written down.
func (s Sealed) Holds(tx database.Tx) (bool, error) {
	var hashes [][]byte
	if err := tx.Raw(`SELECT hash FROM audit_seals WHERE number = ?`, s.Number).Scan(&hashes).Error; err != nil {
		return false, fmt.Errorf("find seal %d: %w", s.Number, err)
	}
	return len(hashes) == 1 && bytes.Equal(hashes[0], s.Hash), nil
}
