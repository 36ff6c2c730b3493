package webhooks

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/orders"
)

const (
	queueDepth = 1024 // requests that may wait for a writer; beyond it 503
	maxInsert  = 256  // rows of one insert
	maxPerJob  = 64   // inbox rows that one job names
	keepPerTx  = 1500 * time.Millisecond
	stateReady = "received"
	stateDead  = "dead"
	stateStale = "refused"
)

var batchRows = promauto.NewHistogram(prometheus.HistogramOpts{
	Name: "quayside_intake_batch_rows", Help: "Webhook deliveries stored by one commit.",
	Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256},
})

// delivery is one authentic request on its way into the inbox.
type delivery struct {
	*Event
	body  []byte
	label string // of the secret that signed it
	stale string // why its timestamp is refused, or ""
	done  chan outcome
	id    uuid.UUID
}

type outcome struct {
	answer answer
	err    error
}

// intakeQueue is where requests wait for a writer. Writers take whatever
// queued while their last commit was in flight, so that requests under load
// share commits and a single one waits for nobody.
type intakeQueue struct {
	mu      sync.RWMutex // guards closed against a late offer
	closed  bool
	queued  chan *delivery
	writers sync.WaitGroup
}

// Start begins to take requests in. Stop it with Close.
func (in *Inbox) Start() {
	in.queued = make(chan *delivery, queueDepth)
	for range in.opts.Writers {
		in.writers.Go(in.write)
	}
}

// Close stores what waits and stops the writers.
func (in *Inbox) Close() {
	in.mu.Lock()
	if in.queued != nil && !in.closed {
		close(in.queued)
	}
	in.closed = true
	in.mu.Unlock()
	in.writers.Wait()
}

func (q *intakeQueue) full() bool { return len(q.queued) == cap(q.queued) }

func (q *intakeQueue) offer(d *delivery) bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return false
	}
	select {
	case q.queued <- d:
		return true
	default:
		return false
	}
}

func (in *Inbox) write() {
	batch := make([]*delivery, 0, maxInsert)
	for d := range in.queued {
		batch = append(batch[:0], d)
	fill:
		for len(batch) < maxInsert {
			select {
			case d, open := <-in.queued:
				if !open {
					break fill
				}
				batch = append(batch, d)
			default:
				break fill
			}
		}
		batchRows.Observe(float64(len(batch)))
		in.store(batch)
	}
}

// store commits a batch and answers every waiter. New events in time, nearly
// all, take one statement; the rest are compared with what is stored.
func (in *Inbox) store(batch []*delivery) {
	ctx, cancel := context.WithTimeout(context.Background(), keepPerTx)
	defer cancel()
	slices.SortStableFunc(batch, func(a, b *delivery) int { return strings.Compare(a.Key, b.Key) }) // writers never deadlock
	var fresh, rest []*delivery
	for i, d := range batch {
		if d.stale != "" || (i > 0 && batch[i-1].Key == d.Key) { //nolint:gosec // i > 0
			rest = append(rest, d)
			continue
		}
		fresh = append(fresh, d)
	}
	rest = append(rest, in.insertEach(ctx, fresh)...)
	for len(rest) > 0 {
		slices.SortStableFunc(rest, func(a, b *delivery) int { return strings.Compare(a.Key, b.Key) })
		rest = in.compareEach(ctx, rest)
	}
}

// insertEach stores new events and returns those whose key was there before.
// When the database refuses the batch for its data, each row is tried alone,
// so that a bad one harms no other.
func (in *Inbox) insertEach(ctx context.Context, fresh []*delivery) (known []*delivery) {
	if len(fresh) == 0 {
		return nil
	}
	known, err := in.insert(ctx, fresh)
	if err != nil && len(fresh) > 1 && fault.KindOf(err) != fault.Unavailable {
		for _, d := range fresh {
			known = append(known, in.insertEach(ctx, []*delivery{d})...)
		}
		return known
	}
	if err != nil {
		fail(fresh, err)
		return nil
	}
	return known
}

func fail(ds []*delivery, err error) {
	for _, d := range ds {
		d.done <- outcome{notStored, err}
	}
}

// insert stores rows in state received, rings for them and answers OK.
func (in *Inbox) insert(ctx context.Context, rows []*delivery) (known []*delivery, err error) {
	c := columnsOf(rows)
	keys, err := database.Column[string](ctx, in.intake, `WITH new AS (
		INSERT INTO inbox (id, key, event_id, type, payment_id, order_ref, body, digest, meaning, secret_label, amount, currency, tx_hash, received_at, last_seen_at)
		SELECT id, key, NULLIF(event_id, ''), NULLIF(type, ''), NULLIF(payment_id, ''), NULLIF(order_ref, ''), body, digest, meaning, label,
			NULLIF(amount, '')::numeric, NULLIF(currency, ''), NULLIF(tx_hash, ''), now(), now()
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[], $9::bytea[], $10::text[],
			$11::text[], $12::text[], $13::text[])
			AS u(id, key, event_id, type, payment_id, order_ref, body, digest, meaning, label, amount, currency, tx_hash)
		ON CONFLICT (key) DO NOTHING RETURNING id, key
	), open AS (
		INSERT INTO inbox_open (inbox_id, state, not_before, rung_at) SELECT id, 'received', now(), now() FROM new
	) SELECT key FROM new`,
		c.ids, c.keys, c.eventIDs, c.types, c.payments, c.orders, c.bodies, c.digests, c.meanings, c.labels,
		c.amounts, c.currencies, c.hashes)
	if err != nil {
		return nil, err
	}
	took := make(map[string]bool, len(keys))
	for _, k := range keys {
		took[k] = true
	}
	var ids []uuid.UUID
	for _, d := range rows {
		if !took[d.Key] {
			known = append(known, d)
			continue
		}
		ids = append(ids, d.id)
		d.done <- outcome{answer: stored}
	}
	in.ring(ids)
	return known, nil
}

type columns struct {
	ids                                             []uuid.UUID
	keys, eventIDs, types, payments, orders, labels []string
	amounts, currencies, hashes                     []string // of completed events, else empty
	bodies, digests, meanings                       [][]byte
}

func columnsOf(rows []*delivery) *columns {
	c := &columns{}
	for _, d := range rows {
		d.id = uuid.Must(uuid.NewV7())
		c.ids = append(c.ids, d.id)
		c.keys = append(c.keys, d.Key)
		c.eventIDs = append(c.eventIDs, d.ID)
		c.types = append(c.types, d.Type)
		c.payments = append(c.payments, d.PaymentID)
		c.orders = append(c.orders, d.OrderRef)
		c.bodies = append(c.bodies, d.body)
		c.digests = append(c.digests, d.Digest[:])
		c.meanings = append(c.meanings, d.Meaning)
		c.labels = append(c.labels, d.label)
		amount, currency, hash := d.money()
		c.amounts, c.currencies, c.hashes = append(c.amounts, amount), append(c.currencies, currency), append(c.hashes, hash)
	}
	return c
}

// money is what a readable completed event says was paid, empty for others.
// The report counts it until the event is in the books.
func (e *Event) money() (amount, currency, txHash string) {
	if e.Unreadable != "" || !e.Amount.Valid || e.Test() || e.Type != string(orders.PaymentCompletedEvent) {
		return "", "", ""
	}
	return e.Amount.Decimal.String(), e.Currency, e.TxHash
}

func (in *Inbox) ring(ids []uuid.UUID) {
	for part := range slices.Chunk(ids, maxPerJob) {
		in.bell.Ring(applyJob.With(applyArgs{InboxIDs: part}))
	}
}

// compareEach settles deliveries whose key is, or may be, stored: one of each
// key at a time. It returns those still to do.
func (in *Inbox) compareEach(ctx context.Context, rest []*delivery) (later []*delivery) {
	var now []*delivery
	for i, d := range rest {
		if i > 0 && rest[i-1].Key == d.Key && !bytes.Equal(rest[i-1].Digest[:], d.Digest[:]) {
			later = append(later, d) // other bytes than its neighbour: look again after it
			continue
		}
		now = append(now, d)
	}
	err := in.compare(ctx, now)
	if err != nil && len(now) > 1 && fault.KindOf(err) != fault.Unavailable {
		for _, d := range now {
			if err := in.compare(ctx, []*delivery{d}); err != nil {
				fail([]*delivery{d}, err)
			}
		}
	} else if err != nil {
		fail(now, err)
	}
	return later
}

// standing is a stored event as a later delivery finds it.
type standing struct {
	ID      uuid.UUID
	Key     string
	Digest  []byte
	Meaning []byte
	State   *string // in inbox_open; nil once settled
}

// compare counts deliveries of stored events, keeps contradictions beside
// them, stores refused ones and releases those that now came in time. ds is
// sorted by key; deliveries of one key have the same bytes.
func (in *Inbox) compare(ctx context.Context, ds []*delivery) error {
	var answers []outcome
	var ready []uuid.UUID
	err := in.intake.InTx(ctx, func(tx database.Tx) error {
		answers, ready = make([]outcome, len(ds)), nil
		rows, err := lockStanding(tx, ds)
		if err != nil {
			return err
		}
		c := comparison{tx: tx, book: in.book, rows: rows, counts: map[uuid.UUID]int{}}
		for i, d := range ds {
			answers[i].answer = c.judge(d)
		}
		ready = c.ready
		return c.save()
	})
	if err != nil {
		return err
	}
	for i, d := range ds {
		d.done <- answers[i]
	}
	in.ring(ready)
	return nil
}

func lockStanding(tx database.Tx, ds []*delivery) (map[string]*standing, error) {
	var keys []string
	for _, d := range ds {
		keys = append(keys, d.Key, d.contradictionKey())
	}
	var rows []*standing
	err := tx.Raw(`SELECT id, key, digest, meaning FROM inbox WHERE key = ANY(?) ORDER BY key FOR UPDATE`, database.Array(keys)).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("lock stored events: %w", err)
	}
	byKey, byID := make(map[string]*standing, len(rows)), make(map[uuid.UUID]*standing, len(rows))
	var ids []uuid.UUID
	for _, r := range rows {
		byKey[r.Key], byID[r.ID] = r, r
		ids = append(ids, r.ID)
	}
	// A statement of its own: joined above, it would show the states from before the wait for the lock.
	var open []openRow
	err = tx.Raw(`SELECT inbox_id, state FROM inbox_open WHERE inbox_id = ANY(?)`, database.Array(ids)).Scan(&open).Error
	if err != nil {
		return nil, fmt.Errorf("look up states of stored events: %w", err)
	}
	for _, o := range open {
		byID[o.InboxID].State = &o.State
	}
	return byKey, nil
}

// comparison gathers what a batch of repeated deliveries writes.
type comparison struct {
	tx        database.Tx
	book      *orders.Book
	rows      map[string]*standing // what is stored, by key
	counts    map[uuid.UUID]int    // deliveries to add
	spellings []spelling
	inserts   []*inboxRow
	opens     []openRow
	revived   []uuid.UUID // dead or refused rows that go back to received
	alarms    []orders.Alarm
	quiet     []string // keys of cases that settle themselves
	ready     []uuid.UUID
}

type spelling struct {
	InboxID     uuid.UUID `json:"inbox_id"`
	Digest      string    `json:"digest"` // \x hex, as Postgres reads bytea
	FirstSeenAt time.Time `json:"first_seen_at"`
}

type inboxRow struct {
	ID          uuid.UUID  `json:"id"`
	Key         string     `json:"key"`
	EventID     *string    `json:"event_id"`
	Type        *string    `json:"type"`
	PaymentID   *string    `json:"payment_id"`
	OrderRef    *string    `json:"order_ref"`
	Body        string     `json:"body"`
	Digest      string     `json:"digest"`
	Meaning     *string    `json:"meaning"`
	Contradicts *uuid.UUID `json:"contradicts"`
	SecretLabel string     `json:"secret_label"`
	Amount      *string    `json:"amount"`
	Currency    *string    `json:"currency"`
	TxHash      *string    `json:"tx_hash"`
	ReceivedAt  time.Time  `json:"received_at"`
	Deliveries  int        `json:"deliveries"`
	LastSeenAt  time.Time  `json:"last_seen_at"`
}

type openRow struct {
	InboxID   uuid.UUID `json:"inbox_id"`
	State     string    `json:"state"`
	Attempts  int       `json:"attempts"`
	NotBefore time.Time `json:"not_before"`
	RungAt    time.Time `json:"rung_at"`
	Reason    string    `json:"reason"`
}

// judge decides about one delivery, given what is stored under its key.
func (c *comparison) judge(d *delivery) answer {
	r := c.rows[d.Key]
	if r == nil { // refused, or in time beside one whose insert failed
		return c.first(d)
	}
	switch same := bytes.Equal(r.Digest, d.Digest[:]) || (r.Meaning != nil && bytes.Equal(r.Meaning, d.Meaning)); {
	case !same:
		return c.contradict(r, d)
	case r.is(stateStale) && d.stale != "":
		c.count(r, d)
		return tooOld
	case r.is(stateStale):
		c.count(r, d)
		c.revive(r)
		c.quiet = append(c.quiet, staleAlarm(d, r.ID).Key())
		return released
	}
	c.count(r, d)
	if r.is(stateDead) {
		c.revive(r)
	}
	return duplicate
}

// first keeps a delivery whose event is not stored yet.
func (c *comparison) first(d *delivery) answer {
	a, state := stored, stateReady
	if d.stale != "" {
		a, state = tooOld, stateStale
	}
	id := c.insert(d, d.Key, nil, state)
	c.rows[d.Key] = &standing{ID: id, Key: d.Key, Digest: d.Digest[:], Meaning: d.Meaning, State: &state}
	if a == stored {
		c.ready = append(c.ready, id)
	} else {
		c.alarms = append(c.alarms, staleAlarm(d, id))
	}
	return a
}

func (s *standing) is(state string) bool { return s.State != nil && *s.State == state }

func (c *comparison) count(r *standing, d *delivery) {
	c.counts[r.ID]++
	if !bytes.Equal(r.Digest, d.Digest[:]) {
		c.spellings = append(c.spellings, spelling{r.ID, byteaOf(d.Digest[:]), c.tx.Now})
	}
}

func (c *comparison) revive(r *standing) {
	c.revived, c.ready = append(c.revived, r.ID), append(c.ready, r.ID)
	state := stateReady
	r.State = &state
}

// contradict keeps a body that says something else under a known id. A worker
// opens the case, so that the order is held under its own lock.
func (c *comparison) contradict(r *standing, d *delivery) answer {
	key := d.contradictionKey()
	if known := c.rows[key]; known != nil {
		c.counts[known.ID]++
		return conflict
	}
	id := c.insert(d, key, &r.ID, stateReady)
	c.rows[key] = &standing{ID: id, Key: key, Digest: d.Digest[:], Meaning: d.Meaning}
	c.ready = append(c.ready, id)
	return conflict
}

// contradictionKey tells apart bodies under one id; # is in no sender's id.
func (d *delivery) contradictionKey() string { return d.Key + "#" + hex.EncodeToString(d.Digest[:16]) }

func (c *comparison) insert(d *delivery, key string, contradicts *uuid.UUID, state string) uuid.UUID {
	row := &inboxRow{
		ID: uuid.Must(uuid.NewV7()), Key: key, EventID: some(d.ID), Type: some(d.Type), PaymentID: some(d.PaymentID), OrderRef: some(d.OrderRef),
		Body: byteaOf(d.body), Digest: byteaOf(d.Digest[:]), Contradicts: contradicts, SecretLabel: d.label,
		ReceivedAt: c.tx.Now, Deliveries: 1, LastSeenAt: c.tx.Now,
	}
	if d.Meaning != nil {
		m := byteaOf(d.Meaning)
		row.Meaning = &m
	}
	amount, currency, hash := d.money()
	row.Amount, row.Currency, row.TxHash = some(amount), some(currency), some(hash)
	c.inserts = append(c.inserts, row)
	c.opens = append(c.opens, openRow{InboxID: row.ID, State: state, NotBefore: c.tx.Now, RungAt: c.tx.Now, Reason: d.stale})
	return row.ID
}

func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func byteaOf(b []byte) string { return `\x` + hex.EncodeToString(b) }

func staleAlarm(d *delivery, id uuid.UUID) orders.Alarm {
	return orders.Alarm{
		Code: orders.StaleEvent, About: d.Key, PaymentID: d.PaymentID, OrderID: d.OrderRef, InboxID: id,
		Summary: "An authentic event was refused (" + d.stale + "); if PayQI does not send it again in time, release it.",
	}
}

// save writes what was decided: a statement per table, few rows each.
func (c *comparison) save() error {
	if err := c.saveInserts(); err != nil {
		return err
	}
	err := database.Insert(c.tx, "inbox_open", `inbox_id, state, attempts, not_before, rung_at, reason`, c.opens)
	if err != nil {
		return fmt.Errorf("keep events open: %w", err)
	}
	err = database.InsertOr(c.tx, "inbox_spellings", `inbox_id, digest, first_seen_at`, c.spellings, `ON CONFLICT DO NOTHING`)
	if err != nil {
		return fmt.Errorf("keep spellings: %w", err)
	}
	var counts []deliveries
	for id, n := range c.counts {
		counts = append(counts, deliveries{id, n})
	}
	if len(counts) > 0 {
		_, err = c.tx.ExecRows(`UPDATE inbox i SET deliveries = i.deliveries + c.n, last_seen_at = @now
			FROM json_to_recordset(@rows) AS c(id uuid, n integer) WHERE i.id = c.id`, counts)
		if err != nil {
			return fmt.Errorf("count deliveries: %w", err)
		}
	}
	if len(c.revived) > 0 {
		err := c.tx.Exec(`UPDATE inbox_open SET state = 'received', attempts = 0, not_before = ?, rung_at = ?, reason = ''
			WHERE inbox_id = ANY(?) AND state IN ('dead', 'refused')`,
			c.tx.Now, c.tx.Now, database.Array(c.revived)).Error
		if err != nil {
			return fmt.Errorf("queue events again: %w", err)
		}
	}
	return errors.Join(c.book.Raise(c.tx, c.alarms), c.book.Quiet(c.tx, c.quiet))
}

func (c *comparison) saveInserts() error {
	if len(c.inserts) == 0 {
		return nil
	}
	n, err := database.InsertCount(c.tx, "inbox",
		`id, key, event_id, type, payment_id, order_ref, body, digest, meaning, contradicts, secret_label, amount, currency, tx_hash, received_at, deliveries, last_seen_at`,
		c.inserts, `ON CONFLICT (key) DO NOTHING`)
	if err != nil {
		return fmt.Errorf("keep events: %w", err)
	}
	if int(n) != len(c.inserts) { // another writer was faster: look again
		return database.ErrAgain
	}
	return nil
}

type deliveries struct {
	ID uuid.UUID `json:"id"`
	N  int       `json:"n"`
}
