package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

// AdminRoutes adds the operations on events, the inbox, to api.
func (in *Inbox) AdminRoutes(api huma.API) {
	tags := []string{"Events"}
	huma.Register(api, huma.Operation{
		OperationID: "list-events", Method: http.MethodGet, Path: "/api/v1/events", Summary: "List events, newest first", Tags: tags,
	}, in.list)
	huma.Register(api, huma.Operation{
		OperationID: "show-event", Method: http.MethodGet, Path: "/api/v1/events/{id}",
		Summary: "Show an event with its raw body, by our id or by PayQI's", Tags: tags, Errors: []int{http.StatusNotFound},
	}, in.show)
}

// EventView is an event as the admin API promises it. It is exported because
// huma documents the fields of exported embedded types only.
type EventView struct {
	ID          string     `json:"id"`
	EventID     *string    `json:"event_id" doc:"PayQI's own id; null when the event had none"`
	Type        *string    `json:"type" doc:"Null when the event is unreadable"`
	State       string     `json:"state" enum:"received,applied,ignored,parked,quarantined,dead,refused"`
	Reason      string     `json:"reason" doc:"Why it is in that state, when there is something to say"`
	PaymentID   *string    `json:"payment_id"`
	OrderID     *string    `json:"order_id" doc:"The order the event names"`
	Contradicts *uuid.UUID `json:"contradicts" doc:"The event with the same id that came first and stands"`
	Deliveries  int        `json:"deliveries" doc:"How often PayQI has sent it"`
	Attempts    int        `json:"attempts" doc:"How often applying it was tried, while it waits"`
	SecretLabel string     `json:"secret_label" doc:"Which webhook secret signed it: the first 8 hex digits of its SHA-256"`
	ReceivedAt  time.Time  `json:"received_at"`
	LastSeenAt  time.Time  `json:"last_seen_at"`
	SettledAt   *time.Time `json:"settled_at"`
}

type eventDetail struct {
	EventView
	Body       []byte   `json:"body" doc:"Exactly as signed, in base64"`
	SHA256     string   `json:"sha256" doc:"Of the body, in hex"`
	OtherForms []string `json:"other_forms" doc:"SHA-256 of deliveries that mean the same in other bytes"`
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
	State   string `query:"state" enum:"received,applied,ignored,parked,quarantined,dead,refused"`
	Type    string `query:"type" maxLength:"100"`
	OrderID string `query:"order_id" maxLength:"64"`
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

type showInput struct {
	ID string `path:"id" maxLength:"300" doc:"Our id, or PayQI's event id"`
}

func (in *Inbox) show(ctx context.Context, q *showInput) (*struct{ Body eventDetail }, error) {
	where := "key = ?"
	if _, err := uuid.Parse(q.ID); err == nil {
		where = "id = ?"
	}
	var rows []eventRow
	if err := in.db.Read(ctx).Table("events").Where(where, q.ID).Limit(1).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("event %s: %w", q.ID, database.Classify(err))
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "event_not_found", "no event %s", q.ID)
	}
	r := rows[0]
	d := eventDetail{EventView: r.view(), Body: r.Body, SHA256: fmt.Sprintf("%x", r.Digest), OtherForms: []string{}}
	var forms [][]byte
	err := in.db.Read(ctx).Raw(`SELECT digest FROM inbox_spellings WHERE inbox_id = ? ORDER BY first_seen_at`, r.ID).Scan(&forms).Error
	if err != nil {
		return nil, fmt.Errorf("forms of event %s: %w", q.ID, database.Classify(err))
	}
	for _, f := range forms {
		d.OtherForms = append(d.OtherForms, fmt.Sprintf("%x", f))
	}
	return &struct{ Body eventDetail }{d}, nil
}
