package dock

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/inventory"
	"quayside/internal/notify"
	"quayside/internal/orders"
	"quayside/internal/queue/queuetest"
	"quayside/internal/web"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// quay is a dock on a database of its own.
type quay struct {
	*testing.T
	db   *database.DB
	book *orders.Book
	bell *queuetest.Bell
	dock *Dock
}

func newQuay(t *testing.T) *quay {
	t.Helper()
	db, _ := dbtest.NewWith(t, database.Options{Name: "test", MaxConns: 8})
	bell := &queuetest.Bell{}
	outbox := notify.NewOutbox(db, bell, nil, notify.Options{From: "shop@shop.example", ShopName: "Shop"})
	book := orders.NewBook(db, bell, outbox, orders.Manual{}, orders.Terms{TTL: 30 * time.Minute, PublicURL: "https://shop.example"})
	return &quay{T: t, db: db, book: book, bell: bell, dock: New(db, bell, book)}
}

func (q *quay) must(err error) {
	q.Helper()
	if err != nil {
		q.Fatal(err)
	}
}

// in runs fn in a transaction.
func (q *quay) in(fn func(tx database.Tx) error) {
	q.Helper()
	q.must(q.db.InTx(context.Background(), fn))
}

func (q *quay) product(sku, name string, units int64) {
	q.Helper()
	q.in(func(tx database.Tx) error {
		_, err := inventory.Introduce(tx, sku, name, units, "admin:test")
		return err
	})
}

func (q *quay) order(id, name string, skus ...string) {
	q.Helper()
	d := orders.Draft{ID: id, Email: id + "@customers.example", Name: name, Currency: "XRP"}
	for _, sku := range skus {
		d.Items = append(d.Items, orders.DraftItem{SKU: sku, Quantity: 2, UnitPrice: decimal.RequireFromString("0.333333")})
	}
	q.in(func(tx database.Tx) error {
		_, err := q.book.Open(tx, d, "admin:test")
		return err
	})
}

func (q *quay) count(query string, args ...any) (n int) {
	q.Helper()
	q.must(q.db.Read(context.Background()).Raw(query, args...).Scan(&n).Error)
	return n
}

func (q *quay) text(query string, args ...any) (s string) {
	q.Helper()
	q.must(q.db.Read(context.Background()).Raw(query, args...).Scan(&s).Error)
	return s
}

// owner is a context of somebody who may do everything.
func owner() context.Context {
	return web.By(web.As(context.Background(), &web.Caller{Name: "admin:test", ID: "test", Scopes: []string{web.AllScopes}}), asked)
}

// with is a context of somebody with these scopes or roles.
func with(words ...string) context.Context {
	var scopes []string
	for _, w := range words {
		if role := access.Roles[w]; role != nil {
			scopes = append(scopes, role...)
		} else {
			scopes = append(scopes, w)
		}
	}
	return web.By(web.As(context.Background(), &web.Caller{Name: "admin:some", ID: "some", Scopes: scopes}), asked)
}

// export returns what goes out.
func (q *quay) export(ctx context.Context, table string, query Query) string {
	q.Helper()
	var b bytes.Buffer
	out := bufio.NewWriter(&b)
	q.must(Export(ctx, q.db, TableOf(table), query, out, Progress{}))
	q.must(out.Flush())
	return b.String()
}

// rows reads a CSV file: one map by column for each row.
func (q *quay) rows(file string) (rows []map[string]string) {
	q.Helper()
	all, err := csv.NewReader(bytes.NewReader([]byte(file))).ReadAll()
	q.must(err)
	for _, record := range all[1:] {
		row := map[string]string{}
		for i, name := range all[0] {
			row[name] = record[i]
		}
		rows = append(rows, row)
	}
	return rows
}

func numbered(n int, form string) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf(form, i))
	}
	return list
}

// asked is what a test asks for, in the audit log.
var asked = web.Request{Operation: "test", Method: "POST", Path: "/test"}
