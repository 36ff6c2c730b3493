package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Set by a release build with -ldflags "-X main.version=… -X main.commit=…".
// Otherwise the Go tool's own record of the build is used.
var version, commit string

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go",
		RunE: func(*cobra.Command, []string) error {
			v, c := buildOf(debug.ReadBuildInfo())
			_, err := fmt.Fprintf(a.stdout, "quayside %s\ncommit   %s\ngo       %s %s/%s\n", v, c, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// buildOf is the version and the commit this binary was made from.
func buildOf(info *debug.BuildInfo, ok bool) (string, string) {
	v, c := version, commit
	if !ok {
		info = &debug.BuildInfo{}
	}
	if v == "" {
		v = info.Main.Version
	}
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && c == "":
			c = s.Value
		case s.Key == "vcs.modified" && s.Value == "true" && commit == "":
			dirty = " with local changes"
		}
	}
	if v == "" || v == "(devel)" {
		v = "development"
	}
	if c == "" {
		return v, "unknown"
	}
	return v, c + dirty
}
