//go:build crashpoints

package crash

import (
	"context"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Enabled says whether this build has crash points.
const Enabled = true

// The settings, read once. CRASH_LOG is a file that gets the name of each point
// when it is first passed; CRASH_AT is POINT=MODE, with MODE one of exit, panic,
// stall and cancel. It strikes once.
var (
	logFile = os.Getenv("CRASH_LOG")         //nolint:forbidigo // no setting: no program that runs anywhere has this
	at, how = cutLast(os.Getenv("CRASH_AT")) //nolint:forbidigo // as above
	struck  atomic.Bool
	passed  sync.Map
)

func cutLast(s string) (point, mode string) {
	i := strings.LastIndexByte(s, '=')
	if i < 0 {
		return "", ""
	}
	return s[:i], s[i+1:]
}

// stall is how long a stalled process stands still: longer than any patience
// for a lock, and than a statement may take.
const stall = 6 * time.Second

type cancelKey struct{}

// Begin returns a context that a crash point may cancel.
func Begin(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	return context.WithValue(ctx, cancelKey{}, cancel), cancel
}

// At is a place at which the process may die: moment of what the nearest caller
// outside the tools is about.
func At(ctx context.Context, moment string) {
	name := caller() + "/" + moment
	if _, before := passed.LoadOrStore(name, true); !before {
		note(name)
	}
	if name != at || struck.Swap(true) {
		return
	}
	note("struck " + name)
	switch how {
	case "exit":
		os.Exit(137)
	case "panic":
		panic("crash point " + name)
	case "stall":
		time.Sleep(stall)
	case "cancel":
		if cancel, ok := ctx.Value(cancelKey{}).(context.CancelFunc); ok {
			cancel()
		}
	}
}

func note(line string) {
	if logFile == "" {
		return
	}
	f, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // the sweep's own file
	if err != nil {
		return
	}
	_, _ = f.WriteString(line + "\n") // one write: several processes share the file
	_ = f.Close()
}

// caller is the nearest function of the nouns, such as webhooks.(*Inbox).apply:
// one of the tools below them says little.
func caller() string {
	pcs := make([]uintptr, 40)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		f, more := frames.Next()
		name := strings.TrimPrefix(f.Function, "quayside/internal/")
		tool := strings.HasPrefix(name, "database.") || strings.HasPrefix(name, "crash.") || strings.HasPrefix(name, "access.")
		if name != f.Function && !tool {
			name, _, _ = strings.Cut(name, ".func")
			name, _, _ = strings.Cut(name, "[...]")
			return strings.TrimSuffix(name, "-fm")
		}
		if !more {
			return "main"
		}
	}
}
