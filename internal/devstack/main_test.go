//go:build unix

package devstack

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv makes this test binary a program that starts one server, prints its URL, its process id
// and its directory on a line each, and then waits until its standard input ends.
const childEnv = "DEVSTACK_CHILD"

func TestMain(m *testing.M) {
	if kind := os.Getenv(childEnv); kind != "" {
		if err := child(kind, os.Getenv("DEVSTACK_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func child(kind, dir string) error {
	switch kind {
	case "postgres", "throwaway":
		p, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir, Throwaway: kind == "throwaway"})
		if err != nil {
			return err
		}
		fmt.Printf("%s\n%d\n%s\n", p.URL, p.PID(), p.Dir)
	case "redis":
		r, err := StartRealRedis(context.Background())
		if err != nil {
			return err
		}
		fmt.Printf("%s\n%d\n%s\n", r.URL, r.PID(), r.scratch.path)
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// owner is a child process with a server.
type owner struct {
	cmd       *exec.Cmd
	url, dir  string
	serverPID int
}

// startOwner runs a child in a process group of its own and waits until its server is up.
func startOwner(t *testing.T, kind, dir string) *owner {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+kind, "DEVSTACK_DIR="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	_, err := cmd.StdinPipe() // open until the test is over
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	o := &owner{cmd: cmd}
	t.Cleanup(func() { o.kill() })
	var lines []string
	for s := bufio.NewScanner(out); len(lines) < 3 && s.Scan(); {
		lines = append(lines, s.Text())
	}
	if len(lines) < 3 {
		t.Fatalf("child did not start its %s", kind)
	}
	o.url, o.dir = lines[0], lines[2]
	o.serverPID, err = strconv.Atoi(lines[1])
	check(t, err)
	return o
}

// kill gives the child no chance to clean up.
func (o *owner) kill() {
	_ = o.cmd.Process.Kill()
	_ = o.cmd.Wait()
}

// reachableDir is a directory that other users can go through, unlike t.TempDir.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "devstack-*") //nolint:usetesting // t.TempDir is under one that only root gets through
	check(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	check(t, os.Chmod(dir, 0o755))
	return dir
}

// eventually waits for a condition of the world outside, which gives no notice.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !holds(); time.Sleep(glance) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// gone is whether the process has ended, even if nobody has asked for its exit status yet.
func gone(pid int) bool {
	line, known := commandLine(pid)
	return !alive(pid) || known && strings.TrimSpace(line) == ""
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contains(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in %q", w, text)
		}
	}
}
