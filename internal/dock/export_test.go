package dock

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"quayside/internal/database"
	"quayside/internal/inventory"
)

// Whatever a cell holds, a spreadsheet calculates nothing, and an import reads
// back what was exported.
func TestCell(t *testing.T) {
	texts := rapid.OneOf(rapid.StringMatching(`['=+\-@＝＋－＠"\t\r\n;, a]{0,6}`), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		s := texts.Draw(t, "text")
		if strings.Contains(s, "\r") || !utf8.ValidString(s) {
			s = strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\r", "") // encoding/csv makes one newline of \r\n
		}
		var b bytes.Buffer
		out := bufio.NewWriter(&b)
		writeText(out, s)
		_ = out.Flush()
		if !strings.HasPrefix(b.String(), `"`) || !strings.HasSuffix(b.String(), `"`) {
			t.Fatalf("%q is not in quotes: %s", s, b.String())
		}
		record, err := csv.NewReader(&b).Read()
		if err != nil || len(record) != 1 {
			t.Fatalf("%q: %q %v", s, record, err)
		}
		if formula(record[0]) {
			t.Fatalf("%q goes out as %q, which is calculated", s, record[0])
		}
		if got := unshield(record[0]); got != s {
			t.Fatalf("%q comes back as %q", s, got)
		}
	})
	for s, want := range map[string]string{
		"=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\tx": "'\tx", "\rx": "'\rx", "＝1": "'＝1", "'=1": "''=1", "'tis": "'tis", "a=1": "a=1", "": "", "'": "'",
	} {
		if got := shield(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func FuzzCell(f *testing.F) {
	for _, s := range []string{"", "=1", "'=1", "''@", "a\"b", "\r\n=", "＝", "\xff="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if formula(shield(s)) || unshield(shield(s)) != s {
			t.Errorf("%q: %q", s, shield(s))
		}
	})
}

var (
	exactMoney = regexp.MustCompile(`^[0-9]+\.[0-9]{2,18}$`)
	utcMoment  = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)
)

// Every table goes out in both formats with the same values: money as exact
// text, times in UTC, numbers of ours as they are, text shielded.
func TestExportTables(t *testing.T) {
	q := newQuay(t)
	q.product("-mug", `=HYPERLINK("x")`, 100)
	q.product("pot", "Pot, \"large\"; =1", 100)
	q.order("-1", "@Ada", "-mug", "pot")
	q.in(func(tx database.Tx) error {
		_, err := inventory.Change(tx, "pot", -3, "admin:test", "+broken")
		return err
	})
	q.plantMoney()
	for _, table := range Tables {
		rows := q.rows(q.export(owner(), table.Name, Query{Format: CSV}))
		if len(rows) == 0 {
			t.Errorf("%s: nothing", table.Name)
		}
		dec := json.NewDecoder(strings.NewReader(q.export(owner(), table.Name, Query{Format: Lines})))
		dec.UseNumber()
		for _, row := range rows {
			var line map[string]any
			q.must(dec.Decode(&line))
			for _, c := range table.columns {
				cell := row[c.name]
				want := ""
				if line[c.name] != nil {
					want = fmt.Sprint(line[c.name])
				}
				if unshield(cell) != want {
					t.Errorf("%s.%s: %q in CSV, %q in JSON lines", table.Name, c.name, cell, want)
				}
				switch _, isNumber := line[c.name].(json.Number); {
				case isNumber != (c.kind == number) && want != "":
					t.Errorf("%s.%s: %T", table.Name, c.name, line[c.name])
				case c.kind == money && cell != "" && !exactMoney.MatchString(cell):
					t.Errorf("%s.%s: %s", table.Name, c.name, cell)
				case strings.HasSuffix(c.name, "_at") && cell != "" && !utcMoment.MatchString(cell):
					t.Errorf("%s.%s: %s", table.Name, c.name, cell)
				case c.kind != number && formula(cell):
					t.Errorf("%s.%s is calculated: %s", table.Name, c.name, cell)
				}
			}
		}
		if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: more JSON lines than rows of CSV", table.Name)
		}
	}
	o := q.rows(q.export(owner(), "orders", Query{Format: CSV, State: "pending"}))[0]
	if o["id"] != "'-1" || o["customer_name"] != "'@Ada" || o["total"] != "1.333332" || o["items"] != "'-mug:2:0.333333 pot:2:0.333333" {
		t.Errorf("%v", o)
	}
	m := q.export(owner(), "movements", Query{Format: CSV, State: "adjust"})
	if !strings.Contains(m, `,adjust,-3,0,,"admin:test","'+broken",`) {
		t.Errorf("%s", m)
	}
}

// plantMoney puts a payment, its refund and an event beside the order -1.
func (q *quay) plantMoney() {
	q.Helper()
	q.in(func(tx database.Tx) error {
		for _, s := range []string{
			`INSERT INTO payments (id, order_id, completed_seen, amount, currency, tx_hash, counted, first_seen_at, completed_at, attached_by, refunded)
				VALUES ('=pay', '-1', 1, 0.000001, 'XRP', 'ABCDEF', 'unmatched', now(), now(), 'admin:x', 0.000001)`,
			`INSERT INTO refunds (id, payment_id, order_id, currency, amount, state, decided_by, decided_at, note, destination_tag)
				VALUES ('01a20a64-0db9-79d2-8d3e-ec789456df4d', '=pay', '-1', 'XRP', 0.000001, 'approved', 'admin:x', now(), '=1+1', 7)`,
			`INSERT INTO inbox (id, key, event_id, body, digest, secret_label, received_at, last_seen_at, outcome, settled_at)
				VALUES (gen_random_uuid(), '@evt', '@evt', '{}', 'd', 's', now(), now(), 'ignored', now())`,
		} {
			if err := tx.Exec(s).Error; err != nil {
				return err
			}
		}
		return nil
	})
}

// Who may not read personal data gets it masked.
func TestExportMasks(t *testing.T) {
	q := newQuay(t)
	q.product("mug", "Mug", 10)
	q.order("1", "Canary Bird", "mug")
	for _, f := range []Format{CSV, Lines} {
		if got := q.export(with("viewer"), "orders", Query{Format: f}); strings.Contains(got, "anary") || strings.Contains(got, "customers.example") || !strings.Contains(got, `"C***"`) {
			t.Errorf("%s", got)
		}
		if got := q.export(with("operator"), "orders", Query{Format: f}); !strings.Contains(got, "Canary Bird") {
			t.Errorf("%s", got)
		}
	}
}

// An export is of one moment, however much is written while it is read, and
// says before how many rows it has. Its period is half-open.
func TestExportSnapshot(t *testing.T) {
	q := newQuay(t)
	const n = 3*fetchRows + 7
	q.in(func(tx database.Tx) error {
		return tx.Exec(`INSERT INTO products SELECT 'p' || lpad(i::text, 6, '0'), 'P', 0, 0, now(), now() FROM generate_series(1, ?) i`, n).Error
	})
	var b bytes.Buffer
	out := bufio.NewWriter(&b)
	var total int64
	wrote, batches := 0, 0
	err := Export(owner(), q.db, TableOf("products"), Query{Format: CSV}, out, Progress{
		Total: func(rows int64) {
			total = rows
			q.in(func(tx database.Tx) error {
				return tx.Exec(`INSERT INTO products VALUES ('p000000early', 'Late', 0, 0, now(), now())`).Error
			})
		},
		Wrote: func(rows int) {
			wrote += rows
			batches++
			q.in(func(tx database.Tx) error { // others go on
				return tx.Exec(`WITH gone AS (DELETE FROM products WHERE sku = ?) INSERT INTO products VALUES (?, 'Late', 0, 0, now(), now())`,
					fmt.Sprintf("p%06d", n-batches), fmt.Sprintf("p%06dlate", n-batches)).Error
			})
		},
	})
	q.must(errors.Join(err, out.Flush()))
	rows := q.rows(b.String())
	if total != n || wrote != n || len(rows) != n || batches != 4 {
		t.Errorf("%d announced, %d told of in %d batches, %d came; want %d", total, wrote, batches, len(rows), n)
	}
	for i, row := range rows {
		if want := fmt.Sprintf("p%06d", i+1); row["sku"] != want {
			t.Fatalf("row %d is %s, want %s", i, row["sku"], want)
		}
	}
	at := q.text(`SELECT to_char(max(created_at), 'YYYY-MM-DD"T"HH24:MI:SS.USOF') FROM products`)
	last, err := time.Parse("2006-01-02T15:04:05.999999-07", at)
	q.must(err)
	if got := len(q.rows(q.export(owner(), "products", Query{Format: CSV, To: last}))); got >= q.count(`SELECT count(*) FROM products`) || got == 0 {
		t.Errorf("before %s: %d", last, got)
	}
	if got := len(q.rows(q.export(owner(), "products", Query{Format: CSV, From: last}))); got == 0 || got >= n {
		t.Errorf("from %s on: %d", last, got)
	}
}

// A reader that goes away ends the statement in the server; one that takes
// nothing more ends the export.
func TestExportReaderGone(t *testing.T) {
	q := newQuay(t)
	q.in(func(tx database.Tx) error {
		return tx.Exec(`INSERT INTO products SELECT 'p' || i, 'P', 0, 0, now(), now() FROM generate_series(1, 5000) i`).Error
	})
	ctx, leave := context.WithCancel(owner())
	err := Export(ctx, q.db, TableOf("products"), Query{Format: CSV}, bufio.NewWriter(io.Discard), Progress{Wrote: func(int) { leave() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("gone: %v", err)
	}
	full := errors.New("no more")
	rows := 0
	err = Export(owner(), q.db, TableOf("products"), Query{Format: CSV}, bufio.NewWriter(refusing{full}), Progress{Wrote: func(n int) { rows += n }})
	if !errors.Is(err, full) || rows > 1000 {
		t.Errorf("full: %v after %d rows", err, rows)
	}
	if n := q.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'`); n != 0 {
		t.Errorf("%d transactions are left open", n)
	}
}

type refusing struct{ why error }

func (r refusing) Write([]byte) (int, error) { return 0, r.why }
