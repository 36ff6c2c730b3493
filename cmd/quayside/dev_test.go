//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/joho/godotenv"
)

// devEnv is all that dev needs of the shell it is typed into.
func devEnv(dir string) map[string]string {
	return map[string]string{"HOME": dir, "TMPDIR": dir}
}

var readyAfter = regexp.MustCompile(`Quayside is ready after (\d+\.\d) s`)

// ready waits until dev says so, and returns how long it took by its own account.
func (p *program) ready() (seconds string) {
	p.t.Helper()
	p.until("dev to be ready", func() bool { return readyAfter.MatchString(p.stdout.String()) })
	return readyAfter.FindStringSubmatch(p.stdout.String())[1]
}

// ordersOf lists the orders of a running dev over its API.
func ordersOf(t *testing.T, data string) (ids []string) {
	t.Helper()
	env, err := godotenv.Read(filepath.Join(data, devEnvName))
	if err != nil {
		t.Fatal(err)
	}
	var p page
	if err := newShopClient(env["PUBLIC_URL"], env["ADMIN_API_KEY"]).call(t.Context(), http.MethodGet, "/api/v1/orders?limit=200", nil, &p); err != nil {
		t.Fatal(err)
	}
	return p.keys("id")
}

// The demo plays every scene well on ports that are taken by others; a second
// run finds its orders; killed, it leaves no Postgres behind; a third run goes
// on all the same and stops in order.
func TestDevKeepsItsData(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	data := filepath.Join(dir, "data")
	p := process(t, devEnv(dir), "dev", "--demo", "--once", "--data", data)
	if code := p.exit(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.stdout.String())
	}
	out := p.stdout.String()
	t.Logf("measured: ready for the first time after %s s", p.ready())
	contains(t, "the demo", out, fmt.Sprintf("all %d invariants hold\n", len(invariantsOf(false))))
	programme := newDemo(nil, nil).rows
	for _, s := range programme {
		contains(t, "the demo", out, "✓ "+s.name+"-", s.line)
	}
	for _, l := range heldPorts {
		if addr := l.Addr().String(); strings.Contains(out, addr+"/") {
			t.Errorf("it says it is on %s, which is taken:\n%s", addr, out)
		}
	}

	p = process(t, devEnv(dir), "dev", "--data", data)
	t.Logf("measured: ready for the second time after %s s", p.ready())
	kept := ordersOf(t, data)
	if len(kept) != len(programme)+1 { // goods-gone sells the last ones to somebody else
		t.Errorf("orders kept: %q", kept)
	}
	servers := descendants(t, p.cmd.Process.Pid)
	p.signal(syscall.SIGKILL)
	if code := p.exit(); code != -1 {
		t.Errorf("exit code %d of a killed process", code)
	}
	allGone(t, servers)

	p = process(t, devEnv(dir), "dev", "--data", data)
	t.Logf("measured: ready after a kill after %s s", p.ready())
	if again := ordersOf(t, data); fmt.Sprint(again) != fmt.Sprint(kept) {
		t.Errorf("orders after the kill: %q, before: %q", again, kept)
	}
	servers = descendants(t, p.cmd.Process.Pid)
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	for _, pid := range servers {
		if lives(pid) {
			t.Errorf("process %d lives on after dev ended in order", pid)
		}
	}
}

// descendants are the process ids below one, where the system tells.
func descendants(t *testing.T, pid int) (pids []int) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Log("not looked for: there is no /proc")
		return nil
	}
	parents := map[int]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		_, rest, _ := strings.Cut(string(b), ") ")
		parents[id], _ = strconv.Atoi(strings.Fields(rest)[1])
	}
	for id := range parents {
		for up := parents[id]; up > 1; up = parents[up] {
			if up == pid {
				pids = append(pids, id)
				break
			}
		}
	}
	if len(pids) < 3 {
		t.Errorf("only %d processes below dev: this looks at the wrong place", len(pids))
	}
	return pids
}

// lives reports whether a process runs; one that has ended and was not yet
// asked for its exit code does not.
func lives(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(b) > 0
}

func allGone(t *testing.T, pids []int) {
	t.Helper()
	w := &world{t: t}
	took := w.within(patience, fmt.Sprintf("the processes %v to end", pids), func() bool {
		for _, pid := range pids {
			if lives(pid) {
				return false
			}
		}
		return true
	})
	t.Logf("measured: %d server processes were gone %.1f s after the kill", len(pids), took.Seconds())
}

// --ephemeral leaves nothing behind, wherever the database had to go.
func TestDevEphemeral(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	before := foldersOf("/var/lib/quayside")
	p := process(t, devEnv(dir), "dev", "--ephemeral")
	p.ready()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if left := foldersOf(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for name := range foldersOf("/var/lib/quayside") {
		if !before[name] {
			t.Errorf("left behind: /var/lib/quayside/%s", name)
		}
	}
}

func foldersOf(dir string) map[string]bool {
	names := map[string]bool{}
	entries, _ := os.ReadDir(dir) // none when it is not there
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names
}

// An ordinary user needs no more rights than to write to the folder.
func TestDevAsOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("we are an ordinary user ourselves: the other tests show it")
		return
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	dir := reachableDir(t)
	exe := filepath.Join(dir, "quayside")
	if err := copyFile(exe); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	as := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	p := processOf(t, exe, as, devEnv(dir), "dev", "--data", data)
	t.Logf("measured: ready after %s s as nobody", p.ready())
	if got := ordersOf(t, data); len(got) != 0 {
		t.Errorf("orders of a new shop: %q", got)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// copyFile copies this binary to where others may run it.
func copyFile(to string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	in, err := os.Open(exe)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}
