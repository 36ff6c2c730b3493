package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"regexp"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
)

const (
	idempotencyHeader = "Idempotency-Key"
	replayedHeader    = "Idempotency-Replayed"
)

var idempotencyKey = regexp.MustCompile(`^[\x21-\x7e]{1,255}$`)

// Once is a request that its sender may repeat without fear: one that carries
// an Idempotency-Key.
type Once struct {
	Caller    string // id of the key that sent it
	Operation string // method and path
	Key       string
	Digest    string // SHA-256 of the body and the query, in hex

	header func(name, value string)
}

// Replayed notes that the answer is the one given before.
func (o *Once) Replayed() { o.header(replayedHeader, "true") }

type onceKey struct{}

// OnceOf returns the request of ctx, nil when it carries no Idempotency-Key.
func OnceOf(ctx context.Context) *Once {
	o, _ := ctx.Value(onceKey{}).(*Once)
	return o
}

// noteOnce reads the Idempotency-Key of a POST, for who carries it out. It
// comes after the login and after strictBody, which has read the body.
func noteOnce(hc huma.Context, next func(huma.Context)) {
	c := humagin.Unwrap(hc)
	keys := c.Request.Header.Values(idempotencyHeader)
	if c.Request.Method != http.MethodPost || len(keys) == 0 {
		next(hc)
		return
	}
	if len(keys) > 1 || !idempotencyKey.MatchString(keys[0]) {
		p := Refuse(http.StatusBadRequest, "invalid_idempotency_key", "The Idempotency-Key cannot be read.")
		p.Errors = []FieldError{{"header." + idempotencyHeader, "must be given once, as 1 to 255 visible ASCII characters"}}
		failHuma(hc, p)
		return
	}
	h := sha256.New()
	if f := FileOf(hc.Context()); f != nil {
		_, _ = h.Write(f.Body)
	} else if hc.Operation().RequestBody != nil {
		body, _ := io.ReadAll(c.Request.Body) // from memory
		c.Request.Body = io.NopCloser(bytes.NewReader(body))
		_, _ = h.Write(body)
	}
	if query := c.Request.URL.RawQuery; query != "" { // a rehearsal is another wish
		_, _ = h.Write([]byte("\x00?" + query))
	}
	next(huma.WithValue(hc, onceKey{}, &Once{
		Caller: CallerID(hc.Context()), Operation: c.Request.Method + " " + c.Request.URL.Path, Key: keys[0], Digest: hex.EncodeToString(h.Sum(nil)), header: hc.SetHeader,
	}))
}

// documentOnce says of a POST that it may be repeated.
func documentOnce(op *huma.Operation) {
	longest := 255
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: idempotencyHeader, In: "header", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: &longest},
		Description: "Makes the request safe to repeat for a week: the same key with the same body has one effect and gets the same answer. Make up a new one for each wish, such as a UUID",
	})
}
