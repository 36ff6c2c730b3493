package web

import (
	"errors"
	"net/http"
	"testing"
)

// An ETag stands for the fields; a reader's matches weakly, a writer's only
// strongly, and a writer without one is not held up.
func TestETag(t *testing.T) {
	one, err := ETag(map[string]int{"n": 1})
	same, _ := ETag(map[string]int{"n": 1})
	two, _ := ETag(map[string]int{"n": 2})
	if err != nil || one != same || one == two || len(one) != 34 || one[0] != '"' {
		t.Fatal(one, same, two, err)
	}
	for header, want := range map[string]struct{ known, passes bool }{
		"": {false, true}, one: {true, true}, two: {false, false}, "*": {true, true}, "W/" + one: {true, false},
		two + ", " + one: {true, true}, `"` + one + `"`: {false, false}, one[1:33]: {false, false},
	} {
		if (IfNoneMatch{header}).Known(one) != want.known {
			t.Errorf("If-None-Match %s: known %v", header, !want.known)
		}
		err := (IfMatch{header}).Check(one)
		p, _ := errors.AsType[*Problem](err)
		if (err == nil) != want.passes || err != nil && (p == nil || p.Status != http.StatusPreconditionFailed || p.Code != "precondition_failed") {
			t.Errorf("If-Match %s: %v", header, err)
		}
	}
}
