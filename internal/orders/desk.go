package orders

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/inventory"
	"quayside/internal/notify"
)

// desk holds the rows one transaction works on: everything about a batch of
// orders, loaded and locked with one statement per table. Locks are taken in
// the order orders, payments, stock, each by id, so that two never wait for
// each other.
type desk struct {
	terms  Terms
	now    time.Time
	files  map[string]*File  // by order
	links  map[string]string // payment → order, as recorded
	claims map[string]string // transaction → the payment it counts for
	shelf  *inventory.Shelf
	loose  map[string]*Case     // cases about no order
	alike  map[uuid.UUID]string // events that name no order → the order they look like
	strays map[string]bool      // payments of which a person decided that they belong to no order
}

// lay loads the orders named, with their stock, and those the news is about,
// with their stock where the news may move it.
func (b *Book) lay(tx database.Tx, ids []string, news []News) (*desk, error) {
	d := &desk{
		terms: b.terms, now: tx.Now, files: map[string]*File{}, links: map[string]string{},
		claims: map[string]string{}, loose: map[string]*Case{}, strays: map[string]bool{},
	}
	payments, err := d.follow(tx, news)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, id := range ids {
		wanted[id] = true
	}
	for _, n := range news {
		if id := d.orderOf(n); id != "" {
			wanted[id] = true
		}
	}
	if err := d.loadOrders(tx, slices.Sorted(maps.Keys(wanted))); err != nil {
		return nil, err
	}
	if err := d.loadPayments(tx, payments, news); err != nil {
		return nil, err
	}
	if err := d.loadParts(tx); err != nil {
		return nil, err
	}
	moving := slices.Clone(ids)
	links := maps.Clone(d.links) // as they will be when each event's turn comes
	for _, n := range news {
		id := cmp.Or(links[n.PaymentID], n.OrderRef)
		f := d.files[id]
		if f == nil {
			continue
		}
		if n.Trouble == nil {
			links[n.PaymentID] = id
		}
		if f.mayMoveStock(n, d.now) {
			moving = append(moving, f.ID)
		}
	}
	var skus []string
	for _, id := range moving {
		if f := d.files[id]; f != nil {
			for _, it := range f.Items {
				skus = append(skus, it.SKU)
			}
		}
	}
	slices.Sort(skus)
	d.shelf, err = inventory.Load(tx, slices.Compact(skus))
	return d, err
}

// orderOf is the order an event is about: the one its payment is linked to,
// else the one it names; "" when it names none.
func (d *desk) orderOf(n News) string {
	if id := d.links[n.PaymentID]; id != "" {
		return id
	}
	return n.OrderRef
}

// follow reads, without locks, which orders the payments are linked to.
func (d *desk) follow(tx database.Tx, news []News) ([]string, error) {
	var ids []string
	for _, n := range news {
		if n.PaymentID != "" {
			ids = append(ids, n.PaymentID)
		}
	}
	if ids == nil {
		return nil, nil
	}
	var links []Payment
	if err := tx.Raw(`SELECT id, order_id FROM payments WHERE id = ANY(?)`, database.Array(ids)).Scan(&links).Error; err != nil {
		return nil, fmt.Errorf("follow payments: %w", err)
	}
	for _, l := range links {
		d.links[l.ID] = l.OrderID
		d.strays[l.ID] = l.OrderID == ""
	}
	return ids, nil
}

func (d *desk) loadOrders(tx database.Tx, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	var rows []Order
	err := tx.Raw(`SELECT * FROM orders WHERE id = ANY(?) ORDER BY id FOR NO KEY UPDATE`, database.Array(ids)).Scan(&rows).Error
	if err != nil {
		return fmt.Errorf("lock orders: %w", err)
	}
	for _, o := range rows {
		d.files[o.ID] = d.newFile(o)
	}
	return nil
}

func (d *desk) newFile(o Order) *File {
	return &File{
		Order: o, terms: d.terms, Cases: map[string]*Case{},
		follow: follow{heard: map[string]*Payment{}, cases: map[string]*Case{}},
	}
}

// loadPayments locks the payments of the orders, finds those of the news that
// were linked elsewhere meanwhile, and whom the transactions named count for.
func (d *desk) loadPayments(tx database.Tx, ids []string, news []News) error {
	orders := slices.Collect(maps.Keys(d.files))
	if len(orders)+len(ids) == 0 {
		return nil
	}
	var rows []*Payment
	// By ids alone: for an OR Postgres's cached plan reads the whole table. What
	// is linked to an order is under that order's lock.
	err := tx.Raw(`SELECT * FROM payments WHERE id = ANY(ARRAY(SELECT id FROM payments WHERE order_id = ANY(?) UNION SELECT unnest(?::text[])))
		ORDER BY id FOR NO KEY UPDATE`,
		database.Array(orders), database.Array(ids)).Scan(&rows).Error
	if err != nil {
		return fmt.Errorf("lock payments: %w", err)
	}
	for _, p := range rows {
		f := d.files[p.OrderID]
		if d.strays[p.ID] = p.OrderID == ""; d.strays[p.ID] {
			continue
		}
		if f == nil {
			return fmt.Errorf("payment %s was linked meanwhile: %w", p.ID, database.ErrAgain)
		}
		f.Payments = append(f.Payments, p)
		d.links[p.ID] = p.OrderID
	}
	var hashes []string
	for _, n := range news {
		if n.TxHash != "" && n.Type == PaymentCompletedEvent {
			hashes = append(hashes, claim(n.TxHash))
		}
	}
	if hashes == nil {
		return nil
	}
	var claims []Payment
	err = tx.Raw(`SELECT id, tx_hash FROM payments WHERE upper(tx_hash) = ANY(?) AND tx_hash IS NOT NULL AND counted <> 'reused'`,
		database.Array(hashes)).Scan(&claims).Error
	if err != nil {
		return fmt.Errorf("look up transactions: %w", err)
	}
	for _, p := range claims {
		d.claims[claim(*p.TxHash)] = p.ID
	}
	return nil
}

// loadParts reads the lines and cases of the orders; the lock of the order
// covers them.
func (d *desk) loadParts(tx database.Tx) error {
	if len(d.files) == 0 {
		return nil
	}
	ids := database.Array(slices.Collect(maps.Keys(d.files)))
	var items []Item
	err := tx.Raw(`SELECT i.*,
		(SELECT request_id FROM shipment_request_lines r WHERE r.order_id = i.order_id AND r.line = i.line),
		s.shipment_id, s.delivered_at, (SELECT return_id FROM return_lines r WHERE r.order_id = i.order_id AND r.line = i.line)
		FROM order_items i LEFT JOIN (SELECT l.order_id, l.line, l.shipment_id, s.delivered_at FROM shipment_lines l JOIN shipments s ON s.id = l.shipment_id
			WHERE l.order_id = ANY(@ids)) s USING (order_id, line) WHERE i.order_id = ANY(@ids) ORDER BY i.order_id, i.line`, map[string]any{"ids": ids}).Scan(&items).Error
	if err != nil {
		return fmt.Errorf("load lines: %w", err)
	}
	for _, it := range items {
		f := d.files[it.OrderID]
		f.Items = append(f.Items, it)
	}
	var cases []*Case
	if err := tx.Raw(`SELECT * FROM cases WHERE order_id = ANY(?)`, ids).Scan(&cases).Error; err != nil {
		return fmt.Errorf("load cases: %w", err)
	}
	for _, c := range cases {
		d.files[*c.OrderID].Cases[c.Key] = c
	}
	return nil
}

// hear thinks about one event.
func (d *desk) hear(n News) Verdict {
	f := d.files[d.orderOf(n)]
	switch {
	case n.Trouble != nil:
		return d.trouble(f, n)
	case d.strays[n.PaymentID]:
		return Verdict{State: Ignored, Reason: "a person decided that payment " + n.PaymentID + " belongs to no order"}
	case f == nil:
		return d.park(n)
	case n.OrderRef != "" && n.OrderRef != f.ID && !f.attached(n.PaymentID):
		m := matter{
			code: OrderMismatch, about: n.Key, payment: n.PaymentID, inbox: n.inbox(),
			summary: fmt.Sprintf("Event %s names order %s, but payment %s belongs to order %s; it was not applied.", n.Key, n.OrderRef, n.PaymentID, f.ID),
			facts:   map[string]string{"recorded_order": f.ID, "named_order": n.OrderRef},
		}
		d.setAside(f, n, m)
		return Verdict{State: Quarantined, Reason: m.summary}
	}
	return f.hear(n, d)
}

// Hold sets an event in trouble aside as Hear does, but lets nothing follow for
// its order than the hold and a step of its timeline: for when the rest cannot
// be written.
func (b *Book) Hold(tx database.Tx, n News) error {
	d, err := b.lay(tx, nil, []News{n})
	if err != nil {
		return err
	}
	f := d.files[d.orderOf(n)]
	if f == nil {
		d.trouble(nil, n)
		return b.clear(tx, d)
	}
	m, was := n.doubt(), f.Status
	f.raise(m, d.now)
	f.describe()
	f.UpdatedAt = d.now
	f.note(change{kind: "event_set_aside", cause: n.cause(), note: m.summary + n.again(), inbox: &n.InboxID}, &was, d.now)
	return b.clear(tx, d)
}

// doubt is the case of an event in trouble.
func (n News) doubt() matter {
	return matter{
		code: n.Trouble.Code, about: n.Key, payment: n.PaymentID, inbox: n.inbox(),
		summary: fmt.Sprintf("An authentic event could not be applied: %s.", n.Trouble.Reason),
	}
}

// trouble sets an event aside that cannot be believed.
func (d *desk) trouble(f *File, n News) Verdict {
	m := n.doubt()
	if f == nil {
		c := m.row(n.OrderRef, d.now)
		d.loose[c.Key] = c
	} else {
		d.setAside(f, n, m)
	}
	return Verdict{State: Quarantined, Reason: n.Trouble.Reason}
}

// setAside opens a case on an order and lets the hold show.
func (d *desk) setAside(f *File, n News, m matter) {
	f.raise(m, d.now)
	f.settle(change{kind: "event_set_aside", cause: n.cause(), note: m.summary + n.again(), inbox: n.inbox()}, d)
}

// clear writes everything the files call for, one statement per table.
func (b *Book) clear(tx database.Tx, d *desk) error {
	var s sheet
	for _, id := range slices.Sorted(maps.Keys(d.files)) {
		s.add(d.files[id])
	}
	for _, c := range d.loose {
		s.cases = append(s.cases, c)
	}
	// Letters first: the timeline tells which of them will be sent.
	if err := b.outbox.Withdraw(tx, s.outgrown); err != nil {
		return err
	}
	posted, err := b.outbox.Post(tx, s.letters)
	if err != nil {
		return err
	}
	credit(s.steps, posted)
	if err := s.save(tx); err != nil {
		return err
	}
	if err := d.shelf.Save(tx); err != nil {
		return err
	}
	b.ringFulfilment(tx, s.requests)
	return nil
}

// sheet gathers the rows of a batch by table.
type sheet struct {
	orders       []Order
	payments     []*Payment
	cases        []*Case
	steps        []Step
	requests     []ShipmentRequest
	requestLines []shippedLine
	shipments    []Shipment
	shipLines    []shippedLine
	givenUp      []shippedLine
	refunds      []*Refund
	relabelled   []Shipment
	returns      []Return
	returnLines  []returnedLine
	inquiries    []Inquiry
	recalled     []string
	letters      []notify.Letter
	outgrown     []notify.Withdrawal
}

func (s *sheet) add(f *File) {
	if len(f.steps) == 0 {
		return // every change is a step
	}
	if !f.fresh {
		s.orders = append(s.orders, f.Order)
	}
	s.steps = append(s.steps, f.steps...)
	s.letters = append(s.letters, f.letters...)
	s.requests = append(s.requests, f.requests...)
	s.shipments = append(s.shipments, f.shipments...)
	s.refunds = append(s.refunds, f.refunds...)
	s.relabelled = append(s.relabelled, f.relabelled...)
	s.returns = append(s.returns, f.returns...)
	s.inquiries = append(s.inquiries, f.inquiries...)
	for _, p := range f.heard {
		s.payments = append(s.payments, p)
	}
	for _, c := range f.cases {
		s.cases = append(s.cases, c)
	}
	if len(f.outgrown) > 0 {
		s.outgrown = append(s.outgrown, notify.Withdrawal{OrderID: f.ID, Kinds: f.outgrown})
	}
	if f.recall {
		s.recalled = append(s.recalled, f.ID)
	}
	asked, shipped, back := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	for _, r := range f.returns {
		back[r.ID] = true
	}
	for _, r := range f.requests {
		asked[r.ID] = true
	}
	for _, sh := range f.shipments {
		shipped[sh.ID] = true
	}
	for _, it := range f.Items {
		if it.RequestID != nil && asked[*it.RequestID] {
			s.requestLines = append(s.requestLines, shippedLine{OrderID: f.ID, Line: it.Line, RequestID: *it.RequestID})
		}
		if it.ShipmentID != nil && shipped[*it.ShipmentID] {
			s.shipLines = append(s.shipLines, shippedLine{OrderID: f.ID, Line: it.Line, ShipmentID: *it.ShipmentID})
		}
		if it.ReturnID != nil && back[*it.ReturnID] {
			s.returnLines = append(s.returnLines, returnedLine{OrderID: f.ID, Line: it.Line, ReturnID: *it.ReturnID})
		}
		if slices.Contains(f.givenUp, it.Line) {
			s.givenUp = append(s.givenUp, shippedLine{OrderID: f.ID, Line: it.Line})
		}
	}
}

const orderColumns = `status, payment_status, fulfillment_status, accepted, given_up, returned, got, refund_due, payment_id, tx_hash, pay_address, destination_tag,
	stock, reservation, timeline_length, deadline, grace, reopenings, updated_at, paid_at, fulfilled_at, cancelled_at`

// save writes the sheet, parents before children.
func (s *sheet) save(tx database.Tx) error {
	slices.SortFunc(s.payments, func(p, q *Payment) int { return strings.Compare(p.ID, q.ID) })
	slices.SortFunc(s.cases, func(c, d *Case) int { return strings.Compare(c.Key, d.Key) })
	for _, write := range []struct {
		table string
		do    func() error
	}{
		{"payments", func() error { return savePayments(tx, s.payments) }},
		{"orders", func() error { return database.Update(tx, "orders", orderColumns, s.orders) }},
		{"timeline", func() error {
			return database.Insert(tx, "timeline", `order_id, seq, at, kind, cause, was, became, note, inbox_id, details`, s.steps)
		}},
		{"cases", func() error { return saveCases(tx, s.cases) }},
		{"shipment_requests", func() error { return s.saveRequests(tx) }},
		{"shipments", func() error { return s.saveShipments(tx) }},
		{"returns", func() error { return s.saveReturns(tx) }},
		{"refunds", func() error { return saveRefunds(tx, s.refunds) }},
		{"inquiries", func() error { return saveInquiries(tx, s.inquiries) }},
		{"order_items", func() error { return s.saveGivenUp(tx) }},
	} {
		if err := write.do(); err != nil {
			return fmt.Errorf("save %s: %w", write.table, err)
		}
	}
	return nil
}

// savePayments inserts or updates payments. When another transaction linked
// one of them to another order first, or counted one of the transactions, the
// caller starts over and sees it.
func savePayments(tx database.Tx, payments []*Payment) error {
	err := database.Upsert(tx, "payments",
		`id, order_id, created_seen, pending_seen, failed_seen, expired_seen, completed_seen, amount, currency, tx_hash,
		pay_address, destination_tag, attached_by, counted, refunded, kept, outlived, first_seen_at, completed_at`, payments,
		`ON CONFLICT (id) DO UPDATE SET created_seen = excluded.created_seen, pending_seen = excluded.pending_seen,
		failed_seen = excluded.failed_seen, expired_seen = excluded.expired_seen, completed_seen = excluded.completed_seen,
		amount = excluded.amount, currency = excluded.currency, tx_hash = excluded.tx_hash, pay_address = excluded.pay_address,
		destination_tag = excluded.destination_tag, attached_by = excluded.attached_by, counted = excluded.counted,
		refunded = excluded.refunded, kept = excluded.kept, outlived = excluded.outlived, completed_at = excluded.completed_at
		WHERE payments.order_id = excluded.order_id`)
	if database.Violates(err, "a_transaction_counts_once") {
		return fmt.Errorf("%w: %w", database.ErrAgain, err)
	}
	return err
}

const caseColumns = `id, code, key, severity, blocks, state, order_id, payment_id, inbox_id, summary, facts,
	opened_at, closed_at, closed_by, resolution`

func saveCases(tx database.Tx, cases []*Case) error {
	return database.InsertOr(tx, "cases", caseColumns, cases, `ON CONFLICT (key) DO UPDATE SET state = excluded.state, blocks = excluded.blocks, order_id = excluded.order_id, summary = excluded.summary,
		facts = excluded.facts, closed_at = excluded.closed_at, closed_by = excluded.closed_by, resolution = excluded.resolution`)
}

func (s *sheet) saveRequests(tx database.Tx) error {
	if len(s.recalled) > 0 {
		err := tx.Exec(`UPDATE shipment_requests SET state = ? WHERE order_id = ANY(?) AND state IN (?, ?)`,
			requestWithdrawn, database.Array(s.recalled), requestQueued, requestHandedOver).Error
		if err != nil {
			return err
		}
		err = tx.Exec(`DELETE FROM shipment_request_lines WHERE order_id = ANY(?)`, database.Array(s.recalled)).Error
		if err != nil { // else an order that is reopened could not ask for them again
			return err
		}
	}
	err := database.Insert(tx, "shipment_requests", `id, order_id, provider, state, attempts, not_before, rung_at, last_error, created_at`, s.requests)
	if err != nil {
		return err
	}
	return database.Insert(tx, "shipment_request_lines", `order_id, line, request_id`, s.requestLines)
}

func (s *sheet) saveGivenUp(tx database.Tx) error {
	if len(s.givenUp) == 0 {
		return nil
	}
	_, err := tx.ExecRows(`UPDATE order_items i SET given_up = true
		FROM json_to_recordset(@rows) AS g(order_id text, line integer) WHERE i.order_id = g.order_id AND i.line = g.line`, s.givenUp)
	return err
}

func (s *sheet) saveShipments(tx database.Tx) error {
	if err := database.Insert(tx, "shipments", `id, order_id, carrier, tracking_number, shipped_at, shipped_by`, s.shipments); err != nil {
		return err
	}
	if err := database.Update(tx, "shipments", `carrier, tracking_number, delivered_at, delivered_by`, s.relabelled); err != nil {
		return err
	}
	return database.Insert(tx, "shipment_lines", `order_id, line, shipment_id`, s.shipLines)
}

func (s *sheet) saveReturns(tx database.Tx) error {
	if err := database.Insert(tx, "returns", `id, order_id, restocked, refund, reason, returned_at, returned_by`, s.returns); err != nil {
		return err
	}
	return database.Insert(tx, "return_lines", `order_id, line, return_id`, s.returnLines)
}
