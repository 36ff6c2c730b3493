//go:build linux

package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc: USER_HZ, which is 100 on every Linux.
const tick = 10 * time.Millisecond

// process is what /proc/PID/stat says of one.
type process struct {
	pid, parent int
	cpu         time.Duration // its own, and that of the children it has waited for
}

// processes reads all there are. One that ends meanwhile is left out.
func processes() (map[int]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no processes in /proc: %w", err)
	}
	all := make(map[int]process, len(files))
	for _, name := range files {
		text, err := os.ReadFile(name) //nolint:gosec // a name from /proc
		if err != nil {
			continue
		}
		if p, ok := parseStat(text); ok {
			all[p.pid] = p
		}
	}
	return all, nil
}

// parseStat reads one line of proc(5), "/proc/pid/stat". The second field, the
// name of the program, may hold anything, also blanks and brackets.
func parseStat(text []byte) (p process, ok bool) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return p, false
	}
	rest := strings.Fields(string(text[end+1:])) // from field 3, the state
	if len(rest) < 15 {
		return p, false
	}
	pid, err1 := strconv.Atoi(strings.TrimSpace(string(text[:open])))
	parent, err2 := strconv.Atoi(rest[1])
	p.pid, p.parent = pid, parent
	for _, field := range rest[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return p, false
		}
		p.cpu += time.Duration(n) * tick
	}
	return p, err1 == nil && err2 == nil
}

// tree is the CPU time of a process and all below it, those that ended included.
func tree(all map[int]process, top int) (cpu time.Duration) {
	under := map[int]bool{top: true}
	for before := 0; before != len(under); {
		before = len(under)
		for pid, p := range all {
			if under[p.parent] {
				under[pid] = true
			}
		}
	}
	for pid := range maps.Keys(under) {
		cpu += all[pid].cpu
	}
	return cpu
}

// busy is the CPU time that the machine has spent since it started, on all
// cores, the share that its host took away included.
func busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	f := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal …
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins %q", line)
	}
	var cpu time.Duration
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		cpu += time.Duration(n) * tick
	}
	return cpu, nil
}

// look is the machine at one moment.
type look struct {
	at   time.Time
	busy time.Duration
	all  map[int]process
}

func lookAround() (l look, err error) {
	if l.busy, err = busy(); err != nil {
		return l, err
	}
	l.all, err = processes()
	l.at = time.Now()
	return l, err
}

// cpuSince is what the processes named and all below them have used since before.
func (l look) cpuSince(before look, tops ...int) (cpu time.Duration) {
	for _, top := range tops {
		cpu += max(0, tree(l.all, top)-tree(before.all, top))
	}
	return cpu
}

// elsewhere is the share of the machine, 0 to 1, that since before went to
// processes that are not ours. What the kernel does for ours without their
// name on it, such as writing back, is in it too: a quiet machine shows a few hundredths.
func (l look) elsewhere(before look) float64 {
	all := l.at.Sub(before.at) * time.Duration(runtime.NumCPU())
	others := l.busy - before.busy - l.cpuSince(before, os.Getpid())
	return min(1, max(0, float64(others)/float64(all)))
}
