package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

const toyJSON = `{"name":"bear","price":"10.00","items":[{"sku":"a","quantity":2}]}`

// with replaces or adds fields of toyJSON, as text.
func with(field, value string) string {
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(toyJSON), &m); err != nil {
		panic(err)
	}
	delete(m, field)
	rest, _ := json.Marshal(m)
	return `{"` + field + `":` + value + "," + string(rest[1:])
}

// Every body that is not exactly what the operation takes is refused with the
// place and the mend, and never with the value.
func TestBodies(t *testing.T) {
	s := newToy(t)
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		name, body string
		status     int
		code, at   string // at: location and message, joined by a space
	}{
		{"good", toyJSON, 201, "", ""},
		{"good with everything", with("metadata", `{"a":"b"},"status":"old","email":"a@b.de","due":"2026-01-31T15:04:05Z","discount":"1.5"`), 201, "", ""},
		{"optional null", with("email", "null"), 201, "", ""},
		{"empty", "", 400, "missing_body", ""},
		{"space", "  ", 400, "malformed_json", ""},
		{"broken", `{"name":`, 400, "malformed_json", ""},
		{"trailing", toyJSON + "x", 400, "malformed_json", ""},
		{"two values", toyJSON + toyJSON, 400, "malformed_json", ""},
		{"byte order mark", "\ufeff" + toyJSON, 400, "malformed_json", ""},
		{"comment", toyJSON + "/**/", 400, "malformed_json", ""},
		{"NaN", with("name", "NaN"), 400, "malformed_json", ""},
		{"not UTF-8", with("name", "\"canary\xff\""), 400, "malformed_json", ""},
		{"NUL", with("name", `"canary\u0000"`), 400, "malformed_json", "name A string of the body holds NUL (U+0000)."},
		{"NUL in a name", with("metadata", `{"a\u0000":"b"}`), 400, "malformed_json", ""},
		{"array", `[]`, 400, "malformed_json", "body must be an object"},
		{"null", `null`, 400, "malformed_json", "body must be an object"},
		{"string", `"canary"`, 400, "malformed_json", "body must be an object"},
		{"nested 65", with("metadata", deep(64)), 400, "malformed_json", ""},
		{"nested 10000", deep(10000), 400, "malformed_json", ""},
		{"nested 64 is read", with("metadata", deep(63)), 400, "invalid_type", "metadata must be an object"},
		{"twice", `{"name":"canary",` + toyJSON[1:], 400, "malformed_json", "name A field comes twice; names that differ only by case count as the same."},
		{"twice by case", `{"NAME":"canary",` + toyJSON[1:], 400, "malformed_json", "name A field comes twice; names that differ only by case count as the same."},
		{"twice by a fold", `{"\u017ftatus":"new","status":"old",` + toyJSON[1:], 400, "malformed_json", "status A field comes twice; names that differ only by case count as the same."},
		{"twice below", with("items", `[{"sku":"a","quantity":1},{"sku":"a","quantity":1,"sku":"b"}]`), 400, "malformed_json", "items[1].sku A field comes twice; names that differ only by case count as the same."},
		{"other case", strings.Replace(toyJSON, `"name"`, `"NAME"`, 1), 400, "unknown_field", "NAME is not a field of this request; leave it out"},
		{"unknown", with("paid", "true"), 400, "unknown_field", "paid is not a field of this request; leave it out"},
		{"unknown below", with("items", `[{"sku":"a","quantity":1,"price":1}]`), 400, "unknown_field", "items[0].price is not a field of this request; leave it out"},
		{"id", with("id", `"canary"`), 400, "unknown_field", "id is not a field of this request; leave it out"},
		{"float", with("items", `[{"sku":"a","quantity":1.5}]`), 400, "invalid_type", "items[0].quantity must be a whole number, written in digits only"},
		{"1.0", with("items", `[{"sku":"a","quantity":1.0}]`), 400, "invalid_type", "items[0].quantity must be a whole number, written in digits only"},
		{"1e3", with("items", `[{"sku":"a","quantity":1},{"sku":"a","quantity":1e3}]`), 400, "invalid_type", "items[1].quantity must be a whole number, written in digits only"},
		{"string for number", with("items", `[{"sku":"a","quantity":"canary"}]`), 400, "invalid_type", "items[0].quantity must be a whole number, written in digits only"},
		{"int32 and one", with("items", `[{"sku":"a","quantity":2147483648}]`), 400, "invalid_type", "items[0].quantity must be from -2147483648 to 2147483647"},
		{"int64 and one", with("items", `[{"sku":"a","quantity":9223372036854775808}]`), 400, "invalid_type", "items[0].quantity must be from -2147483648 to 2147483647"},
		{"1e400", with("items", `[{"sku":"a","quantity":1e400}]`), 400, "invalid_type", "items[0].quantity must be a number"},
		{"number for string", with("name", "12"), 400, "invalid_type", "name must be a string"},
		{"null for required", with("name", "null"), 400, "invalid_type", "name must be a string"},
		{"null for array", with("items", "null"), 400, "invalid_type", "items must be an array"},
		{"money as number", with("price", "10.00"), 400, "invalid_type", "price must be a string"},
		{"money with exponent", with("price", `"1e3"`), 422, "invalid_request", `price must be an amount such as "10.00"`},
		{"negative money", with("price", `"-1"`), 422, "invalid_request", `price must be an amount such as "10.00"`},
		{"too small", with("items", `[{"sku":"a","quantity":0}]`), 422, "invalid_request", "items[0].quantity must be 1 or more"},
		{"too short", with("name", `""`), 422, "invalid_request", "name must have 1 characters or more"},
		{"not in the list", with("status", `"canary"`), 422, "invalid_request", `status must be one of "new, old"`},
		{"e-mail", with("email", `"canary"`), 422, "invalid_request", "email must be an e-mail address such as ann@example.com"},
		{"time", with("due", `"canary"`), 422, "invalid_request", "due must be a time such as 2026-01-31T15:04:05Z (RFC 3339)"},
		{"missing", `{"name":"bear","price":"1"}`, 422, "invalid_request", "items is required"},
		{"missing below", with("items", `[{"sku":"a"}]`), 422, "invalid_request", "items[0].quantity is required"},
	} {
		w := s.send(t, request{method: "POST", target: "/api/v1/toys", body: c.body})
		readsAlike(t, c.name, c.body, w)
		if w.Code != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, w.Code, w.Body, c.status)
			continue
		}
		if c.status == 201 {
			continue
		}
		p := problemIn(t, w)
		if p.Code != c.code || strings.Contains(w.Body.String(), "canary") {
			t.Errorf("%s: %s", c.name, w.Body)
		}
		var at []string
		for _, e := range p.Errors {
			at = append(at, e.Location+" "+e.Message)
		}
		if c.at != "" && !slices.Contains(at, c.at) {
			t.Errorf("%s: errors %q, want %q", c.name, at, c.at)
		}
	}
	if strings.Contains(s.log.String(), "canary") {
		t.Errorf("a value is in the log:\n%s", s.log)
	}
}

// readsAlike compares Read with what a request of that body was answered.
func readsAlike(t *testing.T, name, body string, w *httptest.ResponseRecorder) {
	t.Helper()
	_, err := Read[toyBody]([]byte(body))
	if (err == nil) != (w.Code == http.StatusCreated) {
		t.Errorf("%s: answered %d, read with %v", name, w.Code, err)
	}
	if err == nil || body == "" {
		return
	}
	read, answered := Explain(err), problemIn(t, w)
	if read.Code != answered.Code || read.Detail != answered.Detail || !slices.Equal(read.Errors, answered.Errors) {
		t.Errorf("%s: answered %+v, read with %+v", name, answered, read)
	}
}

// Several wrong fields are told at once, a thousand of them are cut short.
func TestManyErrors(t *testing.T) {
	s := newToy(t)
	p := problemIn(t, s.send(t, request{method: "POST", target: "/api/v1/toys", body: `{"name":"","price":"x","items":[{"sku":"","quantity":0}]}`}))
	if p.Status != 422 || len(p.Errors) != 4 {
		t.Errorf("%+v", p)
	}
	var b strings.Builder
	for range 1000 {
		b.WriteString(`,"` + strings.Repeat("x", 200+b.Len()%1000) + string(rune('a'+b.Len()%26)) + strings.Repeat("y", b.Len()/1000) + `":1`)
	}
	w := s.send(t, request{method: "POST", target: "/api/v1/toys", body: toyJSON[:len(toyJSON)-1] + b.String() + "}"})
	if w.Body.Len() > 20_000 {
		t.Errorf("an answer of %d bytes", w.Body.Len())
	}
}

// Only JSON in UTF-8 is read; a body without a type counts as that.
func TestContentTypes(t *testing.T) {
	s := newToy(t)
	for value, status := range map[string]int{
		"": 201, "application/json": 201, "Application/JSON; charset=UTF-8": 201,
		"application/json; charset=latin1": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415,
		"multipart/form-data; boundary=x": 415, "application/vnd.x+json": 415, "json": 415, "garbage/": 415,
		"application/json, text/plain": 415,
	} {
		h := http.Header{"Content-Type": nil}
		if value != "" {
			h.Set("Content-Type", value)
		}
		if w := s.send(t, request{method: "POST", target: "/api/v1/toys", body: toyJSON, header: h}); w.Code != status {
			t.Errorf("%q: %d %s", value, w.Code, w.Body)
		} else if status == 415 && problemIn(t, w).Code != "unsupported_media_type" {
			t.Errorf("%q: %s", value, w.Body)
		}
	}
	for value, status := range map[string]int{"gzip": 415, "br": 415, "deflate": 415, "identity": 201} {
		if w := s.send(t, request{method: "POST", target: "/api/v1/toys", body: toyJSON, header: http.Header{"Content-Encoding": {value}}}); w.Code != status {
			t.Errorf("encoding %q: %d", value, w.Code)
		}
	}
}

// A body of exactly the limit is read, one byte more is refused, also when the
// length is not announced.
func TestBodyLimit(t *testing.T) {
	s := newToy(t)
	frame := len(with("name", `""`))
	for _, announced := range []bool{true, false} {
		for size, status := range map[int]int{maxBodyBytes - 1: 201, maxBodyBytes: 201, maxBodyBytes + 1: 413} {
			body := with("name", `"`+strings.Repeat("a", size-frame)+`"`)
			w := s.send(t, request{method: "POST", target: "/api/v1/toys", body: body, change: func(r *http.Request) {
				if !announced {
					r.ContentLength = -1
				}
			}})
			if w.Code != status {
				t.Errorf("%d bytes, announced %v: %d", size, announced, w.Code)
			} else if status == 413 && problemIn(t, w).Code != "body_too_large" {
				t.Errorf("%s", w.Body)
			}
		}
	}
}

// A query holds documented parameters, each once, each readable.
func TestQueries(t *testing.T) {
	s := newToy(t)
	for query, want := range map[string]struct {
		status   int
		code, at string
	}{
		"":                           {200, "", ""},
		"limit=1":                    {200, "", ""},
		"limit=200":                  {200, "", ""},
		"status=new":                 {200, "", ""},
		"from=2026-01-31T15:04:05Z":  {200, "", ""},
		"least=10.00":                {200, "", ""},
		"limit=abc":                  {400, "invalid_parameter", "query.limit must be a whole number, written in digits only"},
		"limit=1.5":                  {400, "invalid_parameter", "query.limit must be a whole number, written in digits only"},
		"limit=":                     {400, "invalid_parameter", "query.limit is empty; give a value or leave it out"},
		"limit=1&limit=2":            {400, "invalid_parameter", "query.limit must be given once"},
		"limit=99999999999999999999": {400, "invalid_parameter", "query.limit must be a whole number, written in digits only"},
		"from=canary":                {400, "invalid_parameter", "query.from must be a time such as 2026-01-31T15:04:05Z (RFC 3339)"},
		"least=1e3":                  {400, "invalid_parameter", "query.least does not have the form this field needs"},
		"sort=(select canary)":       {400, "unknown_parameter", "query.sort is not a parameter of this request; leave it out"},
		"filter[id][$ne]=":           {400, "unknown_parameter", ""},
		"LIMIT=1":                    {400, "unknown_parameter", ""},
		"limit=1;status=new":         {400, "invalid_parameter", ""},
		"limit=0":                    {422, "invalid_request", "query.limit must be 1 or more"},
		"limit=-1":                   {422, "invalid_request", "query.limit must be 1 or more"},
		"limit=201":                  {422, "invalid_request", "query.limit must be 200 or less"},
		"status=canary":              {422, "invalid_request", `query.status must be one of "new, old"`},
		"after=canary":               {400, "invalid_cursor", "query.after must be the next_cursor of the page before"},
	} {
		w := s.send(t, request{method: "GET", target: "/api/v1/toys?" + strings.ReplaceAll(query, " ", "%20")})
		if w.Code != want.status {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
			continue
		}
		if want.status == 200 {
			continue
		}
		p := problemIn(t, w)
		if p.Code != want.code || strings.Contains(w.Body.String(), "canary") {
			t.Errorf("%s: %s", query, w.Body)
		}
		if want.at != "" && (len(p.Errors) != 1 || p.Errors[0].Location+" "+p.Errors[0].Message != want.at) {
			t.Errorf("%s: %s", query, w.Body)
		}
	}
}
