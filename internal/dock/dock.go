// Package dock is where files come in and go out: imports of products, stock
// and orders, line by line by the same rules as the API, and exports for
// accounting. It stands above the nouns and has no rules of its own.
package dock

import (
	"github.com/danielgtaylor/huma/v2"

	"quayside/internal/database"
)

// Dock carries files in and out.
type Dock struct {
	db      *database.DB
	exports chan struct{} // one for each under way
}

// New returns a dock on db.
func New(db *database.DB) *Dock {
	return &Dock{db: db, exports: make(chan struct{}, maxExports)}
}

// AdminRoutes adds the operations on files to api.
func (d *Dock) AdminRoutes(api huma.API) {
	d.exportRoutes(api)
}
