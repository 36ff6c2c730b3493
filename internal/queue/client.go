package queue

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"quayside/internal/crash"
)

// Bell rings for work. Ring never blocks and never fails: a ring that is lost
// is made good by the sweep. *Client is the real one; queuetest has a silent one.
type Bell interface {
	Ring(t Task)
}

// RingAfter rings t once tx has committed.
func RingAfter(tx interface{ AfterCommit(func()) }, bell Bell, t Task) {
	tx.AfterCommit(func() { bell.Ring(t) })
}

const (
	bellDepth   = 4096                   // rings that may wait for Redis before they are left to the sweep
	ringTimeout = 100 * time.Millisecond // per task
	complainGap = 3 * time.Second        // between two log lines about an unreachable Redis

	flushPatience = 2 * time.Second // of Close
	announceEvery = 16              // rings; sooner when no more wait
)

// Client puts tasks on Redis, from a goroutine of its own: nobody who rings
// waits for the network.
type Client struct {
	asynq   *asynq.Client
	redis   redis.UniversalClient
	waiting chan Task
	closing chan struct{} // closed by Close: no more rings
	stopped chan struct{} // closed by relay: nothing waits any more
	giveUp  context.CancelFunc
	stop    sync.Once
	lost    atomic.Int64
}

// NewClient starts a bell on rdb. Close it to flush what waits.
func NewClient(rdb redis.UniversalClient) *Client {
	ctx, giveUp := context.WithCancel(context.Background())
	c := &Client{
		asynq: asynq.NewClientFromRedisClient(rdb), redis: rdb, giveUp: giveUp,
		waiting: make(chan Task, bellDepth), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	go c.relay(ctx)
	return c
}

// Ring hands t to the relay. It is lost when too many wait already and after
// Close: the sweep, of another process if need be, rings again.
func (c *Client) Ring(t Task) {
	select {
	case <-c.closing:
		c.lost.Add(1)
		return
	default:
	}
	select {
	case c.waiting <- t:
	default:
		c.lost.Add(1)
	}
}

// RingNow enqueues t, wakes who waits for it, and reports whether Redis took it.
func (c *Client) RingNow(ctx context.Context, t Task) error {
	if err := c.enqueue(ctx, t); err != nil {
		return err
	}
	c.announce(ctx, t.queue)
	return nil
}

func (c *Client) enqueue(ctx context.Context, t Task) error {
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	if crash.Enabled {
		crash.At(ctx, "before "+t.name)
		defer crash.At(ctx, "after "+t.name)
	}
	if _, err := c.asynq.EnqueueContext(ctx, asynq.NewTask(t.name, t.payload), t.opts...); err != nil {
		return fmt.Errorf("ring %s: %w", t.name, err)
	}
	return nil
}

// announce wakes servers that sleep because their queue was empty. When it
// fails they ask by themselves before long.
func (c *Client) announce(ctx context.Context, queues ...string) {
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	for _, q := range queues {
		_ = c.redis.Publish(ctx, channelOf(q), "").Err()
	}
}

// Lost is how many rings Redis did not take since the start.
func (c *Client) Lost() int64 { return c.lost.Load() }

// relay rings until Close, and then what waits still.
func (c *Client) relay(ctx context.Context) {
	defer close(c.stopped)
	var complained time.Time
	rung := map[string]bool{} // queues, since the last announcement
	for n := 1; ; n++ {
		t, ok := c.next()
		if !ok {
			return
		}
		err := c.enqueue(ctx, t)
		if err == nil {
			rung[t.queue] = true
		}
		if len(rung) > 0 && (len(c.waiting) == 0 || n%announceEvery == 0) {
			c.announce(ctx, slices.Collect(maps.Keys(rung))...)
			clear(rung)
		}
		if err == nil {
			continue
		}
		c.lost.Add(1)
		if time.Since(complained) > complainGap {
			complained = time.Now()
			slog.Warn("bell lost, the sweep will ring", "job", t.name, "lost_total", c.lost.Load(), "error", err)
		}
	}
}

// next waits for a task; once closing it takes those that wait and no more.
func (c *Client) next() (Task, bool) {
	select {
	case t := <-c.waiting:
		return t, true
	case <-c.closing:
	}
	select {
	case t := <-c.waiting:
		return t, true
	default:
		return Task{}, false
	}
}

// Close rings what waits, for at most two seconds, and stops.
func (c *Client) Close() error {
	c.stop.Do(func() {
		close(c.closing)
		timer := time.AfterFunc(flushPatience, c.giveUp)
		defer timer.Stop()
		<-c.stopped
		c.giveUp()
	})
	return nil
}
