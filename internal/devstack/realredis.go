package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrNoRedisServer means that there is no redis-server in PATH.
var ErrNoRedisServer = errors.New("no redis-server in PATH: install Redis")

// RealRedis is a redis-server of our own that keeps nothing, for tests.
type RealRedis struct {
	URL  string // redis://127.0.0.1:PORT/0
	Addr string // 127.0.0.1:PORT

	proc    *process
	scratch *scratchDir
	client  *redis.Client

	stop    sync.Once
	stopErr error
}

// StartRealRedis runs a redis-server on a free loopback port until Stop or the end of this process.
// ctx bounds the start. Errors: ErrNoRedisServer.
func StartRealRedis(ctx context.Context) (*RealRedis, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, ErrNoRedisServer
	}
	scratch, err := newScratchDir()
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	r := &RealRedis{scratch: scratch}
	for range portTries {
		if err = r.run(ctx, binary); err == nil {
			return r, nil
		}
		if !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	return nil, errors.Join(fmt.Errorf("redis: %w", err), scratch.remove())
}

// PID is the process id of the server.
func (r *RealRedis) PID() int { return r.proc.pid() }

// FlushAll empties all databases.
func (r *RealRedis) FlushAll(ctx context.Context) error { return r.client.FlushAll(ctx).Err() }

// Pause freezes the server: connections stay open, and nothing is answered until Resume.
func (r *RealRedis) Pause() error { return r.proc.cmd.Process.Signal(freeze) }

// Resume lets a paused server go on.
func (r *RealRedis) Resume() error { return r.proc.cmd.Process.Signal(thaw) }

// Stop kills the server, as a machine that goes down would. It may be called twice.
func (r *RealRedis) Stop() error {
	r.stop.Do(func() {
		r.stopErr = errors.Join(r.client.Close(), r.proc.end(kill), r.scratch.remove())
	})
	return r.stopErr
}

// run starts the server on some port and waits until it answers there.
func (r *RealRedis) run(ctx context.Context, binary string) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("not ready after %s", startPatience))
	defer cancel()
	port, err := freePort(r.scratch.path)
	if err != nil {
		return err
	}
	logFile := filepath.Join(r.scratch.path, "redis.log")
	r.proc, err = startProcess(command{
		path: binary,
		args: []string{
			"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", r.scratch.path,
			"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--daemonize", "no",
		},
		dir: r.scratch.path, log: logFile,
	})
	if err != nil {
		return err
	}
	r.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	r.URL = "redis://" + r.Addr + "/0"
	r.client = redis.NewClient(&redis.Options{Addr: r.Addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	if err = r.awaitReady(ctx); err == nil {
		return nil
	}
	err = fmt.Errorf("%w\n%s", err, tail(logFile))
	return errors.Join(err, r.client.Close(), r.proc.end(kill))
}

// awaitReady returns when our own server answers; another one on the port has another process id.
func (r *RealRedis) awaitReady(ctx context.Context) error {
	mine := fmt.Sprintf("\r\nprocess_id:%d\r\n", r.PID())
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		if listening(r.Addr) { // go-redis complains on stderr about every refused connection
			info, err := r.client.Info(ctx, "server").Result()
			if err == nil && strings.Contains(info, mine) {
				return nil
			}
		}
		select {
		case <-r.proc.exited:
			return fmt.Errorf("ended while starting: %w", r.proc.err())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func listening(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second) //nolint:noctx // a second at most, on this machine
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
