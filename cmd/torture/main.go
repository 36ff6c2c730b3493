//go:build linux

// Command torture runs quayside in a world of its own, with a flood of true and
// false news, and does to it what the years would: `go run ./cmd/torture`. It
// journals on disk what was acknowledged, and proves at the end, past the
// program, that nothing was lost, nothing counted twice, and everything stands
// where it must. docs/reliability.md says what it promises and how to read it.
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintf(os.Stderr, "torture: %v\n", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	seed    uint64
	minutes float64
	rate    float64
	slack   float64
	faults  string
	plan    string
	bug     string
	bugs    bool
	named   []string // of the bugs; none: all
	list    bool
	sweep   bool
	only    string
	keep    bool
}

func readOptions(args []string) (o options, err error) {
	f := flag.NewFlagSet("torture", flag.ContinueOnError)
	f.Uint64Var(&o.seed, "seed", 0, "of shop, stories and plan; 0 draws one")
	f.Float64Var(&o.minutes, "minutes", 2, "how long to harm; to come to rest and the audit take longer")
	f.Float64Var(&o.rate, "rate", 8, "stories begun each second")
	f.Float64Var(&o.slack, "slack", 1, "times the bounds of recovery, on a machine that has other things to do")
	f.StringVar(&o.faults, "faults", "", "only these, with commas; a name may end in * (see --list)")
	f.StringVar(&o.plan, "plan", "", "do what this plan.json of an earlier run says, instead of drawing one")
	f.StringVar(&o.bug, "bug", "", "build this seeded bug into the program: the run must fail")
	f.BoolVar(&o.bugs, "bugs", false, "run every seeded bug, or those named as arguments, with what shows it, and say which check caught it")
	f.BoolVar(&o.list, "list", false, "list faults, stories and seeded bugs")
	f.BoolVar(&o.sweep, "crash-points", false, "instead of faults: strike a process at every crash point, in every way")
	f.StringVar(&o.only, "only", "", "of the crash points, those that hold this text, such as \"work notify\"")
	f.BoolVar(&o.keep, "keep", false, "keep journal, logs and database also when all went well")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.named = f.Args(); f.NArg() > 0 && !o.bugs {
		return o, fmt.Errorf("%q is no flag: see --help", f.Arg(0))
	}
	if !(o.minutes > 0 && o.minutes <= 24*60) || !(o.rate > 0 && o.rate <= 1000) {
		return o, errors.New("--minutes must be more than 0 and at most 1440, --rate more than 0 and at most 1000")
	}
	if !(o.slack >= 1 && o.slack <= 100) {
		return o, errors.New("--slack must be 1 to 100")
	}
	if o.seed == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		o.seed = binary.LittleEndian.Uint64(b[:]) >> 40
	}
	return o, nil
}

func command(ctx context.Context, args []string, out io.Writer) error {
	o, err := readOptions(args)
	if err != nil {
		return err
	}
	if o.list {
		list(out)
		return nil
	}
	if o.bugs {
		return catchAll(ctx, o, out)
	}
	p, err := planOf(o)
	if err != nil {
		return err
	}
	v, err := torture(ctx, o, p, out)
	if err != nil {
		return err
	}
	if len(v.wrong) > 0 {
		return fmt.Errorf("%d things are wrong", len(v.wrong))
	}
	return nil
}

// planOf draws the plan, or reads it.
func planOf(o options) (plan, error) {
	if o.sweep {
		return plan{Seed: o.seed}, nil
	}
	if b, known := bugNamed(o.bug); known && o.plan == "" && o.faults == "" {
		return b.planFor(o.seed), nil
	}
	if o.plan != "" {
		return readPlan(o.plan)
	}
	allowed, err := faultsNamed(o.faults)
	if err != nil {
		return plan{}, err
	}
	return drawPlan(o.seed, allowed, time.Duration(o.minutes*float64(time.Minute))), nil
}

func faultsNamed(names string) ([]fault, error) {
	if names == "" {
		return faults, nil
	}
	var allowed []fault
	for _, name := range strings.Split(names, ",") {
		start, prefix := strings.CutSuffix(strings.TrimSpace(name), "*")
		found := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
			return f.name != start && (!prefix || !strings.HasPrefix(f.name, start))
		})
		if len(found) == 0 {
			return nil, fmt.Errorf("--faults: there is no fault %q: see --list", name)
		}
		allowed = append(allowed, found...)
	}
	return allowed, nil
}

func list(out io.Writer) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	say("%d faults, each with the time within which all must be well again after it:", len(faults))
	for _, f := range faults {
		say("  %-24s %5s  %s", f.name, f.bound, f.about)
	}
	say("\n%d kinds of stories:", len(stories))
	for _, s := range stories {
		say("  %s", s.kind)
	}
	say("\n%d seeded bugs:", len(bugs))
	for _, b := range bugs {
		say("  %-24s %s", b.name, b.about)
	}
}

// writeJSON writes v to a file of the run.
func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600) //nolint:gosec // a path of our own
}

// quantile of values, in their unit; NaN when there are none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}
