package dock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

// take puts a file down.
func (q *quay) take(kind string, f Format, data string, o Options) *Import {
	q.Helper()
	file, err := NewFile(KindOf(kind), f, []byte(data))
	q.must(err)
	i, err := q.dock.Take(owner(), file, o)
	q.must(err)
	return i
}

// work imports until nothing is left.
func (q *quay) work(id uuid.UUID) *Import {
	q.Helper()
	if _, err := q.dock.carryOn(q.Context(), id, time.Hour); err != nil {
		q.Fatal(err)
	}
	return q.find(id)
}

func (q *quay) find(id uuid.UUID) *Import {
	q.Helper()
	i, err := q.dock.Find(context.Background(), id)
	q.must(err)
	return i
}

// failures are the errors of an import, one text each.
func (q *quay) failures(id uuid.UUID) (list []string) {
	q.Helper()
	rows, err := q.dock.Errors(context.Background(), id, 0, 1000)
	q.must(err)
	for _, r := range rows {
		s := fmt.Sprintf("%d %s", r.Line, r.Code)
		for _, f := range r.Fields {
			s += fmt.Sprintf(" [%s %s]", f.Column, f.Message)
		}
		list = append(list, s)
	}
	return list
}

func (q *quay) stands(i *Import, want string) {
	q.Helper()
	if got := fmt.Sprintf("%s %d/%d/%d", i.State, i.Applied, i.Failed, i.Left()); got != want {
		q.Errorf("the import is %s, want %s; %s", got, want, strings.Join(q.failures(i.ID), "; "))
	}
}

// same compares what was wrong with lines.
func (q *quay) same(got []string, want ...string) {
	q.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		q.Errorf("wrong lines:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func catalogue(n int) string {
	var b strings.Builder
	b.WriteString("sku,name,on_hand\n")
	for i := range n {
		_, _ = fmt.Fprintf(&b, "p%05d,Product %d,%d\n", i, i, i%10)
	}
	return b.String()
}

// The kinds, in both formats: what the API would take is taken, what it would
// refuse is refused with its line, place and mend, and no line harms another.
func TestImportProducts(t *testing.T) {
	q := newQuay(t)
	i := q.work(q.take("products", CSV, "\ufeffName;SKU;on_hand;low_stock_threshold\r\n"+
		"Mug;mug;10;\r\n"+ // 2
		"\"A \"\"large\"\"\r\npot\";pot;007;3\r\n"+ // 3 and 4: a newline is a control character
		";;;\r\n"+ // 5: what spreadsheets leave
		"Mug again;mug;1;\r\n"+ // 6
		"Glass;gl ass;+5;\r\n"+ // 7
		"Cup;cup;many;\r\n"+ // 8
		"Jug;jug;-1;\r\n"+ // 9
		"Vase;vase\r\n"+ // 10
		"'=1+1;'-vase;4;2\r\n"+ // 11
		";bowl;1;\r\n"+ // 12
		"Plate;plate;1000000000001;", Options{}).ID) // 13, without an end
	q.stands(i, "done 2/8/0")
	q.same(q.failures(i.ID),
		"3 invalid_product [name must be 1 to 200 characters without control characters]",
		"6 product_exists",
		"7 invalid_request [sku must be letters, digits, dots, underscores or hyphens]",
		"8 invalid_type [on_hand must be a whole number, written in digits only]",
		"9 invalid_request [on_hand must be 0 or more]",
		"10 malformed_line",
		"12 invalid_request [name is required]",
		"13 invalid_request [on_hand must be 1e+12 or less]",
	)
	if got := q.text(`SELECT string_agg(concat_ws('/', sku, name, on_hand, low_stock_threshold), ' ' ORDER BY sku) FROM products`); got != "-vase/=1+1/4/2 mug/Mug/10/0" {
		t.Errorf("%s", got)
	}
	if got := q.text(`SELECT string_agg(DISTINCT cause, ' ') FROM stock_movements`); got != "admin:test" {
		t.Errorf("cause %s", got)
	}
}

func TestImportStock(t *testing.T) {
	q := newQuay(t)
	q.product("mug", "Mug", 10)
	q.product("pot", "Pot", 10)
	i := q.work(q.take("stock", Lines, `{"sku":"mug","delta":5,"reason":"delivery"}`+"\r\n\n"+
		`{"sku":"pot","delta":-11,"reason":"broken"}`+"\n"+ // 3
		`{"sku":"none","delta":1,"reason":"x"}`+"\n"+
		`{"sku":"mug","delta":0,"reason":"x"}`+"\n"+
		`{"sku":"mug","delta":1,"delta":2,"reason":"x"}`+"\n"+
		`{"sku":"mug","delta":1,"reason":"x","on_hand":7}`+"\n"+
		`{"sku":"mug","delta":1}`+"\n"+
		`["mug",1,"x"]`+"\n"+
		`{"sku":"mug","delta"`+"\n"+
		`{"sku":"pot","delta":-10,"reason":"sold"}`, Options{}).ID)
	q.stands(i, "done 2/8/0")
	q.same(q.failures(i.ID),
		"3 insufficient_stock",
		"4 product_not_found",
		"5 invalid_adjustment [delta must not be 0]",
		"6 malformed_json [delta A field comes twice; names that differ only by case count as the same.]",
		"7 unknown_field [on_hand is not a field of this line; leave it out]",
		"8 invalid_request [reason is required]",
		"9 malformed_json [body must be an object]",
		"10 malformed_json",
	)
	if got := q.text(`SELECT string_agg(sku || '/' || on_hand, ' ' ORDER BY sku) FROM products`); got != "mug/15 pot/0" {
		t.Errorf("%s", got)
	}
}

func TestImportOrders(t *testing.T) {
	q := newQuay(t)
	q.product("mug", "Mug", 10)
	q.product("pot", "Pot", 1)
	i := q.work(q.take("orders", CSV, "id,customer_email,customer_name,currency,items,expires_in\n"+
		"1001,ada@example.com,Ada,XRP,mug:2:5.00 pot:1:0.333333,3600\n"+
		"1002,bob@example.com,,XRP,mug:1:5.00 pot:1:1,\n"+ // the pot is gone
		"1001,ada@example.com,Ada,XRP,mug:2:5.00,\n"+
		"1003,bob,,xrp,mug:0:5.00,\n"+
		"1004,bob@example.com,,XRP,mug 1,\n"+
		",bob@example.com,,XRP,mug:1:5.00,\n"+
		"1005,bob@example.com,,XRP,mug:1:-5.00 glass:1:1,\n"+
		"1006,bob@example.com,,XRP,glass:1:1,\n"+
		"1007,bob@example.com,,XRP,mug:1:5,", Options{}).ID)
	q.stands(i, "done 2/7/0")
	q.same(q.failures(i.ID),
		"3 insufficient_stock [items[1].quantity 1 of pot wanted, 0 available]",
		"4 order_exists",
		"5 invalid_request [items[0].quantity must be 1 or more]",
		"6 malformed_line [items must be SKU:QUANTITY:PRICE for each line of the order, with blanks between them, such as mug-blue:2:5.00 sticker:1:0.50]",
		"7 invalid_order [id is required]",
		"8 invalid_request [items[0].unit_price must be an amount such as \"10.00\"]",
		"9 unknown_product [items[0].sku there is no product glass]",
	)
	if got := q.text(`SELECT string_agg(concat_ws('/', id, total::float, customer_name, deadline - created_at), ' ' ORDER BY id) FROM orders`); got != "1001/10.333333/Ada/01:00:00 1007/5//00:30:00" {
		t.Errorf("%s", got)
	}
	if got := q.text(`SELECT string_agg(sku || '/' || on_hand || '/' || reserved, ' ' ORDER BY sku) FROM products`); got != "mug/10/3 pot/1/1" {
		t.Errorf("%s", got)
	}
	if n := q.count(`SELECT count(*) FROM letters`); n != 2 {
		t.Errorf("%d letters", n)
	}
	// As it goes out it comes in again.
	rows := q.rows(q.export(owner(), "orders", Query{Format: CSV}))
	again := "id,customer_email,currency,items\n"
	for _, r := range rows {
		again += fmt.Sprintf("again-%s,%s,%s,%s\n", r["id"], r["customer_email"], r["currency"], r["items"])
	}
	q.in(func(tx database.Tx) error { return tx.Exec(`UPDATE products SET on_hand = 100`).Error })
	q.stands(q.work(q.take("orders", CSV, again, Options{}).ID), "done 2/0/0")
	for _, r := range q.rows(q.export(owner(), "orders", Query{Format: CSV})) {
		if r["id"] == "again-1001" && (r["total"] != "10.333333" || r["items"] != "mug:2:5 pot:1:0.333333") {
			t.Errorf("%v", r)
		}
	}
}

// A dry run says of each line what would happen to it, and changes nothing.
func TestImportDryRun(t *testing.T) {
	q := newQuay(t)
	q.product("mug", "Mug", 3)
	file := "id,customer_email,currency,items\n1,a@example.com,XRP,mug:2:1\n2,a@example.com,XRP,mug:2:1\n3,a@example.com,XRP,mug:4:1\n"
	i := q.work(q.take("orders", CSV, file, Options{DryRun: true}).ID)
	q.stands(i, "done 2/1/0") // each of the first two could be opened
	q.same(q.failures(i.ID), "4 insufficient_stock [items[0].quantity 4 of mug wanted, 3 available]")
	if n := q.count(`SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM letters) + (SELECT reserved FROM products) + (SELECT count(*) - 1 FROM stock_movements)`); n != 0 {
		t.Errorf("%d traces of a dry run", n)
	}
	q.stands(q.work(q.take("orders", CSV, file, Options{}).ID), "done 1/2/0") // and it is no obstacle to the real one
}

// The same bytes are imported once, also when both come at the same moment,
// unless somebody says that they are meant again.
func TestImportTwice(t *testing.T) {
	q := newQuay(t)
	q.product("mug", "Mug", 0)
	const file = "sku,delta,reason\nmug,5,delivery\n"
	f, err := NewFile(KindOf("stock"), CSV, []byte(file))
	q.must(err)
	var mu sync.Mutex
	var all sync.WaitGroup
	codes := map[string]int{}
	for range 8 {
		all.Go(func() {
			_, err := q.dock.Take(owner(), f, Options{})
			code := "taken"
			if err != nil {
				code = web.Explain(err).Code
			}
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		})
	}
	all.Wait()
	if codes["taken"] != 1 || codes["already_imported"] != 7 {
		t.Errorf("%v", codes)
	}
	q.take("stock", CSV, file, Options{Again: true})
	q.take("stock", CSV, file, Options{DryRun: true})
	q.must(q.dock.Sweep(q.Context()))
	for q.count(`SELECT count(*) FROM imports WHERE state = 'waiting'`) > 0 {
		q.in(func(tx database.Tx) error {
			return tx.Exec(`UPDATE imports SET rung_at = now() - interval '1 minute'`).Error
		})
		q.must(q.dock.Work(q.Context()))
	}
	if n := q.count(`SELECT on_hand FROM products`); n != 10 {
		t.Errorf("%d on hand", n)
	}
}

// So many files may wait and no more.
func TestImportsWaiting(t *testing.T) {
	q := newQuay(t)
	take := func(n int) error {
		f, err := NewFile(KindOf("products"), CSV, fmt.Appendf(nil, "sku,name,on_hand\np%d,P,1\n", n))
		q.must(err)
		_, err = q.dock.Take(owner(), f, Options{})
		return err
	}
	for n := range maxWaiting {
		q.must(take(n))
	}
	if code := web.Explain(take(maxWaiting)).Code; code != "too_many_imports" {
		t.Errorf("%s", code)
	}
	q.must(q.db.InTx(q.Context(), func(tx database.Tx) error {
		return tx.Exec(`UPDATE imports SET rung_at = created_at - interval '1 minute'`).Error
	}))
	q.must(q.dock.Work(q.Context()))
	q.must(take(maxWaiting))
	if n := q.count(`SELECT count(*) FROM products`); n != maxWaiting {
		t.Errorf("%d products", n)
	}
}

// Ten thousand products, four workers at once that are cut off again and again
// at any moment: every line is applied once, none is left out.
func TestImportTenThousand(t *testing.T) {
	q := newQuay(t)
	const n = 10_000
	q.product("p00777", "Was there before", 1)
	i := q.take("products", CSV, catalogue(n), Options{})
	began := time.Now()
	var all sync.WaitGroup
	cuts := make([]int, 4)
	for w := range cuts {
		all.Go(func() {
			for {
				life := rand.N(40*time.Millisecond + time.Since(began)/20)  // longer on a machine that is slow
				ctx, die := context.WithTimeout(context.Background(), life) // the rollback of a killed process
				_, err := q.dock.carryOn(ctx, i.ID, time.Hour)
				die()
				if q.find(i.ID).State == Done {
					return
				}
				if err != nil {
					cuts[w]++
				}
				q.in(func(tx database.Tx) error { // the backoff of the attempt that was cut
					return tx.Exec(`UPDATE imports SET not_before = now() - interval '1 second', attempts = 0 WHERE state = 'waiting'`).Error
				})
			}
		})
	}
	all.Wait()
	t.Logf("%d lines in %s, cut off %v times", n, time.Since(began).Round(time.Millisecond), cuts)
	if cuts[0]+cuts[1]+cuts[2]+cuts[3] < 5 {
		t.Errorf("hardly cut off: %v", cuts)
	}
	q.stands(q.find(i.ID), fmt.Sprintf("done %d/1/0", n-1))
	q.same(q.failures(i.ID), "779 product_exists")
	if got := q.text(`SELECT count(*) || ' ' || sum(on_hand) || ' ' || (SELECT count(*) FROM stock_movements) || ' ' || (SELECT count(*) FROM import_batches) FROM products`); got != fmt.Sprintf("%d %d %d 0", n, n/10*45-7+1, n) {
		t.Errorf("products, units, movements, batches: %s", got)
	}
	rows := q.rows(q.export(owner(), "products", Query{Format: CSV}))
	if len(rows) != n || rows[4321]["sku"] != "p04321" || rows[4321]["name"] != "Product 4321" || rows[4321]["on_hand"] != "1" {
		t.Errorf("%d rows, %v", len(rows), rows[4321])
	}
}

// Orders of one import and others want the same stock in other orders of lines:
// nobody waits for ever, and no unit is promised twice.
func TestImportAmongOthers(t *testing.T) {
	q := newQuay(t)
	skus := numbered(6, "s%d")
	for _, s := range skus {
		q.product(s, s, 60)
	}
	var files [2]strings.Builder
	for f := range files {
		files[f].WriteString("id,customer_email,currency,items\n")
		for n := range 40 {
			a, b := skus[(n*5+f)%6], skus[(n+3*f+1)%6]
			_, _ = fmt.Fprintf(&files[f], "f%d-%d,a@example.com,XRP,%s:1:1 %s:1:1\n", f, n, a, b)
		}
	}
	var all sync.WaitGroup
	for f := range files {
		i := q.take("orders", CSV, files[f].String(), Options{})
		all.Go(func() {
			for q.find(i.ID).State == Waiting {
				if _, err := q.dock.carryOn(context.Background(), i.ID, time.Hour); err != nil && fault.KindOf(err) != fault.Unavailable {
					t.Error(err)
				}
			}
		})
	}
	for n := range 40 {
		q.order(fmt.Sprintf("api-%d", n), "", skus[n%6], skus[(n+2)%6])
	}
	all.Wait()
	if n := q.count(`SELECT count(*) FROM orders`); n != 120 {
		t.Errorf("%d orders", n)
	}
	time.Sleep(1200 * time.Millisecond) // Postgres counts deadlocks once a second
	if n := q.count(`SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`); n != 0 {
		t.Errorf("%d deadlocks", n)
	}
	if n := q.count(`SELECT count(*) FROM products p WHERE reserved <> (SELECT sum(quantity) FROM order_items i WHERE i.sku = p.sku)`); n != 0 {
		t.Errorf("%d products have other reservations than orders", n)
	}
}

// What is not a line's fault costs no line: the batch waits and is tried again;
// after many tries a person has to look.
func TestImportTriesAgain(t *testing.T) {
	q := newQuay(t)
	q.product("mug", "Mug", 1)
	i := q.take("stock", CSV, "sku,delta,reason\nmug,1,a\nnone,1,b\nmug,2,c\n", Options{})
	q.in(func(tx database.Tx) error { return tx.Exec(`ALTER TABLE import_errors RENAME TO away`).Error })
	if _, err := q.dock.carryOn(q.Context(), i.ID, time.Hour); err == nil {
		t.Fatal("it went on")
	}
	got := q.find(i.ID)
	if got.State != Waiting || got.Applied != 0 || got.Attempts != 1 || !got.NotBefore.After(i.NotBefore) || q.count(`SELECT on_hand FROM products`) != 1 {
		t.Errorf("%+v", got)
	}
	if more, err := q.dock.carryOn(q.Context(), i.ID, time.Hour); more || err != nil || q.find(i.ID).Attempts != 1 {
		t.Errorf("it was tried before its time: %v %v", more, err)
	}
	q.in(func(tx database.Tx) error {
		return errors.Join(tx.Exec(`ALTER TABLE away RENAME TO import_errors`).Error, tx.Exec(`UPDATE imports SET not_before = created_at`).Error)
	})
	q.stands(q.work(i.ID), "done 2/1/0")
	if n := q.count(`SELECT on_hand FROM products`); n != 4 {
		t.Errorf("%d on hand", n)
	}
	i = q.take("stock", CSV, "sku,delta,reason\nmug,9,a\n", Options{})
	q.in(func(tx database.Tx) error {
		return tx.Exec(`UPDATE imports SET attempts = ? WHERE id = ?`, maxAttempts, i.ID).Error
	})
	q.stands(q.work(i.ID), "stopped 0/0/1")
	q.in(func(tx database.Tx) error {
		_, err := q.dock.cancel(tx, i.ID, func(Import) error { return nil })
		return err
	})
	q.stands(q.work(i.ID), "cancelled 0/0/1")
	if n := q.count(`SELECT count(*) FROM import_batches`); n != 0 {
		t.Errorf("%d batches are left", n)
	}
	err := q.db.InTx(q.Context(), func(tx database.Tx) error {
		_, err := q.dock.cancel(tx, i.ID, func(Import) error { return nil })
		return err
	})
	if fault.KindOf(err) != fault.Conflict {
		t.Errorf("cancelled twice: %v", err)
	}
}

// A file that cannot be read is refused as a whole, and told where it is wrong.
func TestFileRefused(t *testing.T) {
	const head = "sku,name,on_hand\n"
	for name, tc := range map[string]struct{ file, want string }{
		"empty":             {"", "empty_file"},
		"only a mark":       {"\ufeff", "empty_file"},
		"header only":       {head, "empty_file"},
		"blank lines":       {head + "\n\r\n,,\n", "empty_file"},
		"UTF-16":            {"\xff\xfes\x00k\x00", "unreadable_file line 1 is in UTF-16: save the file in UTF-8"},
		"a workbook":        {"PK\x03\x04\x14\x00", "unreadable_file line 1 is a spreadsheet's own format: save it as CSV"},
		"NUL":               {head + "a,b,1\nc,\x00,1\n", "unreadable_file line 3 holds NUL (U+0000): take it out, or save the file in UTF-8"},
		"Latin-1":           {head + "a,b,1\nc,M\xfcller,1\n", "unreadable_file line 3 is not UTF-8: save the file in UTF-8"},
		"CR only":           {"sku,name,on_hand\ra,b,1\r", "unreadable_file line 1 ends with CR alone: save the file with LF or CRLF at the end of lines"},
		"an open quote":     {head + "a,b,1\nc,\"d,1\ne,f,1\n", "unreadable_file line 3 has a quote that is not closed, or stands in the middle of a cell: a cell that holds \" is written in quotes, with \"\" for it"},
		"a quote in a cell": {head + "a,5\" pipe,1\n", "unreadable_file line 2 has a quote that is not closed, or stands in the middle of a cell: a cell that holds \" is written in quotes, with \"\" for it"},
		"a long line":       {head + "a," + strings.Repeat("x", maxLine) + ",1\n", "unreadable_file line 2 is longer than 65536 bytes: is a quote missing?"},
		"an unknown column": {"sku,name,on_hand,colour\na,b,1,red\n", `wrong_columns line 1 "colour" is not a column of products: take it out`},
		"a missing column":  {"sku;name\na;b\n", "wrong_columns line 1 the column on_hand is missing"},
		"a column twice":    {"sku,name,on_hand,SKU\na,b,1,c\n", "wrong_columns line 1 sku is there twice"},
		"no name":           {"sku,name,on_hand,\na,b,1,\n", "wrong_columns line 1 column 4 has no name"},
		"no header":         {"mug,Mug,1\n", `wrong_columns line 1 "mug" is not a column of products: take it out; line 1 "mug" is not a column of products: take it out; line 1 "1" is not a column of products: take it out; line 1 the column sku is missing; line 1 the column name is missing; line 1 the column on_hand is missing`},
		"JSON":              {`{"sku":"a","name":"b","on_hand":1}`, "unreadable_file line 1 has a quote"},
		"a million and one": {head + strings.Repeat("a,b,1\n", MaxLines+1), "too_many_lines"},
	} {
		_, err := NewFile(KindOf("products"), CSV, []byte(tc.file))
		p := web.Explain(err)
		got := p.Code
		for n, f := range p.Errors {
			got += map[bool]string{true: " ", false: "; "}[n == 0] + f.Location + " " + f.Message
		}
		if p.Status >= 500 || !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %d %s\nwant %s", name, p.Status, got, tc.want)
		}
	}
}

// A file of a million lines is cut without a copy of it, or of its lines.
func TestMillionLines(t *testing.T) {
	head := "sku,delta,reason\n"
	for f, file := range map[Format][]byte{
		CSV:   []byte(head + strings.Repeat("mug,1,\"a, b\"\r\n", MaxLines)),
		Lines: []byte(strings.Repeat(`{"sku":"m","delta":1,"reason":"r"}`[:31]+"\n", MaxLines)),
	} {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		got, err := NewFile(KindOf("stock"), f, file)
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		if err != nil || got.Lines != MaxLines || len(got.batches) != MaxLines/maxSavepoints {
			t.Fatalf("%s: %v", f, err)
		}
		allocated := int(after.TotalAlloc - before.TotalAlloc)
		t.Logf("%s: %d MB, %s, %d MB allocated", f, len(file)>>20, took.Round(time.Millisecond), allocated>>20)
		if allocated > 96<<20 {
			t.Errorf("%s: %d MB were allocated for a file of %d", f, allocated>>20, len(file)>>20)
		}
		sum := 0
		for _, b := range got.batches {
			sum += len(b.body)
		}
		if want := len(file) - map[Format]int{CSV: len(head)}[f]; sum != want {
			t.Errorf("%s: the batches hold %d bytes of %d", f, sum, want)
		}
	}
}

// However a file is cut, its batches read by themselves give the same lines
// with the same numbers as the file read whole.
func FuzzCut(f *testing.F) {
	for _, s := range []string{"a,1,b\n", "\r\n\"a\nb\",1,\"c\"\"d\"\n,,\nx,1,y", "\n\n,,\na,1\n\"\n\n\"\n{}"} {
		f.Add(s)
	}
	k := *KindOf("stock")
	k.batch = 2
	whole := k
	whole.batch = MaxLines
	f.Fuzz(func(t *testing.T, s string) {
		for _, format := range []Format{CSV, Lines} {
			data := []byte(s)
			if format == CSV {
				data = []byte("sku,delta,reason\n" + s)
			}
			l, parts, err := cut(&k, format, data)
			l2, one, err2 := cut(&whole, format, data)
			if (err == nil) != (err2 == nil) {
				t.Fatalf("%v, %v", err, err2)
			}
			if err != nil {
				continue
			}
			read := func(k *Kind, l Layout, batches []batch) (all string) {
				for _, b := range batches {
					records, err := k.records(format, l, b.line, b.body)
					if err != nil || len(records) != b.lines {
						t.Fatalf("%q: batch at %d: %d records of %d, %v", s, b.line, len(records), b.lines, err)
					}
					for _, r := range records {
						all += fmt.Sprintf("%d %s %v\n", r.line, r.body, r.err)
					}
				}
				return all
			}
			if a, b := read(&k, l, parts), read(&whole, l2, one); a != b {
				t.Errorf("%q:\n%s\n%s", s, a, b)
			}
		}
	})
}

// A failure of ours at one line costs no other line: it is told, and the rest
// goes on. One that passes costs none at all.
func TestImportOurFault(t *testing.T) {
	q := newQuay(t)
	fail := func(code string) {
		q.in(func(tx database.Tx) error {
			return tx.Exec(fmt.Sprintf(`CREATE OR REPLACE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$
				BEGIN IF NEW.sku = 'p00003' THEN RAISE EXCEPTION 'canary' USING ERRCODE = '%s'; END IF; RETURN NEW; END $$;
				DROP TRIGGER IF EXISTS boom ON stock_movements; CREATE TRIGGER boom BEFORE INSERT ON stock_movements FOR EACH ROW EXECUTE FUNCTION boom()`, code)).Error
		})
	}
	fail("55P03") // a lock that is not to be had
	i := q.take("products", CSV, catalogue(7), Options{})
	if _, err := q.dock.carryOn(q.Context(), i.ID, time.Hour); fault.KindOf(err) != fault.Unavailable {
		t.Fatalf("%v", err)
	}
	if got := q.find(i.ID); got.Applied+got.Failed != 0 || got.Reason == "" || q.count(`SELECT count(*) FROM products`) != 0 {
		t.Errorf("%+v", got)
	}
	fail("P0001") // nobody knows what
	q.in(func(tx database.Tx) error { return tx.Exec(`UPDATE imports SET not_before = created_at`).Error })
	q.stands(q.work(i.ID), "done 6/1/0")
	rows, err := q.dock.Errors(q.Context(), i.ID, 0, 10)
	q.must(err)
	if len(rows) != 1 || rows[0].Line != 5 || rows[0].Code != "internal" || strings.Contains(fmt.Sprint(rows), "canary") || q.count(`SELECT count(*) FROM products WHERE sku = 'p00003'`) != 0 {
		t.Errorf("%+v", rows)
	}
}
