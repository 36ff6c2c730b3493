package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"quayside/internal/database"
	"quayside/migrations"
)

func newCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the books: does everything add up?",
		Long: `Run every invariant on the live database, all on one snapshot: stock equals its
ledger, money adds up, nothing was shipped unpaid, no event is lost. It only
reads. Exit code 1 and the offending rows when one is broken.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
			if err := db.SchemaKnown(cmd.Context(), migrations.FS); err != nil {
				return err
			}
			broken, err := checkInvariants(cmd.Context(), db, cfg.PaymentTolerance.String())
			if err != nil {
				return err
			}
			if !reportFindings(a.stdout, broken) {
				return errSaid
			}
			return nil
		},
	}
}

// reportFindings prints what was found; true when all is well.
func reportFindings(w io.Writer, broken []finding) bool {
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
		_, _ = fmt.Fprintf(w, "%d of %d invariants are broken\n", len(broken), len(invariants))
		return false
	}
	_, _ = fmt.Fprintf(w, "all %d invariants hold\n", len(invariants))
	return true
}
