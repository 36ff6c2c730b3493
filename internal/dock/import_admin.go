package dock

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/web"
)

// The media types of files that come in.
const (
	typeCSV   = "text/csv"
	typeLines = "application/x-ndjson"
	typeJSONL = "application/jsonl"
)

func (d *Dock) importRoutes(api huma.API) {
	tags := web.Tag(api, "Import", "Products, stock and orders from files, line by line; a line has its whole effect or none")
	missing := []int{http.StatusNotFound}
	var kinds strings.Builder
	for _, k := range Kinds {
		_, _ = fmt.Fprintf(&kinds, "\n- %s: each line %s; columns `%s`; scope `%s`", k.Name, k.about, strings.Join(k.Columns(), "`, `"), k.Scope)
	}
	huma.Register(api, web.Upload(huma.Operation{
		OperationID: "create-import", Security: web.Needs("imports:write"), Method: http.MethodPost, Path: "/api/v1/imports", DefaultStatus: http.StatusAccepted,
		Summary: "Import a file", Tags: tags, Errors: []int{http.StatusConflict},
		Description: "CSV: the first line names the columns, with commas, semicolons or tabs between them. JSON lines: on each the body of the request named below. " +
			"At most 32 MiB, 1,000,000 lines and 64 KiB a line. A file that cannot be read is refused as a whole; a line that cannot be carried out has no effect, " +
			"and its error is in /api/v1/imports/{id}/errors. 409 already_imported: the same file came before; too_many_imports: 100 wait already.\n" + kinds.String(),
	}, MaxBytes, typeCSV, typeLines, typeJSONL), d.take)
	huma.Register(api, huma.Operation{
		OperationID: "list-imports", Security: web.Needs("imports:read"), Method: http.MethodGet, Path: "/api/v1/imports", Summary: "List imports, newest first", Tags: tags,
		Description: "Also those that have ended.",
	}, d.list)
	huma.Register(api, huma.Operation{
		OperationID: "show-import", Security: web.Needs("imports:read"), Method: http.MethodGet, Path: "/api/v1/imports/{id}", Summary: "Show how far an import is", Tags: tags, Errors: missing,
		Description: "lines is the sum of applied, failed and left.",
	}, d.show)
	huma.Register(api, huma.Operation{
		OperationID: "list-import-errors", Security: web.Needs("imports:read"), Method: http.MethodGet, Path: "/api/v1/imports/{id}/errors", Summary: "List the lines of an import that failed", Tags: tags, Errors: missing,
		Description: "In the order of the file, each with where and why, as the API would have refused it by itself.",
	}, d.listErrors)
	huma.Register(api, huma.Operation{
		OperationID: "cancel-import", Security: web.Needs("imports:write"), Method: http.MethodDelete, Path: "/api/v1/imports/{id}", DefaultStatus: http.StatusOK, Summary: "Cancel what is left of an import", Tags: tags,
		Errors:      []int{http.StatusNotFound, http.StatusConflict},
		Description: "What is applied stays. It takes the scope that the import itself took as well. 409 import_ended.",
	}, d.cancelImport)
}

// ImportView is an import as the admin API promises it. It is exported because
// huma documents the fields of exported embedded types only.
type ImportView struct {
	ID        string     `json:"id" doc:"Ours"`
	Kind      string     `json:"kind" enum:"products,stock,orders" doc:"What its lines are"`
	Format    Format     `json:"format" enum:"csv,jsonl" doc:"How the file was written"`
	DryRun    bool       `json:"dry_run" doc:"Lines are only tried, each by itself, and undone"`
	State     State      `json:"state" enum:"waiting,done,cancelled,stopped" doc:"waiting: for a worker, or under way; done: every line was applied or has an error; stopped: it failed again and again, and not by a line"`
	Lines     int        `json:"lines" doc:"How many lines the file has, without its first and without blank ones"`
	Applied   int        `json:"applied" doc:"How many lines were applied, or in a dry run would be"`
	Failed    int        `json:"failed" doc:"How many lines failed: they had no effect"`
	Left      int        `json:"left" doc:"How many lines have not been looked at"`
	Digest    string     `json:"sha256" doc:"SHA-256 of the file, in hex"`
	Reason    string     `json:"reason" doc:"Why it could not go on when it was tried last; empty when it could"`
	CreatedAt time.Time  `json:"created_at" doc:"When the file came"`
	CreatedBy string     `json:"created_by" doc:"Who sent it: admin:NAME, or shell:USER for quayside import"`
	EndedAt   *time.Time `json:"ended_at" doc:"When it was done, cancelled or stopped"`
}

func (i Import) view() ImportView {
	v := ImportView{
		ID: i.ID.String(), Kind: i.Kind, Format: i.Format, DryRun: i.DryRun, State: i.State, Lines: i.Lines, Applied: i.Applied, Failed: i.Failed, Left: i.Left(),
		Digest: i.Digest, Reason: i.Reason, CreatedAt: i.CreatedAt.UTC(), CreatedBy: i.CreatedBy,
	}
	if i.EndedAt != nil {
		at := i.EndedAt.UTC()
		v.EndedAt = &at
	}
	return v
}

type takeInput struct {
	Kind   string `query:"kind" required:"true" enum:"products,stock,orders" doc:"What the lines are"`
	DryRun bool   `query:"dry_run" doc:"Only try each line by itself, as things stand now, and undo it: what two lines would do to each other is not seen"`
	Again  bool   `query:"again" doc:"Import it though the same file came before"`
}

// permit refuses who may not do by hand what an import of this kind does.
func (k *Kind) permit(ctx context.Context) error {
	if web.Allowed(ctx, k.Scope) {
		return nil
	}
	return web.Refuse(http.StatusForbidden, "missing_scope", "This key has nothing to do with imports of %s: it lacks the scope %s.", k.Name, k.Scope)
}

type takeOutput struct {
	Location string `header:"Location" doc:"Where to ask how far it is"`
	Body     ImportView
}

func (d *Dock) take(ctx context.Context, in *takeInput) (*takeOutput, error) {
	k := KindOf(in.Kind)
	if err := k.permit(ctx); err != nil {
		return nil, err
	}
	sent, format := web.FileOf(ctx), Lines
	if sent.Type == typeCSV {
		format = CSV
	}
	f, err := NewFile(k, format, sent.Body)
	if err != nil {
		return nil, err
	}
	i, err := d.Take(ctx, f, Options{DryRun: in.DryRun, Again: in.Again})
	if err != nil {
		return nil, err
	}
	return &takeOutput{Location: "/api/v1/imports/" + i.ID.String(), Body: i.view()}, nil
}

type importsInput struct {
	web.PageParams
	Kind  string `query:"kind" enum:"products,stock,orders" doc:"Only imports of these"`
	State string `query:"state" enum:"waiting,done,cancelled,stopped" doc:"Only imports that stand here"`
}

func (d *Dock) list(ctx context.Context, in *importsInput) (*struct{ Body web.Page[ImportView] }, error) {
	after, err := web.AfterID(in.After)
	if err != nil {
		return nil, err
	}
	q := d.db.Read(ctx).Order("id DESC").Limit(in.Limit + 1)
	if after != nil {
		q = q.Where("id < ?", *after)
	}
	if in.Kind != "" {
		q = q.Where("kind = ?", in.Kind)
	}
	if in.State != "" {
		q = q.Where("state = ?", in.State)
	}
	var rows []Import
	if err := q.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list imports: %w", database.Classify(err))
	}
	vs := make([]ImportView, len(rows))
	for i, r := range rows {
		vs[i] = r.view()
	}
	return &struct{ Body web.Page[ImportView] }{web.NewPage(vs, in.Limit, func(v ImportView) string { return web.EncodeCursor(v.ID) })}, nil
}

// ImportPath names an import in a path. Huma fills exported embedded types only.
type ImportPath struct {
	ID string `path:"id" maxLength:"64" doc:"The import's id"`
}

// id is the zero UUID, which no import has, when it is none.
func (p ImportPath) id() uuid.UUID {
	id, err := uuid.Parse(p.ID)
	if err != nil {
		return uuid.Nil
	}
	return id
}

type importOutput struct{ Body ImportView }

func (d *Dock) show(ctx context.Context, in *ImportPath) (*importOutput, error) {
	i, err := d.Find(ctx, in.id())
	if err != nil {
		return nil, err
	}
	return &importOutput{i.view()}, nil
}

type lineErrorView struct {
	Line    int          `json:"line" doc:"Of the file, counted from 1"`
	Code    string       `json:"code" doc:"What is wrong, for programs: the code with which the API would have refused it" example:"insufficient_stock"`
	Message string       `json:"message" doc:"What is wrong, for people"`
	Fields  []PlaceError `json:"fields" doc:"What is wrong with single columns"`
}

type lineErrorsInput struct {
	ImportPath
	web.PageParams
}

func (d *Dock) listErrors(ctx context.Context, in *lineErrorsInput) (*struct{ Body web.Page[lineErrorView] }, error) {
	if _, err := d.Find(ctx, in.id()); err != nil {
		return nil, err
	}
	cursor, err := web.DecodeCursor(in.After, 1)
	if err != nil {
		return nil, err
	}
	after := 0
	if cursor != nil {
		if after, err = strconv.Atoi(cursor[0]); err != nil || after < 0 || after > MaxBytes {
			return nil, web.BadCursor()
		}
	}
	rows, err := d.Errors(ctx, in.id(), after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	vs := make([]lineErrorView, len(rows))
	for i, r := range rows {
		vs[i] = lineErrorView{Line: r.Line, Code: r.Code, Message: r.Message, Fields: r.Fields}
	}
	page := web.NewPage(vs, in.Limit, func(v lineErrorView) string { return web.EncodeCursor(strconv.Itoa(v.Line)) })
	return &struct{ Body web.Page[lineErrorView] }{page}, nil
}

func (d *Dock) cancelImport(ctx context.Context, in *ImportPath) (*importOutput, error) {
	return access.Once(ctx, d.db, func(ctx context.Context, tx database.Tx) (*importOutput, error) {
		var was Import
		i, err := d.cancel(tx, in.id(), func(i Import) error {
			was = i
			return KindOf(i.Kind).permit(ctx)
		})
		if err != nil {
			return nil, err
		}
		access.Changed(ctx, i.subject(), was.view(), i.view())
		return &importOutput{i.view()}, nil
	})
}

func (i Import) subject() string { return "import/" + i.ID.String() }
