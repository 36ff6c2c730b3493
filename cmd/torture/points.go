//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// modes are the ways in which a process is struck at a crash point.
var modes = []string{"exit", "panic", "stall", "cancel"}

// point is a crash point, as it was passed by one role.
type point struct{ role, name string }

// pointStruck is what came of one crash point in one mode.
type pointStruck struct {
	point
	mode     string
	from, to time.Time
	err      error
}

// everyTurn is what a sweep tells for each crash point: an order to its end,
// one that is paid for twice and cancelled, and one that comes after its money.
func everyTurn(t *teller) {
	o, opened := t.open(0)
	if !opened {
		return
	}
	pay := t.name("pay")
	t.all(o, pay, []string{"created", "pending", "completed"})
	t.ship(o)
	if p, opened := t.open(0); opened {
		e := t.event("completed", p, t.name("pay"))
		_ = t.tell(e, e) && t.tell(t.event("completed", p, t.name("pay"))) && t.cancel(p)
	}
	beforeItsOrder(t)
	_, _ = t.open(time.Second)
}

// sweep strikes one process of a role at every point that the stories pass, in
// every mode, and lets them come to their end each time.
func (r *run) sweep(ctx context.Context) {
	seconds := slices.Concat(r.world.of("serve2"), r.world.of("work2")) // they are out, so that all goes past the first
	var err error
	for _, a := range seconds {
		err = errors.Join(err, a.fell(syscall.SIGKILL, 5*time.Second))
	}
	defer func() {
		for _, a := range seconds {
			if err := r.world.raise(ctx, a); err != nil {
				r.violate("%v", err)
			}
		}
	}()
	points, lost := r.discover(ctx)
	if err = errors.Join(err, lost); err != nil {
		r.violate("find the crash points: %v", err)
		return
	}
	if r.only != "" {
		points = slices.DeleteFunc(points, func(p point) bool { return !strings.Contains(p.role+" "+p.name, r.only) })
	}
	r.say("%d crash points × %d modes", len(points), len(modes))
	for i, p := range points {
		for _, mode := range modes {
			if ctx.Err() != nil {
				return
			}
			r.is(fmt.Sprintf("point %d of %d: %s %s, %s", i+1, len(points), p.role, p.name, mode))
			began := time.Now()
			err := r.strikeAt(ctx, p, mode)
			r.mu.Lock()
			r.points = append(r.points, pointStruck{p, mode, began, time.Now(), err})
			r.mu.Unlock()
			if err != nil {
				r.violate("crash point %s %s, %s: %v", p.role, p.name, mode, err)
			}
		}
	}
}

// discover tells the stories a few times and returns the points that each role passes.
func (r *run) discover(ctx context.Context) (points []point, err error) {
	r.is("finding the crash points")
	for _, role := range []string{"serve", "work"} { // anew: opening the shop is no part of it
		first := r.world.of(role)[0]
		if err := errors.Join(first.fell(syscall.SIGKILL, 5*time.Second), os.WriteFile(r.world.pointsOf(first), nil, 0o600), r.world.raise(ctx, first)); err != nil {
			return nil, err
		}
	}
	for range 3 {
		everyTurn(r.probe(0))
	}
	if err := r.settled(ctx, 20*time.Second); err != nil {
		return nil, err
	}
	for _, a := range slices.Concat(r.world.of("serve1"), r.world.of("work1")) {
		text, err := os.ReadFile(r.world.pointsOf(a))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			p := point{a.role, strings.TrimSpace(line)}
			if !slices.Contains(points, p) {
				points = append(points, p)
			}
		}
	}
	if len(points) == 0 {
		return nil, errors.New("none was passed")
	}
	return points, nil
}

// pointsOf is the file in which a process notes what it passes.
func (w *world) pointsOf(a *actor) string { return w.dir + "/" + a.name + ".points" }

// strikeAt gives the role's first process a life that ends, or stumbles, at p.
func (r *run) strikeAt(ctx context.Context, p point, mode string) error {
	victim := r.world.of(p.role)[0]
	if err := os.WriteFile(r.world.pointsOf(victim), nil, 0o600); err != nil {
		return err
	}
	if err := r.reborn(ctx, victim, p.name+"="+mode); err != nil {
		return err
	}
	hit := func() bool {
		text, err := os.ReadFile(r.world.pointsOf(victim))
		return err == nil && strings.Contains(string(text), "struck "+p.name+"\n")
	}
	for try := 0; try < 3 && !hit(); try++ {
		everyTurn(r.probe(try))
		_ = await(ctx, 2*time.Second, "the point to be passed", hit) // else once more
	}
	if !hit() {
		return errors.New("it was never passed")
	}
	err := r.settled(ctx, quietPatience) // a request for shipment has a lease, which a dead process keeps
	victim.mu.Lock()
	victim.doomed = ""
	victim.mu.Unlock()
	return err
}

// reborn ends a process and starts it with a crash point; "" is none.
func (r *run) reborn(ctx context.Context, victim *actor, doomed string) error {
	if !victim.now().ended() {
		if err := victim.fell(syscall.SIGKILL, 5*time.Second); err != nil {
			return err
		}
	}
	victim.mu.Lock()
	victim.doomed = doomed
	victim.mu.Unlock()
	return r.world.raise(ctx, victim)
}

// settled waits until nothing is left to be done, and asks what must always hold.
func (r *run) settled(ctx context.Context, patience time.Duration) error {
	var left []string
	err := await(ctx, patience, "all to come to rest", func() (rest bool) {
		query, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		var err error
		left, err = broken(query, r.world, eventually)
		return err == nil && len(left) == 0
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.Join(left, "; "))
	}
	found, err := broken(ctx, r.world, always)
	if err == nil && len(found) > 0 {
		err = errors.New(strings.Join(found, "; "))
	}
	return err
}
