package access

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"gorm.io/gorm"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

// auditRoutes adds what people have done to api.
func (k *Keys) auditRoutes(api huma.API) {
	tags := web.Tag(api, "Audit", "Who did what through this API and the shell. What stands here is never changed, and is sealed within seconds")
	huma.Register(api, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/api/v1/audit", Security: web.Needs("audit:read"),
		Summary: "List what was done, newest first", Tags: tags,
		Description: "One entry for each write that had its effect; what was refused had none. Filters add up.",
	}, k.listAudit)
	huma.Register(api, huma.Operation{
		OperationID: "show-audit", Method: http.MethodGet, Path: "/api/v1/audit/{id}", Security: web.Needs("audit:read", web.ReadPII),
		Summary: "Show what an entry has changed", Tags: tags, Errors: []int{http.StatusNotFound},
		Description: "The fields that were not the same before and after, as the API showed them to who acted.",
	}, k.showAudit)
}

// Entry is a row of audit_log, with its seal.
type Entry struct {
	ID           int64
	At           time.Time
	Actor        string
	KeyID        string
	Operation    string
	Method       string
	Path         string
	Subject      string
	RequestID    string
	Before       *string // JSON; nil when it was not there, or is erased
	After        *string
	ChangeDigest []byte
	ErasedAt     *time.Time

	Number   *int64 // Number, Hash and SealedAt of the seal: nil while it waits for one
	Hash     []byte
	SealedAt *time.Time
}

// AuditView is an entry of the audit log as the admin API promises it. It is
// exported because huma documents the fields of exported embedded types only.
type AuditView struct {
	ID           string     `json:"id" doc:"Ours; entries of requests at the same time may appear in another order"`
	At           time.Time  `json:"at" doc:"When"`
	Actor        string     `json:"actor" doc:"Who: admin:NAME, or shell:USER" example:"admin:warehouse"`
	KeyID        string     `json:"key_id" doc:"Of the API key; bootstrap for ADMIN_API_KEY, shell for a command"`
	Operation    string     `json:"operation" doc:"The operationId of this document" example:"cancel-order"`
	Method       string     `json:"method" doc:"Of the request; shell for a command"`
	Path         string     `json:"path" doc:"Of the request; the command" example:"/api/v1/orders/1001/cancellation"`
	Subject      string     `json:"subject" doc:"To what it was done" example:"order/1001"`
	RequestID    string     `json:"request_id" doc:"Its X-Request-Id, which finds it in the log; empty for a command"`
	ChangeDigest string     `json:"change_digest" doc:"SHA-256, salted, of what was before and after: what the seal holds of it"`
	ErasedAt     *time.Time `json:"erased_at" doc:"When what was before and after was erased, with a person's data; null: it was not"`
	Seal         *SealView  `json:"seal" doc:"Null for the seconds until a worker seals it"`
}

// SealView is the seal of an entry.
type SealView struct {
	Number   int64     `json:"number" doc:"Counts the seals from 1"`
	Hash     string    `json:"hash" doc:"SHA-256 of the hash before it and of the entry, in hex"`
	SealedAt time.Time `json:"sealed_at" doc:"When it was sealed"`
}

// AuditDetail is an AuditView with what has changed.
type AuditDetail struct {
	AuditView
	Before any `json:"before" doc:"What is different now, as it was; null when it was not there, or is erased"`
	After  any `json:"after" doc:"What is different now, as it is; null when it is erased"`
}

func (e Entry) view() AuditView {
	v := AuditView{
		ID: strconv.FormatInt(e.ID, 10), At: e.At.UTC(), Actor: e.Actor, KeyID: e.KeyID, Operation: e.Operation, Method: e.Method, Path: e.Path,
		Subject: e.Subject, RequestID: e.RequestID, ChangeDigest: hex.EncodeToString(e.ChangeDigest), ErasedAt: utc(e.ErasedAt),
	}
	if e.Number != nil {
		v.Seal = &SealView{Number: *e.Number, Hash: hex.EncodeToString(e.Hash), SealedAt: e.SealedAt.UTC()}
	}
	return v
}

type auditInput struct {
	web.PageParams
	Actor     string    `query:"actor" maxLength:"254" doc:"Only what this one did: admin:NAME, or shell:USER"`
	Operation string    `query:"operation" maxLength:"64" doc:"Only this operation" example:"cancel-order"`
	Subject   string    `query:"subject" maxLength:"254" doc:"Only what was done to this" example:"order/1001"`
	RequestID string    `query:"request_id" maxLength:"64" doc:"Only what this request did"`
	From      time.Time `query:"from" doc:"Only at or after this time (RFC 3339)"`
	To        time.Time `query:"to" doc:"Only before this time (RFC 3339)"`
}

func (k *Keys) listAudit(ctx context.Context, in *auditInput) (*struct{ Body web.Page[AuditView] }, error) {
	q := entries(k.db.Read(ctx), auditColumns).Order("a.id DESC").Limit(in.Limit + 1)
	for column, want := range map[string]string{"actor": in.Actor, "operation": in.Operation, "subject": in.Subject, "request_id": in.RequestID} {
		if want != "" {
			q = q.Where("a."+column+" = ?", want)
		}
	}
	if !in.From.IsZero() {
		q = q.Where("a.at >= ?", in.From)
	}
	if !in.To.IsZero() {
		q = q.Where("a.at < ?", in.To)
	}
	after, err := web.DecodeCursor(in.After, 1)
	if err != nil {
		return nil, err
	}
	if after != nil {
		id, err := strconv.ParseInt(after[0], 10, 64)
		if err != nil {
			return nil, web.BadCursor()
		}
		q = q.Where("a.id < ?", id)
	}
	var rows []Entry
	if err := q.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list the audit log: %w", database.Classify(err))
	}
	vs := make([]AuditView, len(rows))
	for i, e := range rows {
		vs[i] = e.view()
	}
	return &struct{ Body web.Page[AuditView] }{web.NewPage(vs, in.Limit, func(v AuditView) string { return web.EncodeCursor(v.ID) })}, nil
}

const auditColumns = "a.id, a.at, a.actor, a.key_id, a.operation, a.method, a.path, a.subject, a.request_id, a.change_digest, a.erased_at, s.number, s.hash, s.sealed_at"

// entries are those of the audit log, each with its seal, if it has one.
func entries(db *gorm.DB, columns string) *gorm.DB {
	return db.Table("audit_log a").Select(columns).Joins("LEFT JOIN audit_seals s ON s.entry_id = a.id")
}

// AuditPath names an entry in a path. Huma fills exported embedded types only.
type AuditPath struct {
	ID string `path:"id" maxLength:"20" doc:"The entry's id"`
}

func (k *Keys) showAudit(ctx context.Context, in *AuditPath) (*struct{ Body AuditDetail }, error) {
	var rows []Entry
	if id, err := strconv.ParseInt(in.ID, 10, 64); err == nil {
		if err := entries(k.db.Read(ctx), auditColumns+", a.before, a.after").Where("a.id = ?", id).Find(&rows).Error; err != nil {
			return nil, fmt.Errorf("entry %d of the audit log: %w", id, database.Classify(err))
		}
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "audit_entry_not_found", "there is no such entry of the audit log")
	}
	d := AuditDetail{AuditView: rows[0].view()}
	if err := errors.Join(parse(rows[0].Before, &d.Before), parse(rows[0].After, &d.After)); err != nil {
		return nil, fmt.Errorf("entry %s of the audit log: %w", d.ID, err)
	}
	return &struct{ Body AuditDetail }{d}, nil
}

func parse(from *string, to *any) error {
	if from == nil {
		return nil
	}
	return json.Unmarshal([]byte(*from), to)
}
