package orders

import (
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"quayside/internal/database"
)

// Money says where all that was received in one currency is. Amounts are exact.
type Money struct {
	Currency  string
	Received  decimal.Decimal // by completed payments, each transaction once
	Applied   decimal.Decimal // stands against goods
	RefundDue decimal.Decimal // nobody has decided about it yet
	Refunded  decimal.Decimal // was sent back, or is decided to be
	Kept      decimal.Decimal // a person decided that it stays
	Unmatched decimal.Decimal // waits for its order or for a person
}

// Balanced reports whether every amount is accounted for.
func (m Money) Balanced() bool {
	return m.Received.Equal(decimal.Sum(m.Applied, m.RefundDue, m.Refunded, m.Kept, m.Unmatched))
}

// Account says where the money is that completed payments brought from one
// instant to before another; a zero time is no bound. An order's money is
// applied in the order in which it came.
func Account(tx database.Tx, from, to time.Time) ([]Money, error) {
	if to.IsZero() {
		to = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	var rows []Money
	err := tx.Raw(accountQuery, map[string]any{"from": from, "to": to}).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("account for the money: %w", err)
	}
	return rows, nil
}

// accountQuery goes payment by payment. What refunds took is read from the
// refunds, and what is applied and due from the orders, so that the sum is
// right only when the books agree.
const accountQuery = `
WITH came AS (
	SELECT id, order_id, currency, amount, completed_seen, completed_at, counted,
		COALESCE((SELECT sum(r.amount) FROM refunds r WHERE r.payment_id = p.id AND r.state IN ('approved','sent','confirmed')), 0) AS refunded,
		COALESCE((SELECT sum(r.amount) FROM refunds r WHERE r.payment_id = p.id AND r.state = 'waived'), 0) AS kept
	FROM payments p WHERE counted IN ('matched','unmatched')
		AND (order_id IN (SELECT order_id FROM payments WHERE completed_at >= @from AND completed_at < @to)
			OR order_id IS NULL AND completed_at >= @from AND completed_at < @to)
), stood AS (
	SELECT c.*, c.amount - c.refunded - c.kept AS remains, o.got - o.refund_due AS applied, o.refund_due AS due,
		COALESCE(sum(c.amount - c.refunded - c.kept) OVER (PARTITION BY c.order_id ORDER BY c.completed_seen, c.id
			ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before,
		COALESCE(sum(c.amount - c.refunded - c.kept) OVER (PARTITION BY c.order_id ORDER BY c.completed_seen, c.id
			ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), 0) AS after
	FROM came c JOIN orders o ON o.id = c.order_id WHERE c.counted = 'matched'
), allotted AS (
	SELECT currency, completed_at, amount AS received, greatest(least(remains, applied - before), 0) AS applied,
		greatest(least(remains, due - after), 0) AS refund_due, refunded, kept, 0 AS unmatched
	FROM stood
	UNION ALL SELECT currency, completed_at, amount, 0, 0, refunded, kept, amount - refunded - kept FROM came WHERE counted = 'unmatched'
	UNION ALL SELECT currency, received_at, amount, 0, 0, 0, 0, amount FROM (` + waitingMoney + `) w
)
SELECT currency, sum(received) AS received, sum(applied) AS applied, sum(refund_due) AS refund_due, sum(refunded) AS refunded,
	sum(kept) AS kept, sum(unmatched) AS unmatched
FROM allotted WHERE completed_at >= @from AND completed_at < @to GROUP BY currency ORDER BY currency`

// UnbalancedMoney is a query for the currencies whose money does not add up,
// one text each, over all that was ever received.
var UnbalancedMoney = `SELECT currency || ': received ' || received || ', applied ' || applied || ', due back ' || refund_due || ', refunded ' || refunded
	|| ', kept ' || kept || ', unmatched ' || unmatched FROM (` +
	strings.NewReplacer("@from", "'-infinity'::timestamptz", "@to", "'infinity'::timestamptz").Replace(accountQuery) + `) m
	WHERE received <> applied + refund_due + refunded + kept + unmatched`

// waitingMoney is that of events in no books yet: parked, set aside, or on
// their way. Each payment and each transaction counts once.
const waitingMoney = `
	SELECT DISTINCT ON (COALESCE(upper(i.tx_hash), i.payment_id)) i.currency, i.received_at, i.amount
	FROM inbox_open w JOIN inbox i ON i.id = w.inbox_id
	WHERE w.state <> 'refused' AND i.type = 'payment.completed' AND i.amount IS NOT NULL AND i.contradicts IS NULL
		AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.id = i.payment_id AND p.completed_seen IS NOT NULL)
		AND NOT EXISTS (SELECT 1 FROM payments p WHERE upper(p.tx_hash) = upper(i.tx_hash) AND p.tx_hash IS NOT NULL AND p.counted <> 'reused')
	ORDER BY COALESCE(upper(i.tx_hash), i.payment_id), i.id`
