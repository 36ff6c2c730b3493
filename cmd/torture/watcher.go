//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// rule is something that must hold of the database; its query gives the rows,
// one text each, for which it does not. They are written here anew: `quayside
// check` has its own, and is asked too, at the end.
type rule struct{ name, query string }

// always must hold at every moment, also while everything burns.
var always = []rule{
	{"stock equals the sum of its ledger", `SELECT p.sku FROM products p LEFT JOIN stock_movements m ON m.sku = p.sku
		GROUP BY p.sku HAVING p.on_hand <> COALESCE(sum(m.on_hand_delta), 0) OR p.reserved <> COALESCE(sum(m.reserved_delta), 0)`},
	{"no more is reserved than is there", `SELECT sku FROM products WHERE NOT 0 <= reserved OR NOT reserved <= on_hand`},
	{"what is reserved is what unpaid orders want", `SELECT p.sku FROM products p
		LEFT JOIN order_items i ON i.sku = p.sku LEFT JOIN orders o ON o.id = i.order_id
		GROUP BY p.sku HAVING p.reserved <> COALESCE(sum(i.quantity) FILTER (WHERE o.status IN ('pending','payment_failed')), 0)`},
	{"an order took from stock what it wants, once", `SELECT o.id FROM orders o
		WHERE COALESCE((SELECT sum(on_hand_delta) FROM stock_movements m WHERE m.order_id = o.id), 0)
			<> CASE o.stock WHEN 'committed' THEN -(SELECT sum(quantity) FROM order_items i WHERE i.order_id = o.id) ELSE 0 END`},
	{"an order got what its matched payments brought", `SELECT o.id FROM orders o
		WHERE o.got <> COALESCE((SELECT sum(amount) FROM payments p WHERE p.order_id = o.id AND p.counted = 'matched'), 0)`},
	{"a paid order got enough, in its own currency", `SELECT o.id FROM orders o
		WHERE o.status IN ('paid','fulfilled') AND o.total > COALESCE((SELECT sum(amount) FROM payments p
			WHERE p.order_id = o.id AND p.counted = 'matched' AND p.currency = o.currency), 0)`},
	{"what no goods stand against is due back", `SELECT id FROM orders
		WHERE refund_due <> CASE WHEN status IN ('expired','cancelled') THEN got ELSE greatest(got - total, 0) END`},
	{"a transaction counts once", `SELECT upper(tx_hash) FROM payments WHERE counted IN ('matched','unmatched') AND tx_hash IS NOT NULL
		GROUP BY 1 HAVING count(*) > 1`},
	{"what a payment brought is what its event said", `SELECT p.id FROM payments p WHERE p.completed_seen IS NOT NULL AND NOT EXISTS (
		SELECT 1 FROM inbox i WHERE i.payment_id = p.id AND i.type = 'payment.completed' AND i.amount = p.amount AND i.currency = p.currency)`},
	{"an applied completion is in the books", `SELECT i.key FROM inbox i WHERE i.outcome = 'applied' AND i.type = 'payment.completed'
		AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.id = i.payment_id AND p.completed_seen IS NOT NULL)`},
	{"an event waits or is settled", `SELECT i.key FROM inbox i LEFT JOIN inbox_open o ON o.inbox_id = i.id WHERE (i.outcome IS NULL) <> (o.inbox_id IS NOT NULL)`},
	{"an event changed its order once, and only once it was settled or set aside", `SELECT i.key FROM inbox i JOIN timeline t ON t.inbox_id = i.id
		LEFT JOIN inbox_open o ON o.inbox_id = i.id GROUP BY i.key, i.outcome, o.state HAVING count(*) > 1 OR i.outcome IS NULL AND o.state = 'received'`},
	{"an applied event is a step of its order", `SELECT i.key FROM inbox i WHERE i.outcome = 'applied' AND NOT EXISTS (SELECT 1 FROM timeline t WHERE t.inbox_id = i.id)`},
	{"a stored body is the one that was signed", `SELECT key FROM inbox WHERE sha256(body) <> digest`},
	{"an event is stored once", `SELECT event_id FROM inbox WHERE contradicts IS NULL AND event_id IS NOT NULL AND type IS NOT NULL AND key NOT LIKE 'sha256:%'
		GROUP BY 1 HAVING count(*) > 1`},
	{"a timeline has no gap", `SELECT order_id FROM timeline GROUP BY order_id HAVING count(*) <> max(seq) OR min(seq) <> 1`},
	{"a timeline ends where its order stands", `SELECT o.id FROM orders o LEFT JOIN timeline t ON t.order_id = o.id AND t.seq = o.timeline_length
		WHERE t.became IS DISTINCT FROM o.status`},
	{"only what is paid is shipped", `SELECT l.order_id FROM shipment_lines l JOIN orders o ON o.id = l.order_id WHERE o.status NOT IN ('paid','fulfilled')`},
	{"whoever paid is written to", `SELECT o.id FROM orders o WHERE o.status IN ('paid','fulfilled')
		AND NOT EXISTS (SELECT 1 FROM letters l WHERE l.order_id = o.id AND l.kind IN ('payment_confirmed','goods_gone'))`},
	{"a paid order that nothing holds is asked to be shipped", `SELECT o.id FROM orders o JOIN order_items i ON i.order_id = o.id
		WHERE o.status = 'paid' AND o.stock = 'committed' AND NOT EXISTS (SELECT 1 FROM cases c WHERE c.order_id = o.id AND c.blocks AND c.state = 'open')
		AND NOT EXISTS (SELECT 1 FROM shipment_request_lines r WHERE r.order_id = i.order_id AND r.line = i.line)`},
}

// eventually must hold when all has come to rest.
var eventually = []rule{
	{"no event waits to be applied", `SELECT i.key || ' ' || o.state || ' ' || o.attempts || ' attempts: ' || o.reason FROM inbox_open o JOIN inbox i ON i.id = o.inbox_id WHERE o.state IN ('received','dead')`},
	{"no unpaid order outlives its deadline", `SELECT id FROM orders WHERE status IN ('pending','payment_failed') AND deadline < now() - interval '10 seconds'`},
	{"no letter waits to be sent", `SELECT kind || ' ' || id || ': ' || last_error FROM letters WHERE state = 'queued'`},
	{"no request for shipment waits", `SELECT r.order_id || ' ' || r.state FROM shipment_requests r WHERE r.state IN ('queued','dead')
		AND NOT EXISTS (SELECT 1 FROM cases c WHERE c.order_id = r.order_id AND c.blocks AND c.state = 'open')`},
}

// broken asks all rules in one statement, so of one moment.
func broken(ctx context.Context, w *world, rules []rule) (found []string, err error) {
	var parts []string
	for i, r := range rules {
		parts = append(parts, fmt.Sprintf(`SELECT * FROM (SELECT %d, offender FROM (%s) q%d(offender) LIMIT 5) r%d`, i, r.query, i, i))
	}
	all, err := w.pool.Query(ctx, strings.Join(parts, " UNION ALL "))
	if err != nil {
		return nil, err
	}
	defer all.Close()
	for all.Next() {
		var i int
		var offender string
		if err := all.Scan(&i, &offender); err != nil {
			return nil, err
		}
		found = append(found, rules[i].name+": "+offender)
	}
	return found, all.Err()
}

// watch asks what must always hold each second, as far as Postgres answers.
func (r *run) watch(ctx context.Context) {
	seen := map[string]bool{}
	for sleep(ctx, time.Second) == nil {
		query, cancel := context.WithTimeout(ctx, 20*time.Second)
		found, err := broken(query, r.world, always)
		cancel()
		if err != nil {
			continue // it is away, or hangs: that is part of the plan
		}
		r.looks.Add(1)
		for _, f := range found {
			if !seen[f] {
				seen[f] = true
				r.violate("%s", f)
			}
		}
	}
}
