//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one that we started: of the program, or a redis-server. Only such
// a one is ever harmed, see signal.
type process struct {
	name  string
	path  string
	cmd   *exec.Cmd
	log   string
	from  int64  // where in the log its own part begins
	birth uint64 // its start time in /proc, in ticks since boot: tells it from another with its number
	done  chan struct{}
	err   error // how it ended; read after done
	mu    sync.Mutex
	asked bool // somebody of ours ended it
}

// startProcess runs a program in a process group of its own, with its output
// added to a file, until it ends or we do.
func startProcess(name, path, dir, log string, env []string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // a path of our own
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	before, err := out.Stat()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, path: path, log: log, from: before.Size(), cmd: exec.Command(path, args...), done: make(chan struct{})} //nolint:noctx,gosec // signal ends it; a path of our own
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = env, dir, out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	stat, err := statOf(p.pid())
	if err != nil {
		return nil, errors.Join(err, p.cmd.Process.Kill())
	}
	p.birth = stat.birth
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// said reports whether the process has written text.
func (p *process) said(text string) bool {
	all, err := os.ReadFile(p.log)
	return err == nil && int64(len(all)) >= p.from && bytes.Contains(all[p.from:], []byte(text))
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// own is an error unless the process with the number of p is still p: a number
// may be given anew as soon as its process is gone.
func (p *process) own() error {
	if p.ended() {
		return fmt.Errorf("%s, process %d, has ended: %w", p.name, p.pid(), cmpErr(p.err))
	}
	stat, err := statOf(p.pid())
	if err != nil {
		return err
	}
	if stat.birth != p.birth || stat.parent != os.Getpid() {
		return fmt.Errorf("process %d is not the %s that we started: not touched", p.pid(), p.name)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid()))
	if target, err2 := filepath.EvalSymlinks(p.path); err != nil || err2 != nil || exe != target {
		return fmt.Errorf("process %d runs %q and not %s: not touched", p.pid(), exe, p.path)
	}
	return nil
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// signal sends s to a process that is still ours.
func (p *process) signal(s syscall.Signal) error {
	if err := p.own(); err != nil {
		return err
	}
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		p.mu.Lock()
		p.asked = true
		p.mu.Unlock()
	}
	return p.cmd.Process.Signal(s)
}

// end sends s and waits until the process is gone.
func (p *process) end(s syscall.Signal, patience time.Duration) error {
	if err := p.signal(s); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s, process %d, is still there %s after %s", p.name, p.pid(), patience, s)
	}
}

// reap ends whatever state the process is in.
func (p *process) reap() {
	if p != nil && !p.ended() && p.own() == nil {
		_ = p.end(syscall.SIGKILL, 5*time.Second)
	}
}

// procStat is what /proc/PID/stat says that we look at.
type procStat struct {
	parent int
	birth  uint64
}

// statOf reads proc(5), "/proc/pid/stat". The second field may hold anything.
func statOf(pid int) (s procStat, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	rest := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from field 3, the state
	if len(rest) < 20 {
		return s, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	if s.parent, err = strconv.Atoi(rest[1]); err != nil {
		return s, err
	}
	s.birth, err = strconv.ParseUint(rest[19], 10, 64)
	return s, err
}

// childrenOf are the processes whose parent is pid.
func childrenOf(pid int) (children []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			continue
		}
		if s, err := statOf(child); err == nil && s.parent == pid {
			children = append(children, child)
		}
	}
	return children
}

// await asks every 20 ms whether something holds.
func await(ctx context.Context, patience time.Duration, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %s in vain for %s", patience, what))
	defer cancel()
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-every.C:
		}
	}
	return nil
}

// sleep waits, or returns early with why.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
