// Package dock is where files come in and go out: imports of products, stock
// and orders, line by line by the same rules as the API, and exports for
// accounting. It stands above the nouns and has no rules of its own.
package dock

import (
	"github.com/danielgtaylor/huma/v2"

	"quayside/internal/database"
	"quayside/internal/orders"
	"quayside/internal/queue"
)

// Dock carries files in and out.
type Dock struct {
	db      *database.DB
	bell    queue.Bell
	book    *orders.Book
	exports chan struct{} // one for each under way
}

// New returns a dock on db. Orders that come in are opened in book, which may
// be nil where no file is worked off.
func New(db *database.DB, bell queue.Bell, book *orders.Book) *Dock {
	return &Dock{db: db, bell: bell, book: book, exports: make(chan struct{}, maxExports)}
}

// AdminRoutes adds the operations on files to api.
func (d *Dock) AdminRoutes(api huma.API) {
	d.importRoutes(api)
	d.exportRoutes(api)
}
