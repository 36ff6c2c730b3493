package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// Whoever does not send one good key in one header stays outside, before the
// body is read; the scheme's case does not matter.
func TestLogin(t *testing.T) {
	for name, c := range map[string]struct {
		values []string
		status int
	}{
		"good":           {[]string{"Bearer " + goodKey}, 201},
		"other good key": {[]string{"Bearer other-key"}, 201},
		"lower case":     {[]string{"bearer " + goodKey}, 201},
		"upper case":     {[]string{"BEARER " + goodKey}, 201},
		"none":           {nil, 401},
		"empty":          {[]string{""}, 401},
		"empty bearer":   {[]string{"Bearer"}, 401},
		"empty bearer 2": {[]string{"Bearer "}, 401},
		"basic":          {[]string{"Basic " + goodKey}, 401},
		"bare":           {[]string{goodKey}, 401},
		"two":            {[]string{"Bearer " + goodKey, "Bearer " + goodKey}, 401},
		"list":           {[]string{"Bearer " + goodKey + ", Bearer x"}, 401},
		"unknown":        {[]string{"Bearer unknown"}, 401},
		"cut short":      {[]string{"Bearer " + goodKey[:len(goodKey)-1]}, 401},
		"other case":     {[]string{"Bearer " + strings.ToUpper(goodKey)}, 401},
		"leading space":  {[]string{"Bearer  " + goodKey}, 401},
		"trailing space": {[]string{"Bearer " + goodKey + " "}, 401},
		"tab":            {[]string{"Bearer\t" + goodKey}, 401},
		"newline":        {[]string{"Bearer " + goodKey + "\n"}, 401},
		"NUL":            {[]string{"Bearer " + goodKey + "\x00"}, 401},
		"10 KB":          {[]string{"Bearer " + strings.Repeat("a", 10_000)}, 401},
		"not ASCII":      {[]string{"Bearer ключ"}, 401},
	} {
		body := &watched{Reader: strings.NewReader(toyJSON)}
		w := newToy(t).send(t, request{method: "POST", target: "/api/v1/toys", header: http.Header{"Authorization": c.values}, change: func(r *http.Request) { r.Body = body }})
		if w.Code != c.status {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
			continue
		}
		if c.status == 401 {
			if p := problemIn(t, w); p.Code != "unauthorized" || w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s: %s", name, w.Body)
			}
			if body.read {
				t.Errorf("%s: the body was read", name)
			}
		}
	}
}

type watched struct {
	*strings.Reader
	read bool
}

func (w *watched) Read(p []byte) (int, error) { w.read = true; return w.Reader.Read(p) }
func (w *watched) Close() error               { return nil }

// A key in the address is refused even when it is good: it must be revoked.
func TestKeyInQuery(t *testing.T) {
	s := newToy(t)
	for _, name := range []string{"api_key", "key", "access_token", "API_KEY"} {
		for _, header := range []http.Header{nil, {"Authorization": nil}} {
			w := s.send(t, request{method: "GET", target: "/api/v1/toys?" + name + "=" + goodKey, header: header})
			if p := problemIn(t, w); p.Status != 400 || p.Code != "key_in_query" || !strings.Contains(p.Detail, "Revoke") || strings.Contains(w.Body.String(), goodKey) {
				t.Errorf("%s: %s", name, w.Body)
			}
		}
	}
	if strings.Contains(s.log.String(), goodKey) {
		t.Error("the key is in the log")
	}
}

// Thirty failures in a row are answered, then an address has to wait; others
// and good keys do not.
func TestFailureLimit(t *testing.T) {
	s := newToy(t)
	from := func(addr, key string) int {
		w := s.send(t, request{method: "GET", target: "/api/v1/toys", header: http.Header{"Authorization": {"Bearer " + key}}, change: func(r *http.Request) { r.RemoteAddr = addr }})
		if w.Code == 429 {
			p := problemIn(t, w)
			if after, err := strconv.Atoi(w.Header().Get("Retry-After")); err != nil || after < 1 || after > 2 || p.Code != "too_many_failures" {
				t.Errorf("Retry-After %q, %s", w.Header().Get("Retry-After"), w.Body)
			}
		}
		return w.Code
	}
	codes := map[int]int{}
	for i := range 100 {
		codes[from("203.0.113.1:"+strconv.Itoa(i+1), "bad")]++
		if got := from("203.0.113.1:1", goodKey); got != 200 {
			t.Fatalf("a good key got %d", got)
		}
	}
	if codes[401] < 30 || codes[401] > 32 || codes[429] != 100-codes[401] {
		t.Errorf("answers %v", codes)
	}
	if got := from("203.0.113.2:1", "bad"); got != 401 {
		t.Errorf("another address got %d", got)
	}
	for i := range 31 {
		from(fmt.Sprintf("[2001:db8::%x]:1", i+1), "bad")
	}
	if got := from("[2001:db8::ffff]:1", "bad"); got != 429 {
		t.Errorf("another address of the same /64 got %d", got)
	}
}

// A limiter forgets, so that addresses cannot fill the memory.
func TestFailureMemory(t *testing.T) {
	f, now := newLimits(rate.Every(failureEvery), failureBurst), time.Now()
	for i := range 3 * maxWho {
		f.add(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), now)
	}
	if len(f.who) > maxWho {
		t.Errorf("%d addresses", len(f.who))
	}
	f.add("192.0.2.1", now.Add(time.Hour))
	if len(f.who) != 1 {
		t.Errorf("%d addresses after an hour", len(f.who))
	}
	for range failureBurst {
		f.add("192.0.2.2", now)
	}
	if wait := f.add("192.0.2.2", now); wait != failureEvery {
		t.Errorf("wait %v", wait)
	}
	if wait := f.add("192.0.2.2", now.Add(failureEvery)); wait != 0 {
		t.Errorf("wait %v after waiting", wait)
	}
}

// The API does not start with a key that nobody can send.
func TestAdminKeysNeeded(t *testing.T) {
	for _, keys := range [][]string{{""}, {goodKey, ""}, {"with space"}, {"tail\n"}, {strings.Repeat("a", 513)}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("keys %q were taken", keys)
				}
			}()
			newGate(keys, nil)
		}()
	}
}

// The OpenAPI document needs no key, says what operations refuse, and all its
// references lead somewhere.
func TestOpenAPI(t *testing.T) {
	s := newToy(t)
	w := s.send(t, request{method: "GET", target: "/openapi.json", header: http.Header{"Authorization": nil}})
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 {
		t.Fatalf("%d %v", w.Code, err)
	}
	if doc["openapi"] != "3.1.0" || dig(doc, "info", "version") != "1.2.3" || dig(doc, "components", "securitySchemes", "bearer", "scheme") != "bearer" {
		t.Errorf("document %v", doc["info"])
	}
	for _, ref := range regexp.MustCompile(`"\$ref":"#/([^"]*)"`).FindAllStringSubmatch(w.Body.String(), -1) {
		if dig(doc, strings.Split(ref[1], "/")...) == nil {
			t.Errorf("%s leads nowhere", ref[1])
		}
	}
	for path, item := range doc["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			want := []string{"400", "401", "403", "422", "429", "500", "503"}
			if method == "post" {
				want = append(want, "409", "413", "415")
			}
			for _, status := range want {
				if dig(op, "responses", status) == nil {
					t.Errorf("%s %s: no %s", method, path, status)
				}
			}
			if dig(op, "responses", "default") != nil || !reflect.DeepEqual(dig(op, "security"), []any{map[string]any{"bearer": []any{"toys:read"}}}) {
				t.Errorf("%s %s: %v", method, path, op)
			}
		}
	}
	if dig(doc, "paths", "/api/v1/failures/{kind}", "get", "responses", "404", "$ref") != "#/components/responses/Problem404" ||
		dig(doc, "components", "responses", "Problem404", "content", problemType, "schema", "$ref") != "#/components/schemas/Problem" {
		t.Error("the operation's own 404 is not a problem")
	}
	if dig(doc, "components", "schemas", "PageToyItem", "properties", "next_cursor") == nil || dig(doc, "components", "schemas", "Problem", "properties", "cause") != nil {
		t.Errorf("schemas %v", dig(doc, "components", "schemas"))
	}
	price, _ := dig(doc, "components", "schemas", "ToyBody", "properties", "price").(map[string]any)
	if price["type"] != "string" || price["pattern"] != moneyPattern || price["examples"] == nil {
		t.Errorf("price is %v", price)
	}
}

func dig(v any, names ...string) any {
	for _, name := range names {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

// Types of the same name in two packages have two names in the document.
func TestSchemaNames(t *testing.T) {
	for want, v := range map[string]any{
		"Problem": Problem{}, "ToyItem": toyItem{}, "PageToyItem": Page[toyItem]{}, "HttpHeader": http.Header{},
		"PageTimeTime": Page[time.Time]{}, "PageListHttpCookie": Page[[]http.Cookie]{}, "PageString": Page[string]{}, "Hint": struct{ A int }{},
	} {
		if got := schemaName(reflect.TypeOf(v), "hint"); got != want {
			t.Errorf("%T is named %s, want %s", v, got, want)
		}
	}
}

// The documentation page works without a network and under its own policy.
func TestDocs(t *testing.T) {
	s := newToy(t)
	w := s.send(t, request{method: "GET", target: "/docs", header: http.Header{"Authorization": nil}})
	policy := w.Header().Get("Content-Security-Policy")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "/openapi.json") || strings.Count(policy, "sha256-") != strings.Count(w.Body.String(), "<script>") {
		t.Fatalf("%d %s\n%s", w.Code, policy, w.Body)
	}
	if strings.Contains(policy, "unsafe-eval") || strings.Contains(strings.SplitAfter(policy, "style-src")[0], "unsafe-inline") {
		t.Errorf("policy %s", policy)
	}
	assets := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(w.Body.String(), -1)
	if len(assets) < 3 {
		t.Fatalf("assets %q", assets)
	}
	for _, a := range assets {
		if !strings.HasPrefix(a[1], "/docs/") {
			t.Errorf("asset %s is elsewhere", a[1])
			continue
		}
		if w := s.send(t, request{method: "GET", target: a[1]}); w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("asset %s: %d", a[1], w.Code)
		}
	}
}
