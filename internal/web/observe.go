package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var requestSeconds = promauto.NewHistogramVec(prometheus.HistogramOpts{
	Name:    "quayside_http_request_seconds",
	Help:    "Time from a request's headers to the end of its answer.",
	Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
}, []string{"method", "route", "status"})

// visit is what is known of a request while it is served.
type visit struct {
	id string

	mu    sync.Mutex
	attrs []slog.Attr
}

type visitKey struct{}

func visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v
}

// RequestID returns the id of the request that ctx belongs to, the one in its
// X-Request-Id; "" outside a request.
func RequestID(ctx context.Context) string {
	if v := visitOf(ctx); v != nil {
		return v.id
	}
	return ""
}

// Note adds attrs to the request's log line: ids, verdicts and reasons, never
// addresses, tokens or bodies.
func Note(c *gin.Context, attrs ...slog.Attr) { NoteContext(c.Request.Context(), attrs...) }

// NoteContext is [Note] for handlers that hold a context only. Outside a
// request it does nothing.
func NoteContext(ctx context.Context, attrs ...slog.Attr) {
	if v := visitOf(ctx); v != nil {
		v.mu.Lock()
		v.attrs = append(v.attrs, attrs...)
		v.mu.Unlock()
	}
}

// observe writes the one log line and the one measurement of a request.
func observe(log *slog.Logger) gin.HandlerFunc {
	return func(c *gin.Context) {
		start := time.Now()
		v := &visit{id: requestID(c.Request.Header)}
		c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), visitKey{}, v))
		c.Header("X-Request-Id", v.id)
		defer func() { // also when a handler gives up the connection by panicking
			report(c, log, v, time.Since(start))
		}()
		c.Next()
	}
}

var saneID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func requestID(h http.Header) string {
	if ids := h.Values("X-Request-Id"); len(ids) == 1 && saneID.MatchString(ids[0]) {
		return ids[0]
	}
	return uuid.Must(uuid.NewV7()).String()
}

func report(c *gin.Context, log *slog.Logger, v *visit, took time.Duration) {
	method, route, status := knownMethod(c.Request.Method), c.FullPath(), c.Writer.Status()
	if route == "" {
		route = "unmatched"
	}
	requestSeconds.WithLabelValues(method, route, strconv.Itoa(status)).Observe(took.Seconds())

	v.mu.Lock()
	defer v.mu.Unlock()
	attrs := append([]slog.Attr{
		slog.String("method", method),
		slog.String("route", route),
		slog.Int("status", status),
		slog.Float64("elapsed_ms", float64(took.Microseconds())/1000),
		slog.String("request_id", v.id),
		slog.Int("bytes", max(c.Writer.Size(), 0)),
	}, v.attrs...)
	if log.Enabled(c.Request.Context(), slog.LevelDebug) { // asked for, to set up proxies; else no addresses are logged
		attrs = append(attrs, slog.String("client", c.ClientIP()))
	}
	log.LogAttrs(c.Request.Context(), levelOf(c, status), "request", attrs...)
}

// knownMethod keeps a made-up method, which may hold anything, out of logs and
// out of metrics.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect:
		return m
	}
	return "OTHER"
}

func levelOf(c *gin.Context, status int) slog.Level {
	switch {
	case status == http.StatusServiceUnavailable, status == http.StatusNotImplemented:
		return slog.LevelWarn
	case status >= 500:
		return slog.LevelError
	case status >= 400 && webhookPath(c):
		return slog.LevelWarn
	case status < 400 && slices.Contains(probes, c.FullPath()):
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// webhookPath reports whether the sender is a machine that reads plain text.
func webhookPath(c *gin.Context) bool { return strings.HasPrefix(c.Request.URL.Path, "/webhooks/") }

// recovery turns a panic into a 500. The request itself is never dumped: its
// headers hold signatures and keys.
func recovery(c *gin.Context) {
	defer func() {
		cause := recover()
		switch {
		case cause == nil:
			return
		case cause == http.ErrAbortHandler: //nolint:errorlint // net/http compares it like this, too
			panic(cause)
		}
		Note(c, slog.String("stack", string(debug.Stack())))
		if c.Writer.Written() {
			Note(c, slog.String("error", fmt.Sprintf("panic: %v", cause)))
			c.Abort()
			panic(http.ErrAbortHandler) // a cut connection, rather than half an answer that looks whole
		}
		Fail(c, fmt.Errorf("panic: %v", cause))
	}()
	c.Next()
}
