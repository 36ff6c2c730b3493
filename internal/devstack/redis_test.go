//go:build unix

package devstack

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func redisClient(t *testing.T, url string) *redis.Client {
	t.Helper()
	o, err := redis.ParseURL(url)
	check(t, err)
	o.ContextTimeoutEnabled, o.MaxRetries = true, -1
	c := redis.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A TTL ends by itself, and not before its time.
func TestRedisTTLEnds(t *testing.T) {
	t.Parallel()
	r, err := StartRedis(t.Context(), "")
	check(t, err)
	defer r.Close()
	c := redisClient(t, r.URL)
	began := time.Now()
	check(t, c.Set(t.Context(), "key", "value", time.Second).Err())
	check(t, c.Get(t.Context(), "key").Err())
	eventually(t, "the key is gone", func() bool { return errors.Is(c.Get(t.Context(), "key").Err(), redis.Nil) })
	if d := time.Since(began); d < 700*time.Millisecond || d > 3*time.Second { // two ticks early at most
		t.Errorf("a second lasted %s", d)
	}
	r.Close()
	r.Close()
	if c.Ping(t.Context()).Err() == nil {
		t.Error("answers after Close")
	}
}

// An address that is taken is an error, not another address.
func TestRedisAddressTaken(t *testing.T) {
	first, err := StartRedis(t.Context(), "")
	check(t, err)
	defer first.Close()
	addr := redisClient(t, first.URL).Options().Addr
	if second, err := StartRedis(t.Context(), addr); err == nil {
		second.Close()
		t.Fatal("started twice on " + addr)
	}
}

// needRedis skips what only a real redis-server can show: the README asks for none.
func needRedis(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server in PATH")
	}
}

// A real server holds what asynq wants, freezes and goes on, and ends with Stop.
func TestRealRedis(t *testing.T) {
	t.Parallel()
	needRedis(t)
	r, err := StartRealRedis(t.Context())
	check(t, err)
	t.Cleanup(func() { check(t, r.Stop()) })
	c := redisClient(t, r.URL)
	for setting, want := range map[string]string{"maxmemory-policy": "noeviction", "save": "", "appendonly": "no", "bind": "127.0.0.1"} {
		if got := c.ConfigGet(t.Context(), setting).Val()[setting]; got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
	check(t, c.Set(t.Context(), "key", "value", 0).Err())
	check(t, r.FlushAll(t.Context()))
	if err := c.Get(t.Context(), "key").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("after FlushAll: %v", err)
	}

	check(t, r.Pause())
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.Ping(short).Err(); !isTimeout(err) {
		t.Errorf("a paused server: %v", err)
	}
	check(t, r.Resume())
	check(t, c.Ping(t.Context()).Err())

	check(t, r.Pause()) // a frozen server can be stopped too
	check(t, r.Stop())
	check(t, r.Stop())
	if !gone(r.PID()) || exists(r.scratch.path) {
		t.Error("something is left after Stop")
	}
}

func TestNoRedisServer(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := StartRealRedis(t.Context()); !errors.Is(err, ErrNoRedisServer) {
		t.Errorf("got %v", err)
	}
}
