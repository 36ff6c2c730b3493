package devstack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	portFile     = "port"
	passwordFile = "password"

	// leftoverPatience is how long a server whose parent died may take to end.
	leftoverPatience = 10 * time.Second
	// guardPatience is how long its guard has to ask it to; a guard needs milliseconds.
	guardPatience = time.Second
	// glance is how often we look at something that gives no notice.
	glance = 10 * time.Millisecond
)

// cluster is one data directory and the binaries that fit it.
type cluster struct {
	dir      string // PostgresOptions.Dir, settled
	data     string // dir/pg15
	bin      binaries
	as       *account
	password string
	log      func(format string, args ...any)
}

// dataDir carries the major version in its name, since no other version can read what is in it.
func dataDir(dir string, major int) string { return filepath.Join(dir, "pg"+strconv.Itoa(major)) }

// existingMajor is the version of the data in dir, the highest when there are several, 0 when there is none.
func existingMajor(dir string) (int, error) {
	found, err := filepath.Glob(filepath.Join(dir, "pg*", "PG_VERSION"))
	if err != nil {
		return 0, err
	}
	major := 0
	for _, f := range found {
		b, err := os.ReadFile(f)
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err == nil && filepath.Dir(f) == dataDir(dir, n) { // not one that initdb is still making
			major = max(major, n)
		}
	}
	return major, nil
}

// loadPassword reads the superuser's password, and makes one up when the data is yet to be made.
func (c *cluster) loadPassword(mayMake bool) (string, error) {
	path := filepath.Join(c.dir, passwordFile)
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if !mayMake {
		return "", fmt.Errorf("%s is gone, so nobody can log in to the data in %s: put it back, or remove that directory to start empty", path, c.data)
	}
	password := rand.Text()
	return password, own(path, password, c.as)
}

// init makes the data directory under another name and renames it when it is whole: a first run
// that was killed leaves nothing that looks like data.
func (c *cluster) init(ctx context.Context, throwaway bool) error {
	half := filepath.Join(c.dir, "init-*")
	if old, err := filepath.Glob(half); err == nil {
		for _, d := range old {
			_ = os.RemoveAll(d) // of a first run that was killed
		}
	}
	tmp, err := os.MkdirTemp(c.dir, "init-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // gone already when all went well
	if err := handOver(tmp, c.as); err != nil {
		return err
	}
	args := []string{
		"-D", tmp, "-U", superuser, "-A", "scram-sha-256", "--pwfile=" + filepath.Join(c.dir, passwordFile),
		"-E", "UTF8", "--locale=C", "--no-instructions",
	}
	if throwaway {
		args = append(args, "--no-sync")
	}
	logFile := filepath.Join(c.dir, "initdb.log")
	proc, err := startProcess(command{
		path: filepath.Join(c.bin.dir, "initdb"), args: args, dir: c.dir, log: logFile, as: c.as,
	})
	if err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	select {
	case <-proc.exited:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), proc.end(fastShutdown))
	}
	if err := proc.err(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, tail(logFile))
	}
	if err := os.Rename(tmp, c.data); err != nil {
		return err
	}
	if throwaway {
		return nil
	}
	return syncDir(c.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// awaitReady returns when proc says in postmaster.pid that it takes connections. Dialling the
// port instead could reach somebody else's server.
func (c *cluster) awaitReady(ctx context.Context, proc *process) error {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		if pm := readPostmaster(c.data); pm.pid == proc.pid() && pm.status == "ready" {
			return nil
		}
		select {
		case <-proc.exited:
			return fmt.Errorf("ended while starting: %w", proc.err())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// postmaster is what postmaster.pid says: the process id, its data directory and, on line 8, how far it is.
type postmaster struct {
	pid    int // 0 when there is no such file
	data   string
	status string // starting, ready, stopping
}

func readPostmaster(data string) postmaster {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return postmaster{}
	}
	lines := append(strings.Split(string(b), "\n"), make([]string, 8)...)
	pid, _ := strconv.Atoi(strings.TrimSpace(lines[0]))
	return postmaster{pid: pid, data: strings.TrimSpace(lines[1]), status: strings.TrimSpace(lines[7])}
}

// runs is whether pm is a living server on the directory data. After a crash its number may be
// another program's, and in a copied directory the file speaks of the original.
func (pm postmaster) runs(data string) bool {
	if pm.pid <= 0 || !alive(pm.pid) {
		return false
	}
	theirs, err1 := os.Stat(pm.data)
	ours, err2 := os.Stat(data)
	if err1 != nil || err2 != nil || !os.SameFile(theirs, ours) {
		return false
	}
	line, known := commandLine(pm.pid)
	return !known || strings.Contains(line, "postgres") && strings.Contains(line, pm.data)
}

// endLeftover waits until the server of a process that died has ended. Normally its guard has it
// well under way; when the guard was killed as well we ask the server ourselves. It reports
// whether there was such a server.
func (c *cluster) endLeftover(ctx context.Context) (bool, error) {
	pm := readPostmaster(c.data)
	if !pm.runs(c.data) {
		err := os.Remove(filepath.Join(c.data, "postmaster.pid"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		return false, nil
	}
	c.log("waiting for postgres %d, left in %s by a process that died", pm.pid, c.data)
	tick := time.NewTicker(glance)
	defer tick.Stop()
	began, asked := time.Now(), false
	for pm.runs(c.data) {
		waited := time.Since(began)
		if waited > leftoverPatience {
			return true, fmt.Errorf("an older server, process %d, has not ended within %s: end it with `kill -QUIT %d`", pm.pid, leftoverPatience, pm.pid)
		}
		if !asked && waited > guardPatience && readPostmaster(c.data).status != "stopping" {
			asked = true
			if err := sendSignal(pm.pid, fastShutdown); err != nil {
				return true, fmt.Errorf("stop older server, process %d: %w", pm.pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return true, context.Cause(ctx)
		case <-tick.C:
		}
	}
	return true, nil
}

// freePort is the port of the last run when it is free, else any.
func freePort(dir string) (int, error) {
	addr := anyPort
	if b, err := os.ReadFile(filepath.Join(dir, portFile)); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16); err == nil {
			addr = fmt.Sprintf("127.0.0.1:%d", n)
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		if l, err = net.Listen("tcp", anyPort); err != nil {
			return 0, fmt.Errorf("free port: %w", err)
		}
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close() //nolint:errcheck // a TCP listener has a TCP address
}
