package webhooks

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// file reads a body as it was signed.
func file(t testing.TB, name string) []byte {
	t.Helper()
	body, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// The bodies are the guide's own sample event: as printed, compact, and the body
// of its curl call. Their digests come from the guide's own Python
// (verify_webhook_signature, "Signature Verification", run unchanged: it also
// said True), from Node and from OpenSSL; all three agreed.
//
//	python3 -c 'import hmac,hashlib,sys; print(hmac.new(b"whsec_test_secret", open(sys.argv[1],"rb").read(), hashlib.sha256).hexdigest())' FILE
//	node -e 'console.log(require("crypto").createHmac("sha256","whsec_test_secret").update(require("fs").readFileSync(process.argv[1])).digest("hex"))' FILE
//	openssl dgst -sha256 -hmac whsec_test_secret FILE
//
// (Python 3.11.7, Node 20.20.2, OpenSSL 3.0.19.) There was no Ruby; its
// OpenSSL::HMAC.hexdigest("SHA256", key, data) is documented as that OpenSSL call.
var guideVectors = []struct {
	file, key, digest string
	size              int
}{
	{"event_pretty.json", "whsec_test_secret", "f3ed3b881ddc03901c3d6f234db7fcc276ed60bcbdacc9e727911c3dd896f907", 341},
	{"event_compact.json", "whsec_test_secret", "d08809921c7460e8e85db735e0aa5d4e4128361d0cc348e9652521f021637c9d", 260},
	{"event_curl.json", "whsec_test_secret", "93706ebe356cda14f59cc605ed6c85671414d8baf53fa451c64ebd33eed6a2e1", 73},
}

// What Python, Node and OpenSSL sign is accepted, to the byte, and Sign signs the same.
func TestGuideVectors(t *testing.T) {
	guide, err := os.ReadFile("../../docs/payqi-webhook-guide.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range guideVectors {
		body := file(t, v.file)
		if is(t, v.file+" bytes", len(body), v.size); v.file != "event_compact.json" && !bytes.Contains(guide, body) {
			t.Errorf("%s is not what the guide prints", v.file)
		}
		is(t, v.file, Sign(v.key, body), v.digest)
		label, ok := verifier(t, v.key).Verify(body, v.digest)
		if sum := sha256.Sum256([]byte(v.key)); !ok || label != hex.EncodeToString(sum[:])[:8] {
			t.Errorf("%s: %v, label %q", v.file, ok, label)
		}
	}
}

// GitHub's documented vector and those of RFC 4231, section 4, that we can use
// (1: usual, 2: a key shorter than Verifier takes, 6: one longer than a block).
func TestPublishedVectors(t *testing.T) {
	for name, v := range map[string]struct{ key, data, digest string }{
		"github":    {"It's a Secret to Everybody", "Hello, World!", "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
		"rfc4231/1": {strings.Repeat("\x0b", 20), "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		"rfc4231/2": {"Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		"rfc4231/6": {strings.Repeat("\xaa", 131), "Test Using Larger Than Block-Size Key - Hash Key First", "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
	} {
		is(t, name, Sign(v.key, []byte(v.data)), v.digest)
		if len(v.key) < MinSecret {
			continue
		}
		if _, ok := verifier(t, v.key).Verify([]byte(v.data), v.digest); !ok {
			t.Errorf("%s is refused", name)
		}
	}
}

// No secret, an empty or a short one is refused at the start, also among good ones.
func TestVerifierRefusesWeakSecrets(t *testing.T) {
	for _, secrets := range [][]string{nil, {""}, {strings.Repeat("x", MinSecret-1)}, {testSecret, ""}, {"Jefe", testSecret}} {
		if v, err := NewVerifier(secrets...); err == nil || v != nil {
			t.Errorf("%q is taken", secrets)
		}
	}
	if _, err := NewVerifier(strings.Repeat("x", MinSecret)); err != nil {
		t.Error(err)
	}
}

// During a rotation each active secret is accepted, under its own label, also
// by many at once; the retired one is not.
func TestRotation(t *testing.T) {
	t.Parallel()
	old, current, next := "whsec_the_old_one_", testSecret, "whsec_the_next_one"
	s := newShop(t, func(s *setup) { s.options.Verifier = verifier(t, current, next) })
	labels := map[string]string{ // printf %s SECRET | sha256sum | cut -c-8
		current: labelOf(current), next: labelOf(next),
	}
	for i, secret := range []string{current, next, old} {
		body := event(fmt.Sprint("evt_", i), "payment.created", "pay_1", "1", "10")
		w := s.post(signed(body, "X-Ignored", ""))
		if secret != current {
			r := signed(body)
			r.Header.Set("X-PayQI-Signature", Sign(secret, []byte(body)))
			for _, table := range []string{"inbox_open", "inbox_spellings", "cases", "inbox"} {
				s.exec(`DELETE FROM ` + table)
			}
			w = s.post(r)
		}
		if label, active := labels[secret]; active {
			is(t, secret, w.Body.String(), "OK")
			is(t, "label", one[string](s, `SELECT secret_label FROM inbox`), label)
		} else {
			is(t, secret, fmt.Sprint(w.Code, w.Body), "400 Invalid signature")
			is(t, "rows", s.count("inbox"), 0)
		}
	}
}

func labelOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])[:8]
}

func macWith(h func() hash.Hash, key string, data []byte) string {
	m := hmac.New(h, []byte(key))
	m.Write(data)
	return hex.EncodeToString(m.Sum(nil))
}

// Every signature that is not exactly one right one gets the same 400 and
// leaves no row; nothing about how it is wrong shows.
func TestBadSignatures(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	body := inside(t, event("evt_1", "payment.completed", "pay_1", "1001", "10.00"), `"metadata":{`, `"metadata":{"name":"Zo\u00eb","line":"a\nb",`)
	pretty := strings.ReplaceAll(string(file(t, "event_pretty.json")), "\r", "")
	mac := Sign(testSecret, []byte(body))
	raw, _ := hex.DecodeString(mac)
	sum := sha256.Sum256([]byte(body))
	ts := strconv.FormatInt(opening.Unix(), 10)

	for name, header := range map[string][]string{
		"1 missing":          nil,
		"2 empty":            {""},
		"3 blanks":           {"   "},
		"4 null":             {"null"},
		"5 undefined":        {"undefined"},
		"6 63 digits":        {mac[:63]},
		"7 65 digits":        {mac + "0"},
		"8 128 digits":       {mac + mac},
		"9 1 MB":             {strings.Repeat(mac, 1<<14)},
		"10 odd length":      {mac[:61]},
		"11 no hex digit":    {"g" + mac[1:]},
		"12 0x before":       {"0x" + mac},
		"12 0x inside":       {"0x" + mac[2:]},
		"13 space added":     {mac[:32] + " " + mac[32:]},
		"13 space inside":    {mac[:32] + " " + mac[33:]},
		"14 base64":          {base64.StdEncoding.EncodeToString(raw)},
		"15 raw bytes":       {string(raw)},
		"16 sha256=":         {"sha256=" + mac},
		"17 v1=":             {"v1=" + mac},
		"30 SHA-1":           {macWith(sha1.New, testSecret, []byte(body))},
		"30 MD5":             {macWith(md5.New, testSecret, []byte(body))},
		"30 SHA-512":         {macWith(sha512.New, testSecret, []byte(body))},
		"30 SHA-512 cut":     {macWith(sha512.New, testSecret, []byte(body))[:64]},
		"31 of the hex body": {Sign(testSecret, []byte(hex.EncodeToString([]byte(body))))},
		"32 of ts.body":      {Sign(testSecret, []byte(ts+"."+body))},
		"33 of nothing":      {Sign(testSecret, nil)},
		"34 plain SHA-256":   {hex.EncodeToString(sum[:])},
		"35 empty secret":    {Sign("", []byte(body))},
		"36 secret null":     {Sign("null", []byte(body))},
		"37 secret of docs":  {Sign("whsec_test_secret", []byte(body))},
		"40 retired secret":  {Sign("whsec_for_the_tests_once", []byte(body))},
		"41 other endpoint":  {Sign("whsec_for_another_endpoint", []byte(body))},
		"42 secret cut":      {Sign(testSecret[:len(testSecret)-1], []byte(body))},
		"42 without prefix":  {Sign(strings.TrimPrefix(testSecret, "whsec_"), []byte(body))},
		"43 first valid":     {mac, strings.Repeat("0", 64)},
		"44 second valid":    {strings.Repeat("0", 64), mac},
		"45 the same twice":  {mac, mac},
		"45 three":           {mac, mac, mac},
		"46 comma list":      {mac + ", " + mac},
		"46 comma, no blank": {mac + "," + mac},
	} {
		r := signed(body, "X-PayQI-Timestamp", ts)
		r.Header["X-Payqi-Signature"] = header
		if header == nil {
			r.Header.Del("X-PayQI-Signature")
		}
		w := s.post(r)
		is(t, name, fmt.Sprintf("%d %s %s", w.Code, w.Header().Get("Content-Type"), w.Body), "400 text/plain; charset=utf-8 Invalid signature")
	}

	r := signed(body)
	r.Header["X_PayQI_Signature"] = r.Header["X-Payqi-Signature"]
	r.Header.Del("X-PayQI-Signature")
	is(t, "47 underscores", s.post(r).Code, 400)

	for name, c := range map[string]struct{ signed, sent string }{
		"20 byte more":      {body, body + "x"},
		"21 byte less":      {body, body[:len(body)-1]},
		"22 newline":        {body, body + "\n"},
		"23 re-serialised":  {pretty, string(file(t, "event_compact.json"))},
		"24 keys reordered": {body, inside(t, body, `{"id":"evt_1","type":"payment.completed"`, `{"type":"payment.completed","id":"evt_1"`)},
		"25 blanks removed": {pretty, strings.ReplaceAll(pretty, "  ", "")},
		"26 10.00 to 10.0":  {body, inside(t, body, "10.00", "10.0")},
		"27 other escape":   {body, inside(t, body, `\u00eb`, "ë")},
		"27 capital escape": {body, inside(t, body, `\u00eb`, `\u00EB`)},
		"28 CRLF":           {pretty, strings.ReplaceAll(pretty, "\n", "\r\n")},
		"28 LF":             {strings.ReplaceAll(pretty, "\n", "\r\n"), pretty},
		"29 BOM":            {body, "\ufeff" + body},
		"empty":             {body, ""},
		"one bit":           {body, "z" + body[1:]},
		"other amount":      {body, inside(t, body, "10.00", "10.01")},
	} {
		r := signed(c.sent)
		r.Header.Set("X-PayQI-Signature", Sign(testSecret, []byte(c.signed)))
		w := s.post(r)
		is(t, name, fmt.Sprint(w.Code, " ", w.Body), "400 Invalid signature")
	}
	is(t, "rows", s.count("inbox")+s.count("inbox_open")+s.count("cases"), 0)
}

// Each of the 64 hex digits counts: a signature with any one changed is refused.
func TestEveryDigitCounts(t *testing.T) {
	v, body := verifier(t, testSecret), []byte("{}")
	mac := Sign(testSecret, body)
	for i := range mac {
		other := byte('0')
		if mac[i] == other {
			other = '1'
		}
		if _, ok := v.Verify(body, mac[:i]+string(other)+mac[i+1:]); ok {
			t.Errorf("digit %d does not count", i)
		}
	}
}

// The right signature is accepted in any letter case and, over a real
// connection, with blanks around it and the header's name in any case.
func TestGoodSignatures(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	srv := s.serve(nil)
	for name, c := range map[string]struct{ header, before, after string }{
		"plain":              {"X-PayQI-Signature", "", ""},
		"19 blank before":    {"X-PayQI-Signature", " \t ", ""},
		"19 blank after":     {"X-PayQI-Signature", "", " \t "},
		"47 small letters":   {"x-payqi-signature", "", ""},
		"47 capital letters": {"X-PAYQI-SIGNATURE", "", ""},
	} {
		body := event("evt_"+strings.Fields(name)[0]+strconv.Itoa(len(name)), "payment.created", "pay_1", "1", "10")
		got := srv.raw(fmt.Sprintf("POST /webhooks/payqi HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n%s:%s%s%s\r\n\r\n%s",
			len(body), c.header, c.before, Sign(testSecret, []byte(body)), c.after, body))
		is(t, name, got, "200 OK")
	}
	body := event("evt_upper", "payment.created", "pay_1", "1", "10")
	r := signed(body)
	r.Header.Set("X-PayQI-Signature", strings.ToUpper(Sign(testSecret, []byte(body))))
	is(t, "18 upper case", s.post(r).Body.String(), "OK")
	is(t, "rows", s.count("inbox"), 6)
}

// A header too large for the server never reaches us (431), a body too large
// is not even read (413), a compressed one is not inflated (415).
func TestRefusedBeforeHashing(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	is(t, "9 1 MB", s.serve(nil).raw("POST /webhooks/payqi HTTP/1.1\r\nHost: x\r\nX-PayQI-Signature: " + strings.Repeat("a", 1<<20) + "\r\n\r\n")[:3], "431")
	large := strings.Repeat(" ", MaxBody+1)
	r := signed(large)
	r.Body = io.NopCloser(unreadable{t})
	w := s.post(r)
	is(t, "49 large", fmt.Sprint(w.Code, " ", w.Body), "413 Body too large")
	r = signed(event("evt_1", "payment.created", "pay_1", "1", "10"), "Content-Encoding", "gzip")
	r.Body = io.NopCloser(unreadable{t})
	is(t, "50 gzip", s.post(r).Code, 415)
	is(t, "rows", s.count("inbox"), 0)
}

// unreadable is a body that must not be read.
type unreadable struct{ t testing.TB }

func (u unreadable) Read([]byte) (int, error) { u.t.Error("the body was read"); return 0, io.EOF }

// stamps are timestamp headers at a clock that stands at opening, 1893553445.
var stamps = []struct {
	name    string
	headers []string
	ok      bool
}{
	{"2 empty", []string{""}, false},
	{"3 letters", []string{"abc"}, false},
	{"4 float", []string{"1893553445.0"}, false},
	{"5 plus", []string{"+1893553445"}, false},
	{"6 minus", []string{"-1893553445"}, false},
	{"7 hex", []string{"0x70dd3c65"}, false},
	{"8 blank inside", []string{"18935 53445"}, false},
	{"8 blank before", []string{" 1893553445"}, false},
	{"9 exponent", []string{"1893553445e0"}, false},
	{"10 20 digits", []string{"18446744073709551616"}, false},
	{"10 wraps to now", []string{"18446744075603105061"}, false}, // 2^64 + now
	{"11 other digits", []string{"١٨٩٣٥٥٣٤٤٥"}, false},
	{"12 RFC 3339", []string{"2030-01-02T03:04:05Z"}, false},
	{"13 milliseconds", []string{"1893553445000"}, false},
	{"14 now-299", []string{"1893553146"}, true},
	{"14 now-300", []string{"1893553145"}, true},
	{"15 now-301", []string{"1893553144"}, false},
	{"now", []string{"1893553445"}, true},
	{"16 now+299", []string{"1893553744"}, true},
	{"16 now+300", []string{"1893553745"}, true},
	{"17 now+301", []string{"1893553746"}, false},
	{"18 1970", []string{"0"}, false},
	{"19 year 9999", []string{"253402300799"}, false},
	{"leading zeros", []string{"001893553445"}, true},
	{"20 twice", []string{"1893553445", "1893553445"}, false},
}

// Each mode takes what it says: off everything, the others what is in the
// window of 300 s to the second, and only required insists on a timestamp.
func TestTimestampModes(t *testing.T) {
	for _, c := range stamps {
		for mode, want := range map[TimestampMode]bool{TimestampIfPresent: c.ok, TimestampRequired: c.ok, TimestampOff: true} {
			is(t, string(mode)+" "+c.name, mode.check(c.headers, opening) == "", want)
		}
	}
	is(t, "1 absent, if-present", TimestampIfPresent.check(nil, opening), "")
	is(t, "1 absent, off", TimestampOff.check(nil, opening), "")
	is(t, "1 absent, required", TimestampRequired.check(nil, opening), "timestamp missing")
}

// A refused timestamp gets 400 and the event is kept as refused with a case;
// one that was accepted before is a duplicate whatever its timestamp.
func TestTimestamps(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	known := event("evt_known", "payment.created", "pay_1", "1", "10")
	s.accept(known)
	for i, c := range stamps {
		headers := []string{}
		for _, h := range c.headers {
			headers = append(headers, "X-PayQI-Timestamp", h)
		}
		key := fmt.Sprint("evt_", i)
		answer, state := "400 Request too old", "refused"
		if c.ok {
			answer, state = "200 OK", "received"
		}
		s.expect(event(key, "payment.created", "pay_1", "1", "10"), answer, headers...)
		is(t, c.name, s.state(key), state)
		is(t, c.name+" case", one[int](s, `SELECT count(*) FROM cases WHERE key = 'STALE_EVENT/' || ? AND state = 'open' AND NOT blocks`, key) == 1, !c.ok)
		s.expect(known, "200 Already processed", headers...)
	}
	is(t, "known", s.state("evt_known"), "received")
	is(t, "deliveries", one[int](s, `SELECT deliveries FROM inbox WHERE key = 'evt_known'`), 1+len(stamps))

	required := newShop(t, func(s *setup) { s.options.Timestamp = TimestampRequired })
	required.expect(known, "400 Request too old")
	is(t, "required, absent", required.state("evt_known"), "refused")
	off := newShop(t, func(s *setup) { s.options.Timestamp = TimestampOff })
	off.expect(known, "200 OK", "X-PayQI-Timestamp", "abc")
}

// A request captured and sent again a year later, with a timestamp of then,
// has no effect: the event's id stops it, not the clock.
func TestReplayAfterAYear(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 5)
	s.order("1001", "mug")
	body := event("evt_1", "payment.completed", "pay_1", "1001", "10.00")
	s.accept(body)
	s.work()
	before := s.everything()
	s.clock.Add(365 * 24 * time.Hour)
	s.expect(body, "200 Already processed", "X-PayQI-Timestamp", strconv.FormatInt(s.clock.Now().Unix(), 10))
	s.work()
	is(t, "after the replay", s.everything(), before)
}

// everything is all that an event can change.
func (s *shop) everything() string {
	s.t.Helper()
	return one[string](s, `SELECT (SELECT string_agg(o::text, '|' ORDER BY id) FROM orders o) || (SELECT COALESCE(string_agg(p::text, '|' ORDER BY id), '') FROM payments p)
		|| (SELECT string_agg(p::text, '|' ORDER BY sku) FROM products p) || (SELECT count(*) FROM stock_movements) || '/' || (SELECT count(*) FROM timeline)
		|| '/' || (SELECT count(*) FROM letters) || '/' || (SELECT count(*) FROM cases) || '/' || (SELECT count(*) FROM shipment_requests)`)
}

// Accepted is exactly the hex, in any letter case, of the MAC under an active secret.
func FuzzVerify(f *testing.F) {
	for _, v := range guideVectors {
		f.Add(file(f, v.file), Sign(testSecret, file(f, v.file)))
		f.Add(file(f, v.file), strings.ToUpper(Sign("whsec_the_next_one", file(f, v.file))))
	}
	f.Add([]byte{}, "")
	f.Add([]byte("{}"), strings.Repeat("0", 64))
	v := verifier(f, testSecret, "whsec_the_next_one")
	f.Fuzz(func(t *testing.T, body []byte, signature string) {
		want := ""
		for _, secret := range []string{testSecret, "whsec_the_next_one"} {
			if strings.ToLower(signature) == Sign(secret, body) && len(signature) == 64 {
				want = labelOf(secret)
			}
			if label, ok := v.Verify(body, Sign(secret, body)); !ok || label != labelOf(secret) {
				t.Errorf("the right signature is refused: %v %q", ok, label)
			}
		}
		if label, ok := v.Verify(body, signature); label != want || ok != (want != "") {
			t.Errorf("%q: %v, label %q, want %q", signature, ok, label, want)
		}
	})
}
