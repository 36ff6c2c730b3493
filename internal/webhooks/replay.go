package webhooks

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/orders"
	"quayside/internal/queue"
)

// Replay is a row of replays: a person has put an event to work again.
type Replay struct {
	ID      uuid.UUID `json:"id"`
	InboxID uuid.UUID `json:"inbox_id"`
	At      time.Time `json:"at"`
	Actor   string    `json:"actor"` // admin:NAME
	Note    string    `json:"note"`  // why
	Was     string    `json:"was"`   // the event's state before
}

// Replay lets a worker read and apply an event again, as if it had just come:
// with today's program, against what is known today, with all its attempts.
// Effects happen once all the same, since an event only adds to what is known
// of a payment. It reports whether there was something to do.
//
//	received                    tried at once, whatever it was waiting for
//	parked, ignored             looked at anew: its order or its type may be known by now
//	quarantined, dead           tried again; UNREADABLE_EVENT and EVENT_DEAD close when it is applied
//	refused                     released, which takes a note: a person believes its late timestamp
//	applied                     nothing to do
//	the second body of one id   Conflict: the first stands
//
// Errors: NotFound; Unprocessable without the note; Conflict; Unavailable
// while a worker has it in hand.
func (in *Inbox) Replay(tx database.Tx, id uuid.UUID, actor, note string) (again bool, err error) {
	e, err := lockTarget(tx, id)
	if err != nil {
		return false, err
	}
	switch {
	case e.state() == orders.Applied:
		return false, nil
	case e.Contradicts != nil:
		return false, fault.New(fault.Conflict, "event_contradicted",
			"This body says something else than event %s, which came first under the same id and stands. Decide its case EVENT_CONFLICT instead.", *e.Contradicts)
	case e.state() == stateStale && strings.TrimSpace(note) == "":
		return false, fault.New(fault.Unprocessable, "note_required",
			"This event was refused: %s. Replaying it releases it; say why you believe it.", e.Reason).
			With(fault.Field{Location: "note", Message: "must say why this refused event is to be believed"})
	}
	r := Replay{ID: uuid.Must(uuid.NewV7()), InboxID: id, At: tx.Now, Actor: actor, Note: note, Was: e.state()}
	if err := database.Insert(tx, "replays", `id, inbox_id, at, actor, note, was`, []Replay{r}); err != nil {
		return false, fmt.Errorf("note replay of event %s: %w", id, err)
	}
	if err := e.reopen(tx, r.ID); err != nil {
		return false, fmt.Errorf("reopen event %s: %w", id, err)
	}
	if r.Was == stateStale {
		key := orders.Alarm{Code: orders.StaleEvent, About: e.Key}.Key()
		if err := in.book.CloseCases(tx, []string{key}, actor, "release: "+note); err != nil {
			return false, err
		}
	}
	queue.RingAfter(tx, in.bell, applyJob.With(applyArgs{InboxIDs: []uuid.UUID{id}}))
	return true, nil
}

// target is an event as a replay finds it.
type target struct {
	ID          uuid.UUID
	Key         string
	Contradicts *uuid.UUID
	Outcome     *string // nil while it waits
	State       *string // in inbox_open; nil once it has an outcome
	Reason      string
}

func (e *target) state() string {
	if e.State != nil {
		return *e.State
	}
	return text(e.Outcome)
}

// lockTarget locks an event: inbox first, as repeated deliveries do. Workers
// lock the other way round, so it waits for none of them: what a worker has in
// hand just now is looked at again a moment later. Errors: NotFound, ErrAgain.
func lockTarget(tx database.Tx, id uuid.UUID) (*target, error) {
	var rows []target
	err := tx.Raw(`SELECT id, key, contradicts, outcome FROM inbox WHERE id = ? FOR NO KEY UPDATE`, id).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("lock event %s: %w", id, err)
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "event_not_found", "no event %s", id)
	}
	e := &rows[0]
	if e.Outcome != nil {
		return e, nil
	}
	// A statement of its own: it must see what the one who held the lock has written.
	var open []openRow
	err = tx.Raw(`SELECT inbox_id, state, reason FROM inbox_open WHERE inbox_id = ? FOR UPDATE SKIP LOCKED`, id).Scan(&open).Error
	if err != nil {
		return nil, fmt.Errorf("lock open event %s: %w", id, err)
	}
	if len(open) == 0 {
		return nil, fmt.Errorf("event %s is in a worker's hands: %w", id, database.ErrAgain)
	}
	e.State, e.Reason = &open[0].State, open[0].Reason
	return e, nil
}

// reopen lets the event wait for a worker.
func (e *target) reopen(tx database.Tx, replay uuid.UUID) error {
	if e.State != nil {
		return tx.Exec(`UPDATE inbox_open SET state = 'received', attempts = 0, not_before = @now, rung_at = @now, reason = '', replay_id = @replay
			WHERE inbox_id = @id`, map[string]any{"now": tx.Now, "replay": replay, "id": e.ID}).Error
	}
	err := tx.Exec(`UPDATE inbox SET outcome = NULL, reason = '', settled_at = NULL WHERE id = ?`, e.ID).Error
	if err != nil {
		return err
	}
	return tx.Exec(`INSERT INTO inbox_open (inbox_id, state, not_before, rung_at, replay_id) VALUES (?, 'received', ?, ?, ?)`,
		e.ID, tx.Now, tx.Now, replay).Error
}
