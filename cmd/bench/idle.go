//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"quayside/internal/devstack"
)

// pinger posts one event at a time to a service with nothing else to do.
type pinger struct {
	*target
	pending []byte
	applied string // a query: is the event $1 applied?
	idlers  []int  // processes whose idle CPU is measured
	rest    time.Duration
	idle    float64 // share of a core they used in the last round while nothing was posted
}

// ping is one round: so many single events, and then nothing for a while.
func (p *pinger) ping(ctx context.Context, b *bench) (s sample, err error) {
	set, n := b.set("p"), b.plan.pings
	if err := p.keep.script(ctx, p.pending, "{set}", set, "{n}", strconv.Itoa(n), "{skus}", "1"); err != nil {
		return s, err
	}
	var all []time.Duration
	before, err := lookAround()
	if err != nil {
		return s, err
	}
	for i, post := range presign(set, 0, n) {
		took, err := p.once(ctx, post)
		if err != nil {
			return s, err
		}
		all = append(all, took)
		<-time.After(time.Duration(20+i*37%100) * time.Millisecond) // in step with nobody's polling
	}
	after, err := lookAround()
	if err != nil {
		return s, err
	}
	s = sample{
		events: n, took: after.at.Sub(before.at), p50: percentile(all, .5), p99: percentile(all, .95),
		serverCPU: after.cpuSince(before, p.pids...), storeCPU: after.cpuSince(before, b.postgres.PID()), elsewhere: after.elsewhere(before),
	}
	err = p.doNothing(&s)
	return s, err
}

// once posts an event and looks every millisecond whether it is applied.
func (p *pinger) once(ctx context.Context, one post) (time.Duration, error) {
	l := &line{addr: p.addr}
	defer l.hangUp()
	conn, err := p.keep.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	began := time.Now()
	if a := l.post(ctx, one.wire); a.status != http.StatusOK {
		return 0, fmt.Errorf("%s was answered %d", one.key, a.status)
	}
	for time.Since(began) < applyPatience {
		var applied bool
		if err := conn.QueryRow(ctx, p.applied, one.key).Scan(&applied); err != nil {
			return 0, err
		}
		if applied {
			return time.Since(began), nil
		}
		<-time.After(time.Millisecond)
	}
	return 0, fmt.Errorf("%s is not applied after %s", one.key, applyPatience)
}

// doNothing measures what the idlers use when nothing is asked of them.
func (p *pinger) doNothing(s *sample) error {
	<-time.After(time.Second) // the last letters and their like
	before, err := lookAround()
	if err != nil {
		return err
	}
	<-time.After(p.rest)
	after, err := lookAround()
	if err != nil {
		return err
	}
	p.idle = float64(after.cpuSince(before, p.idlers...)) / float64(after.at.Sub(before.at))
	s.elsewhere = max(s.elsewhere, after.elsewhere(before))
	return nil
}

// idle measures goal 7: how long a single event waits when nothing is going on,
// and what the waiting costs.
func (b *bench) idle(ctx context.Context) (err error) {
	defer b.rest()
	second, err := devstack.StartRealRedis(ctx) // the reference polls its own
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.Stop()) }()
	shop, err := b.shop(ctx, "idle")
	if err != nil {
		return err
	}
	s, err := b.serve(ctx, shop, oursRedis)
	if err != nil {
		return err
	}
	w, err := b.work(shop, oursRedis)
	if err != nil {
		return err
	}
	plain, err := b.referenceStore(ctx, "idle_naive")
	if err != nil {
		return err
	}
	naive, err := b.startNaive(ctx, plain, second.Addr, true)
	if err != nil {
		return err
	}
	ours := &pinger{
		target:  &target{name: "quayside", addr: s.addr, pids: []int{s.pid(), w.pid()}, keep: shop},
		pending: pendingSQL, applied: `SELECT EXISTS (SELECT FROM inbox WHERE key = $1 AND outcome = 'applied')`, idlers: []int{w.pid(), b.redis.PID()}, rest: 2 * b.plan.slot,
	}
	theirs := &pinger{
		target: naive, pending: peerPendingSQL, applied: `SELECT EXISTS (SELECT FROM events WHERE id = $1 AND processed_at IS NOT NULL)`,
		idlers: []int{naive.pids[1], second.PID()}, rest: 2 * b.plan.slot,
	}
	return b.compareIdle(ctx, ours, theirs)
}

func (b *bench) compareIdle(ctx context.Context, ours, theirs *pinger) error {
	const reference = "Asynq's defaults"
	pinging := func(p *pinger) func(context.Context, int) (sample, error) {
		return func(ctx context.Context, _ int) (sample, error) {
			s, err := p.ping(ctx, b)
			s.idle = p.idle
			return s, err
		}
	}
	if _, err := ours.ping(ctx, b); err != nil { // warm
		return err
	}
	c, err := b.hold(ctx, "one event at a time (p99 is p95)", contender{"quayside", pinging(ours)}, contender{reference, pinging(theirs)})
	if err != nil {
		return err
	}
	c.table(b.out)
	for _, name := range c.names {
		idle := c.over(func(r round) float64 { return 100 * r[name].idle })
		b.say("  %s: worker and Redis use %.1f %% of a core while nothing happens (%.1f – %.1f)\n", name, idle.median, idle.low, idle.high)
	}
	b.results = append(b.results,
		result{goal: "7", what: "idle post to applied, p95 / that with Asynq's defaults", bound: 1.0 / 60, figure: c.ratio("quayside", reference, func(s sample) float64 { return ms(s.p99) })},
		result{goal: "7", what: "idle CPU of worker and Redis, share of a core", bound: 0.03, figure: c.over(func(r round) float64 { return r["quayside"].idle })})
	return b.check(ctx, ours.keep)
}
