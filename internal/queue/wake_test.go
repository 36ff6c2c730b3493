package queue

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// never is a lull that no test outlasts: what happens within it happens because
// somebody rang.
const never = time.Hour

// sleeping is a server of Money whose handler tells got, and a client of its own.
func sleeping(t *testing.T, lull time.Duration) (srv *miniredis.Miniredis, client redis.UniversalClient, got chan string) {
	t.Helper()
	srv, got = miniredis.RunT(t), make(chan string, 100)
	m := NewMux()
	Handle(m, toll, func(_ context.Context, who string) error { got <- who; return nil })
	theirs, ours := dial(t, srv), dial(t, srv)
	s := newServer(theirs, m, Money, 2, lull)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		begun := time.Now()
		s.Shutdown()
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it took %s to stop", took)
		}
	})
	until(t, "the server to fall asleep", func() bool {
		s.sleeper.mu.Lock()
		defer s.sleeper.mu.Unlock()
		return s.sleeper.empty && s.sleeper.open
	})
	return srv, ours, got
}

var toll = Job[string]{Name: "toll", Queue: Money, Timeout: time.Minute}

func dial(t *testing.T, srv *miniredis.Miniredis) redis.UniversalClient {
	t.Helper()
	rdb, err := Open("redis://" + srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func hears(t *testing.T, got <-chan string, want string) {
	t.Helper()
	select {
	case who := <-got:
		if who != want {
			t.Errorf("heard %q, want %q", who, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%q was not heard", want)
	}
}

// A server that sleeps wakes when somebody rings, each time, and a ring for
// another queue is not for it. It can be stopped in its sleep.
func TestRingWakesASleeper(t *testing.T) {
	_, rdb, got := sleeping(t, never)
	c := NewClient(rdb)
	t.Cleanup(func() { _ = c.Close() })
	for _, who := range []string{"one", "two", "three"} {
		c.Ring(toll.With(who))
		hears(t, got, who)
	}
	c.Ring(Job[string]{Name: "other", Queue: Post}.With("x"))
	if err := c.RingNow(t.Context(), toll.With("four")); err != nil {
		t.Fatal(err)
	}
	hears(t, got, "four")
}

// Many rings at once are all heard, though not each is announced.
func TestBurstWakesASleeper(t *testing.T) {
	_, rdb, got := sleeping(t, never)
	c := NewClient(rdb)
	t.Cleanup(func() { _ = c.Close() })
	const rings = 3*announceEvery + 1
	for range rings {
		c.Ring(toll.With("x"))
	}
	for range rings {
		hears(t, got, "x")
	}
}

// Work whose announcement was lost is found after a lull.
func TestUnannouncedWorkIsFound(t *testing.T) {
	_, rdb, got := sleeping(t, 20*time.Millisecond)
	c := NewClient(rdb)
	t.Cleanup(func() { _ = c.Close() })
	if err := c.enqueue(t.Context(), toll.With("unannounced")); err != nil {
		t.Fatal(err)
	}
	hears(t, got, "unannounced")
}

// When Redis was away the channel opens anew, and rings are heard as before.
func TestSleeperAfterRedisWasAway(t *testing.T) {
	srv, rdb, got := sleeping(t, never)
	srv.Close()
	if err := srv.Restart(); err != nil {
		t.Fatal(err)
	}
	c := NewClient(rdb)
	t.Cleanup(func() { _ = c.Close() })
	for _, who := range []string{"one", "two"} {
		until(t, "Redis to take it", func() bool { return c.RingNow(t.Context(), toll.With(who)) == nil })
		hears(t, got, who)
	}
}

// A server asks an empty queue rarely, and other commands are not held back.
func TestSleeperAsksRarely(t *testing.T) {
	srv, rdb, _ := sleeping(t, never)
	before := srv.CommandCount()
	for range 10 {
		if err := rdb.Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(200 * time.Millisecond) // Asynq alone would have asked 200 times
	if asked := srv.CommandCount() - before - 10; asked > 20 {
		t.Errorf("%d commands in 200 ms of sleep", asked)
	}
}
