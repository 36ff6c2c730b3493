package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/term"
)

// theatre is a part of the terminal that is drawn again and again in place. A
// frame is one write, and the cursor is hidden only within it: whatever ends
// the program leaves it visible.
type theatre struct {
	paint
	out *os.File

	mu     sync.Mutex
	active bool
	lines  []string // on the screen now
	wide   int      // of the terminal when they were drawn
}

// newTheatre returns nil where nothing can be drawn in place.
func (a *app) newTheatre(plain bool) *theatre {
	kind, _ := a.lookup("TERM")
	f, ok := a.stdout.(*os.File)
	if plain || !ok || !isTerminal(f) || kind == "dumb" || runtime.GOOS == "windows" {
		return nil
	}
	return &theatre{out: f, paint: a.paint()}
}

func (t *theatre) width() int  { w, _ := t.size(); return w }
func (t *theatre) height() int { _, h := t.size(); return h }

func (t *theatre) size() (width, height int) {
	w, h, err := term.GetSize(int(t.out.Fd()))
	if err != nil || w < 1 || h < 1 {
		return 80, 24
	}
	return w, h
}

func (t *theatre) open() {
	t.mu.Lock()
	t.active = true
	t.mu.Unlock()
}

// close leaves what is on the screen there; it may be called twice.
func (t *theatre) close() {
	t.mu.Lock()
	t.active, t.lines = false, nil
	t.mu.Unlock()
}

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	eraseLine  = "\x1b[K" // from the cursor to the end of the line
	eraseBelow = "\x1b[J"
)

// draw puts lines where the last frame was.
func (t *theatre) draw(lines []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.active || slices.Equal(lines, t.lines) && t.wide == t.width() {
		return
	}
	t.frame(lines)
}

func (t *theatre) frame(lines []string) {
	var b strings.Builder
	b.WriteString(hideCursor + t.up())
	for _, l := range lines {
		b.WriteString(l + eraseLine + "\n")
	}
	b.WriteString(eraseBelow + showCursor)
	_, _ = t.out.WriteString(b.String())
	t.lines, t.wide = slices.Clone(lines), t.width()
}

// up moves to the first line of the last frame, also when the terminal has
// become narrower and has wrapped it.
func (t *theatre) up() string {
	rows := 0
	for _, l := range t.lines {
		rows += max(1, (cells(l)+t.width()-1)/t.width())
	}
	if rows == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\r", rows)
}

// finish draws the last frame, which may be higher than the screen, and
// leaves it there.
func (t *theatre) finish(lines []string) {
	t.draw(nil)
	t.draw(lines)
	t.close()
}

// above prints text that stays, over the table.
func (t *theatre) above(text []byte) (took bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.active {
		return false
	}
	lines := t.lines
	_, _ = t.out.WriteString(hideCursor + t.up() + eraseBelow + strings.TrimRight(string(text), "\n") + "\n")
	t.lines = nil
	t.frame(lines)
	return true
}

// aside is stderr while a table is drawn on the same terminal: log lines go
// over the table instead of through it.
type aside struct {
	*os.File
	screen atomic.Pointer[theatre]
}

func (a *aside) Write(p []byte) (int, error) {
	if t := a.screen.Load(); t != nil && t.above(p) {
		return len(p), nil
	}
	return a.File.Write(p)
}

// minding makes stderr mind the theatre, where both are terminals.
func (a *app) minding(t *theatre) {
	if f, ok := a.stderr.(*os.File); ok && t != nil && isTerminal(f) {
		side := &aside{File: f}
		side.screen.Store(t)
		a.stderr = side
	}
}

// cells is how many columns a line takes, without its colours.
func cells(s string) int {
	n, escape := 0, false
	for _, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case !escape:
			n++
		case r == 'm':
			escape = false
		}
	}
	return n
}

// fit cuts s to width columns, or fills it up.
func fit(s string, width int) string {
	n := utf8.RuneCountInString(s)
	if n <= width {
		return s + strings.Repeat(" ", width-n)
	}
	if width <= 1 {
		return strings.Repeat("…", max(width, 0))
	}
	return string([]rune(s)[:width-1]) + "…"
}
