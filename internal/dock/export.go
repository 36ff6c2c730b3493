package dock

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/web"
)

// Format is how a file is written.
type Format string

// The formats. Both are UTF-8.
const (
	CSV   Format = "csv"   // RFC 4180, the first line names the columns
	Lines Format = "jsonl" // one JSON object a line
)

// Query says which rows of a table go out.
type Query struct {
	From, To time.Time // half-open; zero: no bound
	State    string    // "": all
	Format   Format
}

// Progress hears how far an export is: at its beginning how many rows there
// are, then how many more went out. Either may be nil.
type Progress struct {
	Total func(rows int64)
	Wrote func(rows int)
}

const (
	fetchRows = 500 // in memory at once

	// An export may take longer than a request, and its reader be slower than the
	// database. It holds a snapshot as long, so there is an end to it.
	exportTimeout   = 30 * time.Minute
	exportStatement = "60s"
	exportIdle      = "60s"
)

// Export writes the rows of t that q asks for, all of one moment of the
// database: what is written meanwhile is not in it. ctx says who reads, and so
// whether customers' names and addresses are masked. Errors: Unavailable; those
// of out.
func Export(ctx context.Context, db *database.DB, t *Table, q Query, out *bufio.Writer, p Progress) error {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	return db.InSnapshot(ctx, func(tx database.Tx) error {
		for _, set := range []string{`SET LOCAL statement_timeout = '` + exportStatement + `'`, `SET LOCAL idle_in_transaction_session_timeout = '` + exportIdle + `'`} {
			if err := tx.Exec(set).Error; err != nil {
				return fmt.Errorf("prepare an export: %w", err)
			}
		}
		where, args := t.where(q)
		if p.Total != nil {
			var n int64
			if err := tx.Raw(`SELECT count(*) FROM `+t.from+where, args...).Scan(&n).Error; err != nil {
				return fmt.Errorf("count %s: %w", t.Name, err)
			}
			p.Total(n)
		}
		if q.Format == CSV {
			t.writeHeader(out)
		}
		if err := tx.Exec(`DECLARE export_`+t.Name+` NO SCROLL CURSOR FOR SELECT `+t.selected()+` FROM `+t.from+where+` ORDER BY `+t.order, args...).Error; err != nil {
			return fmt.Errorf("read %s: %w", t.Name, err)
		}
		for {
			n, err := t.fetch(ctx, tx, q.Format, out)
			if err != nil || n == 0 {
				return err
			}
			if p.Wrote != nil {
				p.Wrote(n)
			}
		}
	})
}

func (t *Table) where(q Query) (string, []any) {
	var conditions []string
	var args []any
	add := func(condition string, arg any) {
		conditions, args = append(conditions, condition), append(args, arg)
	}
	if !q.From.IsZero() {
		add(t.at+" >= ?::timestamptz", q.From.UTC())
	}
	if !q.To.IsZero() {
		add(t.at+" < ?::timestamptz", q.To.UTC())
	}
	if q.State != "" && t.Filter != "" {
		add(t.state+" = ?::text", q.State)
	}
	if conditions == nil {
		return "", nil
	}
	return " WHERE " + strings.Join(conditions, " AND "), args
}

func (t *Table) selected() string {
	list := make([]string, len(t.columns))
	for i, c := range t.columns {
		list[i] = c.sql
	}
	return strings.Join(list, ", ")
}

// fetch writes the next rows and says how many there were.
func (t *Table) fetch(ctx context.Context, tx database.Tx, f Format, out *bufio.Writer) (n int, err error) {
	rows, err := tx.Raw(fmt.Sprintf(`FETCH %d FROM export_%s`, fetchRows, t.Name)).Rows()
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", t.Name, err)
	}
	defer func() { _ = rows.Close() }()
	cells := make([]sql.NullString, len(t.columns))
	into := make([]any, len(cells))
	for i := range cells {
		into[i] = &cells[i]
	}
	for ; rows.Next(); n++ {
		if err := rows.Scan(into...); err != nil {
			return n, fmt.Errorf("read %s: %w", t.Name, err)
		}
		if err := t.writeRow(ctx, f, cells, out); err != nil {
			return n, err
		}
	}
	if err := rows.Err(); err != nil {
		return n, fmt.Errorf("read %s: %w", t.Name, err)
	}
	return n, nil
}

func (t *Table) names() []string {
	list := make([]string, len(t.columns))
	for i, c := range t.columns {
		list[i] = c.name
	}
	return list
}

func (t *Table) writeHeader(out *bufio.Writer) {
	_, _ = out.WriteString(strings.Join(t.names(), ",") + "\r\n")
}

// writeRow returns the error of the reader, as soon as a bufio.Writer knows it.
func (t *Table) writeRow(ctx context.Context, f Format, cells []sql.NullString, out *bufio.Writer) error {
	for i, c := range t.columns {
		value, err := c.value(ctx, cells[i].String)
		if err != nil {
			return err
		}
		if f == CSV {
			c.writeCell(out, i, cells[i].Valid, value)
		} else {
			c.writeField(out, i, cells[i].Valid, value)
		}
	}
	end := "}\n"
	if f == CSV {
		end = "\r\n"
	}
	_, err := out.WriteString(end)
	return err
}

// value is how a cell is shown to who reads.
func (c column) value(ctx context.Context, s string) (string, error) {
	switch {
	case c.kind == personal:
		return web.Personal(ctx, s), nil
	case c.kind == money && s != "":
		d, err := decimal.NewFromString(s)
		if err != nil {
			return "", fmt.Errorf("%s: %w", c.name, err)
		}
		return web.Money{Decimal: d}.String(), nil
	}
	return s, nil
}

func (c column) writeCell(out *bufio.Writer, i int, set bool, value string) {
	if i > 0 {
		_ = out.WriteByte(',')
	}
	switch {
	case !set:
	case c.kind == text || c.kind == personal:
		writeText(out, value)
	default: // ours: a word, a time, an amount or a number
		_, _ = out.WriteString(value)
	}
}

func (c column) writeField(out *bufio.Writer, i int, set bool, value string) {
	before := ","
	if i == 0 {
		before = "{"
	}
	_, _ = out.WriteString(before + `"` + c.name + `":`)
	switch {
	case !set:
		_, _ = out.WriteString("null")
	case c.kind == number:
		_, _ = out.WriteString(value)
	default:
		text, err := json.Marshal(value)
		if err != nil {
			panic(err) // a string always encodes
		}
		_, _ = out.Write(text)
	}
}
