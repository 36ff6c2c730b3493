package web

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode"

	"github.com/google/uuid"

	"quayside/internal/fault"
)

// PageParams are the parameters of every list; embed it in an operation's input.
type PageParams struct {
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"How many at most"`
	After string `query:"after" maxLength:"1024" doc:"The next_cursor of the page before"`
}

// Page is the body of every list.
type Page[T any] struct {
	Data       []T     `json:"data" doc:"The rows of this page"`
	NextCursor *string `json:"next_cursor" doc:"Goes into after for the next page; null on the last"`
}

// NewPage returns the page of at most limit rows, where rows holds one more if
// there are more. cursor returns the cursor that continues behind a row.
func NewPage[T any](rows []T, limit int, cursor func(last T) string) Page[T] {
	if len(rows) <= limit {
		return Page[T]{Data: append([]T{}, rows...)}
	}
	rows = rows[:limit]
	next := cursor(rows[limit-1])
	return Page[T]{Data: rows, NextCursor: &next}
}

// EncodeCursor returns a cursor that holds parts: the sort key of the last row
// and its id. It is opaque to clients but not secret. Parts hold no control
// characters.
func EncodeCursor(parts ...string) string {
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err) // strings always encode
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// AfterID returns the id in the cursor of a list that is sorted by ids alone;
// nil for "". Errors: Invalid (invalid_cursor).
func AfterID(cursor string) (*uuid.UUID, error) {
	parts, err := DecodeCursor(cursor, 1)
	if err != nil || parts == nil {
		return nil, err
	}
	id, err := uuid.Parse(parts[0])
	if err != nil {
		return nil, BadCursor()
	}
	return &id, nil
}

// DecodeCursor returns the n parts of a cursor, or none for "". A client can
// make cursors up: the parts are text and nothing more. Errors: Invalid
// (invalid_cursor) for anything that EncodeCursor does not return for n parts.
func DecodeCursor(s string, n int) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(s)
	var parts []string
	if err == nil {
		err = json.Unmarshal(text, &parts)
	}
	if err != nil || len(parts) != n || EncodeCursor(parts...) != s || strings.ContainsFunc(strings.Join(parts, ""), unicode.IsControl) {
		return nil, BadCursor()
	}
	return parts, nil
}

// BadCursor is the refusal of a cursor whose parts make no sense in its list.
func BadCursor() error {
	return fault.New(fault.Invalid, "invalid_cursor", "The cursor is not one of ours; take next_cursor of the page before.").
		With(fault.Field{Location: "query.after", Message: "must be the next_cursor of the page before"})
}
