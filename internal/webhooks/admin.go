package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/orders"
	"quayside/internal/web"
)

// AdminRoutes adds the operations on events, the inbox, to api.
func (in *Inbox) AdminRoutes(api huma.API) {
	tags := web.Tag(api, "Events", "What PayQI has sent: every authentic event once, byte for byte, and what became of it")
	huma.Register(api, huma.Operation{
		OperationID: "list-events", Security: web.Needs("events:read"), Method: http.MethodGet, Path: "/api/v1/events", Summary: "List events, newest first", Tags: tags,
		Description: "Filters add up. Bodies are not in the list: show an event for its body.",
	}, in.list)
	huma.Register(api, huma.Operation{
		OperationID: "show-event", Security: web.Needs("events:read"), Method: http.MethodGet, Path: "/api/v1/events/{id}",
		Summary: "Show an event with its raw body, by our id or by PayQI's", Tags: tags, Errors: []int{http.StatusNotFound},
		Description: "With it come the forms in which it was delivered, when people had it applied again, and its effects. An event without an id of PayQI's own goes by sha256: and the digest of its body.",
	}, in.show)
	detail := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[replayed](), true, "")
	huma.Register(api, huma.Operation{
		OperationID: "replay-event", Security: web.Needs("events:replay"), Method: http.MethodPost, Path: "/api/v1/events/{id}/replays", DefaultStatus: http.StatusAccepted,
		Summary: "Apply an event again", Tags: tags, Errors: []int{http.StatusNotFound, http.StatusConflict},
		Responses: map[string]*huma.Response{"200": {
			Description: "It is applied already, or it was a dry run: nothing was changed",
			Content:     map[string]*huma.MediaType{"application/json": {Schema: detail}},
		}},
		Description: replayManual,
	}, in.replay)
}

const replayManual = `Lets a worker read the event again and apply it, as if it had just come: with this version of Quayside, against ` +
	`what is known now, with all its attempts. Safe to repeat: effects happen once, since an event only adds to what is known of a payment. ` + "\n\n" +
	`The answer is 202 and the event as it stands, usually still received; show it again to see what became of it. ` +
	`With dry_run the answer is 200 and, in dry_run, what it would do: the effects, and the orders before and after. ` +
	`What it would be refused for is refused in a dry run too.

| It is | What happens |
| --- | --- |
| received | it is tried at once, whatever it waits for |
| parked | it looks for its order again |
| ignored | it is read again: its order or its type may be known by now |
| quarantined | it is read again; when it is applied now, its case UNREADABLE_EVENT closes |
| dead | it has all its attempts again; when it is applied, its case EVENT_DEAD closes |
| refused | it is released, although its timestamp was not in time: that takes a note, and closes its case |
| applied | 200, nothing to do |
| another body under the id of an event that stands | 409: decide its case EVENT_CONFLICT |`

// EventView is an event as the admin API promises it. It is exported because
// huma documents the fields of exported embedded types only.
type EventView struct {
	ID          string     `json:"id" doc:"Ours; in the order of arrival"`
	EventID     *string    `json:"event_id" doc:"PayQI's own id; null when the event had none"`
	Type        *string    `json:"type" doc:"Null when the event is unreadable"`
	State       string     `json:"state" enum:"received,applied,ignored,parked,quarantined,dead,refused" doc:"received: waits for a worker; applied and ignored: done; parked: waits for its order; quarantined: cannot be believed as it is; dead: applying it failed too often; refused: its timestamp was not in time"`
	Reason      string     `json:"reason" doc:"Why it is in that state, when there is something to say"`
	PaymentID   *string    `json:"payment_id" doc:"PayQI's payment; null when the event is unreadable"`
	OrderID     *string    `json:"order_id" doc:"The order the event names"`
	Contradicts *uuid.UUID `json:"contradicts" doc:"The event with the same id that came first and stands"`
	Deliveries  int        `json:"deliveries" doc:"How often PayQI has sent it"`
	Attempts    int        `json:"attempts" doc:"How often applying it was tried, while it waits"`
	SecretLabel string     `json:"secret_label" doc:"Which webhook secret signed it: the first 8 hex digits of its SHA-256"`
	ReceivedAt  time.Time  `json:"received_at" doc:"When it came first"`
	LastSeenAt  time.Time  `json:"last_seen_at" doc:"When it came last"`
	SettledAt   *time.Time `json:"settled_at" doc:"When it was applied or ignored; null while it waits"`
}

// EventDetail is an event with its body and what came of it.
type EventDetail struct {
	EventView
	Body       []byte       `json:"body" doc:"Exactly as signed, in base64"`
	SHA256     string       `json:"sha256" doc:"Of the body, in hex"`
	OtherForms []string     `json:"other_forms" doc:"SHA-256 of deliveries that mean the same in other bytes"`
	Replays    []ReplayView `json:"replays" doc:"When people had it applied again, newest first, at most 100"`

	Effects []orders.Effect `json:"effects" doc:"What it did, and what was decided about it, in order: steps in the timelines of orders, stock moved, e-mails put up for sending, cases opened and closed, shipments asked for, refunds. Empty when it did nothing. Of steps that an older version wrote only the step, its stock and the cases about the event are known"`
}

// ReplayView is one time that a person had an event applied again.
type ReplayView struct {
	At   time.Time `json:"at" doc:"When"`
	By   string    `json:"by" doc:"Who: admin:NAME" example:"admin:bootstrap"`
	Note string    `json:"note" doc:"Why, as it was given; may be empty"`
	Was  string    `json:"was" enum:"received,ignored,parked,quarantined,dead,refused" doc:"The state of the event before"`
}

// eventRow is a row of the view events.
type eventRow struct {
	ID                         uuid.UUID
	Key                        string
	EventID, Type, PaymentID   *string
	OrderRef                   *string
	Body, Digest               []byte
	Contradicts                *uuid.UUID
	SecretLabel, State, Reason string
	ReceivedAt, LastSeenAt     time.Time
	Deliveries, Attempts       int
	SettledAt                  *time.Time
}

func (r eventRow) view() EventView {
	v := EventView{
		ID: r.ID.String(), EventID: r.EventID, Type: r.Type, State: r.State, Reason: r.Reason, PaymentID: r.PaymentID, OrderID: r.OrderRef,
		Contradicts: r.Contradicts, Deliveries: r.Deliveries, Attempts: r.Attempts, SecretLabel: r.SecretLabel,
		ReceivedAt: r.ReceivedAt.UTC(), LastSeenAt: r.LastSeenAt.UTC(),
	}
	if r.SettledAt != nil {
		t := r.SettledAt.UTC()
		v.SettledAt = &t
	}
	return v
}

type listInput struct {
	web.PageParams
	State   string `query:"state" enum:"received,applied,ignored,parked,quarantined,dead,refused" doc:"Only events in this state"`
	Type    string `query:"type" maxLength:"100" doc:"Only events of this type, such as payment.completed"`
	OrderID string `query:"order_id" maxLength:"64" doc:"Only events that name this order"`
}

func (in *Inbox) list(ctx context.Context, q *listInput) (*struct{ Body web.Page[EventView] }, error) {
	sel := in.db.Read(ctx).Table("events").Omit("body").Order("id DESC").Limit(q.Limit + 1)
	for column, want := range map[string]string{"state": q.State, "type": q.Type, "order_ref": q.OrderID} {
		if want != "" {
			sel = sel.Where(column+" = ?", want)
		}
	}
	after, err := web.AfterID(q.After)
	if err != nil {
		return nil, err
	}
	if after != nil {
		sel = sel.Where("id < ?", *after)
	}
	var rows []eventRow
	if err := sel.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list events: %w", database.Classify(err))
	}
	vs := make([]EventView, len(rows))
	for i, r := range rows {
		vs[i] = r.view()
	}
	page := web.NewPage(vs, q.Limit, func(v EventView) string { return web.EncodeCursor(v.ID) })
	return &struct{ Body web.Page[EventView] }{page}, nil
}

// EventPath names an event in a path. Huma fills exported embedded types only.
type EventPath struct {
	ID string `path:"id" maxLength:"300" doc:"Our id, or PayQI's event id"`
}

func (in *Inbox) show(ctx context.Context, q *EventPath) (*struct{ Body EventDetail }, error) {
	r, err := in.find(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	d, err := in.detail(ctx, r)
	if err != nil {
		return nil, err
	}
	return &struct{ Body EventDetail }{*d}, nil
}

// find looks an event up by our id or by PayQI's. Errors: NotFound.
func (in *Inbox) find(ctx context.Context, id string) (*eventRow, error) {
	where := "key = ?"
	if _, err := uuid.Parse(id); err == nil {
		where = "id = ?"
	}
	var rows []eventRow
	if err := in.db.Read(ctx).Table("events").Where(where, id).Limit(1).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("event %s: %w", id, database.Classify(err))
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "event_not_found", "no event %s", id)
	}
	return &rows[0], nil
}

// maxReplays bounds what one answer tells of an event's replays.
const maxReplays = 100

func (in *Inbox) detail(ctx context.Context, r *eventRow) (*EventDetail, error) {
	d := &EventDetail{EventView: r.view(), Body: r.Body, SHA256: fmt.Sprintf("%x", r.Digest), OtherForms: []string{}, Replays: []ReplayView{}}
	var forms [][]byte
	err := in.db.Read(ctx).Raw(`SELECT digest FROM inbox_spellings WHERE inbox_id = ? ORDER BY first_seen_at`, r.ID).Scan(&forms).Error
	if err != nil {
		return nil, fmt.Errorf("forms of event %s: %w", r.ID, database.Classify(err))
	}
	for _, f := range forms {
		d.OtherForms = append(d.OtherForms, fmt.Sprintf("%x", f))
	}
	var replays []Replay
	err = in.db.Read(ctx).Where("inbox_id = ?", r.ID).Order("id DESC").Limit(maxReplays).Find(&replays).Error
	if err != nil {
		return nil, fmt.Errorf("replays of event %s: %w", r.ID, database.Classify(err))
	}
	for _, p := range replays {
		d.Replays = append(d.Replays, ReplayView{At: p.At.UTC(), By: p.Actor, Note: p.Note, Was: p.Was})
	}
	err = in.db.InSnapshot(ctx, func(tx database.Tx) (err error) {
		d.Effects, err = in.effectsOf(tx, r)
		return err
	})
	return d, err
}

// replayed is an event as a replay leaves it, or as a rehearsal finds it.
type replayed struct {
	EventDetail
	DryRun *Rehearsal `json:"dry_run" doc:"What the replay would do, of one that was asked with dry_run; null of one that was carried out"`
}

// NewReplay is the body of POST /events/{id}/replays.
type NewReplay struct {
	DryRun bool   `json:"dry_run,omitempty" doc:"Only show what it would do: the event is applied by the same code, and everything is taken back. Nothing is written, sent or counted"`
	Note   string `json:"note,omitempty" maxLength:"500" pattern:"^\\P{Cc}*$" patternDescription:"one line without control characters" doc:"Why. Required to release a refused event; kept with the event and in the timeline of its order" example:"the database was full, it has room again"`
}

type replayInput struct {
	EventPath
	Body *NewReplay
}

type replayOutput struct {
	Status int
	Body   replayed
}

// replay keeps the answer to an Idempotency-Key after the fact, since it reads
// what other transactions may do meanwhile: a replay has its effects once anyway.
func (in *Inbox) replay(ctx context.Context, q *replayInput) (*replayOutput, error) {
	if before, err := access.Before[replayOutput](ctx, in.db); before != nil || err != nil {
		return before, err
	}
	out, err := in.replayNow(ctx, q)
	if err != nil {
		return nil, err
	}
	return access.Keep(ctx, in.db, out)
}

func (in *Inbox) replayNow(ctx context.Context, q *replayInput) (*replayOutput, error) {
	r, err := in.find(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	var note string
	if q.Body != nil {
		note = q.Body.Note
	}
	if q.Body != nil && q.Body.DryRun {
		return in.dryRun(ctx, r, note)
	}
	var again bool
	err = in.db.InTx(ctx, func(tx database.Tx) (err error) {
		again, err = in.replayAudited(ctx, tx, r.ID, note)
		return err
	})
	if err != nil {
		return nil, err
	}
	if r, err = in.find(ctx, r.ID.String()); err != nil {
		return nil, err
	}
	d, err := in.detail(ctx, r)
	if err != nil {
		return nil, err
	}
	out := &replayOutput{Status: http.StatusAccepted, Body: replayed{EventDetail: *d}}
	if !again {
		out.Status = http.StatusOK
	}
	return out, nil
}

// replayAudited is Replay by the request of ctx, with its entry in the audit log
// when there is something to do.
func (in *Inbox) replayAudited(ctx context.Context, tx database.Tx, id uuid.UUID, note string) (again bool, err error) {
	inside := database.Inside(ctx, tx)
	was, err := in.find(inside, id.String())
	if err != nil {
		return false, err
	}
	if again, err = in.Replay(tx, id, web.Actor(ctx), note); err != nil || !again {
		return again, err
	}
	is, err := in.find(inside, id.String())
	if err != nil {
		return false, err
	}
	after := replayedEvent{EventView: is.view(), Note: note}
	return true, access.Record(ctx, tx, access.Change{Subject: "event/" + id.String(), Before: was.view(), After: after})
}

// replayedEvent is an event that is put to work again, and why.
type replayedEvent struct {
	EventView
	Note string `json:"note"`
}

func (in *Inbox) dryRun(ctx context.Context, r *eventRow, note string) (*replayOutput, error) {
	would, err := in.Rehearse(ctx, r, web.Actor(ctx), note)
	if err != nil {
		return nil, err
	}
	d, err := in.detail(ctx, r)
	if err != nil {
		return nil, err
	}
	return &replayOutput{Status: http.StatusOK, Body: replayed{EventDetail: *d, DryRun: would}}, nil
}
