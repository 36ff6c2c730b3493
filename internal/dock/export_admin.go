package dock

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"quayside/internal/fault"
	"quayside/internal/web"
)

// maxExports is how many exports one process has under way: each holds a
// connection of the pool that the rest of the API uses, too.
const maxExports = 2

const totalHeader = "Total-Count"

// ExportParams are the parameters of every export. Huma fills exported embedded types only.
type ExportParams struct {
	From   time.Time `query:"from" doc:"Only what is at or after this time (RFC 3339); the operation says which time of it counts"`
	To     time.Time `query:"to" doc:"Only what is before this time (RFC 3339)"`
	Format Format    `query:"format" enum:"csv,jsonl" default:"csv" doc:"csv: the first line names the columns, and text that a spreadsheet might calculate begins with an apostrophe; jsonl: one JSON object a line"`
}

func (p ExportParams) query() (Query, error) {
	q := Query{From: p.From, To: p.To, Format: p.Format}
	if !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To) {
		return q, fault.New(fault.Unprocessable, "invalid_period", "There is nothing in this period.").
			With(fault.Field{Location: "query.from", Message: "must be before to"})
	}
	return q, nil
}

type exportOrders struct {
	ExportParams
	Status string `query:"status" enum:"pending,paid,payment_failed,expired,cancelled,fulfilled" doc:"Only orders that stand here"`
}

type exportPayments struct {
	ExportParams
	State string `query:"state" enum:"created,pending,failed,expired,completed" doc:"Only payments that stand here"`
}

type exportRefunds struct {
	ExportParams
	State string `query:"state" enum:"approved,sent,confirmed,waived,withdrawn" doc:"Only refunds that stand here"`
}

type exportMovements struct {
	ExportParams
	Kind string `query:"kind" enum:"initial,adjust,correct,reserve,release,commit,return" doc:"Only movements of this kind"`
}

type exportProducts struct{ ExportParams }

type exportEvents struct {
	ExportParams
	State string `query:"state" enum:"received,parked,quarantined,dead,refused,applied,ignored" doc:"Only events that stand here"`
}

func (d *Dock) exportRoutes(api huma.API) {
	tags := web.Tag(api, "Export", "Everything at once, as a file: for accounting, for spreadsheets")
	route(api, d, tags, "orders", func(in *exportOrders) (ExportParams, string) { return in.ExportParams, in.Status })
	route(api, d, tags, "payments", func(in *exportPayments) (ExportParams, string) { return in.ExportParams, in.State })
	route(api, d, tags, "refunds", func(in *exportRefunds) (ExportParams, string) { return in.ExportParams, in.State })
	route(api, d, tags, "movements", func(in *exportMovements) (ExportParams, string) { return in.ExportParams, in.Kind })
	route(api, d, tags, "products", func(in *exportProducts) (ExportParams, string) { return in.ExportParams, "" })
	route(api, d, tags, "events", func(in *exportEvents) (ExportParams, string) { return in.ExportParams, in.State })
}

// route adds the operation that exports a table.
func route[I any](api huma.API, d *Dock, tags []string, name string, read func(in *I) (p ExportParams, state string)) {
	t := TableOf(name)
	huma.Register(api, huma.Operation{
		OperationID: "export-" + name, Security: web.Needs(t.Scope), Method: http.MethodGet, Path: "/api/v1/exports/" + name,
		Summary: "Export " + name, Tags: tags, Responses: map[string]*huma.Response{"200": t.answer()},
		Description: t.about + ". The period asks " + t.period + ". All rows are of one moment, and amounts are exact. When something fails after the answer has begun, " +
			"the connection is cut: what ends properly is whole. 503 busy: other exports are under way.\n\nColumns: `" + strings.Join(t.names(), "`, `") + "`.",
	}, func(_ context.Context, in *I) (*huma.StreamResponse, error) {
		p, state := read(in)
		q, err := p.query()
		if err != nil {
			return nil, err
		}
		q.State = state
		return d.export(t, q), nil
	})
}

// answer is what the document says of the file.
func (t *Table) answer() *huma.Response {
	file := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Description: "The file"}}
	return &huma.Response{
		Description: "The file",
		Headers:     map[string]*huma.Header{totalHeader: {Description: "How many rows follow", Schema: &huma.Schema{Type: huma.TypeInteger}}},
		Content:     map[string]*huma.MediaType{contentTypes[CSV]: file, contentTypes[Lines]: file},
	}
}

var contentTypes = map[Format]string{CSV: "text/csv; charset=utf-8", Lines: "application/x-ndjson"}

// export answers with the rows of t.
func (d *Dock) export(t *Table, q Query) *huma.StreamResponse {
	return web.Stream(contentTypes[q.Format], func(ctx context.Context, header http.Header, out *bufio.Writer) error {
		select {
		case d.exports <- struct{}{}:
			defer func() { <-d.exports }()
		default:
			return fault.New(fault.Unavailable, "busy", "Other exports are under way: ask again in a moment.")
		}
		header.Set("Content-Disposition", `attachment; filename="`+t.Name+"."+string(q.Format)+`"`)
		return Export(ctx, d.db, t, q, out, Progress{Total: func(rows int64) { header.Set(totalHeader, strconv.FormatInt(rows, 10)) }})
	})
}
