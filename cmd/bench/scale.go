//go:build linux

package main

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"quayside/internal/webhooks"
)

// size is a database with so many stored events, and as many orders.
type size struct {
	*store
	stored int
	redis  int
}

func (s size) name() string { return fmt.Sprintf("%d stored", s.stored) }

// scale measures goal 8: whether a shop with millions of events is as fast as
// an empty one. All sizes are there at once, so that they take turns, too.
func (b *bench) scale(ctx context.Context) error {
	defer b.rest()
	sizes, err := b.sizes(ctx)
	if err != nil {
		return err
	}
	for _, part := range []func(context.Context, []size) error{b.lists, b.duplicates, b.appliesAtSize, b.intakeAtSize} {
		if err := part(ctx, sizes); err != nil {
			return err
		}
	}
	for _, s := range sizes {
		began := time.Now()
		if err := b.check(ctx, s.store); err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
		b.say("%s: quayside check took %.1f s\n", s.name(), time.Since(began).Seconds())
	}
	return nil
}

// sizes makes the databases, each from a copy of the one before.
func (b *bench) sizes(ctx context.Context) (all []size, err error) {
	before := ""
	for i, n := range b.plan.history {
		name := fmt.Sprintf("scale_%d", i)
		s := size{stored: n, redis: scaleRedis + i}
		if before == "" {
			s.store, err = b.shop(ctx, name)
		} else {
			s.store, err = b.database(ctx, name, before)
		}
		if err != nil {
			return nil, err
		}
		if i > 0 {
			began := time.Now()
			if err := s.fill(ctx, b.plan.history[i-1], n); err != nil {
				return nil, fmt.Errorf("fill %s: %w", name, err)
			}
			b.say("%s: filled in %s\n", s.name(), time.Since(began).Round(time.Second))
		}
		s.Reset() // a database that is copied has no connections
		all, before = append(all, s), name
	}
	return all, nil
}

//go:embed sql/history.sql
var historySQL []byte

const (
	fillAtOnce = 250_000 // orders in one transaction
	fillSKUs   = 200     // products of each of them
)

// fill adds the orders and events from..to-1. Indexes that hold no constraint
// are built afterwards, which is several times faster.
func (s size) fill(ctx context.Context, from, to int) error {
	rebuild, err := s.dropIndexes(ctx)
	if err != nil {
		return err
	}
	for ; from < to; from += fillAtOnce {
		err := s.script(ctx, historySQL, "{from}", strconv.Itoa(from), "{to}", strconv.Itoa(min(to, from+fillAtOnce)), "{skus}", strconv.Itoa(fillSKUs),
			"{created}", strconv.Itoa(created), "{label}", webhooks.Label(secret))
		if err != nil {
			return err
		}
	}
	for _, index := range append(rebuild, "VACUUM (ANALYZE)", "CHECKPOINT") {
		if _, err := s.Exec(ctx, index); err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
	}
	return nil
}

func (s size) dropIndexes(ctx context.Context) (rebuild []string, err error) {
	made, err := one[[]string](ctx, s.store, `SELECT array_agg(indexdef ORDER BY indexname) FROM pg_indexes
		WHERE schemaname = 'public' AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname = indexname)`)
	if err != nil {
		return nil, err
	}
	names, err := one[string](ctx, s.store, `SELECT string_agg(quote_ident(indexname), ', ') FROM pg_indexes
		WHERE schemaname = 'public' AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname = indexname)`)
	if err != nil {
		return nil, err
	}
	_, err = s.Exec(ctx, "DROP INDEX "+names)
	return made, err
}

// serveAt starts serve on a size, for one turn.
func (b *bench) serveAt(ctx context.Context, s size) (*target, func(), error) {
	p, err := b.serve(ctx, s.store, s.redis)
	if err != nil {
		return nil, nil, err
	}
	return &target{name: s.name(), addr: p.addr, pids: []int{p.pid()}, keep: s.store, table: "inbox", column: "key"}, p.stop, nil
}

// turns lets the sizes take turns at something.
func (b *bench) turns(ctx context.Context, name string, sizes []size, run func(context.Context, size) (sample, error)) (*contest, error) {
	var contenders []contender
	for _, s := range sizes {
		contenders = append(contenders, contender{s.name(), func(ctx context.Context, _ int) (sample, error) { return run(ctx, s) }})
	}
	for _, s := range sizes { // each in its caches, as far as they hold it
		if b.plan.short {
			break
		}
		if _, err := run(ctx, s); err != nil {
			return nil, fmt.Errorf("%s, warming up: %w", name, err)
		}
	}
	c, err := b.hold(ctx, name, contenders...)
	if err == nil {
		c.table(b.out)
	}
	return c, err
}

func (b *bench) intakeAtSize(ctx context.Context, sizes []size) error {
	rates := map[int]float64{}
	c, err := b.turns(ctx, "durable intake at size", sizes, func(ctx context.Context, s size) (sample, error) {
		t, stop, err := b.serveAt(ctx, s)
		if err != nil {
			return sample{}, err
		}
		defer stop()
		t.rate = cmp.Or(rates[s.stored], 20_000)
		got, err := b.take(ctx, t)
		rates[s.stored] = t.rate
		return got, err
	})
	if err != nil {
		return err
	}
	empty, full := sizes[0].name(), sizes[len(sizes)-1].name()
	b.results = append(b.results, result{
		goal: "8", what: "durable intake at " + full + " / empty", least: true, bound: 0.8, figure: c.ratio(full, empty, sample.rate),
	})
	return nil
}

// duplicates posts stored events once more, from all over the history.
func (b *bench) duplicates(ctx context.Context, sizes []size) error {
	_, err := b.turns(ctx, "stored events posted again", sizes[1:], func(ctx context.Context, s size) (sample, error) {
		t, stop, err := b.serveAt(ctx, s)
		if err != nil {
			return sample{}, err
		}
		defer stop()
		const prime = 7_368_787 // larger than any history: every step meets another event
		var posts []post
		for i := range min(s.stored, b.plan.events) {
			at := (b.sets + i) * prime % s.stored
			posts = append(posts, presign("h", at, at+1)...)
		}
		b.sets += len(posts)
		got, j, err := b.measure(ctx, t, func() *journal { return send(ctx, t.addr, posts, b.plan.slot) })
		if n := len(j.taken()); err == nil && n+got.errors > 0 {
			err = fmt.Errorf("of %d stored events %d were taken for new ones, %d failed", len(posts), n, got.errors)
		}
		return got, err
	})
	return err
}

func (b *bench) appliesAtSize(ctx context.Context, sizes []size) error {
	_, err := b.turns(ctx, "from the post to the effects at size", sizes, func(ctx context.Context, s size) (sample, error) {
		known := len(b.running)
		a, err := b.oursApplying(ctx, s.store, s.redis)
		if err != nil {
			return sample{}, err
		}
		defer func() {
			for _, p := range b.running[known:] {
				p.stop()
			}
		}()
		a.right = func(context.Context, string, int) error { return nil } // the books are checked once, at the end
		return b.endToEnd(ctx, a, spread, b.plan.events)
	})
	return err
}

// lists of the admin API, each with its first page and one further down.
func listsOf(n int) []string {
	at := fmt.Sprintf("h-%07d", max(0, n/2))
	return []string{
		"/api/v1/orders", "/api/v1/orders?status=paid", "/api/v1/orders?q=lovelace", "/api/v1/orders?q=" + at,
		"/api/v1/orders?email=customer" + strconv.Itoa(n/2) + "%40customers.example",
		"/api/v1/events", "/api/v1/events?state=applied", "/api/v1/events?type=payment.completed", "/api/v1/events?order_id=" + at,
		"/api/v1/emails", "/api/v1/emails?state=sent", "/api/v1/emails?order_id=" + at,
		"/api/v1/products", "/api/v1/products/h0-1/movements", "/api/v1/cases", "/api/v1/refunds",
	}
}

// pagesDown is how far down the second page of a list is.
const pagesDown = 10

func (b *bench) lists(ctx context.Context, sizes []size) error {
	c, err := b.turns(ctx, "pages of the admin API", sizes[1:], func(ctx context.Context, s size) (sample, error) {
		t, stop, err := b.serveAt(ctx, s)
		if err != nil {
			return sample{}, err
		}
		defer stop()
		before, err := lookAround()
		if err != nil {
			return sample{}, err
		}
		got := sample{pages: map[string]time.Duration{}}
		for i, path := range listsOf(s.stored) {
			name, _, _ := strings.Cut(listsOf(0)[i], "=h-")
			if err := timeList(ctx, t.addr, path, name, b.plan.gets, got.pages); err != nil {
				return got, err
			}
		}
		after, err := lookAround()
		got.events, got.took = b.plan.gets*len(got.pages), after.at.Sub(before.at)
		got.serverCPU, got.storeCPU = after.cpuSince(before, t.pids...), after.cpuSince(before, b.postgres.PID())
		got.elsewhere = after.elsewhere(before)
		return got, err
	})
	if err != nil {
		return err
	}
	b.judgeLists(c, sizes[1].name(), sizes[len(sizes)-1].name())
	return nil
}

func (b *bench) judgeLists(c *contest, middle, full string) {
	b.say("\n%-52s %16s %16s %7s\n", "page (median ms)", middle, full, "ratio")
	var worst figure
	var slowest string
	for _, page := range slices.Sorted(maps.Keys(c.rounds[0][full].pages)) {
		of := func(name string) float64 {
			return c.over(func(r round) float64 { return ms(r[name].pages[page]) }).median
		}
		f := c.ratio(full, middle, func(s sample) float64 { return ms(s.pages[page]) })
		b.say("%-52s %16.2f %16.2f %7.2f\n", page, of(middle), of(full), f.median)
		if f.median > worst.median {
			worst, slowest = f, page
		}
	}
	b.results = append(b.results, result{
		goal: "8", what: fmt.Sprintf("page at %s / %s; worst: %s", full, middle, strings.TrimPrefix(slowest, "/api/v1/")), bound: 1.5, figure: worst,
	})
}

// timeList notes how long the first page of a list takes, and one further down
// where there is one.
func timeList(ctx context.Context, addr, path, name string, gets int, into map[string]time.Duration) error {
	client := &http.Client{Timeout: answerPatience}
	defer client.CloseIdleConnections()
	took, next, err := timePage(ctx, client, addr, path, gets)
	if err != nil {
		return err
	}
	into[name] = took
	cursor := next
	for range pagesDown {
		if next == "" {
			return nil
		}
		cursor = next
		if _, next, err = getPage(ctx, client, addr, withCursor(path, cursor)); err != nil {
			return err
		}
	}
	into[name+" +10"], _, err = timePage(ctx, client, addr, withCursor(path, cursor), gets)
	return err
}

func withCursor(path, cursor string) string {
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	return path + sep + "after=" + url.QueryEscape(cursor)
}

// timePage is the median of several gets of one page.
func timePage(ctx context.Context, client *http.Client, addr, path string, gets int) (took time.Duration, next string, err error) {
	var all []time.Duration
	for range gets {
		took, next, err = getPage(ctx, client, addr, path)
		if err != nil {
			return 0, "", err
		}
		all = append(all, took)
	}
	return percentile(all, .5), next, nil
}

func getPage(ctx context.Context, client *http.Client, addr, path string) (took time.Duration, next string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Authorization", "Bearer "+adminKey)
	began := time.Now()
	answer, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return 0, "", err
	}
	took = time.Since(began)
	if answer.StatusCode != http.StatusOK {
		return 0, "", fmt.Errorf("GET %s: %d %.300s", path, answer.StatusCode, body)
	}
	var page struct {
		NextCursor *string `json:"next_cursor"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return 0, "", fmt.Errorf("GET %s: %w", path, err)
	}
	if page.NextCursor != nil {
		next = *page.NextCursor
	}
	return took, next, nil
}
