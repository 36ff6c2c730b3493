package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// node is a JSON value that remembers the order of its keys and how its
// numbers were written.
type node struct {
	scalar any // string, json.Number, bool, nil
	keys   []string
	items  []node
	object bool
	array  bool
}

// parseNode reads one JSON value; false when body is none.
func parseNode(body []byte) (node, bool) {
	if !json.Valid(body) {
		return node{}, false
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	n, err := readNode(d, 0)
	return n, err == nil
}

func readNode(d *json.Decoder, depth int) (n node, err error) {
	t, err := d.Token()
	delim, nested := t.(json.Delim)
	if err != nil || !nested {
		return node{scalar: t}, err
	}
	if depth > 64 {
		return n, fmt.Errorf("too deep")
	}
	n.object, n.array = delim == '{', delim == '['
	for d.More() {
		if n.object {
			key, err := d.Token()
			if err != nil {
				return n, err
			}
			text, _ := key.(string)
			n.keys = append(n.keys, text)
		}
		item, err := readNode(d, depth+1)
		if err != nil {
			return n, err
		}
		n.items = append(n.items, item)
	}
	_, err = d.Token()
	return n, err
}

// style is how a program writes JSON.
type style struct {
	name         string
	comma, colon string // between items; between key and value
	indent       string // "" for one line
	sorted       bool
	escapeAll    bool                             // beyond ASCII as \uXXXX
	escapeSlash  bool                             // / as \/
	escapeHTML   bool                             // <, > and & as \u003c…
	number       func(key, written string) string // nil: as it was written
}

// styles are the ways in which a body gets rewritten on its way: by a proxy, a
// framework that parsed it, a tool that showed it.
func styles() (list []style) {
	layouts := []style{
		{name: "without spaces", comma: ",", colon: ":"},
		{name: "with the spaces of Python's json.dumps", comma: ", ", colon: ": "},
		{name: "indented by 2", comma: ",", colon: ": ", indent: "  "},
		{name: "indented by 4", comma: ",", colon: ": ", indent: "    "},
		{name: "indented by a tab", comma: ",", colon: ": ", indent: "\t"},
	}
	numbers := []struct {
		name string
		as   func(key, written string) string
	}{{"", nil}, {"numbers as JavaScript's JSON.stringify writes them", jsNumber}, {"numbers as Python writes them", pythonNumber}, {"the amount with two decimals", twoDecimals}}
	escapes := []struct {
		name             string
		all, slash, html bool
	}{{}, {name: `letters as \u escapes`, all: true}, {name: `slashes as \/`, slash: true}, {name: `letters as \u escapes and slashes as \/`, all: true, slash: true}, {name: `< > & as \u escapes`, html: true}}
	for _, sorted := range []bool{false, true} {
		for _, n := range numbers {
			for _, e := range escapes {
				for _, l := range layouts {
					s := l
					s.sorted, s.number, s.escapeAll, s.escapeSlash, s.escapeHTML = sorted, n.as, e.all, e.slash, e.html
					for _, more := range []string{n.name, e.name, map[bool]string{true: "keys sorted"}[sorted]} {
						if more != "" {
							s.name += ", " + more
						}
					}
					list = append(list, s)
				}
			}
		}
	}
	return list
}

func (s style) write(n node) []byte {
	var b bytes.Buffer
	s.node(&b, "", n, 0)
	return b.Bytes()
}

func (s style) node(b *bytes.Buffer, key string, n node, depth int) {
	switch v := n.scalar.(type) {
	case string:
		s.text(b, v)
		return
	case json.Number:
		if s.number != nil {
			b.WriteString(s.number(key, v.String()))
		} else {
			b.WriteString(v.String())
		}
		return
	case bool:
		b.WriteString(strconv.FormatBool(v))
		return
	}
	if !n.object && !n.array {
		b.WriteString("null")
		return
	}
	ends := map[bool]string{true: "{}", false: "[]"}[n.object]
	b.WriteByte(ends[0])
	order := make([]int, len(n.items))
	for i := range order {
		order[i] = i
	}
	if s.sorted && n.object {
		slices.SortStableFunc(order, func(i, j int) int { return strings.Compare(n.keys[i], n.keys[j]) })
	}
	for place, i := range order {
		if place > 0 {
			b.WriteString(s.comma)
		}
		s.newline(b, depth+1)
		inside := ""
		if n.object {
			inside = n.keys[i]
			s.text(b, inside)
			b.WriteString(s.colon)
		}
		s.node(b, inside, n.items[i], depth+1)
	}
	if len(order) > 0 {
		s.newline(b, depth)
	}
	b.WriteByte(ends[1])
}

func (s style) newline(b *bytes.Buffer, depth int) {
	if s.indent != "" {
		b.WriteString("\n" + strings.Repeat(s.indent, depth))
	}
}

func (s style) text(b *bytes.Buffer, text string) {
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '/' && s.escapeSlash:
			b.WriteString(`\/`)
		case shortEscapes[r] != "":
			b.WriteString(shortEscapes[r])
		case r < ' ' || s.escapeHTML && strings.ContainsRune("<>&", r):
			_, _ = fmt.Fprintf(b, `\u%04x`, r)
		case r >= utf8.RuneSelf && s.escapeAll:
			for _, unit := range utf16.Encode([]rune{r}) {
				_, _ = fmt.Fprintf(b, `\u%04x`, unit)
			}
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

var shortEscapes = map[rune]string{'\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`}

// jsNumber is how JavaScript, and Go through float64, write a number: 10.00 is 10.
func jsNumber(_, n string) string {
	f, err := strconv.ParseFloat(n, 64)
	if err != nil || math.IsInf(f, 0) {
		return n
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		return n
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// pythonNumber is how Python, Ruby and PHP write it: 10.00 is 10.0, 10 stays.
func pythonNumber(_, n string) string {
	if !strings.ContainsAny(n, ".eE") {
		return n
	}
	s := jsNumber("", n)
	if !strings.ContainsAny(s, ".eE") {
		s += ".0"
	}
	return s
}

// twoDecimals writes the amount as the guide's sample does, 10.00, when
// something on the way made 10 or 10.0 of it.
func twoDecimals(key, n string) string {
	whole, decimals, _ := strings.Cut(n, ".")
	if key != "amount" || len(decimals) > 1 || strings.ContainsAny(n, "eE") {
		return n
	}
	return whole + "." + (decimals + "00")[:2]
}
