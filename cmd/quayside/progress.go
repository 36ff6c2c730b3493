package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	drawEvery = 100 * time.Millisecond
	tellEvery = 5 * time.Second // where nothing can be drawn
)

// progress shows on stderr how far something long is: a bar on a terminal, a
// line now and then elsewhere.
type progress struct {
	out   io.Writer
	what  string
	total int64
	bar   *progressbar.ProgressBar // nil where nothing can be drawn
	said  time.Time
	done  int64
}

// newProgress begins to show how many of total are done.
func (a *app) newProgress(what string, total int64) *progress {
	p := &progress{out: a.stderr, what: what, total: total, said: time.Now()}
	if kind, _ := a.lookup("TERM"); total > 0 && kind != "dumb" && isTerminal(a.stderr) {
		p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetDescription(what), progressbar.OptionShowCount(),
			progressbar.OptionSetItsString("lines"), progressbar.OptionShowIts(), progressbar.OptionFullWidth(), progressbar.OptionThrottle(drawEvery), progressbar.OptionUseANSICodes(true))
	}
	return p
}

// set says how many are done by now.
func (p *progress) set(done int64) {
	p.done = done
	switch {
	case p.bar != nil:
		_ = p.bar.Set64(done) // an error is one of the terminal
	case time.Since(p.said) >= tellEvery:
		p.said = time.Now()
		_, _ = fmt.Fprintf(p.out, "%s: %d of %d\n", p.what, done, p.total)
	}
}

func (p *progress) add(n int) { p.set(p.done + int64(n)) }

// end leaves the bar as it stands.
func (p *progress) end() {
	if p != nil && p.bar != nil {
		_ = p.bar.Exit()
		_, _ = fmt.Fprintln(p.out)
		p.bar = nil
	}
}
