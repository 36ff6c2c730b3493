package queue

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Asynq finds work by asking Redis again and again: seldom, and a payment
// waits for half a second; often, and two idle programs keep each other busy.
// So who rings also says so on a channel of Redis, and a server that found its
// queue empty asks again when it hears of that. A word that is lost costs a
// lull: the server asks from time to time all the same.
const (
	lull     = time.Second           // between two questions to an empty queue, while the channel is open
	deafLull = 25 * time.Millisecond // while it is not
	glance   = time.Millisecond      // what Asynq itself sleeps; the wait is ours
)

// channelOf is where rings for a queue are announced.
func channelOf(queue string) string { return "quayside:rung:" + queue }

// sleeper keeps a server from asking Redis for work while there is none. It is
// a hook in the server's client that holds back that one question.
type sleeper struct {
	pending string // key of the queue's list, the first that the question names
	lull    time.Duration
	rung    chan struct{} // one word is as good as many
	awake   chan struct{} // closed by wakeForever
	stop    sync.Once
	channel *redis.PubSub

	mu    sync.Mutex
	empty bool // the last question found nothing
	open  bool // the channel is
}

// newSleeper hooks itself into rdb, and listens until wakeForever.
func newSleeper(rdb redis.UniversalClient, queue string, lull time.Duration) *sleeper {
	s := &sleeper{
		pending: "asynq:{" + queue + "}:pending", lull: lull, rung: make(chan struct{}, 1), awake: make(chan struct{}),
		channel: rdb.Subscribe(context.Background(), channelOf(queue)),
	}
	rdb.AddHook(s)
	go s.listen()
	return s
}

// listen hears of rings, and of the channel opening: then some may have been missed.
func (s *sleeper) listen() {
	for {
		_, err := s.channel.Receive(context.Background())
		s.mu.Lock()
		s.open = err == nil
		s.mu.Unlock()
		if err == nil {
			select {
			case s.rung <- struct{}{}:
			default:
			}
			continue
		}
		select { // the next Receive dials again
		case <-s.awake:
			return
		case <-time.After(deafLull):
		}
	}
}

// wakeForever lets the server ask whenever it likes, so that it can stop.
func (s *sleeper) wakeForever() {
	s.stop.Do(func() {
		close(s.awake)
		_ = s.channel.Close() // ends listen
	})
}

// ProcessHook holds back the question for work while there is none.
func (s *sleeper) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !s.asks(cmd) {
			return next(ctx, cmd)
		}
		s.sleep()
		err := next(ctx, cmd)
		s.mu.Lock()
		s.empty = err != nil && !redis.HasErrorPrefix(err, "NOSCRIPT") // after which Asynq asks again at once
		s.mu.Unlock()
		return err
	}
}

// asks reports whether cmd is Asynq's script that takes a task off our queue.
func (s *sleeper) asks(cmd redis.Cmder) bool {
	args := cmd.Args() // evalsha, script, number of keys, first key, …
	if len(args) < 4 || !strings.HasPrefix(cmd.Name(), "eval") {
		return false
	}
	key, _ := args[3].(string)
	return key == s.pending
}

// sleep waits, when the queue was empty, for a ring or a lull.
func (s *sleeper) sleep() {
	s.mu.Lock()
	empty, patience := s.empty, s.lull
	if !s.open {
		patience = deafLull
	}
	s.mu.Unlock()
	if !empty {
		return
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-s.rung:
	case <-t.C:
	case <-s.awake:
	}
}

// DialHook and ProcessPipelineHook change nothing.
func (s *sleeper) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessPipelineHook changes nothing.
func (s *sleeper) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
