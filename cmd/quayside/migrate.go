package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"quayside/internal/database"
	"quayside/migrations"
)

func newMigrateCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database up to date",
		Long: `Bring the database up to date. Several at once are safe: one works, the others
wait. It uses MIGRATE_DATABASE_URL when that is set, else DATABASE_URL.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.settings(forMigrate)
			if err != nil {
				return err
			}
			a.log(cfg)
			// No limit on a statement: filling a new column of a big table may take hours.
			db, err := database.Open(cfg.MigrateDatabaseURL.reveal(), database.Options{
				Name: "migrate", MaxConns: 2, Timeout: -1,
			})
			if err != nil {
				return err
			}
			defer func() { _ = db.Close() }()
			applied, err := db.Migrate(cmd.Context(), migrations.FS)
			for _, m := range applied {
				_, _ = fmt.Fprintf(a.stdout, "applied %s in %s\n", m.Name, time.Duration(m.ElapsedMS)*time.Millisecond)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, "up to date")
			return err
		},
	}
}
