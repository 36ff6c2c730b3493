package dock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/queue"
	"quayside/internal/web"
)

// Import is a row of imports: a file that came in, and how far it is.
type Import struct {
	ID        uuid.UUID  `json:"id"`
	Kind      string     `json:"kind"` // of a [Kind]
	Format    Format     `json:"format"`
	DryRun    bool       `json:"dry_run"` // lines are tried and undone
	Again     bool       `json:"again"`   // the same bytes may have come before
	Digest    string     `json:"digest"`  // SHA-256 of the file, in hex
	Layout    Layout     `json:"layout" gorm:"serializer:json"`
	Lines     int        `json:"lines"`   // to be imported
	Applied   int        `json:"applied"` // of these, or in a dry run: would be
	Failed    int        `json:"failed"`  // of these; each has an error
	NextBatch int        `json:"next_batch"`
	State     State      `json:"state"`
	Attempts  int        `json:"attempts"`
	NotBefore time.Time  `json:"not_before"`
	RungAt    time.Time  `json:"rung_at"`
	Reason    string     `json:"reason"` // of the last failure that was no line's
	CreatedAt time.Time  `json:"created_at"`
	CreatedBy string     `json:"created_by"` // admin:NAME, shell:USER
	EndedAt   *time.Time `json:"ended_at"`
}

// State is how far an import is.
type State string

// The states of an import.
const (
	Waiting   State = "waiting"   // for a worker, or under way
	Done      State = "done"      // every line is applied or has an error
	Cancelled State = "cancelled" // a person ended it; the lines that waited are gone
	Stopped   State = "stopped"   // it failed again and again, not by a line; the others wait for a person
)

// Left is how many lines have not been looked at.
func (i Import) Left() int { return i.Lines - i.Applied - i.Failed }

// File is a file that can be imported.
type File struct {
	Lines int

	kind    *Kind
	format  Format
	digest  string
	layout  Layout
	batches []batch
}

// NewFile looks at a file that comes in. It keeps data. Errors: Invalid when it
// is no text of that format, naming the line; Unprocessable when it has other
// columns than it should, no lines or too many.
func NewFile(k *Kind, f Format, data []byte) (*File, error) {
	sum := sha256.Sum256(data)
	file := &File{kind: k, format: f, digest: hex.EncodeToString(sum[:])}
	var err error
	if file.layout, file.batches, err = cut(k, f, data); err != nil {
		return nil, err
	}
	for _, b := range file.batches {
		file.Lines += b.lines
	}
	return file, nil
}

// Options of an import.
type Options struct {
	DryRun bool // only say what would happen to each line by itself
	Again  bool // though the same bytes have been imported before
}

// maxWaiting bounds about how much may lie in the database of files to come.
const maxWaiting = 100

// put writes a file down, for a worker to import it. Errors: Conflict
// already_imported, too_many_imports.
func (d *Dock) put(tx database.Tx, f *File, o Options, actor string) (*Import, error) {
	var waiting int
	if err := tx.Raw(`SELECT count(*) FROM imports WHERE state = 'waiting'`).Scan(&waiting).Error; err != nil {
		return nil, fmt.Errorf("count imports: %w", err)
	}
	if waiting >= maxWaiting {
		return nil, fault.New(fault.Conflict, "too_many_imports", "%d imports wait already: wait until some are done, or cancel them", waiting)
	}
	i := Import{
		ID: uuid.Must(uuid.NewV7()), Kind: f.kind.Name, Format: f.format, DryRun: o.DryRun, Again: o.Again, Digest: f.digest, Layout: f.layout, Lines: f.Lines,
		State: Waiting, NotBefore: tx.Now, RungAt: tx.Now, CreatedAt: tx.Now, CreatedBy: actor,
	}
	n, err := database.InsertCount(tx, "imports", "id, kind, format, dry_run, again, digest, layout, lines, applied, failed, next_batch, state, attempts, not_before, rung_at, reason, created_at, created_by",
		[]Import{i}, "ON CONFLICT (kind, digest) WHERE NOT dry_run AND NOT again DO NOTHING")
	if err != nil {
		return nil, fmt.Errorf("write an import down: %w", err)
	}
	if n == 0 {
		return nil, alreadyImported(tx, f)
	}
	if err := f.putBatches(tx, i.ID); err != nil {
		return nil, err
	}
	queue.RingAfter(tx, d.bell, importJob.With(importArgs{ImportID: i.ID}))
	return &i, nil
}

func alreadyImported(tx database.Tx, f *File) error {
	var first Import
	err := tx.Raw(`SELECT id, created_at, created_by FROM imports WHERE kind = ? AND digest = ? AND NOT dry_run AND NOT again`, f.kind.Name, f.digest).Scan(&first).Error
	if err != nil {
		return fmt.Errorf("find the import of the same file: %w", err)
	}
	return fault.New(fault.Conflict, "already_imported", "This very file was sent on %s by %s, as import %s. Nothing was imported now. If its lines are meant once more, say so with again.",
		first.CreatedAt.UTC().Format("2 January 2006 15:04"), first.CreatedBy, first.ID)
}

// statementBytes is about how much of a file one statement writes.
const statementBytes = 1 << 20

func (f *File) putBatches(tx database.Tx, id uuid.UUID) error {
	var numbers, lines, counts []int32
	var bodies [][]byte
	size := 0
	flush := func() error {
		err := tx.Exec(`INSERT INTO import_batches (import_id, number, line, lines, body) SELECT ?::uuid, n, l, c, b FROM unnest(?::int[], ?::int[], ?::int[], ?::bytea[]) AS t(n, l, c, b)`,
			id, database.Array(numbers), database.Array(lines), database.Array(counts), database.Array(bodies)).Error
		if err != nil {
			return fmt.Errorf("write an import down: %w", err)
		}
		numbers, lines, counts, bodies, size = nil, nil, nil, nil, 0
		return nil
	}
	for n, b := range f.batches {
		numbers, lines, counts = append(numbers, int32(n)), append(lines, int32(b.line)), append(counts, int32(b.lines)) //nolint:gosec // MaxLines at most
		bodies, size = append(bodies, b.body), size+len(b.body)
		if size >= statementBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if bodies == nil {
		return nil
	}
	return flush()
}

// Take writes a file down, for workers to import it, by the request of ctx (see
// [access.Once]). Errors: Conflict already_imported, too_many_imports.
func (d *Dock) Take(ctx context.Context, f *File, o Options) (*Import, error) {
	return access.Once(ctx, d.db, func(ctx context.Context, tx database.Tx) (*Import, error) {
		i, err := d.put(tx, f, o, web.Actor(ctx))
		if err != nil {
			return nil, err
		}
		access.Changed(ctx, i.subject(), nil, i.view())
		return i, nil
	})
}

// Find returns an import. Errors: NotFound.
func (d *Dock) Find(ctx context.Context, id uuid.UUID) (*Import, error) {
	var rows []Import
	if err := d.db.Read(ctx).Where("id = ?", id).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("import %s: %w", id, database.Classify(err))
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "import_not_found", "no import %s", id)
	}
	return &rows[0], nil
}

// cancel ends an import: what is applied stays, what waits is thrown away. A
// batch that is under way is finished first. Errors: NotFound; Conflict
// import_ended; those of may.
func (d *Dock) cancel(tx database.Tx, id uuid.UUID, may func(Import) error) (*Import, error) {
	var rows []Import
	if err := tx.Raw(`SELECT * FROM imports WHERE id = ? FOR UPDATE`, id).Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("lock import %s: %w", id, err)
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "import_not_found", "no import %s", id)
	}
	i := rows[0]
	if err := may(i); err != nil {
		return nil, err
	}
	if i.State == Done || i.State == Cancelled {
		return nil, fault.New(fault.Conflict, "import_ended", "import %s is %s already", id, i.State)
	}
	i.State, i.EndedAt = Cancelled, &tx.Now
	if err := tx.Exec(`DELETE FROM import_batches WHERE import_id = ?`, id).Error; err != nil {
		return nil, fmt.Errorf("cancel import %s: %w", id, err)
	}
	return &i, database.Update(tx, "imports", "state, ended_at", []Import{i})
}

// LineError is what was wrong with one line of a file.
type LineError struct {
	ImportID uuid.UUID    `json:"import_id"`
	Line     int          `json:"line"` // of the file, from 1
	Code     string       `json:"code"`
	Message  string       `json:"message"`
	Fields   []PlaceError `json:"fields" gorm:"serializer:json"`
}

// PlaceError is what was wrong in one place of a line.
type PlaceError struct {
	Column  string `json:"column" doc:"The column of a CSV file, or the field of a JSON line" example:"on_hand"`
	Message string `json:"message" doc:"What would be right" example:"must be 0 or more"`
}

// TableName names the table for GORM.
func (LineError) TableName() string { return "import_errors" }

// Errors returns what was wrong with lines behind after, at most limit of them.
func (d *Dock) Errors(ctx context.Context, id uuid.UUID, after, limit int) ([]LineError, error) {
	var rows []LineError
	if err := d.db.Read(ctx).Where("import_id = ? AND line > ?", id, after).Order("line").Limit(limit).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("errors of import %s: %w", id, database.Classify(err))
	}
	return rows, nil
}

// errorOf says what was wrong with a line, as the API would have refused it.
func (k *Kind) errorOf(i Import, line int, err error) LineError {
	p := web.Explain(err)
	e := LineError{ImportID: i.ID, Line: line, Code: p.Code, Message: ofLine(p.Detail), Fields: []PlaceError{}}
	if p.Status >= 500 {
		e.Message = "A mistake of ours: the log of the worker says more."
	}
	for _, f := range p.Errors {
		place := PlaceError{Column: k.place(i.Format, f.Location), Message: ofLine(f.Message)}
		if !slices.Contains(e.Fields, place) {
			e.Fields = append(e.Fields, place)
		}
	}
	return e
}

// ofLine says of a line what the API says of the body of a request.
func ofLine(s string) string {
	return strings.NewReplacer("The body", "The line", "of the body", "of the line", "of this request", "of this line", "The request", "The line", "this request", "a line").Replace(s)
}
