package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"quayside/internal/fault"
)

// Applied is one migration that Migrate ran.
type Applied struct {
	Name      string
	ElapsedMS int64
}

// Migrate applies the files of fsys that the database has not had yet, each in
// a transaction of its own. Several at once are safe: one applies, the others
// wait for its session lock.
func (db *DB) Migrate(ctx context.Context, fsys fs.FS) ([]Applied, error) {
	p, err := db.provider(fsys)
	if err != nil {
		return nil, err
	}
	results, err := p.Up(ctx)
	if part, ok := errors.AsType[*goose.PartialError](err); ok {
		results, err = part.Applied, fmt.Errorf("%s: %w", part.Failed.Source.Path, part.Err)
	}
	var done []Applied
	for _, r := range results {
		done = append(done, Applied{Name: r.Source.Path, ElapsedMS: r.Duration.Milliseconds()})
	}
	if err != nil {
		return done, fmt.Errorf("migrate: %w", Classify(err))
	}
	return done, nil
}

// ErrNewerSchema is in the error of SchemaKnown when the database is ahead of
// this binary: it should not start, but one that runs already may go on.
var ErrNewerSchema = errors.New("run a newer quayside")

// SchemaKnown refuses a database whose schema is not exactly the one this
// binary was built with. A newer one is ErrNewerSchema.
func (db *DB) SchemaKnown(ctx context.Context, fsys fs.FS) error {
	p, err := db.provider(fsys)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	want := sources[len(sources)-1].Version
	var table *string
	if err := db.Read(ctx).Raw(`SELECT to_regclass('goose_db_version')::text`).Row().Scan(&table); err != nil {
		return fmt.Errorf("look for the schema: %w", Classify(err))
	}
	if table == nil {
		return fault.New(fault.Unprocessable, "schema_missing", "the database has no schema yet: run `quayside migrate`")
	}
	have, err := p.GetDBVersion(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read the schema's version: %w", Classify(err))
	case have < want:
		return fault.New(fault.Unprocessable, "schema_old", "the database's schema is version %d, this program needs %d: run `quayside migrate`", have, want)
	case have > want:
		return fault.Wrap(fault.Unprocessable, "schema_new", ErrNewerSchema,
			fmt.Sprintf("the database's schema is version %d, newer than the %d this program knows", have, want))
	}
	return nil
}

func (db *DB) provider(fsys fs.FS) (*goose.Provider, error) {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300)) // ask each second, for five minutes
	if err != nil {
		return nil, fmt.Errorf("migration lock: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db.sql, fsys, goose.WithSessionLocker(locker))
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return p, nil
}
