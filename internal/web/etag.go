package web

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// ETag is the strong validator of an answer (RFC 9110): the same for the same
// fields, another as soon as one of them differs. v is the answer's body.
func ETag(v any) (string, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("validator of an answer: %w", err)
	}
	digest := sha256.Sum256(body)
	return `"` + hex.EncodeToString(digest[:16]) + `"`, nil
}

// IfNoneMatch is what a reader has already. Embed it in the input of an
// operation that shows one thing.
type IfNoneMatch struct {
	Has string `header:"If-None-Match" maxLength:"1000" doc:"The ETag of an earlier answer: when it is still the same, the answer is 304 without a body"`
}

// Known reports whether the reader has the answer with this ETag.
func (h IfNoneMatch) Known(etag string) bool { return lists(h.Has, etag, true) }

// IfMatch is what a writer has read. Embed it in the input of an operation
// that edits one thing.
type IfMatch struct {
	Read string `header:"If-Match" maxLength:"1000" doc:"The ETag of what was read: when it has changed since, nothing happens and the answer is 412. Without it the last one wins"`
}

// Check refuses with 412 what was decided on another state than the one whose
// ETag is etag. It belongs behind the lock.
func (h IfMatch) Check(etag string) error {
	if h.Read == "" || lists(h.Read, etag, false) {
		return nil
	}
	return Refuse(http.StatusPreconditionFailed, "precondition_failed", "It has changed since you read it: read it again, and decide anew.")
}

// lists reports whether a header names etag, or anything with *. Weak
// validators are good enough for reading only.
func lists(header, etag string, weak bool) bool {
	for item := range strings.SplitSeq(header, ",") {
		item = strings.TrimSpace(item)
		if weak {
			item = strings.TrimPrefix(item, "W/")
		}
		if item == etag || item == "*" {
			return true
		}
	}
	return false
}
