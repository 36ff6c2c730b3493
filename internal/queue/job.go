// Package queue wraps Asynq so that everything about a job is said in one
// place: its name, queue, patience and payload type. A job carries only keys
// of rows; the rows in Postgres say what is to be done and whether it has been
// done. Redis only rings the bell: losing it loses nothing, because every
// noun sweeps its waiting rows and rings again.
package queue

import (
	"encoding/json"
	"time"

	"github.com/hibiken/asynq"
)

// The queues. Each has workers of its own, so that a slow mail server can
// never keep a payment waiting.
const (
	Money = "money" // payments and orders: a customer is waiting
	Post  = "post"  // letters and shipment requests: the network is slow
	Bulk  = "bulk"  // imports: long, and nobody waits at a till
)

// RingAgain is how long a sweep waits before it rings again for a row: longer
// than a ring takes to be answered, short enough that a lost one is not missed.
const RingAgain = 1500 * time.Millisecond

// Job describes one kind of work with arguments of type A.
type Job[A any] struct {
	Name    string        // stored in Redis: renaming orphans queued tasks
	Queue   string        // Money, Post or Bulk
	Timeout time.Duration // of one attempt
}

// Task is a job with its arguments, ready to be rung.
type Task struct {
	name    string
	queue   string
	payload []byte
	opts    []asynq.Option
}

// With binds arguments to the job. Arguments are plain structs of our own, so
// a failure to encode one is a programming error.
//
// A task has no id and Redis tries it once: the rows know their attempts, and
// the sweep rings again. (A fixed TaskID would be blocked for ever once its
// task is archived.)
func (j Job[A]) With(args A) Task {
	payload, err := json.Marshal(args)
	if err != nil {
		panic("queue: " + j.Name + ": " + err.Error())
	}
	return Task{name: j.Name, queue: j.Queue, payload: payload, opts: []asynq.Option{
		asynq.Queue(j.Queue), asynq.MaxRetry(0), asynq.Timeout(j.Timeout),
	}}
}

// Name returns the job's name, for logs and tests.
func (t Task) Name() string { return t.name }
