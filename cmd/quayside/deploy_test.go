//go:build unix

package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

// service is what we look at in a service of docker-compose.yml.
type service struct {
	Image       string
	Command     any
	Environment map[string]any
}

// composeFile reads docker-compose.yml with the variables that it lets an
// operator set filled in as .env would.
func composeFile(t *testing.T, variables map[string]string) (services map[string]service) {
	t.Helper()
	text, err := os.ReadFile(root + "docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	text = variable.ReplaceAllFunc(text, func(v []byte) []byte {
		m := variable.FindSubmatch(v)
		if value := variables[string(m[1])]; value != "" {
			return []byte(value)
		}
		if string(m[2]) == ":?" {
			t.Errorf("docker-compose.yml demands %s, which its own list of variables does not have", m[1])
		}
		return m[3]
	})
	var file struct{ Services map[string]service }
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.AllowDuplicateMapKey()).Decode(&file); err != nil { // it takes a key that overrides a merged one for a duplicate
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return file.Services
}

var (
	variable = regexp.MustCompile(`\$\{([A-Z_]+)(:[-?])([^}]*)\}`)
	promised = regexp.MustCompile(`(?m)^#   ([A-Z_]+)=`)
)

// With what docker-compose.yml tells operators to set, each process has the
// settings it needs and none that it does not know.
func TestComposeSettings(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"POSTGRES_PASSWORD": "4f1d2c", "PAYQI_WEBHOOK_SECRET": "whsec_of_at_least_16_bytes", "ADMIN_API_KEY": "a-key-of-at-least-24-bytes-here", "PUBLIC_URL": "https://shop.test",
	}
	var names []string
	for _, m := range promised.FindAllStringSubmatch(string(text), -1) {
		names = append(names, m[1])
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(values)), slices.Sorted(slices.Values(names))); diff != "" {
		t.Errorf("variables this test sets (-), the file tells of (+):\n%s", diff)
	}
	need := map[string]needs{"migrate": forMigrate, "serve": forServe, "work": forWork}
	found := 0
	for name, s := range composeFile(t, values) {
		if s.Image != "quayside" {
			continue
		}
		found++
		command := fmt.Sprint(s.Command)
		if command != "["+name+"]" {
			t.Errorf("service %s runs %s", name, command)
		}
		settings := map[string]string{}
		for setting, value := range s.Environment {
			if !slices.Contains(knownNames(), setting) {
				t.Errorf("service %s sets %s, which is no setting", name, setting)
			}
			if value != nil { // ${X:-} with X not set
				settings[setting] = fmt.Sprint(value)
			}
		}
		if _, err := loadConfig(from(settings), need[name]); err != nil {
			t.Errorf("service %s: %v", name, err)
		}
	}
	if found != len(need) {
		t.Errorf("%d services run quayside, want %d", found, len(need))
	}
}

// Redis in docker-compose.yml throws nothing away, and its version and
// Postgres's are ones we run on.
func TestComposeServers(t *testing.T) {
	t.Parallel()
	services := composeFile(t, map[string]string{"POSTGRES_PASSWORD": "x", "PUBLIC_URL": "x", "PAYQI_WEBHOOK_SECRET": "x", "ADMIN_API_KEY": "x"})
	if c := fmt.Sprint(services["redis"].Command); !strings.Contains(c, "--maxmemory-policy noeviction") || !strings.Contains(c, "--appendonly yes") {
		t.Errorf("redis runs %s", c)
	}
	for name, want := range map[string]string{"postgres": "postgres:17", "redis": "redis:7"} {
		if services[name].Image != want {
			t.Errorf("%s is %s, want %s", name, services[name].Image, want)
		}
	}
	if u := services["serve"].Environment["DATABASE_URL"]; !strings.Contains(fmt.Sprint(u), "@postgres:5432/"+fmt.Sprint(services["postgres"].Environment["POSTGRES_DB"])+"?") {
		t.Errorf("DATABASE_URL %v does not name the database that is made", u)
	}
}

// What the Dockerfile builds and copies is there, and its flags set variables
// that exist.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := os.ReadFile(root + ".dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum", "cmd", "internal", "migrations"} {
		if !strings.Contains(string(ignored), "\n!"+name+"\n") {
			t.Errorf(".dockerignore hides %s from the build", name)
		}
	}
	source, err := os.ReadFile("version.go")
	if err != nil {
		t.Fatal(err)
	}
	flags := regexp.MustCompile(`-X main\.(\w+)=`).FindAllStringSubmatch(string(text), -1)
	if len(flags) != 2 {
		t.Errorf("the Dockerfile sets %d variables, want version and commit", len(flags))
	}
	for _, m := range flags {
		if !regexp.MustCompile(`(?m)^var .*\b` + m[1] + `\b.* string$`).Match(source) {
			t.Errorf("there is no variable main.%s for -X to set", m[1])
		}
	}
	mod, err := os.ReadFile(root + "go.mod")
	if err != nil {
		t.Fatal(err)
	}
	wanted := regexp.MustCompile(`(?m)^go (1\.\d+)`).FindSubmatch(mod)[1]
	if !bytes.Contains(text, append([]byte("FROM golang:"), wanted...)) {
		t.Errorf("the Dockerfile does not build with Go %s, which go.mod asks for", wanted)
	}
}

// systemd understands our units, and gives a process the time it needs to stop.
func TestSystemdUnits(t *testing.T) {
	t.Parallel()
	units, err := filepath.Glob(root + "configs/systemd/*.service")
	if err != nil || len(units) != 3 {
		t.Fatalf("units: %q, %v", units, err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	known := newRootCommand(&app{})
	args := []string{"verify"}
	for _, path := range units {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		run := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/quayside (.*)$`).FindStringSubmatch(string(text))
		if run == nil {
			t.Fatalf("%s does not start quayside", path)
		}
		checkCommand(t, path, known, strings.Fields(run[1]))
		if !strings.Contains(string(text), "TimeoutStopSec=40\n") && !strings.Contains(string(text), "Type=oneshot\n") {
			t.Errorf("%s stops a process before its 25 s are over", path)
		}
		copied := filepath.Join(dir, filepath.Base(path))
		args = append(args, copied)
		write(t, copied, strings.ReplaceAll(string(text), "/usr/local/bin/quayside", exe))
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("NOT SHOWN: systemd-analyze verify was not run: it is not on this machine")
		return
	}
	if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// After a newer version has migrated, old processes stay ready, and store and
// apply events as before (docs/operating.md, "Upgrades").
func TestOldProcessesWorkOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 10)
	o := w.open("during-the-upgrade", "mug")
	if _, err := w.db.Exec(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`); err != nil {
		t.Fatal(err)
	}
	if r := w.ask("GET", "/readyz", ""); r.status != 200 || !strings.Contains(r.body, "goes on as before") {
		t.Errorf("readyz: %d %s", r.status, r.body)
	}
	w.tell("payment.completed", o)
	w.stands(o.ID, "paid/paid/queued")
}
