package webhooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/orders"
	"quayside/internal/queue"
)

const (
	sweepSize = 100 * maxPerJob
	// maxParked is how long an event may wait for its order before a person is told.
	maxParked = 24 * time.Hour
)

// Sweep rings again for events that wait, whatever became of their first bell,
// and looks after those parked. Any number of processes may sweep at once.
func (in *Inbox) Sweep(ctx context.Context) error {
	err := in.tendParked(ctx)
	waiting, werr := in.waiting(ctx)
	for part := range slices.Chunk(waiting, maxPerJob) {
		in.ring(part)
	}
	return errors.Join(err, werr)
}

// Work applies what waits straight from Postgres, for as long as there is
// something: the way on while Redis is away. When ctx ends it begins no other.
func (in *Inbox) Work(ctx context.Context) error {
	under, done := queue.Finish(ctx)
	defer done()
	err := in.tendParked(ctx)
	for ctx.Err() == nil && err == nil {
		var waiting []uuid.UUID
		if waiting, err = in.waiting(ctx); len(waiting) == 0 {
			return err
		}
		for part := range slices.Chunk(waiting, maxPerJob) {
			if ctx.Err() == nil {
				err = errors.Join(err, in.Apply(under, part))
			}
		}
	}
	return err
}

// waiting marks the events for which no bell has rung lately, and returns them
// in the order of arrival.
func (in *Inbox) waiting(ctx context.Context) (ids []uuid.UUID, err error) {
	err = in.db.InTx(ctx, func(tx database.Tx) error {
		ids = nil
		// An array, not IN: the table is empty at one moment and holds thousands at the
		// next, and a join planned for the one is quadratic at the other.
		return tx.Raw(`UPDATE inbox_open SET rung_at = @now WHERE inbox_id = ANY(ARRAY(SELECT inbox_id FROM inbox_open
			WHERE state = 'received' AND not_before <= @now AND rung_at <= @rung
			ORDER BY inbox_id LIMIT @limit FOR UPDATE SKIP LOCKED)) RETURNING inbox_id`,
			map[string]any{"now": tx.Now, "rung": tx.Now.Add(-queue.RingAgain), "limit": sweepSize}).Scan(&ids).Error
	})
	if err != nil {
		return nil, fmt.Errorf("sweep events: %w", err)
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	return ids, nil
}

// tendParked wakes parked events whose order or payment is known by now, and
// after a day tells a person of money that nothing matches; other news of an
// unknown order is ignored then.
func (in *Inbox) tendParked(ctx context.Context) error {
	err := in.db.InTx(ctx, func(tx database.Tx) error {
		err := tx.Exec(wakeParked+` AND (EXISTS (SELECT 1 FROM orders WHERE orders.id = i.order_ref)
			OR EXISTS (SELECT 1 FROM payments p WHERE p.id = i.payment_id)))`, tx.Now, tx.Now.Add(-queue.RingAgain)).Error
		if err != nil {
			return err
		}
		return in.tellOfParked(tx)
	})
	if err != nil {
		return fmt.Errorf("tend parked events: %w", err)
	}
	return nil
}

const wakeParked = `UPDATE inbox_open SET state = 'received', attempts = 0, not_before = ?, rung_at = ?, reason = '' WHERE inbox_id IN (
	SELECT o.inbox_id FROM inbox_open o JOIN inbox i ON i.id = o.inbox_id WHERE o.state = 'parked'`

func (in *Inbox) tellOfParked(tx database.Tx) error {
	var rows []row
	err := tx.Raw(`SELECT i.id, i.key, i.body FROM inbox_open o JOIN inbox i ON i.id = o.inbox_id
		WHERE o.state = 'parked' AND i.received_at <= ?
		AND (i.type <> ? OR NOT EXISTS (SELECT 1 FROM cases WHERE key = ? || '/' || i.payment_id))
		ORDER BY i.id LIMIT 500 FOR UPDATE OF o SKIP LOCKED`,
		tx.Now.Add(-maxParked), orders.PaymentCompletedEvent, orders.UnknownOrder).Scan(&rows).Error
	if err != nil {
		return err
	}
	var money []orders.News
	var ignored []verdict
	for _, r := range rows {
		if n := parseEvent(r.Body).news(r); n.Type == orders.PaymentCompletedEvent {
			money = append(money, n)
		} else {
			ignored = append(ignored, verdict{ID: r.ID, State: orders.Ignored, Reason: "no such order came within 24 hours"})
		}
	}
	return errors.Join(in.book.RaiseUnknownOrder(tx, money), note(tx, ignored))
}

// wakeAfter rings, once the order is committed, for events that came before it.
func (in *Inbox) wakeAfter(tx database.Tx, orderID string) {
	queue.RingAfter(tx, in.bell, wakeJob.With(wakeArgs{OrderID: orderID}))
}

// wake works off the events that were parked for an order.
func (in *Inbox) wake(ctx context.Context, orderID string) error {
	var ids []uuid.UUID
	err := in.db.InTx(ctx, func(tx database.Tx) error {
		ids = nil
		return tx.Raw(wakeParked+` AND o.order_ref = ?) RETURNING inbox_id`, tx.Now, tx.Now, orderID).Scan(&ids).Error
	})
	if err != nil {
		return fmt.Errorf("wake events of order %s: %w", orderID, err)
	}
	for part := range slices.Chunk(ids, maxPerJob) {
		err = errors.Join(err, in.Apply(ctx, part))
	}
	return err
}
