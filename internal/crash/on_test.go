//go:build crashpoints

package crash

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// At notes each point once, under the name of its caller, and strikes one once.
func TestStrikes(t *testing.T) {
	logFile = filepath.Join(t.TempDir(), "points")
	at, how = cutLast("main/the=last one=cancel")
	ctx, end := Begin(t.Context())
	defer end()
	pass := func() {
		At(ctx, "first")
		At(ctx, "the=last one")
	}
	pass()
	if ctx.Err() == nil {
		t.Error("the context was not cancelled")
	}
	ctx, end = Begin(context.Background())
	defer end()
	pass()
	if ctx.Err() != nil {
		t.Error("it struck twice")
	}
	got, err := os.ReadFile(logFile)
	if want := "main/first\nmain/the=last one\nstruck main/the=last one\n"; err != nil || string(got) != want {
		t.Errorf("%v; noted\n%sinstead of\n%s", err, got, want)
	}
}

// The other ways of being struck.
func TestModes(t *testing.T) {
	logFile = ""
	at, how = cutLast("main/a=panic")
	struck.Store(false)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("it did not panic")
			}
		}()
		At(t.Context(), "a")
	}()
	how = "stall"
	struck.Store(false)
	began := time.Now()
	if At(t.Context(), "a"); time.Since(began) < stall {
		t.Error("it did not stand still")
	}
}
