//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// document is the OpenAPI document as plain JSON: the tests below look at all of it.
func (w *world) document() (doc map[string]any) {
	w.t.Helper()
	w.must(json.Unmarshal([]byte(w.ask(http.MethodGet, "/openapi.json", "", "Authorization", "").body), &doc))
	return doc
}

// operations calls f for each operation of the document.
func operations(doc map[string]any, f func(method, path string, op map[string]any)) {
	paths := doc["paths"].(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := paths[path].(map[string]any)
		for _, method := range slices.Sorted(maps.Keys(item)) {
			f(strings.ToUpper(method), path, item[method].(map[string]any))
		}
	}
}

// Every operation says in a line and in a paragraph what it does, and every
// parameter, field, answer and refusal of it what it means.
func TestAPIIsDocumented(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	doc := w.document()
	tags := map[string]bool{}
	for _, tag := range doc["tags"].([]any) {
		tag := tag.(map[string]any)
		tags[tag["name"].(string)] = tag["description"] != nil
	}
	told := func(of map[string]any, key, what string) {
		t.Helper()
		if text, _ := of[key].(string); strings.TrimSpace(text) == "" {
			t.Errorf("%s has no %s", what, key)
		}
	}
	n := 0
	operations(doc, func(method, path string, op map[string]any) {
		n++
		what := method + " " + path
		told(op, "summary", what)
		told(op, "description", what)
		told(op, "operationId", what)
		for _, tag := range op["tags"].([]any) {
			if !tags[tag.(string)] {
				t.Errorf("%s is among %s, which is not described", what, tag)
			}
		}
		parameters, _ := op["parameters"].([]any)
		for _, p := range parameters {
			p := p.(map[string]any)
			told(p, "description", fmt.Sprintf("%s: parameter %s", what, p["name"]))
		}
		for status, r := range op["responses"].(map[string]any) {
			r := r.(map[string]any)
			if ref, ok := r["$ref"].(string); ok {
				r = lookup(doc, ref).(map[string]any)
			}
			told(r, "description", what+": answer "+status)
			if content := r["content"].(map[string]any); len(content) == 0 {
				t.Errorf("%s: answer %s has no content", what, status)
			}
		}
		says := method == http.MethodPost && !strings.HasSuffix(path, "/confirmation") || method == http.MethodPut || method == http.MethodPatch
		if (op["requestBody"] != nil) != says {
			t.Errorf("%s: a body: %v", what, op["requestBody"] != nil)
		}
	})
	if n < 16 {
		t.Errorf("only %d operations are documented", n)
	}
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		properties, _ := schemas[name].(map[string]any)["properties"].(map[string]any)
		for _, field := range slices.Sorted(maps.Keys(properties)) {
			told(properties[field].(map[string]any), "description", name+"."+field)
		}
	}
	for _, s := range doc["components"].(map[string]any)["securitySchemes"].(map[string]any) {
		told(s.(map[string]any), "description", "a security scheme")
	}
	told(doc["info"].(map[string]any), "description", "the API")
}

// lookup follows a reference such as #/components/responses/Problem400.
func lookup(doc map[string]any, ref string) (v any) {
	v = doc
	for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		v = v.(map[string]any)[name]
	}
	return v
}

// What is documented is there: nothing answers that there is nothing at its
// address or that it has not this method, and what it answers is documented.
func TestAPIIsThere(t *testing.T) {
	t.Parallel()
	w := stockroom(t)
	operations(w.document(), func(method, path string, op map[string]any) {
		for _, ids := range [][2]string{{"open", "mug"}, {"none", "none"}} {
			where := strings.NewReplacer("{sku}", ids[1], "{id}", ids[0]).Replace(path)
			r := w.ask(method, where, map[string]string{http.MethodPost: "{}"}[method])
			if r.code() == "not_found" || r.status == http.StatusMethodNotAllowed || r.status >= 500 {
				t.Errorf("%s %s: %d %s", method, where, r.status, r.body)
			}
			if op["responses"].(map[string]any)[fmt.Sprint(r.status)] == nil {
				t.Errorf("%s %s: its %d is not documented", method, where, r.status)
			}
			if r.header.Get("X-Request-Id") == "" || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: %v", method, where, r.header)
			}
		}
	})
}

// HEAD answers wherever GET does, with the same status and headers and without
// the body. Another method is 405 and told which there are. Every answer names
// its request.
func TestMethods(t *testing.T) {
	t.Parallel()
	w := stockroom(t)
	address := strings.TrimPrefix(w.order("open").StatusURL, w.cfg.PublicURL)
	for path, key := range map[string]string{
		"/api/v1/orders": "Bearer " + worldKey, "/api/v1/orders/open": "Bearer " + worldKey, "/api/v1/orders/none": "Bearer " + worldKey,
		"/api/v1/products/mug/movements": "Bearer " + worldKey, "/api/v1/stats?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z": "Bearer " + worldKey,
		"/api/v1/cases": "", "/healthz": "", "/readyz": "", "/docs": "", "/docs/swagger-ui.css": "", "/openapi.json": "", address: "", address + "/status": "", "/nothing": "",
	} {
		get, head := w.ask(http.MethodGet, path, "", "Authorization", key), w.ask(http.MethodHead, path, "", "Authorization", key)
		if head.status != get.status || head.body != "" || head.header.Get("Content-Type") != get.header.Get("Content-Type") ||
			head.header.Get("Content-Security-Policy") != get.header.Get("Content-Security-Policy") {
			t.Errorf("HEAD %s: %d %v %q, GET: %d %v", path, head.status, head.header, head.body, get.status, get.header)
		}
		if get.header.Get("X-Request-Id") == "" || head.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: an answer without a request id", path)
		}
	}
	doc := w.document()
	operations(doc, func(_, path string, _ map[string]any) {
		where := strings.NewReplacer("{sku}", "mug", "{id}", "open").Replace(path)
		var want []string
		for method := range doc["paths"].(map[string]any)[path].(map[string]any) {
			want = append(want, strings.ToUpper(method))
			if method == "get" {
				want = append(want, http.MethodHead)
			}
		}
		for _, method := range []string{http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, "BREW"} {
			if slices.Contains(want, method) {
				continue
			}
			r := w.ask(method, where, "")
			allowed := strings.Split(r.header.Get("Allow"), ", ")
			slices.Sort(allowed)
			slices.Sort(want)
			if r.status != http.StatusMethodNotAllowed || r.code() != "method_not_allowed" || !slices.Equal(allowed, want) || r.header.Get("X-Request-Id") == "" {
				t.Errorf("%s %s: %d %v, want Allow %v", method, where, r.status, r.header, want)
			}
		}
	})
	if r := w.ask(http.MethodGet, "/api/v1/orders", "", "X-Request-Id", "mine-1"); r.header.Get("X-Request-Id") != "mine-1" {
		t.Errorf("the caller's request id became %q", r.header.Get("X-Request-Id"))
	}
}
