package orders

import (
	"cmp"
	"context"
	"fmt"

	"quayside/internal/database"
	"quayside/internal/inventory"
)

// factSKU is the fact of a STOCK_DRIFT case that names the product.
const factSKU = "sku"

// auditSize is how many products one look takes: with the longest tails it must
// end within the timeout of a statement.
const auditSize = 50

// AuditStock sets the next products after a SKU against their ledgers. It opens
// a case for each that drifts, closes those of others, and keeps what must be
// added up next time short. It returns where to go on, "" at the end.
func (b *Book) AuditStock(ctx context.Context, after string) (next string, err error) {
	var all []inventory.Account
	err = b.db.InTx(ctx, func(tx database.Tx) (err error) {
		if all, err = inventory.Audit(tx, after, auditSize); err != nil {
			return err
		}
		var drifting []Alarm
		var well []string
		var long []inventory.Account
		for _, a := range all {
			if a.Tail >= inventory.CheckpointEvery {
				long = append(long, a)
			}
			switch alarm := driftOf(a); {
			case a.Drifts():
				drifting = append(drifting, alarm)
			case !a.Cut:
				well = append(well, alarm.Key())
			}
		}
		if err := inventory.Checkpoint(tx, long); err != nil {
			return err
		}
		if err := b.Raise(tx, drifting); err != nil {
			return err
		}
		return b.Quiet(tx, well)
	})
	if len(all) == auditSize {
		next = all[auditSize-1].SKU
	}
	return next, err
}

func driftOf(a inventory.Account) Alarm {
	c := a.Correction("", "")
	return Alarm{
		Code: StockDrift, About: a.SKU,
		Summary: fmt.Sprintf("The stock of %s is %d on hand, %d reserved; its ledger says %d, %d.", a.SKU, a.OnHand, a.Reserved, a.LedgerOnHand, a.LedgerReserved),
		Facts: map[string]string{
			factSKU: a.SKU, "level": fmt.Sprintf("%d/%d", a.OnHand, a.Reserved), "ledger": fmt.Sprintf("%d/%d", a.LedgerOnHand, a.LedgerReserved),
			"correction": fmt.Sprintf("%+d/%+d", c.OnHandDelta, c.ReservedDelta),
		},
	}
}

// RepairStock writes the correction of a product that drifts, and a case that
// is closed with it. Errors: NotFound; Conflict when it does not drift.
func RepairStock(tx database.Tx, sku, actor, note string) (*inventory.Movement, error) {
	a, m, err := inventory.Repair(tx, sku, actor, cmp.Or(note, "the ledger differed from the level"))
	if err != nil {
		return nil, err
	}
	alarm := driftOf(*a)
	if err := raise(tx, []Alarm{alarm}); err != nil {
		return nil, err
	}
	return m, closeCases(tx, []string{alarm.Key()}, actor, actRepair)
}

// repair writes the correction of the product the case is about.
func (r *ruling) repair() error {
	_, err := RepairStock(r.tx, r.c.Facts[factSKU], r.actor, r.Note)
	return err
}
