package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

// APIOptions says who may use the admin API.
type APIOptions struct {
	Version string // of the program, for the OpenAPI document
	// AdminKeys are accepted as Authorization: Bearer KEY and may do
	// everything; 1 to 512 visible ASCII characters each.
	AdminKeys []string
	// Keys are those that people were given, each with its scopes; may be nil.
	Keys Keyring
}

// NewAPI puts the admin API on e: callers register operations on what it
// returns, with full paths ("/api/v1/orders/{id}"). Every operation needs a
// key, refuses unknown parameters and fields, and answers errors as [Problem];
// 404 and 409 are documented where the operation names them in Errors. It also
// serves GET /openapi.json and GET /docs, without a key. It panics when
// AdminKeys holds a key that nobody could send.
func NewAPI(e *gin.Engine, o APIOptions) huma.API {
	speakOurWay()
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Quayside", Version: o.Version,
				Description: manual,
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName),
				SecuritySchemes: map[string]*huma.SecurityScheme{"bearer": {
					Type: "http", Scheme: "bearer", Description: "A key of the admin API: one of POST /api/v1/keys or of `quayside keys create`, or ADMIN_API_KEY",
				}},
			},
			OnAddOperation: []huma.AddOpFunc{documentOperation},
		},
		Formats:       map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{settleHuma},
	}
	api := humagin.New(e, config)
	documentProblems(api.OpenAPI())
	api.UseMiddleware(newGate(o.AdminKeys, o.Keys).check, noteRequest, strictQuery, strictBody, noteOnce)
	e.GET("/openapi.json", serveOpenAPI(api))
	mountDocs(e)
	return api
}

// manual is what the document says of all operations.
const manual = `The admin API of a shop that is paid through PayQI: orders, payments, stock, events and what people must decide.

**Key.** Send ` + "`Authorization: Bearer KEY`" + `. To try an operation on this page, press *Authorize* and enter the key; it is kept until the page is reloaded.

**Forms.** JSON in UTF-8. Money is a string (` + "`\"10.00\"`" + `), its currency stands beside it. Times are RFC 3339 in UTC. Fields and parameters that an operation does not know are refused.

**Lists** answer ` + "`data` and `next_cursor`" + `: give that cursor as ` + "`after`" + ` for the next page; it is null on the last.

**Errors** are RFC 9457 problems: ` + "`code`" + ` is for programs and stays the same, ` + "`detail` and `errors`" + ` are for people. 400: it cannot be read. 422: it can be read and breaks a rule. 409: the present state forbids it. 503: not now; ` + "`Retry-After`" + ` says when. Every answer has an ` + "`X-Request-Id`" + `, which finds it in the log; yours is taken when you send one.`

// Tag adds a group of operations to the document of api, below those before.
func Tag(api huma.API, name, description string) []string {
	doc := api.OpenAPI()
	doc.Tags = append(doc.Tags, &huma.Tag{Name: name, Description: description})
	return []string{name}
}

// failHuma answers err from a middleware.
func failHuma(hc huma.Context, err error) { Fail(humagin.Unwrap(hc), err) }

// settleHuma completes the problems that huma is about to write.
func settleHuma(hc huma.Context, _ string, v any) (any, error) {
	if p, ok := v.(*Problem); ok {
		return p.settle(hc.Context(), hc.SetHeader), nil
	}
	return v, nil
}

// jsonFormat writes an answer whole or not at all: huma has not sent the
// status yet, so a panic here still becomes a 500, where an error would become
// a 200 with half a body. A failing write means that the client is gone.
var jsonFormat = huma.Format{
	Marshal: func(w io.Writer, v any) error {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			panic(fmt.Errorf("encode answer: %w", err))
		}
		_, _ = w.Write(b.Bytes())
		return nil
	},
	Unmarshal: decodeJSON,
}

// everywhere are the refusals that any operation may answer with.
var everywhere = []int{
	http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity,
	http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
}

// withBody are the refusals of an operation that reads a body. Those of a
// single operation stand in its Errors.
var withBody = []int{
	http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType,
}

// problemNotes are all refusals of the API.
var problemNotes = map[int]string{
	http.StatusBadRequest:            "It cannot be read: not JSON, a field or parameter that is not known or has another type",
	http.StatusNotFound:              "There is none with this id",
	http.StatusPreconditionFailed:    "It has changed since it was read (If-Match)",
	http.StatusConflict:              "The present state forbids it; the code says why",
	http.StatusRequestTimeout:        "The body did not arrive in time",
	http.StatusRequestEntityTooLarge: "The body is larger than it may be: 1 MiB, or what the operation says",
	http.StatusUnsupportedMediaType:  "The body is not of a type that the operation takes, or compressed",
	http.StatusUnprocessableEntity:   "It can be read and breaks a rule; errors names the fields",
	http.StatusInternalServerError:   "A mistake of ours; the request id finds it in the log",
	http.StatusUnauthorized:          "No key, or one we do not accept",
	http.StatusForbidden:             "The key lacks a scope, or plain http where https is required",
	http.StatusTooManyRequests:       "Too many failed logins from this address, or too many requests with this key; Retry-After says when to come back",
	http.StatusNotImplemented:        "This installation is not set up for it; the detail says what is missing",
	http.StatusServiceUnavailable:    "Not now; Retry-After says when to come back",
}

func problemRef(status int) string { return "Problem" + strconv.Itoa(status) }

// documentProblems puts one response for each refusal into the components.
func documentProblems(doc *huma.OpenAPI) {
	schema := doc.Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "")
	text := &huma.Schema{Type: huma.TypeString}
	doc.Components.Responses = map[string]*huma.Response{}
	for status := range problemNotes {
		r := &huma.Response{
			Description: problemNotes[status],
			Headers:     map[string]*huma.Header{"X-Request-Id": {Description: "Names this request in our log", Schema: text}},
			Content:     map[string]*huma.MediaType{problemType: {Schema: schema}},
		}
		switch status {
		case http.StatusUnauthorized:
			r.Headers["WWW-Authenticate"] = &huma.Header{Schema: text}
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			r.Headers["Retry-After"] = &huma.Header{Description: "Seconds", Schema: &huma.Schema{Type: huma.TypeInteger}}
		}
		doc.Components.Responses[problemRef(status)] = r
	}
}

// documentOperation is called by huma for every operation that is registered.
func documentOperation(_ *huma.OpenAPI, op *huma.Operation) {
	delete(op.Responses, "default")
	statuses := everywhere
	if op.RequestBody != nil {
		statuses = append(append([]int{}, everywhere...), withBody...)
		if _, ok := uploadOf(op); !ok {
			op.MaxBodyBytes = maxBodyBytes + 1 // huma refuses at its limit, we above ours
		}
	}
	if op.Method == http.MethodPost {
		documentOnce(op)
		statuses = append(append([]int{}, statuses...), http.StatusConflict)
	}
	for _, status := range append(statuses, op.Errors...) {
		op.Responses[strconv.Itoa(status)] = &huma.Response{Ref: "#/components/responses/" + problemRef(status)}
	}
	if len(op.Security) != 1 || len(scopesOf(op)) == 0 {
		panic("web: operation " + op.OperationID + " declares no scope: give it Security: web.Needs(…)")
	}
	op.Description += "\n\nScope: `" + strings.Join(scopesOf(op), "`, `") + "`."
}

var qualified = regexp.MustCompile(`[\w./-]*?([\w-]+)\.(\w+)`)

// schemaName names a type after its package and itself, since several nouns
// have a view: orders.view is OrdersView, Page[orders.view] is PageOrdersView.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	own := reflect.TypeFor[Problem]().PkgPath()
	inner := qualified.ReplaceAllStringFunc(t.Name(), func(s string) string {
		m := qualified.FindStringSubmatch(s)
		if strings.HasPrefix(s, own+".") {
			return m[2]
		}
		return upper(m[1]) + upper(m[2])
	})
	if pkg := t.PkgPath(); inner != "" && pkg != "" && pkg != own {
		inner = upper(path.Base(pkg)) + upper(inner)
	}
	if inner == "" {
		inner = hint
	}
	return huma.DefaultSchemaNamer(reflect.TypeFor[struct{}](), inner) // of a type without a name it takes the hint
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func serveOpenAPI(api huma.API) gin.HandlerFunc {
	document := sync.OnceValues(func() ([]byte, error) { return json.Marshal(api.OpenAPI()) })
	return func(c *gin.Context) {
		doc, err := document()
		if err != nil {
			Fail(c, fmt.Errorf("encode openapi document: %w", err))
			return
		}
		c.Data(http.StatusOK, "application/json", doc)
	}
}
