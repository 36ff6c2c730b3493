package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"

	"quayside/internal/crash"
)

var jobSeconds = promauto.NewHistogramVec(prometheus.HistogramOpts{
	Name: "quayside_job_seconds", Help: "How long jobs took, by job and outcome (done, failed).",
	Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
}, []string{"job", "outcome"})

// Mux routes tasks to handlers.
type Mux struct {
	mux   *asynq.ServeMux
	names []string
}

// NewMux returns a Mux without handlers.
func NewMux() *Mux { return &Mux{mux: asynq.NewServeMux()} }

// Handle registers fn for job j. fn looks at its rows first and may run twice
// or several at once. Its error is logged and goes no further: the row keeps
// the attempt and the sweep rings again.
//
// Handle panics at start-up when two names overlap: Asynq matches by prefix,
// so a job "a" would also receive "a.b".
func Handle[A any](m *Mux, j Job[A], fn func(context.Context, A) error) {
	for _, name := range m.names {
		if strings.HasPrefix(name, j.Name) || strings.HasPrefix(j.Name, name) {
			panic("queue: job names overlap: " + name + ", " + j.Name)
		}
	}
	m.names = append(m.names, j.Name)
	m.mux.HandleFunc(j.Name, func(ctx context.Context, t *asynq.Task) error {
		var args A
		start := time.Now()
		err := json.Unmarshal(t.Payload(), &args)
		if err == nil {
			err = guarded(ctx, args, fn)
		}
		report(ctx, j.Name, time.Since(start), err)
		return nil
	})
}

// guarded turns a panic of fn into an error that names where it happened.
func guarded[A any](ctx context.Context, args A, fn func(context.Context, A) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	ctx, end := crash.Begin(ctx)
	defer end()
	err = fn(ctx, args)
	if crash.Enabled {
		crash.At(ctx, fmt.Sprintf("%T is done", args))
	}
	return err
}

func report(ctx context.Context, job string, elapsed time.Duration, err error) {
	attrs := []slog.Attr{slog.String("job", job), slog.Float64("elapsed_ms", float64(elapsed.Microseconds())/1000)}
	if id, ok := asynq.GetTaskID(ctx); ok {
		attrs = append(attrs, slog.String("task_id", id))
	}
	if err != nil {
		jobSeconds.WithLabelValues(job, "failed").Observe(elapsed.Seconds())
		slog.LogAttrs(ctx, slog.LevelError, "job failed", append(attrs, slog.Any("error", err))...)
		return
	}
	jobSeconds.WithLabelValues(job, "done").Observe(elapsed.Seconds())
	slog.LogAttrs(ctx, slog.LevelDebug, "job done", attrs...)
}

// patience is how long a stopping worker lets its jobs finish.
const patience = 25 * time.Second

// Finish returns a context for work that is under way when ctx ends. It lasts
// as long after ctx as jobs do in a worker that stops: a letter cut off at its
// last byte may have arrived, and nobody could tell.
func Finish(ctx context.Context) (context.Context, context.CancelFunc) {
	under, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(patience, cancel) })
	return under, func() {
		stop()
		cancel()
	}
}

// Server works one queue.
type Server struct {
	asynq   *asynq.Server
	mux     *Mux
	sleeper *sleeper
}

// NewServer returns a worker of the named queue with so many jobs at once.
// Start it with Start, stop it with Shutdown.
func NewServer(rdb redis.UniversalClient, m *Mux, queue string, concurrency int) *Server {
	return newServer(rdb, m, queue, concurrency, lull)
}

func newServer(rdb redis.UniversalClient, m *Mux, queue string, concurrency int, lull time.Duration) *Server {
	return &Server{mux: m, sleeper: newSleeper(rdb, queue, lull), asynq: asynq.NewServerFromRedisClient(rdb, asynq.Config{
		Concurrency: concurrency, Queues: map[string]int{queue: 1},
		TaskCheckInterval: glance, ShutdownTimeout: patience,
		Logger: &asynqLog{}, LogLevel: asynq.WarnLevel,
	})}
}

// Start begins to work, in goroutines of its own. Redis may be away.
func (s *Server) Start() error { return s.asynq.Start(s.mux.mux) }

// Shutdown waits for the jobs under way, at most 25 s, and ends.
func (s *Server) Shutdown() {
	s.sleeper.wakeForever()
	s.asynq.Shutdown()
}
