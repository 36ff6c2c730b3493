package database

import (
	"context"
	"log/slog"
	"time"

	"gorm.io/gorm/logger"
)

// slow is a statement that somebody should look at.
const slow = time.Second

// slowLog is what GORM may say: which statements were slow, without their
// arguments. Errors are returned, and logged where they stop.
type slowLog struct{ logger.Interface }

// Trace is called after every statement; text writes it out, which takes time.
func (slowLog) Trace(ctx context.Context, begin time.Time, text func() (string, int64), err error) {
	elapsed := time.Since(begin)
	if elapsed < slow {
		return
	}
	statement, rows := text()
	slog.WarnContext(ctx, "slow statement", "sql", statement, "rows", rows, "elapsed_ms", elapsed.Milliseconds(), "failed", err != nil)
}

// ParamsFilter keeps arguments out of the text: they are customers' data.
func (slowLog) ParamsFilter(_ context.Context, statement string, _ ...any) (string, []any) {
	return statement, nil
}
