package webhooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"quayside/internal/payqi"
)

// sample is the event every body below is made from: a completed payment.
func sample(id string) string {
	return `{"id":"` + id + `","type":"payment.completed","created":1893553445,"data":{"id":"pay_` + id + `","amount":10.00,"currency":"XRP","status":"completed",` +
		`"pay_address":"rTest123...","destination_tag":"123456","tx_hash":"TX-` + id + `","metadata":{"order_id":"12345"}}}`
}

// reading is a body and what must become of it.
type reading struct {
	name, body string
	want       string // good, unreadable, or unknown (a type that is none of ours)
}

// variant is the sample with parts replaced.
func variant(t testing.TB, name, want string, oldNew ...string) reading {
	t.Helper()
	id := "evt_" + regexp.MustCompile(`[^A-Za-z0-9]`).ReplaceAllString(name, "_")
	return reading{name, inside(t, sample(id), oldNew...), want}
}

// whole is a body of its own.
func whole(name, want, body string) reading { return reading{name, body, want} }

const (
	good    = "good"
	damaged = "unreadable"
	unknown = "unknown"
)

// jsonReadings are bodies that stand at or beyond the edge of JSON.
func jsonReadings(t testing.TB) []reading {
	t.Helper()
	bad := damaged
	id := func(name string) string {
		return `{"id":"evt_` + regexp.MustCompile(`[^A-Za-z0-9]`).ReplaceAllString(name, "_") + `"`
	}
	list := []reading{
		whole("1 null", bad, "null"), whole("2 true", bad, "true"), whole("3 number", bad, "1"), whole("4 string", bad, `"x"`), whole("5 array", bad, "[]"),
		whole("6 array of event", bad, "["+sample("evt_6")+"]"), whole("7 empty object", bad, "{}"),
		whole("8 truncated", bad, sample("evt_8")[:200]), whole("9 trailing x", bad, sample("evt_9")+"x"), whole("10 second object", bad, sample("evt_10")+sample("evt_10b")),
		whole("10 second, new line", bad, sample("evt_10c")+"\n"+sample("evt_10d")), whole("10 closing brace", bad, sample("evt_10e")+"}"),
		whole("trailing blanks", good, sample("evt_blanks")+" \r\n\t "),
		variant(t, "11 trailing comma", bad, `"12345"}`, `"12345",}`), variant(t, "12 comment", bad, `"data":`, `/* x */"data":`), variant(t, "12 line comment", bad, `"data":`, "// x\n\"data\":"),
		variant(t, "13 single quotes", bad, `"XRP"`, `'XRP'`), variant(t, "14 NaN", bad, "10.00", "NaN"), variant(t, "15 Infinity", bad, "10.00", "Infinity"),
		variant(t, "15 -Infinity", bad, "10.00", "-Infinity"), variant(t, "16 01", bad, "10.00", "01"), variant(t, "17 +1", bad, "10.00", "+1"),
		variant(t, "18 1.", bad, "10.00", "1."), variant(t, "19 .5", bad, "10.00", ".5"), variant(t, "20 0x10", bad, "10.00", "0x10"),
		whole("21 BOM", bad, "\ufeff"+sample("evt_21")), whole("22 UTF-16LE", bad, utf16Bytes(sample("evt_22"), false)), whole("22 UTF-16BE", bad, utf16Bytes(sample("evt_22"), true)),
		whole("23 UTF-7", bad, "+AHs-"+sample("evt_23")[1:]),
		variant(t, "24 raw control in id", bad, `"evt_24`, "\"evt\x01_24"), variant(t, "24 raw newline elsewhere", bad, `"data":`, "\"note\":\"a\nb\",\"data\":"),
		variant(t, "24 raw NUL elsewhere", bad, `"data":`, "\"note\":\"a\x00b\",\"data\":"),
		variant(t, "25 NUL in id", bad, `"evt_25`, `"evt\u0000_25`), variant(t, "26 NUL in type", bad, `completed","created`, `completed\u0000","created`),
		variant(t, "27 NUL in order id", bad, `"12345"`, `"12345\u0000"`), variant(t, "28 NUL in unknown field", good, `"data":`, `"note":"a\u0000b","data":`),
		variant(t, "29 lone surrogate in currency", bad, `"XRP"`, `"X\ud800"`), variant(t, "29 lone surrogate in unknown", good, `"data":`, `"note":"\ud800","data":`),
		variant(t, "30 swapped pair", bad, `"XRP"`, `"\ude00\ud83d"`), variant(t, "31 bad UTF-8 in hash", bad, `"TX-`, "\"TX-\xff"), variant(t, "31 bad UTF-8 in type", bad, `completed","created`, "completed\xff\",\"created"),
		variant(t, "31 bad UTF-8 in unknown", good, `"data":`, "\"note\":\"\xff\xfe\",\"data\":"), variant(t, "31 bad UTF-8 in unknown key", good, `"data":`, "\"no\xffte\":1,\"data\":"),
		variant(t, "32 overlong NUL", bad, `"rTest`, "\"rTest\xc0\x80"), variant(t, "33 five bytes", bad, `"rTest`, "\"rTest\xf8\x88\x80\x80\x80"),
		variant(t, "34 U+FFFE", bad, `"rTest`, "\"rTest\ufffe"), variant(t, "34 U+FFFF escaped", bad, `"rTest`, `"rTest\uffff`), variant(t, "34 U+FDD0", bad, `"rTest`, `"rTest\ufdd0`),
		variant(t, "34 U+1FFFE", bad, `"rTest`, `"rTest\ud83f\udffe`), variant(t, "34 last plane", bad, `"rTest`, "\"rTest\U0010ffff"),
		variant(t, "35 duplicate status", bad, `"status":`, `"status":"failed","status":`), variant(t, "35 the same twice", bad, `"status":`, `"status":"completed","status":`),
		variant(t, "36 duplicate data", bad, `"data":`, `"data":{},"data":`), variant(t, "37 duplicate id", bad, `"type":`, `"id":"evt_other","type":`),
		variant(t, "37 duplicate payment id", bad, `"amount":`, `"id":"pay_other","amount":`), variant(t, "37 duplicate order id", bad, `"order_id":`, `"order_id":"1","order_id":`),
		variant(t, "38 duplicate by escape", bad, `"status":`, `"\u0073tatus":"failed","status":`), variant(t, "38 escape alone", good, `"status":`, `"\u0073tatus":`),
		variant(t, "duplicate of an unknown key", bad, `"metadata":{`, `"metadata":{"a":1,"a":2,`), variant(t, "unknown keys by case", bad, `"metadata":{`, `"metadata":{"a":1,"A":2,`),
		variant(t, "45 depth 64", good, `"data":`, `"deep":`+deep(63)+`,"data":`), variant(t, "45 depth 64 of objects", good, `"data":`, `"deep":`+deepObject(63)+`,"data":`),
		variant(t, "46 depth 65", bad, `"data":`, `"deep":`+deep(64)+`,"data":`), variant(t, "46 depth 65 of objects", bad, `"data":`, `"deep":`+deepObject(64)+`,"data":`),
		variant(t, "45 depth 100", bad, `"data":`, `"deep":`+deep(99)+`,"data":`), // our limit is 64
		variant(t, "47 depth 10001", bad, `"data":`, `"deep":`+deep(10_000)+`,"data":`), variant(t, "48 depth 100000", bad, `"data":`, `"deep":`+deep(100_000)+`,"data":`),
		whole("48 only brackets", bad, strings.Repeat("[", 100_000)), variant(t, "49 20000 keys", good, `"data":`, manyKeys(20_000)+`"data":`),
		variant(t, "50 key of 200 KB", good, `"data":`, `"`+strings.Repeat("k", 200<<10)+`":1,"data":`), variant(t, "51 string of 200 KB", good, `"data":`, `"note":"`+strings.Repeat("k", 200<<10)+`","data":`),
		variant(t, "51 id of 200 KB", bad, `"id":"evt`, `"id":"`+strings.Repeat("k", 200<<10)), variant(t, "52 __proto__", good, `"data":`, `"__proto__":{"type":"x"},"data":`),
		variant(t, "53 constructor", good, `"data":`, `"constructor":{"prototype":1},"data":`), variant(t, "54 empty key", good, `"data":`, `"":1,"data":`),
		variant(t, "55 unknown fields", good, `"data":`, `"api_version":"2027-01-01","livemode":true,"data":`), variant(t, "55 unknown in data", good, `"amount":`, `"fee":{"amount":"0.1","currency":"XRP"},"amount":`),
		variant(t, "55 keys of the shop", good, `"metadata":{`, `"metadata":{"Type":"gift","ID":7,"Amount":"two","Created":"x","Status":"new",`),
		variant(t, "55 status in metadata", good, `"metadata":{`, `"metadata":{"status":"failed","amount":1,"id":null,`),
		whole("65 no id", good, strings.Replace(sample("evt_65"), `"id":"evt_65",`, "", 1)),
		variant(t, "69 unknown type", unknown, `payment.completed`, `account.updated`), variant(t, "70 blank after type", unknown, `payment.completed`, `payment.completed `),
		variant(t, "71 capital type", unknown, `payment.completed`, `Payment.Completed`), variant(t, "72 refunded", unknown, `payment.completed`, `payment.refunded`),
		variant(t, "unknown type, other data", unknown, `payment.completed`, `account.updated`, `"data":{"id":"pay`, `"data":{"id":5,"x":"pay`),
		whole("unknown type, no data", unknown, id("unknown no data")+`,"type":"account.updated"}`), whole("unknown type, data a list", unknown, id("unknown list")+`,"type":"payment.refunded","data":[1]}`),
		variant(t, "73 type null", bad, `"payment.completed"`, `null`), variant(t, "73 type number", bad, `"payment.completed"`, `7`), variant(t, "73 type array", bad, `"payment.completed"`, `["payment.completed"]`),
		variant(t, "73 type missing", bad, `"type":"payment.completed",`, ``), variant(t, "73 type empty", bad, `"payment.completed"`, `""`), variant(t, "73 type long", bad, `"payment.completed"`, `"`+strings.Repeat("x", 101)+`"`),
		variant(t, "74 completed, failed", bad, `"status":"completed"`, `"status":"failed"`), variant(t, "74 completed, expired", bad, `"status":"completed"`, `"status":"expired"`),
		variant(t, "74 completed, pending", bad, `"status":"completed"`, `"status":"pending"`), variant(t, "74 completed, Completed", bad, `"status":"completed"`, `"status":"Completed"`),
		variant(t, "74 completed, none", good, `"status":"completed",`, ``), variant(t, "74 completed, null", good, `"status":"completed"`, `"status":null`),
		variant(t, "74 status number", bad, `"status":"completed"`, `"status":1`), variant(t, "74 failed, completed", bad, `payment.completed`, `payment.failed`),
		variant(t, "74 failed, expired", bad, `payment.completed`, `payment.failed`, `"status":"completed"`, `"status":"expired"`),
		variant(t, "74 pending, created", good, `payment.completed`, `payment.pending`, `"status":"completed"`, `"status":"created"`),
		variant(t, "74 created, completed", bad, `payment.completed`, `payment.created`),
		variant(t, "data missing", bad, `"data":`, `"date":`), variant(t, "data null", bad, `"data":{`, `"data":null,"x":{`), variant(t, "data string", bad, `"data":{`, `"data":"x","x":{`),
		variant(t, "currency missing", bad, `"currency":"XRP",`, ``), variant(t, "currency number", bad, `"XRP"`, `1`), variant(t, "currency long", bad, `"XRP"`, `"`+strings.Repeat("X", 33)+`"`),
		variant(t, "address a list", bad, `"rTest123..."`, `[]`), variant(t, "address null", good, `"rTest123..."`, `null`), variant(t, "address long", bad, `"rTest123..."`, `"`+strings.Repeat("r", 129)+`"`),
	}
	for _, k := range []struct{ name, old, new string }{
		{"39 STATUS", `"status"`, `"STATUS"`},
		{"40 Status", `"status"`, `"Status"`},
		{"41 long s", `"status"`, `"ſtatus"`},
		{"42 Data", `"data"`, `"Data"`},
		{"43 ORDER_ID", `"order_id"`, `"ORDER_ID"`},
		{"44 dotted I", `"id"`, `"İd"`},
		{"44 ID", `"id"`, `"ID"`},
		{"44 dotless i", `"id"`, `"ıd"`},
		{"Amount", `"amount"`, `"Amount"`},
		{"tx_haſh", `"tx_hash"`, `"tx_haſh"`},
		{"METADATA", `"metadata"`, `"METADATA"`},
	} {
		list = append(list, variant(t, k.name+" alone", bad, k.old, k.new), variant(t, k.name+" beside", bad, k.old, k.new+`:null,`+k.old))
	}
	for name, v := range map[string]string{
		"56 number": "1", "56 null": "null", "56 array": `["evt_1"]`, "56 object": "{}", "56 bool": "true", "57 empty": `""`, "58 256 bytes": `"` + strings.Repeat("e", 256) + `"`,
		"59 blanks": `"   "`, "60 newline": `"evt_1\n"`, "61 look-alike": `"еvt_1"`, "62 NFC": `"evt_é"`, "62 NFD": `"evt_e` + "\u0301" + `"`, "63 blank after": `"evt_1 "`, "slash": `"evt/1"`, "hash": `"evt_1#00"`,
	} {
		list = append(list, whole("id "+name, bad, strings.Replace(sample("evt_x"), `"id":"evt_x"`, `"id":`+v, 1)))
	}
	for name, v := range map[string]string{"255 bytes": strings.Repeat("e", 255), "64 case variant": "EVT_64", "all forms": "a.B:c-d_9"} {
		list = append(list, whole("id "+name, good, strings.Replace(sample("evt_x"), `"id":"evt_x"`, `"id":"`+v+`"`, 1)))
	}
	for name, c := range map[string]struct{ v, want string }{
		"string": {`"0"`, good}, "0": {"0", good}, "most": {"4294967295", good}, "too much": {"4294967296", bad}, "negative": {"-1", bad}, "fraction": {"1.5", bad}, "1.0": {"1.0", bad}, "exponent": {"1e3", bad},
		"words": {`"abc"`, bad}, "plus": {`"+1"`, bad}, "blank": {`" 1"`, bad}, "null": {"null", good}, "empty": {`""`, good}, "bool": {"true", bad}, "list": {"[1]", bad}, "huge": {strings.Repeat("9", 400), bad}, "underscore": {`"1_000"`, bad},
	} {
		list = append(list, variant(t, "tag "+name, c.want, `"123456"`, c.v))
	}
	for name, v := range map[string]string{"22 future": "4102444800", "22 negative": "-1", "22 string": `"1893553445"`, "22 float": "1.5", "22 10^18": "1000000000000000000", "22 huge": strings.Repeat("9", 300), "21 old": "1892862245", "null": "null", "object": "{}"} {
		list = append(list, variant(t, "created "+name, good, "1893553445", v))
	}
	return list
}

func deep(n int) string       { return strings.Repeat("[", n) + strings.Repeat("]", n) }
func deepObject(n int) string { return strings.Repeat(`{"a":`, n-1) + "{}" + strings.Repeat("}", n-1) }

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"k%d":0,`, i)
	}
	return b.String()
}

func utf16Bytes(s string, big bool) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		if big {
			b = append(b, byte(u>>8), byte(u))
		} else {
			b = append(b, byte(u), byte(u>>8))
		}
	}
	return string(b)
}

// amounts are what data.amount may hold; exact is its value, "" when refused.
var amounts = []struct{ name, json, exact string }{
	{"1 zero", "0", ""},
	{"1 0.00", "0.00", ""},
	{"2 minus zero", "-0", ""},
	{"3 negative", "-10", ""},
	{"4 tiny", "0.0000000001", "0.0000000001"},
	{"5 1e400", "1e400", ""},
	{"6 1e-400", "1e-400", ""},
	{"7 1e1000000000", "1e1000000000", ""},
	{"7 -1e1000000000", "1e-1000000000", ""},
	{"7 exponent of 60 digits", "1e" + strings.Repeat("9", 60), ""},
	{"8 beyond float64", "9007199254740993", "9007199254740993"},
	{"8 0.1+0.2", "0.30000000000000004", "0.30000000000000004"},
	{"9 18 digits", "999999999999999999", "999999999999999999"},
	{"9 18 and 18", "999999999999999999.999999999999999999", "999999999999999999.999999999999999999"},
	{"9 19 digits", "1000000000000000000", ""},
	{"9 19 decimals", "0.0000000000000000001", ""},
	{"9 19 decimals, the last 0", "0.1000000000000000000", "0.1"},
	{"9 18 decimals", "0.000000000000000001", "0.000000000000000001"},
	{"9 200 digits", strings.Repeat("9", 200), ""},
	{"9 200 zeros", "1." + strings.Repeat("0", 200), ""},
	{"10 string", `"10.00"`, "10"},
	{"11 word", `"ten"`, ""},
	{"12 empty", `""`, ""},
	{"13 null", "null", ""},
	{"14 true", "true", ""},
	{"15 list", "[10]", ""},
	{"16 object", "{}", ""},
	{"17 comma", `"10,00"`, ""},
	{"18 full width", `"１０"`, ""},
	{"blank", `" 10"`, ""},
	{"blank after", `"10 "`, ""},
	{"plus", `"+10"`, ""},
	{"leading zero", `"010"`, ""},
	{"point first", `".5"`, ""},
	{"point last", `"5."`, ""},
	{"hex", `"0x10"`, ""},
	{"underscore", `"1_0"`, ""},
	{"NaN", `"NaN"`, ""},
	{"Inf", `"Infinity"`, ""},
	{"fraction", `"1/2"`, ""},
	{"NUL", `"10\u0000"`, ""},
	{"newline", `"10\n"`, ""},
	{"Python's 1e-05", "1e-05", "0.00001"},
	{"1E+2", "1E+2", "100"},
	{"1e17", "1e17", "100000000000000000"},
	{"1e18", "1e18", ""},
	{"1e-18", "1e-18", "0.000000000000000001"},
	{"1e-19", "1e-19", ""},
	{"10e-19", "10e-19", "0.000000000000000001"},
	{"string with exponent", `"1e1"`, "10"},
	{"plain", "10", "10"},
	{"one decimal", "10.0", "10"},
	{"six decimals", "10.000000", "10"},
}

func moneyReadings(t testing.TB) []reading {
	t.Helper()
	var list []reading
	for i, a := range amounts {
		want := damaged
		if a.exact != "" {
			want = good
		}
		list = append(list, variant(t, fmt.Sprint("amount ", i, " ", a.name), want, "10.00", a.json))
	}
	return append(list,
		variant(t, "19 missing", damaged, `"amount":10.00,`, ""),
		variant(t, "zero, not completed", good, "payment.completed", "payment.failed", `"completed"`, `"failed"`, "10.00", "0"),
		variant(t, "word, not completed", good, "payment.completed", "payment.created", `"completed"`, `"created"`, "10.00", `"ten"`),
		variant(t, "none, not completed", good, "payment.completed", "payment.expired", `"completed"`, `"expired"`, `"amount":10.00,`, ""),
		variant(t, "no currency, not completed", good, "payment.completed", "payment.expired", `"completed"`, `"expired"`, `"currency":"XRP",`, ""),
		variant(t, "25 xrp", good, `"XRP"`, `"xrp"`), variant(t, "26 blank after", good, `"XRP"`, `"XRP "`), variant(t, "27 RLUSD", good, `"XRP"`, `"RLUSD"`), variant(t, "28 null", damaged, `"XRP"`, "null"),
		variant(t, "28 empty", damaged, `"XRP"`, `""`), variant(t, "29 zero width", good, `"XRP"`, "\"X\u200bRP\""), variant(t, "30 Cyrillic", good, `"XRP"`, `"ХRP"`),
		variant(t, "32 no hash", good, `"TX-evt_32_no_hash"`, "null"), variant(t, "32 hash empty", good, `"TX-evt_32_hash_empty"`, `""`), variant(t, "33 hash in small letters", good, `"TX-`, `"tx-`),
		variant(t, "34 hash of 10 KB", damaged, `"TX-`, `"`+strings.Repeat("A", 10<<10)), variant(t, "34 hash of 129", damaged, `"TX-evt_34_hash_of_129"`, `"`+strings.Repeat("A", 129)+`"`), variant(t, "34 hash a number", damaged, `"TX-evt_34_hash_a_number"`, "7"),
	)
}

// references are what metadata.order_id may hold; ref is what is read, "-" when refused.
var references = []struct{ name, json, ref string }{
	{"1 number", "12345", "12345"},
	{"1 18 digits", "999999999999999999", "999999999999999999"},
	{"1 19 digits", "1000000000000000000", "-"},
	{"2 12345.0", "12345.0", "-"},
	{"3 1e3", "1e3", "-"},
	{"4 null", "null", ""},
	{"5 empty", `""`, ""},
	{"6 blank before", `" 12345"`, "-"},
	{"6 blank after", `"12345 "`, "-"},
	{"7 array", `["12345"]`, ""},
	{"8 object", `{"id":"12345"}`, ""},
	{"9 bool", "true", ""},
	{"12 another order", `"no-such-order"`, "no-such-order"},
	{"13 NUL", `"12345\u0000"`, "-"},
	{"14 path", `"../../etc/passwd"`, "-"},
	{"15 SQL", `"1' OR '1'='1"`, "-"},
	{"16 $1", `"$1"`, "-"},
	{"17 percent", `"%"`, "-"},
	{"17 underscore", `"_"`, "_"},
	{"18 64 KB", `"` + strings.Repeat("1", 64<<10) + `"`, "-"},
	{"18 64 bytes", `"` + strings.Repeat("1", 64) + `"`, strings.Repeat("1", 64)},
	{"18 65 bytes", `"` + strings.Repeat("1", 65) + `"`, "-"},
	{"19 emoji", `"🛒"`, "-"},
	{"20 right to left", "\"12\u202e345\"", "-"},
	{"21 -1", "-1", "-1"},
	{"22 0", "0", "0"},
	{"23 leading zeros", `"012345"`, "012345"},
	{"newline", `"12345\n"`, "-"},
	{"all forms", `"A.b_c-9"`, "A.b_c-9"},
}

func identityReadings(t testing.TB) []reading {
	t.Helper()
	var list []reading
	for i, r := range references {
		want := good
		if r.ref == "-" {
			want = damaged
		}
		list = append(list, variant(t, fmt.Sprint("order id ", i, " ", r.name), want, `"12345"}`, r.json+"}"))
	}
	return append(list,
		variant(t, "10 absent", good, `"order_id":"12345"`, ""), variant(t, "11 metadata null", good, `{"order_id":"12345"}`, "null"), variant(t, "11 metadata string", good, `{"order_id":"12345"}`, `"12345"`),
		variant(t, "11 metadata array", good, `{"order_id":"12345"}`, `["12345"]`), variant(t, "11 metadata absent", good, `,"metadata":{"order_id":"12345"}`, ""), variant(t, "23 leading zeros as number", damaged, `"12345"}`, "012345}"),
		variant(t, "29 payment id missing", damaged, `"id":"pay_evt_29_payment_id_missing",`, ""), variant(t, "29 payment id empty", damaged, `"pay_evt_29_payment_id_empty"`, `""`), variant(t, "29 payment id number", damaged, `"pay_evt_29_payment_id_number"`, "7"),
		variant(t, "29 payment id null", damaged, `"pay_evt_29_payment_id_null"`, "null"), variant(t, "29 payment id with blank", damaged, `"pay_`, `"pay `), variant(t, "29 payment id long", damaged, `"pay_`, `"`+strings.Repeat("p", 255)),
	)
}

func allReadings(t testing.TB) []reading {
	return append(append(jsonReadings(t), moneyReadings(t)...), identityReadings(t)...)
}

// Every body is readable, unreadable or of an unknown type as the table says;
// an unreadable one never takes the key of an id.
func TestReadings(t *testing.T) {
	for _, r := range allReadings(t) {
		e := parseEvent([]byte(r.body))
		got := good
		switch {
		case e.Unreadable != "":
			got = damaged
		case !e.Known():
			got = unknown
		}
		if got != r.want {
			t.Errorf("%s: %s (%s), want %s", r.name, got, e.Unreadable, r.want)
		}
		if e.Unreadable != "" && (e.Key != "sha256:"+sha256Hex(r.body) || e.Meaning != nil) {
			t.Errorf("%s: key %s, meaning %x", r.name, e.Key, e.Meaning)
		}
	}
}

// The guide's own sample is read field by field.
func TestSample(t *testing.T) {
	for _, name := range []string{"event_pretty.json", "event_compact.json"} {
		e := parseEvent(file(t, name))
		got := fmt.Sprintf("%s %s %s %d %s %s %s %s %s %s %d %s %q", e.Key, e.ID, e.Type, e.Created, e.PaymentID, e.OrderRef, e.Amount.Decimal, e.Currency, e.Status, e.Address, *e.Tag, e.TxHash, e.Unreadable)
		is(t, name, got, `evt_1234567890 evt_1234567890 payment.completed 1234567890 pay_abc123 12345 10 XRP completed rTest123... 123456 ABC123... ""`)
		is(t, name+" flags", strings.Join(e.Flags, "; "), "data.pay_address does not look like an XRP Ledger address; data.tx_hash does not look like a transaction hash")
	}
	curl := parseEvent(file(t, "event_curl.json"))
	is(t, "curl", fmt.Sprint(curl.Key, curl.Test(), curl.Known(), curl.Unreadable), "sha256:"+sha256Hex(string(file(t, "event_curl.json")))+"true true")
}

// An amount is read to the last digit, or refused.
func TestAmounts(t *testing.T) {
	for _, a := range amounts {
		e := parseEvent([]byte(inside(t, sample("evt_1"), "10.00", a.json)))
		got := ""
		if e.Amount.Valid {
			got = e.Amount.Decimal.String()
		}
		is(t, a.name, got, a.exact)
	}
}

// An order id is read as its text, or counts as missing, or is refused.
func TestReferences(t *testing.T) {
	for _, r := range references {
		e := parseEvent([]byte(inside(t, sample("evt_1"), `"12345"}`, r.json+"}")))
		got := e.OrderRef
		if e.Unreadable != "" && got == "" {
			got = "-"
		}
		is(t, r.name, got, r.ref)
	}
}

// Only what is wrong in a field we do not need is dropped, and said.
func TestFlags(t *testing.T) {
	for name, c := range map[string]struct{ old, new, flag string }{
		"created in words":   {"1893553445", `"now"`, "created is not a time in Unix seconds"},
		"created negative":   {"1893553445", "-5", "created is not a time in Unix seconds"},
		"created far beyond": {"1893553445", "1000000000000000000", "created is not a time in Unix seconds"},
		"amount of failed":   {`10.00`, `"ten"`, "data.amount ignored: it is not a decimal number of sensible length"},
	} {
		body := inside(t, sample("evt_1"), "payment.completed", "payment.failed", `"completed"`, `"failed"`, c.old, c.new)
		e := parseEvent([]byte(body))
		if e.Unreadable != "" || !strings.Contains(strings.Join(e.Flags, "; "), c.flag) {
			t.Errorf("%s: %q, flags %q", name, e.Unreadable, e.Flags)
		}
		is(t, name+" created", e.Created == 0, strings.HasPrefix(name, "created"))
	}
	genuine := parseEvent([]byte(inside(t, sample("evt_1"), "rTest123...", "rN7n7otQDd6FczFgLdSqtcsAUxDkw6fzRH", "TX-evt_1", strings.Repeat("aB", 32))))
	is(t, "nothing to flag", len(genuine.Flags), 0)
}

// Two spellings of one event mean the same; a change of any field that counts
// makes it mean another, and each field by itself.
func TestMeaning(t *testing.T) {
	base := sample("evt_1")
	meaning := func(body string) string {
		e := parseEvent([]byte(body))
		if e.Unreadable != "" {
			t.Fatalf("%s: %s", e.Unreadable, body)
		}
		return string(e.Meaning)
	}
	for name, body := range map[string]string{
		"blanks":           strings.ReplaceAll(base, `,"`, ` , "`),
		"keys reordered":   inside(t, base, `"amount":10.00,"currency":"XRP"`, `"currency":"XRP","amount":10.00`),
		"amount by value":  inside(t, base, "10.00", "10"),
		"amount by text":   inside(t, base, "10.00", `"1.0e1"`),
		"currency by case": inside(t, base, `"XRP"`, `"xrp"`),
		"hash by case":     inside(t, base, `"TX-evt_1"`, `"tx-EVT_1"`),
		"tag as number":    inside(t, base, `"123456"`, `123456`),
		"order as number":  inside(t, base, `"12345"}`, `12345}`),
		"escaped":          inside(t, base, `"XRP"`, `"\u0058RP"`),
		"other created":    inside(t, base, "1893553445", "1893553446"),
		"unknown field":    inside(t, base, `"data":`, `"attempt":2,"data":`),
	} {
		if meaning(body) != meaning(base) {
			t.Errorf("%s makes another event of it", name)
		}
	}
	seen := map[string]string{meaning(base): "base"}
	for name, body := range map[string]string{
		"type":      inside(t, base, "payment.completed", "payment.pending", `"status":"completed",`, ""),
		"payment":   inside(t, base, "pay_evt_1", "pay_evt_2"),
		"amount":    inside(t, base, "10.00", "10.000000000000000001"),
		"currency":  inside(t, base, `"XRP"`, `"RLUSD"`),
		"status":    inside(t, base, `"status":"completed",`, ""),
		"address":   inside(t, base, "rTest123...", "rTest124..."),
		"no tag":    inside(t, base, `"destination_tag":"123456",`, ""),
		"tag 0":     inside(t, base, `"123456"`, "0"),
		"hash":      inside(t, base, "TX-evt_1", "TX-evt_2"),
		"no hash":   inside(t, base, `"tx_hash":"TX-evt_1",`, ""),
		"order":     inside(t, base, `"12345"}`, `"12346"}`),
		"no order":  inside(t, base, `"order_id":"12345"`, ""),
		"tag moved": inside(t, base, `"pay_address":"rTest123...","destination_tag":"123456"`, `"pay_address":"rTest123...6","destination_tag":"12345"`),
	} {
		if other := seen[meaning(body)]; other != "" {
			t.Errorf("%s means the same as %s", name, other)
		}
		seen[meaning(body)] = name
	}
}

// Whatever the bytes: no panic; what would be stored fits its column; and a
// readable event means the same when its JSON is written again, keys sorted.
func FuzzParseEvent(f *testing.F) {
	for _, r := range allReadings(f) {
		if len(r.body) < 4096 {
			f.Add([]byte(r.body))
		}
	}
	for _, name := range []string{"event_pretty.json", "event_compact.json", "event_curl.json"} {
		body, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e := parseEvent(body)
		for name, c := range map[string]struct {
			text  string
			limit int
		}{
			"key": {e.Key, 255}, "id": {e.ID, 255}, "type": {e.Type, 100}, "payment id": {e.PaymentID, 255}, "order": {e.OrderRef, 64}, "currency": {e.Currency, 32},
			"status": {e.Status, 32}, "address": {e.Address, 128}, "hash": {e.TxHash, 128}, "reason": {e.Unreadable, 500}, "flags": {strings.Join(e.Flags, ";"), 500},
		} {
			if !utf8.ValidString(c.text) || strings.ContainsRune(c.text, 0) || len(c.text) > c.limit {
				t.Errorf("%s cannot be stored: %q", name, c.text)
			}
		}
		if e.Tag != nil && (*e.Tag < 0 || *e.Tag > 1<<32-1) || e.Created < 0 {
			t.Errorf("tag %v, created %d", e.Tag, e.Created)
		}
		if e.Unreadable != "" {
			return
		}
		if e.Known() && !idForm.MatchString(e.PaymentID) || e.Type == "" || len(e.Meaning) != 32 {
			t.Errorf("readable, but %+v", e)
		}
		var whole any
		d := json.NewDecoder(strings.NewReader(string(body)))
		d.UseNumber()
		if err := d.Decode(&whole); err != nil {
			t.Fatalf("readable, but not JSON: %v", err)
		}
		again, err := json.MarshalIndent(whole, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		f := parseEvent(again)
		if f.Unreadable != "" || !bytes.Equal(f.Meaning, e.Meaning) || f.ID != e.ID || f.Created != e.Created {
			t.Errorf("written again it is %q, ID %q for %q, created %d for %d:\n%s\n%s", f.Unreadable, f.ID, e.ID, f.Created, e.Created, body, again)
		}
	})
}

// An accepted amount is exactly the number that was written, 18 digits before
// and 18 after the point at most, and survives being printed and read.
func FuzzParseAmount(f *testing.F) {
	for _, a := range amounts {
		f.Add(strings.Trim(a.json, `"`))
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := payqi.ParseAmount(json.Number(text))
		asText, err2 := payqi.ParseAmount(text)
		if (err == nil) != (err2 == nil) || !d.Equal(asText) {
			t.Errorf("%q: %v %v as a number, %v %v as a string", text, d, err, asText, err2)
		}
		if err != nil {
			return
		}
		want, ok := new(big.Rat).SetString(text)
		if !ok || d.Rat().Cmp(want) != 0 {
			t.Errorf("%q was read as %s", text, d)
		}
		whole, fraction, _ := strings.Cut(d.String(), ".")
		if d.IsNegative() || len(whole) > 18 || len(fraction) > 18 {
			t.Errorf("%q is out of bounds: %s", text, d)
		}
		if back, err := decimal.NewFromString(d.String()); err != nil || !back.Equal(d) {
			t.Errorf("%q prints as %s", text, d)
		}
	})
}
