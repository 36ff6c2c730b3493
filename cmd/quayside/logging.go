package main

import (
	"io"
	"log/slog"

	"golang.org/x/term"
)

// log makes slog's default from the settings. Do it before anything is opened:
// the database and the queue keep the logger they find.
func (a *app) log(cfg config) { slog.SetDefault(newLogger(a.stderr, cfg)) }

// newLogger writes to w at LOG_LEVEL and above. Both handlers escape control
// characters, so what a stranger sent cannot forge a line.
func newLogger(w io.Writer, cfg config) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == formatText || cfg.LogFormat == "" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}
