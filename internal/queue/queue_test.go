package queue_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"quayside/internal/queue"
	"quayside/internal/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type args struct {
	ID string `json:"id"`
}

var greet = queue.Job[args]{Name: "greet", Queue: queue.Money, Timeout: time.Second}

func open(t *testing.T, address string) redis.UniversalClient {
	t.Helper()
	rdb, err := queue.Open(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// hung is the address of a Redis that takes connections and never answers.
func hung(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return "redis://" + l.Addr().String() // the kernel accepts for it
}

func bell(t *testing.T, rdb redis.UniversalClient) *queue.Client {
	t.Helper()
	c := queue.NewClient(rdb)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// waiting counts the tasks that Redis keeps for a queue.
func waiting(t *testing.T, rdb redis.UniversalClient, name string) int {
	t.Helper()
	info, err := asynq.NewInspectorFromRedisClient(rdb).GetQueueInfo(name)
	if errors.Is(err, asynq.ErrQueueNotFound) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return info.Size
}

// silence keeps the log of things that are meant to go wrong, and returns it.
func silence(t *testing.T) *lockedBuffer {
	t.Helper()
	out, before := &lockedBuffer{}, slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(out, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return out
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Every form of address is understood with its user, password and database.
func TestOpen(t *testing.T) {
	for address, want := range map[string]redis.Options{
		"redis://localhost":                {Addr: "localhost:6379"},
		"redis://cache:6380/3":             {Addr: "cache:6380", DB: 3},
		"redis://:p%40ss@cache":            {Addr: "cache:6379", Password: "p@ss"},
		"redis://user:pass@[::1]:6379/0":   {Addr: "[::1]:6379", Username: "user", Password: "pass"},
		"rediss://user:pass@cache:6379/15": {Addr: "cache:6379", Username: "user", Password: "pass", DB: 15},
	} {
		c, ok := open(t, address).(*redis.Client)
		if !ok {
			t.Fatalf("%s: not a client of one server", address)
		}
		o := c.Options()
		if o.Addr != want.Addr || o.Username != want.Username || o.Password != want.Password || o.DB != want.DB {
			t.Errorf("%s: %s user %q db %d", address, o.Addr, o.Username, o.DB)
		}
		if (o.TLSConfig != nil) != strings.HasPrefix(address, "rediss") || !o.ContextTimeoutEnabled {
			t.Errorf("%s: TLS %v, ContextTimeoutEnabled %v", address, o.TLSConfig != nil, o.ContextTimeoutEnabled)
		}
	}
	c, ok := open(t, "redis-cluster://user:pass@a:1,b:2").(*redis.ClusterClient)
	if o := c.Options(); !ok || strings.Join(o.Addrs, " ") != "a:1 b:2" || o.Username != "user" || o.Password != "pass" {
		t.Errorf("cluster: %v user %q", o.Addrs, o.Username)
	}
	s, ok := open(t, "redis-sentinel://user:pass@a:1,b:2/4?master=main").(*redis.Client)
	if o := s.Options(); !ok || o.Addr != "FailoverClient" || o.DB != 4 || o.Password != "pass" {
		t.Errorf("sentinel: %s db %d", o.Addr, o.DB)
	}
}

// What is no address is refused by the setting's name, without the password.
func TestOpenMistakes(t *testing.T) {
	for address, want := range map[string]string{
		"":                                   "not a Redis address",
		"cache:6379":                         "not a Redis address",
		"redis://":                           "not a Redis address",
		"redis://:hunter2@cache:nan":         "not a Redis address",
		"redis://:hunter2@cache/x":           "not a database number",
		"redis://:hunter2@cache/-1":          "not a database number",
		"http://:hunter2@cache":              "none of redis, rediss",
		"redis-sentinel://:hunter2@a:1,b:2":  "master=NAME",
		"redis://:hunter2@cache\x00":         "not a Redis address",
		"redis://:hunter2@cache?db=notanint": "not a Redis address",
	} {
		_, err := queue.Open(address)
		if err == nil || !strings.HasPrefix(err.Error(), "REDIS_URL: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
}

// Open touches neither the server nor the name service.
func TestOpenDoesNotWait(t *testing.T) {
	for _, address := range []string{"redis://host.invalid:6379", "redis-cluster://host.invalid:1", "redis-sentinel://host.invalid:1?master=m", hung(t)} {
		begun := time.Now()
		open(t, address)
		if waited := time.Since(begun); waited > 100*time.Millisecond {
			t.Errorf("%s: %s", address, waited)
		}
	}
}

// Ready tells a Redis that answers from one that is away or hung, soon.
func TestReady(t *testing.T) {
	if err := queue.Ready(t.Context(), open(t, "redis://"+miniredis.RunT(t).Addr())); err != nil {
		t.Error(err)
	}
	for name, address := range map[string]string{"away": "redis://127.0.0.1:1", "hung": hung(t)} {
		begun := time.Now()
		if err := queue.Ready(t.Context(), open(t, address)); err == nil || time.Since(begun) > 2*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(begun))
		}
	}
}

// A server that hides its configuration (miniredis has none) is believed.
func TestEvicts(t *testing.T) {
	if queue.Evicts(t.Context(), open(t, "redis://"+miniredis.RunT(t).Addr())) || queue.Evicts(t.Context(), open(t, "redis://127.0.0.1:1")) {
		t.Error("said to evict without knowing")
	}
}

// Asynq matches names by prefix: a name that begins another is refused at start-up.
func TestOverlappingNamesPanic(t *testing.T) {
	nothing := func(context.Context, args) error { return nil }
	for _, names := range [][2]string{{"order.paid", "order"}, {"order", "order.paid"}, {"order", "order"}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v taken together", names)
				}
			}()
			m := queue.NewMux()
			queue.Handle(m, queue.Job[args]{Name: names[0]}, nothing)
			queue.Handle(m, queue.Job[args]{Name: names[1]}, nothing)
		}()
	}
	m := queue.NewMux()
	queue.Handle(m, queue.Job[args]{Name: "order.paid"}, nothing)
	queue.Handle(m, queue.Job[args]{Name: "order.shipped"}, nothing)
}

// A panic while a payload is encoded names the job: it is a programming error.
func TestPayloadThatCannotBeEncoded(t *testing.T) {
	defer func() {
		if p, _ := recover().(string); !strings.Contains(p, "odd") {
			t.Errorf("recovered %q", p)
		}
	}()
	queue.Job[func()]{Name: "odd"}.With(func() {})
}

// Close puts on Redis what was rung before it, and is safe to repeat.
func TestCloseFlushes(t *testing.T) {
	rdb := open(t, "redis://"+miniredis.RunT(t).Addr())
	c := queue.NewClient(rdb)
	for range 200 {
		c.Ring(greet.With(args{ID: "x"}))
	}
	_ = c.Close()
	if n := waiting(t, rdb, queue.Money); n != 200 || c.Lost() != 0 {
		t.Errorf("%d on Redis, %d lost", n, c.Lost())
	}
	_ = c.Close()
	c.Ring(greet.With(args{ID: "late"})) // neither blocks nor panics
	if n := waiting(t, rdb, queue.Money); n != 200 || c.Lost() != 1 {
		t.Errorf("after Close: %d on Redis, %d lost", n, c.Lost())
	}
}

// With Redis hung nobody who rings waits; what does not fit is counted as lost;
// Close gives up in two seconds.
func TestRingNeverBlocks(t *testing.T) {
	log := silence(t)
	c := bell(t, open(t, hung(t)))
	const rings = 10_000 // more than the bell keeps
	begun := time.Now()
	for range rings {
		c.Ring(greet.With(args{ID: "x"}))
	}
	if waited := time.Since(begun); waited > time.Second {
		t.Errorf("ringing took %s", waited)
	}
	if c.Lost() == 0 {
		t.Error("nothing lost")
	}
	if err := c.RingNow(t.Context(), greet.With(args{ID: "x"})); err == nil || !strings.Contains(err.Error(), "ring greet") {
		t.Errorf("RingNow: %v", err)
	}
	begun = time.Now()
	_ = c.Close()
	if waited := time.Since(begun); waited > 3*time.Second || c.Lost() != rings {
		t.Errorf("Close took %s, %d of %d lost", waited, c.Lost(), rings)
	}
	if n := strings.Count(log.String(), "bell lost"); n < 1 || n > 3 {
		t.Errorf("%d lines about it", n)
	}
}

// A ring and Close may meet.
func TestRingWhileClosing(t *testing.T) {
	c := bell(t, open(t, "redis://"+miniredis.RunT(t).Addr()))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				c.Ring(greet.With(args{ID: "x"}))
			}
		})
	}
	_ = c.Close()
	wg.Wait()
}

// fakeTx keeps its bells until it is told to commit.
type fakeTx struct{ after []func() }

func (tx *fakeTx) AfterCommit(fn func()) { tx.after = append(tx.after, fn) }

// RingAfter waits for the commit.
func TestRingAfter(t *testing.T) {
	var b queuetest.Bell
	tx := &fakeTx{}
	queue.RingAfter(tx, &b, greet.With(args{ID: "x"}))
	if len(b.Rung()) != 0 || len(tx.after) != 1 {
		t.Fatalf("rung %v before the commit", b.Rung())
	}
	tx.after[0]()
	if got := strings.Join(b.Rung(), " "); got != "greet" {
		t.Errorf("rung %q", got)
	}
}

// Redis tries a task once, for as long as its job says, in the queue it says:
// rows know their attempts, and a fixed id would be blocked once archived.
func TestTaskOptions(t *testing.T) {
	rdb := open(t, "redis://"+miniredis.RunT(t).Addr())
	c := bell(t, rdb)
	for range 2 {
		if err := c.RingNow(t.Context(), queue.Job[args]{Name: "slow", Queue: queue.Post, Timeout: 7 * time.Second}.With(args{ID: "x"})); err != nil {
			t.Fatal(err)
		}
	}
	tasks, err := asynq.NewInspectorFromRedisClient(rdb).ListPendingTasks(queue.Post)
	if err != nil || len(tasks) != 2 {
		t.Fatalf("%d tasks, %v", len(tasks), err)
	}
	if task := tasks[0]; task.Type != "slow" || string(task.Payload) != `{"id":"x"}` || task.MaxRetry != 0 || task.Timeout != 7*time.Second || task.ID == tasks[1].ID {
		t.Errorf("got %+v", task)
	}
}

// serve works Money with the handlers of m until the test ends.
func serve(t *testing.T, rdb redis.UniversalClient, m *queue.Mux) {
	t.Helper()
	s := queue.NewServer(rdb, m, queue.Money, 4)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
}

func receive[T any](t *testing.T, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(10 * time.Second):
		t.Fatal("waited in vain")
	}
	return value
}

// A task reaches its handler with its arguments, soon, and is gone from Redis.
func TestTaskReachesItsHandler(t *testing.T) {
	rdb := open(t, "redis://"+miniredis.RunT(t).Addr())
	got, m := make(chan args, 1), queue.NewMux()
	deadline := make(chan bool, 1)
	queue.Handle(m, greet, func(ctx context.Context, a args) error {
		_, limited := ctx.Deadline()
		deadline <- limited
		got <- a
		return nil
	})
	serve(t, rdb, m)
	bell(t, rdb).Ring(greet.With(args{ID: "o-1"}))
	if a := receive(t, got); a.ID != "o-1" || !receive(t, deadline) {
		t.Errorf("got %+v", a)
	}
	for until := time.Now().Add(10 * time.Second); waiting(t, rdb, queue.Money) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the task is still on Redis")
		}
	}
}

// A handler that panics or fails is logged with its job and task; the server
// goes on, and Redis does not try the task again: the sweep does.
func TestHandlerThatPanicsOrFails(t *testing.T) {
	log := silence(t)
	rdb := open(t, "redis://"+miniredis.RunT(t).Addr())
	ran, m := make(chan string, 10), queue.NewMux()
	queue.Handle(m, greet, func(_ context.Context, a args) error {
		defer func() { ran <- a.ID }()
		switch a.ID {
		case "panics":
			panic("boom")
		case "fails":
			return errors.New("mail server says no")
		}
		return nil
	})
	serve(t, rdb, m)
	c := bell(t, rdb)
	for _, id := range []string{"panics", "fails", "works"} {
		c.Ring(greet.With(args{ID: id}))
		if got := receive(t, ran); got != id {
			t.Errorf("ran %s, want %s", got, id)
		}
	}
	for until := time.Now().Add(10 * time.Second); strings.Count(log.String(), "job failed") < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("log: %s", log)
		}
	}
	for _, want := range []string{"panic: boom", "mail server says no", "job=greet", "task_id=", "elapsed_ms="} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, log)
		}
	}
	if len(ran) != 0 {
		t.Error("a task was run again")
	}
}

// A payload that is not ours reaches no handler and stops nothing.
func TestForeignPayload(t *testing.T) {
	log := silence(t)
	rdb := open(t, "redis://"+miniredis.RunT(t).Addr())
	ran, m := make(chan string, 1), queue.NewMux()
	queue.Handle(m, greet, func(_ context.Context, a args) error { ran <- a.ID; return nil })
	serve(t, rdb, m)
	if _, err := asynq.NewClientFromRedisClient(rdb).Enqueue(asynq.NewTask("greet", []byte("{")), asynq.Queue(queue.Money), asynq.MaxRetry(0)); err != nil {
		t.Fatal(err)
	}
	bell(t, rdb).Ring(greet.With(args{ID: "ours"}))
	if got := receive(t, ran); got != "ours" {
		t.Errorf("ran %q", got)
	}
	for until := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), "job failed"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("log: %s", log)
		}
	}
}

// A worker starts with Redis away, begins when it comes, and complains rarely.
func TestServerStartsWithoutRedis(t *testing.T) {
	log := silence(t)
	srv := miniredis.NewMiniRedis()
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	address := srv.Addr()
	srv.Close()
	rdb := open(t, "redis://"+address)
	ran, m := make(chan string, 1), queue.NewMux()
	queue.Handle(m, greet, func(_ context.Context, a args) error { ran <- a.ID; return nil })
	serve(t, rdb, m)
	back := miniredis.NewMiniRedis()
	if err := back.StartAddr(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(back.Close)
	bell(t, rdb).Ring(greet.With(args{ID: "x"}))
	receive(t, ran)
	if n := strings.Count(log.String(), "queue library"); n > 3 {
		t.Errorf("%d lines about it", n)
	}
}
