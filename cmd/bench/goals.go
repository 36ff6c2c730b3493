//go:build linux

package main

import (
	"fmt"
	"io"
)

// result is one of the ratios that say whether quayside is fast. They hold on
// any machine; absolute figures do not.
type result struct {
	goal    string // its number
	what    string
	least   bool // it must be at least the bound, else at most
	bound   float64
	figure  figure
	missing string // why it was not measured, or ""
}

// verdict says whether the goal is met: only figures from quiet rounds count.
func (r result) verdict(judge bool) string {
	switch {
	case r.missing != "":
		return "NOT SHOWN: " + r.missing
	case !judge:
		return "not judged: too short"
	case r.figure.noisy:
		return "not judged: no round was quiet"
	case r.least && r.figure.median >= r.bound, !r.least && r.figure.median <= r.bound:
		return "met"
	}
	return "missed"
}

// printResults is the table of the goals.
func printResults(w io.Writer, results []result, judge bool) {
	_, _ = fmt.Fprintf(w, "\n%-4s %-62s %9s %9s %17s %8s  %s\n", "goal", "ratio", "wanted", "median", "spread", "rounds", "")
	for _, r := range results {
		sign := "≤"
		if r.least {
			sign = "≥"
		}
		median, spread, rounds := "–", "–", "–"
		if r.missing == "" {
			f := r.figure
			median, spread = short(f.median), short(f.low)+" – "+short(f.high)
			rounds = fmt.Sprintf("%d of %d", f.counted, f.played)
		}
		_, _ = fmt.Fprintf(w, "%-4s %-62s %9s %9s %17s %8s  %s\n", r.goal, r.what, sign+" "+short(r.bound), median, spread, rounds, r.verdict(judge))
	}
}

func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.4f", v)
}
