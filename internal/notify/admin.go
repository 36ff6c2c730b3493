package notify

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"gorm.io/gorm"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

// Retell returns what letter l would say if it were written now, and notes
// that actor sends it again. It refuses with a Conflict, and a reason, when
// what the letter tells is not so any more. Until tx ends it stays so.
type Retell func(tx database.Tx, l Letter, actor string) (Facts, error)

// AdminRoutes adds the operations on letters to api. Their customers' addresses
// are shown here and nowhere else but with their orders.
func (o *Outbox) AdminRoutes(api huma.API, retell Retell) {
	tags := web.Tag(api, "E-mails", "What was written to customers, and what became of it")
	huma.Register(api, huma.Operation{
		OperationID: "list-emails", Security: web.Needs("emails:read"), Method: http.MethodGet, Path: "/api/v1/emails", Summary: "List e-mails, newest first", Tags: tags,
		Description: "Without what they say: show one for that. Filters add up.",
	}, o.list)
	huma.Register(api, huma.Operation{
		OperationID: "show-email", Security: web.Needs("emails:read", "pii:read"), Method: http.MethodGet, Path: "/api/v1/emails/{id}",
		Summary: "Show an e-mail with what it says", Tags: tags, Errors: []int{http.StatusNotFound},
		Description: "Both parts as the mail server got them or, before that, as they would read now.",
	}, o.show)
	huma.Register(api, huma.Operation{
		OperationID: "resend-email", Security: web.Needs("emails:send"), Method: http.MethodPost, Path: "/api/v1/emails/{id}/resends", DefaultStatus: http.StatusCreated,
		Summary: "Send an e-mail again, with what is true now", Tags: tags, Errors: []int{http.StatusNotFound, http.StatusConflict},
		Description: "Writes a new e-mail of the same kind, with today's amounts and payment details; each request makes one. " +
			"It is refused while the e-mail is still under way, and when the order has outgrown it.",
	}, func(ctx context.Context, in *resendInput) (*resendOutput, error) {
		return o.resend(ctx, in, retell)
	})
}

// EmailView is a letter as the admin API promises it. It is exported because
// huma documents the fields of exported embedded types only.
type EmailView struct {
	ID            string     `json:"id" doc:"Ours"`
	OrderID       string     `json:"order_id" doc:"The order it is about"`
	Kind          Kind       `json:"kind" enum:"order_received,payment_confirmed,payment_failed,order_expired,order_cancelled,order_shipped,goods_gone,refund_sent" doc:"What it tells"`
	To            string     `json:"to" doc:"The customer's address"`
	Subject       string     `json:"subject" doc:"As it reads, or would read now"`
	State         State      `json:"state" enum:"queued,sending,sent,failed,unknown,dropped" doc:"unknown: the connection broke where nobody can tell; dropped: the order had outgrown it"`
	Attempts      int        `json:"attempts" doc:"How often sending it was tried"`
	LastError     string     `json:"last_error" doc:"What went wrong at the last attempt, in the mail server's words"`
	MessageID     string     `json:"message_id" doc:"The same at every attempt, without <>"`
	PostedAt      time.Time  `json:"posted_at" doc:"When it was written down, to be sent"`
	NextAttemptAt *time.Time `json:"next_attempt_at" doc:"Not before; null when there is none"`
	SentAt        *time.Time `json:"sent_at" doc:"When the mail server took it"`
	ResendOf      *uuid.UUID `json:"resend_of" doc:"The e-mail that this one sends again"`
	RequestedBy   string     `json:"requested_by" doc:"Who sent it again"`
	Note          string     `json:"note" doc:"Why it was sent again"`
}

// EmailDetail is an EmailView with what the letter says.
type EmailDetail struct {
	EmailView
	Rendered string `json:"rendered" enum:"stored,preview,none" doc:"stored: text and html are exactly what the last attempt handed to the mail server; preview: how they read now, since none stands for good yet; none: there is no template for it"`
	Text     string `json:"text" doc:"The part in plain text"`
	HTML     string `json:"html" doc:"The part in HTML"`
}

func (o *Outbox) detail(l Letter) EmailDetail {
	d := EmailDetail{
		EmailView: EmailView{
			ID: l.ID.String(), OrderID: l.OrderID, Kind: l.Kind, To: l.Address, Subject: l.Subject, State: l.State, Attempts: l.Attempts,
			LastError: l.LastError, MessageID: l.MessageID, PostedAt: l.PostedAt.UTC(), NextAttemptAt: l.nextAttempt(),
			ResendOf: l.ResendOf, RequestedBy: l.PostedBy, Note: l.Note,
		},
		Rendered: "stored", Text: l.Text, HTML: l.HTML,
	}
	if l.SentAt != nil {
		at := l.SentAt.UTC()
		d.SentAt = &at
	}
	if l.Subject == "" || l.State == Queued || l.State == Sending {
		var err error
		if d.Subject, d.Text, d.HTML, err = Render(o.opts.ShopName, l); err != nil {
			d.Rendered = "none"
		} else {
			d.Rendered = "preview"
		}
	}
	return d
}

// shown is what the log tells who acts; last errors may repeat the address.
func (d EmailDetail) shown(ctx context.Context) EmailView {
	v := d.EmailView
	v.To = web.Personal(ctx, v.To)
	if !web.Allowed(ctx, web.ReadPII) {
		v.LastError = strings.ReplaceAll(v.LastError, d.To, v.To)
	}
	return v
}

// nextAttempt is when the letter is tried again at the earliest, nil for never.
func (l Letter) nextAttempt() *time.Time {
	at := l.NotBefore.UTC()
	forGood := l.LastError == outgrown || at.Year() == neverYear
	if l.State == Queued || l.State == Unknown && !forGood {
		return &at
	}
	return nil
}

type listInput struct {
	web.PageParams
	OrderID string `query:"order_id" maxLength:"64" doc:"Those about this order"`
	State   string `query:"state" enum:"queued,sending,sent,failed,unknown,dropped" doc:"Those in this state"`
	Kind    string `query:"kind" enum:"order_received,payment_confirmed,payment_failed,order_expired,order_cancelled,order_shipped,goods_gone,refund_sent" doc:"Those of this kind"`
	To      string `query:"to" maxLength:"254" doc:"The address, whole, in any case"`
}

func (o *Outbox) list(ctx context.Context, q *listInput) (*struct{ Body web.Page[EmailView] }, error) {
	sel := o.db.Read(ctx).Omit("text", "html").Order("id DESC").Limit(q.Limit + 1)
	for column, want := range map[string]string{"order_id": q.OrderID, "state": q.State, "kind": q.Kind} {
		if want != "" {
			sel = sel.Where(column+" = ?", want)
		}
	}
	if err := web.NeedsPII(ctx, "to", q.To); err != nil {
		return nil, err
	}
	if q.To != "" {
		sel = sel.Where("lower(address) = lower(?)", q.To)
	}
	after, err := web.AfterID(q.After)
	if err != nil {
		return nil, err
	}
	if after != nil {
		sel = sel.Where("id < ?", *after)
	}
	var rows []Letter
	if err := sel.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list letters: %w", database.Classify(err))
	}
	vs := make([]EmailView, len(rows))
	for i, l := range rows {
		vs[i] = o.detail(l).shown(ctx)
	}
	page := web.NewPage(vs, q.Limit, func(v EmailView) string { return web.EncodeCursor(v.ID) })
	return &struct{ Body web.Page[EmailView] }{page}, nil
}

// EmailPath names a letter in a path. Huma fills exported embedded types only.
type EmailPath struct {
	ID string `path:"id" maxLength:"36" doc:"The e-mail's id"`
}

func (o *Outbox) show(ctx context.Context, in *EmailPath) (*struct{ Body EmailDetail }, error) {
	l, err := find(o.db.Read(ctx), in.ID)
	if err != nil {
		return nil, err
	}
	return &struct{ Body EmailDetail }{o.detail(*l)}, nil
}

// find returns a letter. Errors: NotFound.
func find(db *gorm.DB, id string) (*Letter, error) {
	var rows []Letter
	if _, err := uuid.Parse(id); err == nil {
		if err := db.Where("id = ?", id).Limit(1).Find(&rows).Error; err != nil {
			return nil, fmt.Errorf("letter %s: %w", id, database.Classify(err))
		}
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "email_not_found", "there is no e-mail %s", plain(id, 40))
	}
	return &rows[0], nil
}

// Resend is the body of POST /emails/{id}/resends.
type Resend struct {
	To   string `json:"to,omitempty" maxLength:"254" doc:"Another address, for this e-mail only; the customer's when absent" example:"ada@example.com"`
	Note string `json:"note,omitempty" maxLength:"500" doc:"Why; the customer does not read it" example:"She mistyped her address"`
}

type resendInput struct {
	EmailPath
	Body *Resend
}

func (o *Outbox) resend(ctx context.Context, in *resendInput, retell Retell) (*resendOutput, error) {
	var want Resend
	if in.Body != nil {
		want = *in.Body
	}
	if err := want.check(); err != nil {
		return nil, err
	}
	return access.Once(ctx, o.db, func(ctx context.Context, tx database.Tx) (*resendOutput, error) {
		l, err := find(tx.DB, in.ID)
		if err != nil {
			return nil, err
		}
		actor := web.Actor(ctx)
		facts, err := retell(tx, *l, actor)
		if err != nil {
			return nil, err
		}
		posted, err := o.Again(tx, *l, Letter{Address: cmp.Or(want.To, l.Address), Facts: facts, PostedBy: actor, Note: want.Note})
		if err != nil {
			return nil, err
		}
		out := &resendOutput{o.detail(*posted).shown(ctx)}
		access.Changed(ctx, "email/"+out.Body.ID, nil, out.Body)
		return out, nil
	})
}

type resendOutput struct{ Body EmailView }

func (r Resend) check() error {
	var wrong []fault.Field
	if r.To != "" {
		if err := ValidAddress(r.To); err != nil {
			wrong = append(wrong, fault.Field{Location: "to", Message: err.Error()})
		}
	}
	if strings.ContainsFunc(r.Note, unicode.IsControl) {
		wrong = append(wrong, fault.Field{Location: "note", Message: "must be one line without control characters"})
	}
	if wrong != nil {
		return fault.New(fault.Unprocessable, "invalid_resend", "the resend breaks a rule").With(wrong...)
	}
	return nil
}

// Letter returns the letter id. Errors: NotFound.
func (o *Outbox) Letter(tx database.Tx, id string) (*Letter, error) { return find(tx.DB, id) }

// Again posts next, of which the caller fills Address, Facts, PostedBy and
// Note, in the place of l. Errors: Conflict while l is under way, or when it
// was dropped.
func (o *Outbox) Again(tx database.Tx, l, next Letter) (*Letter, error) {
	var state State
	if err := tx.Raw(`SELECT state FROM letters WHERE id = ? FOR UPDATE`, l.ID).Scan(&state).Error; err != nil {
		return nil, fmt.Errorf("lock letter %s: %w", l.ID, err)
	}
	switch state {
	case Queued, Sending:
		return nil, fault.New(fault.Conflict, "email_under_way", "this e-mail is %s: it goes out by itself; look again when it was sent or has failed", state)
	case Dropped:
		return nil, fault.New(fault.Conflict, "email_dropped", "this e-mail was dropped because the order had outgrown it; send a later one of the order again")
	case Unknown: // it would be sent once more by itself: now this one is
		if err := tx.Exec(`UPDATE letters SET not_before = timestamptz '`+never+`' WHERE id = ?`, l.ID).Error; err != nil {
			return nil, fmt.Errorf("replace letter %s: %w", l.ID, err)
		}
	case Sent, Failed:
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("name a resend of letter %s: %w", l.ID, err)
	}
	next.ID, next.OrderID, next.Kind, next.About, next.ResendOf = id, l.OrderID, l.Kind, "resend/"+id.String(), &l.ID
	if _, err := o.Post(tx, []Letter{next}); err != nil {
		return nil, err
	}
	return find(tx.DB, id.String())
}
