package orders

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/queue"
)

// Provider ships goods when asked. It must take the same request twice: the
// request's id is the idempotency key and never changes.
type Provider interface {
	// Name is kept with each request: manual, …
	Name() string
	// Request asks for a shipment. It may talk to the network.
	Request(ctx context.Context, r ShipmentRequest, items []Item) error
}

// Manual is the provider of a shop whose people pack: a request is theirs as
// soon as it is written; they report what they sent with POST
// /orders/{id}/shipments.
type Manual struct{}

// Name returns "manual".
func (Manual) Name() string { return "manual" }

// Request has nothing to do: the order shows as queued.
func (Manual) Request(context.Context, ShipmentRequest, []Item) error { return nil }

const (
	requestQueued     = "queued"
	requestHandedOver = "handed_over"
	requestWithdrawn  = "withdrawn"
	requestDead       = "dead"

	requestAttempts = 12 // with doubling from 5 s this gives up after about 3 hours
	requestLease    = time.Minute
	requestPatience = 45 * time.Second // with the provider: the lease outlasts it

	// unheld finds requests r of orders that no open case holds.
	unheld = `NOT EXISTS (SELECT 1 FROM cases c WHERE c.order_id = r.order_id AND c.state = 'open' AND c.blocks)`
)

var fulfilJob = queue.Job[fulfilArgs]{Name: "orders.fulfil", Queue: queue.Post, Timeout: requestLease}

type fulfilArgs struct {
	RequestID uuid.UUID `json:"request_id"`
}

// Register tells the worker about this package's jobs.
func (b *Book) Register(m *queue.Mux) {
	queue.Handle(m, fulfilJob, func(ctx context.Context, a fulfilArgs) error { return b.fulfil(ctx, a.RequestID) })
}

func (b *Book) ringFulfilment(tx database.Tx, requests []ShipmentRequest) {
	for _, r := range requests {
		queue.RingAfter(tx, b.bell, fulfilJob.With(fulfilArgs{RequestID: r.ID}))
	}
}

// fulfil hands one request to the provider: count the attempt, ask with no
// transaction open, note the outcome.
func (b *Book) fulfil(ctx context.Context, id uuid.UUID) error {
	r, items, err := b.claimRequest(ctx, id)
	if err != nil || r == nil {
		return err
	}
	asked := b.ask(ctx, *r, items)
	return b.db.InTx(ctx, func(tx database.Tx) error {
		switch {
		case asked == nil:
			return tx.Exec(`UPDATE shipment_requests SET state = ?, handed_at = ?, last_error = '' WHERE id = ? AND state = ?`,
				requestHandedOver, tx.Now, r.ID, requestQueued).Error
		case r.Attempts < requestAttempts:
			slog.WarnContext(ctx, "shipment request failed", "order_id", r.OrderID, "attempt", r.Attempts, "error", asked)
			return tx.Exec(`UPDATE shipment_requests SET not_before = ?, last_error = ? WHERE id = ? AND state = ?`,
				tx.Now.Add(5*time.Second<<(r.Attempts-1)), asked.Error(), r.ID, requestQueued).Error
		}
		return b.giveUp(tx, r, asked)
	})
}

// ask asks the provider, but no more once the attempts are used up: those of
// them that had no outcome ended the process.
func (b *Book) ask(ctx context.Context, r ShipmentRequest, items []Item) error {
	if r.Attempts > requestAttempts {
		return fmt.Errorf("no outcome after %d attempts", requestAttempts)
	}
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	return b.provider.Request(ctx, r, items)
}

// claimRequest counts an attempt and returns the request, or nil when it is
// settled, held, not yet due or in other hands. The lease keeps others away while
// the provider is asked.
func (b *Book) claimRequest(ctx context.Context, id uuid.UUID) (*ShipmentRequest, []Item, error) {
	var rows []ShipmentRequest
	var items []Item
	err := b.db.InTx(ctx, func(tx database.Tx) error {
		rows, items = nil, nil
		err := tx.Raw(`UPDATE shipment_requests SET attempts = attempts + 1, not_before = ? WHERE id =
			(SELECT id FROM shipment_requests r WHERE id = ? AND state = ? AND not_before <= ? AND `+unheld+` FOR UPDATE SKIP LOCKED) RETURNING *`,
			tx.Now.Add(requestLease), id, requestQueued, tx.Now).Scan(&rows).Error
		if err != nil || len(rows) == 0 {
			return err
		}
		return tx.Raw(`SELECT i.*, l.request_id FROM order_items i JOIN shipment_request_lines l USING (order_id, line)
			WHERE l.request_id = ? ORDER BY line`, id).Scan(&items).Error
	})
	if err != nil || len(rows) == 0 {
		return nil, nil, err
	}
	return &rows[0], items, nil
}

// giveUp opens a case: a person retries or ships by other means.
func (b *Book) giveUp(tx database.Tx, r *ShipmentRequest, why error) error {
	d, f, err := b.file(tx, r.OrderID)
	if err != nil {
		return err
	}
	res := tx.Exec(`UPDATE shipment_requests SET state = ?, last_error = ? WHERE id = ? AND state = ?`, requestDead, why.Error(), r.ID, requestQueued)
	if res.Error != nil {
		return fmt.Errorf("give up shipment request %s: %w", r.ID, res.Error)
	}
	if res.RowsAffected == 0 {
		return nil // withdrawn meanwhile
	}
	m := matter{
		code: FulfilmentDead, about: r.ID.String(),
		summary: fmt.Sprintf("The %s provider did not take the shipment request in %d attempts.", r.Provider, r.Attempts),
	}
	f.raise(m, d.now)
	f.settle(change{kind: "fulfilment_dead", cause: "job:" + fulfilJob.Name, note: m.summary}, d)
	return b.clear(tx, d)
}

// Sweep expires orders past their deadline and rings again for shipment
// requests that wait.
func (b *Book) Sweep(ctx context.Context) error {
	if err := b.expireAll(ctx); err != nil {
		return err
	}
	waiting, err := b.waiting(ctx)
	for _, id := range waiting {
		b.bell.Ring(fulfilJob.With(fulfilArgs{RequestID: id}))
	}
	return err
}

func (b *Book) expireAll(ctx context.Context) error {
	for {
		if n, err := b.Expire(ctx, sweepSize); err != nil || n < sweepSize {
			return err
		}
	}
}

// Work is Sweep without Redis: it asks for the shipments that wait itself.
// When ctx ends it begins no other.
func (b *Book) Work(ctx context.Context) error {
	if err := b.expireAll(ctx); err != nil {
		return err
	}
	waiting, err := b.waiting(ctx)
	if err != nil {
		return err
	}
	under, done := queue.Finish(ctx)
	defer done()
	for _, id := range waiting {
		if ctx.Err() != nil {
			return nil // another worker's
		}
		if err := b.fulfil(under, id); err != nil {
			return err
		}
	}
	return nil
}

const sweepSize = 200

// waiting marks the requests for which no bell has rung lately, and returns them.
func (b *Book) waiting(ctx context.Context) ([]uuid.UUID, error) {
	var ids []uuid.UUID
	err := b.db.InTx(ctx, func(tx database.Tx) error {
		ids = nil
		return tx.Raw(`UPDATE shipment_requests SET rung_at = @now WHERE id = ANY(ARRAY(SELECT id FROM shipment_requests r
			WHERE state = @queued AND not_before <= @now AND rung_at <= @rung AND `+unheld+`
			ORDER BY not_before LIMIT @limit FOR UPDATE SKIP LOCKED)) RETURNING id`,
			map[string]any{"now": tx.Now, "rung": tx.Now.Add(-queue.RingAgain), "queued": requestQueued, "limit": sweepSize}).Scan(&ids).Error
	})
	if err != nil {
		return nil, fmt.Errorf("sweep shipment requests: %w", err)
	}
	return ids, nil
}
