package devstack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

// command is a program that must not outlive us.
type command struct {
	path string
	args []string
	dir  string   // where it runs; its user can enter it
	log  string   // file that gets its output, appended
	as   *account // nil for ourselves
}

// process is a running command and its guard.
type process struct {
	cmd      *exec.Cmd
	leash    *os.File      // write end of the guard's pipe: it closes when this process ends, in whatever way
	exited   chan struct{} // closed when the command has ended
	waitErr  error         // set before exited is closed
	wasAsked atomic.Bool
}

// guardScript leaves a guard behind and then becomes the command itself ("$0" with "$@").
//
// The guard reads from fd 3, a pipe from us. A line means that the command has ended and its
// number may be another program's by now. An end of file means that we are gone: the guard shuts
// the command down, and not gently if need be. It is started in a subshell of its own so that it
// is no child of the command, and it ignores what a terminal sends.
const guardScript = `
( ( trap '' HUP INT TERM QUIT
    exec >/dev/null 2>&1
    if read -r line <&3; then exit 0; fi
    for signal in INT QUIT KILL; do
      kill -$signal $$ || exit 0
      i=0
      while [ $i -lt 10 ]; do sleep 1; kill -0 $$ || exit 0; i=$((i+1)); done
    done
  ) & )
exec 3<&-
exec "$0" "$@"`

// startProcess runs c under a guard and in a session of its own, so that neither a terminal's
// Ctrl-C nor a signal to our process group reaches the two of them.
func startProcess(c command) (*process, error) {
	guardEnd, leash, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = guardEnd.Close() }()
	out, err := openOwned(c.log, os.O_APPEND, c.as)
	if err != nil {
		return nil, errors.Join(err, leash.Close())
	}
	defer func() { _ = out.Close() }()

	cmd := exec.Command("/bin/sh", append([]string{"-c", guardScript, c.path}, c.args...)...) //nolint:noctx // it outlives every context; the leash ends it
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, out, out
	cmd.ExtraFiles = []*os.File{guardEnd} // fd 3
	cmd.Env = plainEnv()
	cmd.SysProcAttr = ownSession(c.as)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, leash.Close())
	}
	p := &process{cmd: cmd, leash: leash, exited: make(chan struct{})}
	go func() {
		p.waitErr = cmd.Wait()
		_, _ = leash.WriteString("ended\n") // the guard may have been killed
		_ = leash.Close()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// err is how the command ended. Read it only after exited is closed.
func (p *process) err() error { return p.waitErr }

// asked is whether end was called.
func (p *process) asked() bool { return p.wasAsked.Load() }

// end stops the command: first as told, then harder. It returns once the command is gone.
func (p *process) end(first signal) error {
	p.wasAsked.Store(true)
	for _, step := range []struct {
		signal   signal
		patience time.Duration
	}{{first, 10 * time.Second}, {immediateShutdown, 5 * time.Second}, {kill, 5 * time.Second}} {
		if err := p.cmd.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop process %d: %w", p.pid(), err)
		}
		select {
		case <-p.exited:
			return nil
		case <-time.After(step.patience):
		}
	}
	return fmt.Errorf("process %d would not stop", p.pid())
}

// plainEnv keeps our secrets and the PG* variables from the servers.
func plainEnv() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// commandLine is how a process was started, where that can be told.
func commandLine(pid int) (string, bool) {
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		return strings.ReplaceAll(string(b), "\x00", " "), true
	}
	out, err := exec.Command("ps", "-o", "command=", "-p", fmt.Sprint(pid)).Output() //nolint:noctx // it answers at once
	return string(out), err == nil
}

// tail is the end of a log, for an error message.
func tail(file string) string {
	const maxBytes = 1500
	b, err := os.ReadFile(file)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	return strings.TrimSpace(string(b[max(0, len(b)-maxBytes):]))
}
