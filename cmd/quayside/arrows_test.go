package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// arrows says which of our packages each package may import. It is the plan of
// the house; a change to it is a change of architecture, so argue for it in the
// commit message. Packages for tests stand here too; _test.go files are free.
var arrows = map[string][]string{
	"internal/browsertest":     {},
	"internal/fault":           {},
	"internal/crash":           {}, // nothing at all in a normal build
	"internal/database":        {"internal/crash", "internal/fault"},
	"internal/database/dbtest": {"internal/database", "internal/devstack", "migrations"},
	"internal/queue":           {"internal/crash", "internal/fault"},
	"internal/queue/queuetest": {"internal/queue"},
	"internal/web":             {"internal/fault"},
	"internal/access":          {"internal/database", "internal/fault", "internal/web"},
	"internal/payqi":           {"internal/fault"},
	"internal/inventory":       {"internal/access", "internal/database", "internal/fault", "internal/web"},
	"internal/notify":          {"internal/crash", "internal/access", "internal/database", "internal/fault", "internal/queue", "internal/web"},
	"internal/orders":          {"internal/access", "internal/database", "internal/fault", "internal/queue", "internal/web", "internal/inventory", "internal/notify", "internal/payqi"},
	"internal/webhooks":        {"internal/crash", "internal/access", "internal/database", "internal/fault", "internal/queue", "internal/web", "internal/orders", "internal/payqi"},
	"internal/dock":            {"internal/access", "internal/database", "internal/fault", "internal/queue", "internal/web", "internal/inventory", "internal/orders"},
	"internal/devstack":        {},
	"cmd/bench":                {"internal/devstack", "internal/web", "internal/webhooks"}, // beside the program, which it starts as others do
	"cmd/torture":              {"internal/devstack"},                                      // beside the program, which it starts and judges by rules of its own
	"migrations":               {},
}

// lone says which outside module may be imported by which of our packages only.
var lone = map[string][]string{
	"github.com/chromedp":                 {"internal/browsertest"},
	"github.com/hibiken/asynq":            {"internal/queue", "cmd/bench"},
	"github.com/redis/go-redis":           {"internal/queue", "internal/devstack", "cmd/quayside", "cmd/bench", "cmd/torture"},
	"github.com/wneessen/go-mail":         {"internal/notify"},
	"github.com/jackc/pgx":                {"internal/database", "internal/database/dbtest", "internal/devstack", "cmd/bench", "cmd/torture"},
	"github.com/Shopify/toxiproxy":        {"cmd/torture"},
	"gorm.io/driver/postgres":             {"internal/database", "cmd/bench"},
	"github.com/alicebob/miniredis":       {"internal/devstack"},
	"github.com/emersion/go-smtp":         {"internal/devstack"},
	"github.com/caarlos0/env":             {"cmd/quayside"},
	"github.com/spf13/cobra":              {"cmd/quayside"},
	"github.com/schollz/progressbar":      {"cmd/quayside"},
	"github.com/sony/gobreaker":           {"internal/payqi"},
	"github.com/pressly/goose":            {"internal/database"},
	"github.com/danielgtaylor/huma":       {"internal/web", "internal/access", "internal/dock", "internal/inventory", "internal/notify", "internal/orders", "internal/webhooks", "cmd/quayside"},
	"github.com/gin-gonic/gin":            {"internal/web", "internal/inventory", "internal/notify", "internal/orders", "internal/webhooks", "cmd/quayside", "cmd/bench"},
	"github.com/prometheus/client_golang": {"internal/queue", "internal/web", "internal/dock", "internal/inventory", "internal/notify", "internal/orders", "internal/webhooks", "cmd/quayside"},
}

// Nobody imports against the arrows, and every package is ruled.
func TestArrows(t *testing.T) {
	seen := map[string]bool{}
	for _, top := range []string{"cmd", "internal", "migrations"} {
		err := filepath.WalkDir("../../"+top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../../")
			if _, ruled := arrows[pkg]; !ruled && !seen[pkg] && !strings.HasPrefix(pkg, "cmd/") {
				t.Errorf("%s has no arrows yet: say in arrows_test.go what it may import", pkg)
			}
			seen[pkg] = true
			if !strings.HasSuffix(path, "_test.go") {
				checkImports(t, pkg, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for pkg := range arrows {
		if !seen[pkg] {
			t.Errorf("%s is ruled but has no Go file", pkg)
		}
	}
}

func checkImports(t *testing.T, pkg, path string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range f.Imports {
		dep := strings.Trim(spec.Path.Value, `"`)
		for module, may := range lone {
			if (dep == module || strings.HasPrefix(dep, module+"/")) && !slices.Contains(may, pkg) {
				t.Errorf("%s imports %s, which only %v may", path, dep, may)
			}
		}
		may, ruled := arrows[pkg]
		if own, ok := strings.CutPrefix(dep, "quayside/"); ok && ruled && !slices.Contains(may, own) {
			t.Errorf("%s imports %s, which %s may not", path, own, pkg)
		}
	}
}

// The table has no way round: following the arrows never leads back.
func TestArrowsHaveNoCircle(t *testing.T) {
	var follow func(pkg string, way []string)
	follow = func(pkg string, way []string) {
		if slices.Contains(way, pkg) {
			t.Fatalf("a circle: %v", append(way, pkg))
		}
		for _, next := range arrows[pkg] {
			follow(next, append(slices.Clone(way), pkg))
		}
	}
	for pkg := range arrows {
		follow(pkg, nil)
	}
}
