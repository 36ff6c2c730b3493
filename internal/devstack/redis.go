package devstack

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Redis is a Redis inside this process: enough for `quayside dev`, where Postgres holds the truth.
type Redis struct {
	URL string // redis://127.0.0.1:PORT/0

	server *miniredis.Miniredis
	stop   chan struct{}
	clock  sync.WaitGroup
	once   sync.Once
}

// StartRedis listens on addr, or on a free loopback port when addr is empty, until Close.
func StartRedis(ctx context.Context, addr string) (*Redis, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if addr == "" {
		addr = anyPort
	}
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(addr); err != nil {
		return nil, fmt.Errorf("redis on %s: %w", addr, err)
	}
	listening, err := net.ResolveTCPAddr("tcp", server.Addr())
	if err != nil {
		server.Close()
		return nil, fmt.Errorf("redis on %s: %w", addr, err)
	}
	r := &Redis{URL: localURL("redis", listening) + "/0", server: server, stop: make(chan struct{})}
	r.clock.Go(r.keepTime)
	return r, nil
}

// Close ends the server and its connections. It may be called twice.
func (r *Redis) Close() {
	r.once.Do(func() {
		close(r.stop)
		r.clock.Wait()
		r.server.Close()
	})
}

// keepTime moves the clock that miniredis measures every TTL with; by itself it stands still.
func (r *Redis) keepTime() {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-r.stop:
			return
		case now := <-tick.C:
			r.server.FastForward(now.Sub(last))
			last = now
		}
	}
}
