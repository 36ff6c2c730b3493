//go:build !crashpoints

package crash

import (
	"os/exec"
	"testing"
)

// What is built only for the sweep is tested all the same.
func TestWithCrashPoints(t *testing.T) {
	t.Parallel()
	said, err := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-tags", "crashpoints", ".").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// A normal build has no crash points.
func TestNothingWithoutThem(t *testing.T) {
	t.Parallel()
	ctx, end := Begin(t.Context())
	defer end()
	if At(ctx, "here"); Enabled || ctx != t.Context() {
		t.Error("a normal build has crash points")
	}
}
