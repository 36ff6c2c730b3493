package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quayside/internal/database"
	"quayside/internal/dock"
	"quayside/internal/web"
)

type exportOptions struct {
	from, to, state, format, output string
	masked                          bool
}

func newExportCommand(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export TABLE",
		Short: "Export orders, payments, refunds, stock or events for accounting",
		Long: `Export a table, all of one moment, in bounded memory. Amounts are exact, times
are RFC 3339 in UTC. In CSV, text that a spreadsheet might calculate begins with
an apostrophe. It speaks to the database.

` + tablesText() + `
With -o the file appears under its name only when it is whole.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.exportTable(cmd.Context(), args[0], o) },
	}
	cmd.Flags().StringVar(&o.from, "from", "", "only what is at or after this `TIME`, 2026-01-31 (midnight UTC) or RFC 3339")
	cmd.Flags().StringVar(&o.to, "to", "", "only what is before this `TIME`")
	cmd.Flags().StringVar(&o.state, "state", "", "only rows in this `STATE`")
	cmd.Flags().StringVar(&o.format, "format", "", "`FORMAT`, csv or jsonl; by default what the file's name ends in, else csv")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "write to `FILE`, else to stdout")
	cmd.Flags().BoolVar(&o.masked, "mask", false, "hide customers' names and addresses")
	return cmd
}

func tablesText() string {
	var b strings.Builder
	for _, t := range dock.Tables {
		_, _ = fmt.Fprintf(&b, "  %-10s %s\n", t.Name, strings.Join(t.States, ", "))
	}
	return b.String()
}

// query reads the flags. Errors are misuse.
func (o exportOptions) query(t *dock.Table) (q dock.Query, err error) {
	if q.From, err = momentOf("--from", o.from); err != nil {
		return q, err
	}
	if q.To, err = momentOf("--to", o.to); err != nil {
		return q, err
	}
	if !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To) {
		return q, misuse("--from must be before --to")
	}
	if o.state != "" && !slices.Contains(t.States, o.state) {
		return q, misuse(fmt.Sprintf("%s have no state %q: %s", t.Name, o.state, strings.Join(t.States, ", ")))
	}
	q.State = o.state
	asked := o.format
	if asked == "" && filepath.Ext(o.output) == "" {
		asked = string(dock.CSV)
	}
	q.Format, err = formatOf(asked, o.output)
	return q, err
}

func momentOf(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, misuse(flag + " must be a time such as 2026-01-31 or 2026-01-31T15:04:05Z")
}

func (a *app) exportTable(ctx context.Context, table string, o exportOptions) error {
	t := dock.TableOf(table)
	if t == nil {
		return misuse(fmt.Sprintf("there are no exports of %q: it is %s", table, alternatives(dock.Tables, func(t dock.Table) string { return t.Name })))
	}
	q, err := o.query(t)
	if err != nil {
		return err
	}
	return a.withDock(ctx, func(ctx context.Context, db *database.DB) error {
		ctx = asShell(ctx, "export", "export-"+t.Name)
		if o.masked {
			ctx = web.As(ctx, &web.Caller{Name: byShell(), ID: shell})
		}
		return a.writeWhole(o.output, func(w io.Writer) error {
			out := bufio.NewWriterSize(w, 64<<10)
			var shown *progress
			rows := 0
			err := dock.Export(ctx, db, t, q, out, dock.Progress{
				Total: func(total int64) {
					if o.output != "" || !isTerminal(a.stdout) { // the rows themselves are progress enough
						shown = a.newProgress("exporting "+t.Name, total)
					}
				},
				Wrote: func(n int) {
					rows += n
					if shown != nil {
						shown.add(n)
					}
				},
			})
			shown.end()
			if err = errors.Join(err, out.Flush()); err == nil && o.output != "" {
				_, _ = fmt.Fprintf(a.stderr, "%d %s in %s\n", rows, t.Name, o.output)
			}
			return err
		})
	})
}

// writeWhole writes to stdout, or to a file that has its name only when write
// has succeeded. Only its owner may read it: it holds customers' names.
func (a *app) writeWhole(path string, write func(io.Writer) error) error {
	if path == "" {
		return write(a.stdout)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // not there any more when all went well
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
