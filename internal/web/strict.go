package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/danielgtaylor/huma/v2/validation"

	"quayside/internal/fault"
)

const (
	maxBodyBytes = 1 << 20
	maxNesting   = 64
)

// strictQuery refuses parameters that the operation does not document, that
// come twice or that are empty: a filter somebody forgot to fill in would
// otherwise list everything.
func strictQuery(hc huma.Context, next func(huma.Context)) {
	address := hc.URL()
	query, err := url.ParseQuery(address.RawQuery)
	if err != nil {
		failHuma(hc, Refuse(http.StatusBadRequest, "invalid_parameter", "The query cannot be read: it must be name=value pairs with & between them."))
		return
	}
	var unknown, invalid []FieldError
	for name, values := range query {
		at := short("query." + name)
		p := queryParam(hc.Operation(), name)
		switch {
		case p == nil:
			unknown = append(unknown, FieldError{at, notAParam})
		case len(values) > 1 && (p.Explode == nil || !*p.Explode):
			invalid = append(invalid, FieldError{at, "must be given once"})
		case len(values) == 1 && values[0] == "":
			invalid = append(invalid, FieldError{at, "is empty; give a value or leave it out"})
		}
	}
	p := Refuse(http.StatusBadRequest, "unknown_parameter", "The query has parameters this request does not know.")
	if p.Errors = unknown; len(unknown) == 0 {
		p = Refuse(http.StatusBadRequest, "invalid_parameter", "A parameter cannot be read.")
		p.Errors = invalid
	}
	if len(p.Errors) > 0 {
		failHuma(hc, p)
		return
	}
	next(hc)
}

func queryParam(op *huma.Operation, name string) *huma.Param {
	for _, p := range op.Parameters {
		if p.In == "query" && p.Name == name {
			return p
		}
	}
	return nil
}

// strictBody reads the body, refuses what is not exactly one sane JSON value
// and leaves the bytes for huma.
func strictBody(hc huma.Context, next func(huma.Context)) {
	op := hc.Operation()
	if op.RequestBody == nil {
		next(hc)
		return
	}
	if u, ok := uploadOf(op); ok {
		u.take(hc, next)
		return
	}
	c := humagin.Unwrap(hc)
	if p := contentProblem(c.Request.Header); p != nil {
		failHuma(hc, p)
		return
	}
	body, err := readBody(c.Writer, c.Request)
	switch {
	case err != nil:
	case len(body) > 0:
		err = checkJSON(body)
	case op.RequestBody.Required:
		err = Refuse(http.StatusBadRequest, "missing_body", "This request needs a JSON body.")
	}
	if err != nil {
		failHuma(hc, err)
		return
	}
	c.Request.Header.Set("Content-Type", "application/json") // huma compares it letter by letter
	c.Request.Body = io.NopCloser(bytes.NewReader(body))
	next(hc)
}

func contentProblem(h http.Header) *Problem {
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return Refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "Send the body uncompressed.")
	}
	said := h.Get("Content-Type")
	if said == "" {
		return nil
	}
	media, params, err := mime.ParseMediaType(said)
	charset, ok := params["charset"]
	if err != nil || media != "application/json" || ok && !strings.EqualFold(charset, "utf-8") {
		return Refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "Send the body as application/json in UTF-8.")
	}
	return nil
}

func bodyTooLarge() *Problem {
	return Refuse(http.StatusRequestEntityTooLarge, "body_too_large", "The body is larger than this request may have.")
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBodyBytes {
		return nil, bodyTooLarge()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err == nil {
		return body, nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, bodyTooLarge()
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return nil, Refuse(http.StatusRequestTimeout, "request_timeout", "The body did not arrive in time.")
	}
	return nil, Refuse(http.StatusBadRequest, "unreadable_body", "The body could not be read to its end.")
}

// checkJSON refuses what encoding/json lets through: bytes that are not UTF-8,
// names that come twice or differ only by case (the last would win, whatever
// was checked before), NUL in strings (Postgres has no place for it) and depth.
func checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return malformed("The body is not UTF-8.")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		if se, ok := errors.AsType[*json.SyntaxError](err); ok {
			return malformed("The body is not one JSON value: it stops making sense at byte %d.", se.Offset)
		}
		return malformed("The body is not one JSON value.")
	}
	return walkJSON(data, func(w *jsonWalk, tok json.Token) error {
		if len(w.open) > maxNesting {
			return malformed("The body is nested deeper than %d levels.", maxNesting)
		}
		if s, ok := tok.(string); ok && strings.Contains(s, "\x00") {
			return malformed("A string of the body holds NUL (U+0000).").at(w.path())
		}
		if w.twice {
			return malformed("A field comes twice; names that differ only by case count as the same.").at(w.path())
		}
		return nil
	})
}

func malformed(format string, args ...any) *Problem {
	return Refuse(http.StatusBadRequest, "malformed_json", format, args...)
}

func (p *Problem) at(location string) *Problem {
	p.Errors = append(p.Errors, FieldError{Location: short(location), Message: p.Detail})
	return p
}

// jsonWalk is a place in a JSON text.
type jsonWalk struct {
	open  []jsonLevel
	twice bool  // the name just read is already in this object
	end   int64 // offset behind the token just read
}

type jsonLevel struct {
	names   map[string]bool // folded; nil in an array
	name    string          // of the entry that is being read
	index   int             // in an array: of the item that is being read
	inValue bool            // the name has been read
}

// path is the place as the API writes it: items[0].quantity.
func (w *jsonWalk) path() string {
	var b strings.Builder
	for _, l := range w.open {
		switch {
		case l.names == nil:
			b.WriteString("[" + strconv.Itoa(l.index) + "]")
		case b.Len() > 0:
			b.WriteString("." + l.name)
		default:
			b.WriteString(l.name)
		}
	}
	return b.String()
}

// walkJSON calls visit for every token of a valid JSON text until it returns an error.
func walkJSON(data []byte, visit func(*jsonWalk, json.Token) error) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	w := &jsonWalk{}
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return malformed("The body is not one JSON value.")
		}
		w.end = dec.InputOffset()
		w.step(tok)
		if err := visit(w, tok); err != nil {
			return err
		}
		w.after(tok)
	}
}

// step enters what tok opens, or takes it as a name.
func (w *jsonWalk) step(tok json.Token) {
	w.twice = false
	switch tok {
	case json.Delim('{'):
		w.open = append(w.open, jsonLevel{names: map[string]bool{}})
		return
	case json.Delim('['):
		w.open = append(w.open, jsonLevel{})
		return
	case json.Delim('}'), json.Delim(']'):
		w.open = w.open[:len(w.open)-1]
		return
	}
	if len(w.open) == 0 {
		return
	}
	l := &w.open[len(w.open)-1]
	if name, ok := tok.(string); ok && l.names != nil && !l.inValue {
		l.name = name
		w.twice = l.names[fold(name)]
		l.names[fold(name)] = true
	}
}

// after moves on to the next name or item behind a value.
func (w *jsonWalk) after(tok json.Token) {
	if tok == json.Delim('{') || tok == json.Delim('[') || len(w.open) == 0 {
		return
	}
	l := &w.open[len(w.open)-1]
	switch {
	case l.names == nil:
		l.index++
	case l.inValue:
		l.inValue = false
	default:
		l.inValue = true
	}
}

// fold makes names equal that encoding/json takes for the same field.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, s)
}

const otherForm = "does not have the form this field needs"

// decodeJSON is json.Unmarshal with an error that says where and what, without
// the value. huma keeps nothing of an error but its text, so the place travels
// in the text and cutMark takes it out again.
func decodeJSON(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	if err == nil {
		return nil
	}
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return errors.New(mark(placeAt(data, te.Offset), typeMessage(te)))
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return errors.New(mark("", f.Message))
	}
	return errors.New(mark("", otherForm))
}

func mark(place, message string) string { return "\x00" + place + "\x00" + message }

func cutMark(s string) (place, message string, ok bool) {
	rest, ok := strings.CutPrefix(s, "\x00")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "\x00")
}

// placeAt is the path of the last plain value that ends at offset or before.
func placeAt(data []byte, offset int64) string {
	var place string
	behind := errors.New("behind")
	_ = walkJSON(data, func(w *jsonWalk, tok json.Token) error {
		if w.end > offset {
			return behind
		}
		if _, ok := tok.(json.Delim); !ok {
			place = w.path()
		}
		return nil
	})
	return place
}

func typeMessage(te *json.UnmarshalTypeError) string {
	digits := strings.TrimLeft(strings.TrimPrefix(te.Value, "number "), "-0123456789") == ""
	switch k := te.Type.Kind(); {
	case k >= reflect.Int && k <= reflect.Int64 && digits:
		most := uint64(1)<<(te.Type.Bits()-1) - 1
		return fmt.Sprintf("must be from -%d to %d", most+1, most)
	case k >= reflect.Uint && k <= reflect.Uint64 && digits:
		return fmt.Sprintf("must be from 0 to %d", uint64(math.MaxUint64)>>(64-te.Type.Bits()))
	case k >= reflect.Int && k <= reflect.Uint64:
		return validation.MsgExpectedInteger
	case k == reflect.Float32 || k == reflect.Float64:
		return validation.MsgExpectedNumber
	case k == reflect.Bool:
		return validation.MsgExpectedBoolean
	case k == reflect.String:
		return validation.MsgExpectedString
	case k == reflect.Slice || k == reflect.Array:
		return validation.MsgExpectedArray
	case k == reflect.Struct || k == reflect.Map:
		return validation.MsgExpectedObject
	}
	return otherForm
}
