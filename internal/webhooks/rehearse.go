package webhooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/orders"
)

// Rehearsal is what a replay would do now.
type Rehearsal struct {
	Would   string          `json:"would" doc:"What would happen, in one sentence" example:"It would be applied."`
	State   string          `json:"state" enum:"received,applied,ignored,parked,quarantined,dead,refused" doc:"The event's state after it; received: applying it fails just now and would be tried again"`
	Reason  string          `json:"reason" doc:"Why, when there is something to say"`
	Orders  []OrderMove     `json:"orders" doc:"The orders it would change; empty when none"`
	Effects []orders.Effect `json:"effects" doc:"What it would do, as the event's effects would list it then; ids are made up anew each time"`
}

// OrderMove is how a replay would move one order.
type OrderMove struct {
	OrderID string         `json:"order_id" doc:"The order"`
	Before  *orders.Status `json:"before" enum:"pending,paid,payment_failed,expired,cancelled,fulfilled" doc:"Its status now"`
	After   *orders.Status `json:"after" enum:"pending,paid,payment_failed,expired,cancelled,fulfilled" doc:"Its status after; the same when only its timeline would tell"`
}

// errRehearsed rolls a rehearsal back.
var errRehearsed = errors.New("rehearsed: rolled back")

// Rehearse does what Replay and then a worker would do, by the same code, and
// rolls it back: nothing is written, no bell rings, no attempt is counted.
// Errors: those of Replay.
func (in *Inbox) Rehearse(ctx context.Context, e *eventRow, actor, note string) (*Rehearsal, error) {
	carryOut := func(tx database.Tx) ([]verdict, error) { return in.carryOut(tx, []uuid.UUID{e.ID}) }
	r, err := in.rehearse(ctx, e, actor, note, carryOut)
	if r == nil || err == nil {
		return r, err
	}
	if fault.Permanent(err) { // a worker would set it aside
		t := orders.Trouble{Code: orders.UnreadableEvent, Reason: fault.Message(err)}
		aside, err := in.rehearse(ctx, e, actor, note, func(tx database.Tx) ([]verdict, error) {
			return putBy(tx, e.ID, orders.Quarantined, t, in.hold)
		})
		if aside == nil || err == nil {
			return aside, err
		}
	}
	slog.WarnContext(ctx, "rehearsal failed", "inbox_id", e.ID, "error", err)
	r.State, r.Would = stateReady, "It would be put to work, but applying it fails just now; a worker would try it again."
	r.Reason = fault.Message(err)
	return r, nil
}

// rehearse runs one way of applying the event. The rehearsal is nil when the
// replay itself is refused; with an error beside it, applying failed.
func (in *Inbox) rehearse(ctx context.Context, e *eventRow, actor, note string, do func(database.Tx) ([]verdict, error)) (r *Rehearsal, err error) {
	defer caught(&err)
	err = in.db.InTx(ctx, func(tx database.Tx) error {
		r = nil
		again, err := in.Replay(tx, e.ID, actor, note)
		if err != nil {
			return err
		}
		r = &Rehearsal{State: e.State, Would: "Nothing: it is applied already.", Orders: []OrderMove{}, Effects: []orders.Effect{}}
		if !again {
			return errRehearsed
		}
		done, err := do(tx)
		if err != nil {
			return err
		}
		all, err := in.effectsOf(tx, e)
		if err != nil {
			return err
		}
		r.State, r.Reason, r.Effects = done[0].State, done[0].Reason, slices.DeleteFunc(all, func(e orders.Effect) bool { return !e.At.Equal(tx.Now) })
		r.Orders = moves(r.Effects)
		r.Would = r.would(e.State)
		return errRehearsed
	})
	if errors.Is(err, errRehearsed) {
		return r, nil
	}
	return r, err
}

func (in *Inbox) effectsOf(tx database.Tx, e *eventRow) ([]orders.Effect, error) {
	return in.book.EffectsOf(tx, e.ID, text(e.OrderRef), text(e.PaymentID))
}

// moves says from where to where the steps took each order.
func moves(effects []orders.Effect) []OrderMove {
	list, at := []OrderMove{}, map[string]int{}
	for _, e := range effects {
		if e.Step == nil {
			continue
		}
		i, known := at[*e.OrderID]
		if !known {
			i = len(list)
			at[*e.OrderID] = i
			list = append(list, OrderMove{OrderID: *e.OrderID, Before: e.Was})
		}
		list[i].After = e.Became
	}
	return list
}

// would says what a replay of an event in state was comes to.
func (r *Rehearsal) would(was string) string {
	moved := ""
	for _, o := range r.Orders {
		if o.Before != nil && *o.Before != *o.After {
			moved += fmt.Sprintf(" Order %s would go from %s to %s.", o.OrderID, *o.Before, *o.After)
		}
	}
	switch {
	case r.State == orders.Applied && moved == "":
		return "It would be applied; no order's status would change."
	case r.State == orders.Applied:
		return "It would be applied." + moved
	case len(r.Effects) == 0 && r.State == was:
		return fmt.Sprintf("Nothing: it would be %s again.", r.State)
	}
	return fmt.Sprintf("It would not be applied: it would be %s.", r.State) + moved
}
