//go:build linux

package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Only a process that is provably the one we started gets a signal.
func TestOnlyOwnIsHarmed(t *testing.T) {
	t.Parallel()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := startProcess("sleeper", sleep, dir, filepath.Join(dir, "log"), nil, "60")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.reap() })
	if err := await(t.Context(), 5*time.Second, "it to run", func() bool { return p.own() == nil }); err != nil {
		t.Fatal(err, p.own())
	}
	for _, other := range []*process{
		{name: "older", path: p.path, cmd: p.cmd, birth: p.birth - 1, done: p.done},
		{name: "other program", path: "/bin/sh", cmd: p.cmd, birth: p.birth, done: p.done},
	} {
		if err := other.signal(syscall.SIGKILL); err == nil || !strings.Contains(err.Error(), "not touched") {
			t.Errorf("%s: %v", other.name, err)
		}
	}
	if err := p.end(syscall.SIGKILL, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := p.signal(syscall.SIGKILL); err == nil {
		t.Error("a process that has ended was sent a signal")
	}
}

// What the journal has noted is on disk, in order, whoever noted it.
func TestJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	together(100, func(i int) {
		if err := j.note(entry{N: int64(i), Act: actTell, Body: []byte("a\nb")}); err != nil {
			t.Error(err)
		}
	})
	all, err := readJournal(path) // before it is closed
	if err != nil {
		t.Fatal(err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	var ns []int64
	for _, e := range all {
		ns = append(ns, e.N)
		if string(e.Body) != "a\nb" || e.At.IsZero() {
			t.Errorf("%+v", e)
		}
	}
	slices.Sort(ns)
	if len(slices.Compact(ns)) != 100 {
		t.Errorf("%d entries", len(ns))
	}
}
