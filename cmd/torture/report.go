//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// shownWrong is how many of the things that are wrong the report shows.
const shownWrong = 25

// report prints what the run found.
func (r *run) report(v verdict) {
	f := v.findings
	r.say("\n%d stories of %d kinds in %.0f s; the watcher looked %d times", f.stories, f.kinds, time.Since(r.began).Seconds(), r.looks.Load())
	r.say("%-44s %s", "deliveries sent", fmt.Sprint(f.sent))
	r.say("%-44s %d, of them %d of what was there already", "  acknowledged", f.acked, f.duplicates)
	r.say("%-44s %d", "  refused", f.refused)
	r.say("%-44s %d, each sent again until answered", "  unknown", f.unknown)
	r.say("%-44s %d: %d applied, %d ignored, %d parked, %d quarantined", "events stored", f.stored, f.applied, f.ignored, f.parked, f.setAside)
	r.say("%-44s %d written, %d taken by the mail server, %d of unknown fate", "letters", f.letters, f.lettersTaken, f.ambiguous+f.lettersInHand)
	r.say("%-44s %d, none but after 30 minutes of doubt", "letters sent twice", f.lettersTwice)
	r.say("%-44s %s", "answered in calm, p50 / p99", latency(f.latency[false]))
	r.say("%-44s %s", "answered under faults, p50 / p99", latency(f.latency[true]))
	if len(v.struck) > 0 {
		r.say("\n%-52s %9s %7s  %s", "fault", "recovery", "bound", "what shows it")
	}
	for _, s := range v.struck {
		mark := "✓"
		if s.err != nil || s.recovery > s.bound {
			mark = "✗"
		}
		evidence := strings.Join(s.evidence, "; ")
		if len([]rune(evidence)) > 90 {
			evidence = string([]rune(evidence)[:89]) + "…"
		}
		r.say("%s %-50s %7.1f s %7s  %s", mark, s.blow, s.recovery.Seconds(), s.bound, evidence)
	}
	r.reportPoints()
	r.say("")
	r.say("%-44s %d", "lost", len(f.lost))
	r.say("%-44s %d", "doubled", len(f.doubled))
	r.say("%-44s %d", "violations", len(r.violations)+len(f.other))
	r.say("%-44s %d", "differences from the oracle", len(f.differences))
	if len(v.wrong) == 0 {
		r.say("all holds")
		return
	}
	r.say("\n%d things are wrong:", len(v.wrong))
	for i, w := range v.wrong {
		if i == shownWrong {
			r.say("  and %d more", len(v.wrong)-shownWrong)
			break
		}
		if len(w) > 600 {
			w = w[:600] + "…"
		}
		r.say("  %s", w)
	}
	r.say("again: go run ./cmd/torture --seed %d --plan %s", r.seed, r.path("plan.json"))
}

// reportPoints says how each crash point went.
func (r *run) reportPoints() {
	if len(r.points) == 0 {
		return
	}
	r.say("\n%-80s %s", "crash point", "until all was well, by mode")
	for i := 0; i < len(r.points); i += len(modes) {
		var took []string
		for _, p := range r.points[i:min(len(r.points), i+len(modes))] {
			mark := ""
			if p.err != nil {
				mark = "✗"
			}
			took = append(took, fmt.Sprintf("%s%s %.1f s", mark, p.mode, p.to.Sub(p.from).Seconds()))
		}
		r.say("%-80s %s", r.points[i].role+" "+r.points[i].name, strings.Join(took, "  "))
	}
}

func latency(millis []float64) string {
	if len(millis) == 0 {
		return "none"
	}
	return fmt.Sprintf("%.1f / %.0f ms (%d answers)", quantile(millis, 0.5), quantile(millis, 0.99), len(millis))
}
