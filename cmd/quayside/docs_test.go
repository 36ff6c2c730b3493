//go:build unix

package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/gin-gonic/gin"
	"github.com/joho/godotenv"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"quayside/internal/orders"
)

// This file keeps README.md and docs/*.md honest: what they name exists, and
// what exists is named. docs_run_test.go runs what they show. The language of a
// fenced block says what it is:
//
//	sh            commands, run in order with bash in an empty folder of the document's own
//	text, json    the next block after sh: what it prints, where … stands for anything
//	env           settings, as in configs/example.env
//	others        need a mark
//
// A mark is a comment in a line of its own before the block:
//
//	<!-- not run: REASON -->      these commands need something a test has not
//	<!-- stays up -->             run until the document ends, then stopped with Ctrl-C
//	<!-- soon -->                 repeated until it prints what is shown: somebody else is at work
//	<!-- exits 1 -->              the exit code of its last command
//	<!-- drawing -->              of text: no output but a picture or a form
//	<!-- checked by TestName -->  another test looks at it
type document struct {
	name   string // README.md, docs/tour.md
	text   string
	prose  string // text with its blocks blanked out
	blocks []*block
}

// block is a fenced block.
type block struct {
	line  int // of its first line in the document, from 1
	lang  string
	body  string
	mark  string // not run, stays up, soon, exits, drawing, checked by; "" for none
	value string // what the mark says besides
	shown *block // of sh: the output behind it
	doc   *document
}

func (b *block) at() string { return fmt.Sprintf("%s:%d", b.doc.name, b.line) }

const root = "../../"

// documents reads all of them.
func documents(t *testing.T) (docs []*document) {
	t.Helper()
	names, err := filepath.Glob(root + "docs/*.md")
	if err != nil || len(names) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, path := range append([]string{root + "README.md"}, names...) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d := &document{name: strings.TrimPrefix(filepath.ToSlash(path), root), text: string(text)}
		for _, wrong := range d.parse() {
			t.Error(wrong)
		}
		docs = append(docs, d)
	}
	return docs
}

var (
	fence    = regexp.MustCompile("^```(.*)$")
	markLine = regexp.MustCompile(`^<!-- (not run|stays up|soon|exits|drawing|checked by)\b:? ?(.*?) ?-->$`)
)

// parse finds the blocks and returns what is wrong with the form.
func (d *document) parse() (wrong []string) {
	var prose strings.Builder
	var open, last *block // last: the block before, under the same heading
	var mark []string
	for i, line := range strings.Split(d.text, "\n") {
		f := fence.FindStringSubmatch(line)
		switch m := markLine.FindStringSubmatch(line); {
		case open != nil && line == "```":
			if open.lang != "sh" && last != nil && last.lang == "sh" && (open.lang == "text" || open.lang == "json") && open.mark == "" {
				last.shown = open
			}
			last, open = open, nil
		case open != nil:
			open.body += line + "\n"
		case f != nil:
			open = &block{line: i + 2, lang: f[1], doc: d}
			if mark != nil {
				open.mark, open.value = mark[1], mark[2]
			}
			d.blocks, mark = append(d.blocks, open), nil
		case m != nil:
			mark = m
		case strings.TrimSpace(line) != "":
			if mark != nil {
				wrong = append(wrong, fmt.Sprintf("%s:%d: a mark with no block behind it", d.name, i+1))
			}
			if mark = nil; heading.MatchString(line) {
				last = nil
			}
			prose.WriteString(line)
		}
		prose.WriteString("\n")
	}
	if open != nil {
		wrong = append(wrong, open.at()+": a block without an end")
	}
	d.prose = prose.String()
	return wrong
}

// outputs are the blocks that some sh block prints.
func (d *document) outputs() map[*block]bool {
	out := map[*block]bool{}
	for _, b := range d.blocks {
		out[b.shown] = true
	}
	return out
}

// Each block says what it is, so that no command hides where nobody runs it.
func TestDocsEveryBlockIsAccountedFor(t *testing.T) {
	t.Parallel()
	tests := testNames(t, "cmd", "internal")
	for _, d := range documents(t) {
		printed := d.outputs()
		for _, b := range d.blocks {
			switch {
			case b.mark == "checked by":
				if !slices.Contains(tests, b.value) {
					t.Errorf("%s: there is no test %q", b.at(), b.value)
				}
			case b.mark == "not run":
				if len(strings.Fields(b.value)) < 2 {
					t.Errorf("%s: say why it is not run: <!-- not run: REASON -->", b.at())
				}
			case b.lang == "sh":
			case b.lang == "env":
				checkEnvBlock(t, b)
			case printed[b]:
			case b.lang == "text" && b.mark == "drawing":
				if c := commandLine.FindString(b.body); c != "" {
					t.Errorf("%s: %q looks like a command; commands stand in a block of sh", b.at(), c)
				}
			default:
				t.Errorf("%s: what is this block of %q? docs_test.go tells how blocks are marked", b.at(), b.lang)
			}
		}
	}
}

// commandLine is a line that a reader would take for something to type.
var commandLine = regexp.MustCompile(`(?m)^\s*(\$ )?(\./)?(quayside|go|curl|psql|pg_\w+|docker|systemctl|sudo|apt-get|bash) [a-z./-].*$`)

// checkEnvBlock looks at settings as the program would.
func checkEnvBlock(t *testing.T, b *block) {
	t.Helper()
	values, err := godotenv.Unmarshal(b.body)
	if err != nil {
		t.Errorf("%s: %v", b.at(), err)
	}
	_, wrong := parseConfig(needs{examples: true}, from(values))
	for name := range values {
		if !slices.Contains(knownNames(), name) {
			wrong.add(name, "is no setting")
		}
	}
	for _, m := range wrong {
		t.Errorf("%s: %s", b.at(), m)
	}
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// place is a piece of code in a document.
type place struct{ at, text string }

// code is all that a document prints as code: its blocks, and what stands
// between backquotes.
func (d *document) code() (all []place) {
	for _, b := range d.blocks {
		all = append(all, place{b.at(), strings.ReplaceAll(b.body, "\\\n", " ")})
	}
	return append(all, d.spans()...)
}

func (d *document) spans() (all []place) {
	for _, m := range codeSpan.FindAllStringSubmatchIndex(d.prose, -1) {
		line := 1 + strings.Count(d.prose[:m[2]], "\n")
		text := strings.Join(strings.Fields(d.prose[m[2]:m[3]]), " ")
		all = append(all, place{fmt.Sprintf("%s:%d", d.name, line), strings.ReplaceAll(text, `\|`, "|")})
	}
	return all
}

var (
	invocation = regexp.MustCompile(`(?m)(?:^|[;|&(]|\bdo|\bthen)\s*(?:\$ )?(?:[A-Z_]+=\S* )*(?:\./)?(?:quayside|go run \./cmd/quayside)((?:[ \t]+[^\s|;&>)#]+)+)`)
	bareFlag   = regexp.MustCompile(`^--[a-z-]+`)
)

// Every command and flag of quayside in the documents exists.
func TestDocsCommandsExist(t *testing.T) {
	t.Parallel()
	known := newRootCommand(&app{})
	for _, d := range documents(t) {
		for _, p := range d.code() {
			for _, m := range invocation.FindAllStringSubmatch(p.text, -1) {
				checkCommand(t, p.at, known, strings.Fields(m[1]))
			}
		}
		for _, p := range d.spans() {
			if f := bareFlag.FindString(p.text); f != "" && !anyHasFlag(known, f) {
				t.Errorf("%s: no command of quayside has the flag %s", p.at, f)
			}
		}
	}
}

func checkCommand(t *testing.T, at string, known *cobra.Command, args []string) {
	t.Helper()
	cmd, _, err := known.Find(args)
	if err != nil {
		t.Errorf("%s: quayside %s: %v", at, strings.Join(args, " "), err)
		return
	}
	for _, arg := range args {
		if strings.HasPrefix(arg, "-") && !hasFlag(cmd, arg) {
			t.Errorf("%s: %s has no flag %s", at, cmd.CommandPath(), arg)
		}
	}
}

func hasFlag(cmd *cobra.Command, arg string) bool {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	if name == "help" || name == "h" {
		return true
	}
	for _, set := range []*pflag.FlagSet{cmd.Flags(), cmd.InheritedFlags(), cmd.PersistentFlags()} {
		if set.Lookup(name) != nil || len(name) == 1 && set.ShorthandLookup(name) != nil {
			return true
		}
	}
	return false
}

func anyHasFlag(cmd *cobra.Command, arg string) bool {
	return hasFlag(cmd, arg) || slices.ContainsFunc(cmd.Commands(), func(sub *cobra.Command) bool { return anyHasFlag(sub, arg) })
}

// foreign are names in capitals that the documents speak of and that are not
// settings of quayside, with whose they are.
var foreign = map[string]string{
	"CAP_NET_BIND_SERVICE": "systemd",
	"PG_BIN":               "devstack: where Postgres's programs are",
	"POSTGRES_PASSWORD":    "docker-compose.yml",
	"NAME_FILE":            "a form: any secret's name with _FILE behind it",
	"ON_ERROR_STOP":        "psql",
	"QUAYSIDE_SCREENSHOTS": "the tests",
	"QUAYSIDE_TEST_MAIN":   "the tests",
}

var capitals = regexp.MustCompile(`\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b`)

// Every setting that the documents name exists.
func TestDocsSettingsExist(t *testing.T) {
	t.Parallel()
	known := knownNames()
	for _, d := range documents(t) {
		for _, p := range d.code() {
			for _, name := range capitals.FindAllString(p.text, -1) {
				_, isCase := orders.Rules[orders.Code(name)]
				if !isCase && foreign[name] == "" && !slices.Contains(known, name) {
					t.Errorf("%s: %s is no setting and no case; if it is somebody else's, say so in docs_test.go", p.at, name)
				}
			}
		}
	}
}

// The README's tables name every command and every setting.
func TestReadmeNamesEverything(t *testing.T) {
	t.Parallel()
	readme := documents(t)[0]
	var rows strings.Builder
	for line := range strings.Lines(readme.prose) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			rows.WriteString(cells[1] + "\n")
		}
	}
	for _, cmd := range newRootCommand(&app{}).Commands() {
		if !regexp.MustCompile("`quayside " + cmd.Name() + `\b`).MatchString(rows.String()) {
			t.Errorf("README.md has no row for `quayside %s`", cmd.Name())
		}
	}
	for name := range settingsOf(&config{}) {
		if !strings.Contains(rows.String(), "`"+name+"`") {
			t.Errorf("README.md has no row for `%s`", name)
		}
	}
}

// urlPath is a path of ours in code, perhaps behind a method or an address.
var urlPath = regexp.MustCompile(`(?:\b(GET|POST|PUT|PATCH|DELETE) |^|[\s"'=}A-Z:0-9])(/(?:api/v1|o|webhooks|healthz|readyz|metrics|docs|openapi\.json)(?:/[^\s"'` + "`" + `?)|,;]*)?)(?:[\s"'?)|,;…]|$)`)

// Every path of the API in the documents is served, with the method named.
func TestDocsPathsExist(t *testing.T) {
	t.Parallel()
	h, err := openHouse(t.Context(), newWorldAway(t).cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	handler, err := h.routes(&door{})
	if err != nil {
		t.Fatal(err)
	}
	engine, ok := handler.(*gin.Engine)
	if !ok {
		t.Fatalf("the routes are a %T", handler)
	}
	for _, d := range documents(t) {
		for _, p := range d.code() {
			for _, m := range urlPath.FindAllStringSubmatch(p.text, -1) {
				if !routed(engine.Routes(), m[1], m[2]) {
					t.Errorf("%s: nothing answers %s", p.at, strings.TrimSpace(m[1]+" "+m[2]))
				}
			}
		}
	}
}

// routed reports whether a path, with {names}, values or … where routes have
// parameters, is served. "…" at its end stands for all below.
func routed(routes gin.RoutesInfo, method, path string) bool {
	want := strings.Split(strings.TrimSuffix(path, "/"), "/")
	return slices.ContainsFunc(routes, func(r gin.RouteInfo) bool {
		if method != "" && r.Method != method {
			return false
		}
		if strings.HasSuffix(path, "/") { // a proxy's prefix
			return strings.HasPrefix(r.Path, path)
		}
		have := strings.Split(r.Path, "/")
		for i, part := range want {
			if strings.HasSuffix(part, "…") {
				return strings.HasPrefix(strings.Join(have, "/"), strings.TrimSuffix(strings.Join(want[:i+1], "/"), "…"))
			}
			if i >= len(have) || part != have[i] && !strings.HasPrefix(have[i], ":") {
				return false
			}
		}
		return len(have) == len(want) || len(want) == 3 && path == "/api/v1" // the base of all
	})
}

var (
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.*?) *$`)
	elsewhere = regexp.MustCompile(`^(https?|mailto):`)
)

// Every link to a file, a heading or an image of ours leads somewhere.
func TestDocsLinksLead(t *testing.T) {
	t.Parallel()
	docs := documents(t)
	anchors := map[string][]string{}
	for _, d := range docs {
		for _, h := range heading.FindAllStringSubmatch(d.prose, -1) {
			anchors[d.name] = append(anchors[d.name], slug(h[1]))
		}
	}
	for _, d := range docs {
		for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(d.prose, ""), -1) {
			target := m[1] + m[2]
			if elsewhere.MatchString(target) {
				continue
			}
			file, anchor, _ := strings.Cut(target, "#")
			name := d.name
			if file != "" {
				name = filepath.ToSlash(filepath.Join(filepath.Dir(d.name), file))
			}
			if _, err := os.Stat(root + name); err != nil {
				t.Errorf("%s: a link to %s, which is not there", d.name, target)
			} else if anchor != "" && !slices.Contains(anchors[name], anchor) {
				t.Errorf("%s: a link to %s: %s has no such heading, only %q", d.name, target, name, anchors[name])
			}
		}
	}
}

// slug is the anchor that GitHub gives a heading.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

// Every image under docs is shown by some document.
func TestDocsImagesAreShown(t *testing.T) {
	t.Parallel()
	images, err := filepath.Glob(root + "docs/images/*")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, d := range documents(t) {
		all.WriteString(d.prose)
	}
	for _, path := range images {
		if !strings.Contains(all.String(), "images/"+filepath.Base(path)) {
			t.Errorf("no document shows docs/images/%s", filepath.Base(path))
		}
	}
}

var (
	metricName = regexp.MustCompile(`\bquayside_[a-z_]+[a-z]\b`)
	metricMade = regexp.MustCompile(`(?:Name: +|NewDesc\()"(quayside_[a-z_]+)"`)
	testFunc   = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`)
	goTest     = regexp.MustCompile(`^go test ((?:\./\S+ ?)+)(?: ?-run '?([^' ]+)'?)?`)
)

// docs/operating.md names every metric, and no other.
func TestDocsNameEveryMetric(t *testing.T) {
	t.Parallel()
	made, named := map[string]bool{}, map[string]bool{}
	for _, source := range goFiles(t, "cmd", "internal") {
		if !strings.HasSuffix(source.at, "_test.go") {
			for _, m := range metricMade.FindAllStringSubmatch(source.text, -1) {
				made[m[1]] = true
			}
		}
	}
	for _, d := range documents(t) {
		for _, p := range d.spans() {
			for _, name := range metricName.FindAllString(p.text, -1) {
				base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count"), "_sum")
				if !made[name] && !made[base] {
					t.Errorf("%s: there is no metric %s", p.at, name)
				}
				if d.name == "docs/operating.md" {
					named[base] = true
				}
			}
		}
	}
	for name := range made {
		if !named[name] {
			t.Errorf("docs/operating.md does not name the metric %s", name)
		}
	}
}

// docs/operating.md has the whole table of cases.
func TestDocsNameEveryCase(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range slices.Sorted(maps.Keys(orders.Rules)) {
		rule, blocks := orders.Rules[code], "no"
		if rule.Blocks {
			blocks = "yes"
		}
		if row := fmt.Sprintf("| %#q | %s | %s | ", string(code), rule.Severity, blocks); !strings.Contains(string(text), row) {
			t.Errorf("docs/operating.md has no row that begins with %q", row)
		}
	}
}

// Every `go test` line finds its packages, and each alternative of -run a test.
func TestDocsTestLinesFindTests(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t) {
		for _, p := range d.spans() {
			m := goTest.FindStringSubmatch(p.text)
			if m == nil {
				continue
			}
			var tests []string
			for _, dir := range strings.Fields(m[1]) {
				if dir != "./..." {
					found := testNames(t, strings.TrimPrefix(dir, "./"))
					if len(found) == 0 {
						t.Errorf("%s: %s has no tests", p.at, dir)
					}
					tests = append(tests, found...)
				}
			}
			for alternative := range strings.SplitSeq(m[2], "|") {
				r, err := regexp.Compile(alternative)
				if err != nil || m[2] != "" && !slices.ContainsFunc(tests, r.MatchString) {
					t.Errorf("%s: no test is named %q (%v)", p.at, alternative, err)
				}
			}
		}
	}
}

func testNames(t *testing.T, dirs ...string) (names []string) {
	t.Helper()
	for _, source := range goFiles(t, dirs...) {
		if strings.HasSuffix(source.at, "_test.go") {
			for _, m := range testFunc.FindAllStringSubmatch(source.text, -1) {
				names = append(names, m[1])
			}
		}
	}
	return names
}

// goFiles reads the Go files below some folders.
func goFiles(t *testing.T, dirs ...string) (files []place) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(root+dir, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			text, err := os.ReadFile(path)
			files = append(files, place{path, string(text)})
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	return files
}

// This machine finds what it looks for, or it would find nothing wrong.
func TestDocsMachine(t *testing.T) {
	t.Parallel()
	d := &document{name: "x.md", text: strings.Join([]string{
		"Type `quayside dev`, or", "<!-- stays up -->", "```sh", "quayside dev --demo", "```", "", "```text", "ready", "```", "# Then", "```text", "x", "```", "<!-- soon -->", "so",
	}, "\n")}
	wrong := d.parse()
	if len(wrong) != 1 || len(d.blocks) != 3 || d.blocks[0].shown != d.blocks[1] || d.blocks[0].mark != "stays up" || d.blocks[0].line != 4 || d.outputs()[d.blocks[2]] {
		t.Errorf("%q %+v", wrong, d.blocks)
	}
	for text, want := range map[string]string{
		"$ quayside trigger a.b --order 7 | cat": "trigger a.b --order 7", "A=b ./quayside check --config x; ls": "check --config x",
		"go run ./cmd/quayside dev --demo": "dev --demo", "my-quayside dev": "", "quayside": "", "createdb quayside dev": "",
	} {
		m := append(invocation.FindStringSubmatch(text), "", "")
		if got := strings.TrimSpace(m[1]); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"GET /api/v1/orders?limit=2": "GET /api/v1/orders", `curl -s "$PUBLIC_URL/api/v1/orders/7/timeline" x`: " /api/v1/orders/7/timeline",
		"http://127.0.0.1:8080/readyz": " /readyz", "/etc/quayside/o/x": "", "https://YOUR-HOST/webhooks/payqi": " /webhooks/payqi", "POST /webhooks/payqi": "POST /webhooks/payqi",
		"/o/{token}": " /o/{token}",
	} {
		m := append(urlPath.FindStringSubmatch(text), "", "", "")
		if got := m[1] + " " + m[2]; strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	routes := gin.RoutesInfo{{Method: http.MethodGet, Path: "/api/v1/orders/:id"}, {Method: http.MethodPost, Path: "/api/v1/orders"}}
	for path, want := range map[string]bool{
		"GET /api/v1/orders/{id}": true, "GET /api/v1/orders/7": true, "POST /api/v1/orders/7": false, "GET /api/v1/orders": false,
		"POST /api/v1/orders": true, " /api/v1/order": false, " /api/v1/orders…": true, " /api/v1": true, " /api/v1/orders/7/x": false,
	} {
		method, p, _ := strings.Cut(path, " ")
		if routed(routes, method, p) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
	if got := slug("Backups, and how to restore: `pg_dump`"); got != "backups-and-how-to-restore-pg_dump" {
		t.Error(got)
	}
}
