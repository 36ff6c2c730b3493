package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// minMajor is the oldest PostgreSQL that we run on.
const minMajor = 14

// howToMend ends every message about missing binaries.
const howToMend = "install PostgreSQL 14 or newer, or set PG_BIN to the bin directory of one, or set DATABASE_URL and use `quayside serve` and `quayside work`"

// binaries is a directory with initdb and postgres.
type binaries struct {
	dir   string
	major int
}

type binariesWanted struct {
	major int    // of the data that is there; 0 when there is none yet
	dir   string // a place for a download when there is no cache directory
	as    *account
	log   func(format string, args ...any)
}

// findBinaries looks at PG_BIN, then in PATH and the usual places, newest first, and then
// downloads. PG_BIN=download goes straight to the download.
func findBinaries(ctx context.Context, w binariesWanted) (binaries, error) {
	switch dir := os.Getenv("PG_BIN"); dir {
	case "":
	case "download":
		return download(ctx, w)
	default:
		b, err := inspect(ctx, dir)
		if err != nil {
			return binaries{}, fmt.Errorf("PG_BIN is %s: %w: %s", dir, err, howToMend)
		}
		if w.major != 0 && b.major != w.major {
			return binaries{}, fmt.Errorf("PG_BIN is PostgreSQL %d, and %w", b.major, w.otherVersion())
		}
		return b, nil
	}
	for _, dir := range installedDirs() {
		b, err := inspect(ctx, dir)
		if err == nil && (w.major == 0 || b.major == w.major) {
			return b, nil
		}
	}
	return download(ctx, w)
}

// otherVersion says that the data wants binaries we do not have.
func (w binariesWanted) otherVersion() error {
	return fmt.Errorf("the data in %s is of PostgreSQL %d: install that version, or remove the directory to start empty",
		dataDir(w.dir, w.major), w.major)
}

// installedDirs are the directories that may hold binaries, the one in PATH first.
func installedDirs() []string {
	var dirs []string
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if initdb, err = filepath.EvalSymlinks(initdb); err == nil {
			dirs = append(dirs, filepath.Dir(initdb))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                   // Red Hat, from PostgreSQL's own packages
		"/usr/bin",                           // Fedora, Arch
		"/usr/libexec/postgresql*",           // Alpine
		"/opt/homebrew/opt/postgresql@*/bin", // Homebrew, Apple silicon
		"/usr/local/opt/postgresql@*/bin",    // Homebrew, Intel
		"/opt/local/lib/postgresql*/bin",     // MacPorts
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, _ := filepath.Glob(pattern) // the patterns are fine
		slices.SortFunc(found, func(a, b string) int { return lastNumber(b) - lastNumber(a) })
		dirs = append(dirs, found...)
	}
	return dirs
}

var (
	numberAtEnd = regexp.MustCompile(`(\d+)\D*$`)
	versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)
)

func lastNumber(s string) int {
	if m := numberAtEnd.FindStringSubmatch(s); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 0
}

// inspect asks the binaries in dir for their version.
func inspect(ctx context.Context, dir string) (binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return binaries{}, err
	}
	for _, name := range []string{"initdb", "postgres"} {
		if !exists(filepath.Join(dir, name)) {
			return binaries{}, fmt.Errorf("there is no %s in it", name)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return binaries{}, fmt.Errorf("postgres --version: %w", err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return binaries{}, fmt.Errorf("no version in %q", out)
	}
	major, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return binaries{}, err
	}
	if major < minMajor {
		return binaries{}, errors.New("it holds PostgreSQL " + string(m[1]))
	}
	return binaries{dir: dir, major: major}, nil
}
