package webhooks

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/inventory"
	"quayside/internal/notify"
	"quayside/internal/orders"
	"quayside/internal/queue"
	"quayside/internal/queue/queuetest"
	"quayside/internal/web"
)

const testSecret = "whsec_for_the_tests_only"

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // tests read rows, not logs
	dbtest.Main(m)
}

// shop is an inbox and all behind it on a database of its own, with pools of
// two connections: a verb that used one outside its transaction would hang.
type shop struct {
	t     testing.TB
	in    *Inbox
	book  *orders.Book
	db    *database.DB
	bell  *queuetest.Bell
	clock *dbtest.Clock
	http  http.Handler
}

var opening = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// setup is what a test may want otherwise than usual.
type setup struct {
	at      time.Time // where the clock stands
	ticks   bool      // no two transactions at the same time; only for tests that do one thing after the other
	conns   int       // of each pool
	bell    queue.Bell
	intake  string // address of the intake's database; "" for the shop's own
	options Options
}

func newShop(t testing.TB, change ...func(*setup)) *shop {
	t.Helper()
	bell := &queuetest.Bell{}
	set := setup{at: opening, conns: 2, bell: bell, options: Options{Verifier: verifier(t, testSecret), Timestamp: TimestampIfPresent}}
	for _, f := range change {
		f(&set)
	}
	clock := dbtest.NewClock(set.at)
	o := database.Options{Name: "test", MaxConns: set.conns, Clock: clock.Now}
	if set.ticks {
		o.Clock = func() time.Time { clock.Add(time.Microsecond); return clock.Now() }
	}
	db, address := dbtest.NewWith(t, o)
	intake := dbtest.Open(t, cmp.Or(set.intake, address), o)
	outbox := notify.NewOutbox(db, set.bell, nil, notify.Options{From: "shop@shop.example", ShopName: "Shop"})
	book := orders.NewBook(db, set.bell, outbox, orders.Manual{}, orders.Terms{TTL: 30 * time.Minute, PublicURL: "https://shop.example"})
	set.options.Clock = clock.Now
	in := NewInbox(intake, db, set.bell, book, set.options)
	in.Start()
	t.Cleanup(in.Close)
	return &shop{t: t, in: in, book: book, db: db, bell: bell, clock: clock, http: engineOf(t, in)}
}

// engineOf serves an inbox where the real server does.
func engineOf(t testing.TB, in *Inbox) http.Handler {
	t.Helper()
	engine, err := web.NewEngine(web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	engine.POST("/webhooks/payqi", in.Receive)
	return engine
}

// today sets the clock of a shop near Postgres's own, which dates what comes
// in: an hour ahead, so that nothing comes from the future.
func today(s *setup) { s.at = time.Now().UTC().Add(time.Hour) }

func verifier(t testing.TB, secrets ...string) *Verifier {
	t.Helper()
	v, err := NewVerifier(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// product puts units of a product on the shelf.
func (s *shop) product(sku string, units int64) {
	s.t.Helper()
	err := s.db.InTx(context.Background(), func(tx database.Tx) error {
		_, err := inventory.Introduce(tx, sku, "A "+sku, units, "admin:test")
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// order opens an order over 10 XRP for two units of sku.
func (s *shop) order(id, sku string) {
	s.t.Helper()
	s.orders(sku, id)
}

// orders opens several like it in one transaction.
func (s *shop) orders(sku string, ids ...string) {
	s.t.Helper()
	err := s.db.InTx(context.Background(), func(tx database.Tx) error {
		for _, id := range ids {
			_, err := s.book.Open(tx, orders.Draft{
				ID: id, Email: "ada@example.com", Name: "Ada", Currency: "XRP",
				Items: []orders.DraftItem{{SKU: sku, Quantity: 2, UnitPrice: decimal.NewFromInt(5)}},
			}, "admin:test")
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// event is a body as PayQI writes it.
func event(id, typ, payment, order, amount string) string {
	return fmt.Sprintf(`{"id":%q,"type":%q,"created":1893553445,"data":{"id":%q,"amount":%s,"currency":"XRP","status":%q,"tx_hash":"HASH-%s","metadata":{"order_id":%q}}}`,
		id, typ, payment, amount, strings.TrimPrefix(typ, "payment."), payment, order)
}

// send posts a signed body and returns status and text.
func (s *shop) send(body string, headers ...string) (int, string) {
	w := s.post(signed(body, headers...))
	return w.Code, w.Body.String()
}

// signed is a request as PayQI sends it; headers of the test's own are added.
func signed(body string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/webhooks/payqi", strings.NewReader(body))
	r.Header.Set("X-PayQI-Signature", Sign(testSecret, []byte(body)))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func (s *shop) post(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.http.ServeHTTP(w, r)
	return w
}

// accept sends bodies that must be stored for the first time.
func (s *shop) accept(bodies ...string) {
	s.t.Helper()
	for _, body := range bodies {
		s.expect(body, "200 OK")
	}
}

// expect sends a body and compares the answer, such as "200 OK".
func (s *shop) expect(body, want string, headers ...string) {
	s.t.Helper()
	if code, text := s.send(body, headers...); fmt.Sprint(code, " ", text) != want {
		s.t.Errorf("answered %d %s, want %s, to %.200s %v", code, text, want, body, headers)
	}
}

// exec changes the shop's database behind the program's back.
func (s *shop) exec(statement string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(context.Background(), statement, args...); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

// apply works off the events with these keys in one call.
func (s *shop) apply(keys ...string) error {
	s.t.Helper()
	var ids []uuid.UUID
	for _, key := range keys {
		ids = append(ids, s.inboxID(key))
	}
	return s.in.Apply(context.Background(), ids)
}

// work applies all that waits, as a worker without Redis does.
func (s *shop) work() {
	s.t.Helper()
	s.clock.Add(2 * time.Second) // so that rows just rung for count as waiting
	if err := s.in.Work(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

// one scans a single value.
func one[T any](s *shop, query string, args ...any) (v T) {
	s.t.Helper()
	if err := s.db.Read(context.Background()).Raw(query, args...).Row().Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return v
}

func (s *shop) status(order string) string {
	s.t.Helper()
	return one[string](s, `SELECT status || '/' || payment_status || '/' || fulfillment_status || '/' || stock FROM orders WHERE id = ?`, order)
}

func (s *shop) stock(sku string) string {
	s.t.Helper()
	return one[string](s, `SELECT on_hand || '/' || reserved FROM products WHERE sku = ?`, sku)
}

func (s *shop) inboxID(key string) uuid.UUID {
	s.t.Helper()
	return one[uuid.UUID](s, `SELECT id FROM inbox WHERE key = ?`, key)
}

// state is where the event with this key stands, and "absent" when it was never stored.
func (s *shop) state(key string) string {
	s.t.Helper()
	return one[string](s, `SELECT COALESCE((SELECT state FROM events WHERE key = ?), 'absent')`, key)
}

// states lists events and their states, by key.
func (s *shop) states() string {
	s.t.Helper()
	return one[string](s, `SELECT COALESCE(string_agg(key || ' ' || state, ', ' ORDER BY key), '') FROM events`)
}

// cases lists the cases, as CODE/about of order; a closed one in brackets, a blocking one with an exclamation mark.
func (s *shop) cases() string {
	s.t.Helper()
	return one[string](s, `SELECT COALESCE(string_agg(CASE state WHEN 'open' THEN c ELSE '(' || c || ')' END, ', ' ORDER BY c), '') FROM (
		SELECT state, key || COALESCE(' of ' || order_id, '') || CASE WHEN blocks THEN '!' ELSE '' END AS c FROM cases) AS x`)
}

func (s *shop) count(table string) int {
	s.t.Helper()
	return one[int](s, `SELECT count(*) FROM `+table)
}

// is compares what a test found with what must be.
func is[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// inside replaces parts of a body; each must be there.
func inside(t testing.TB, body string, oldNew ...string) string {
	t.Helper()
	for i := 0; i+1 < len(oldNew); i += 2 {
		if !strings.Contains(body, oldNew[i]) {
			t.Fatalf("no %q in %s", oldNew[i], body)
		}
		body = strings.Replace(body, oldNew[i], oldNew[i+1], 1)
	}
	return body
}

func sha256Hex(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}
