package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quayside/internal/fault"
)

// Of all kinds only an outage and what nobody classified are tried again.
func TestPermanent(t *testing.T) {
	again := map[fault.Kind]bool{fault.Internal: true, fault.Unavailable: true}
	for kind := fault.Internal; kind <= fault.Unavailable; kind++ {
		if got := fault.Permanent(fault.New(kind, "c", "m")); got == again[kind] {
			t.Errorf("kind %d: permanent %v", kind, got)
		}
	}
	if fault.Permanent(errors.New("nobody classified this")) {
		t.Error("an unclassified error is given up")
	}
}

// The kind nearest the surface counts, through any wrapping.
func TestKindOf(t *testing.T) {
	deep := fault.New(fault.NotFound, "no_order", "order %s is not here", "o1")
	for name, tc := range map[string]struct {
		err  error
		kind fault.Kind
		text string // for the log
		says string // to the client
	}{
		"none":          {nil, fault.Internal, "", "internal error"},
		"plain":         {errors.New("pq: secret detail"), fault.Internal, "pq: secret detail", "internal error"},
		"new":           {deep, fault.NotFound, "order o1 is not here", "order o1 is not here"},
		"wrapped by %w": {fmt.Errorf("load: %w", deep), fault.NotFound, "load: order o1 is not here", "order o1 is not here"},
		"joined":        {errors.Join(errors.New("x"), deep), fault.NotFound, "x\norder o1 is not here", "order o1 is not here"},
		"wrapped anew": {
			fault.Wrap(fault.Conflict, "busy", deep, "try later"), fault.Conflict,
			"try later: order o1 is not here", "try later",
		},
		"internal with words": {
			fault.Wrap(fault.Internal, "bug", deep, "a secret detail"), fault.Internal,
			"a secret detail: order o1 is not here", "internal error",
		},
	} {
		text := ""
		if tc.err != nil {
			text = tc.err.Error()
		}
		got := []any{fault.KindOf(tc.err), text, fault.Message(tc.err)}
		if diff := cmp.Diff([]any{tc.kind, tc.text, tc.says}, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// The cause can still be found, and fields add up.
func TestErrorCarriesCauseAndFields(t *testing.T) {
	cause := errors.New("cause")
	err := fault.Wrap(fault.Invalid, "bad", cause, "two things are wrong").
		With(fault.Field{Location: "a", Message: "x"}).With(fault.Field{Location: "b", Message: "y"})
	if !errors.Is(err, cause) || err.Code != "bad" || len(err.Fields) != 2 || err.Fields[1].Location != "b" {
		t.Errorf("got %+v", err)
	}
	if fault.New(fault.Invalid, "c", "m").Unwrap() != nil {
		t.Error("a new error has a cause")
	}
}
