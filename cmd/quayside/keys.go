package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/migrations"
)

func newKeysCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Create, list and revoke keys of the admin API",
		Long: `Create, list and revoke keys of the admin API. It speaks to the database, so it
works while nothing serves. Roles are sets of scopes:

` + rolesText() + `
Scopes:

` + scopesText(),
	}
	cmd.AddCommand(newKeysCreateCommand(a), newKeysListCommand(a), newKeysRevokeCommand(a))
	return cmd
}

func rolesText() string {
	var b strings.Builder
	for _, role := range []string{"viewer", "operator", "admin"} {
		_, _ = fmt.Fprintf(&b, "  %-10s %s\n", role, map[string]string{
			"viewer":   "sees all but customers' names and addresses",
			"operator": "sees all, and runs the shop",
			"admin":    "everything, also keys",
		}[role])
	}
	return b.String()
}

func scopesText() string {
	var b strings.Builder
	for _, scope := range slices.Sorted(maps.Keys(access.Scopes)) {
		_, _ = fmt.Fprintf(&b, "  %-14s %s\n", scope, access.Scopes[scope])
	}
	return b.String()
}

// withKeys opens the database of the settings for one of the subcommands.
func (a *app) withKeys(cmd *cobra.Command, do func(db *database.DB) error) error {
	cfg, err := a.settings(forDatabase)
	if err != nil {
		return err
	}
	a.log(cfg)
	db, err := database.Open(cfg.DatabaseURL.reveal(), database.Options{Name: "keys", MaxConns: 2})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if err := db.SchemaKnown(cmd.Context(), migrations.FS); err != nil {
		return err
	}
	return do(db)
}

func newKeysCreateCommand(a *app) *cobra.Command {
	var scopes []string
	var expires time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use: "create NAME --scope SCOPE[,SCOPE…]", Short: "Create a key, and show it this once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withKeys(cmd, func(db *database.DB) error {
				n := access.NewKey{Name: args[0], Scopes: scopes}
				if expires != 0 {
					now, err := db.Now(cmd.Context())
					if err != nil {
						return err
					}
					n.ExpiresAt = now.Add(expires)
				}
				k, err := access.NewKeys(db).New(asShell(cmd.Context(), "keys create", "create-key"), n)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(a.stdout).Encode(map[string]any{"id": k.ID, "name": k.Name, "key": k.Key, "scopes": k.Scopes, "expires_at": k.ExpiresAt})
				}
				_, _ = fmt.Fprintf(a.stdout, "%s\n\nThis is the key of %s, shown this once. It may: %s.\nIt opens the admin API until %s, sent as\n\n  Authorization: Bearer KEY\n",
					k.Key, k.Name, strings.Join(k.Scopes, ", "), k.ExpiresAt.Format("2 January 2006"))
				return nil
			})
		},
	}
	cmd.Flags().StringSliceVar(&scopes, "scope", []string{"operator"}, "`SCOPES` or roles, with commas between them")
	cmd.Flags().DurationVar(&expires, "expires", access.MaxAge, "after how long it ends, at most 8760h, a year")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

func newKeysListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List keys, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withKeys(cmd, func(db *database.DB) error {
				keys, err := access.List(cmd.Context(), db)
				if err != nil {
					return err
				}
				if len(keys) == 0 {
					_, _ = fmt.Fprintln(a.stdout, "there are no keys; make one with: quayside keys create NAME")
					return nil
				}
				now, err := db.Now(cmd.Context())
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "NAME\tBEGINS\tSTATE\tENDS\tLAST USED\tMAY")
				for _, k := range keys {
					used := "never"
					if k.LastUsedAt != nil {
						used = k.LastUsedAt.UTC().Format("2006-01-02 15:04")
					}
					_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.Name, k.Prefix, k.State(now), k.ExpiresAt.UTC().Format("2006-01-02"), used, strings.Join(k.Scopes, " "))
				}
				return w.Flush()
			})
		},
	}
}

func newKeysRevokeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME", Short: "Revoke a living key, by name or id; it opens nothing within seconds", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withKeys(cmd, func(db *database.DB) error {
				k, err := access.NewKeys(db).End(asShell(cmd.Context(), "keys revoke", "revoke-key"), args[0])
				if err == nil {
					_, _ = fmt.Fprintf(a.stdout, "%s (%s…) is revoked\n", k.Name, k.Prefix)
				}
				return err
			})
		},
	}
}
