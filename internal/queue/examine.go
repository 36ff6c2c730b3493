package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// MinVersion is the oldest Redis whose commands Asynq uses.
const MinVersion = "6.2"

// Health is what Redis tells of itself, for doctor. What a server hides is
// zero: managed ones refuse CONFIG, the one of dev knows no INFO.
type Health struct {
	Version   string // as in 7.0.15
	Policy    string // maxmemory-policy
	UsedBytes int64
	MaxBytes  int64 // 0: no limit of its own
	Replica   bool  // takes no writes
	Ahead     time.Duration
	Took      time.Duration // one question and its answer
	NoScripts error         // EVAL is refused, without which Asynq cannot work
}

// Old reports whether the version is known and lower than MinVersion.
func (h Health) Old() bool {
	major, rest, _ := strings.Cut(h.Version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(major)
	b, _ := strconv.Atoi(minor)
	return err == nil && (a < 6 || a == 6 && b < 2)
}

// Examine asks rdb how it is. now is our clock. It changes nothing. Its error
// says that there is no Redis to talk to.
func Examine(ctx context.Context, rdb redis.UniversalClient, now func() time.Time) (h Health, err error) {
	if err := rdb.Ping(ctx).Err(); err != nil {
		return h, err
	}
	asked, began := now(), time.Now()
	server, err := rdb.Time(ctx).Result()
	if err != nil {
		return h, fmt.Errorf("ask for the time: %w", err)
	}
	h.Took = time.Since(began)
	h.Ahead = server.Sub(asked.Add(h.Took / 2))
	info := map[string]string{}
	for _, section := range []string{"server", "memory", "replication"} {
		text, _ := rdb.Info(ctx, section).Result() // hidden: what it says is missing
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			info[name] = value
		}
	}
	h.Version, h.Replica = info["redis_version"], info["role"] == "slave"
	h.UsedBytes, _ = strconv.ParseInt(info["used_memory"], 10, 64) // "" is 0
	h.MaxBytes, _ = strconv.ParseInt(info["maxmemory"], 10, 64)
	if h.Policy = info["maxmemory_policy"]; h.Policy == "" {
		got, _ := rdb.ConfigGet(ctx, "maxmemory-policy").Result()
		h.Policy = got["maxmemory-policy"]
	}
	h.NoScripts = rdb.Eval(ctx, "return 1", nil).Err()
	return h, nil
}

// Workers counts the worker processes that Redis heard of within the last seconds.
func Workers(rdb redis.UniversalClient) (int, error) {
	servers, err := asynq.NewInspectorFromRedisClient(rdb).Servers()
	if err != nil {
		return 0, err
	}
	processes := map[string]bool{}
	for _, s := range servers {
		processes[fmt.Sprintf("%s %d", s.Host, s.PID)] = true
	}
	return len(processes), nil
}

// Obstacle is why Redis cannot be used.
type Obstacle int

// The obstacles.
const (
	Unexplained Obstacle = iota
	NoAnswer             // no such name, refused, or silent
	NoTLS                // one side wants TLS, or the certificate is not good
	NoLogin              // user or password is missing, wrong, or may not do enough
	NotRedis             // something else listens there
	NotReady             // loading its data, or lost its master
)

// ObstacleOf finds out what err is about.
func ObstacleOf(err error) Obstacle {
	text := err.Error()
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("NOAUTH", "WRONGPASS", "NOPERM", "invalid password", "without any password", "invalid username"):
		return NoLogin
	case has("LOADING", "MASTERDOWN", "CLUSTERDOWN"):
		return NotReady
	case has("tls: ", "x509: "):
		return NoTLS
	case has("can't parse", "invalid reply", "HTTP/"):
		return NotRedis
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, context.DeadlineExceeded) || has("connection refused", "EOF", "sentinel") {
		return NoAnswer
	}
	return Unexplained
}
