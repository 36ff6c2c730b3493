//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/joho/godotenv"

	"quayside/internal/orders"
)

const httpsPage = "../../docs/https.md"

// blockOf is the nth fenced block of a language in docs/https.md, so that what
// people copy is what is tested.
func blockOf(t *testing.T, language string, n int) string {
	t.Helper()
	page, err := os.ReadFile(httpsPage)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(page), "\n```"+language+"\n")
	if len(parts) < n+1 {
		t.Fatalf("%s has no %d. block of %s", httpsPage, n, language)
	}
	text, _, _ := strings.Cut(parts[n], "\n```")
	return text + "\n"
}

// replaced makes replacements, each of which must find something.
func replaced(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q is not in\n%s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// installed is the path of a program, "" when this machine has none.
func installed(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Logf("NOT SHOWN: %s is not installed (Debian: apt-get install %s)", name, name)
			return ""
		}
	}
	return path
}

// freePort is a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// foreground runs a program until the test ends, and waits until it listens.
func foreground(t *testing.T, addr string, argv ...string) {
	t.Helper()
	var said safeBuffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the group that we made
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", strings.Join(argv, " "), tailOf(said.String()))
		}
	})
	w := &world{t: t}
	w.await(argv[0]+" to listen on "+addr, func() bool {
		select {
		case <-ended:
			t.Fatalf("%s ended:\n%s", argv[0], said.String())
		default:
		}
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// theWay is a shop behind proxies: where clients knock, and the service's log.
type theWay struct {
	*clinic
	https, http string // host:port of the front
	serve       *program
}

// nginxOf runs the blocks of the page in an nginx of its own.
func nginxOf(t *testing.T, listens, conf string) {
	t.Helper()
	dir := reachableDir(t)
	user := ""
	if os.Geteuid() == 0 {
		user = "user nobody nogroup;"
	}
	var temps strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temps, "%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	main := write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf("%s\ndaemon off;\nworker_processes 1;\npid %s/pid;\nerror_log stderr warn;\nevents {}\nhttp {\naccess_log off;\n%s%s}\n", user, dir, temps.String(), conf))
	foreground(t, listens, installed(t, "nginx"), "-c", main, "-p", dir, "-e", "stderr")
}

// caddyOf runs the block of the page; the certificate, which Caddy would get
// from Let's Encrypt, is given.
func caddyOf(t *testing.T, listens, conf string) {
	t.Helper()
	dir := t.TempDir()
	_, port, _ := net.SplitHostPort(listens)
	file := write(t, filepath.Join(dir, "Caddyfile"), fmt.Sprintf("{\n\tadmin off\n\thttps_port %s\n\thttp_port %s\n\tstorage file_system %s\n}\n%s", port, freePort(t), dir, conf))
	foreground(t, listens, installed(t, "caddy"), "run", "--config", file, "--adapter", "caddyfile")
}

// behind starts serve with the nth block of settings of the page.
func behind(t *testing.T, n int) *theWay {
	t.Helper()
	c := &clinic{world: newWorld(t), ca: newAuthority(t)}
	c.cfg.MailFrom = "orders@" + shopHost
	page, err := godotenv.Unmarshal(replaced(t, blockOf(t, "env", n), "shop.example", shopHost))
	if err != nil {
		t.Fatal(err)
	}
	settings := c.settings()
	for name, value := range page {
		settings[name] = value
	}
	settings["LISTEN_ADDR"], settings["LOG_LEVEL"] = "127.0.0.1:0", "debug"
	delete(settings, "METRICS_ADDR")
	if settings["TLS_CERT_FILE"] != "" {
		settings["TLS_CERT_FILE"], settings["TLS_KEY_FILE"] = pemFiles(t, c.ca.cert(t, shopHost, 90*24*time.Hour))
	}
	way := &theWay{clinic: c, serve: process(t, settings, "serve")}
	c.own = way.serve.said("serving")["addr"].(string)
	c.cfg.PublicURL = page["PUBLIC_URL"]
	return way
}

// client is a browser or PayQI, at an address that is no proxy's.
func (w *theWay) client() *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: w.ca.pool}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			switch addr {
			case shopHost + ":443":
				addr = w.https
			case shopHost + ":80":
				addr = w.http
			}
			return dialer.DialContext(ctx, network, addr)
		},
	}
	w.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// knock sends one request and returns the answer, read whole.
func (w *theWay) knock(method, address string, body io.Reader, headers ...string) reply {
	w.t.Helper()
	q, err := http.NewRequestWithContext(w.t.Context(), method, address, body)
	w.must(err)
	for i := 0; i < len(headers); i += 2 {
		q.Header.Add(headers[i], headers[i+1])
	}
	res, err := w.client().Do(q)
	w.must(err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	w.must(err)
	res.Header.Set("Proto", res.Proto)
	return reply{res.StatusCode, res.Header, string(text)}
}

// clientOf is whom serve took the client of a request for.
func (w *theWay) clientOf(r reply) string {
	w.t.Helper()
	id, got := r.header.Get("X-Request-Id"), ""
	w.serve.until("the log line of "+id, func() bool {
		for line := range strings.Lines(w.serve.stderr.String()) {
			var l struct {
				ID     string `json:"request_id"`
				Client string
			}
			if json.Unmarshal([]byte(line), &l) == nil && l.ID == id && id != "" {
				got = l.Client
			}
		}
		return got != ""
	})
	return got
}

// anEventFor is a signed event, fresh each time.
func anEventFor(order string) (body string, headers []string) {
	b, _ := json.Marshal(newEvent("payment.created", orders.View{ID: order, Currency: "XRP"}, "pay_test_"+randomHex(8)))
	return string(b), []string{"X-PayQI-Signature", signed(string(b)), "X-PayQI-Timestamp", now()}
}

// holds goes through what must be true behind any front.
func (w *theWay) holds(t *testing.T) {
	t.Helper()
	const at, hook = "https://" + shopHost, "https://" + shopHost + "/webhooks/payqi"
	body, headers := anEventFor("x")
	got := w.knock(http.MethodPost, hook, strings.NewReader(body), headers...)
	if got.status != http.StatusOK || got.body != "OK" {
		t.Fatalf("a signed event: %d %s", got.status, got.body)
	}
	if proto := got.header.Get("Proto"); proto != "HTTP/2.0" {
		t.Errorf("it came by %s", proto)
	}
	if client := w.clientOf(got); client != "127.0.0.2" {
		t.Errorf("the client is taken for %s", client)
	}
	if got.header.Get("Strict-Transport-Security") == "" {
		t.Error("no HSTS")
	}
	body, headers = anEventFor("x")
	forged := slices.Concat(headers, []string{"X-Forwarded-For", "198.51.100.66", "X-Forwarded-For", "198.51.100.67", "X-Forwarded-Proto", "http", "Forwarded", "for=198.51.100.66", "X-Real-Ip", "198.51.100.66"})
	if got := w.knock(http.MethodPost, hook, strings.NewReader(body), forged...); got.status != http.StatusOK || w.clientOf(got) != "127.0.0.2" {
		t.Errorf("with made-up headers: %d, client %s", got.status, w.clientOf(got))
	}
	body, headers = anEventFor("x")
	if got := w.knock(http.MethodPost, hook, io.MultiReader(strings.NewReader(body[:20]), strings.NewReader(body[20:])), headers...); got.status != http.StatusOK {
		t.Errorf("in chunks: %d %s", got.status, got.body)
	}
	if got := w.knock(http.MethodPost, hook, strings.NewReader(body+" "), headers...); got.status != http.StatusBadRequest || got.body != "Invalid signature" {
		t.Errorf("with another body: %d %s", got.status, got.body)
	}
	large := bytes.Repeat([]byte("x"), 300<<10)
	if got := w.knock(http.MethodPost, hook, bytes.NewReader(large), "X-PayQI-Signature", signed(string(large))); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d %s", got.status, got.body)
	}
	if got := w.knock(http.MethodGet, at+"/healthz", nil); got.status != http.StatusOK || got.body != "alive\n" {
		t.Errorf("/healthz: %d %s", got.status, got.body)
	}
}

// examined lets the doctor go the same way.
func (w *theWay) examined(t *testing.T) {
	t.Helper()
	settings := w.serve.settings()
	settings["LISTEN_ADDR"] = w.own
	d := w.doctor(t, settings, doctorOptions{role: "serve", probe: true}, "")
	d.dial = w.dialTo(w.https)
	found := d.examine(t.Context())
	for _, f := range found {
		if f.Verdict == isWrong && (f.Group == "public address" || f.Group == "proxies") || f.Verdict == isWarning && f.Group == "proxies" && f.Check != "X-Forwarded-For" {
			t.Errorf("the doctor says: %+v", f)
		}
	}
	contains(t, "the doctor", printed(t, found), "byte for byte")
}

// settings are those the program was started with.
func (p *program) settings() map[string]string {
	m := map[string]string{}
	for _, pair := range p.cmd.Env {
		name, value, _ := strings.Cut(pair, "=")
		m[name] = value
	}
	return m
}

// keptToItself: plain requests are refused and never redirected with a body,
// and the shop's numbers are not shown.
func (w *theWay) keptToItself(t *testing.T) {
	t.Helper()
	if got := w.knock(http.MethodGet, "https://"+shopHost+"/metrics", nil); got.status == http.StatusOK {
		t.Error("/metrics is open to the internet")
	}
	body, headers := anEventFor("x")
	if got := w.direct(body, headers...); got.status != http.StatusForbidden || !strings.Contains(got.body, "only over https") || got.header.Get("Location") != "" {
		t.Errorf("a plain POST past the proxy: %d %s", got.status, got.body)
	}
	if got := w.direct(body, append(headers, "X-Forwarded-Proto", "https", "X-Forwarded-For", "127.0.0.1")...); got.status != http.StatusForbidden {
		t.Errorf("a plain POST that claims to be https: %d %s", got.status, got.body)
	}
}

// direct goes round the proxy.
func (w *theWay) direct(body string, headers ...string) reply {
	w.t.Helper()
	return w.knock(http.MethodPost, "http://"+w.own+"/webhooks/payqi", strings.NewReader(body), headers...)
}

// nginxFront replaces hosts, ports and files of the first block for nginx.
func (w *theWay) nginxFront(t *testing.T, upstream string) {
	t.Helper()
	cert, key := pemFiles(t, w.ca.cert(t, shopHost, 90*24*time.Hour))
	w.https, w.http = "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	nginxOf(t, w.https, replaced(t, blockOf(t, "nginx", 1),
		"listen 443", "listen "+w.https, "listen 80", "listen "+w.http, "shop.example;", shopHost+";", "http://127.0.0.1:8080", "http://"+upstream,
		"/etc/letsencrypt/live/shop.example/fullchain.pem", cert, "/etc/letsencrypt/live/shop.example/privkey.pem", key))
}

func (w *theWay) caddyFront(t *testing.T, upstream string) {
	t.Helper()
	cert, key := pemFiles(t, w.ca.cert(t, shopHost, 90*24*time.Hour))
	w.https = "127.0.0.1:" + freePort(t)
	_, port, _ := net.SplitHostPort(w.https)
	caddyOf(t, w.https, replaced(t, blockOf(t, "caddy", 1), "shop.example {", shopHost+":"+port+", "+shopHost+" {\n\ttls "+cert+" "+key, "127.0.0.1:8080", upstream))
}

// The page's nginx passes events on as they are, says who sent them, and keeps
// plain text out.
func TestHTTPSBehindNginx(t *testing.T) {
	t.Parallel()
	if installed(t, "nginx") == "" {
		return
	}
	w := behind(t, 1)
	w.nginxFront(t, w.own)
	w.holds(t)
	w.examined(t)
	w.keptToItself(t)
	body, headers := anEventFor("x")
	if got := w.knock(http.MethodPost, "http://"+shopHost+"/webhooks/payqi", strings.NewReader(body), headers...); got.status != http.StatusForbidden || !strings.Contains(got.body, "only over https") {
		t.Errorf("a plain POST: %d %s", got.status, got.body)
	}
	if got := w.knock(http.MethodGet, "http://"+shopHost+"/o/x", nil); got.status != http.StatusMovedPermanently || got.header.Get("Location") != "https://"+shopHost+"/o/x" {
		t.Errorf("a plain page: %d %v", got.status, got.header)
	}
}

// The same of the page's Caddy.
func TestHTTPSBehindCaddy(t *testing.T) {
	t.Parallel()
	if installed(t, "caddy") == "" {
		return
	}
	w := behind(t, 1)
	w.caddyFront(t, w.own)
	w.holds(t)
	w.examined(t)
	w.keptToItself(t)
}

// Behind two proxies the client is still the client.
func TestHTTPSBehindTwoProxies(t *testing.T) {
	t.Parallel()
	if installed(t, "caddy") == "" || installed(t, "nginx") == "" {
		return
	}
	w := behind(t, 2)
	w.http = "127.0.0.1:" + freePort(t)
	nginxOf(t, w.http, replaced(t, blockOf(t, "nginx", 2), "listen 80", "listen "+w.http, "shop.example;", shopHost+";", "http://127.0.0.1:8080", "http://"+w.own, "10.0.0.5", "127.0.0.1"))
	w.caddyFront(t, w.http)
	w.holds(t)
	w.examined(t)
	if got := w.knock(http.MethodGet, "http://"+shopHost+"/healthz", nil, "X-Forwarded-Proto", "https"); got.status != http.StatusForbidden || w.serveSaw(got) {
		t.Errorf("past the balancer: %d %s", got.status, got.body)
	}
}

// serveSaw reports whether an answer is quayside's own.
func (w *theWay) serveSaw(r reply) bool { return r.header.Get("X-Request-Id") != "" }

// Without a proxy serve does the same by itself.
func TestHTTPSByServeItself(t *testing.T) {
	t.Parallel()
	w := behind(t, 3)
	w.https = w.own
	w.holds(t)
	w.examined(t)
}

// What is said bit by bit arrives bit by bit: the first event of a stream is
// there before the stream ends.
func TestHTTPSStreams(t *testing.T) {
	t.Parallel()
	for name, front := range map[string]func(w *theWay, t *testing.T, upstream string){"nginx": (*theWay).nginxFront, "caddy": (*theWay).caddyFront} {
		t.Run(name, func(t *testing.T) {
			if installed(t, name) == "" {
				return
			}
			w := &theWay{clinic: &clinic{world: &world{t: t}, ca: newAuthority(t)}}
			heard := make(chan struct{})
			upstream := w.site(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(rw, "data: awaiting payment\n\n")
				_ = http.NewResponseController(rw).Flush()
				select {
				case <-heard:
				case <-r.Context().Done():
				}
				_, _ = io.WriteString(rw, "data: paid\n\n")
			}), nil)
			front(w, t, upstream)
			q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+shopHost+"/o/token/events", nil)
			w.must(err)
			res, err := w.client().Do(q)
			w.must(err)
			defer func() { _ = res.Body.Close() }()
			first := make([]byte, len("data: awaiting payment\n\n"))
			if _, err := io.ReadFull(res.Body, first); err != nil || !strings.Contains(string(first), "awaiting") {
				t.Fatalf("%q %v", first, err)
			}
			close(heard)
			rest, err := io.ReadAll(res.Body)
			if err != nil || string(rest) != "data: paid\n\n" {
				t.Errorf("%q %v", rest, err)
			}
		})
	}
}

// docs/troubleshooting.md answers each point of the guide's lists.
func TestTroubleshootingAnswersTheGuide(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../docs/payqi-webhook-guide.txt")
	if err != nil {
		t.Fatal(err)
	}
	answers, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, lists, _ := strings.Cut(string(guide), "\n## Troubleshooting\n")
	lists, _, _ = strings.Cut(lists, "\n## ")
	points := 0
	for line := range strings.Lines(lists) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "### ") {
			contains(t, "troubleshooting.md", string(answers), "\n"+line+"\n")
		} else if _, point, ok := strings.Cut(line, ". "); ok {
			points++
			contains(t, "troubleshooting.md", string(answers), "\n| "+point+" | ")
		}
	}
	if points != 10 {
		t.Errorf("the guide has %d points, 10 were counted by hand", points)
	}
}
