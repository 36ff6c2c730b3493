package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/inventory"
	"quayside/internal/orders"
	"quayside/migrations"
)

// checkOptions are the flags of check.
type checkOptions struct {
	full, repair, yes bool
	seals             []string
}

func newCheckCommand(a *app) *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the books: does everything add up?",
		Long: `Run every invariant on the live database, all on one snapshot: stock equals its
ledger, money adds up, nothing was shipped unpaid, no event is lost. It only
reads. Exit code 1 and the offending rows when one is broken.

The ledger of stock is added up from its last checkpoints, which workers write;
--full adds it up from the start, and compares the checkpoints as well.

The audit log is a chain of hashes, of which it shows the last. Write that down
where nobody reaches who may write to the database, and have it compared with
--seal: then nothing that was sealed before can have been changed or cut off.

Where stock differs from its ledger, --repair shows the corrections it would
write into the ledger, so that it says what the stock is: the levels stay. With
--yes it writes them, each as it finds the product then, and a closed case
STOCK_DRIFT for each.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range o.seals {
				if _, err := access.ParseSealed(s); err != nil {
					return misuse(err.Error())
				}
			}
			if o.yes && !o.repair {
				return misuse("--yes confirms --repair: give both")
			}
			return a.check(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.full, "full", false, "add the ledger up from the start, and compare its checkpoints")
	cmd.Flags().BoolVar(&o.repair, "repair", false, "show how the ledger would be corrected where stock differs from it")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "with --repair: write the corrections, then check")
	cmd.Flags().StringSliceVar(&o.seals, "seal", nil, "`NUMBER:HASH` that an earlier check showed: the audit log must still have it")
	return cmd
}

func (a *app) check(ctx context.Context, o checkOptions) error {
	cfg, err := a.settings(forDatabase)
	if err != nil {
		return err
	}
	a.log(cfg)
	db, err := database.Open(cfg.DatabaseURL.reveal(), database.Options{Name: "check", MaxConns: 2, Timeout: -1})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if err := db.SchemaKnown(ctx, migrations.FS); err != nil {
		return err
	}
	if o.repair {
		if err := repairStock(ctx, a.stdout, db, o.yes); err != nil {
			return err
		}
	}
	broken, err := checkInvariants(ctx, db, cfg.PaymentTolerance.String(), o.full)
	if err != nil {
		return err
	}
	sound := reportFindings(a.stdout, broken, len(invariantsOf(o.full)))
	sealed, err := reportSeals(ctx, a.stdout, db, o.seals)
	if err != nil {
		return err
	}
	if !sound || !sealed {
		return errSaid
	}
	return nil
}

// reportSeals prints the last seal of the audit log; true when it has all that
// were written down.
func reportSeals(ctx context.Context, w io.Writer, db *database.DB, written []string) (sealed bool, err error) {
	err = db.InSnapshot(ctx, func(tx database.Tx) error {
		sealed = true
		for _, s := range written {
			seal, err := access.ParseSealed(s)
			if err != nil {
				return err
			}
			holds, err := seal.Holds(tx)
			if err != nil {
				return err
			}
			if !holds {
				sealed = false
				_, _ = fmt.Fprintf(w, "BROKEN: the audit log does not have seal %s any more: it was written anew\n", s)
			}
		}
		last, waiting, err := access.LastSeal(tx)
		if err != nil {
			return err
		}
		said := "nothing is sealed yet"
		if last.Number > 0 {
			said = "its last seal is " + last.String()
		}
		if waiting > 0 {
			said += fmt.Sprintf("; %d entries wait for a worker to seal them", waiting)
		}
		_, _ = fmt.Fprintf(w, "the audit log: %s\n", said)
		return nil
	})
	return sealed, err
}

// byCheck is who repaired stock from the command line.
const byCheck = "cli:check"

// maxRepairs bounds one run of --repair; the next one takes up the rest.
const maxRepairs = 10_000

// repairStock shows how the ledger is corrected and, with yes, corrects it, a
// product at a time: each only waits for its own lock.
func repairStock(ctx context.Context, w io.Writer, db *database.DB, yes bool) error {
	var drifting []inventory.Account
	err := db.InSnapshot(ctx, func(tx database.Tx) (err error) {
		drifting, err = inventory.Drift(tx, maxRepairs)
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range drifting {
		m, word := d.Correction(byCheck, ""), "would write"
		if yes {
			err := db.InTx(ctx, func(tx database.Tx) error {
				written, err := orders.RepairStock(tx, d.SKU, byCheck, "")
				if err == nil {
					m = *written
				}
				return err
			})
			if fault.KindOf(err) == fault.Conflict {
				continue // somebody else has corrected it
			}
			if err != nil {
				return err
			}
			word = "wrote"
		}
		_, _ = fmt.Fprintf(w, "%s: %s %s on_hand_delta %+d reserved_delta %+d (level %d/%d, ledger %d/%d)\n",
			word, m.SKU, m.Kind, m.OnHandDelta, m.ReservedDelta, d.OnHand, d.Reserved, d.LedgerOnHand, d.LedgerReserved)
	}
	switch {
	case len(drifting) == 0:
		_, _ = fmt.Fprintln(w, "nothing to repair: stock is what its ledger says")
	case !yes:
		_, _ = fmt.Fprintln(w, "nothing was written: add --yes to write this")
	}
	return nil
}

// reportFindings prints which of the invariants asked do not hold; true when all do.
func reportFindings(w io.Writer, broken []finding, asked int) bool {
	for _, f := range broken {
		_, _ = fmt.Fprintf(w, "BROKEN: %s\n", f.name)
		for _, row := range f.rows {
			_, _ = fmt.Fprintf(w, "  %s\n", row)
		}
		if f.more {
			_, _ = fmt.Fprintln(w, "  and more")
		}
	}
	if len(broken) > 0 {
		_, _ = fmt.Fprintf(w, "%d of %d invariants are broken\n", len(broken), asked)
		return false
	}
	_, _ = fmt.Fprintf(w, "all %d invariants hold\n", asked)
	return true
}
