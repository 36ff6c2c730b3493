//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// line is a connection between a process of the program and a server, with a
// toxiproxy in it.
type line struct {
	mu       sync.Mutex
	name     string
	addr     string // where the program dials
	upstream string
	proxy    *toxiproxy.Proxy
}

func init() { zerolog.SetGlobalLevel(zerolog.Disabled) } // some of toxiproxy's poisons log past the logger they are given

// openLine listens on a free port for upstream.
func openLine(name, upstream string) (*line, error) {
	l := &line{name: name, upstream: upstream, addr: "127.0.0.1:0"}
	err := l.up()
	return l, err
}

// up lets connections through, whatever was done to them before.
func (l *line) up() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proxy != nil && l.proxy.Enabled {
		return nil
	}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l.proxy = toxiproxy.NewProxy(server, l.name, l.addr, l.upstream)
	if err := l.proxy.Start(); err != nil {
		return fmt.Errorf("proxy %s: %w", l.name, err)
	}
	l.addr = l.proxy.Listen
	return nil
}

// down breaks all connections off and takes no more.
func (l *line) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proxy != nil {
		l.proxy.Stop()
	}
}

// poison does something to what flows: kind and attributes are toxiproxy's,
// direction is upstream (to the server) or downstream.
func (l *line) poison(kind, direction string, attributes map[string]int64) error {
	body, err := json.Marshal(map[string]any{"type": kind, "stream": direction, "attributes": attributes})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.proxy.Toxics.AddToxicJson(bytes.NewReader(body)); err != nil {
		return fmt.Errorf("proxy %s: %s: %w", l.name, kind, err)
	}
	return nil
}

// heal takes all poison out. Where it has clogged a connection, all are broken
// off instead.
func (l *line) heal() error {
	l.mu.Lock()
	cured := make(chan struct{})
	go func(p *toxiproxy.Proxy) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p.Toxics.ResetToxics(ctx)
		close(cured)
	}(l.proxy)
	select {
	case <-cured:
	case <-time.After(2 * time.Second):
		l.proxy.Stop()
	}
	l.mu.Unlock()
	return l.up()
}
