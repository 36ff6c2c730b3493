package web

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"quayside/internal/fault"
)

// Following next_cursor visits every row once and ends with null.
func TestPages(t *testing.T) {
	s := newToy(t)
	var seen []string
	after := ""
	for range 10 {
		w := s.send(t, request{method: "GET", target: "/api/v1/toys?limit=2" + after})
		var page struct {
			Data       []toyItem `json:"data"`
			NextCursor *string   `json:"next_cursor"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		for _, i := range page.Data {
			seen = append(seen, i.SKU)
		}
		if page.NextCursor == nil {
			break
		}
		after = "&after=" + *page.NextCursor
	}
	if !slices.Equal(seen, []string{"a", "b", "c"}) {
		t.Errorf("seen %q", seen)
	}
	text, _ := json.Marshal(NewPage[int](nil, 5, nil))
	if string(text) != `{"data":[],"next_cursor":null}` {
		t.Errorf("an empty page is %s", text)
	}
}

// A cursor brings its parts back, and nothing else is one.
func TestCursors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.StringMatching(`[ -~é€]{0,20}`), 1, 4).Draw(t, "parts")
		got, err := DecodeCursor(EncodeCursor(parts...), len(parts))
		if err != nil || !slices.Equal(got, parts) {
			t.Fatalf("%q came back as %q, %v", parts, got, err)
		}
	})
	raw := base64.RawURLEncoding.EncodeToString
	good := EncodeCursor("a", "1")
	for name, s := range map[string]string{
		"padding": good + "=", "space": good + " ", "newline": good + "\n", "cut": good[:len(good)-1],
		"one part": EncodeCursor("a"), "three parts": EncodeCursor("a", "b", "c"),
		"other spelling": raw([]byte(`["a", "1"]`)), "numbers": raw([]byte(`["a",1]`)), "null": raw([]byte(`null`)),
		"NUL": EncodeCursor("a", "\x00"), "not UTF-8": raw([]byte("[\"a\",\"\xff\"]")), "trailing": raw([]byte(`["a","1"]x`)),
		"standard alphabet": "+/+/",
	} {
		_, err := DecodeCursor(s, 2)
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.Invalid || f.Code != "invalid_cursor" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if parts, err := DecodeCursor("", 2); parts != nil || err != nil {
		t.Errorf("no cursor: %q, %v", parts, err)
	}
}
