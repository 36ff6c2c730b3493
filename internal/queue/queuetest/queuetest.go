// Package queuetest has a bell that only remembers.
package queuetest

import (
	"sync"

	"quayside/internal/queue"
)

// Bell records the names of the tasks it was asked to ring, in order.
type Bell struct {
	mu  sync.Mutex
	got []string
}

// Ring remembers t.
func (b *Bell) Ring(t queue.Task) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, t.Name())
}

// Rung returns the names so far.
func (b *Bell) Rung() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.got...)
}
