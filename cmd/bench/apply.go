//go:build linux

package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// spread is over how many products the orders of one round go when they do not
// all want the same.
const spread = 1000

// applyPatience is how long a round may take until all is applied.
const applyPatience = 2 * time.Minute

// applier is a target whose worker runs, too.
type applier struct {
	*target
	pending []byte // SQL that opens the orders
	// left is true while events wait, of n that were posted.
	left func(ctx context.Context, n int) (bool, error)
	// right checks that n orders of a set are paid and their goods taken, nothing else.
	right func(ctx context.Context, set string, n int) error
	share float64 // of the plan's events that it gets in a round, by its speed
}

// endToEnd opens orders of so many products, posts the money for each of them
// and waits until all is applied: order, stock, ledger and outbox committed.
func (b *bench) endToEnd(ctx context.Context, a *applier, products, n int) (sample, error) {
	set := b.set("o")
	err := a.keep.script(ctx, a.pending, "{set}", set, "{n}", strconv.Itoa(n), "{skus}", strconv.Itoa(min(n, products)))
	if err != nil {
		return sample{}, fmt.Errorf("open orders: %w", err)
	}
	posts := presign(set, 0, n)
	var failed error
	s, j, err := b.measure(ctx, a.target, func() *journal {
		began := time.Now()
		j := send(ctx, a.addr, posts, 0)
		failed = await(ctx, applyPatience, a.name+" to apply all", func() (bool, error) {
			left, err := a.left(ctx, len(j.taken()))
			return !left, err
		})
		j.took = time.Since(began)
		return j
	})
	if err == nil {
		err = failed
	}
	if err == nil {
		err = a.stored(ctx, set, j)
	}
	if err == nil && s.errors > 0 {
		err = fmt.Errorf("%d of %d posts were not answered 200", s.errors, n)
	}
	if err != nil {
		return s, err
	}
	return s, a.right(ctx, set, n)
}

// pausePost keeps letters and requests for shipment waiting: the references send none.
func (b *bench) pausePost(redisDB int) error {
	if b.paused[redisDB] {
		return nil
	}
	b.paused[redisDB] = true
	client := redis.NewClient(&redis.Options{Addr: b.redis.Addr, DB: redisDB})
	defer func() { _ = client.Close() }()
	return asynq.NewInspectorFromRedisClient(client).PauseQueue("post")
}

// oursApplying starts serve and one worker that sends no letters.
func (b *bench) oursApplying(ctx context.Context, shop *store, redisDB int) (*applier, error) {
	if err := b.pausePost(redisDB); err != nil {
		return nil, err
	}
	s, err := b.serve(ctx, shop, redisDB)
	if err != nil {
		return nil, err
	}
	w, err := b.work(shop, redisDB)
	if err != nil {
		return nil, err
	}
	return b.applier(&target{name: "quayside", addr: s.addr, pids: []int{s.pid(), w.pid()}, keep: shop, table: "inbox", column: "key"}), nil
}

func (b *bench) applier(t *target) *applier {
	return &applier{
		target: t, pending: pendingSQL, share: 1,
		left: func(ctx context.Context, _ int) (bool, error) {
			return one[bool](ctx, t.keep, `SELECT EXISTS (SELECT FROM inbox_open WHERE state = 'received')`)
		},
		right: func(ctx context.Context, set string, n int) error {
			got, err := one[string](ctx, t.keep, `SELECT
				(SELECT count(*) FROM inbox WHERE key >= 'evt_' || $1 || '-' AND key < 'evt_' || $1 || '.' AND outcome = 'applied') || ' applied, ' ||
				(SELECT count(*) FROM orders WHERE id >= $1 || '-' AND id < $1 || '.' AND status = 'paid' AND stock = 'committed') || ' paid, ' ||
				(SELECT sum(-on_hand_delta) FROM stock_movements WHERE sku LIKE $1 || '-%' AND kind = 'commit') || ' taken, ' ||
				(SELECT count(*) FROM letters WHERE order_id >= $1 || '-' AND order_id < $1 || '.' AND kind = 'payment_confirmed') || ' letters'`, set)
			if want := fmt.Sprintf("%d applied, %[1]d paid, %d taken, %[1]d letters", n, 2*n); err == nil && got != want {
				err = fmt.Errorf("of %d posted: %s", n, got)
			}
			if err != nil {
				return err
			}
			return b.check(ctx, t.keep)
		},
	}
}

// referenceApplier is the peer or naive Go: both have the same tables, which
// hold the orders of one round.
func referenceApplier(t *target) *applier {
	return &applier{
		target: t, pending: peerPendingSQL, share: 0.1,
		left: func(ctx context.Context, n int) (bool, error) {
			paid, err := one[int](ctx, t.keep, `SELECT count(*) FROM payments`)
			return paid < n, err
		},
		right: func(ctx context.Context, _ string, n int) error {
			got, err := one[string](ctx, t.keep, `SELECT (SELECT count(*) FROM orders WHERE status = 'paid') || ' paid, ' ||
				(SELECT sum(-delta) FROM stock_movements) || ' taken, ' || (SELECT count(*) FROM outbox) || ' letters, ' ||
				(SELECT count(*) FROM products p WHERE on_hand = (SELECT -4 * sum(delta) FROM stock_movements m WHERE m.sku = p.sku)) || ' right'`)
			all, err2 := one[int](ctx, t.keep, `SELECT count(*) FROM products`)
			if want := fmt.Sprintf("%d paid, %d taken, %d letters, %d right", n, 2*n, n, all); err == nil && got != want {
				err = fmt.Errorf("%s, want %s", got, want)
			}
			if err != nil {
				return err
			}
			return err2
		},
	}
}

// apply measures goals 5 and 6: from the post to the committed effects.
func (b *bench) apply(ctx context.Context) error {
	defer b.rest()
	all, err := b.appliers(ctx)
	if err != nil {
		return err
	}
	var contenders []contender
	for _, a := range all {
		n := max(100, int(a.share*float64(b.plan.events)))
		for began := time.Now(); time.Since(began) < b.plan.warmUp; {
			if _, err := b.endToEnd(ctx, a, spread, n/2); err != nil {
				return fmt.Errorf("%s, warming up: %w", a.name, err)
			}
		}
		contenders = append(contenders,
			contender{a.name + spreadOut, func(ctx context.Context, _ int) (sample, error) { return b.endToEnd(ctx, a, spread, n) }},
			contender{a.name + hot, func(ctx context.Context, _ int) (sample, error) { return b.endToEnd(ctx, a, 1, n) }})
	}
	c, err := b.hold(ctx, "from the post to the effects", contenders...)
	if err != nil {
		return err
	}
	c.table(b.out)
	b.judgeApply(c)
	return nil
}

// Names of contests for orders of many products and of one.
const (
	spreadOut = ", spread"
	hot       = ", hot SKU"
)

func (b *bench) appliers(ctx context.Context) ([]*applier, error) {
	shop, err := b.shop(ctx, "apply")
	if err != nil {
		return nil, err
	}
	ours, err := b.oursApplying(ctx, shop, oursRedis)
	if err != nil {
		return nil, err
	}
	plain, err := b.referenceStore(ctx, "apply_naive")
	if err != nil {
		return nil, err
	}
	naive, err := b.startNaive(ctx, plain, b.redis.Addr, true)
	if err != nil {
		return nil, err
	}
	all := []*applier{ours, referenceApplier(naive)}
	for processes := 1; processes <= b.plan.peers && b.peerMissing() == ""; processes++ {
		p, err := b.startPeer(ctx, processes, true)
		if err != nil {
			return nil, err
		}
		all = append(all, referenceApplier(p))
	}
	return all, nil
}

func (b *bench) judgeApply(c *contest) {
	for _, kind := range []struct {
		name  string
		bound float64
	}{{spreadOut, 12}, {hot, 25}} {
		r := result{goal: "5", what: "post to applied / the best Express" + kind.name, least: true, bound: kind.bound, missing: b.peerMissing()}
		if r.missing == "" {
			peer := c.best("Express", kind.name)
			r.what, r.figure = "post to applied / "+peer, c.ratio("quayside"+kind.name, peer, sample.rate)
		}
		b.results = append(b.results, r)
	}
	b.results = append(b.results, result{
		goal: "6", what: "hot SKU / spread, post to applied", least: true, bound: 0.95,
		figure: c.ratio("quayside"+hot, "quayside"+spreadOut, sample.rate),
	})
}
