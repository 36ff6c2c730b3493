package webhooks

import (
	"fmt"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/orders"
	"quayside/internal/queue"
)

// Take returns what a stored event says, and whether it waits for a person or
// for its order; then it is locked until tx ends. See orders.Events.
func (in *Inbox) Take(tx database.Tx, id uuid.UUID) (n orders.News, waits bool, err error) {
	var states []string
	err = tx.Raw(`SELECT state FROM inbox_open WHERE inbox_id = ? FOR UPDATE`, id).Scan(&states).Error
	if err != nil {
		return n, false, fmt.Errorf("lock event %s: %w", id, err)
	}
	var rows []row
	err = tx.Raw(`SELECT i.id, i.key, i.body, i.contradicts, i.received_at, f.payment_id AS first_payment, f.order_ref AS first_order
		FROM inbox i LEFT JOIN inbox f ON f.id = i.contradicts WHERE i.id = ?`, id).Scan(&rows).Error
	if err != nil {
		return n, false, fmt.Errorf("read event %s: %w", id, err)
	}
	if len(rows) == 0 {
		return n, false, nil
	}
	waits = len(states) > 0 && states[0] != stateReady // a worker has or takes a received one
	return parseEvent(rows[0].Body).news(rows[0]), waits, nil
}

// Release has a waiting event applied, as if it had just come. See orders.Events.
func (in *Inbox) Release(tx database.Tx, id uuid.UUID) error {
	err := tx.Exec(`UPDATE inbox_open SET state = 'received', attempts = 0, not_before = ?, rung_at = ?, reason = '' WHERE inbox_id = ?`,
		tx.Now, tx.Now, id).Error
	if err != nil {
		return fmt.Errorf("release event %s: %w", id, err)
	}
	queue.RingAfter(tx, in.bell, applyJob.With(applyArgs{InboxIDs: []uuid.UUID{id}}))
	return nil
}

// Settle ends the wait of an event. See orders.Events.
func (in *Inbox) Settle(tx database.Tx, id uuid.UUID, v orders.Verdict) error {
	return note(tx, []verdict{{ID: id, State: v.State, Reason: v.Reason}})
}
