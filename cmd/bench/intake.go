//go:build linux

package main

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// Redis's databases: one for each who is measured.
const (
	oursRedis = iota
	_
	naiveRedis
	peerRedis // and the next, for two processes
	_
	scaleRedis // and the next ones, one for each size
)

// target is a server that takes webhooks.
type target struct {
	name          string
	addr          string
	pids          []int // of its own processes, without Postgres and Redis
	keep          *store
	table, column string  // that the id of a taken event must be in; "" when nothing is stored
	rate          float64 // events a second that it has taken, as far as known
}

// set is a name for orders and events that has not been used.
func (b *bench) set(prefix string) string {
	b.sets++
	return fmt.Sprintf("%s%d", prefix, b.sets)
}

// warm lets a server run itself in.
func (b *bench) warm(ctx context.Context, t *target) error {
	for began := time.Now(); time.Since(began) < b.plan.warmUp; {
		j := send(ctx, t.addr, presign(b.set("w"), 0, 2000), b.plan.warmUp)
		if n := j.errors(); n > 0 {
			return fmt.Errorf("%s: %d of %d requests failed while warming up", t.name, n, len(j.answers))
		}
		t.rate = max(t.rate, j.rate())
	}
	return nil
}

// take sends new events to t for as long as the plan says, and checks that
// those answered OK are stored.
func (b *bench) take(ctx context.Context, t *target) (sample, error) {
	set := b.set("i")
	posts := presign(set, 0, 1000+int(1.5*t.rate*b.plan.slot.Seconds()))
	s, j, err := b.measure(ctx, t, func() *journal { return send(ctx, t.addr, posts, b.plan.slot) })
	if err != nil {
		return s, err
	}
	t.rate = j.rate()
	return s, t.stored(ctx, set, j)
}

// measure looks at the machine before and after.
func (b *bench) measure(_ context.Context, t *target, work func() *journal) (s sample, j *journal, err error) {
	before, err := lookAround()
	if err != nil {
		return s, nil, err
	}
	j = work()
	after, err := lookAround()
	if err != nil {
		return s, nil, err
	}
	return sample{
		events: len(j.answers) - j.errors(), errors: j.errors(), took: j.took,
		p50: j.percentile(.5), p99: j.percentile(.99),
		serverCPU: after.cpuSince(before, t.pids...), storeCPU: after.cpuSince(before, b.postgres.PID(), b.redis.PID()),
		elsewhere: after.elsewhere(before),
	}, j, nil
}

// stored compares what was answered with what is there: every event that was
// answered OK, and none that was not posted.
func (t *target) stored(ctx context.Context, set string, j *journal) error {
	if t.table == "" {
		return nil
	}
	taken := j.taken()
	there, err := one[int](ctx, t.keep, fmt.Sprintf(`SELECT count(*) FROM %s WHERE %s = ANY($1)`, t.table, t.column), taken)
	if err != nil {
		return err
	}
	all, err := one[int](ctx, t.keep, fmt.Sprintf(`SELECT count(*) FROM %s WHERE %[2]s >= $1 AND %[2]s < $2`, t.table, t.column), "evt_"+set+"-", "evt_"+set+".")
	if err != nil {
		return err
	}
	if there != len(taken) || all > len(j.posts) {
		return fmt.Errorf("%s answered OK to %d of %d events, of which %d are stored; in all %d are", t.name, len(taken), len(j.posts), there, all)
	}
	return nil
}

// self starts this program again as one of the references.
func (b *bench) self(name string, args ...string) (*program, error) {
	me, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return b.start(name, nil, me, args...)
}

func (b *bench) startStoreless(ctx context.Context) (*target, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := b.self("storeless", asStoreless, addr)
	if err != nil {
		return nil, err
	}
	p.addr = addr
	return &target{name: "nothing stored", addr: addr, pids: []int{p.pid()}}, p.ready(ctx, "/readyz")
}

//go:embed sql/pending.sql
var pendingSQL []byte

//go:embed sql/peer_pending.sql
var peerPendingSQL []byte

// references makes a database for the peer or for naive Go.
func (b *bench) referenceStore(ctx context.Context, name string) (*store, error) {
	s, err := b.database(ctx, name, "")
	if err != nil {
		return nil, err
	}
	schema, err := os.ReadFile(filepath.Join(b.root, "bench", "peer", "schema.sql"))
	if err != nil {
		return nil, err
	}
	err = s.script(ctx, schema)
	return s, err
}

func (b *bench) startNaive(ctx context.Context, s *store, redisAddr string, worker bool) (*target, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := b.self("naive", asNaiveServe, addr, s.url, redisAddr)
	if err != nil {
		return nil, err
	}
	p.addr = addr
	t := &target{name: "naive Go", addr: addr, pids: []int{p.pid()}, keep: s, table: "events", column: "id"}
	if worker {
		w, err := b.self("naive worker", asNaiveWork, s.url, redisAddr)
		if err != nil {
			return nil, err
		}
		t.pids = append(t.pids, w.pid())
	}
	return t, p.ready(ctx, "/readyz")
}

// peerMissing is why the peer cannot be measured, "" when it can.
func (b *bench) peerMissing() string {
	if _, err := exec.LookPath("node"); err != nil {
		return "there is no node"
	}
	if _, err := os.Stat(filepath.Join(b.root, "bench", "peer", "node_modules")); err != nil {
		return "run `npm install --omit=dev` in bench/peer"
	}
	return ""
}

// startPeer starts Express, with so many processes, and as many workers when asked to.
func (b *bench) startPeer(ctx context.Context, processes int, worker bool) (*target, error) {
	name := fmt.Sprintf("Express ×%d", processes)
	s, err := b.referenceStore(ctx, fmt.Sprintf("peer%d_%d", processes, b.sets))
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	env := []string{
		"DATABASE_URL=" + s.url, "REDIS_URL=" + b.redisURL(peerRedis+processes-1), "PORT=" + port,
		"PAYQI_WEBHOOK_SECRET=" + secret, "NODE_ENV=production",
	}
	script := filepath.Join(b.root, "bench", "peer", "peer.js")
	p, err := b.start("peer", env, node, script, "web", strconv.Itoa(processes))
	if err != nil {
		return nil, err
	}
	p.addr = addr
	t := &target{name: name, addr: addr, pids: []int{p.pid()}, keep: s, table: "events", column: "id"}
	if worker {
		w, err := b.start("peer-worker", env, node, script, "work", strconv.Itoa(processes))
		if err != nil {
			return nil, err
		}
		t.pids = append(t.pids, w.pid())
	}
	return t, p.ready(ctx, "/healthz")
}

// pgbench commits single rows of the size of an event, without anything around it.
func (b *bench) pgbench(ctx context.Context, s *store) (contender, error) {
	_, err := s.Exec(ctx, `CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL)`)
	if err != nil {
		return contender{}, err
	}
	_, body := eventBody("bare", 0)
	script := filepath.Join(b.dir, "bare.sql")
	if err := os.WriteFile(script, fmt.Appendf(nil, "INSERT INTO bare (body) VALUES ('%s'::bytea);\n", body), 0o600); err != nil {
		return contender{}, err
	}
	program := filepath.Join(b.postgres.Bin, "pgbench")
	seconds := strconv.Itoa(max(3, int(math.Ceil(b.plan.slot.Seconds())))) // to connect all takes a part of it
	run := func(ctx context.Context, _ int) (sample, error) {
		before, err := lookAround()
		if err != nil {
			return sample{}, err
		}
		cmd := exec.CommandContext(ctx, program, "--no-vacuum", "--client", strconv.Itoa(connections), "--jobs", "2", //nolint:gosec // a program of Postgres's
			"--time", seconds, "--protocol", "prepared", "--file", script, s.url)
		cmd.WaitDelay = time.Second
		said, err := cmd.CombinedOutput()
		if err != nil {
			return sample{}, fmt.Errorf("%w: %s", err, said)
		}
		after, err := lookAround()
		if err != nil {
			return sample{}, err
		}
		return bareSample(string(said), before, after, b.postgres.PID())
	}
	return contender{name: "pgbench", run: run}, nil
}

var (
	pgbenchRate    = regexp.MustCompile(`tps = ([0-9.]+)`)
	pgbenchCount   = regexp.MustCompile(`number of transactions actually processed: (\d+)`)
	pgbenchLatency = regexp.MustCompile(`latency average = ([0-9.]+) ms`)
)

// bareSample reads what pgbench printed.
func bareSample(said string, before, after look, postgres int) (sample, error) {
	rate, count, latency := pgbenchRate.FindStringSubmatch(said), pgbenchCount.FindStringSubmatch(said), pgbenchLatency.FindStringSubmatch(said)
	if rate == nil || count == nil || latency == nil {
		return sample{}, fmt.Errorf("pgbench said: %s", said)
	}
	tps, err1 := strconv.ParseFloat(rate[1], 64)
	n, err2 := strconv.Atoi(count[1])
	average, err3 := strconv.ParseFloat(latency[1], 64)
	if err1 != nil || err2 != nil || err3 != nil || tps <= 0 {
		return sample{}, fmt.Errorf("pgbench said: %s", said)
	}
	return sample{
		events: n, took: time.Duration(float64(n) / tps * float64(time.Second)), p50: time.Duration(average * float64(time.Millisecond)),
		storeCPU: after.cpuSince(before, postgres), elsewhere: after.elsewhere(before),
	}, nil
}

// taking is t as a contender.
func (b *bench) taking(t *target) contender {
	return contender{name: t.name, run: func(ctx context.Context, _ int) (sample, error) { return b.take(ctx, t) }}
}

// intake measures goals 1 to 4: how fast webhooks are taken in, durably.
func (b *bench) intake(ctx context.Context) error {
	targets, shop, err := b.intakeTargets(ctx)
	if err != nil {
		return err
	}
	defer b.rest()
	var contenders []contender
	for _, t := range targets {
		if err := b.warm(ctx, t); err != nil {
			return err
		}
		contenders = append(contenders, b.taking(t))
	}
	noBare := ""
	if _, err := os.Stat(filepath.Join(b.postgres.Bin, "pgbench")); err != nil {
		noBare = "there is no pgbench beside postgres"
	} else {
		bare, err := b.pgbench(ctx, shop)
		if err != nil {
			return err
		}
		contenders = append(contenders, bare)
	}
	c, err := b.hold(ctx, "durable intake, 64 connections", contenders...)
	if err != nil {
		return err
	}
	c.table(b.out)
	b.judgeIntake(c, noBare)
	return b.check(ctx, shop)
}

// intakeTargets starts all who take webhooks, ours first. No worker runs.
func (b *bench) intakeTargets(ctx context.Context) (targets []*target, shop *store, err error) {
	if shop, err = b.shop(ctx, "intake"); err != nil {
		return nil, nil, err
	}
	ours, err := b.serve(ctx, shop, oursRedis)
	if err != nil {
		return nil, nil, err
	}
	free, err := b.startStoreless(ctx)
	if err != nil {
		return nil, nil, err
	}
	targets = []*target{
		free,
		{name: "quayside", addr: ours.addr, pids: []int{ours.pid()}, keep: shop, table: "inbox", column: "key"},
	}
	plain, err := b.referenceStore(ctx, "intake_naive")
	if err != nil {
		return nil, nil, err
	}
	naive, err := b.startNaive(ctx, plain, b.redis.Addr, false)
	if err != nil {
		return nil, nil, err
	}
	targets = append(targets, naive)
	for processes := 1; processes <= b.plan.peers && b.peerMissing() == ""; processes++ {
		p, err := b.startPeer(ctx, processes, false)
		if err != nil {
			return nil, nil, err
		}
		targets = append(targets, p)
	}
	return targets, shop, nil
}

func (b *bench) judgeIntake(c *contest, noBare string) {
	peer, p99 := c.best("Express", ""), func(s sample) float64 { return ms(s.p99) }
	b.results = append(b.results,
		result{goal: "1", what: "durable intake / nothing stored", least: true, bound: 0.65, figure: c.ratio("quayside", "nothing stored", sample.rate)})
	bare := result{goal: "2", what: "durable requests / bare pgbench single-row commits", least: true, bound: 1.6, missing: noBare}
	if noBare == "" {
		bare.figure = c.ratio("quayside", "pgbench", sample.rate)
	}
	fast := result{goal: "3", what: "durable intake / " + peer, least: true, bound: 8, missing: b.peerMissing()}
	late := result{goal: "3", what: "p99 of an answer / that of " + peer, bound: 0.20, missing: b.peerMissing()}
	if peer == "" {
		fast.what, late.what = "durable intake / the best Express", "p99 of an answer / that of the best Express"
	} else {
		fast.figure, late.figure = c.ratio("quayside", peer, sample.rate), c.ratio("quayside", peer, p99)
	}
	b.results = append(b.results, bare, fast, late,
		result{goal: "4", what: "server CPU per durable event / per request with nothing stored", bound: 1.7, figure: c.ratio("quayside", "nothing stored", sample.cpuPerEvent)})
}

// check runs `quayside check`: stock equals its ledger, no event is lost, and the rest.
func (b *bench) check(ctx context.Context, s *store) error {
	return b.quayside(ctx, s, "check")
}

// rest ends the programs of a part, so that the next one has the machine.
func (b *bench) rest() {
	for _, p := range b.running {
		p.stop()
	}
	b.running = nil
	_ = b.redis.FlushAll(context.Background()) // jobs that nobody is left to do
	clear(b.paused)
}
