package queue

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// asynqLog hands Asynq's own lines to slog, and of a flood (Redis away: one
// line per poll) one every complainGap.
type asynqLog struct {
	mu   sync.Mutex
	last time.Time
}

func (l *asynqLog) Debug(...any) {}
func (l *asynqLog) Info(...any)  {}
func (l *asynqLog) Warn(args ...any) {
	l.say(slog.LevelWarn, args)
}

func (l *asynqLog) Error(args ...any) {
	l.say(slog.LevelWarn, args) // Error is for what a person must look at; the sweep deals with this
}

func (l *asynqLog) Fatal(args ...any) {
	slog.Error("queue library gave up", "error", fmt.Sprint(args...))
	os.Exit(1)
}

func (l *asynqLog) say(level slog.Level, args []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.last) < complainGap {
		return
	}
	l.last = time.Now()
	slog.Log(context.Background(), level, "queue library", "says", fmt.Sprint(args...))
}
