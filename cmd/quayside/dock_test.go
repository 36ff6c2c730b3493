//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"quayside/internal/database"
	"quayside/internal/dock"
)

// Exports over HTTP: with the number of rows ahead, as a file; who may not read
// personal data gets it masked, and the document knows each filter.
func TestExportOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 50)
	w.open("one", "mug", "customer", map[string]any{"email": "canary@customers.example", "name": "=Canary"})
	w.tell("payment.completed", w.order("one"))
	w.stands("one", "paid/paid/queued")
	w.open("two", "mug")
	r := w.ask(http.MethodGet, "/api/v1/exports/orders?status=paid", "")
	if r.status != 200 || r.header.Get("Total-Count") != "1" || r.header.Get("Content-Type") != "text/csv; charset=utf-8" ||
		r.header.Get("Content-Disposition") != `attachment; filename="orders.csv"` || strings.Count(r.body, "\r\n") != 2 ||
		!strings.Contains(r.body, `"one",paid,paid,queued,XRP,10.00,10.00,10.00,0.00,"pay_one",`) || !strings.Contains(r.body, `"canary@customers.example","'=Canary","mug:2:5",`) {
		t.Errorf("%d %v\n%s", r.status, r.header, r.body)
	}
	if r := w.ask(http.MethodHead, "/api/v1/exports/orders", ""); r.status != 200 || r.body != "" {
		t.Errorf("HEAD: %d %q", r.status, r.body)
	}
	if r := w.ask(http.MethodGet, "/api/v1/exports/orders", "", "Authorization", "Bearer "+w.key("eyes", "viewer")); r.status != 200 || strings.Contains(r.body, "anary") {
		t.Errorf("a viewer gets %d %s", r.status, r.body)
	}
	r = w.ask(http.MethodGet, "/api/v1/exports/payments?format=jsonl&from=2001-01-01T00:00:00Z&to=2999-01-01T00:00:00Z", "")
	if r.status != 200 || strings.Count(r.body, "\n") != 1 || !strings.Contains(r.body, `"amount":"10.00"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	for query, want := range map[string]string{
		"orders?status=lost": "422 invalid_request", "orders?state=paid": "400 unknown_parameter", "payments?from=yesterday": "400 invalid_parameter",
		"refunds?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z": "422 invalid_period", "movements?format=xml": "422 invalid_request",
	} {
		r := w.ask(http.MethodGet, "/api/v1/exports/"+query, "")
		if got := fmt.Sprint(r.status, " ", r.code()); got != want || r.header.Get("Content-Disposition") != "" {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	doc := w.openAPI()
	for _, table := range dock.Tables {
		op := doc.Paths["/api/v1/exports/"+table.Name]["get"]
		var has []string
		for _, p := range op.Parameters {
			if p.Name == table.Filter {
				has = p.Schema.Enum
			}
		}
		if !slices.Equal(has, table.States) {
			t.Errorf("%s: the document has %q, the table %q", table.Name, has, table.States)
		}
	}
}

// A file that is not whole cannot be taken for one: the connection is cut. Two
// exports at once are enough for one process; the third is told so, and other
// requests are answered.
func TestExportCut(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	w.must(w.db.InTx(t.Context(), func(tx database.Tx) error {
		return tx.Exec(`INSERT INTO products SELECT 'sku-' || i, repeat('A long name ', 16), 0, 0, now(), now() FROM generate_series(1, 100000) i`).Error
	}))
	get := func() *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.shop.url+"/api/v1/exports/products", nil)
		w.must(err)
		r.Header.Set("Authorization", "Bearer "+worldKey)
		res, err := w.shop.http.Do(r)
		w.must(err)
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	first, second := get(), get() // neither is read: both wait for their reader
	if first.StatusCode != http.StatusOK || second.StatusCode != http.StatusOK || first.Header.Get("Total-Count") != "100000" {
		t.Fatalf("%d %d %v", first.StatusCode, second.StatusCode, first.Header)
	}
	if r := w.ask(http.MethodGet, "/api/v1/exports/orders", ""); r.status != 503 || r.code() != "busy" || r.header.Get("Retry-After") == "" {
		t.Errorf("the third: %d %s", r.status, r.body)
	}
	if r := w.ask(http.MethodGet, "/api/v1/orders", ""); r.status != 200 {
		t.Errorf("others meanwhile: %d", r.status)
	}
	_ = second.Body.Close() // the reader goes away
	w.await("its export to end", func() bool {
		return w.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND (state = 'idle in transaction' OR query LIKE 'FETCH%' AND state = 'active')`) == 1
	})
	if n := w.count(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND (state = 'idle in transaction' OR query LIKE 'FETCH%' AND state = 'active')`); n != 1 {
		t.Fatalf("%d connections ended", n)
	}
	got, err := io.ReadAll(first.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, then %v: that looks whole", len(got), err)
	}
	if r := w.ask(http.MethodGet, "/api/v1/exports/orders", ""); r.status != 200 {
		t.Errorf("afterwards: %d %s", r.status, r.body)
	}
}

// fieldOf is a field of an answer's body.
func (w *world) fieldOf(r reply, name string) string {
	w.t.Helper()
	var body map[string]any
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || body[name] == nil {
		w.t.Fatalf("no %s in %d %s", name, r.status, r.body)
	}
	return fmt.Sprint(body[name])
}

// imported waits until an import has ended, and says how: state applied/failed/left.
func (w *world) imported(id string) string {
	w.t.Helper()
	w.await("import "+id+" to end", func() bool {
		return w.count(`SELECT count(*) FROM imports WHERE id = ? AND state = 'waiting'`, id) == 0
	})
	return w.text(`SELECT state || ' ' || applied || '/' || failed || '/' || lines - applied - failed FROM imports WHERE id = ?`, id)
}

// send imports a file.
func (w *world) send(kind, query, file string, headers ...string) reply {
	w.t.Helper()
	return w.ask(http.MethodPost, "/api/v1/imports?kind="+kind+query, file, append([]string{"Content-Type", "text/csv"}, headers...)...)
}

// A file over HTTP: accepted, worked off by a worker, its errors told line by
// line, sent again without a second effect, cancelled only by who may import.
func TestImportOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	const file = "sku,name,on_hand\nmug,Mug,10\npot,Pot,x\n"
	r := w.send("products", "", file, "Idempotency-Key", "first")
	id := w.fieldOf(r, "id")
	if r.status != 202 || r.header.Get("Location") != "/api/v1/imports/"+id || w.imported(id) != "done 1/1/0" {
		t.Errorf("%d %v %s: %s", r.status, r.header, r.body, w.imported(id))
	}
	if again := w.send("products", "", file, "Idempotency-Key", "first"); again.body != r.body || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("sent again: %d %s", again.status, again.body)
	}
	for query, want := range map[string]string{"&dry_run=true": "422 idempotency_key_reused", "&again=true": "422 idempotency_key_reused"} {
		if r := w.send("products", query, file, "Idempotency-Key", "first"); fmt.Sprint(r.status, " ", r.code()) != want {
			t.Errorf("the same key with %s: %d %s", query, r.status, r.body)
		}
	}
	if r := w.send("products", "", file); r.status != 409 || r.code() != "already_imported" || !strings.Contains(r.body, id) {
		t.Errorf("the same file: %d %s", r.status, r.body)
	}
	r = w.ask(http.MethodGet, "/api/v1/imports/"+id+"/errors", "")
	if want := `{"data":[{"line":3,"code":"invalid_type","message":"A field has another JSON type than it needs.","fields":[{"column":"on_hand","message":"must be a whole number, written in digits only"}]}],"next_cursor":null}`; strings.TrimSpace(r.body) != want {
		t.Errorf("%s", r.body)
	}
	id = w.fieldOf(w.ask(http.MethodPost, "/api/v1/imports?kind=orders", jsonOf(draft("one", "mug"))+"\n"+jsonOf(draft("two", "mug"))+"\n", "Content-Type", "application/x-ndjson; charset=utf-8"), "id")
	if got := w.imported(id); got != "done 2/0/0" || w.order("two").Customer.Name != "Ada" || w.levels("mug") != "10/4" {
		t.Errorf("%s, %s", got, w.levels("mug"))
	}
	if n := w.count(`SELECT count(*) FROM letters`); n != 2 {
		t.Errorf("%d letters", n)
	}
	stockman, clerk := "Bearer "+w.key("stockman", "stock:write", "imports:write"), "Bearer "+w.key("clerk", "orders:write")
	for name, tc := range map[string]struct {
		r    reply
		want string
	}{
		"JSON":         {w.send("stock", "", "{}", "Content-Type", "application/json"), "415 unsupported_media_type"},
		"no type":      {w.send("stock", "", "x", "Content-Type", ""), "415 unsupported_media_type"},
		"UTF-16":       {w.send("stock", "", "x", "Content-Type", "text/csv; charset=utf-16"), "415 unsupported_media_type"},
		"gzip":         {w.send("stock", "", "x", "Content-Encoding", "gzip"), "415 unsupported_media_type"},
		"nothing":      {w.send("stock", "", ""), "422 empty_file"},
		"columns":      {w.send("stock", "", "sku\nmug\n"), "422 wrong_columns"},
		"quotes":       {w.send("stock", "", "sku,delta,reason\n\"mug,1,x\n"), "400 unreadable_file"},
		"too large":    {w.send("stock", "", strings.Repeat("a", dock.MaxBytes+1)), "413 body_too_large"},
		"another kind": {w.send("customers", "", "x"), "422 invalid_request"},
		"a parameter":  {w.send("stock", "&dry_run=maybe", "x"), "400 invalid_parameter"},
		"no import":    {w.ask(http.MethodGet, "/api/v1/imports/none/errors", ""), "404 import_not_found"},
		"an end":       {w.ask(http.MethodDelete, "/api/v1/imports/"+id, ""), "409 import_ended"},
		"no kind":      {w.ask(http.MethodPost, "/api/v1/imports", "x", "Content-Type", "text/csv"), "422 invalid_request"},
		"other goods":  {w.send("orders", "", "x", "Authorization", stockman), "403 missing_scope"},
		"others' end":  {w.ask(http.MethodDelete, "/api/v1/imports/"+id, "", "Authorization", stockman), "403 missing_scope"},
		"no imports":   {w.send("orders", "", "x", "Authorization", clerk), "403 missing_scope"},
		"a viewer":     {w.ask(http.MethodDelete, "/api/v1/imports/"+id, "", "Authorization", "Bearer "+w.key("eyes", "viewer")), "403 missing_scope"},
	} {
		if got := fmt.Sprint(tc.r.status, " ", tc.r.code()); got != tc.want {
			t.Errorf("%s: %s, want %s: %s", name, got, tc.want, tc.r.body)
		}
	}
}

// A file of the largest size and a million lines is taken while others are
// answered, and only two at once are held in memory.
func TestImportLarge(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	file := "sku,delta,reason\n" + strings.Repeat("mug,1,counted again\n", dock.MaxLines)
	r := w.send("stock", "", file)
	id := w.fieldOf(r, "id")
	if r.status != 202 || w.fieldOf(r, "left") != "1e+06" || w.count(`SELECT sum(lines) FROM import_batches`) != dock.MaxLines {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := w.ask(http.MethodDelete, "/api/v1/imports/"+id, ""); r.status != 200 || w.fieldOf(r, "state") != "cancelled" || w.count(`SELECT count(*) FROM import_batches`) != 0 {
		t.Errorf("cancelled: %d %s", r.status, r.body)
	}
	var slow []*io.PipeWriter
	for range 2 { // two that do not get on
		read, write := io.Pipe()
		slow = append(slow, write)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.shop.url+"/api/v1/imports?kind=stock", read)
		w.must(err)
		req.Header.Set("Authorization", "Bearer "+worldKey)
		req.Header.Set("Content-Type", "text/csv")
		go func() {
			if res, err := w.shop.http.Do(req); err == nil {
				_ = res.Body.Close()
			}
		}()
		_, err = write.Write([]byte("sku,"))
		w.must(err)
	}
	w.await("a third to be sent away", func() bool {
		r := w.send("stock", "", "sku\n")
		return r.status == 503 && r.code() == "busy" && r.header.Get("Retry-After") != ""
	})
	if r := w.ask(http.MethodGet, "/api/v1/products", ""); r.status != 200 {
		t.Errorf("others meanwhile: %d", r.status)
	}
	for _, s := range slow {
		_ = s.CloseWithError(errors.New("gone"))
	}
	w.await("one to be taken again", func() bool { return w.send("stock", "", "sku\n").code() == "wrong_columns" })
}

// A worker that is killed in the middle of an import loses no line and does
// none twice; another goes on, also without Redis.
func TestImportSurvivesKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	const n = 6000
	var file strings.Builder
	file.WriteString("sku,name,on_hand\n")
	for i := range n {
		_, _ = fmt.Fprintf(&file, "p%d,Product,%d\n", i, i)
	}
	id := w.fieldOf(w.send("products", "", file.String()), "id")
	kills := 0
	for ; kills < 3; kills++ {
		p := w.workApart()
		before := w.count(`SELECT applied FROM imports`)
		p.until("some lines", func() bool { return w.count(`SELECT applied FROM imports`) > before+200 })
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
	done := w.count(`SELECT applied FROM imports`)
	if done >= n {
		t.Fatalf("all %d lines were done before the last kill", done)
	}
	w.cfg.RedisURL = "redis://127.0.0.1:1/0"
	w.work()
	if got := w.imported(id); got != fmt.Sprintf("done %d/0/0", n) {
		t.Errorf("%s", got)
	}
	t.Logf("killed %d times, the last time after %d of %d lines", kills, done, n)
	if got := w.text(`SELECT count(*) || ' ' || sum(on_hand) || ' ' || (SELECT count(*) FROM stock_movements) FROM products`); got != fmt.Sprintf("%d %d %d", n, n*(n-1)/2, n) {
		t.Errorf("products, units, movements: %s", got)
	}
}

// quayside import waits for the workers, prints what was wrong line by line and
// fails when anything was; quayside export gives a file that is whole or none.
func TestFilesFromTheShell(t *testing.T) {
	w := newWorld(t)
	w.work()
	env := map[string]string{"DATABASE_URL": w.cfg.DatabaseURL.reveal()}
	dir := t.TempDir()
	path := func(name, content string) string {
		p := filepath.Join(dir, name)
		w.must(os.WriteFile(p, []byte(content), 0o600))
		return p
	}
	says := func(wantCode int, wantOut string, args ...string) {
		t.Helper()
		code, out, stderr := quayside(t, env, args...)
		out = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).ReplaceAllString(out+stderr, "ID")
		if code != wantCode || !strings.HasPrefix(out, wantOut) {
			t.Errorf("%q: exit %d\n%s\nwant %d\n%s", args, code, out, wantCode, wantOut)
		}
	}
	good, bad := path("good.csv", "sku,name,on_hand\nmug,Mug,10\n=pot,Pot,1\n"), path("bad.ndjson", `{"sku":"mug","delta":-11,"reason":"lost"}`+"\n"+`{"sku":"mug","delta":2}`+"\n"+`{"sku":"mug","delta":2,"reason":"found"}`+"\n")
	says(1, "line 3: sku: must be letters, digits, dots, underscores or hyphens\nimport ID is done: 1 of 2 lines were applied, 1 failed\n", "import", "products", good)
	says(1, "quayside: This very file was sent on ", "import", "products", good)
	says(1, "line 2: product mug exists already\nline 3: sku: ", "import", "products", good, "--again")
	says(1, "line 1: mug has 10 on hand of which 0 are reserved: it cannot go down by 11\nline 2: reason: is required\nimport ID is done: 1 of 3 lines could be applied, each by itself; nothing was, 2 failed\n", "import", "stock", bad, "--dry-run")
	says(0, "import ID is done: 1 of 1 lines were applied, 0 failed\n", "import", "stock", path("one.csv", "sku,delta,reason\nmug,5,+found\n"))
	says(0, "import ID: 1 lines wait for the workers; ", "import", "stock", path("two.csv", "sku,delta,reason\nmug,1,x\n"), "--no-wait")
	w.quiet()
	if got := w.text(`SELECT on_hand || ' ' || (SELECT string_agg(DISTINCT cause, ' ') FROM stock_movements) FROM products`); got != "16 "+byShell() {
		t.Errorf("%s", got)
	}
	says(1, "quayside: The first line must name the columns: sku,delta,reason. Nothing was imported.\n  line 1 \"colour\" is not a column of stock: take it out\n", "import", "stock", path("three.csv", "sku,delta,reason,colour\nmug,1,x,red\n"))
	says(1, "quayside: open ", "import", "stock", filepath.Join(dir, "none.csv"))
	says(2, "quayside: there are no imports of \"customers\": it is products, stock or orders", "import", "customers", good)
	says(2, "quayside: say what the file is with --format csv or --format jsonl", "import", "stock", path("x.txt", "x"))
	says(2, "quayside: accepts 2 arg(s), received 1", "import", "stock")

	says(0, "sku,name,on_hand,low_stock_threshold,reserved,available,created_at,updated_at,archived_at\r\n\"mug\",\"Mug\",16,0,0,16,20", "export", "products")
	says(0, `{"id":"`, "export", "movements", "--state", "adjust", "--format", "jsonl", "--from", "2001-01-01", "--to", "2999-01-01T00:00:00Z")
	file := filepath.Join(dir, "movements.csv")
	says(0, "3 movements in ", "export", "movements", "-o", file)
	got, err := os.ReadFile(file)
	w.must(err)
	info, err := os.Stat(file)
	w.must(err)
	if strings.Count(string(got), "\r\n") != 4 || !strings.Contains(string(got), `"`+byShell()+`","'+found",`) || info.Mode().Perm() != 0o600 {
		t.Errorf("%v\n%s", info.Mode(), got)
	}
	says(2, "quayside: there are no exports of \"customers\": it is orders, payments, refunds, movements, products or events", "export", "customers")
	says(2, "quayside: orders have no state \"lost\": pending, ", "export", "orders", "--state", "lost")
	says(2, "quayside: --from must be a time such as ", "export", "orders", "--from", "yesterday")
	says(2, "quayside: --from must be before --to", "export", "orders", "--from", "2026-01-02", "--to", "2026-01-01")
	env["DATABASE_URL"] = "postgres://x@127.0.0.1:1/x"
	says(1, "quayside: ", "export", "movements", "-o", filepath.Join(dir, "cut.csv"))
	if left, _ := filepath.Glob(filepath.Join(dir, "*cut*")); left != nil {
		t.Errorf("left behind: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

// On a terminal both draw a bar; Ctrl-C ends the waiting and not the import.
func TestFilesOnATerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "products.csv")
	w.must(os.WriteFile(file, []byte("sku,name,on_hand\nmug,Mug,10\npot,Pot,1\n"), 0o600))
	on := func(args ...string) (*exec.Cmd, *safeBuffer, chan struct{}) {
		exe, err := os.Executable()
		w.must(err)
		cmd := exec.Command(exe, args...)
		cmd.Env = []string{asQuayside + "=1", "TERM=xterm", "DATABASE_URL=" + w.cfg.DatabaseURL.reveal()}
		tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 100})
		w.must(err)
		said, ended := &safeBuffer{}, make(chan struct{})
		go func() {
			_, _ = io.Copy(said, tty)
			_ = cmd.Wait()
			_ = tty.Close()
			close(ended)
		}()
		t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
		return cmd, said, ended
	}
	cmd, said, ended := on("import", "products", file)
	w.await("the file to be taken", func() bool { return w.count(`SELECT count(*) FROM imports`) == 1 })
	w.must(cmd.Process.Signal(os.Interrupt))
	<-ended
	if cmd.ProcessState.ExitCode() != exitFail || !strings.Contains(said.String(), "goes on without you") {
		t.Errorf("exit %d: %s", cmd.ProcessState.ExitCode(), said)
	}
	w.work()
	w.quiet()
	cmd, said, ended = on("import", "products", file, "--again", "--dry-run")
	<-ended
	if cmd.ProcessState.ExitCode() != exitFail || !strings.Contains(said.String(), "importing products 100% |") || !strings.Contains(said.String(), "(2/2") || !strings.Contains(said.String(), "line 2: product mug exists already") {
		t.Errorf("exit %d: %q", cmd.ProcessState.ExitCode(), said)
	}
	cmd, said, ended = on("export", "products", "-o", filepath.Join(t.TempDir(), "x.csv"))
	<-ended
	if cmd.ProcessState.ExitCode() != exitDone || !strings.Contains(said.String(), "exporting products 100% |") {
		t.Errorf("exit %d: %q", cmd.ProcessState.ExitCode(), said)
	}
}
