//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// run is one run of the torture.
type run struct {
	options
	plan    plan
	out     io.Writer
	dir     string
	world   *world
	sender  *sender
	goods   []good
	began   time.Time
	ctx     context.Context //nolint:containedctx // of the stories
	looks   atomic.Int64    // of the watcher
	probes  atomic.Int64
	telling sync.WaitGroup // stories under way

	mu         sync.Mutex
	violations []string
	struck     []struck
	kinds      map[int]string // of stories
	points     []pointStruck
	doing      string // for the line of progress
}

// verdict is how a run ended.
type verdict struct {
	wrong []string // each a line; empty: all holds
	findings
	struck []struck
}

// firstProbe is the number of the first story that is not of the flow.
const firstProbe = 1 << 31

// torture is a run from its start to its verdict. An error means that there is none.
func torture(ctx context.Context, o options, p plan, out io.Writer) (v verdict, err error) {
	r := &run{options: o, plan: p, out: out, goods: shop(o.seed), kinds: map[int]string{}}
	if r.dir, err = os.MkdirTemp("", "quayside-torture-*"); err != nil {
		return v, err
	}
	if err := os.Chmod(r.dir, 0o755); err != nil { //nolint:gosec // Postgres runs as another user, and must get through here
		return v, err
	}
	defer func() {
		if err == nil && (len(v.wrong) == 0 || o.bugs) && !o.keep {
			err = os.RemoveAll(r.dir)
			return
		}
		r.say("journal, plan, logs and the database (start Postgres on it) are in %s", r.dir)
	}()
	r.say("seed %d, %d faults, %.1f minutes", o.seed, len(p.Blows), o.minutes)
	for i, b := range p.Blows {
		r.say("  %2d. %s", i+1, b)
	}
	if err := writeJSON(r.path("plan.json"), p); err != nil {
		return v, err
	}
	program, err := build(ctx, r.dir, o)
	if err != nil {
		return v, err
	}
	if r.world, err = newWorld(ctx, r.dir, program, r.violate); err != nil {
		return v, err
	}
	defer r.world.close()
	return r.torment(ctx)
}

// torment does everything between the start of the world and its end.
func (r *run) torment(ctx context.Context) (v verdict, err error) {
	if err := r.stock(ctx); err != nil {
		return v, err
	}
	j, err := openJournal(r.path("journal.jsonl"))
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	r.sender = newSender(r.world, j)
	under, stop := context.WithCancel(ctx)
	defer stop()
	telling, giveUp := context.WithCancelCause(under)
	defer giveUp(nil)
	r.ctx, r.began = telling, time.Now()
	var beside, flow sync.WaitGroup
	beside.Go(func() { r.watch(under) })
	beside.Go(func() { r.progress(under) })
	if r.options.sweep {
		r.sender.first = true
		r.sweep(under)
	} else {
		flowing, endFlow := context.WithCancel(under)
		flow.Go(func() { r.flow(flowing) })
		r.harm(under)
		endFlow()
		hopeless := time.AfterFunc(r.patience(), func() { giveUp(errors.New("nobody answers any more")) })
		flow.Wait()
		r.telling.Wait()
		hopeless.Stop()
	}
	r.is("coming to rest")
	r.rest(under)
	r.is("audit")
	stopWatch := r.looks.Load()
	v.findings, err = r.audit(under)
	stop()
	beside.Wait()
	if err != nil {
		return v, errors.Join(context.Cause(ctx), err)
	}
	v.struck = r.struck
	v.wrong = r.judge(v.findings, stopWatch)
	r.report(v)
	return v, ctx.Err()
}

func (r *run) path(name string) string { return filepath.Join(r.dir, name) }

func (r *run) say(format string, args ...any) { _, _ = fmt.Fprintf(r.out, format+"\n", args...) }

// violate notes something that must never be.
func (r *run) violate(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, fmt.Sprintf("at %s: ", time.Since(r.began).Round(time.Second/10))+fmt.Sprintf(format, args...))
}

func (r *run) is(doing string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doing = doing
}

// windows are the times in which a fault was on or all was not well again.
func (r *run) windows() (w [][2]time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.struck {
		w = append(w, [2]time.Time{s.from, s.to})
	}
	for _, p := range r.points {
		w = append(w, [2]time.Time{p.from, p.to})
	}
	return w
}

// stock puts the goods into the shop.
func (r *run) stock(ctx context.Context) error {
	for _, g := range r.goods {
		body, err := json.Marshal(map[string]any{"sku": g.sku, "name": g.sku, "on_hand": g.stock})
		if err != nil {
			return err
		}
		q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.world.of("serve")[0].addr+"/api/v1/products", strings.NewReader(string(body)))
		if err != nil {
			return err
		}
		q.Header.Set("Authorization", "Bearer "+adminKey)
		q.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(q)
		if err != nil {
			return err
		}
		said, _ := io.ReadAll(res.Body) // for the message
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusCreated {
			return fmt.Errorf("product %s: %s %s", g.sku, res.Status, said)
		}
	}
	return nil
}

// flow begins stories, as many each second as the rate says, until ctx ends.
func (r *run) flow(ctx context.Context) {
	room := make(chan struct{}, 96)
	every := time.NewTicker(time.Duration(float64(time.Second) / r.rate))
	defer every.Stop()
	for number := 0; ; number++ {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		select {
		case <-ctx.Done():
			return
		case room <- struct{}{}:
		}
		s, rng := storyOf(r.seed, number)
		t := r.teller(number, s.kind, rng)
		r.telling.Go(func() {
			defer func() { <-room }()
			s.tell(t)
		})
	}
}

func (r *run) teller(number int, kind string, rng *rand.Rand) *teller {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds[number] = kind
	return &teller{sender: r.sender, ctx: r.ctx, rng: rng, story: number, kind: kind, run: strconv.FormatUint(r.seed, 36), goods: r.goods}
}

// probe tells a story besides the flow.
func (r *run) probe(salt int) *teller {
	return r.teller(firstProbe+int(r.probes.Add(1)), "probe", rand.New(rand.NewPCG(r.seed, uint64(salt)))) //nolint:gosec // it must be the same again
}

func (r *run) kindOf(number int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kinds[number]
}

// rare reports whether an order is about goods that run out.
func (r *run) rare(order string) bool {
	parts := strings.Split(order, "_")
	number, err := strconv.Atoi(parts[max(0, len(parts)-2)])
	return err == nil && r.kindOf(number) == "rare goods"
}

// openedOrders are those that the shop was told to be open.
func (r *run) openedOrders() (ids []string) {
	entries, err := readJournal(r.path("journal.jsonl"))
	if err != nil {
		return nil // the audit has just read it
	}
	asked := map[int64]string{}
	for _, e := range entries {
		if e.Act == actOpen && e.Outcome == "" {
			asked[e.N] = e.Order
		}
		if e.Act == actOpen && e.Outcome == ok {
			ids = append(ids, asked[e.N])
		}
	}
	return ids
}

// harm carries out the plan, after a few seconds of calm.
func (r *run) harm(ctx context.Context) {
	end := r.began.Add(time.Duration(r.minutes * float64(time.Minute)))
	r.is("calm")
	_ = sleep(ctx, min(4*time.Second, time.Until(end)/4))
	for i, b := range r.plan.Blows {
		if ctx.Err() != nil {
			return
		}
		r.is(fmt.Sprintf("fault %d of %d: %s", i+1, len(r.plan.Blows), b.Fault))
		s := r.strike(ctx, i, b)
		r.mu.Lock()
		r.struck = append(r.struck, s)
		r.mu.Unlock()
		_ = sleep(ctx, time.Duration(b.RestMS)*time.Millisecond)
	}
	if len(r.plan.Blows) == 0 {
		_ = sleep(ctx, time.Until(end))
	}
}

// quietPatience is how long everything may take to come to rest: a request for
// shipment that a dead process had in hand is taken up after a minute.
const quietPatience = 75 * time.Second

// patience with what does not come to rest: not much is needed with a program
// that is known to be wrong.
func (r *run) patience() time.Duration {
	if r.bug != "" {
		return 15 * time.Second
	}
	return quietPatience
}

// rest waits until nothing is left to be done. Letters would wait for minutes
// after a refusal; they are told to be due now.
func (r *run) rest(ctx context.Context) {
	err := await(ctx, r.patience(), "rest", func() bool {
		query, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if _, err := r.world.pool.Exec(query, `UPDATE letters SET not_before = now() WHERE state = 'queued' AND not_before > now()`); err != nil {
			return false
		}
		soon, err := one[int](query, r.world, `SELECT count(*)::int FROM orders WHERE status IN ('pending','payment_failed') AND deadline < now() + interval '5 seconds'`)
		if err != nil || soon > 0 {
			return false // the oracle would not know on which side of it we are
		}
		found, err := broken(query, r.world, eventually)
		return err == nil && len(found) == 0 && sleep(ctx, 200*time.Millisecond) == nil
	})
	if err != nil && ctx.Err() == nil {
		r.violate("it did not come to rest within %s", r.patience())
	}
}

// progress keeps one line up to date on a terminal, and says elsewhere what begins.
func (r *run) progress(ctx context.Context) {
	file, isFile := r.out.(*os.File)
	terminal := isFile && term.IsTerminal(int(file.Fd()))
	last := ""
	for sleep(ctx, 200*time.Millisecond) == nil {
		r.mu.Lock()
		doing, wrong := r.doing, len(r.violations)
		r.mu.Unlock()
		t, oldest := r.sender.tally()
		waits := ""
		if !oldest.IsZero() && time.Since(oldest) > time.Second {
			waits = fmt.Sprintf(", oldest unanswered %.0f s", time.Since(oldest).Seconds())
		}
		line := fmt.Sprintf("%5.0f s  %s  (sent %d, acknowledged %d, refused %d, unknown %d%s; violations %d)",
			time.Since(r.began).Seconds(), doing, t.sent, t.acked, t.refused, t.unknown, waits, wrong)
		switch {
		case terminal:
			_, _ = fmt.Fprintf(r.out, "\r\x1b[K%s", line)
		case doing != last:
			r.say("%s", line)
		}
		last = doing
	}
	if terminal {
		_, _ = fmt.Fprint(r.out, "\r\x1b[K")
	}
}

// judge gathers everything that is wrong.
func (r *run) judge(f findings, looks int64) []string {
	wrong := slices.Clone(r.violations)
	add := func(is bool, format string, args ...any) {
		if is {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	for _, list := range []struct {
		name  string
		items []string
	}{{"lost", f.lost}, {"doubled", f.doubled}, {"oracle", f.differences}, {"audit", f.other}} {
		for _, item := range list.items {
			wrong = append(wrong, list.name+": "+item)
		}
	}
	for i, s := range r.struck {
		add(s.err != nil, "fault %d, %s: %v", i+1, s.blow, s.err)
		add(s.err == nil && s.recovery > s.bound, "fault %d, %s: all was well after %.1f s instead of %s", i+1, s.blow, s.recovery.Seconds(), s.bound)
	}
	add(len(r.struck) < len(r.plan.Blows), "only %d of %d faults were carried out", len(r.struck), len(r.plan.Blows))
	add(f.unanswered > 0, "%d events were never answered", f.unanswered)
	add(f.acked < 20 || f.applied < 10 || f.duplicates == 0 || looks == 0,
		"the run was empty: %d acknowledged, %d applied, %d duplicates, %d looks of the watcher", f.acked, f.applied, f.duplicates, looks)
	return wrong
}

// build makes quayside from the checkout that the working directory is in.
func build(ctx context.Context, dir string, o options) (program string, err error) {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	program = filepath.Join(dir, "quayside")
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	args := []string{"build", "-o", program}
	if o.sweep {
		args = append(args, "-tags", "crashpoints")
	}
	if o.bug != "" {
		overlay, err := overlayOf(root, dir, o.bug)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/quayside")...) //nolint:gosec // paths of our own
	cmd.Dir = root
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/quayside: %w\n%s", err, said)
	}
	return program, nil
}
