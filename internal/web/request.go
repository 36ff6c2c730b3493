package web

import (
	"context"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
)

// Request is what an operation of the admin API was asked by, without what was sent.
type Request struct {
	Operation string // of the OpenAPI document
	Method    string
	Path      string // as it was asked for
}

type requestKey struct{}

// By returns ctx of somebody who asks for an operation otherwise than over HTTP.
func By(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestOf returns what ctx was asked by; nothing is filled where it was by nobody.
func RequestOf(ctx context.Context) Request {
	r, _ := ctx.Value(requestKey{}).(Request)
	return r
}

// noteRequest notes which operation is carried out, for the audit log.
func noteRequest(hc huma.Context, next func(huma.Context)) {
	r := humagin.Unwrap(hc).Request
	next(huma.WithContext(hc, By(hc.Context(), Request{Operation: hc.Operation().OperationID, Method: r.Method, Path: r.URL.Path})))
}
