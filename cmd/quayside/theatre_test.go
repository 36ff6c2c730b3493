//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"

	"quayside/internal/orders"
)

// screen is what a terminal shows of what is written to it: enough of one to
// judge the theatre, and strict about all it does not know.
type screen struct {
	mu            sync.Mutex
	width, height int
	lines         [][]rune // with those that have scrolled away
	top           int      // the first line that is visible
	row, col      int
	hidden        bool // the cursor
	odd           []string
	rest          []byte // of a sequence that has not come whole
	changed       int    // frames that drew over an earlier one
}

var (
	sequence = regexp.MustCompile(`^\x1b\[(\??)([0-9;]*)([A-Za-z])`)
	prefix   = regexp.MustCompile(`^\x1b(\[\??[0-9;]*)?$`)
)

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := slices.Concat(s.rest, p)
	s.rest = nil
	for len(b) > 0 {
		if b[0] == '\x1b' {
			if prefix.Match(b) {
				s.rest = bytes.Clone(b)
				return len(p), nil
			}
			m := sequence.FindSubmatch(b)
			if m == nil {
				s.odd = append(s.odd, fmt.Sprintf("%.20q", b))
				return len(p), nil
			}
			s.control(string(m[1]), string(m[2]), string(m[3]))
			b = b[len(m[0]):]
			continue
		}
		if !utf8.FullRune(b) {
			s.rest = bytes.Clone(b)
			return len(p), nil
		}
		r, n := utf8.DecodeRune(b)
		s.print(r)
		b = b[n:]
	}
	return len(p), nil
}

func (s *screen) control(private, args, verb string) {
	n, _ := strconv.Atoi(args)
	switch private + verb {
	case "?h", "?l":
		if args != "25" {
			s.odd = append(s.odd, args+verb)
		}
		s.hidden = verb == "l"
	case "A":
		if s.row-s.top < n {
			s.odd = append(s.odd, fmt.Sprintf("up %d from row %d", n, s.row-s.top))
		}
		s.row, s.changed = max(s.row-n, s.top), s.changed+1
	case "K":
		s.line()
		s.lines[s.row] = s.lines[s.row][:min(s.col, len(s.lines[s.row]))]
	case "J":
		s.line()
		s.lines[s.row] = s.lines[s.row][:min(s.col, len(s.lines[s.row]))]
		s.lines = s.lines[:s.row+1]
	case "m":
	default:
		s.odd = append(s.odd, private+args+verb)
	}
}

func (s *screen) line() {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, nil)
	}
}

func (s *screen) print(r rune) {
	switch r {
	case '\r':
		s.col = 0
		return
	case '\n':
		s.row++
	default:
		if s.col == s.width {
			s.row, s.col = s.row+1, 0
		}
		s.line()
		for len(s.lines[s.row]) <= s.col {
			s.lines[s.row] = append(s.lines[s.row], ' ')
		}
		s.lines[s.row][s.col] = r
		s.col++
	}
	s.line()
	s.top = max(s.top, s.row-s.height+1)
}

// text is all lines, those that have scrolled away first.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, l := range s.lines {
		b.WriteString(strings.TrimRight(string(l), " ") + "\n")
	}
	return b.String()
}

// actor is quayside on a terminal of its own.
type actor struct {
	*screen
	t     *testing.T
	cmd   *exec.Cmd
	tty   *os.File // our end
	ended chan struct{}
}

func onTerminal(t *testing.T, width, height int, env map[string]string, args ...string) *actor {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &actor{screen: &screen{width: width, height: height}, t: t, cmd: exec.Command(exe, args...), ended: make(chan struct{})}
	a.cmd.Env = []string{asQuayside + "=1", "PATH=" + os.Getenv("PATH"), "TERM=xterm-256color"}
	for name, value := range env {
		a.cmd.Env = append(a.cmd.Env, name+"="+value)
	}
	a.cmd.Dir = "/"
	if a.tty, err = pty.StartWithSize(a.cmd, &pty.Winsize{Rows: uint16(height), Cols: uint16(width)}); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		_, _ = io.Copy(a.screen, a.tty) // ends with an error when the other end closes
		close(read)
	}()
	go func() {
		_ = a.cmd.Wait()
		<-read
		close(a.ended)
	}()
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		_ = a.tty.Close()
		<-a.ended
		if t.Failed() {
			t.Logf("the screen:\n%s", a.text())
		}
	})
	return a
}

func (a *actor) until(what string, holds func(text string) bool) {
	a.t.Helper()
	(&world{t: a.t}).within(2*patience, what, func() bool {
		select {
		case <-a.ended:
			if !holds(a.text()) {
				a.t.Fatalf("it ended before %s", what)
			}
		default:
		}
		return holds(a.text())
	})
}

func (a *actor) exit() int {
	a.t.Helper()
	select {
	case <-a.ended:
	case <-time.After(2 * patience):
		a.t.Fatal("it does not end")
	}
	return a.cmd.ProcessState.ExitCode()
}

// sane checks what must be so of every terminal at every end.
func (a *actor) sane() {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hidden || len(a.odd) > 0 || a.col != 0 {
		a.t.Errorf("the cursor is hidden: %v, in column %d; what a terminal may not know: %q", a.hidden, a.col, a.odd)
	}
}

func count(text, pattern string) int {
	return len(regexp.MustCompile(`(?m)`+pattern).FindAllString(text, -1))
}

// On a terminal every scene has one row that changes in place; log lines go
// over the table and leave it whole; at the end each row is as it must be.
func TestTheatre(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	env := devEnv(dir)
	env["LOG_LEVEL"] = "warn" // so that the refused events are logged to the same terminal
	a := onTerminal(t, 160, 40, env, "dev", "--demo", "--once", "--data", filepath.Join(dir, "data"))
	a.until("a row that is being played", func(text string) bool { return count(text, `^▸ completed  +.*pending · 0\.00 · reserved`) == 1 })
	a.until("a row that is over while others wait", func(text string) bool {
		return count(text, `^✓ completed  +created pending completed → 3 × 200 OK +paid · 10\.00 · ready to ship +`) == 1 && count(text, `^· unknown-order +the money comes before`) == 1
	})
	a.until("the log line of the forgery", func(text string) bool { return strings.Contains(text, "bad_signature") })
	if code := a.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	a.sane()
	text := a.text()
	for _, row := range newDemo(nil, nil).rows {
		if n := count(text, `^[✓✗▸·] `+row.name+` `); n != 1 {
			t.Errorf("%s has %d rows", row.name, n)
		}
		if n := count(text, `^✓ `+row.name+` `); n != 1 {
			t.Errorf("%s is not over", row.name)
		}
	}
	contains(t, "the screen", text, "PayQI sends → gets", fmt.Sprintf("all %d invariants hold\n", len(invariantsOf(false))),
		"20×completed → 200 OK, 19 × 200 Already processed", "completed → 400 Invalid signature", "pending · 5.00 · reserved", "fulfilled · 10.00 · shipped",
		"payment_failed · 0.00 · reserved", "expired · 0.00 · released", "paid · 10.00 · held back", "order_expired, goods_gone · STOCK_GONE", "for a person to decide: ")
	if count(text, `^(orders|stock|mails) `) != 3 || strings.Contains(text, "scenes are over") {
		t.Errorf("the footer is still there")
	}
	if a.changed < 10 {
		t.Errorf("the table changed %d times only", a.changed)
	}
}

// On a small terminal the table fits all the same, and Ctrl-C leaves the
// terminal as it was.
func TestTheatreInterrupted(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	a := onTerminal(t, 60, 16, devEnv(dir), "dev", "--demo", "--data", filepath.Join(dir, "data"))
	a.until("the third scene to be over", func(text string) bool { return count(text, `[3-9] of \d+ scenes are over`) > 0 })
	if _, err := a.tty.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	if code := a.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	a.mu.Lock()
	if a.hidden || len(a.odd) > 0 {
		t.Errorf("the cursor is hidden: %v; %q", a.hidden, a.odd)
	}
	visible := len(a.lines) - a.top
	a.mu.Unlock()
	text := a.text()
	if n := count(text, `scene  `); n != 1 || visible > 16 {
		t.Errorf("the table is there %d times, and %d lines are visible", n, visible)
	}
	if strings.Contains(text, "Try next") || strings.Contains(text, "did not end as it should") {
		t.Errorf("what was stopped is called wrong, or finished")
	}
}

// Plain lines where nothing can be drawn in place, or nobody wants it.
func TestTheatrePlain(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		flag string
		env  map[string]string
	}{{"--plain", nil}, {"--once", map[string]string{"TERM": "dumb"}}} {
		dir := reachableDir(t)
		env := devEnv(dir)
		for k, v := range tc.env {
			env[k] = v
		}
		a := onTerminal(t, 200, 60, env, "dev", "--demo", "--once", tc.flag, "--ephemeral")
		if code := a.exit(); code != 0 {
			t.Errorf("%s: exit code %d", tc.flag, code)
		}
		a.sane()
		if a.changed > 0 || count(a.text(), `^✓ `) != len(newDemo(nil, nil).rows) || count(a.text(), `^    PayQI got `) != len(newDemo(nil, nil).rows) {
			t.Errorf("%s: it draws in place %d times", tc.flag, a.changed)
		}
	}
}

// What went wrong is shown, and is not called well.
func TestDemoNeverLies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.PayQITimestamp = timestampOff // so that what is stale is taken
	w.serve()
	w.work()
	d := newDemo(w.shop, w.payqi)
	d.rows = []*row{{scenario: mustFind(t, "forged")}, {scenario: mustFind(t, "stale")}}
	var out bytes.Buffer
	if err := d.play(t.Context(), d.printer(&out)); err != nil {
		t.Fatal(err)
	}
	d.showFailures(&out)
	if d.allWell() {
		t.Error("all is called well")
	}
	contains(t, "the demo", out.String(), "✓ forged-", "✗ stale-", "✗ stale did not end as it should:\n  payment.completed was answered 200 OK, it should be 400 Request too old\n")
	if table := strings.Join(d.frame(100, 30, paint{}), "\n"); !strings.Contains(table, "✗ stale ") || !strings.Contains(table, "2 of 2 scenes are over") {
		t.Errorf("the table:\n%s", table)
	}
}

func mustFind(t *testing.T, name string) scenario {
	t.Helper()
	s, ok := findScenario(name)
	if !ok {
		t.Fatalf("no scenario %s", name)
	}
	return s
}

// However wide the terminal, no line is wider, and the rows that are being
// played stay when there is no room for all.
func TestTableFits(t *testing.T) {
	t.Parallel()
	d := newDemo(nil, nil)
	for i, r := range d.rows {
		if i < 9 {
			r.begun, r.order = true, orders.View{ID: r.name, Status: orders.PaymentFailed}
			r.beats = []beat{{Event: "payment.created", Times: 1, Answers: []answer{{Status: 200, Text: "OK"}}}, {Event: "payment.completed", Times: 20, Answers: []answer{{Status: 200, Text: "OK"}, {Status: 200, Text: "Already processed"}}}}
		}
		if i < 6 {
			r.done = &performance{OK: true}
		}
	}
	for width := 40; width < 180; width += 7 {
		for _, height := range []int{8, 12, 24, 60} {
			lines := d.frame(width, height, paint{})
			if len(lines) >= height {
				t.Errorf("%d lines on a terminal of %d", len(lines), height)
			}
			for _, l := range lines {
				if cells(l) >= width {
					t.Errorf("%d wide on a terminal of %d: %s", cells(l), width, l)
				}
			}
			if text := strings.Join(lines, "\n"); height >= 12 && count(text, `^▸ `) != 3 {
				t.Errorf("%d × %d: not all that is being played is shown:\n%s", width, height, text)
			}
		}
	}
}

// A child that is killed in the middle of a frame leaves the cursor visible:
// every frame shows it again in the write that hides it.
func TestTheatreKilled(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	a := onTerminal(t, 100, 40, devEnv(dir), "dev", "--demo", "--data", filepath.Join(dir, "data"))
	a.until("the table", func(text string) bool { return count(text, `^▸ `) > 0 })
	if err := a.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.exit()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hidden {
		t.Error("the cursor is hidden")
	}
}
