package notify

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"quayside/internal/database"
	"quayside/internal/web"
)

// AdminRoutes adds the operations on e-mails to api.
func (o *Outbox) AdminRoutes(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-emails", Method: http.MethodGet, Path: "/api/v1/emails", Summary: "List e-mails, newest first", Tags: []string{"E-mails"},
	}, o.list)
}

// EmailView is a letter as the admin API promises it.
type EmailView struct {
	ID       string     `json:"id"`
	OrderID  string     `json:"order_id"`
	Kind     Kind       `json:"kind"`
	State    State      `json:"state" enum:"queued,sending,sent,failed,unknown,dropped"`
	PostedAt time.Time  `json:"posted_at"`
	SentAt   *time.Time `json:"sent_at"`
}

type listInput struct {
	web.PageParams
	OrderID string `query:"order_id" maxLength:"64"`
	State   string `query:"state" enum:"queued,sending,sent,failed,unknown,dropped"`
}

func (o *Outbox) list(ctx context.Context, in *listInput) (*struct{ Body web.Page[EmailView] }, error) {
	q := o.db.Read(ctx).Select("id, order_id, kind, state, posted_at, sent_at").Order("id DESC").Limit(in.Limit + 1)
	for column, want := range map[string]string{"state": in.State, "order_id": in.OrderID} {
		if want != "" {
			q = q.Where(column+" = ?", want)
		}
	}
	after, err := web.AfterID(in.After)
	if err != nil {
		return nil, err
	}
	if after != nil {
		q = q.Where("id < ?", *after)
	}
	var rows []Letter
	if err := q.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list e-mails: %w", database.Classify(err))
	}
	vs := make([]EmailView, len(rows))
	for i, l := range rows {
		vs[i] = EmailView{ID: l.ID.String(), OrderID: l.OrderID, Kind: l.Kind, State: l.State, PostedAt: l.PostedAt.UTC()}
		if l.SentAt != nil {
			at := l.SentAt.UTC()
			vs[i].SentAt = &at
		}
	}
	return &struct{ Body web.Page[EmailView] }{web.NewPage(vs, in.Limit, func(v EmailView) string { return web.EncodeCursor(v.ID) })}, nil
}
