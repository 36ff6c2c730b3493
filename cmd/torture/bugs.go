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
	faults      []string // under which it shows; none: it shows in calm
	holds       []int64  // how long each lasts, in ms
	seconds     float64  // of calm before, or alone; 0: a few
}

// change replaces one piece of a source file, which must be there exactly once.
type change struct{ file, old, fresh string }

var bugs = []bug{
	{
		name: "answer-before-commit", about: "200 is answered as soon as the event is in the writers' queue",
		changes: []change{{"internal/webhooks/keep.go", "\tfor d := range in.queued {\n\t\tbatch = append(batch[:0], d)", "\tfor d := range in.queued {\n\t\td.done <- outcome{answer: stored}\n\t\td.done = make(chan outcome, 1)\n\t\tbatch = append(batch[:0], d)"}},
		faults:  []string{"postgres-kill"},
	},
	{
		name: "no-amount-check", about: "any money pays an order",
		changes: []change{{"internal/orders/file.go", "return f.Got.IsPositive() && f.Got.GreaterThanOrEqual(f.owed().Sub(f.terms.Tolerance))", "return f.Got.IsPositive()"}},
	},
	{
		name: "refund-not-booked", about: "what was got beyond the total is nowhere due back",
		changes: []change{{"internal/orders/follow.go", "\tf.RefundDue = f.Got.Sub(applied)\n", "\tf.RefundDue = f.Got.Sub(applied).Sub(f.Got.Sub(applied))\n"}},
	},
}

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
	p := plan{Seed: seed}
	for i, name := range b.faults {
		hold := int64(2000)
		if i < len(b.holds) {
			hold = b.holds[i]
		}
		p.Blows = append(p.Blows, blow{Fault: name, HoldMS: hold, RestMS: 500})
	}
	return p
}

// catch runs the torture on a program with the bug, and says which check
// caught it first; "" when none did.
func (b bug) catch(ctx context.Context, o options, out io.Writer) (by string, err error) {
	o.bug, o.minutes, o.rate = b.name, max(b.seconds, 10)/60, 10
	v, err := torture(ctx, o, b.planFor(o.seed), out)
	if err != nil || len(v.wrong) == 0 {
		return "", err
	}
	return v.wrong[0], nil
}

// catchAll runs every seeded bug. Its error says which were missed.
func catchAll(ctx context.Context, o options, out io.Writer) error {
	var missed []string
	for _, b := range bugs {
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
		return fmt.Errorf("%d of %d seeded bugs were missed: %s", len(missed), len(bugs), strings.Join(missed, ", "))
	}
	_, _ = fmt.Fprintf(out, "all %d seeded bugs were caught\n", len(bugs))
	return nil
}
