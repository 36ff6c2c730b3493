//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	verifySecret = "whsec_c2VjcmV0X29mX2FfdGVzdF9vZl92ZXJpZnk=" // behind whsec_ it is base64
	oldSecret    = "whsec_the_one_before_it_was_rotated"
	// sample is the guide's event with letters and a slash that programs write in several ways.
	sample = `{"id":"evt_1234567890","type":"payment.completed","created":1234567890,"data":{"id":"pay_abc123","amount":10.00,"currency":"XRP","status":"completed","pay_address":"rTest123...","destination_tag":"123456","tx_hash":null,"metadata":{"order_id":"12345","note":"Grüße a/b <c>"}}}`
)

// mac is what a sender computes, in a way of its own.
func mac(h func() hash.Hash, key, text string) []byte {
	m := hmac.New(h, []byte(key))
	m.Write([]byte(text))
	return m.Sum(nil)
}

func sha(key, text string) string { return hex.EncodeToString(mac(sha256.New, key, text)) }

// verify runs `quayside verify-signature` on files of these contents.
func verify(t *testing.T, files map[string]string, stdin string, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "DIR/", dir+"/")
	}
	if env == nil {
		env = map[string]string{"PAYQI_WEBHOOK_SECRET": verifySecret}
	}
	var out, errs bytes.Buffer
	code = run(context.Background(), append([]string{"verify-signature"}, args...), from(env), strings.NewReader(stdin), &out, &errs)
	for _, secret := range []string{verifySecret, oldSecret} {
		if strings.Contains(out.String()+errs.String(), secret) {
			t.Errorf("it says a secret:\n%s%s", &out, &errs)
		}
	}
	return code, out.String(), errs.String()
}

// Each mistake that people make is named, whatever the sender's program.
func TestVerifySignatureCauses(t *testing.T) {
	t.Parallel()
	good := sha(verifySecret, sample)
	raw := mac(sha256.New, verifySecret, sample)
	inner, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(verifySecret, "whsec_"))
	python := `{"id": "evt_1234567890", "type": "payment.completed", "created": 1234567890, "data": {"id": "pay_abc123", "amount": 10.0, "currency": "XRP", "status": "completed", "pay_address": "rTest123...", "destination_tag": "123456", "tx_hash": null, "metadata": {"order_id": "12345", "note": "Gr\u00fc\u00dfe a/b <c>"}}}`
	node := strings.Replace(sample, "10.00", "10", 1)
	php := strings.NewReplacer("10.00", "10.0", "ü", `\u00fc`, "ß", `\u00df`, "a/b", `a\/b`).Replace(sample)
	golang := strings.NewReplacer("10.00", "10", "<c>", `\u003cc\u003e`).Replace(`{"created":1234567890,"data":{"amount":10.00,"currency":"XRP","destination_tag":"123456","id":"pay_abc123","metadata":{"note":"Grüße a/b <c>","order_id":"12345"},"pay_address":"rTest123...","status":"completed","tx_hash":null},"id":"evt_1234567890","type":"payment.completed"}`)
	var indented bytes.Buffer
	_ = json.Indent(&indented, []byte(sample), "", "  ")
	stamp := fmt.Sprint(time.Now().Unix())
	for name, tc := range map[string]struct {
		signature, body string
		says            string
	}{
		"sha256=":           {"sha256=" + good, sample, "the signature has the prefix sha256="},
		"v1=":               {"v1=" + good, sample, "the signature has the prefix v1="},
		"v1,base64":         {"v1," + base64.StdEncoding.EncodeToString(raw), sample, "the signature has the prefix v1,; the signature is base64"},
		"0x":                {"0x" + good, sample, "the signature has the prefix 0x"},
		"quotes":            {`"` + good + `"`, sample, "has spaces, quotes or line breaks in it"},
		"space inside":      {good[:32] + " " + good[32:], sample, "has spaces, quotes or line breaks in it"},
		"base64":            {base64.StdEncoding.EncodeToString(raw), sample, "the signature is base64"},
		"base64url":         {base64.RawURLEncoding.EncodeToString(raw), sample, "takes hex"},
		"hex in base64":     {base64.StdEncoding.EncodeToString([]byte(good)), sample, "encoded in base64 once more"},
		"percent":           {strings.ReplaceAll(base64.StdEncoding.EncodeToString(raw), "=", "%3D"), sample, "percent-encoded"},
		"cut":               {good[:50], sample, "the signature is cut: it has 50 digits of 64"},
		"too long":          {good + "00", sample, "has 2 letters behind its 64 digits"},
		"no hex":            {"test_signature", sample, `the signature "test_signature" is not hex`},
		"wrong length":      {"abcdef12", sample + "?", "has 8 digits, HMAC-SHA256 has 64"},
		"sha1":              {hex.EncodeToString(mac(sha1.New, verifySecret, sample)), sample, "the digest is HMAC-SHA1"},
		"sha512":            {hex.EncodeToString(mac(sha512.New, verifySecret, sample)), sample, "the digest is HMAC-SHA512"},
		"md5":               {hex.EncodeToString(mac(md5.New, verifySecret, sample)), sample, "the digest is HMAC-MD5"},
		"sha512 in base64":  {"sha512=" + base64.StdEncoding.EncodeToString(mac(sha512.New, verifySecret, sample)), sample, "the digest is HMAC-SHA512"},
		"no key":            {fmt.Sprintf("%x", sha256.Sum256([]byte(sample))), sample, "plain SHA-256 of the body, without any secret"},
		"key in text":       {fmt.Sprintf("%x", sha256.Sum256([]byte(verifySecret+sample))), sample, "SHA-256 of secret and body written together"},
		"secret newline":    {sha(verifySecret+"\n", sample), sample, "the secret and a line break behind it"},
		"secret crlf":       {sha(verifySecret+"\r\n", sample), sample, "the secret and a line break of Windows (CR LF) behind it"},
		"secret space":      {sha(verifySecret+" ", sample), sample, "the secret and a space behind it"},
		"secret quoted":     {sha(`"`+verifySecret+`"`, sample), sample, "the secret in quotes"},
		"whsec_ stripped":   {sha(strings.TrimPrefix(verifySecret, "whsec_"), sample), sample, "the secret without its whsec_"},
		"secret decoded":    {sha(string(inner), sample), sample, "the secret decoded from base64"},
		"old secret":        {sha(oldSecret, sample), sample, "a secret that is not in use here any more (label " + fmt.Sprintf("%x", sha256.Sum256([]byte(oldSecret)))[:8] + ")"},
		"empty secret":      {sha("", sample), sample, "the empty secret"},
		"undefined":         {sha("undefined", sample), sample, "the word for none (undefined)"},
		"example secret":    {sha("whsec_test_secret", sample), sample, "an example secret from documentation"},
		"newline added":     {good, sample + "\n", "a line break was added at the end of the body"},
		"newline lost":      {sha(verifySecret, sample+"\n"), sample, "a line break at the end of the body was signed and is not here"},
		"crlf":              {sha(verifySecret, indented.String()), strings.ReplaceAll(indented.String(), "\n", "\r\n"), "changed from LF to CR LF"},
		"lf":                {sha(verifySecret, strings.ReplaceAll(indented.String(), "\n", "\r\n")), indented.String(), "changed from CR LF to LF"},
		"bom":               {good, "\ufeff" + sample, "a byte order mark was put before the body"},
		"python":            {sha(verifySecret, python), sample, "signed was the same JSON with the spaces of Python's json.dumps, numbers as Python writes them, letters as \\u escapes"},
		"compact":           {good, indented.String(), "signed was the same JSON without spaces"},
		"indent 2":          {sha(verifySecret, indented.String()), sample, "signed was the same JSON indented by 2"},
		"stringify":         {sha(verifySecret, node), sample, "numbers as JavaScript's JSON.stringify writes them"},
		"stringified by us": {good, node, "the amount with two decimals"},
		"python by us":      {good, python, "signed was the same JSON without spaces, the amount with two decimals"},
		"php":               {sha(verifySecret, php), sample, `letters as \u escapes and slashes as \/`},
		"go":                {sha(verifySecret, golang), sample, "keys sorted"},
		"mojibake": {good, func() string { // Latin-1 taken for UTF-8 once more
			var b strings.Builder
			for _, c := range []byte(sample) {
				b.WriteRune(rune(c))
			}
			return b.String()
		}(), "converted to UTF-8 twice"},
		"json string":        {good, jsonOf(sample), "wrapped into a JSON string"},
		"stripe":             {sha(verifySecret, stamp+"."+sample), sample, "timestamp, dot and body were signed together"},
		"stripe header":      {"t=1700000000,v1=" + sha(verifySecret, "1700000000."+sample), sample, "timestamp, dot and body were signed together"},
		"body of hex":        {sha(verifySecret, hex.EncodeToString([]byte(sample))), sample, "the body was signed as hex"},
		"nothing signed":     {sha(verifySecret, ""), sample, "nothing was signed"},
		"prefix and newline": {"sha256=" + good, sample + "\n", "a line break was added at the end of the body"},
		"other secret":       {sha("whsec_of_somebody_else_entirely", sample), sample, "made with another secret, or of another body"},
		"other body":         {sha(verifySecret, strings.Replace(sample, "10.00", "1000.00", 1)), sample, "made with another secret, or of another body"},
		"too large":          {good, strings.Repeat("x", 256<<10+1), "the body has 262145 bytes, at most 262144 are taken"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, stderr := verify(t, map[string]string{"body": tc.body, "old": oldSecret + "\n"}, "", nil,
				"--body", "DIR/body", "--signature", tc.signature, "--timestamp", stamp, "--old-secret-file", "DIR/old")
			if code != 1 || stderr != "" || !strings.HasPrefix(out, "refused: Quayside would answer 4") || !strings.Contains(out, tc.says) || !strings.Contains(out, "\n  mend   ") {
				t.Errorf("exit %d, want %q in\n%s%s", code, tc.says, out, stderr)
			}
		})
	}
}

// What would be accepted is, with the label of the secret, and what it tells.
func TestVerifySignatureAccepted(t *testing.T) {
	t.Parallel()
	good := sha(verifySecret, sample)
	label := fmt.Sprintf("%x", sha256.Sum256([]byte(verifySecret)))[:8]
	both := map[string]string{"PAYQI_WEBHOOK_SECRET": oldSecret + "," + verifySecret}
	whole := "POST /webhooks/payqi HTTP/1.1\r\nHost: x\r\nx-payqi-signature:  " + good + " \r\nContent-Length: " + fmt.Sprint(len(sample)) + "\r\n\r\n" + sample
	chunked := "POST /webhooks/payqi HTTP/1.1\r\nHost: x\r\nX-PayQI-Signature: " + good + "\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(sample), sample)
	curl := "* Connected\n> POST /webhooks/payqi HTTP/1.1\n> Host: x\n> X-PayQI-Signature: " + good + "\n> \n} [260 bytes data]\n< HTTP/1.1 400 Bad Request\n< X-PayQI-Signature: not this\n"
	tshark := "Hypertext Transfer Protocol\n    POST /webhooks/payqi HTTP/1.1\\r\\n\n    Host: x\\r\\n\n    X-PayQI-Signature: " + good + "\\r\\n\n    \\r\\n\n"
	unreadable := strings.Replace(sample, `"amount":10.00`, `"amount":"ten"`, 1)
	for name, tc := range map[string]struct {
		files map[string]string
		stdin string
		env   map[string]string
		args  []string
		says  []string
	}{
		"flags":       {map[string]string{"body": sample}, "", nil, []string{"--body", "DIR/body", "--signature", good}, []string{"signed with secret " + label, "payment.completed of payment pay_abc123 for order 12345"}},
		"stdin":       {nil, sample, nil, []string{"--signature", good, "--timestamp", fmt.Sprint(time.Now().Unix())}, nil},
		"upper":       {nil, sample, nil, []string{"--signature", strings.ToUpper(good)}, nil},
		"second":      {nil, sample, both, []string{"--signature", good}, []string{"signed with secret " + label, fmt.Sprintf("%x", sha256.Sum256([]byte(oldSecret)))[:8] + ", " + label}},
		"secret file": {map[string]string{"secret": verifySecret + "\n"}, sample, map[string]string{}, []string{"--signature", good, "--secret-file", "DIR/secret"}, nil},
		"whole":       {map[string]string{"req": whole}, "", nil, []string{"--headers", "DIR/req"}, nil},
		"whole+":      {map[string]string{"req": whole + "\n"}, "", nil, []string{"--headers", "DIR/req"}, nil}, // nc and editors add one
		"whole lf":    {map[string]string{"req": strings.ReplaceAll(whole, "\r\n", "\n")}, "", nil, []string{"--headers", "DIR/req"}, nil},
		"piped":       {nil, whole, nil, []string{"--headers", "-"}, nil},
		"chunked":     {map[string]string{"req": chunked}, "", nil, []string{"--headers", "DIR/req"}, nil},
		"curl -v":     {map[string]string{"req": curl, "body": sample}, "", nil, []string{"--headers", "DIR/req", "--body", "DIR/body"}, nil},
		"tshark -V":   {map[string]string{"req": tshark}, sample, nil, []string{"--headers", "DIR/req"}, nil},
		"at":          {nil, sample, nil, []string{"--signature", good, "--timestamp", "1234567890", "--at", "2009-02-13T23:33:00Z"}, nil},
		"at seconds":  {nil, sample, nil, []string{"--signature", good, "--timestamp", "1234567890", "--at", "1234567890"}, nil},
		"off":         {nil, sample, map[string]string{"PAYQI_WEBHOOK_SECRET": verifySecret, "PAYQI_TIMESTAMP": "off"}, []string{"--signature", good, "--timestamp", "abc"}, nil},
		"unreadable":  {nil, unreadable, nil, []string{"--signature", sha(verifySecret, unreadable)}, []string{"kept but not applied: data.amount is not a decimal number"}},
		"no json":     {nil, "hello", nil, []string{"--signature", sha(verifySecret, "hello")}, []string{"kept but not applied: the body is not valid JSON"}},
		"unknown":     {nil, `{"type":"a.b"}`, nil, []string{"--signature", sha(verifySecret, `{"type":"a.b"}`)}, []string{"none of PayQI's five types"}},
		"test":        {nil, strings.Replace(sample, "pay_abc", "pay_test_", 1), nil, []string{"--signature", sha(verifySecret, strings.Replace(sample, "pay_abc", "pay_test_", 1))}, []string{"a test event, which touches no order"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, stderr := verify(t, tc.files, tc.stdin, tc.env, tc.args...)
			if code != 0 || stderr != "" || !strings.HasPrefix(out, "accepted: Quayside would answer 200 OK; signed with secret ") {
				t.Errorf("exit %d, %s%s", code, out, stderr)
			}
			contains(t, "the output", out, tc.says...)
		})
	}
}

// A timestamp that is refused is explained: its unit, its form, how far off it
// is and whose clock is likely wrong; and headers that are missing, doubled or
// called otherwise.
func TestVerifySignatureHeaders(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	seconds := func(d time.Duration) string { return fmt.Sprint(at.Add(d).Unix()) }
	fresh := strings.Replace(sample, "1234567890,", "1700000000,", 1)
	older := strings.Replace(sample, "1234567890,", seconds(-time.Hour)+",", 1)
	required := map[string]string{"PAYQI_WEBHOOK_SECRET": verifySecret, "PAYQI_TIMESTAMP": "required"}
	both := func(body, timestamp string) string {
		return "X-PayQI-Signature: " + sha(verifySecret, body) + "\nX-PayQI-Timestamp: " + timestamp + "\n"
	}
	for name, tc := range map[string]struct {
		headers, body string
		env           map[string]string
		answer, says  string
	}{
		"milliseconds":  {both(sample, "1700000000123"), sample, nil, "400 Request too old", "the timestamp is in milliseconds: in seconds it would be in time"},
		"old millis":    {both(sample, "1699990000123"), sample, nil, "400 Request too old", "the timestamp is in milliseconds: the timestamp is 2h46m40s in the past"},
		"nanoseconds":   {both(sample, "1700000000123456789"), sample, nil, "400 Request too old", "the timestamp is in nanoseconds"},
		"date":          {both(sample, "2023-11-14T22:13:20Z"), sample, nil, "400 Request too old", `the timestamp "2023-11-14T22:13:20Z" is a date`},
		"fraction":      {both(sample, "1700000000.5"), sample, nil, "400 Request too old", "has a fraction"},
		"words":         {both(sample, "yesterday"), sample, nil, "400 Request too old", `the timestamp "yesterday" is not decimal digits`},
		"signed number": {both(sample, "+1700000000"), sample, nil, "400 Request too old", "is not decimal digits"},
		"empty":         {both(sample, ""), sample, nil, "400 Request too old", `the timestamp "" is not decimal digits`},
		"past":          {both(sample, seconds(-20*time.Minute)), sample, nil, "400 Request too old", "20m0s in the past, 5 minutes are allowed"},
		"future":        {both(sample, seconds(301*time.Second)), sample, nil, "400 Request too old", "5m1s in the future, 5 minutes are allowed\n  mend   the sender's clock is ahead, or the one here is behind"},
		"recorded":      {both(older, seconds(-time.Hour)), older, nil, "400 Request too old", "1h0m0s in the past, 5 minutes are allowed; the event itself was made then, too\n  mend   if it was recorded then, judge it as of then with --at 1699996400"},
		"zone":          {both(fresh, seconds(2*time.Hour)), fresh, nil, "400 Request too old", "that is 2h0m, a time zone: the sender took local time for UTC"},
		"header clock":  {both(fresh, seconds(-20*time.Minute)), fresh, nil, "400 Request too old", "by its signed time the event is new, so the sender's clock for the header is wrong"},
		"twice":         {both(sample, "1700000000") + "X-PayQI-Timestamp: 1700000000\n", sample, nil, "400 Request too old", "X-PayQI-Timestamp came 2 times"},
		"required":      {"X-PayQI-Signature: " + sha(verifySecret, sample) + "\n", sample, required, "400 Request too old", "no header X-PayQI-Timestamp, and PAYQI_TIMESTAMP is required"},
		"two wrongs":    {"X-PayQI-Signature: sha256=" + sha(verifySecret, sample) + "\nX-PayQI-Timestamp: 1700000000000\n", sample, nil, "400 Invalid signature", "also   the timestamp is in milliseconds"},
		"no signature":  {"Host: x\n", sample, nil, "400 Invalid signature", "there is no header X-PayQI-Signature\n"},
		"underscores":   {"X_PayQI_Signature: " + sha(verifySecret, sample) + "\n", sample, nil, "400 Invalid signature", "no header X-PayQI-Signature, but one that is called X_"},
		"other name":    {"X-Signature-256: sha256=" + sha(verifySecret, sample) + "\n", sample, nil, "400 Invalid signature", "also   the signature has the prefix sha256="},
		"two":           {both(sample, "1700000000") + "X-PayQI-Signature: " + strings.Repeat("0", 64) + "\n", sample, nil, "400 Invalid signature", "came 2 times; it must come once"},
		"empty value":   {"X-PayQI-Signature:\n", sample, nil, "400 Invalid signature", "the signature is empty"},
		"gzip":          {both(sample, "1700000000") + "Content-Encoding: gzip\n", sample, nil, "415 Compressed bodies are not taken", "the body is compressed (Content-Encoding: gzip)"},
		"cut":           {"POST / HTTP/1.1\nContent-Length: 999\nX-PayQI-Signature: " + sha(verifySecret, sample) + "\n\n" + sample[:100], "", nil, "400 Invalid signature", "the recording is cut: it holds 100 of the body's 999 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, stderr := verify(t, map[string]string{"headers": tc.headers}, tc.body, tc.env, "--headers", "DIR/headers", "--at", "1700000000")
			if code != 1 || stderr != "" || !strings.HasPrefix(out, "refused: Quayside would answer "+tc.answer) || !strings.Contains(out, tc.says) {
				t.Errorf("exit %d, want %q and %q in\n%s%s", code, tc.answer, tc.says, out, stderr)
			}
		})
	}
}

// The verdict is the server's own: each request is judged and then sent.
func TestVerifySignatureAgreesWithServer(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	good := signed(sample)
	now := fmt.Sprint(time.Now().Unix())
	for i, tc := range []struct{ signature, timestamp, body string }{
		{good, now, sample},
		{strings.ToUpper(good), now, sample},
		{good, "", sample},
		{"sha256=" + good, now, sample},
		{good[:63], now, sample},
		{signed("other"), "5", "other"},
		{signed("third"), now + "000", "third"},
		{good, now, sample + "\n"},
		{"", now, sample},
		{signed(""), now, ""},
	} {
		headers := "Host: x\nX-PayQI-Signature: " + tc.signature + "\n"
		if tc.timestamp != "" {
			headers += "X-PayQI-Timestamp: " + tc.timestamp + "\n"
		}
		_, out, _ := verify(t, map[string]string{"headers": headers}, tc.body, map[string]string{"PAYQI_WEBHOOK_SECRET": worldSecret}, "--headers", "DIR/headers", "--json")
		var v verdict
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatalf("%d: %v: %s", i, err, out)
		}
		r := w.ask(http.MethodPost, "/webhooks/payqi", tc.body, signatureHeader, tc.signature, timestampHeader, tc.timestamp)
		if r.status != v.Status || (r.body != v.Answer && r.body != "Already processed") || v.Accepted != (r.status == 200) {
			t.Errorf("%d: the server says %d %s, the tool %s", i, r.status, r.body, out)
		}
		if !v.Accepted && len(v.Causes) == 0 {
			t.Errorf("%d: refused without a cause: %s", i, out)
		}
	}
}

// Wrong usage is exit code 2 and says what to write instead.
func TestVerifySignatureUsage(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ args, says string }{
		{"", "give the signature with --signature VALUE"},
		{"body.json", "a secret is never an argument"},
		{"--signature x --body /nowhere/body", "--body: open /nowhere/body: no such file or directory; name a file"},
		{"--headers /nowhere/headers", "--headers: open /nowhere/headers: no such file"},
		{"--headers - --body -", "only one of --headers and --body"},
		{"--signature x --at tomorrow", `--at "tomorrow" is no time; write for instance`},
		{"--signature x --secret-file /nowhere/secret", `--secret-file: "/nowhere/secret" cannot be read`},
		{"--signature x --secret-file DIR/short", "a webhook secret has 5 bytes, at least 16 are needed; copy it whole"},
		{"--headers DIR/short", "no line there looks like a header"},
		{"--headers -", "no line there looks like a header"},
	} {
		code, out, stderr := verify(t, map[string]string{"short": "short\n"}, "", nil, strings.Fields(tc.args)...)
		if code != 2 || out != "" || !strings.Contains(stderr, tc.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, want %q: %s%s", tc.args, code, tc.says, out, stderr)
		}
	}
	if code, _, stderr := verify(t, nil, "", map[string]string{}, "--signature", "x"); code != 2 || !strings.Contains(stderr, "PAYQI_WEBHOOK_SECRET: is missing") {
		t.Errorf("no secret: exit %d, %s", code, stderr)
	}
}
