package web

import (
	"context"
	"net/http"
	"unicode/utf8"
)

// ReadPII is the scope that shows customers' names and addresses.
const ReadPII = "pii:read"

// Personal is a customer's name or address as who acts may see it: its first
// letter and *** without the scope [ReadPII].
func Personal(ctx context.Context, s string) string {
	if s == "" || Allowed(ctx, ReadPII) {
		return s
	}
	_, first := utf8.DecodeRuneInString(s)
	return s[:first] + "***"
}

// NeedsPII refuses a filter by a name or an address, which would tell what
// [Personal] hides, to who may not read them.
func NeedsPII(ctx context.Context, parameter, value string) error {
	if value == "" || Allowed(ctx, ReadPII) {
		return nil
	}
	return Refuse(http.StatusForbidden, "missing_scope", "This key may not search for customers with %s: it lacks the scope %s.", parameter, ReadPII)
}
