//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The references are this test binary, started again.
func TestMain(m *testing.M) {
	if isReference(os.Args[1:]) {
		if err := reference(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// The benchmark itself works: every part brings up all it measures, measures
// all goals, finds every event that was posted, and the books add up.
func TestShort(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Log("NOT SHOWN: there is no redis-server, so the benchmark itself was not run")
		return
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--short"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	said := out.String()
	t.Log(said)
	for goal := range 8 {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^%d +\S.*(not judged: too short|NOT SHOWN: .*)$`, goal+1)).MatchString(said) {
			t.Errorf("no line about goal %d", goal+1)
		}
	}
	for _, want := range []string{"nothing stored", "naive Go", "fsync on, synchronous_commit on", "the books add up"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

// A typing error is found before anything is started.
func TestUnknownPart(t *testing.T) {
	for _, args := range [][]string{{"--only", "intake,aply"}, {"--rounds", "0"}, {"now"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

// The name of a program may look like what follows it.
func TestParseStat(t *testing.T) {
	p, ok := parseStat([]byte("7 (a) R 1 (x) S 3 4 5 6 7 8 9 10 11 12 100 20 30 4 20 0 1"))
	want := process{pid: 7, parent: 3, cpu: 1540 * time.Millisecond}
	if !ok || p != want {
		t.Errorf("got %+v, %v", p, ok)
	}
	for _, odd := range []string{"", "7 (a", "7 (a) S 3 4", "x (a) S 3 4 5 6 7 8 9 10 11 12 1 2 3 4 5 6"} {
		if p, ok := parseStat([]byte(odd)); ok {
			t.Errorf("%q was read as %+v", odd, p)
		}
	}
}

// The CPU time of a tree is that of all below its top and of nobody else.
func TestTree(t *testing.T) {
	all := map[int]process{
		1: {1, 0, 100}, 2: {2, 1, 10}, 3: {3, 2, 5}, 4: {4, 3, 2}, 9: {9, 1, 50},
	}
	if got := tree(all, 2); got != 17 {
		t.Errorf("got %d, want 17", got)
	}
}

// A processor that is kept busy by a process that is not ours is seen; our own
// work is not counted as somebody else's.
func TestElsewhere(t *testing.T) {
	before := look{at: time.Unix(0, 0), busy: 0, all: map[int]process{os.Getpid(): {pid: os.Getpid()}}}
	after := look{at: time.Unix(10, 0), busy: 6 * time.Second, all: map[int]process{os.Getpid(): {pid: os.Getpid(), cpu: 5 * time.Second}}}
	cores := after.elsewhere(before)
	after.busy = 5 * time.Second
	if quiet := after.elsewhere(before); cores <= 0 || quiet != 0 {
		t.Errorf("a second of others is %v, none is %v", cores, quiet)
	}
}

// Only figures of quiet rounds are judged, on the right side of their bound.
func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		r     result
		judge bool
		want  string
	}{
		{result{least: true, bound: 8, figure: figure{median: 8}}, true, "met"},
		{result{least: true, bound: 8, figure: figure{median: 7.9}}, true, "missed"},
		{result{bound: .2, figure: figure{median: .2}}, true, "met"},
		{result{bound: .2, figure: figure{median: .3}}, true, "missed"},
		{result{bound: .2, figure: figure{median: .1, noisy: true}}, true, "not judged: no round was quiet"},
		{result{bound: .2, figure: figure{median: .1}}, false, "not judged: too short"},
		{result{bound: .2, missing: "no node"}, true, "NOT SHOWN: no node"},
	} {
		if got := tc.r.verdict(tc.judge); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.r, got, tc.want)
		}
	}
}

// Disturbed rounds are discarded, and when none was quiet that is said.
func TestHold(t *testing.T) {
	b := &bench{yard: &yard{out: &bytes.Buffer{}}, plan: plan{rounds: 3, bound: .05}}
	shares := []float64{0, .5, 0, 0, .5}
	play := func(shares []float64) contender {
		next := 0
		return contender{"a", func(_ context.Context, _ int) (sample, error) {
			s := sample{events: next + 1, took: time.Second, elsewhere: shares[next%len(shares)]}
			next++
			return s, nil
		}}
	}
	c, err := b.hold(t.Context(), "x", play(shares))
	if err != nil || len(c.rounds) != 3 || c.played != 4 || c.noisy {
		t.Errorf("%+v, %v", c, err)
	}
	if f := c.over(func(r round) float64 { return r["a"].rate() }); f.median != 3 || f.low != 1 || f.high != 4 {
		t.Errorf("%+v", f)
	}
	c, err = b.hold(t.Context(), "x", play([]float64{.5}))
	if err != nil || c.played != 6 || !c.noisy || len(c.rounds) != 6 {
		t.Errorf("%+v, %v", c, err)
	}
}

// What was answered OK and is not stored is found.
func TestTakenAndErrors(t *testing.T) {
	j := &journal{
		posts:   []post{{key: "a"}, {key: "b"}, {key: "c"}, {key: "d"}},
		answers: []answer{{status: 200, took: 4}, {status: 200, known: true, took: 1}, {status: 503, took: 3}, {took: 2}}, took: time.Second,
	}
	if got := strings.Join(j.taken(), ""); got != "a" || j.errors() != 2 || j.rate() != 2 || j.percentile(.5) != 3 {
		t.Errorf("taken %s, %d errors, %v/s, median %d", got, j.errors(), j.rate(), j.percentile(.5))
	}
}
