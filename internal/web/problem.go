package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"quayside/internal/fault"
)

// Problem is the body of every refusal (RFC 9457). It is an error as well: a
// handler may return one for a status that no [fault.Kind] has.
type Problem struct { //nolint:errname // the word of RFC 9457
	Type      string       `json:"type" doc:"Always about:blank: the code says more" example:"about:blank"`
	Title     string       `json:"title" doc:"What the status means" example:"Conflict"`
	Status    int          `json:"status" doc:"The HTTP status" example:"409"`
	Detail    string       `json:"detail" doc:"What is wrong, for people" example:"Order 1001 is paid already."`
	Code      string       `json:"code" doc:"What is wrong, for programs; it stays the same" example:"order_paid"`
	Errors    []FieldError `json:"errors,omitempty" doc:"What is wrong with single fields"`
	RequestID string       `json:"request_id,omitempty" doc:"Names this request in our log" example:"0197c3a0-5b1e-7c39-9d1f-2f6d6c1f5a10"`

	cause      error // goes to the log, never to the client; may be nil
	retryAfter int   // seconds; 0: none, unless the status is 503
}

// FieldError is what is wrong with one part of a request.
type FieldError struct {
	Location string `json:"location" doc:"Where: a field of the body, or query.NAME, path.NAME, header.NAME" example:"items[0].quantity"`
	Message  string `json:"message" doc:"What would be right" example:"must be 1 or more"`
}

// Refuse returns a problem with a status of its own. code is snake_case and
// stable, the text is for people outside.
func Refuse(status int, code, format string, args ...any) *Problem {
	return &Problem{
		Type: "about:blank", Title: titleOf(status), Status: status, Code: code,
		Detail: fmt.Sprintf(format, args...),
	}
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status; huma asks for it.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns the media type of problems, whatever was negotiated.
func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// clientGone is nginx's number for a client that hung up before the answer.
const clientGone = 499

func titleOf(status int) string {
	if status == clientGone {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

// Fail ends a plain gin route with err: the status, code and message of a
// fault or problem, else a 500 that tells the client nothing and the log
// everything. Under /webhooks/ the answer is plain text, and an internal error
// is a 503 with Retry-After so that the sender tries again.
func Fail(c *gin.Context, err error) {
	c.Abort()
	p := problemOf(c.Request.Context(), err)
	if webhookPath(c) && p.Status == http.StatusInternalServerError {
		cause := p.cause
		p = Refuse(http.StatusServiceUnavailable, p.Code, "Error")
		p.cause = cause
	}
	p = p.settle(c.Request.Context(), c.Header)
	c.Writer.Header().Del("Content-Type") // of an answer that was begun; c.Data keeps what it finds
	if webhookPath(c) {
		c.Data(p.Status, "text/plain; charset=utf-8", []byte(p.Detail))
		return
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and a number
	}
	c.Data(p.Status, problemType, body)
}

// Refusal is [Fail] for a page that people read: it ends the route with err in
// every way but the body, which the caller writes in its own words.
func Refusal(c *gin.Context, err error) *Problem {
	c.Abort()
	ctx := c.Request.Context()
	return problemOf(ctx, err).settle(ctx, c.Header)
}

// settle returns p as this request's answer: it sets the headers that belong
// to the status, adds the request id and notes code and cause for the log.
func (p *Problem) settle(ctx context.Context, header func(name, value string)) *Problem {
	q := *p
	q.RequestID = RequestID(ctx)
	NoteContext(ctx, slog.String("code", q.Code))
	if q.cause != nil {
		NoteContext(ctx, slog.String("error", q.cause.Error()))
	}
	switch {
	case q.Status == http.StatusUnauthorized:
		header("WWW-Authenticate", "Bearer")
	case q.retryAfter > 0:
		header("Retry-After", strconv.Itoa(q.retryAfter))
	case q.Status == http.StatusServiceUnavailable:
		header("Retry-After", RetryAfter())
	}
	return &q
}

// problemOf says err in HTTP. Only the cause of a 5xx is kept for the log: the
// others are the caller's doing and may repeat what the caller sent.
func problemOf(ctx context.Context, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Kind != fault.Internal {
		return problemOfFault(f, err)
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return bodyTooLarge()
	}
	if ctx != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return Refuse(clientGone, "client_gone", "The client went away.")
	}
	p := Refuse(http.StatusInternalServerError, "internal", "Something went wrong on our side. The request id finds it in the log.")
	p.cause = err
	return p
}

func problemOfFault(f *fault.Error, err error) *Problem {
	status := statusOf(f.Kind)
	code := f.Code
	if code == "" {
		code = codeOf(status)
	}
	p := Refuse(status, code, "%s", f.Message)
	for _, field := range f.Fields {
		p.Errors = append(p.Errors, FieldError(field))
	}
	if status >= 500 {
		p.cause = err
	}
	return p
}

// statusOf is the HTTP column of the table in package fault.
func statusOf(k fault.Kind) int {
	switch k {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthorized:
		return http.StatusUnauthorized
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Unprocessable:
		return http.StatusUnprocessableEntity
	case fault.NotImplemented:
		return http.StatusNotImplemented
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Internal:
	}
	return http.StatusInternalServerError
}

// codeOf is the code of a problem that was given only a status.
func codeOf(status int) string {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return "invalid_request"
	case http.StatusUnauthorized:
		return "unauthorized"
	case http.StatusForbidden:
		return "forbidden"
	case http.StatusNotFound:
		return "not_found"
	case http.StatusRequestTimeout:
		return "request_timeout"
	case http.StatusConflict:
		return "conflict"
	case http.StatusPreconditionFailed:
		return "precondition_failed"
	case http.StatusRequestEntityTooLarge:
		return "body_too_large"
	case http.StatusUnsupportedMediaType:
		return "unsupported_media_type"
	case http.StatusTooManyRequests:
		return "too_many_requests"
	case http.StatusNotImplemented:
		return "not_implemented"
	case http.StatusServiceUnavailable:
		return "unavailable"
	}
	if status >= 500 {
		return "internal"
	}
	return "refused"
}

// RetryAfter is the value of a Retry-After header, in seconds: 5 ± 3, so that
// clients do not return in step.
func RetryAfter() string { return strconv.Itoa(2 + rand.IntN(7)) } //nolint:gosec // jitter
