package webhooks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/inventory"
	"quayside/internal/orders"
)

// What is recorded is enough to do it all again: the events, in the books of a
// fresh shop at the times at which they were applied, with the products,
// orders and human decisions that are on record, lead to the same orders,
// payments, refunds and stock, step by step and to the last digit.
func TestRebuild(t *testing.T) {
	t.Parallel()
	for range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newShop(t, today, func(s *setup) { s.ticks = true })
			h := &history{shop: s, r: rand.New(rand.NewPCG(seed, 0))}
			h.live(150)
			again := newShop(t, today)
			(&rebuild{from: s, to: again}).all()
			for what, query := range record {
				is(t, what, again.list(query), s.list(query))
			}
			again.sound()
			t.Logf("%d orders, %d events, %s", s.count("orders"), s.count("inbox"), s.list(`SELECT kind || ' ' || count(*) FROM timeline GROUP BY kind ORDER BY kind`))
		})
	}
}

// record is what must be the same. Ids that are made up are left out, and what
// the notes say of when an event was put to work again.
var record = map[string]string{
	"orders":   `SELECT (to_jsonb(o) - 'status_token')::text FROM orders o ORDER BY id`,
	"payments": `SELECT to_jsonb(p)::text FROM payments p ORDER BY id`,
	"products": `SELECT to_jsonb(p)::text FROM products p ORDER BY sku`,
	"stock":    `SELECT concat_ws(' ', at, sku, kind, on_hand_delta, reserved_delta, order_id, cause) FROM stock_movements ORDER BY 1`,
	"timeline": `SELECT concat_ws(' ', order_id, seq, at, kind, cause, was, became) FROM timeline ORDER BY order_id, seq`,
	"refunds":  `SELECT concat_ws(' ', payment_id, order_id, currency, amount, state, decided_by, decided_at, withdrawn_at) FROM refunds ORDER BY 1`,
	"letters":  `SELECT concat_ws(' ', order_id, kind, state, posted_at) FROM letters ORDER BY 1`,
	"cases":    `SELECT concat_ws(' ', key, state, blocks, opened_at, closed_at, closed_by) FROM cases WHERE order_id IS NOT NULL AND blocks AND key NOT LIKE 'EVENT%' ORDER BY 1`,
}

func (s *shop) list(query string, args ...any) string {
	s.t.Helper()
	var rows []string
	if err := s.db.Read(context.Background()).Raw(query, args...).Scan(&rows).Error; err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return strings.Join(rows, "\n")
}

// history drives a shop at random.
type history struct {
	*shop
	r      *rand.Rand
	events int
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func (h *history) live(n int) {
	h.t.Helper()
	h.product("mug", 30)
	h.product("lamp", 6)
	for range n {
		h.clock.Add(time.Duration(h.r.IntN(400)) * time.Second)
		if h.r.IntN(40) == 0 {
			h.clock.Add(24 * time.Hour)
		}
		pick(h.r, h.deliver, h.deliver, h.deliver, h.open, h.open, h.tend, h.decideOne, h.decideOne, h.person, h.person)()
	}
	h.tend()
}

func (h *history) id() string { return fmt.Sprintf("o%02d", h.r.IntN(12)) }

// try does what the shop may refuse.
func (h *history) try(fn func(tx database.Tx) error) {
	h.t.Helper()
	if err := h.db.InTx(context.Background(), fn); err != nil && fault.KindOf(err) == fault.Internal {
		h.t.Fatal(err)
	}
}

func (h *history) open() {
	ttl := time.Duration(h.r.IntN(7200)+60) * time.Second
	h.try(func(tx database.Tx) error {
		_, err := h.book.Open(tx, orders.Draft{
			ID: h.id(), Email: "ada@example.com", Currency: "XRP", TTL: pick(h.r, nil, &ttl),
			Items: []orders.DraftItem{{SKU: "mug", Quantity: 2, UnitPrice: decimal.NewFromInt(4)}, {SKU: "lamp", Quantity: 1, UnitPrice: decimal.NewFromInt(2)}},
		}, "admin:bob")
		return err
	})
}

// deliver lets some events come and applies them in one go.
func (h *history) deliver() {
	for range 1 + h.r.IntN(4) {
		h.events++
		order := h.id()
		payment := pick(h.r, order, order, order, h.id()) + pick(h.r, "-a", "-b")
		typ := "payment." + pick(h.r, "created", "pending", "failed", "expired", "completed", "completed")
		body := event(fmt.Sprint("evt_", h.events), typ, payment, order, pick(h.r, "4", "6", "10.00", "10", "13.5"))
		body = inside(h.t, body, `"created":1893553445`, fmt.Sprint(`"created":`, 1893553400+h.r.IntN(90)))
		if h.r.IntN(12) == 0 {
			body = inside(h.t, body, pick(h.r, `"XRP"`, "HASH-"+payment), pick(h.r, `"USD"`, "HASH-shared"))
		}
		if h.send(body); h.r.IntN(15) == 0 {
			h.send(inside(h.t, body, `"order_id":"`+order, `"order_id":"other-`+order)) // under the same id
		}
	}
	h.work()
}

// tend does what the sweeps do.
func (h *history) tend() {
	if err := h.book.Sweep(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	h.sweep()
	h.work()
}

func (h *history) decideOne() {
	cases := strings.Fields(h.list(`SELECT id || '/' || code FROM cases WHERE state = 'open' ORDER BY key`))
	if len(cases) == 0 {
		return
	}
	id, code, _ := strings.Cut(pick(h.r, cases...), "/")
	d := orders.Decision{Action: pick(h.r, orders.Rules[orders.Code(code)].Actions...), Note: "because"}
	if d.Action == "attach" {
		d.OrderID = h.id()
	}
	h.try(func(tx database.Tx) error {
		_, err := h.book.Resolve(tx, uuid.MustParse(id), "admin:ada", d)
		return err
	})
	h.work()
}

// person does one of the things that people do to orders, stock and refunds.
func (h *history) person() {
	id := h.id()
	switch h.r.IntN(8) {
	case 0:
		h.try(func(tx database.Tx) error { _, err := h.book.Cancel(tx, id, "admin:bob", "a mistake"); return err })
	case 1:
		h.try(func(tx database.Tx) error { _, err := h.book.Reopen(tx, id, "admin:bob", "wanted"); return err })
	case 2, 3:
		what := orders.Dispatch{Carrier: "DHL", Lines: pick(h.r, nil, []int{1}, []int{2})}
		h.try(func(tx database.Tx) error { _, err := h.book.Ship(tx, id, "admin:bob", what); return err })
	case 4:
		delta := int64(h.r.IntN(9) - 3)
		h.try(func(tx database.Tx) error {
			if delta == 0 {
				return nil
			}
			_, err := inventory.Change(tx, pick(h.r, "mug", "lamp"), delta, "admin:bob", "counted")
			return err
		})
	case 5:
		what := orders.Settlement{Keep: h.r.IntN(2) == 0, Note: "agreed", Amount: pick(h.r, decimal.Zero, decimal.NewFromInt(1))}
		h.try(func(tx database.Tx) error { _, err := h.book.Settle(tx, id, "admin:bob", what); return err })
	case 6:
		if refunds := strings.Fields(h.list(`SELECT id FROM refunds ORDER BY payment_id, decided_at`)); len(refunds) > 0 {
			refund := uuid.MustParse(pick(h.r, refunds...))
			h.try(func(tx database.Tx) error {
				_, err := h.book.Withdraw(tx, refund, "admin:bob", "after all not")
				return err
			})
		}
	case 7:
		if events := strings.Fields(h.list(`SELECT key FROM events WHERE state NOT IN ('applied', 'received') ORDER BY id`)); len(events) > 0 {
			_, _ = h.replay(pick(h.r, events...), "look again")
			h.work()
		}
	}
}

// rebuild does again, in a fresh shop, what is on record of another.
type rebuild struct {
	from, to *shop
}

// recorded is one thing on record, all at one time.
type recorded struct {
	At   time.Time
	Kind string // of the first step; initial, adjust, raised, closed without one
	ID   string // order, product or case
}

func (b *rebuild) all() {
	b.to.t.Helper()
	b.copyInbox()
	var acts []recorded
	err := b.from.db.Read(context.Background()).Raw(`
		SELECT DISTINCT ON (at) at, kind, order_id AS id FROM (SELECT *, CASE kind WHEN 'decided' THEN 0 WHEN 'payment_attached' THEN 1 ELSE 2 END AS rank FROM timeline) t
		UNION ALL SELECT at, kind, sku FROM stock_movements WHERE kind IN ('initial', 'adjust')
		UNION ALL SELECT opened_at, 'raised', key FROM cases c WHERE NOT EXISTS (SELECT 1 FROM timeline t WHERE t.details->'opened' @> to_jsonb(c.key))
		UNION ALL SELECT closed_at, 'closed', key FROM cases c WHERE closed_by LIKE 'admin:%'
			AND NOT EXISTS (SELECT 1 FROM timeline t WHERE t.at = c.closed_at)
		ORDER BY at`).Scan(&acts).Error
	if err != nil {
		b.to.t.Fatal(err)
	}
	for _, a := range acts {
		b.to.clock.Set(a.At)
		if a.Kind == "deadline" {
			_, err = b.to.book.Expire(context.Background(), 1000)
		} else {
			err = b.to.db.InTx(context.Background(), func(tx database.Tx) error { return b.act(tx, a) })
		}
		if err != nil {
			b.to.t.Errorf("%s of %s at %s: %v", a.Kind, a.ID, a.At, err)
			return
		}
	}
}

// copyInbox copies every event byte for byte, as settled and never applied.
func (b *rebuild) copyInbox() {
	for row := range strings.Lines(b.from.list(`SELECT to_jsonb(i)::text FROM inbox i ORDER BY contradicts NULLS FIRST`)) {
		b.to.exec(`INSERT INTO inbox SELECT * FROM jsonb_populate_record(NULL::inbox, $1::jsonb || '{"outcome": "ignored", "settled_at": "2026-01-01T00:00:00Z"}')`, row)
	}
}

// wait lets an event wait in a state.
func (b *rebuild) wait(tx database.Tx, id uuid.UUID, state string) error {
	err := tx.Exec(`UPDATE inbox SET outcome = NULL, settled_at = NULL WHERE id = ?`, id).Error
	if err != nil {
		return err
	}
	return tx.Exec(`INSERT INTO inbox_open (inbox_id, state, not_before, rung_at) VALUES (?, ?, now(), now()) ON CONFLICT (inbox_id) DO UPDATE SET state = excluded.state`, id, state).Error
}

// steps are those of one time, that of the order first.
func (b *rebuild) steps(a recorded) (steps []orders.Step) {
	err := b.from.db.Read(context.Background()).Raw(`SELECT * FROM timeline WHERE at = ? ORDER BY order_id <> ?, seq`, a.At, a.ID).Scan(&steps).Error
	if err != nil {
		b.to.t.Fatal(err)
	}
	return steps
}

func (b *rebuild) act(tx database.Tx, a recorded) error {
	switch a.Kind {
	case "initial", "adjust":
		return b.stock(tx, a)
	case "raised":
		return b.raise(tx, a.ID)
	case "closed":
		return b.closeLoose(tx, a, "")
	}
	steps := b.steps(a)
	st := steps[0]
	switch st.Kind {
	case "opened":
		return b.open(tx, st)
	case "cancelled":
		_, err := b.to.book.Cancel(tx, a.ID, st.Cause, st.Note)
		return err
	case "reopened":
		_, err := b.to.book.Reopen(tx, a.ID, st.Cause, st.Note)
		return err
	case "shipped":
		var lines []int
		if err := b.from.db.Read(context.Background()).Raw(`SELECT line FROM shipment_lines l JOIN shipments s ON s.id = l.shipment_id
			WHERE s.order_id = ? AND s.shipped_at = ? ORDER BY line`, a.ID, a.At).Scan(&lines).Error; err != nil {
			return err
		}
		_, err := b.to.book.Ship(tx, a.ID, st.Cause, orders.Dispatch{Carrier: "DHL", Lines: lines})
		return err
	case "refund_approved", "refund_waived":
		amount := one[decimal.Decimal](b.from, `SELECT sum(amount) FROM refunds WHERE order_id = ? AND decided_at = ?`, a.ID, a.At)
		_, err := b.to.book.Settle(tx, a.ID, st.Cause, orders.Settlement{Amount: amount, Keep: st.Kind == "refund_waived", Note: st.Note})
		return err
	case "refund_withdrawn":
		of := one[string](b.from, `SELECT payment_id || ' ' || decided_at || ' ' || amount FROM refunds WHERE id = ?`, st.Details.Refunds[0])
		id := one[uuid.UUID](b.to, `SELECT id FROM refunds WHERE payment_id || ' ' || decided_at || ' ' || amount = ?`, of)
		_, err := b.to.book.Withdraw(tx, id, st.Cause, st.Note)
		return err
	case "decided":
		d := st.Details.Decision
		return b.resolve(tx, d.Case, st.Cause, orders.Decision{Action: d.Action, Note: d.Note, OrderID: d.OrderID})
	case "payment_attached":
		return b.closeLoose(tx, a, a.ID)
	}
	return b.hear(tx, steps)
}

// hear applies the events of one transaction.
func (b *rebuild) hear(tx database.Tx, steps []orders.Step) error {
	var ids []uuid.UUID
	for _, st := range steps {
		if st.InboxID == nil {
			return fmt.Errorf("nobody knows how to do %s again", st.Kind)
		}
		ids = append(ids, *st.InboxID)
		if err := b.wait(tx, *st.InboxID, stateReady); err != nil {
			return err
		}
	}
	_, err := b.to.in.carryOut(tx, ids)
	return err
}

func (b *rebuild) stock(tx database.Tx, a recorded) (err error) {
	var m inventory.Movement
	if err := b.from.db.Read(context.Background()).Raw(`SELECT * FROM stock_movements WHERE at = ? AND sku = ?`, a.At, a.ID).Scan(&m).Error; err != nil {
		return err
	}
	if m.Kind == inventory.Initial {
		_, err = inventory.Introduce(tx, m.SKU, one[string](b.from, `SELECT name FROM products WHERE sku = ?`, m.SKU), m.OnHandDelta, m.Cause)
	} else {
		_, err = inventory.Change(tx, m.SKU, m.OnHandDelta, m.Cause, m.Reason)
	}
	return err
}

func (b *rebuild) open(tx database.Tx, st orders.Step) error {
	var o orders.Order
	if err := b.from.db.Read(context.Background()).Raw(`SELECT * FROM orders WHERE id = ?`, st.OrderID).Scan(&o).Error; err != nil {
		return err
	}
	ttl := st.Details.Deadline.Sub(st.At)
	draft := orders.Draft{ID: o.ID, Email: o.CustomerEmail, Name: o.CustomerName, Currency: o.Currency, Metadata: o.Metadata, TTL: &ttl}
	err := b.from.db.Read(context.Background()).Raw(`SELECT sku, quantity, unit_price FROM order_items WHERE order_id = ? ORDER BY line`, o.ID).Scan(&draft.Items).Error
	if err != nil {
		return err
	}
	_, err = b.to.book.Open(tx, draft, st.Cause)
	return err
}

// raise opens a case that held no order when it was opened.
func (b *rebuild) raise(tx database.Tx, key string) error {
	var c orders.Case
	if err := b.from.db.Read(context.Background()).Raw(`SELECT * FROM cases WHERE key = ?`, key).Scan(&c).Error; err != nil {
		return err
	}
	_, about, _ := strings.Cut(key, "/")
	alarm := orders.Alarm{Code: c.Code, About: about, InboxID: *c.InboxID, Summary: c.Summary, PaymentID: text(c.PaymentID)}
	if c.Code != orders.UnknownOrder { // that one learns its order when it is attached
		alarm.OrderID = text(c.OrderID)
	}
	if err := b.wait(tx, *c.InboxID, orders.Parked); err != nil {
		return err
	}
	return b.to.book.Raise(tx, []orders.Alarm{alarm})
}

// closeLoose decides a case that had no order: what was decided is in the case.
func (b *rebuild) closeLoose(tx database.Tx, a recorded, order string) error {
	key := one[string](b.from, `SELECT key FROM cases WHERE closed_at = ? AND closed_by LIKE 'admin:%'`, a.At)
	action, note, _ := strings.Cut(one[string](b.from, `SELECT resolution FROM cases WHERE key = ?`, key), ": ")
	return b.resolve(tx, key, one[string](b.from, `SELECT closed_by FROM cases WHERE key = ?`, key), orders.Decision{Action: action, Note: note, OrderID: order})
}

func (b *rebuild) resolve(tx database.Tx, key, actor string, d orders.Decision) error {
	_, err := b.to.book.Resolve(tx, one[uuid.UUID](b.to, `SELECT id FROM cases WHERE key = ?`, key), actor, d)
	return err
}
