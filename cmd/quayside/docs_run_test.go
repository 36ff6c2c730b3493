//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quayside/internal/devstack"
)

// update writes what was printed into the documents where that is not what they
// show. Then read the difference, and put … back where it stood:
//
//	go test ./cmd/quayside -run TestDocsRun -update
var update = flag.Bool("update", false, "write what commands print into the documents")

// Every command in the documents does what the document shows.
func TestDocsRun(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t) {
		scripts := d.scripts()
		if len(scripts) == 0 {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			if missing := missingPrograms(scripts); len(missing) > 0 {
				t.Logf("NOT SHOWN: %s was not run: there is no %s on this machine", d.name, strings.Join(missing, ", "))
				return
			}
			r := newReader(t, scripts)
			for _, b := range scripts {
				r.follow(b)
			}
			r.leave()
			if *update {
				r.must(os.WriteFile(root+d.name, []byte(d.updated()), 0o644))
			}
		})
	}
}

// updated is the document with its blocks as they are now.
func (d *document) updated() string {
	lines := strings.Split(d.text, "\n")
	for _, b := range slices.Backward(d.blocks) {
		end := b.line - 1 + slices.Index(lines[b.line-1:], "```")
		lines = slices.Concat(lines[:b.line-1], strings.Split(strings.TrimSuffix(b.body, "\n"), "\n"), lines[end:])
	}
	return strings.Join(lines, "\n")
}

// scripts are the blocks of commands that are run.
func (d *document) scripts() (run []*block) {
	for _, b := range d.blocks {
		if b.lang == "sh" && b.mark != "not run" && b.mark != "checked by" {
			run = append(run, b)
		}
	}
	return run
}

// outside are the programs, not ours, that documents may use.
var outside = regexp.MustCompile(`(?m)(?:^|[|;&(]\s*|\$\()(bash|curl|psql|pg_dump|pg_restore|createdb|createuser|dropdb|openssl)\b`)

func missingPrograms(scripts []*block) (missing []string) {
	for _, name := range append([]string{"bash"}, outsideOf(scripts)...) {
		if _, err := exec.LookPath(name); err != nil && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	return missing
}

func outsideOf(scripts []*block) (names []string) {
	for _, b := range scripts {
		for _, m := range outside.FindAllStringSubmatch(b.body, -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// reader is somebody who types what a document says, at a machine where the
// documents' addresses are other ones.
type reader struct {
	t       *testing.T
	dir     string
	env     []string
	address map[string]string // of the documents: where that is here
	alive   *os.File          // ends with this process: every quayside below watches it
	shell   *exec.Cmd
	stdin   io.WriteCloser
	answers chan string
	serial  int
	others  []*terminal // where something stays up
}

// terminal is one more of the reader's.
type terminal struct {
	cmd         *exec.Cmd
	ended       chan struct{}
	out, errors safeBuffer
}

func newReader(t *testing.T, scripts []*block) *reader {
	t.Helper()
	r := &reader{t: t, dir: reachableDir(t), answers: make(chan string)}
	watched, alive, err := os.Pipe()
	r.must(err)
	t.Cleanup(func() { _, _ = watched.Close(), alive.Close() })
	r.alive = watched
	r.install()
	r.env = []string{
		"PATH=" + filepath.Join(r.dir, ".bin") + ":" + os.Getenv("PATH"), "HOME=" + r.dir, "TMPDIR=" + r.dir, "LANG=C.UTF-8", "TZ=UTC", "no_proxy=*",
	}
	r.settle(scripts)
	r.openShell()
	return r
}

func (r *reader) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// install puts a quayside into the reader's PATH that is this test binary, and
// a go that knows how to build and run it. The files of the repository that the
// documents use stand in the folder.
func (r *reader) install() {
	r.t.Helper()
	exe, err := os.Executable()
	r.must(err)
	bin := filepath.Join(r.dir, ".bin")
	r.must(os.Mkdir(bin, 0o755))
	write := func(name, script string) {
		r.must(os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755))
	}
	write("quayside", fmt.Sprintf("%s=%s exec '%s' \"$@\"\n", asQuayside, lifeline, exe))
	write("go", `case "$1 $2" in
"run ./cmd/quayside") shift 2; exec quayside "$@" ;;
"build ./cmd/quayside") exec cp "$(command -v quayside)" . ;;
esac
echo "the documents' go knows run and build of ./cmd/quayside, not: $*" >&2; exit 97
`)
	for _, name := range []string{"configs", "docs"} {
		r.must(os.CopyFS(filepath.Join(r.dir, name), os.DirFS(root+name)))
	}
}

// settle starts the servers whose usual addresses the scripts name, and notes
// where they are instead.
func (r *reader) settle(scripts []*block) {
	r.t.Helper()
	var all strings.Builder
	for _, b := range scripts {
		all.WriteString(b.body)
	}
	r.address = map[string]string{}
	for documented, start := range map[string]func() string{
		"localhost:5432": r.startPostgres, "localhost:6379": r.startRedis, "localhost:587": r.startMail,
		"127.0.0.1:8080": r.freePort, "127.0.0.1:8081": r.freePort, "127.0.0.1:9090": r.freePort,
	} {
		if strings.Contains(all.String(), documented) {
			r.address[documented] = start()
		}
	}
}

// here puts the addresses of this machine into a script of the documents;
// there does the opposite for an output.
func (r *reader) here(script string) string {
	for documented, ours := range r.address {
		script = strings.ReplaceAll(script, documented, ours)
	}
	return script
}

func (r *reader) there(out string) string {
	for documented, ours := range r.address {
		out = strings.ReplaceAll(out, ours, documented)
	}
	return strings.ReplaceAll(out, r.dir+"/", "")
}

// learn notes where dev listens, as it says itself.
func (r *reader) learn(said string) {
	for word, documented := range map[string]string{"API": "127.0.0.1:8080", "Mails": "127.0.0.1:8025"} {
		if m := regexp.MustCompile(word + ` +http://([^/\s]+)`).FindStringSubmatch(said); m != nil {
			r.address[documented] = m[1]
		}
	}
}

// startPostgres starts a server of the reader's own, who is its superuser.
func (r *reader) startPostgres() string {
	r.t.Helper()
	p, err := devstack.StartPostgres(r.t.Context(), devstack.PostgresOptions{Throwaway: true, Database: "postgres"})
	r.must(err)
	r.t.Cleanup(func() { _ = p.Stop() })
	u, err := url.Parse(p.URL)
	r.must(err)
	password, _ := u.User.Password()
	r.env = append(r.env, "PGHOST="+u.Hostname(), "PGPORT="+u.Port(), "PGUSER="+u.User.Username(), "PGPASSWORD="+password, "PGDATABASE=postgres")
	return u.Host
}

func (r *reader) startRedis() string {
	r.t.Helper()
	w := &world{t: r.t}
	u, err := url.Parse(w.startRedis())
	r.must(err)
	return u.Host
}

func (r *reader) startMail() string {
	r.t.Helper()
	m, err := devstack.StartMailCatcher(r.t.Context(), "", "")
	r.must(err)
	r.t.Cleanup(func() { _ = m.Close() })
	return strings.TrimPrefix(m.SMTPURL, "smtp://")
}

// freePort is free now, and below those that the system gives to whoever
// connects, so that it stays so.
func (r *reader) freePort() string {
	r.t.Helper()
	for {
		addr := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
		if err == nil {
			r.must(l.Close())
			return addr
		}
	}
}

// openShell starts the bash that keeps the reader's variables from block to
// block. For each block it answers the exit code of its last command and that
// of the last one that failed.
func (r *reader) openShell() {
	r.t.Helper()
	r.shell = r.command("bash", "--noprofile", "--norc")
	out, err := r.shell.StdoutPipe()
	r.must(err)
	r.shell.Stderr = os.Stderr
	r.stdin, err = r.shell.StdinPipe()
	r.must(err)
	r.must(r.shell.Start())
	go func() {
		defer close(r.answers)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			r.answers <- lines.Text()
		}
	}()
	r.t.Cleanup(func() {
		_ = r.stdin.Close()
		_ = syscall.Kill(-r.shell.Process.Pid, syscall.SIGKILL)
		for range r.answers {
		}
		_ = r.shell.Wait()
	})
	r.typeIn(`set -o pipefail -o errtrace
block() { failed=0; trap 'failed=$?' ERR; . "$1" </dev/null >"$1.out" 2>&1; code=$?; trap - ERR; echo "$code $failed"; }
`)
}

func (r *reader) typeIn(text string) {
	r.t.Helper()
	_, err := io.WriteString(r.stdin, text)
	r.must(err)
}

// command is a program of the reader's, in a process group of its own.
func (r *reader) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir, c.Env, c.ExtraFiles = r.dir, r.env, []*os.File{r.alive}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

// follow does what a block says and looks at what comes of it.
func (r *reader) follow(b *block) {
	r.t.Helper()
	script := r.here(b.body)
	if b.mark == "stays up" {
		r.stayUp(b, script)
		return
	}
	wantCode := "0"
	if b.mark == "exits" {
		wantCode = b.value
	}
	var wrong error
	for deadline := time.Now().Add(patience); ; {
		out, code := r.run(script)
		wrong = r.compare(b, out)
		if code != wantCode {
			wrong = fmt.Errorf("exit code %s, want %s; it printed\n%s", code, wantCode, out)
		}
		if wrong == nil || b.mark != "soon" || time.Now().After(deadline) {
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	if wrong != nil {
		r.t.Fatalf("%s: %v", b.at(), wrong)
	}
}

// compare is shows, or with -update takes what was printed for right.
func (r *reader) compare(b *block, out string) error {
	wrong := shows(b, out)
	if wrong != nil && *update {
		b.shown.body = strings.Trim(r.there(laidOut(b, out)), "\n") + "\n"
		return nil
	}
	return wrong
}

// run runs a script in the reader's shell. A command before the last that
// failed counts as the script's failure.
func (r *reader) run(script string) (out, code string) {
	r.t.Helper()
	r.serial++
	file := fmt.Sprintf(".block%d", r.serial)
	r.must(os.WriteFile(filepath.Join(r.dir, file), []byte(script), 0o600))
	r.typeIn("block ./" + file + "\n")
	select {
	case answer, ok := <-r.answers:
		if !ok {
			r.t.Fatalf("the shell ended in\n%s", script)
		}
		code, failed, _ := strings.Cut(answer, " ")
		if code == "0" {
			code = failed
		}
		text, err := os.ReadFile(filepath.Join(r.dir, file+".out"))
		r.must(err)
		return string(text), code
	case <-time.After(2 * patience):
		r.t.Fatalf("this does not end:\n%s", script)
	}
	return "", ""
}

// stayUp types a command into a terminal of its own and waits until it shows
// what the document shows.
func (r *reader) stayUp(b *block, script string) {
	r.t.Helper()
	x := &terminal{cmd: r.command("bash", "--noprofile", "--norc", "-c", script), ended: make(chan struct{})}
	x.cmd.Stdout, x.cmd.Stderr = &x.out, &x.errors
	r.must(x.cmd.Start())
	go func() {
		_ = x.cmd.Wait()
		close(x.ended)
	}()
	r.others = append(r.others, x)
	r.t.Cleanup(func() {
		_ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGKILL)
		<-x.ended
		if r.t.Failed() {
			r.t.Logf("%s said\n%s", b.at(), tailOf(x.errors.String()))
		}
	})
	deadline := time.After(2 * patience)
	for {
		wrong := shows(b, x.out.String())
		if wrong == nil {
			r.learn(x.out.String())
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-x.ended:
		case <-deadline:
			if *update {
				r.learn(x.out.String())
				_ = r.compare(b, x.out.String())
				return
			}
		}
		r.t.Fatalf("%s: %v", b.at(), wrong)
	}
}

// leave presses Ctrl-C wherever something stays up, the last first.
func (r *reader) leave() {
	r.t.Helper()
	for _, x := range slices.Backward(r.others) {
		_ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGINT)
		select {
		case <-x.ended:
		case <-time.After(2 * patience):
			r.t.Fatalf("%q does not end after Ctrl-C", x.cmd.Args[len(x.cmd.Args)-1])
		}
		if code := x.cmd.ProcessState.ExitCode(); code != 0 {
			r.t.Errorf("%q ended with %d after Ctrl-C", x.cmd.Args[len(x.cmd.Args)-1], code)
		}
	}
}

// shows compares what a block printed with what the document shows.
func shows(b *block, got string) error {
	if b.shown == nil {
		return nil
	}
	want, got := normal(b.shown.body), normal(laidOut(b, got))
	if likeness(want).MatchString(got + "\n") {
		return nil
	}
	return errors.New("the document shows (-), it printed (+)\n" + cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
}

// laidOut is an output as the document shows it: JSON, which the program
// prints in one line, over several.
func laidOut(b *block, out string) string {
	var several bytes.Buffer
	if b.shown.lang != "json" || json.Indent(&several, []byte(out), "", "  ") != nil {
		return out
	}
	return several.String()
}

// kinds are the parts of an output that differ every time.
var kinds = []struct {
	is    *regexp.Regexp
	stand string
}{
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "UUID"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?( ?(Z|UTC|[+-]\d\d:?\d\d))?`), "TIME"},
	{regexp.MustCompile(`\b(127\.0\.0\.1|localhost):\d+\b`), "HOST:PORT"},
	{regexp.MustCompile(`\b\d+(\.\d+)? ?(µs|ms|s)\b`), "DURATION"},
	{regexp.MustCompile(`\b1[6-9]\d{8}\b`), "UNIX"},
	{regexp.MustCompile(`/o/\w+`), "/o/TOKEN"},
	{regexp.MustCompile(`(\b|_)[0-9a-fA-F]{12,}\b`), "${1}HEX"},
	{regexp.MustCompile(`\b([a-z]+)-[0-9a-f]{4,6}\b`), "$1-HEX"},
	{regexp.MustCompile(`(?m)[ \t]+$`), ""},
}

func normal(text string) string {
	for _, k := range kinds {
		text = k.is.ReplaceAllString(text, k.stand)
	}
	return strings.Trim(text, "\n")
}

// likeness is a pattern for texts like want, in which … stands for anything in
// a line, and in a line by itself for any lines.
func likeness(want string) *regexp.Regexp {
	p := `(?s)^`
	for line := range strings.SplitSeq(want, "\n") {
		if strings.TrimSpace(line) == "…" {
			p += `(?:[^\n]*\n)*?`
			continue
		}
		parts := strings.Split(line, "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		p += strings.Join(parts, `[^\n]*?`) + `\n`
	}
	return regexp.MustCompile(p + `$`)
}

// The reader notices what is not as it is shown.
func TestDocsReader(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		lang, shown, printed string
		same                 bool
	}{
		{"text", "a\nb\n", "a\nb\n", true},
		{"text", "a\nb\n", "a\n", false},
		{"text", "a\n", "a\nb\n", false},
		{"text", "a …\n", "a b c\n", true},
		{"text", "a …\n", "a b\nc\n", false},
		{"text", "a\n…\n", "a\nb\nc\n", true},
		{"text", "a\n…\nc\n", "a\nb\nc\n", true},
		{"text", "…\nc\n", "a\nb\nc\n", true},
		{"text", "…\nb\n", "a\nb\nc\n", false},
		{"text", "at 2020-01-01T00:00:00Z\n", "at 2026-11-23T21:50:58.957103Z\n", true},
		{"text", "paid 5.00\n", "paid 6.00\n", false},
		{"text", "http://127.0.0.1:8080/docs\n", "http://127.0.0.1:41234/docs\n", true},
		{"json", "{\n  \"a\": 1,\n  …\n}\n", `{"a":1,"b":2,"c":[1,2]}`, true},
		{"json", "{\n  \"a\": 1\n}\n", `{"a":2}`, false},
		{"json", "{\n  \"a\": 1\n}\n", `oops`, false},
	} {
		err := shows(&block{shown: &block{lang: tc.lang, body: tc.shown}}, tc.printed)
		if (err == nil) != tc.same {
			t.Errorf("%q shown, %q printed: %v", tc.shown, tc.printed, err)
		}
	}
	r := newReader(t, nil)
	for script, want := range map[string]string{"true": "0", "false; true": "1", "true; (exit 3)": "3", "if false; then :; fi": "0", "false | true": "1", "quayside nonsense": "2", "go build ./cmd/quayside && ./quayside version": "0", "go vet": "97"} {
		if out, code := r.run(script); code != want {
			t.Errorf("%s: exit code %s, want %s: %s", script, code, want, out)
		}
	}
	if out, _ := r.run("x=1"); out != "" {
		t.Errorf("got %q", out)
	}
	if out, _ := r.run("echo $x"); out != "1\n" {
		t.Errorf("variables are not kept: %q", out)
	}
}
