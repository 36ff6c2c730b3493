//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// bug is a mistake that somebody could have made, as a change of the source.
// A run on a program with it must fail, or the torture is worth nothing.
type bug struct {
	name, about string
	changes     []change
	blows       []blow // under which it shows; none: it shows in calm
}

// change replaces one piece of a source file, which must be there exactly once.
type change struct{ file, old, fresh string }

func bugNamed(name string) (bug, bool) {
	for _, b := range bugs {
		if b.name == name {
			return b, true
		}
	}
	return bug{}, false
}

// overlayOf writes the changed files of a bug and what `go build -overlay` wants
// to know of them. It fails when the source has moved on.
func overlayOf(root, dir, name string) (path string, err error) {
	b, known := bugNamed(name)
	if !known {
		return "", fmt.Errorf("there is no seeded bug %q: see --list", name)
	}
	texts, replace := map[string]string{}, map[string]string{}
	for i, c := range b.changes {
		file := filepath.Join(root, filepath.FromSlash(c.file))
		if _, read := texts[file]; !read {
			text, err := os.ReadFile(file) //nolint:gosec // of our own source
			if err != nil {
				return "", err
			}
			texts[file] = string(text)
		}
		if n := strings.Count(texts[file], c.old); n != 1 {
			return "", fmt.Errorf("seeded bug %s: %s holds %d times, and must once:\n%s\nThe source has changed: change cmd/torture/bugs.go with it", name, c.file, n, c.old)
		}
		texts[file] = strings.Replace(texts[file], c.old, c.fresh, 1)
		replace[file] = filepath.Join(dir, fmt.Sprintf("bug-%d.go", i))
	}
	for file, with := range replace {
		if err := os.WriteFile(with, []byte(texts[file]), 0o600); err != nil {
			return "", err
		}
	}
	path = filepath.Join(dir, "overlay.json")
	return path, writeJSON(path, map[string]any{"Replace": replace})
}

// planFor is the plan that shows a bug.
func (b bug) planFor(seed uint64) plan {
	return plan{Seed: seed, Blows: b.blows}
}

// catch runs the torture on a program with the bug, and says which check
// caught it first; "" when none did.
func (b bug) catch(ctx context.Context, o options, out io.Writer) (by string, err error) {
	o.bug, o.minutes, o.rate = b.name, 8.0/60, 12
	v, err := torture(ctx, o, b.planFor(o.seed), out)
	if err != nil || len(v.wrong) == 0 {
		return "", err
	}
	return v.wrong[0], nil
}

// catchAll runs every seeded bug. Its error says which were missed.
func catchAll(ctx context.Context, o options, out io.Writer) error {
	tried, missed := bugs, []string(nil)
	if len(o.named) > 0 {
		tried = nil
	}
	for _, name := range o.named {
		b, known := bugNamed(name)
		if !known {
			return fmt.Errorf("there is no seeded bug %q: see --list", name)
		}
		tried = append(tried, b)
	}
	for _, b := range tried {
		by, err := b.catch(ctx, o, io.Discard)
		switch {
		case err != nil:
			return fmt.Errorf("seeded bug %s: %w", b.name, err)
		case by == "":
			missed = append(missed, b.name)
			_, _ = fmt.Fprintf(out, "MISSED  %-24s %s\n", b.name, b.about)
		default:
			if len(by) > 200 {
				by = by[:200] + "…"
			}
			_, _ = fmt.Fprintf(out, "caught  %-24s %s\n        by %s\n", b.name, b.about, by)
		}
	}
	if missed != nil {
		return fmt.Errorf("%d of %d seeded bugs were missed: %s", len(missed), len(tried), strings.Join(missed, ", "))
	}
	_, _ = fmt.Fprintf(out, "all %d seeded bugs were caught\n", len(tried))
	return nil
}
