package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"quayside/internal/fault"
)

const goodKey = "qs_live_good-key_000000000000000000000000000"

// toy is a server with a few operations that have every kind of input.
type toy struct {
	http.Handler
	log *lines
	api huma.API
}

type toyItem struct {
	SKU      string `json:"sku" minLength:"1"`
	Quantity int32  `json:"quantity" minimum:"1"`
}

type toyBody struct {
	Name     string            `json:"name" minLength:"1" maxLength:"2000000"`
	Price    Money             `json:"price"`
	Items    []toyItem         `json:"items" maxItems:"100"`
	Status   string            `json:"status,omitempty" enum:"new,old"`
	Email    string            `json:"email,omitempty" format:"email"`
	Due      *time.Time        `json:"due,omitempty"`
	Discount *Money            `json:"discount,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

type toyInput struct{ Body toyBody }

type toyOutput struct{ Body toyBody }

type toyQuery struct {
	PageParams
	Status string    `query:"status" enum:"new,old"`
	From   time.Time `query:"from"`
	Least  Money     `query:"least"`
}

type toyFailure struct {
	Kind string `path:"kind"`
}

type unencodable struct{}

func (unencodable) MarshalJSON() ([]byte, error) { return nil, errors.New("canary-marshal") }

func newToy(t *testing.T, change ...func(*Options)) *toy {
	t.Helper()
	logged := &lines{}
	o := Options{Log: slog.New(slog.NewJSONHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, f := range change {
		f(&o)
	}
	e, err := NewEngine(o)
	if err != nil {
		t.Fatal(err)
	}
	api := NewAPI(e, APIOptions{Version: "1.2.3", AdminKeys: []string{"other-key", goodKey}})
	registerToys(api)
	registerPlain(e)
	return &toy{Handler: e, log: logged, api: api}
}

func registerToys(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "create-toy", Security: Needs("toys:read"), Method: http.MethodPost, Path: "/api/v1/toys",
		DefaultStatus: http.StatusCreated, Errors: []int{http.StatusConflict},
	}, func(ctx context.Context, in *toyInput) (*toyOutput, error) {
		NoteContext(ctx, slog.Bool("ran", true), slog.String("actor", Actor(ctx)))
		return &toyOutput{in.Body}, nil
	})
	huma.Register(api, huma.Operation{
		OperationID: "list-toys", Security: Needs("toys:read"), Method: http.MethodGet, Path: "/api/v1/toys",
	}, func(_ context.Context, in *toyQuery) (*struct{ Body Page[toyItem] }, error) {
		parts, err := DecodeCursor(in.After, 1)
		if err != nil {
			return nil, err
		}
		rows := []toyItem{{"a", 1}, {"b", 2}, {"c", 3}}
		for len(parts) > 0 && len(rows) > 0 && rows[0].SKU <= parts[0] {
			rows = rows[1:]
		}
		page := NewPage(rows[:min(len(rows), in.Limit+1)], in.Limit, func(i toyItem) string { return EncodeCursor(i.SKU) })
		return &struct{ Body Page[toyItem] }{page}, nil
	})
	huma.Register(api, huma.Operation{
		OperationID: "fail", Security: Needs("toys:read"), Method: http.MethodGet, Path: "/api/v1/failures/{kind}", Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(_ context.Context, in *toyFailure) (*struct{ Body any }, error) {
		if in.Kind == "marshal" {
			return &struct{ Body any }{unencodable{}}, nil
		}
		return nil, failure(in.Kind)
	})
}

var failureKinds = map[string]fault.Kind{
	"internal": fault.Internal, "invalid": fault.Invalid, "unauthorized": fault.Unauthorized,
	"notfound": fault.NotFound, "conflict": fault.Conflict, "unprocessable": fault.Unprocessable,
	"notimplemented": fault.NotImplemented, "unavailable": fault.Unavailable,
}

func failure(kind string) error {
	cause := errors.New("canary-cause: password=hunter2")
	switch kind {
	case "plain":
		return fmt.Errorf("load: %w", cause)
	case "panic":
		panic("canary-panic")
	case "abort":
		panic(http.ErrAbortHandler)
	case "teapot":
		return Refuse(http.StatusTeapot, "teapot", "I am one.")
	case "huma404":
		return huma.Error404NotFound("no such toy", cause)
	case "huma500":
		return huma.Error500InternalServerError("canary-message", cause)
	case "huma503":
		return huma.Error503ServiceUnavailable("canary-message")
	}
	return fmt.Errorf("fail: %w", fault.Wrap(failureKinds[kind], "toy_code", cause, "The toy is broken.").
		With(fault.Field{Location: "items[0].quantity", Message: "must be less"}))
}

func registerPlain(e *gin.Engine) {
	e.GET("/healthz", func(c *gin.Context) { c.String(200, "ok") })
	e.POST("/webhooks/payqi", func(c *gin.Context) {
		Note(c, slog.String("verdict", "accepted"))
		c.String(200, "OK")
	})
	e.POST("/webhooks/broken/:kind", func(c *gin.Context) { Fail(c, failure(c.Param("kind"))) })
	e.GET("/o/:token", func(c *gin.Context) { c.String(200, c.ClientIP()) })
	e.GET("/plain/:kind", func(c *gin.Context) { Fail(c, failure(c.Param("kind"))) })
	e.POST("/large", func(c *gin.Context) {
		_, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, 10))
		Fail(c, err)
	})
	e.GET("/half", func(c *gin.Context) {
		c.String(200, "half an answer")
		panic("canary-panic")
	})
}

// request is what a test sends; the good key unless the header says otherwise.
type request struct {
	method, target, body string
	header               http.Header
	change               func(*http.Request)
}

func (s *toy) send(t *testing.T, q request) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(q.method, q.target, strings.NewReader(q.body))
	r.Header.Set("Authorization", "Bearer "+goodKey)
	for name, values := range q.header {
		r.Header.Del(name)
		if len(values) > 0 {
			r.Header[name] = values
		}
	}
	if q.change != nil {
		q.change(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func problemIn(t *testing.T, w *httptest.ResponseRecorder) Problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != problemType {
		t.Fatalf("content type is %q, body %s", got, w.Body)
	}
	var p Problem
	dec := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		t.Fatalf("problem %s: %v", w.Body, err)
	}
	if p.Status != w.Code || p.Type != "about:blank" || p.Code == "" || p.Title == "" || p.Detail == "" {
		t.Errorf("status %d with incomplete problem %s", w.Code, w.Body)
	}
	if p.RequestID == "" || p.RequestID != w.Header().Get("X-Request-Id") {
		t.Errorf("request id %q in the body, %q in the header", p.RequestID, w.Header().Get("X-Request-Id"))
	}
	return p
}

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// all returns the lines as objects.
func (l *lines) all(t *testing.T) []map[string]any {
	t.Helper()
	var list []map[string]any
	for line := range strings.Lines(l.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		list = append(list, m)
	}
	return list
}

func (l *lines) only(t *testing.T) map[string]any {
	t.Helper()
	all := l.all(t)
	if len(all) != 1 {
		t.Fatalf("%d log lines, want 1:\n%s", len(all), l)
	}
	return all[0]
}
