package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"quayside/internal/database"
	"quayside/internal/dock"
	"quayside/internal/fault"
	"quayside/internal/queue"
	"quayside/migrations"
)

type importOptions struct {
	dock.Options
	format string
	noWait bool
}

const (
	askImport   = 200 * time.Millisecond // how far it is
	untakenHint = 5 * time.Second        // after which somebody is told that nobody works
	errorsPage  = 500
)

func newImportCommand(a *app) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import KIND FILE",
		Short: "Import products, stock or orders from a CSV or JSON-lines file",
		Long: `Import a file, line by line, by the same rules as the admin API: a line has its
whole effect, or none and an error that is printed. FILE may be - for stdin.

` + kindsText() + `
CSV is UTF-8; its first line names the columns, with commas, semicolons or tabs
between them. An order's items are SKU:QUANTITY:PRICE with blanks between them.
JSON lines have the body of the API's request on each.

It speaks to the database. Workers (quayside work) import the file; Ctrl-C stops
waiting for them, not them. Exit code 1 when a line failed.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.importFile(cmd.Context(), args[0], args[1], o) },
	}
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only try each line by itself, and undo it")
	cmd.Flags().BoolVar(&o.Again, "again", false, "import it though the same file came before")
	cmd.Flags().BoolVar(&o.noWait, "no-wait", false, "leave it to the workers, and do not wait for them")
	cmd.Flags().StringVar(&o.format, "format", "", "`FORMAT` of the file, csv or jsonl; by default what its name ends in")
	return cmd
}

func kindsText() string {
	var b strings.Builder
	for _, k := range dock.Kinds {
		_, _ = fmt.Fprintf(&b, "  %-10s %s\n", k.Name, strings.Join(k.Columns(), ","))
	}
	return b.String()
}

// silence is the bell of who has no Redis: workers look by themselves.
type silence struct{}

func (silence) Ring(queue.Task) {}

// withDock opens the database of the settings for import and export.
func (a *app) withDock(ctx context.Context, do func(ctx context.Context, db *database.DB) error) error {
	cfg, err := a.settings(forDatabase)
	if err != nil {
		return err
	}
	a.log(cfg)
	db, err := database.Open(cfg.DatabaseURL.reveal(), database.Options{Name: "files", MaxConns: 2})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if err := db.SchemaKnown(ctx, migrations.FS); err != nil {
		return err
	}
	return do(ctx, db)
}

func (a *app) importFile(ctx context.Context, kind, path string, o importOptions) error {
	k := dock.KindOf(kind)
	if k == nil {
		return misuse(fmt.Sprintf("there are no imports of %q: it is %s", kind, alternatives(dock.Kinds, func(k dock.Kind) string { return k.Name })))
	}
	format, err := formatOf(o.format, path)
	if err != nil {
		return err
	}
	data, err := a.readFile(path)
	if err != nil {
		return err
	}
	file, err := dock.NewFile(k, format, data)
	if err != nil {
		return inFull(err)
	}
	return a.withDock(ctx, func(ctx context.Context, db *database.DB) error {
		d := dock.New(db, silence{}, nil)
		i, err := d.Take(asShell(ctx, "import", "create-import"), file, o.Options)
		if err != nil {
			return inFull(err)
		}
		if o.noWait {
			_, _ = fmt.Fprintf(a.stdout, "import %s: %d lines wait for the workers; GET /api/v1/imports/%s says how far it is\n", i.ID, i.Lines, i.ID)
			return nil
		}
		if i, err = a.awaitImport(ctx, d, i); err != nil {
			return err
		}
		return a.reportImport(ctx, d, i)
	})
}

// alternatives lists names: a, b or c.
func alternatives[T any](list []T, name func(T) string) string {
	names := make([]string, len(list))
	for i, v := range list {
		names[i] = name(v)
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// formatOf is what somebody asks for, or what the name of a file ends in.
func formatOf(asked, path string) (dock.Format, error) {
	if asked == "" {
		asked = map[string]string{".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}[strings.ToLower(filepath.Ext(path))]
	}
	switch f := dock.Format(asked); f {
	case dock.CSV, dock.Lines:
		return f, nil
	}
	return "", misuse("say what the file is with --format csv or --format jsonl")
}

func (a *app) readFile(path string) ([]byte, error) {
	from := a.stdin
	if path != "-" {
		f, err := os.Open(path) //nolint:gosec // the caller's own choice
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, dock.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > dock.MaxBytes {
		return nil, fmt.Errorf("%s is larger than %d MiB: cut it into several", path, dock.MaxBytes>>20)
	}
	return data, nil
}

// inFull is an error with all that is known about its fields.
func inFull(err error) error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind == fault.Internal {
		return err
	}
	text := f.Message
	for _, field := range f.Fields {
		text += "\n  " + field.Location + " " + field.Message
	}
	return errors.New(text)
}

// awaitImport shows how far an import is until it has ended.
func (a *app) awaitImport(ctx context.Context, d *dock.Dock, i *dock.Import) (*dock.Import, error) {
	shown := a.newProgress("importing "+i.Kind, int64(i.Lines))
	defer shown.end()
	tick := time.NewTicker(askImport)
	defer tick.Stop()
	for began, hinted := time.Now(), false; i.State == dock.Waiting; {
		select {
		case <-ctx.Done():
			shown.end()
			return nil, fmt.Errorf("stopped waiting: import %s goes on without you, and GET /api/v1/imports/%s says how far it is", i.ID, i.ID)
		case <-tick.C:
		}
		now, err := d.Find(ctx, i.ID)
		if err != nil {
			if ctx.Err() != nil || fault.KindOf(err) == fault.Unavailable {
				continue // the database will be back, and the import with it
			}
			return nil, err
		}
		i = now
		shown.set(int64(i.Applied + i.Failed))
		if !hinted && i.Left() == i.Lines && time.Since(began) > untakenHint {
			hinted = true
			_, _ = fmt.Fprintln(a.stderr, "nobody has begun with it yet: is quayside work running?", i.Reason)
		}
	}
	return i, nil
}

// reportImport says what became of an import: errSaid when a line had no effect.
func (a *app) reportImport(ctx context.Context, d *dock.Dock, i *dock.Import) error {
	if err := a.printErrors(ctx, d, i.ID); err != nil {
		return err
	}
	applied := "were applied"
	if i.DryRun {
		applied = "could be applied, each by itself; nothing was"
	}
	_, _ = fmt.Fprintf(a.stdout, "import %s is %s: %d of %d lines %s, %d failed\n", i.ID, i.State, i.Applied, i.Lines, applied, i.Failed)
	if i.Left() > 0 {
		_, _ = fmt.Fprintf(a.stdout, "%d lines were left out; %s\n", i.Left(), i.Reason)
	}
	if i.Applied < i.Lines {
		return errSaid
	}
	return nil
}

func (a *app) printErrors(ctx context.Context, d *dock.Dock, id uuid.UUID) error {
	for after := 0; ; {
		rows, err := d.Errors(ctx, id, after, errorsPage)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, r := range rows {
			after = r.Line
			if len(r.Fields) == 0 {
				_, _ = fmt.Fprintf(a.stdout, "line %d: %s\n", r.Line, r.Message)
			}
			for _, f := range r.Fields {
				_, _ = fmt.Fprintf(a.stdout, "line %d: %s: %s\n", r.Line, f.Column, f.Message)
			}
		}
	}
}
