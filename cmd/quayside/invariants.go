package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/inventory"
	"quayside/internal/orders"
)

// invariant is something that must be true of the database at every moment.
// Its query returns the rows for which it is not, one text each.
type invariant struct {
	name  string // what holds, in a sentence
	query string
	full  bool // its cost grows with all that ever happened, and the others find the same sooner: check --full
}

// invariants that the tables so far make possible. @tolerance is PAYMENT_TOLERANCE.
var invariants = []invariant{
	{name: "stock levels equal the sums of their ledger", query: `
		SELECT sku || ': level ' || on_hand || '/' || reserved || ', ledger ' || ledger_on_hand || '/' || ledger_reserved FROM (` + inventory.Drifting + `) d`},
	{name: "checkpoints say what the ledger adds up to, and with it the levels", full: true, query: `
		SELECT sku || ' up to entry ' || through || ': ' || c.on_hand || '/' || c.reserved || ', ledger ' || COALESCE(m.on_hand, 0) || '/' || COALESCE(m.reserved, 0)
		FROM (SELECT sku, through, on_hand, reserved FROM stock_checkpoints
			UNION ALL SELECT p.sku, COALESCE((SELECT max(entry) FROM stock_movements m WHERE m.sku = p.sku), 0), on_hand, reserved FROM products p) c
		LEFT JOIN (SELECT sku, entry AS through, sum(on_hand_delta) OVER w AS on_hand, sum(reserved_delta) OVER w AS reserved
			FROM stock_movements WINDOW w AS (PARTITION BY sku ORDER BY entry)) m USING (sku, through)
		WHERE (c.on_hand, c.reserved) IS DISTINCT FROM (COALESCE(m.on_hand, 0), COALESCE(m.reserved, 0))`},
	{name: "stock is never negative, and no more is reserved than is there", query: `
		SELECT sku || ': ' || on_hand || '/' || reserved FROM products WHERE on_hand < 0 OR reserved < 0 OR reserved > on_hand`},
	{name: "what is reserved is what orders hold", query: `
		SELECT p.sku || ': reserved ' || p.reserved || ', held by orders ' || COALESCE(sum(i.quantity) FILTER (WHERE o.stock = 'reserved'), 0)
		FROM products p LEFT JOIN order_items i ON i.sku = p.sku AND NOT i.given_up LEFT JOIN orders o ON o.id = i.order_id GROUP BY p.sku
		HAVING p.reserved <> COALESCE(sum(i.quantity) FILTER (WHERE o.stock = 'reserved'), 0)`},
	{name: "each order moved exactly the stock that its state says", query: `
		SELECT i.order_id || ' ' || i.sku || ': wants ' || i.want_hand || '/' || i.want_reserved || ', moved ' || COALESCE(m.hand, 0) || '/' || COALESCE(m.reserved, 0)
		FROM (SELECT i.order_id, i.sku, CASE o.stock WHEN 'committed' THEN -COALESCE(sum(i.quantity) FILTER (WHERE NOT i.given_up AND r.restocked IS NOT TRUE), 0) ELSE 0 END AS want_hand,
				CASE o.stock WHEN 'reserved' THEN COALESCE(sum(i.quantity) FILTER (WHERE NOT i.given_up), 0) ELSE 0 END AS want_reserved
			FROM order_items i JOIN orders o ON o.id = i.order_id LEFT JOIN return_lines l USING (order_id, line) LEFT JOIN returns r ON r.id = l.return_id
			GROUP BY i.order_id, i.sku, o.stock) i
		LEFT JOIN (SELECT order_id, sku, sum(on_hand_delta) AS hand, sum(reserved_delta) AS reserved
			FROM stock_movements WHERE order_id IS NOT NULL GROUP BY order_id, sku) m USING (order_id, sku)
		WHERE i.want_hand <> COALESCE(m.hand, 0) OR i.want_reserved <> COALESCE(m.reserved, 0)`},
	{name: "what an order got is the sum of its matched payments, less what went back or was kept", query: `
		SELECT o.id || ': got ' || o.got || ', payments ' || COALESCE(sum(p.amount - p.refunded - p.kept) FILTER (WHERE p.counted = 'matched'), 0)
		FROM orders o LEFT JOIN payments p ON p.order_id = o.id GROUP BY o.id
		HAVING o.got <> COALESCE(sum(p.amount - p.refunded - p.kept) FILTER (WHERE p.counted = 'matched'), 0)`},
	{name: "what goes back of a payment is what its refunds say", query: `
		SELECT p.id || ': ' || p.refunded || ' refunded, ' || p.kept || ' kept; refunds say ' || COALESCE(r.refunded, 0) || ', ' || COALESCE(r.kept, 0)
		FROM payments p LEFT JOIN (SELECT payment_id, sum(amount) FILTER (WHERE state IN ('approved','sent','confirmed')) AS refunded,
			sum(amount) FILTER (WHERE state = 'waived') AS kept FROM refunds GROUP BY payment_id) r ON r.payment_id = p.id
		WHERE p.refunded <> COALESCE(r.refunded, 0) OR p.kept <> COALESCE(r.kept, 0)`},
	{name: "a refund is in the currency of its payment, and for its order", query: `
		SELECT r.id || ': ' || r.amount || ' ' || r.currency || ' of payment ' || p.id FROM refunds r JOIN payments p ON p.id = r.payment_id
		WHERE r.currency <> p.currency OR r.order_id IS DISTINCT FROM p.order_id`},
	{name: "a transaction that sent a refund brought no money, and refunds one order", query: `
		SELECT upper(r.tx_hash) || ': refund ' || r.id FROM refunds r WHERE r.tx_hash IS NOT NULL AND (
			EXISTS (SELECT 1 FROM payments p WHERE upper(p.tx_hash) = upper(r.tx_hash))
			OR EXISTS (SELECT 1 FROM refunds q WHERE upper(q.tx_hash) = upper(r.tx_hash) AND q.order_id IS DISTINCT FROM r.order_id))`},
	{name: "what a payment brought is what one of its events said", query: `
		SELECT p.id || ': ' || p.amount || ' ' || p.currency FROM payments p WHERE p.completed_seen IS NOT NULL
		AND EXISTS (SELECT 1 FROM inbox i WHERE i.payment_id = p.id AND i.amount IS NOT NULL)
		AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.payment_id = p.id AND i.amount = p.amount AND i.currency = p.currency)
		AND NOT EXISTS (SELECT 1 FROM inquiries q WHERE q.payment_id = p.id AND q.amount = p.amount AND q.currency = p.currency)`},
	{name: "every change of an order by an answer of PayQI has its question", query: `
		SELECT t.order_id || ' step ' || t.seq FROM timeline t WHERE t.cause = 'poll:payqi' AND NOT EXISTS (
			SELECT 1 FROM inquiries q JOIN payments p ON p.id = q.payment_id WHERE p.order_id = t.order_id AND q.asked_at <= t.at)`},
	{name: "all money received is accounted for", query: orders.UnbalancedMoney},
	{name: "matched money is in the order's currency", query: `
		SELECT p.id || ': ' || p.currency || ' for ' || o.id FROM payments p JOIN orders o ON o.id = p.order_id
		WHERE p.counted = 'matched' AND p.currency <> o.currency`},
	{name: "a payment that was created for an order is that order's, unless a person moved it", query: `
		SELECT c.order_id || ': ' || p.id || ' of ' || COALESCE(p.order_id, 'none') FROM checkouts c JOIN payments p ON p.id = c.payment_id
		WHERE p.order_id IS DISTINCT FROM c.order_id AND p.attached_by IS NULL`},
	{name: "a paid order got its total, less the tolerance, or what a person accepted", query: `
		SELECT id || ': got ' || got || ' of ' || total FROM orders WHERE status IN ('paid','fulfilled') AND got < COALESCE(accepted, total - given_up - CAST(@tolerance AS numeric)) - returned`},
	{name: "an order costs less by what its returns say", query: `
		SELECT o.id || ': ' || o.returned || ', returns say ' || COALESCE(sum(r.refund), 0) FROM orders o LEFT JOIN returns r ON r.order_id = o.id
		GROUP BY o.id HAVING o.returned <> COALESCE(sum(r.refund), 0)`},
	{name: "what was got stands against goods or is due back", query: `
		SELECT id || ': got ' || got || ', due back ' || refund_due FROM orders
		WHERE refund_due <> got - CASE WHEN status IN ('expired','cancelled') THEN 0 ELSE least(got, COALESCE(accepted, total - given_up) - returned) END`},
	{name: "a transaction counts once", query: `
		SELECT upper(tx_hash) || ': ' || count(*) || ' payments' FROM payments
		WHERE tx_hash IS NOT NULL AND counted <> 'reused' GROUP BY upper(tx_hash) HAVING count(*) > 1`},
	{name: "a paid order that nothing holds was put up for shipment, every line once", query: `
		SELECT i.order_id || ' line ' || i.line FROM orders o JOIN order_items i ON i.order_id = o.id
		LEFT JOIN shipment_request_lines r USING (order_id, line) LEFT JOIN shipment_lines s USING (order_id, line)
		WHERE o.status = 'paid' AND o.stock = 'committed' AND NOT i.given_up AND r.line IS NULL AND s.line IS NULL
		AND NOT EXISTS (SELECT 1 FROM cases c WHERE c.order_id = o.id AND c.state = 'open' AND c.blocks)`},
	{name: "only goods of a paid order ship", query: `
		SELECT DISTINCT s.order_id || ' is ' || o.status FROM shipment_lines s JOIN orders o ON o.id = s.order_id
		WHERE o.status NOT IN ('paid','fulfilled')`},
	{name: "a fulfilled order has shipped every line", query: `
		SELECT i.order_id || ' line ' || i.line FROM orders o JOIN order_items i ON i.order_id = o.id
		LEFT JOIN shipment_lines s USING (order_id, line) WHERE o.status = 'fulfilled' AND s.line IS NULL AND NOT i.given_up`},
	{name: "the customer of a paid order was written to", query: `
		SELECT o.id FROM orders o WHERE o.status IN ('paid','fulfilled')
		AND NOT EXISTS (SELECT 1 FROM letters l WHERE l.order_id = o.id AND l.kind IN ('payment_confirmed','goods_gone'))`},
	{name: "a timeline has no gap and ends where its order stands", query: `
		SELECT o.id || ': ' || o.timeline_length || ' steps, ' || count(t.seq) || ' written' FROM orders o LEFT JOIN timeline t ON t.order_id = o.id
		GROUP BY o.id HAVING count(t.seq) <> o.timeline_length OR COALESCE(max(t.seq), 0) <> o.timeline_length
		OR (array_agg(t.became ORDER BY t.seq DESC))[1] IS DISTINCT FROM o.status`},
	{name: "every stored event waits or is settled, never both", query: `
		SELECT i.id || ' ' || COALESCE(i.outcome, 'waits nowhere') FROM inbox i LEFT JOIN inbox_open o ON o.inbox_id = i.id
		WHERE (i.outcome IS NULL) = (o.inbox_id IS NULL)`},
	{name: "every stored body is the one that was signed", query: `
		SELECT id::text FROM inbox WHERE sha256(body) <> digest`},
	{name: "every applied completion is in the books", query: `
		SELECT i.key || ' of payment ' || i.payment_id FROM inbox i LEFT JOIN payments p ON p.id = i.payment_id
		WHERE i.outcome = 'applied' AND i.type = 'payment.completed' AND p.completed_seen IS NULL`},
	{name: "every change of an order by an event has its event", query: `
		SELECT t.order_id || ' step ' || t.seq FROM timeline t LEFT JOIN inbox i ON i.id = t.inbox_id
		WHERE t.cause LIKE 'event:%' AND i.id IS NULL`},
	{name: "each line of an import is applied, has an error or waits, once", query: `
		SELECT i.id || ' ' || i.state || ': ' || i.lines || ' lines, ' || i.applied || ' applied, ' || i.failed || ' failed, '
			|| COALESCE(b.lines, 0) || ' waiting, ' || COALESCE(e.lines, 0) || ' errors'
		FROM imports i LEFT JOIN (SELECT import_id, sum(lines) AS lines FROM import_batches GROUP BY import_id) b ON b.import_id = i.id
		LEFT JOIN (SELECT import_id, count(*) AS lines FROM import_errors GROUP BY import_id) e ON e.import_id = i.id
		WHERE i.failed <> COALESCE(e.lines, 0) OR COALESCE(b.lines, 0) <> CASE WHEN i.state IN ('waiting','stopped') THEN i.lines - i.applied - i.failed ELSE 0 END`},
	{name: "each seal of the audit log is the hash of its entry and of the seal before it, without a gap", query: `
		SELECT 'seal ' || s.number || ' of entry ' || s.entry_id FROM
			(SELECT number, entry_id, hash, lag(number, 1, 0::bigint) OVER w AS number_before, lag(hash, 1, ''::bytea) OVER w AS hash_before
			FROM audit_seals WINDOW w AS (ORDER BY number)) s LEFT JOIN audit_log a ON a.id = s.entry_id
		WHERE s.number <> s.number_before + 1 OR a.id IS NULL OR s.hash <> sha256(s.hash_before || convert_to(` + access.SealedLine + `, 'UTF8'))`},
	{name: "what an entry of the audit log says has changed is what it said when it was written", query: `
		SELECT 'entry ' || id FROM audit_log WHERE erased_at IS NULL AND change_digest <> ` + access.ChangeDigest},
	{name: "each entry of the audit log is sealed or waits for it, and none that came two minutes later is sealed before", query: `
		SELECT 'entry ' || a.id || CASE WHEN u.entry_id IS NULL THEN ' waits nowhere' ELSE ' waits since ' || a.at END
		FROM audit_log a LEFT JOIN audit_seals s ON s.entry_id = a.id LEFT JOIN audit_unsealed u ON u.entry_id = a.id
		WHERE (s.entry_id IS NULL) = (u.entry_id IS NULL) OR u.entry_id IS NOT NULL AND a.at < (SELECT max(sealed_at) FROM audit_seals) - interval '2 minutes'`},
	{name: "an unpaid order does not outlive its deadline", query: `
		SELECT id || ': ' || deadline FROM orders WHERE status IN ('pending','payment_failed') AND deadline < now() - interval '2 minutes'`},
}

// finding is an invariant that does not hold.
type finding struct {
	name string
	rows []string // offending ones, at most shownRows
	more bool
}

const shownRows = 20

// invariantsOf returns those that are asked without --full, or all of them.
func invariantsOf(full bool) []invariant {
	return slices.DeleteFunc(slices.Clone(invariants), func(inv invariant) bool { return inv.full && !full })
}

// checkInvariants asks them all of one snapshot.
func checkInvariants(ctx context.Context, db *database.DB, tolerance string, full bool) (broken []finding, err error) {
	err = db.InSnapshot(ctx, func(tx database.Tx) error {
		broken = nil
		for _, inv := range invariantsOf(full) {
			query := fmt.Sprintf(`SELECT * FROM (%s) q(offender) ORDER BY 1 LIMIT %d`, inv.query, shownRows+1)
			var rows []string
			var args []any
			if strings.Contains(query, "@tolerance") {
				args = append(args, map[string]any{"tolerance": tolerance})
			}
			if err := tx.Raw(query, args...).Scan(&rows).Error; err != nil {
				return fmt.Errorf("check that %s: %w", inv.name, err)
			}
			if len(rows) > 0 {
				broken = append(broken, finding{inv.name, rows[:min(len(rows), shownRows)], len(rows) > shownRows})
			}
		}
		return nil
	})
	return broken, err
}
