//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"
)

// findings are what the audit found, each a line of the report.
type findings struct {
	sent, acked, refused, unknown, unanswered  int
	stored, applied, ignored, parked, setAside int
	duplicates                                 int // deliveries of what was there already
	stories, kinds                             int
	lost, doubled, differences, other          []string
	letters, lettersTaken, lettersTwice        int
	ambiguous, lettersInHand                   int
	latency                                    map[bool][]float64 // by whether a fault was on
}

// account is the journal, put in order by story.
type account struct {
	orders map[int]map[string]told // of each story
	facts  map[int][]fact          // accepted, of each story
}

// audit compares the journal, the oracle, the mail server and the database,
// when all has come to rest.
func (r *run) audit(ctx context.Context) (f findings, err error) {
	entries, err := readJournal(r.path("journal.jsonl"))
	if err != nil {
		return f, err
	}
	if err := r.world.loadJournal(ctx, entries); err != nil {
		return f, fmt.Errorf("load the journal: %w", err)
	}
	f.count(entries, r.windows())
	acc, err := r.world.accountOf(ctx, entries)
	if err != nil {
		return f, err
	}
	for _, step := range []func(context.Context, *account, *findings) error{r.lostAndDoubled, r.compareOrders, r.compareEvents, r.compareStock, r.compareLetters, r.atRest} {
		if err := step(ctx, acc, &f); err != nil {
			return f, err
		}
	}
	return f, nil
}

// count goes over the answers.
func (f *findings) count(entries []entry, faulted [][2]time.Time) {
	f.latency = map[bool][]float64{}
	open, stories, kinds := map[int64]bool{}, map[int]bool{}, map[string]bool{}
	lies, wishes, granted := map[int64]lie{}, map[int64]string{}, map[string]outcome{}
	for _, e := range entries {
		stories[e.Story] = true
		if e.Kind != "" {
			kinds[e.Kind] = true
		}
		if e.Act != actTell {
			f.countWish(e, wishes, granted)
			continue
		}
		if e.Outcome == "" {
			open[e.N], lies[e.N] = true, e.Lie
			f.sent++
			continue
		}
		during := slices.ContainsFunc(faulted, func(w [2]time.Time) bool { return !e.At.Before(w[0]) && !e.At.After(w[1]) })
		f.latency[during] = append(f.latency[during], e.Millis)
		switch e.Outcome {
		case ok:
			f.acked++
			if e.Text == "Already processed" {
				f.duplicates++
			}
		case refused:
			f.refused++
		case unknown:
			f.unknown++
		}
		if e.Outcome == unknown {
			continue
		}
		delete(open, e.N)
		if l := lies[e.N]; (e.Outcome == ok) == (l.deaf() || l == stale) {
			f.other = append(f.other, fmt.Sprintf("a request that is %q was answered %d %s", l, e.Status, e.Text))
		}
	}
	f.unanswered, f.stories, f.kinds = len(open), len(stories), len(kinds)
}

// countWish sees that the shop gets one answer to a request, however often it
// asks: each has a key.
func (f *findings) countWish(e entry, wishes map[int64]string, granted map[string]outcome) {
	if e.Outcome == "" {
		wishes[e.N] = e.Act + " " + e.Order
		return
	}
	wish := wishes[e.N]
	if before, asked := granted[wish]; asked && e.Outcome != unknown && before != e.Outcome {
		f.other = append(f.other, fmt.Sprintf("the shop asked twice to %s, and was answered %s and %s", wish, before, e.Outcome))
	}
	if e.Outcome != unknown {
		granted[wish] = e.Outcome
	}
}

// loadJournal puts every event of the journal beside the tables of the program.
func (w *world) loadJournal(ctx context.Context, entries []entry) error {
	_, err := w.pool.Exec(ctx, `CREATE TABLE torture.journal (n bigint PRIMARY KEY, key text, digest bytea, lie text, outcome text)`)
	if err != nil {
		return err
	}
	byN := map[int64]entry{}
	for _, e := range entries {
		if e.Act != actTell {
			continue
		}
		was, known := byN[e.N]
		if !known {
			was = e
		}
		if e.Outcome != "" {
			was.Outcome = e.Outcome
		}
		byN[e.N] = was
	}
	ns := slices.Sorted(maps.Keys(byN))
	_, err = w.pool.CopyFrom(ctx, pgx.Identifier{"torture", "journal"}, []string{"n", "key", "digest", "lie", "outcome"}, pgx.CopyFromSlice(len(ns), func(i int) ([]any, error) {
		e := byN[ns[i]]
		sum := sha256.Sum256(e.Body)
		return []any{e.N, e.Key, sum[:], string(e.Lie), string(e.Outcome)}, nil
	}))
	if err == nil {
		_, err = w.pool.Exec(ctx, `CREATE INDEX ON torture.journal (digest); ANALYZE torture.journal`)
	}
	return err
}

// accountOf folds the journal into what was opened, cancelled, shipped and accepted.
func (w *world) accountOf(ctx context.Context, entries []entry) (*account, error) {
	type born struct {
		ID        string
		CreatedAt time.Time
	}
	births, err := rows[born](ctx, w, `SELECT id, created_at FROM orders`)
	if err != nil {
		return nil, err
	}
	at := map[string]time.Time{}
	for _, b := range births {
		at[b.ID] = b.CreatedAt
	}
	acc := &account{orders: map[int]map[string]told{}, facts: map[int][]fact{}}
	asked, seen := map[int64]entry{}, map[string]bool{}
	for _, e := range entries {
		if e.Outcome == "" {
			asked[e.N] = e
			continue
		}
		q := asked[e.N]
		switch {
		case e.Outcome != ok:
		case e.Act == actTell:
			if id := q.Key + string(q.Body); !seen[id] && q.Lie != respelled {
				seen[id] = true
				acc.facts[q.Story] = append(acc.facts[q.Story], factOf(q.Key, q.Lie, q.Body))
			}
		default:
			if err := acc.admin(q, at); err != nil {
				return nil, err
			}
		}
	}
	return acc, nil
}

// admin notes what the shop did with an order.
func (acc *account) admin(q entry, births map[string]time.Time) error {
	if acc.orders[q.Story] == nil {
		acc.orders[q.Story] = map[string]told{}
	}
	o := acc.orders[q.Story][q.Order]
	switch q.Act {
	case actCancel:
		o.cancelled = true
	case actShip:
		o.shipped = true
	case actOpen:
		var body struct {
			Currency string
			Items    []struct {
				SKU      string
				Quantity int64
				Price    decimal.Decimal `json:"unit_price"`
			}
			ExpiresIn int64 `json:"expires_in"`
		}
		if err := json.Unmarshal(q.Body, &body); err != nil {
			return err
		}
		o = told{id: q.Order, currency: body.Currency, goods: map[string]int64{}}
		o.deadline = births[q.Order].Add(24 * time.Hour)
		if body.ExpiresIn > 0 {
			o.deadline = births[q.Order].Add(time.Duration(body.ExpiresIn) * time.Second)
		}
		for _, it := range body.Items {
			o.goods[it.SKU] += it.Quantity
			o.total = o.total.Add(it.Price.Mul(decimal.NewFromInt(it.Quantity)))
		}
	}
	acc.orders[q.Story][q.Order] = o
	return nil
}

// texts reads a column of text.
func texts(ctx context.Context, w *world, query string, args ...any) ([]string, error) {
	r, err := w.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(r, pgx.RowTo[string])
}

// lostAndDoubled joins the journal with the tables, both ways.
func (r *run) lostAndDoubled(ctx context.Context, _ *account, f *findings) error {
	for _, q := range []struct {
		into  *[]string
		what  string
		query string
	}{
		{&f.lost, "acknowledged and nowhere to be found", `SELECT DISTINCT j.key FROM torture.journal j WHERE j.outcome = 'ok'
			AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.digest = j.digest) AND NOT EXISTS (SELECT 1 FROM inbox_spellings s WHERE s.digest = j.digest)`},
		{&f.lost, "an order was opened and is nowhere to be found", `SELECT o FROM unnest($1::text[]) o WHERE NOT EXISTS (SELECT 1 FROM orders WHERE id = o)`},
		{&f.other, "an order is there, though the shop was told that it was not opened", `SELECT id FROM orders WHERE id <> ALL ($1::text[])`},
		{&f.doubled, "stored twice", `SELECT event_id FROM inbox WHERE contradicts IS NULL AND event_id IS NOT NULL AND key NOT LIKE 'sha256:%' GROUP BY 1 HAVING count(*) > 1`},
		{&f.doubled, "stored twice, body by body", `SELECT encode(digest, 'hex') FROM inbox GROUP BY 1 HAVING count(*) > 1`},
		{&f.doubled, "applied twice", `SELECT inbox_id::text FROM timeline WHERE inbox_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1`},
		{&f.doubled, "left the warehouse twice", `SELECT order_id || ' ' || sku FROM stock_movements WHERE kind IN ('commit','return') GROUP BY order_id, sku HAVING sum(-on_hand_delta) > (
			SELECT sum(quantity) FROM order_items i WHERE i.order_id = stock_movements.order_id AND i.sku = stock_movements.sku)`},
		{&f.doubled, "a letter was written twice", `SELECT order_id || ' ' || kind FROM letters WHERE kind IN ('payment_confirmed','goods_gone','order_cancelled') GROUP BY 1, order_id, kind HAVING count(*) > 1`},
		{&f.other, "stored, though nobody has sent it", `SELECT i.key FROM inbox i WHERE NOT EXISTS (SELECT 1 FROM torture.journal j WHERE j.digest = i.digest)`},
		{&f.other, "stored, though PayQI had not signed it", `SELECT i.key FROM inbox i WHERE NOT EXISTS (
			SELECT 1 FROM torture.journal j WHERE j.digest = i.digest AND j.lie NOT IN ('forged','unsigned','prefixed'))`},
	} {
		var args []any
		if strings.Contains(q.query, "$1") {
			args = append(args, r.openedOrders())
		}
		found, err := texts(ctx, r.world, q.query, args...)
		if err != nil {
			return fmt.Errorf("%s: %w", q.what, err)
		}
		for _, key := range found {
			*q.into = append(*q.into, q.what+": "+key)
		}
	}
	return nil
}

// stands is an order as it is in the database.
type stands struct {
	ID, Status, Payment, Got, Due, Stock, Holds string
}

// compareOrders compares every order with the oracle.
func (r *run) compareOrders(ctx context.Context, acc *account, f *findings) error {
	all, err := rows[stands](ctx, r.world, `SELECT id, status, payment_status AS payment, trim_scale(got)::text AS got, trim_scale(refund_due)::text AS due, stock,
		COALESCE((SELECT string_agg(DISTINCT code, ',' ORDER BY code) FROM cases c WHERE c.order_id = orders.id AND c.state = 'open' AND c.blocks), '') AS holds FROM orders`)
	if err != nil {
		return err
	}
	is := map[string]standing{}
	for _, s := range all {
		is[s.ID] = standing{s.Status, s.Payment, s.Got, s.Due, s.Stock, s.Holds}
	}
	now := time.Now()
	for _, number := range slices.Sorted(maps.Keys(acc.orders)) {
		right := expect(acc.orders[number], acc.facts[number], now)
		if !slices.ContainsFunc(right, func(m map[string]standing) bool { return r.fits(m, is) }) {
			for _, id := range slices.Sorted(maps.Keys(acc.orders[number])) {
				var must []string
				for _, m := range right {
					must = append(must, fmt.Sprintf("%+v", m[id]))
				}
				f.differences = append(f.differences, fmt.Sprintf("%s of story %d (%s) stands at %+v and must at %s", id, number, r.kindOf(number), is[id], strings.Join(must, " or ")))
			}
		}
	}
	return nil
}

// fits reports whether orders stand as an outcome says. Goods that are rare may
// be gone when late money comes.
func (r *run) fits(outcome, is map[string]standing) bool {
	for id, must := range outcome {
		if is[id] != must && (!r.rare(id) || is[id] != must.gone()) {
			return false
		}
	}
	return true
}

// compareEvents compares where each accepted event ended with the oracle.
func (r *run) compareEvents(ctx context.Context, acc *account, f *findings) error {
	type state struct{ Digest, State string }
	all, err := rows[state](ctx, r.world, `SELECT encode(digest, 'hex') AS digest, state FROM events`)
	if err != nil {
		return err
	}
	is := map[string]string{}
	for _, s := range all {
		is[s.Digest] = s.State
		f.stored++
		switch s.State {
		case "applied":
			f.applied++
		case "ignored":
			f.ignored++
		case "parked":
			f.parked++
		case "quarantined":
			f.setAside++
		}
	}
	for number, facts := range acc.facts {
		for _, fact := range facts {
			got, may := is[fmt.Sprintf("%x", sha256.Sum256(fact.body))], fates(fact, acc.orders[number], facts)
			if got != "" && !slices.Contains(may, got) {
				f.differences = append(f.differences, fmt.Sprintf("event %s of story %d (%s) is %s and must be %s", fact.key, number, r.kindOf(number), got, strings.Join(may, " or ")))
			}
		}
	}
	return nil
}

// compareStock adds up what orders took, from the orders alone.
func (r *run) compareStock(ctx context.Context, acc *account, f *findings) error {
	type level struct {
		SKU              string
		OnHand, Reserved int64
	}
	levels, err := rows[level](ctx, r.world, `SELECT sku, on_hand, reserved FROM products`)
	if err != nil {
		return err
	}
	type held struct{ ID, Stock string }
	orders, err := rows[held](ctx, r.world, `SELECT id, stock FROM orders`)
	if err != nil {
		return err
	}
	stock := map[string]string{}
	for _, o := range orders {
		stock[o.ID] = o.Stock
	}
	taken, kept := map[string]int64{}, map[string]int64{}
	for _, story := range acc.orders {
		for id, o := range story {
			for sku, n := range o.goods {
				switch stock[id] {
				case "committed":
					taken[sku] += n
				case "reserved":
					kept[sku] += n
				}
			}
		}
	}
	was := map[string]int64{}
	for _, g := range r.goods {
		was[g.sku] = g.stock
	}
	for _, l := range levels {
		if l.OnHand != was[l.SKU]-taken[l.SKU] || l.Reserved != kept[l.SKU] {
			f.differences = append(f.differences, fmt.Sprintf("%s has %d on hand and %d reserved; %d less %d taken are %d, and %d are kept for orders",
				l.SKU, l.OnHand, l.Reserved, was[l.SKU], taken[l.SKU], was[l.SKU]-taken[l.SKU], kept[l.SKU]))
		}
	}
	return nil
}

// resend is the soonest at which a letter of unknown fate may be sent again.
const resend = 30 * time.Minute

// compareLetters compares what the mail server took with what the program says.
func (r *run) compareLetters(ctx context.Context, _ *account, f *findings) error {
	type letter struct {
		MessageID, State string
		StartedAt        *time.Time
	}
	all, err := rows[letter](ctx, r.world, `SELECT message_id, state, started_at FROM letters`)
	if err != nil {
		return err
	}
	took := map[string][]taken{}
	for _, t := range r.world.mail.all() {
		took[t.messageID] = append(took[t.messageID], t)
		f.lettersTaken++
	}
	known := map[string]bool{}
	for _, l := range all {
		f.letters++
		known[l.MessageID] = true
		switch {
		case l.State == "sent" && took[l.MessageID] == nil:
			f.other = append(f.other, "a letter is said to be sent, and the mail server never saw it: "+l.MessageID)
		case l.State == "unknown":
			f.ambiguous++
		case l.State == "sending":
			f.lettersInHand++
			if !slices.ContainsFunc(r.windows(), func(w [2]time.Time) bool {
				return l.StartedAt.After(w[0].Add(-5*time.Second)) && l.StartedAt.Before(w[1])
			}) {
				f.other = append(f.other, "a letter is being sent by nobody, though nothing had happened: "+l.MessageID)
			}
		}
	}
	for id, times := range took {
		if !known[id] {
			f.other = append(f.other, "the mail server took a letter that is in no outbox: "+id)
		}
		if len(times) > 1 {
			f.lettersTwice++
			if len(times) > 2 || times[0].told || times[1].at.Sub(times[0].at) < resend {
				f.doubled = append(f.doubled, fmt.Sprintf("a letter was sent %d times, %s apart: %s", len(times), times[1].at.Sub(times[0].at).Round(time.Millisecond), id))
			}
		}
	}
	return nil
}

// atRest asks all rules once more, and the program itself.
func (r *run) atRest(ctx context.Context, _ *account, f *findings) error {
	found, err := broken(ctx, r.world, slices.Concat(always, eventually))
	if err != nil {
		return err
	}
	f.other = append(f.other, found...)
	if err := r.world.run(ctx, "check", "--full"); err != nil {
		f.other = append(f.other, "quayside check --full: "+err.Error())
	}
	for _, a := range r.world.actors {
		if err := a.now().own(); err != nil {
			f.other = append(f.other, err.Error())
		}
		if err := r.readLog(a, f); err != nil {
			return err
		}
	}
	return nil
}

// readLog looks for what must not be in a log: panics, the secrets that the
// program knows, and addresses of customers.
func (r *run) readLog(a *actor, f *findings) error {
	text, err := os.ReadFile(filepath.Join(r.dir, a.name+".log"))
	if err != nil {
		return err
	}
	forbidden := []string{"panic", "fatal error", adminKey, "torture-secret", "@buyer.example"}
	if r.options.sweep {
		forbidden = forbidden[2:] // it panics because it is told to
	}
	for line := range strings.Lines(string(text)) {
		for _, word := range forbidden {
			if strings.Contains(line, word) {
				f.other = append(f.other, fmt.Sprintf("%s.log holds %q: %.300s", a.name, word, line))
			}
		}
	}
	return nil
}
