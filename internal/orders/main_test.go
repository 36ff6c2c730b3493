package orders

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/fault"
	"quayside/internal/inventory"
	"quayside/internal/notify"
	"quayside/internal/queue/queuetest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// shop is a book on a database of its own, with a hand-moved clock. When the
// test ends, its books must balance.
type shop struct {
	*testing.T
	book    *Book
	db      *database.DB
	bell    *queuetest.Bell
	clock   *dbtest.Clock
	carrier *carrier
}

// newShop has a pool of two: a verb that used a connection outside its
// transaction would hang.
func newShop(t *testing.T) *shop { t.Helper(); return newShopOf(t, 2, Terms{}) }

func newShopOf(t *testing.T, conns int, terms Terms) *shop {
	t.Helper()
	clock := dbtest.NewClock(opening)
	db, _ := dbtest.NewWith(t, database.Options{Name: "test", MaxConns: conns, Clock: clock.Now})
	bell, carrier := &queuetest.Bell{}, &carrier{}
	outbox := notify.NewOutbox(db, bell, nil, notify.Options{From: "shop@shop.example", ShopName: "Shop"})
	terms.TTL, terms.PublicURL = 30*time.Minute, "https://shop.example"
	s := &shop{T: t, db: db, bell: bell, clock: clock, carrier: carrier, book: NewBook(db, bell, outbox, carrier, terms)}
	t.Cleanup(s.balance)
	return s
}

// carrier is a fulfilment provider that does what the test says.
type carrier struct {
	mu     sync.Mutex
	asked  []ShipmentRequest
	lines  []Item
	answer func(ctx context.Context) error
}

func (c *carrier) Name() string { return "carrier" }

func (c *carrier) Request(ctx context.Context, r ShipmentRequest, items []Item) error {
	c.mu.Lock()
	c.asked, c.lines = append(c.asked, r), items
	answer := c.answer
	c.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx)
}

// must runs fn in a transaction and fails the test when it fails.
func (s *shop) must(fn func(tx database.Tx) error) {
	s.Helper()
	if err := s.db.InTx(context.Background(), fn); err != nil {
		s.Error(err)
	}
}

// try runs fn in a transaction and returns how it failed.
func (s *shop) try(fn func(tx database.Tx) error) error {
	return s.db.InTx(context.Background(), fn)
}

// refused fails the test unless err has this kind and code.
func (s *shop) refused(err error, kind fault.Kind, code string) *fault.Error {
	s.Helper()
	e, ok := err.(*fault.Error) //nolint:errorlint // the kind must be at the surface
	if !ok || e.Kind != kind || e.Code != code {
		s.Errorf("got %v, want %s", err, code)
		return &fault.Error{}
	}
	return e
}

// product puts units on the shelf.
func (s *shop) product(sku string, units int64) {
	s.Helper()
	s.must(func(tx database.Tx) error {
		_, err := inventory.Introduce(tx, sku, "A "+sku, units, "admin:test")
		return err
	})
}

// draft is an order over 10 XRP: two units of one product, or one of each of two.
func draft(id string, skus ...string) Draft {
	d := Draft{ID: id, Email: "ada@example.com", Name: "Ada", Currency: "XRP"}
	for _, sku := range skus {
		n := int64(2 / len(skus))
		d.Items = append(d.Items, DraftItem{SKU: sku, Quantity: n, UnitPrice: decimal.NewFromInt(5)})
	}
	return d
}

func (s *shop) open(d Draft) {
	s.Helper()
	s.must(func(tx database.Tx) error {
		_, err := s.book.Open(tx, d, "admin:test")
		return err
	})
}

// of makes n an event about order, kept in the inbox.
func (s *shop) of(order string, n News) News {
	s.Helper()
	n.OrderRef, n.InboxID, n.Key = order, uuid.New(), "evt_"+uuid.NewString()
	digest := sha256.Sum256([]byte(n.Key))
	_, err := s.db.Exec(context.Background(), `INSERT INTO inbox (id, key, body, digest, secret_label, received_at, last_seen_at)
		VALUES ($1, $2, '{}', $3, 'test', $4, $4)`, n.InboxID, n.Key, digest[:], s.clock.Now())
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// hear lets the book hear events in one transaction.
func (s *shop) hear(news ...News) (verdicts []Verdict) {
	s.Helper()
	s.must(func(tx database.Tx) (err error) {
		verdicts, err = s.book.Hear(tx, news)
		return err
	})
	return verdicts
}

// pay opens an order of two mugs and pays it.
func (s *shop) pay(id string, skus ...string) {
	s.Helper()
	s.open(draft(id, skus...))
	s.hear(s.of(id, completed("pay_"+id, "10")))
}

func (s *shop) cancel(id string) error {
	return s.try(func(tx database.Tx) error {
		_, err := s.book.Cancel(tx, id, "admin:test", "a mistake")
		return err
	})
}

func (s *shop) ship(id string, lines ...int) error {
	return s.try(func(tx database.Tx) error {
		_, err := s.book.Ship(tx, id, "admin:test", Dispatch{Carrier: "DHL", TrackingNumber: "JD014600003", Lines: lines})
		return err
	})
}

// one reads a single value.
func one[T any](s *shop, query string, args ...any) (v T) {
	s.Helper()
	if err := s.db.Read(context.Background()).Raw(query, args...).Row().Scan(&v); err != nil {
		s.Fatalf("%s: %v", query, err)
	}
	return v
}

func (s *shop) status(id string) string {
	s.Helper()
	return one[string](s, `SELECT status || ' ' || payment_status || ' ' || fulfillment_status || ' ' || stock FROM orders WHERE id = ?`, id)
}

func (s *shop) stock(sku string) string {
	s.Helper()
	return one[string](s, `SELECT on_hand || '/' || reserved FROM products WHERE sku = ?`, sku)
}

// cases are the open cases of an order, those that block with a !.
func (s *shop) cases(id string) string {
	s.Helper()
	return one[string](s, `SELECT coalesce(string_agg(code || CASE WHEN blocks THEN '!' ELSE '' END, ' ' ORDER BY code), '') FROM cases
		WHERE order_id = ? AND state = 'open'`, id)
}

func (s *shop) letters(id string) string {
	s.Helper()
	return one[string](s, `SELECT coalesce(string_agg(kind || ' ' || state, ', ' ORDER BY posted_at, kind), '') FROM letters WHERE order_id = ?`, id)
}

func (s *shop) want(what, got, want string) {
	s.Helper()
	if got != want {
		s.Errorf("%s: %s, want %s", what, got, want)
	}
}

// balance checks what must hold in every shop at any time; each query finds violations.
func (s *shop) balance() {
	for rule, query := range map[string]string{
		"stock levels are the sums of the ledger": `SELECT p.sku FROM products p LEFT JOIN stock_movements m USING (sku) GROUP BY p.sku
			HAVING p.on_hand <> coalesce(sum(m.on_hand_delta), 0) OR p.reserved <> coalesce(sum(m.reserved_delta), 0)`,
		"no stock is negative, none is promised twice": `SELECT sku FROM products WHERE NOT (0 <= reserved AND reserved <= on_hand)`,
		"what is reserved is reserved by orders": `SELECT p.sku FROM products p LEFT JOIN (SELECT i.sku, sum(i.quantity) AS n
			FROM order_items i JOIN orders o ON o.id = i.order_id WHERE o.stock = 'reserved' AND NOT i.given_up GROUP BY i.sku) r USING (sku)
			WHERE p.reserved <> coalesce(r.n, 0)`,
		"an order holds what its ledger says": `SELECT o.id || '/' || i.sku FROM orders o JOIN (SELECT order_items.order_id, sku, coalesce(sum(quantity) FILTER (WHERE NOT given_up AND restocked IS NOT TRUE), 0) AS n
			FROM order_items LEFT JOIN return_lines USING (order_id, line) LEFT JOIN returns ON id = return_id GROUP BY 1, 2) i ON i.order_id = o.id
			LEFT JOIN (SELECT order_id, sku, sum(on_hand_delta) AS h, sum(reserved_delta) AS r FROM stock_movements GROUP BY 1, 2) m ON m.order_id = o.id AND m.sku = i.sku
			WHERE (coalesce(m.h, 0), coalesce(m.r, 0)) <> (CASE o.stock WHEN 'committed' THEN -i.n ELSE 0 END, CASE o.stock WHEN 'reserved' THEN i.n ELSE 0 END)`,
		"what was got is what matched payments brought": `SELECT id FROM orders o WHERE got <> (SELECT coalesce(sum(amount - refunded - kept), 0) FROM payments p
			WHERE p.order_id = o.id AND p.counted = 'matched')`,
		"got is applied plus refund due": `SELECT id FROM orders WHERE got <> refund_due +
			CASE WHEN status IN ('expired','cancelled') THEN 0 ELSE least(got, coalesce(accepted, total - given_up) - returned) END`,
		"what goes back of a payment is what its refunds say": `SELECT id FROM payments p WHERE refunded <> (SELECT coalesce(sum(amount), 0) FROM refunds
			WHERE payment_id = p.id AND state IN ('approved','sent','confirmed')) OR kept <> (SELECT coalesce(sum(amount), 0) FROM refunds WHERE payment_id = p.id AND state = 'waived')`,
		"the timeline has every step once": `SELECT id FROM orders o WHERE timeline_length <> (SELECT count(*) FROM timeline t WHERE t.order_id = o.id AND t.seq <= o.timeline_length)
			OR status <> (SELECT became FROM timeline t WHERE t.order_id = o.id AND t.seq = o.timeline_length)`,
		"a paid order that nothing holds is asked for": `SELECT o.id FROM orders o JOIN order_items i ON i.order_id = o.id
			WHERE o.status = 'paid' AND o.stock = 'committed' AND NOT i.given_up AND NOT EXISTS (SELECT 1 FROM cases c WHERE c.order_id = o.id AND c.state = 'open' AND c.blocks)
			AND NOT EXISTS (SELECT 1 FROM shipment_request_lines l WHERE (l.order_id, l.line) = (i.order_id, i.line))`,
	} {
		var broken []string
		if err := s.db.Read(context.Background()).Raw(query).Scan(&broken).Error; err != nil {
			s.Errorf("%s: %v", rule, err)
		}
		if len(broken) > 0 {
			s.Errorf("broken: %s: %v", rule, broken)
		}
	}
	for _, m := range s.account() {
		if !m.Balanced() {
			s.Errorf("the money does not add up: %+v", m)
		}
	}
}

func (s *shop) account() (rows []Money) {
	s.Helper()
	s.must(func(tx database.Tx) (err error) {
		rows, err = Account(tx, time.Time{}, time.Time{})
		return err
	})
	return rows
}

// both runs two functions at the same moment and waits for them.
func both(one, other func()) {
	var ready, done sync.WaitGroup
	ready.Add(2)
	for _, fn := range []func(){one, other} {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			fn()
		})
	}
	done.Wait()
}

// whileWaiting runs first in a transaction and keeps it open until second,
// started meanwhile, waits for one of its locks and others have had their turn.
func (s *shop) whileWaiting(first, second func(tx database.Tx) error, others ...func()) {
	s.Helper()
	written, waits := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(waits)
		<-written
		for start := time.Now(); ; {
			if time.Since(start) > 10*time.Second {
				s.Error("the second transaction does not wait for the first")
				return
			}
			if one[int](s, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database()`) > 0 {
				return
			}
		}
	}()
	var done sync.WaitGroup
	done.Go(func() {
		once := sync.OnceFunc(func() { close(written) })
		s.must(func(tx database.Tx) error {
			err := first(tx)
			once()
			<-waits
			for _, other := range others {
				other()
			}
			return err
		})
	})
	<-written
	done.Go(func() { s.must(second) })
	done.Wait()
}

var errRollBack = fmt.Errorf("roll back")
