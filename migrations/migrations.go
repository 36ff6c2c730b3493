// Package migrations carries the schema inside the binary. go:embed cannot
// reach up out of a directory, so this one Go file lives beside the SQL.
package migrations

import "embed"

// FS holds the numbered goose migrations, forward only.
//
//go:embed *.sql
var FS embed.FS
