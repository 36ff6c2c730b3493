package orders

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"gorm.io/gorm"

	"quayside/internal/database"
	"quayside/internal/fault"
)

// minSearch is the shortest text worth searching for, in characters.
const minSearch = 3

// search returns the newest orders that finders find and that pass the filter.
func (b *Book) search(ctx context.Context, finders []finder, filter func(*gorm.DB) *gorm.DB, limit int) (rows []Order, err error) {
	err = b.db.InSnapshot(ctx, func(tx database.Tx) error {
		// The best way depends on what is searched for: a plan made once for all would read the table.
		if err := tx.Exec(`SET LOCAL plan_cache_mode = force_custom_plan`).Error; err != nil {
			return err
		}
		return newest(found(tx.DB, finders, filter, limit), limit).Find(&rows).Error
	})
	return rows, err
}

// findersOf turns what a person typed into the ways an order may be found by
// it. Each has an index. Errors: Unprocessable for less than minSearch characters.
func findersOf(q string) ([]finder, error) {
	q = strings.TrimSpace(q)
	if utf8.RuneCountInString(q) < minSearch {
		return nil, fault.New(fault.Unprocessable, "invalid_search", "There is too little to search for.").
			With(fault.Field{Location: "query.q", Message: "must have 3 characters or more besides blanks"})
	}
	finders := []finder{
		{where: `lower(id) LIKE ?`, arg: likeEscaper.Replace(strings.ToLower(q)) + "%"},
		{where: `id IN (SELECT order_id FROM payments WHERE id = ?)`, arg: q},
		{where: `id IN (SELECT order_id FROM payments WHERE upper(tx_hash) = ? AND tx_hash IS NOT NULL AND counted <> 'reused')`, arg: claim(q)},
		{where: `id IN (SELECT order_id FROM payments WHERE upper(tx_hash) = ? AND counted = 'reused')`, arg: claim(q)},
		{where: `id IN (SELECT order_id FROM shipments WHERE upper(tracking_number) = ? AND tracking_number <> '')`, arg: strings.ToUpper(q)},
	}
	if words := beginnings(q); words != "" {
		finders = append(finders, finder{where: `words_of(customer_email, customer_name) @@ to_tsquery('simple', ?)`, arg: words, whole: true})
	}
	return finders, nil
}

// finder is one way to find orders.
type finder struct {
	where string
	arg   string
	whole bool // find all, then sort: Postgres cannot tell how many there are, and would read the table newest first for one of a million
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// beginnings asks for all words of q, each by its beginning: "ada@ex" finds
// ada@example.com. Words are parted as words_of in the database does, so that
// nothing that means something in a tsquery is left in them.
func beginnings(q string) string {
	words := strings.FieldsFunc(q, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r < utf8.RuneSelf && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	for i, w := range words {
		words[i] = w + ":*"
	}
	return strings.Join(words, " & ")
}

// found is the query of a page of orders that finders find: each of them for
// itself brings as much of the page as it has, newest first, so that one that
// matches much does not make the others slow.
func found(db *gorm.DB, finders []finder, filter func(*gorm.DB) *gorm.DB, limit int) *gorm.DB {
	parts, args := make([]string, len(finders)), make([]any, len(finders))
	for i, f := range finders {
		part := filter(db.Table("orders").Select("id, created_at").Where(f.where, f.arg))
		if f.whole {
			part = db.Table("(? OFFSET 0) AS matches", part)
		}
		parts[i], args[i] = "(?)", newest(part.Select("id"), limit)
	}
	return db.Where("id IN (?)", gorm.Expr(strings.Join(parts, " UNION "), args...))
}
