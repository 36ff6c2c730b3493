package orders

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"quayside/internal/fault"
	"quayside/internal/web"
)

// asOwner is ctx of somebody who may do everything.
func asOwner(ctx context.Context) context.Context {
	ctx = web.By(ctx, web.Request{Operation: "test", Method: "POST", Path: "/test"})
	return web.As(ctx, &web.Caller{Name: "admin:test", ID: "test", Scopes: []string{web.AllScopes}})
}

// searched returns the ids that a search finds, in the order of the list.
func (s *shop) searched(in listInput) (ids []string) {
	s.Helper()
	if in.Limit == 0 {
		in.Limit = 50
	}
	out, err := s.book.list(asOwner(s.Context()), &in)
	if err != nil {
		s.Fatalf("%+v: %v", in, err)
	}
	for _, v := range out.Body.Data {
		ids = append(ids, v.ID)
	}
	return ids
}

// aFewCustomers are orders to be found, each a second younger than the one before.
func aFewCustomers(t *testing.T) *shop {
	t.Helper()
	s := newShop(t)
	s.product("mug", 100)
	for _, c := range []struct{ id, email, name string }{
		{"ord_01", "ada.lovelace+shop@mail.example.com", "Ada Lovelace"},
		{"ORD-02", "grace@navy.example", "Grace Brewster Hopper"},
		{"3003", "o_brien@isle.example", "Conor O'Brien"},
		{"3003-b", "jose@isle.example", "José Ñandú"},
		{"5", "x%y@odd.example", "100% Wool \\ Söhne & Co."},
		{"a.b", "ada@other.example", ""},
	} {
		d := draft(c.id, "mug")
		d.Email, d.Name = c.email, c.name
		s.open(d)
		s.clock.Add(time.Second)
	}
	s.hear(s.of("ord_01", completed("pay_7f3a", "10").hash("C0FFEE00AABB")))
	s.hear(s.of("ORD-02", completed("pay_reused", "10").hash("c0ffee00aabb"))) // counts for the first: TX_REUSED
	s.hear(s.of("3003", completed("pay_X", "10").hash("0DD")))
	if err := s.ship("3003"); err != nil {
		t.Fatal(err)
	}
	return s
}

// An order is found by what a person has of it: words of the customer, in any
// case and from their beginnings; the beginning of its id; a whole payment id,
// transaction or tracking number. Nothing typed means more than its letters.
func TestSearch(t *testing.T) {
	s := aFewCustomers(t)
	for q, want := range map[string]string{
		"lovelace":               "ord_01",
		"LOVE":                   "ord_01",
		"ada":                    "a.b ord_01",
		"ada lov":                "ord_01",
		"lovelace, ada":          "ord_01",
		"ada hopper":             "",
		"ovelace":                "", // not from its beginning
		"ada@other.example":      "a.b",
		"ada@oth":                "a.b",
		"mail.example.com":       "ord_01",
		"shop":                   "ord_01",
		"isle.example":           "3003-b 3003",
		"O'Brien":                "3003",
		"brien":                  "3003",
		"o_brien@isle":           "3003",
		"José":                   "3003-b",
		"Ñandú":                  "3003-b",
		"söhne":                  "5",
		"100%":                   "5",
		"x%y@odd":                "5",
		"  grace  ":              "ORD-02",
		"ord":                    "ORD-02 ord_01", // in any case
		"ORD_":                   "ord_01",        // _ is no wildcard
		"ord-":                   "ORD-02",
		"3003":                   "3003-b 3003",
		"3003-b":                 "3003-b",
		"a.b":                    "a.b",
		"pay_7f3a":               "ord_01",
		"pay_7f3":                "",
		"pay_":                   "",
		"c0ffee00AABB":           "ORD-02 ord_01", // also the payment that counts nothing
		"C0FFEE00":               "",
		"0dd":                    "3003",
		"jd014600003":            "3003",
		"JD0146":                 "",
		"%%%":                    "",
		"___":                    "",
		`\\\`:                    "",
		"ada%":                   "a.b ord_01",
		"!ada":                   "a.b ord_01",
		"grace | ada":            "", // and, not or
		"(grace":                 "ORD-02",
		"grace:*":                "ORD-02",
		"grace & brew":           "ORD-02",
		"<-> grace":              "ORD-02",
		"'grace'":                "ORD-02",
		"' OR '1'='1":            "",
		"';DROP TABLE orders":    "",
		"🜁🜁🜁":                    "",
		strings.Repeat("a", 254): "",
	} {
		if got := strings.Join(s.searched(listInput{Q: q}), " "); got != want {
			t.Errorf("%q finds %q, want %q", q, got, want)
		}
	}
	s.want("with a filter", fmt.Sprint(s.searched(listInput{Q: "ord", Status: "paid"})), "[ord_01]")
	s.want("with another", fmt.Sprint(s.searched(listInput{Q: "ada", Status: "pending"})), "[a.b]")
	s.want("before a time", fmt.Sprint(s.searched(listInput{Q: "ada", CreatedTo: opening.Add(time.Second)})), "[ord_01]")
	s.want("by e-mail, whole, in any case", fmt.Sprint(s.searched(listInput{Email: "ADA@Other.example"}), s.searched(listInput{Email: "ada"})), "[a.b] []")
	for _, q := range []string{"a", "ad", "é1", "   ", "  ab  ", "🜁🜁"} {
		_, err := s.book.list(asOwner(t.Context()), &listInput{Q: q, PageParams: web.PageParams{Limit: 1}})
		if e := s.refused(err, fault.Unprocessable, "invalid_search"); len(e.Fields) != 1 || e.Fields[0].Location != "query.q" {
			t.Errorf("%q: %+v", q, e.Fields)
		}
	}
}

// A search is read to its end page by page, each order once, however it was
// found, when many are of the same moment, and while others come.
func TestSearchPages(t *testing.T) {
	s := newShop(t)
	s.product("mug", 1000)
	var want []string
	for i := range 12 {
		for _, d := range []Draft{draft(fmt.Sprintf("kim-%02d", i), "mug"), draft(fmt.Sprintf("x-%02d", i), "mug"), draft(fmt.Sprintf("other-%02d", i), "mug")} {
			if !strings.HasPrefix(d.ID, "other") {
				d.Name = "Kim" // the first is found twice over: by id and by name
				want = append(want, d.ID)
			}
			s.open(d)
		}
		if i%4 == 3 {
			s.clock.Add(time.Second)
		}
	}
	var got []string
	in := listInput{Q: "kim", PageParams: web.PageParams{Limit: 5}}
	for n := 0; ; n++ {
		out, err := s.book.list(asOwner(t.Context()), &in)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range out.Body.Data {
			got = append(got, v.ID)
		}
		if out.Body.NextCursor == nil {
			break
		}
		in.After = *out.Body.NextCursor
		s.clock.Add(time.Second)
		s.open(draft(fmt.Sprintf("kim-later-%d", n), "mug"))
	}
	if sorted := slices.Sorted(slices.Values(got)); !slices.Equal(sorted, slices.Sorted(slices.Values(want))) {
		t.Errorf("found %v, want %v", got, want)
	}
	all := s.searched(listInput{Q: "kim", PageParams: web.PageParams{Limit: 200}})
	if tail := all[len(all)-len(got):]; !slices.Equal(tail, got) {
		t.Errorf("page by page %v, at once %v", got, tail)
	}
}

// Each way to find an order has an index, and so has the filter by address.
func TestSearchIndexes(t *testing.T) {
	s := newShop(t)
	finders, err := findersOf("abc")
	if err != nil {
		t.Fatal(err)
	}
	indexes := []string{
		"orders_by_id_prefix", "payments_pkey", "a_transaction_counts_once",
		"payments_by_reused_transaction", "shipments_by_tracking_number", "orders_by_words",
	}
	if len(finders) != len(indexes) {
		t.Fatalf("%d ways to find an order, want %d", len(finders), len(indexes))
	}
	for i, f := range finders {
		s.uses(indexes[i], `SELECT id FROM orders WHERE `+strings.Replace(f.where, "?", "'"+f.arg+"'", 1))
	}
	s.uses("orders_by_email", `SELECT id FROM orders WHERE lower(customer_email) = lower('A@b.example')`)
}
