package web

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// An error has the same answer from huma as from a plain route: its kind's
// status, its code, message and fields, and nothing of an internal one.
func TestFaults(t *testing.T) {
	for kind, want := range map[string]struct {
		status int
		code   string
	}{
		"internal": {500, "internal"}, "plain": {500, "internal"}, "invalid": {400, "toy_code"},
		"unauthorized": {401, "toy_code"}, "notfound": {404, "toy_code"}, "conflict": {409, "toy_code"},
		"unprocessable": {422, "toy_code"}, "notimplemented": {501, "toy_code"}, "unavailable": {503, "toy_code"},
		"teapot": {418, "teapot"}, "huma404": {404, "not_found"}, "huma500": {500, "internal"}, "huma503": {503, "unavailable"},
	} {
		for _, prefix := range []string{"/plain/", "/api/v1/failures/"} {
			if strings.HasPrefix(kind, "huma") && prefix == "/plain/" {
				continue
			}
			s := newToy(t)
			w := s.send(t, request{method: "GET", target: prefix + kind})
			p := problemIn(t, w)
			if p.Status != want.status || p.Code != want.code {
				t.Errorf("%s%s: %s", prefix, kind, w.Body)
			}
			if strings.Contains(w.Body.String(), "canary") || strings.Contains(w.Body.String(), "hunter2") {
				t.Errorf("%s%s leaks: %s", prefix, kind, w.Body)
			}
			if want.code == "toy_code" && (p.Detail != "The toy is broken." || len(p.Errors) != 1 || p.Errors[0] != FieldError{"items[0].quantity", "must be less"}) {
				t.Errorf("%s%s: %s", prefix, kind, w.Body)
			}
			l := s.log.only(t)
			if logged, _ := l["error"].(string); (want.status >= 500) != strings.Contains(logged, "canary") {
				t.Errorf("%s%s: log %v", prefix, kind, l)
			}
			if l["code"] != want.code || l["request_id"] != p.RequestID {
				t.Errorf("%s%s: log %v", prefix, kind, l)
			}
			if (want.status == 401) != (w.Header().Get("WWW-Authenticate") == "Bearer") {
				t.Errorf("%s%s: WWW-Authenticate %q", prefix, kind, w.Header().Get("WWW-Authenticate"))
			}
			after, err := strconv.Atoi(w.Header().Get("Retry-After"))
			if (want.status == 503) != (err == nil && after >= 2 && after <= 8) {
				t.Errorf("%s%s: Retry-After %q", prefix, kind, w.Header().Get("Retry-After"))
			}
		}
	}
}

// An answer that cannot be encoded is a 500, not half a 200.
func TestUnencodableAnswer(t *testing.T) {
	s := newToy(t)
	w := s.send(t, request{method: "GET", target: "/api/v1/failures/marshal"})
	if p := problemIn(t, w); p.Status != 500 || strings.Contains(w.Body.String(), "canary") {
		t.Errorf("%s", w.Body)
	}
	if l := s.log.only(t); !strings.Contains(l["error"].(string), "canary-marshal") {
		t.Errorf("log %v", l)
	}
}

// Under /webhooks/ refusals are plain text and an internal error asks for a retry.
func TestWebhookFaults(t *testing.T) {
	for kind, want := range map[string]struct {
		status int
		body   string
	}{
		"plain": {503, "Error"}, "invalid": {400, "The toy is broken."}, "unavailable": {503, "The toy is broken."},
	} {
		w := newToy(t).send(t, request{method: "POST", target: "/webhooks/broken/" + kind})
		if w.Code != want.status || w.Body.String() != want.body || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %q", kind, w.Code, w.Body)
		}
		if (w.Code == 503) != (w.Header().Get("Retry-After") != "") {
			t.Errorf("%s: Retry-After %q", kind, w.Header().Get("Retry-After"))
		}
	}
}

// A plain route that reads too much says so by Fail.
func TestFailBodyTooLarge(t *testing.T) {
	w := newToy(t).send(t, request{method: "POST", target: "/large", body: strings.Repeat("a", 11)})
	if p := problemIn(t, w); p.Status != 413 || p.Code != "body_too_large" {
		t.Errorf("%s", w.Body)
	}
}

// A client that hung up is no error of ours.
func TestClientGone(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if p := problemOf(ctx, context.Canceled); p.Status != clientGone || p.cause != nil {
		t.Errorf("%+v", p)
	}
	if p := problemOf(context.Background(), context.Canceled); p.Status != http.StatusInternalServerError {
		t.Errorf("our own cancellation: %+v", p)
	}
}
