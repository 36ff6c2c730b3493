package dock

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"quayside/internal/fault"
)

// The bounds of a file that comes in.
const (
	MaxBytes = 32 << 20  // of a file
	MaxLines = 1_000_000 // of a file
	maxLine  = 64 << 10  // bytes of one line
	maxBatch = 256 << 10 // bytes of one batch, and a line
)

// Layout is how the cells of a CSV file are to be read; zero for JSON lines.
type Layout struct {
	Separator string   `json:"separator,omitempty"`
	Columns   []string `json:"columns,omitempty"`
}

// batch is a stretch of whole lines, as they came.
type batch struct {
	line  int // of the file, where body begins, from 1
	lines int // that count: blank ones do not
	body  []byte
}

// cut reads a file far enough to know that its lines can be read one by one,
// and cuts it into batches, which are parts of data. Errors name the line.
func cut(k *Kind, f Format, data []byte) (Layout, []batch, error) {
	if err := readable(data); err != nil {
		return Layout{}, nil, err
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some programs begin a file so
	if f == Lines {
		batches, err := cutLines(k, data)
		return Layout{}, batches, err
	}
	return cutCSV(k, data)
}

func unreadable(line int, mend string) error {
	return fault.New(fault.Invalid, "unreadable_file", "The file cannot be read; nothing of it was imported.").
		With(fault.Field{Location: fmt.Sprintf("line %d", line), Message: mend})
}

// lineAt is the number of the line that holds the byte at offset.
func lineAt(data []byte, offset int) int { return 1 + bytes.Count(data[:offset], []byte("\n")) }

// readable refuses what is no text in UTF-8.
func readable(data []byte) error {
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return unreadable(1, "is in UTF-16: save the file in UTF-8")
	case bytes.HasPrefix(data, []byte("PK\x03\x04")):
		return unreadable(1, "is a spreadsheet's own format: save it as CSV")
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return unreadable(lineAt(data, i), "holds NUL (U+0000): take it out, or save the file in UTF-8")
	}
	if utf8.Valid(data) {
		return nil
	}
	i := 0
	for i < len(data) {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		i += size
	}
	return unreadable(lineAt(data, i), "is not UTF-8: save the file in UTF-8")
}

// cutter collects lines into batches.
type cutter struct {
	kind    *Kind
	data    []byte
	batches []batch
	start   int // of the batch that is being collected
	line    int // at start
	lines   int
	all     int
}

// add takes the line that ends before end into the batch. It began at begin.
func (c *cutter) add(line, begin, end int) error {
	if end-begin > maxLine {
		return unreadable(line, fmt.Sprintf("is longer than %d bytes: is a quote missing?", maxLine))
	}
	c.lines++
	if c.all++; c.all > MaxLines {
		return fault.New(fault.Unprocessable, "too_many_lines", "The file has more than %d lines: cut it into several; nothing of it was imported.", MaxLines)
	}
	if c.lines >= c.kind.batch || end-c.start >= maxBatch {
		c.close(end)
	}
	return nil
}

func (c *cutter) close(end int) {
	if c.lines > 0 {
		c.batches = append(c.batches, batch{line: c.line, lines: c.lines, body: c.data[c.start:end]})
	}
	c.line += bytes.Count(c.data[c.start:end], []byte("\n"))
	c.start, c.lines = end, 0
}

func (c *cutter) finish() ([]batch, error) {
	c.close(len(c.data))
	if c.batches == nil {
		return nil, fault.New(fault.Unprocessable, "empty_file", "The file has no lines to import.")
	}
	return c.batches, nil
}

func cutLines(k *Kind, data []byte) ([]batch, error) {
	c := &cutter{kind: k, data: data, line: 1}
	for at, line := 0, 1; at < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if len(bytes.TrimSpace(data[at:end])) > 0 {
			if err := c.add(line, at, end); err != nil {
				return nil, err
			}
		}
		at = end
	}
	return c.finish()
}

func cutCSV(k *Kind, data []byte) (Layout, []batch, error) {
	first, _, _ := bytes.Cut(data, []byte("\n"))
	if !bytes.Contains(data, []byte("\n")) && bytes.Contains(data, []byte("\r")) {
		return Layout{}, nil, unreadable(1, "ends with CR alone: save the file with LF or CRLF at the end of lines")
	}
	l := Layout{Separator: separator(first)}
	r := l.reader(data)
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return l, nil, fault.New(fault.Unprocessable, "empty_file", "The file is empty: its first line must name the columns, %s.", strings.Join(k.Columns(), ","))
	}
	if err != nil {
		return l, nil, misquoted(err)
	}
	for _, name := range header {
		l.Columns = append(l.Columns, strings.ToLower(strings.TrimSpace(name)))
	}
	if err := k.checkColumns(l.Columns); err != nil {
		return l, nil, err
	}
	begin := int(r.InputOffset())
	c := &cutter{kind: k, data: data, start: begin, line: 1 + bytes.Count(data[:begin], []byte("\n"))}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			batches, err := c.finish()
			return l, batches, err
		}
		if err != nil {
			return l, nil, misquoted(err)
		}
		end := int(r.InputOffset())
		if !blank(record) {
			line, _ := r.FieldPos(0)
			if err := c.add(line, begin, end); err != nil {
				return l, nil, err
			}
		}
		begin = end
	}
}

// separator is what stands between the names of the columns. No name holds any
// of these; spreadsheets write semicolons where decimals have a comma.
func separator(header []byte) string {
	best := ","
	for _, s := range []string{";", "\t"} {
		if bytes.Count(header, []byte(s)) > bytes.Count(header, []byte(best)) {
			best = s
		}
	}
	return best
}

// reader reads the records of a stretch of the file, of whatever length each.
func (l Layout) reader(data []byte) *csv.Reader {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comma, r.FieldsPerRecord, r.ReuseRecord = rune(l.Separator[0]), -1, true
	return r
}

func misquoted(err error) error {
	pe, ok := errors.AsType[*csv.ParseError](err)
	if !ok {
		return err
	}
	return unreadable(pe.StartLine, `has a quote that is not closed, or stands in the middle of a cell: a cell that holds " is written in quotes, with "" for it`)
}

// blank reports whether a record is one of the rows of nothing but separators
// that spreadsheets leave behind their last one.
func blank(record []string) bool {
	return !slices.ContainsFunc(record, func(cell string) bool { return strings.TrimSpace(cell) != "" })
}
