//go:build linux

// Command bench measures quayside against references that run beside it, in
// turns, on the same machine: `go run ./cmd/bench`, or `make bench`. It brings
// everything along: a Postgres, a Redis, quayside built from this checkout, and
// the references. docs/performance.md says what it measures and why.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// part of the measuring.
type part struct {
	name string
	run  func(*bench, context.Context) error
}

// The parts, in the order in which they run.
var parts = []part{
	{"intake", (*bench).intake}, // goals 1 to 4
	{"apply", (*bench).apply},   // goals 5 and 6
	{"idle", (*bench).idle},     // goal 7
	{"scale", (*bench).scale},   // goal 8
}

func main() {
	if isReference(os.Args[1:]) {
		if err := reference(os.Args[1:]); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	*yard
	plan    plan
	sets    int          // of orders made so far, for names that come once
	paused  map[int]bool // Redis's databases whose letters wait
	results []result
}

// run is main without the process. Its error means that something could not be
// measured, or that what was posted is not what was applied; goals that are
// missed are no error.
func run(ctx context.Context, args []string, out io.Writer) error {
	p, only, err := parse(args, out)
	if err != nil {
		return err
	}
	began := time.Now()
	y, err := openYard(ctx, out)
	if err != nil {
		return err
	}
	b := &bench{yard: y, plan: p, paused: map[int]bool{}}
	defer func() { _ = y.close() }()
	if err := b.introduce(ctx, args); err != nil {
		return err
	}
	for _, part := range parts {
		if len(only) > 0 && !slices.Contains(only, part.name) {
			continue
		}
		if err := part.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	printResults(out, b.results, !p.short)
	b.say("\nall that was posted is stored and applied, and the books add up; took %s\n", time.Since(began).Round(time.Second))
	return y.close()
}

// parse reads the flags. --short is for tests of the benchmark itself.
func parse(args []string, out io.Writer) (p plan, only []string, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(out)
	var parted string
	f.StringVar(&parted, "only", "", "`parts` to measure, comma-separated: intake, apply, idle, scale; all without it")
	f.IntVar(&p.rounds, "rounds", 5, "that must count, in each part")
	f.DurationVar(&p.slot, "slot", 5*time.Second, "of one contender in one round")
	f.Float64Var(&p.bound, "elsewhere", 0.05, "share of the machine that other processes may take in a round that counts")
	stored := f.Int("stored", 5_000_000, "events in the largest database of the scale part; the middle one has a fifth")
	f.BoolVar(&p.short, "short", false, "a few seconds for each part, nothing judged: does the benchmark itself work?")
	if err := f.Parse(args); err != nil {
		return p, nil, err
	}
	p.warmUp, p.events, p.pings, p.gets, p.peers = 6*time.Second, 20_000, 40, 20, 2
	if p.short {
		p.rounds, p.slot, p.warmUp, p.events, p.pings, p.gets, p.peers, *stored = 1, time.Second/4, time.Second/10, 300, 2, 2, 1, 3000
	}
	p.history = []int{0, *stored / 5, *stored}
	if parted != "" {
		only = strings.Split(parted, ",")
	}
	for _, name := range only {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return p, nil, fmt.Errorf("--only: there is no part %q", name)
		}
	}
	if f.NArg() > 0 || p.rounds < 1 {
		return p, nil, fmt.Errorf("arguments %q: see --help", args)
	}
	return p, only, nil
}

func (b *bench) say(format string, args ...any) { _, _ = fmt.Fprintf(b.out, format, args...) }

// introduce says on what is measured: figures without it mean nothing.
func (b *bench) introduce(ctx context.Context, args []string) error {
	s, err := b.database(ctx, "settings", "")
	if err != nil {
		return err
	}
	defer s.Close()
	server, err := one[string](ctx, s, `SELECT 'Postgres ' || current_setting('server_version') || ' (fsync ' || current_setting('fsync')
		|| ', synchronous_commit ' || current_setting('synchronous_commit') || ', shared_buffers ' || current_setting('shared_buffers') || ')'`)
	if err != nil {
		return err
	}
	b.say("bench %s\n%s, commit %s, %d cores, %s, %s, %s, %s\n", strings.Join(args, " "), time.Now().UTC().Format(time.RFC3339),
		b.version(ctx, "git", "rev-parse", "--short", "HEAD"), runtime.NumCPU(), runtime.Version(), server,
		b.version(ctx, "redis-server", "--version"), "Node "+b.version(ctx, "node", "--version"))
	if b.plan.short {
		b.say("short: this shows that the benchmark works, not how fast anything is\n")
	}
	return nil
}

// version is the first line that a program prints, "none" when it is not there.
func (b *bench) version(ctx context.Context, name string, args ...string) string {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // programs named in this file
	cmd.Dir = b.root
	said, _ := cmd.Output() // not there: said is empty
	line, _, _ := strings.Cut(string(said), "\n")
	line, _, _ = strings.Cut(line, " sha=")
	return cmp.Or(strings.TrimSpace(line), "none")
}
