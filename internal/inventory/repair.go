package inventory

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
)

// Account sets the levels of a product against its ledger.
type Account struct {
	SKU            string `gorm:"column:sku"`
	OnHand         int64  // the levels
	Reserved       int64
	LedgerOnHand   int64 // the sums of the ledger
	LedgerReserved int64
	Tail           int64 // movements since the last checkpoint
	Through        int64 // the entry of the last of them
	Cut            bool  // there are more movements: the ledger was added up to Through only
}

// Drifts reports whether level and ledger differ, as far as is known.
func (a Account) Drifts() bool {
	if a.Cut {
		return false
	}
	return a.OnHand != a.LedgerOnHand || a.Reserved != a.LedgerReserved
}

// Correction is the movement that makes the ledger say what the levels do: they
// are what orders are promised and people count.
func (a Account) Correction(cause, reason string) Movement {
	id := uuid.Must(uuid.NewV7())
	return Movement{
		ID: id, SKU: a.SKU, Kind: Correct, OnHandDelta: a.OnHand - a.LedgerOnHand, ReservedDelta: a.Reserved - a.LedgerReserved,
		Cause: cause, Reason: reason, EffectKey: "correct/" + id.String(),
	}
}

// accounts selects products with what their ledgers add up to: the last
// checkpoint, and what was written since, at most limit movements. In one
// statement, levels and ledger are of one moment.
func accounts(limit string) string {
	return `SELECT p.sku, p.on_hand, p.reserved, COALESCE(c.on_hand, 0) + t.on_hand AS ledger_on_hand,
			COALESCE(c.reserved, 0) + t.reserved AS ledger_reserved, t.tail, COALESCE(t.through, c.through, 0) AS through
		FROM products p
		LEFT JOIN LATERAL (SELECT * FROM stock_checkpoints k WHERE k.sku = p.sku ORDER BY k.through DESC LIMIT 1) c ON true
		CROSS JOIN LATERAL (SELECT count(*) AS tail, max(entry) AS through, COALESCE(sum(on_hand_delta), 0)::bigint AS on_hand,
			COALESCE(sum(reserved_delta), 0)::bigint AS reserved
			FROM (SELECT * FROM stock_movements m WHERE m.sku = p.sku AND m.entry > COALESCE(c.through, 0) ORDER BY m.entry LIMIT ` + limit + `) m) t`
}

// longestTail is how many movements of a product Audit adds up at most.
const longestTail = 20_000

// Drifting selects the products whose levels are not the sums of their ledger,
// by its checkpoints and what follows them.
var Drifting = `SELECT * FROM (` + accounts("ALL") + `) a WHERE a.on_hand <> a.ledger_on_hand OR a.reserved <> a.ledger_reserved`

// Drift returns the accounts that drift, in SKU order, at most limit of them.
func Drift(tx database.Tx, limit int) (drifting []Account, err error) {
	if err := tx.Raw(Drifting+` ORDER BY sku LIMIT ?`, limit).Scan(&drifting).Error; err != nil {
		return nil, fmt.Errorf("set stock against its ledger: %w", err)
	}
	return drifting, nil
}

// Audit returns the accounts of the next products after a SKU, in SKU order,
// at most limit of them. A ledger with a long way to go since its last
// checkpoint is cut, so that Audit is quick also where there are none yet.
func Audit(tx database.Tx, after string, limit int) (all []Account, err error) {
	if err := tx.Raw(accounts(fmt.Sprint(longestTail))+` WHERE p.sku > ? ORDER BY p.sku LIMIT ?`, after, limit).Scan(&all).Error; err != nil {
		return nil, fmt.Errorf("audit stock: %w", err)
	}
	for i := range all {
		all[i].Cut = all[i].Tail == longestTail
	}
	return all, nil
}

// lockedAccount is a product's account, which stays so until tx ends; nil when
// there is no such product.
func lockedAccount(tx database.Tx, sku string) (*Account, error) {
	if _, err := Load(tx, []string{sku}); err != nil {
		return nil, err
	}
	var rows []Account // a second statement: it sees what was written before the lock was ours
	if err := tx.Raw(accounts("ALL")+` WHERE p.sku = ?`, sku).Scan(&rows).Error; err != nil || len(rows) == 0 {
		return nil, err
	}
	return &rows[0], nil
}

// Repair writes the correction of a product that drifts, as found under its
// lock, and returns what it found. Errors: NotFound; Conflict when it does not drift.
func Repair(tx database.Tx, sku, cause, reason string) (*Account, *Movement, error) {
	a, err := lockedAccount(tx, sku)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("repair stock of %s: %w", sku, err)
	case a == nil:
		return nil, nil, fault.New(fault.NotFound, "product_not_found", "no product %s", sku)
	case !a.Drifts():
		return nil, nil, fault.New(fault.Conflict, "no_drift", "the stock of %s is what its ledger says", sku)
	}
	m := a.Correction(cause, reason)
	m.At = tx.Now
	if err := database.Insert(tx, "stock_movements", movementColumns, []Movement{m}); err != nil {
		return nil, nil, fmt.Errorf("repair stock of %s: %w", sku, err)
	}
	return a, &m, nil
}

// CheckpointEvery is after how many movements of a product a checkpoint saves
// adding them up again.
const CheckpointEvery = 1000

// Checkpoint notes what the ledgers of audited products add up to. The
// movements of a product are written under its row lock, one transaction after
// another, with entries that grow: whatever a statement saw of them has no gap,
// and nothing will be written before its end. (The ids are no such order: they
// are made by many clocks.)
func Checkpoint(tx database.Tx, all []Account) error {
	err := database.InsertOr(tx, "stock_checkpoints", "sku, through, on_hand, reserved, at", checkpoints(all, tx.Now),
		"ON CONFLICT (sku, through) DO NOTHING") // another worker did
	if err != nil {
		return fmt.Errorf("checkpoints of %d products: %w", len(all), err)
	}
	return nil
}

// checkpoint is a row of stock_checkpoints.
type checkpoint struct {
	SKU      string    `json:"sku"`
	Through  int64     `json:"through"`
	OnHand   int64     `json:"on_hand"`
	Reserved int64     `json:"reserved"`
	At       time.Time `json:"at"`
}

func checkpoints(all []Account, at time.Time) (rows []checkpoint) {
	for _, a := range all {
		rows = append(rows, checkpoint{SKU: a.SKU, Through: a.Through, OnHand: a.LedgerOnHand, Reserved: a.LedgerReserved, At: at})
	}
	return rows
}
