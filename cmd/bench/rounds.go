//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// sample is what one contender did in one round. What does not apply is zero.
type sample struct {
	events    int                      // answered, or applied
	errors    int                      // requests answered otherwise than 200, or not at all
	took      time.Duration            // for all of them
	p50, p99  time.Duration            // of an answer; of the idle contest p99 is p95
	serverCPU time.Duration            // of the contender's own processes
	storeCPU  time.Duration            // of Postgres and Redis
	idle      float64                  // share of a core that the idle contest's workers used while nothing happened
	pages     map[string]time.Duration // of the admin API, by address
	elsewhere float64                  // share of the machine that others took, 0 to 1
}

func (s sample) rate() float64 { return float64(s.events) / s.took.Seconds() }

// cpuPerEvent is in µs, and so is allPerEvent, with Postgres and Redis.
func (s sample) cpuPerEvent() float64 {
	return float64(s.serverCPU.Microseconds()) / float64(s.events)
}

func (s sample) allPerEvent() float64 {
	return float64((s.serverCPU + s.storeCPU).Microseconds()) / float64(s.events)
}

// contender is one of those who are measured in turn.
type contender struct {
	name string
	run  func(ctx context.Context, round int) (sample, error)
}

// round is one turn of all contenders, by name.
type round map[string]sample

// disturbed is the largest share that others took of the machine in one of the turns.
func (r round) disturbed() (most float64) {
	for _, s := range r {
		most = max(most, s.elsewhere)
	}
	return most
}

// contest is contenders that took turns.
type contest struct {
	name   string
	names  []string
	rounds []round // that count: the quiet ones; when there was none, all of them
	played int
	noisy  bool // no round was quiet, so nothing can be judged
}

// plan says how much is measured.
type plan struct {
	rounds  int           // that must count
	slot    time.Duration // of one contender in one round, where time is what ends it
	warmUp  time.Duration // of each server
	bound   float64       // share of the machine that others may take in a round that counts
	events  int           // of one round that ends when all is applied; a tenth for the references, which are slower
	pings   int           // of one round of the idle contest
	gets    int           // of each page in one round; their median counts
	peers   int           // most processes of Express
	history []int         // stored events at which the scale contest measures
	short   bool          // nothing is judged
}

// hold lets all contenders take turns until enough rounds were quiet, but at
// most twice as many. Every second round goes backwards, so that nobody is
// always first.
func (b *bench) hold(ctx context.Context, name string, contenders ...contender) (*contest, error) {
	c := &contest{name: name}
	for _, p := range contenders {
		c.names = append(c.names, p.name)
	}
	var loud []round
	for len(c.rounds) < b.plan.rounds && c.played < 2*b.plan.rounds {
		r, err := play(ctx, contenders, c.played)
		if err != nil {
			return nil, fmt.Errorf("%s, round %d: %w", name, c.played+1, err)
		}
		c.played++
		verdict := ""
		if r.disturbed() > b.plan.bound && !b.plan.short {
			loud = append(loud, r)
			verdict = ", discarded"
		} else {
			c.rounds = append(c.rounds, r)
		}
		b.say("%s, round %d: %s; elsewhere at most %.1f %% of the machine%s\n", name, c.played, r.line(c.names), 100*r.disturbed(), verdict)
		if b.plan.short {
			break
		}
	}
	if len(c.rounds) == 0 {
		c.rounds, c.noisy = loud, true
	}
	return c, nil
}

func play(ctx context.Context, contenders []contender, n int) (round, error) {
	order := slices.Clone(contenders)
	if n%2 == 1 {
		slices.Reverse(order)
	}
	r := round{}
	for _, p := range order {
		s, err := p.run(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		r[p.name] = s
	}
	return r, nil
}

func (r round) line(names []string) string {
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %.0f/s", name, r[name].rate()))
	}
	return strings.Join(parts, ", ")
}

// figure is a median over the rounds that count, and how far they were apart.
type figure struct {
	median, low, high float64
	counted, played   int
	noisy             bool
}

// over takes a figure from every round that counts.
func (c *contest) over(f func(round) float64) figure {
	var all []float64
	for _, r := range c.rounds {
		all = append(all, f(r))
	}
	slices.Sort(all)
	n := len(all)
	return figure{
		median: (all[(n-1)/2] + all[n/2]) / 2, low: all[0], high: all[n-1],
		counted: n, played: c.played, noisy: c.noisy,
	}
}

// ratio of two contenders in the same round.
func (c *contest) ratio(ours, theirs string, f func(sample) float64) figure {
	return c.over(func(r round) float64 { return f(r[ours]) / f(r[theirs]) })
}

// best is the contender with the highest median rate among those whose name
// begins and ends so, "" when there is none.
func (c *contest) best(beginning, end string) (name string) {
	most := -1.0
	for _, n := range c.names {
		if m := c.over(func(r round) float64 { return r[n].rate() }).median; strings.HasPrefix(n, beginning) && strings.HasSuffix(n, end) && m > most {
			name, most = n, m
		}
	}
	return name
}

// table prints the medians of all contenders.
func (c *contest) table(w io.Writer) {
	_, _ = fmt.Fprintf(w, "\n%-34s %9s %9s %9s %8s %12s %12s %10s\n", c.name, "events/s", "p50 ms", "p99 ms", "errors", "CPU µs/event", "with stores", "elsewhere")
	for _, n := range c.names {
		of := func(f func(sample) float64) float64 {
			return c.over(func(r round) float64 { return f(r[n]) }).median
		}
		_, _ = fmt.Fprintf(w, "  %-32s %9.0f %9.2f %9.2f %8.0f %12.0f %12.0f %8.1f %%\n", n, of(sample.rate),
			of(func(s sample) float64 { return ms(s.p50) }), of(func(s sample) float64 { return ms(s.p99) }),
			of(func(s sample) float64 { return float64(s.errors) }), of(sample.cpuPerEvent), of(sample.allPerEvent),
			of(func(s sample) float64 { return 100 * s.elsewhere }))
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
