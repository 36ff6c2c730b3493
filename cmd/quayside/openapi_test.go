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
		if (op["requestBody"] != nil) != (method == http.MethodPost) {
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
