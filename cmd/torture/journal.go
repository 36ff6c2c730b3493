//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// entry is one line of the journal. What is sent is written down, and on disk,
// before it leaves; so is the answer before anything is built on it. The audit
// knows what happened from here alone.
type entry struct {
	N       int64     `json:"n"` // of the request; its tries and their answers share it
	At      time.Time `json:"at"`
	Act     string    `json:"act"`             // open, cancel, ship or tell
	Story   int       `json:"story"`           // who tells it
	Kind    string    `json:"kind,omitempty"`  // of the story
	Lie     lie       `json:"lie,omitempty"`   // what is wrong with an event
	Key     string    `json:"key,omitempty"`   // the event's id
	Order   string    `json:"order,omitempty"` // of open, cancel and ship
	Body    []byte    `json:"body,omitempty"`  // as sent
	Via     string    `json:"via,omitempty"`   // which serve was asked
	Outcome outcome   `json:"outcome,omitempty"`
	Status  int       `json:"status,omitempty"`
	Text    string    `json:"text,omitempty"`
	Millis  float64   `json:"ms,omitempty"`
}

// outcome of one try.
type outcome string

// The outcomes. After unknown it may have happened or not: the connection
// broke, or the answer was 503.
const (
	ok      outcome = "ok"
	refused outcome = "refused"
	unknown outcome = "unknown"
)

// journal is a file of entries. Writers that come while it is being synced
// share the next sync.
type journal struct {
	file  *os.File
	mu    sync.Mutex
	buf   []byte
	wait  []chan error
	flush chan struct{}
	done  chan struct{}
}

func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // a path of our own
	if err != nil {
		return nil, err
	}
	j := &journal{file: f, flush: make(chan struct{}, 1), done: make(chan struct{})}
	go j.write()
	return j, nil
}

// note returns when e is on disk.
func (j *journal) note(e entry) error {
	e.At = time.Now().UTC()
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	written := make(chan error, 1)
	j.mu.Lock()
	j.buf = append(append(j.buf, text...), '\n')
	j.wait = append(j.wait, written)
	j.mu.Unlock()
	select {
	case j.flush <- struct{}{}:
	default: // somebody has asked for it already
	}
	return <-written
}

func (j *journal) write() {
	defer close(j.done)
	for range j.flush {
		j.mu.Lock()
		buf, wait := j.buf, j.wait
		j.buf, j.wait = nil, nil
		j.mu.Unlock()
		_, err := j.file.Write(buf)
		err = errors.Join(err, j.file.Sync())
		for _, w := range wait {
			w <- err
		}
	}
}

// close ends the journal; nobody may note any more.
func (j *journal) close() error {
	close(j.flush)
	<-j.done
	return j.file.Close()
}

// readJournal reads what is on disk.
func readJournal(path string) (all []entry, err error) {
	f, err := os.Open(path) //nolint:gosec // a path of our own
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	d := json.NewDecoder(bufio.NewReader(f))
	for {
		var e entry
		switch err := d.Decode(&e); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("journal, after %d lines: %w", len(all), err)
		}
		all = append(all, e)
	}
}
