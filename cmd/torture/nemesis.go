//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

// blow is one fault of a plan.
type blow struct {
	Fault  string `json:"fault"`
	Target string `json:"target,omitempty"` // an actor's name or role; empty: all, or the fault has none
	HoldMS int64  `json:"hold_ms"`
	RestMS int64  `json:"rest_ms"`        // calm after all is well again
	With   string `json:"with,omitempty"` // a second fault at the same time
}

func (b blow) String() string {
	s := b.Fault
	if b.Target != "" {
		s += " " + b.Target
	}
	if b.With != "" {
		s += " with " + b.With
	}
	return fmt.Sprintf("%s, %.1f s", s, float64(b.HoldMS)/1000)
}

// plan is what a run does to its world, all of it drawn before it begins.
type plan struct {
	Seed  uint64 `json:"seed"`
	Blows []blow `json:"blows"`
}

// estimate is how long a blow takes when all goes well.
func (b blow) estimate() time.Duration {
	return time.Duration(b.HoldMS+b.RestMS)*time.Millisecond + 4*time.Second
}

// drawPlan fills the time with faults: each of those allowed once before any
// comes again, and every sixth with another at the same time.
func drawPlan(seed uint64, allowed []fault, length time.Duration) plan {
	rng := rand.New(rand.NewPCG(seed, 1<<41)) //nolint:gosec // it must be the same again
	p := plan{Seed: seed}
	var deck []fault
	draw := func() fault {
		if len(deck) == 0 {
			deck = append(deck, allowed...)
			rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		f := deck[0]
		deck = deck[1:]
		return f
	}
	for left := length; left > 0 && len(allowed) > 0; {
		f := draw()
		b := blow{Fault: f.name, HoldMS: f.hold.Milliseconds() + rng.Int64N(f.hold.Milliseconds()/2+1), RestMS: 500 + rng.Int64N(1500)}
		if f.targets != nil {
			b.Target = f.targets[rng.IntN(len(f.targets))]
		}
		if len(p.Blows)%6 == 5 {
			if other := allowed[rng.IntN(len(allowed))]; mayMeet(f, other) {
				b.With, b.HoldMS = other.name, max(b.HoldMS, other.hold.Milliseconds())
			}
		}
		p.Blows = append(p.Blows, b)
		left -= b.estimate()
	}
	return p
}

// area is the first word of a fault's name.
func area(name string) string {
	a, _, _ := strings.Cut(name, "-")
	return a
}

func ofProcesses(area string) bool {
	return strings.HasPrefix(area, "serve") || strings.HasPrefix(area, "work")
}

// mayMeet reports whether two faults can be had at once: each must still be
// able to prove that it happened to what is ours.
func mayMeet(f, other fault) bool {
	alone := map[string]bool{"rolling": true, "secret": true, "storm": true, "slow": true, "all": true}
	a, b := area(f.name), area(other.name)
	noLetters := a == "mail" && (b == "postgres" || b == "work") || b == "mail" && (a == "postgres" || a == "work")
	return a != b && !alone[a] && !alone[b] && !noLetters && !(ofProcesses(a) && ofProcesses(b)) &&
		!strings.HasSuffix(f.name, "unapplied") && !strings.HasSuffix(other.name, "unapplied")
}

func readPlan(path string) (p plan, err error) {
	text, err := os.ReadFile(path) //nolint:gosec // the user's own path
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	for _, b := range p.Blows {
		for _, name := range []string{b.Fault, b.With} {
			if _, known := faultNamed(name); name != "" && !known {
				return p, fmt.Errorf("%s: there is no fault %q: see --list", path, name)
			}
		}
	}
	return p, nil
}

// struck is what came of a blow.
type struck struct {
	blow
	from, to time.Time // from the first harm until all is well again
	evidence []string
	recovery time.Duration
	bound    time.Duration
	err      error
}

// strike does one blow and waits until all is well again.
func (r *run) strike(ctx context.Context, number int, b blow) (s struck) {
	s = struck{blow: b, from: time.Now()}
	rng := rand.New(rand.NewPCG(r.plan.Seed, 1<<42+uint64(number))) //nolint:gosec // it must be the same again
	var attacks []*attack
	for i, name := range []string{b.Fault, b.With} {
		f, known := faultNamed(name)
		if !known {
			continue
		}
		a := &attack{w: r.world, s: r.sender, probe: r.probe, aside: r.telling.Go, rng: rng, target: b.Target}
		if i == 1 {
			a.target = ""
			if f.targets != nil {
				a.target = f.targets[rng.IntN(len(f.targets))]
			}
		}
		if ofProcesses(area(name)) {
			a.last = 1
		}
		attacks = append(attacks, a)
		s.bound = max(s.bound, f.bound)
		if err := f.inject(ctx, a); err != nil {
			s.err = errors.Join(s.err, fmt.Errorf("%s: %w", name, err))
		}
	}
	s.err = errors.Join(s.err, sleep(ctx, time.Duration(b.HoldMS)*time.Millisecond))
	slices.SortStableFunc(attacks, func(a, b *attack) int { return cmp.Compare(a.last, b.last) })
	for _, a := range attacks {
		s.err = errors.Join(s.err, a.end())
	}
	ended := time.Now()
	s.bound = time.Duration(float64(s.bound) * r.slack)
	if s.err == nil {
		s.err = r.wellAgain(ctx, ended, s.bound)
	}
	s.to = time.Now()
	s.recovery = s.to.Sub(ended)
	for _, a := range attacks {
		if len(a.evidence) == 0 {
			s.err = errors.Join(s.err, errors.New("nothing shows that it happened"))
		}
		s.evidence = append(s.evidence, a.evidence...)
	}
	return s
}

// wellAgain waits until every serve is ready, a new order is paid, and nothing
// waits that had come before the end of the fault.
func (r *run) wellAgain(ctx context.Context, ended time.Time, bound time.Duration) error {
	patience := bound + r.patience()
	under, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not well again after %s", patience))
	defer cancel()
	t := r.probe(0)
	t.ctx = under
	o, opened := t.open(0)
	if opened {
		opened = t.tell(t.event("completed", o, t.name("pay")))
	}
	if !opened {
		return context.Cause(under)
	}
	return await(under, patience, "all to be well", func() bool {
		for _, serve := range r.world.of("serve") {
			if !serve.answers(under) {
				return false
			}
		}
		query, stop := context.WithTimeout(under, 2*time.Second)
		defer stop()
		well, err := one[bool](query, r.world, `SELECT EXISTS (SELECT 1 FROM orders WHERE id = $1 AND status = 'paid')
			AND NOT EXISTS (SELECT 1 FROM inbox_open o JOIN inbox i ON i.id = o.inbox_id WHERE o.state = 'received' AND i.received_at <= $2)`, o.id, ended)
		return err == nil && well
	})
}
