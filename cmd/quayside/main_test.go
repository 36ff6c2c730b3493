package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"quayside/internal/database/dbtest"
)

// asQuayside makes this test binary quayside itself, so that tests can run it as
// a process of its own. It ends when its standard input does: with the test. Set
// to lifeline, that is file 3, for commands that read their input.
const (
	asQuayside = "QUAYSIDE_TEST_MAIN"
	lifeline   = "3"
)

func TestMain(m *testing.M) {
	if os.Getenv(asQuayside) != "" {
		line := os.Stdin
		if os.Getenv(asQuayside) == lifeline {
			line = os.NewFile(3, "lifeline")
		}
		go func() {
			_, _ = io.Copy(io.Discard, line)
			os.Exit(exitFail)
		}()
		main()
	}
	if err := flag.Set("test.parallel", "3"); err != nil { // they wait more than they work; -parallel still wins
		panic(err)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // houses in this process; those in another keep their log
	takeDevPorts()
	dbtest.Main(m)
}

// devPorts are the ports that dev prefers. The tests hold them from the first
// to the last, so that every dev they start meets the machine of someone who
// runs other things; those that another program has are as good.
var devPorts = []string{"127.0.0.1:8080", "127.0.0.1:1025", "127.0.0.1:8025"}

var heldPorts []net.Listener // kept: one that nothing refers to is closed

func takeDevPorts() {
	for _, addr := range devPorts {
		if l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr); err == nil {
			heldPorts = append(heldPorts, l)
		}
	}
}

// quayside runs the program as a shell would.
func quayside(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	var out, errs bytes.Buffer
	code = run(t.Context(), args, from(env), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// Wrong usage is exit code 2 and one line that says where help is; help is 0.
func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"", 0, ""},
		{"--help", 0, ""},
		{"help migrate", 0, ""},
		{"migrate --help", 0, ""},
		{"version", 0, ""},
		{"nonsense", 2, "quayside: unknown command \"nonsense\" for \"quayside\"; see 'quayside --help'\n"},
		{"migrat", 2, "quayside: unknown command \"migrat\" for \"quayside\", did you mean migrate; see 'quayside --help'\n"},
		{"version now", 2, "quayside: unexpected argument \"now\": quayside version takes none; see 'quayside version --help'\n"},
		{"version --loud", 2, "quayside: unknown flag: --loud; see 'quayside version --help'\n"},
		{"--config", 2, "quayside: flag needs an argument: --config; see 'quayside --help'\n"},
		{"migrate", 2, "quayside: the settings have a mistake (configs/example.env explains each of them)\nDATABASE_URL: is missing; set it to a Postgres address such as postgres://user:password@host:5432/name\n"},
		{"migrate --config /nowhere/x.env", 2, ""},
	} {
		code, stdout, stderr := quayside(t, nil, strings.Fields(tc.args)...)
		if code != tc.code || tc.stderr != "" && stderr != tc.stderr {
			t.Errorf("quayside %s: %d %q, want %d %q", tc.args, code, stderr, tc.code, tc.stderr)
		}
		if (code == 0) != (stdout != "") || (code == 0) != (stderr == "") {
			t.Errorf("quayside %s: exit %d, stdout %q, stderr %q", tc.args, code, stdout, stderr)
		}
	}
}

// What a command returns becomes an exit code, and is printed once, or not at
// all when it has been said.
func TestCommandErrors(t *testing.T) {
	usual := commands
	t.Cleanup(func() { commands = usual })
	for _, tc := range []struct {
		err    error
		code   int
		stderr string
	}{
		{nil, 0, ""},
		{errors.New("the disk is full"), 1, "quayside: the disk is full\n"},
		{errSaid, 1, ""},
	} {
		commands = []func(*app) *cobra.Command{func(*app) *cobra.Command {
			group := &cobra.Command{Use: "group", Short: "a group"}
			group.AddCommand(&cobra.Command{Use: "probe", RunE: func(*cobra.Command, []string) error { return tc.err }})
			return group
		}}
		if code, _, stderr := quayside(t, nil, "group", "probe"); code != tc.code || stderr != tc.stderr {
			t.Errorf("%v: %d %q", tc.err, code, stderr)
		}
		if code, _, stderr := quayside(t, nil, "group", "nonsense"); code != 2 || !strings.Contains(stderr, `unknown command "nonsense" for "quayside group"`) {
			t.Errorf("a group with an unknown command: %d %q", code, stderr)
		}
	}
}

// Somebody new is told what to type first.
func TestHelpForANewcomer(t *testing.T) {
	_, help, _ := quayside(t, nil, "--help")
	first := strings.Index(help, "quayside dev --demo")
	if first < 0 || first > strings.Index(help, "quayside serve") {
		t.Errorf("help does not begin with the demo:\n%s", help)
	}
	for _, cmd := range newRootCommand(&app{}).Commands() {
		if cmd.Short == "" {
			t.Errorf("%s has no line in the help", cmd.Name())
		}
	}
}

func TestVersion(t *testing.T) {
	_, out, _ := quayside(t, nil, "version")
	if !regexp.MustCompile(`^quayside \S+\ncommit   .+\ngo       go1\.\S+ \S+/\S+\n$`).MatchString(out) {
		t.Errorf("got %q", out)
	}
	info := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
	}}
	if v, c := buildOf(info, true); v != "v1.2.3" || c != "abc with local changes" {
		t.Errorf("got %q %q", v, c)
	}
	if v, c := buildOf(nil, false); v != "development" || c != "unknown" {
		t.Errorf("got %q %q", v, c)
	}
}

// migrate says what it did, and the second time that there is nothing to do.
func TestMigrate(t *testing.T) {
	env := map[string]string{"DATABASE_URL": "postgres://nobody:x@127.0.0.1:1/x", "MIGRATE_DATABASE_URL": dbtest.Empty(t)}
	code, out, stderr := quayside(t, env, "migrate")
	if code != 0 || !regexp.MustCompile(`^(applied \d{5}_\w+\.sql in \S+\n)+up to date\n$`).MatchString(out) {
		t.Fatalf("first: %d %q %q", code, out, stderr)
	}
	if code, out, stderr := quayside(t, env, "migrate"); code != 0 || out != "up to date\n" || stderr != "" {
		t.Errorf("second: %d %q %q", code, out, stderr)
	}
	delete(env, "MIGRATE_DATABASE_URL")
	if code, _, stderr := quayside(t, env, "migrate"); code != 1 || !strings.HasPrefix(stderr, "quayside: ") || strings.Contains(stderr, ":x@") {
		t.Errorf("server away: %d %q", code, stderr)
	}
}

// A stopped migrate has not succeeded.
func TestMigrateStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"migrate"}, from(map[string]string{"DATABASE_URL": dbtest.Empty(t)}), nil, &out, &errs); code != 1 {
		t.Errorf("exit %d, %q %q", code, &out, &errs)
	}
}

// Text on request, JSON when nobody sits there; a stranger's line breaks stay inside a line.
func TestLogging(t *testing.T) {
	for format, want := range map[string]string{"text": `msg="a\nb" key="c\nd"`, "json": `"msg":"a\nb","key":"c\nd"`, "": `"msg":"a\nb","key":"c\nd"`} {
		var out bytes.Buffer
		log := newLogger(&out, config{LogFormat: format, LogLevel: slog.LevelWarn})
		log.Info("not this")
		log.Warn("a\nb", "key", "c\nd")
		if got := out.String(); !strings.Contains(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q", format, got)
		}
	}
}
