package notify

import (
	"errors"
	"testing"
	"time"
)

// The table above judge, row by row.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		outcome           Outcome
		attempts          int
		resend, withdrawn bool
		want              State
		again             bool
	}{
		{Accepted, 1, false, false, Sent, false},
		{Accepted, 1, true, true, Sent, false},
		{Refused, 1, false, false, Failed, false},
		{Refused, 2, true, false, Failed, false},
		{NotSent, 1, false, false, Queued, true},
		{NotSent, 59, false, false, Queued, true},
		{NotSent, 60, false, false, Failed, false},
		{NotSent, 1, false, true, Dropped, false},
		{NotSent, 2, true, false, Unknown, true},
		{NotSent, 2, true, true, Unknown, false},
		{NotSent, 60, true, false, Unknown, false},
		{Deferred, 1, false, false, Queued, true},
		{Deferred, 60, false, false, Failed, false},
		{Deferred, 2, true, false, Unknown, true},
		{Ambiguous, 1, false, false, Unknown, true},
		{Ambiguous, 1, false, true, Unknown, false},
		{Ambiguous, 60, false, false, Unknown, false},
		{Ambiguous, 2, true, false, Unknown, false},
	} {
		v := judge(Result{Outcome: c.outcome, Stage: atDot, Err: errors.New("x")}, c.attempts, c.resend, c.withdrawn)
		if v.state != c.want || (v.wait > 0) != c.again || v.forGood != (c.want == Unknown && !c.again) {
			t.Errorf("%+v: %+v", c, v)
		}
		if (v.lastError == "") != (c.outcome == Accepted) || (c.withdrawn && c.outcome != Accepted && v.lastError != outgrown) {
			t.Errorf("%+v: last error %q", c, v.lastError)
		}
	}
}

// Pauses double from 15 s to a quarter of an hour, and a letter is not given
// up for more than half a day.
func TestPauses(t *testing.T) {
	var all time.Duration
	for i := 1; i <= maxAttempts; i++ {
		want := min(15*time.Second<<min(i-1, 10), 15*time.Minute)
		got := pause(i, NotSent)
		if got < want || got > want*6/5 {
			t.Errorf("attempt %d: %s, want %s", i, got, want)
		}
		all += want
		if d := pause(i, Deferred); d < 5*time.Minute || d > 18*time.Minute {
			t.Errorf("attempt %d, deferred: %s", i, d)
		}
	}
	if all < 12*time.Hour {
		t.Errorf("given up after %s", all)
	}
}
