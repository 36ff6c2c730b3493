package queue

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Open makes a Redis client from an address. It does not connect.
//
//	redis://[user:password@]host:6379[/db]     one server; rediss:// with TLS
//	redis-sentinel://[user:password@]host:26379,host2:26379[/db]?master=NAME
//	redis-cluster://[user:password@]host:6379,host2:6379
//
// Timeouts are short and obey the caller's context, because Redis only rings
// the bell: a hung one must not be waited for.
func Open(address string) (redis.UniversalClient, error) {
	logging.Disable() // go-redis would print every failed dial past slog; Client and Server tell it once
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, errors.New("REDIS_URL: is not a Redis address such as redis://localhost:6379/0")
	}
	o := &redis.UniversalOptions{
		DialTimeout: time.Second, ReadTimeout: 2 * time.Second, WriteTimeout: time.Second,
		PoolTimeout: time.Second, ContextTimeoutEnabled: true, MaxRetries: 1,
		Username: u.User.Username(),
		// These notices of Redis Cloud make the constructor look up the host, for up to 2 s.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	o.Password, _ = u.User.Password()
	if db := strings.Trim(u.Path, "/"); db != "" {
		if o.DB, err = strconv.Atoi(db); err != nil || o.DB < 0 {
			return nil, fmt.Errorf("REDIS_URL: the path %q is not a database number", u.Path)
		}
	}
	switch u.Scheme {
	case "redis", "rediss":
		single, err := redis.ParseURL(address)
		if err != nil {
			return nil, errors.New("REDIS_URL: is not a Redis address such as redis://localhost:6379/0")
		}
		o.Addrs, o.TLSConfig = []string{single.Addr}, single.TLSConfig
		return redis.NewClient(o.Simple()), nil
	case "redis-sentinel":
		o.Addrs, o.MasterName = strings.Split(u.Host, ","), u.Query().Get("master")
		if o.MasterName == "" {
			return nil, errors.New("REDIS_URL: redis-sentinel needs ?master=NAME")
		}
		return redis.NewFailoverClient(o.Failover()), nil
	case "redis-cluster":
		o.Addrs = strings.Split(u.Host, ",")
		return redis.NewClusterClient(o.Cluster()), nil
	}
	return nil, fmt.Errorf("REDIS_URL: scheme %q is none of redis, rediss, redis-sentinel, redis-cluster", u.Scheme)
}

// Ready checks that Redis answers.
func Ready(ctx context.Context, rdb redis.UniversalClient) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return rdb.Ping(ctx).Err()
}

// Evicts reports whether Redis may throw keys away when it is full
// (maxmemory-policy other than noeviction). Servers that hide their
// configuration are believed.
func Evicts(ctx context.Context, rdb redis.UniversalClient) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	got, err := rdb.ConfigGet(ctx, "maxmemory-policy").Result()
	policy := got["maxmemory-policy"]
	return err == nil && policy != "" && policy != "noeviction"
}
