package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"quayside/internal/database"
	"quayside/internal/webhooks"
)

const (
	webhookPath    = "/webhooks/payqi"
	requestTimeout = 5 * time.Second // of one request
	slowAnswer     = 2 * time.Second // for what takes milliseconds
)

// examineFront goes in by the public address, and then asks serve what it has
// counted, that visit included.
func (d *doctor) examineFront(ctx context.Context, r *report) (learn func()) {
	visited := d.examinePublic(ctx, r)
	m := d.scrape(ctx)
	return func() {
		d.metrics = m
		if visited != nil {
			visited()
		}
	}
}

// examinePublic goes the way that PayQI's events come: name, connection,
// certificate, proxy, Quayside.
func (d *doctor) examinePublic(ctx context.Context, r *report) (learn func()) {
	d.judgeCertificateFiles(r)
	if !d.usable(r, "PUBLIC_URL", d.cfg.PublicURL) {
		return nil
	}
	u, err := url.Parse(d.cfg.PublicURL)
	if err != nil {
		r.wrong("PUBLIC_URL", "cannot be read", "write for instance https://shop.example")
		return nil
	}
	if !d.judgeAddress(ctx, r, u) {
		return nil
	}
	p := d.askPublic(ctx, http.MethodPost, webhookPath, []byte(`{"type":"quayside.doctor"}`), nil)
	if p.err != nil {
		what, mend := whyNoPublic(u, p.err)
		r.wrong("reachable", what, mend, "curl -i "+d.cfg.PublicURL+"/healthz   # from outside your network, too")
		return nil
	}
	d.judgeCertificate(r, u, p.tls)
	if !d.judgeAnswer(r, u, p) {
		refused := p.status == http.StatusForbidden && strings.Contains(p.body, "only over https")
		return func() { d.httpsRefused = refused && u.Scheme == "https" }
	}
	d.judgeReady(ctx, r)
	if d.probe {
		d.probePublic(ctx, r)
	}
	return nil
}

// judgeAddress looks at PUBLIC_URL itself and at its name. It reports whether
// somebody could be there.
func (d *doctor) judgeAddress(ctx context.Context, r *report, u *url.URL) bool {
	switch {
	case d.isDev():
		r.fine("PUBLIC_URL", "%s: a development installation, for this machine alone (docs/https.md has tunnels)", d.cfg.PublicURL)
		return true
	case loopback(d.cfg.PublicURL):
		r.wrong("PUBLIC_URL", d.cfg.PublicURL+" is this machine: links in letters would lead customers to their own, and PayQI cannot reach it", "set it to the address that customers use; docs/https.md says how to get one, also through a tunnel:", "PUBLIC_URL=https://shop.example")
	case u.Scheme == "http":
		r.wrong("PUBLIC_URL", d.cfg.PublicURL+" is not https: payments and customers' pages cross the internet in plain text (guide, \"Best Practices\": use HTTPS only)", "put nginx or Caddy in front, or set TLS_CERT_FILE and TLS_KEY_FILE: docs/https.md; then:", "PUBLIC_URL=https://"+u.Host+u.Path)
	}
	ips, err := d.addressesOf(ctx, u.Hostname())
	if err != nil || len(ips) == 0 {
		r.wrong("DNS", u.Hostname()+" has no address: "+short(errors.Join(err)), "make an A or AAAA record for it at your domain's provider, and wait until it has spread:", "dig +short "+u.Hostname())
		return false
	}
	private := slices.ContainsFunc(ips, func(ip netip.Addr) bool { return ip.Unmap().IsPrivate() || ip.Unmap().IsLoopback() })
	if private && !loopback(d.cfg.PublicURL) {
		r.warn("DNS", fmt.Sprintf("%s is %s, as seen from here, which is no address on the internet", u.Hostname(), join(ips)), "fine when only your own DNS says so; from outside it must be a public one:", "dig +short "+u.Hostname()+" @1.1.1.1")
	} else {
		r.fine("DNS", "%s is %s", u.Hostname(), join(ips))
	}
	return true
}

func (d *doctor) addressesOf(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	return d.resolve(ctx, host)
}

func join(ips []netip.Addr) string {
	var texts []string
	for _, ip := range ips {
		texts = append(texts, ip.Unmap().String())
	}
	return strings.Join(texts, ", ")
}

// publicAnswer is what came back from the public address.
type publicAnswer struct {
	status int
	body   string
	header http.Header
	tls    *tls.ConnectionState
	took   time.Duration
	err    error
}

// askPublic sends one request to the public address as a stranger would, and
// follows no redirect.
func (d *doctor) askPublic(ctx context.Context, method, path string, body []byte, headers map[string]string) publicAnswer {
	t := &http.Transport{
		DialContext: d.dial, DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSHandshakeTimeout: requestTimeout,
		TLSClientConfig: &tls.Config{RootCAs: d.roots, MinVersion: tls.VersionTLS12},
	}
	return ask(ctx, t, method, d.cfg.PublicURL+path, body, headers)
}

func ask(ctx context.Context, t *http.Transport, method, address string, body []byte, headers map[string]string) publicAnswer {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return publicAnswer{err: err}
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("User-Agent", "quayside-doctor")
	for name, value := range headers {
		q.Header.Set(name, value)
	}
	client := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	began := time.Now()
	res, err := client.Do(q)
	if err != nil {
		return publicAnswer{err: err}
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return publicAnswer{res.StatusCode, string(text), res.Header, res.TLS, time.Since(began), err}
}

func whyNoPublic(u *url.URL, err error) (what, mend string) {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	text := err.Error()
	switch {
	case isInvalid && invalid.Reason == x509.Expired:
		return "the certificate of " + u.Host + " has expired, or is not valid yet: " + text, "renew it (certbot renew, or what made it), and see that this is done by itself"
	case host:
		return "the certificate is made out to another name: " + text, "get one for " + u.Hostname() + ", or write PUBLIC_URL with the name that is in it"
	case unknown:
		return "nobody vouches for the certificate of " + u.Host + ": " + text, "a home-made one does not do: take Let's Encrypt; if it is from an authority, the certificates in between are missing: use fullchain.pem"
	case strings.Contains(text, "server gave HTTP response to HTTPS client"), strings.Contains(text, "first record does not look like a TLS handshake"):
		return u.Host + " speaks plain HTTP where PUBLIC_URL says https", "let the proxy listen with TLS there, or set TLS_CERT_FILE and TLS_KEY_FILE: docs/https.md"
	case strings.Contains(text, "tls: "):
		return "no TLS with " + u.Host + ": " + text, "the server must speak TLS 1.2 or newer"
	}
	return fmt.Sprintf("%s does not answer from here: %s", u.Host, short(err)), "is the proxy (or serve) running and bound to that port, and does the firewall let it in? Some routers hide an address from the machines behind it: then try from outside:"
}

// judgeAnswer looks at what came of an event without signature, which is
// refused and not stored. It reports whether a Quayside answered.
func (d *doctor) judgeAnswer(r *report, u *url.URL, p publicAnswer) bool {
	at := "POST " + webhookPath
	said := fmt.Sprintf("%s was answered %d", at, p.status)
	switch {
	case p.status == http.StatusBadRequest && p.body == "Invalid signature":
		r.fine("webhook", "%s%s reaches Quayside, which refuses what is not signed", d.cfg.PublicURL, webhookPath)
		if p.took > slowAnswer {
			r.warn("speed", fmt.Sprintf("a refusal took %.1f s; PayQI may give up, and send again what was stored", p.took.Seconds()), "look at the proxy and at the load of this machine")
		}
		return true
	case p.status >= 300 && p.status < 400:
		r.wrong("webhook", said+" with a redirect to "+plainLocation(p.header.Get("Location"))+": on the way a POST becomes a GET, and its body is lost", "register, and set as PUBLIC_URL, the address it leads to; or let the proxy pass "+webhookPath+" on without a redirect")
	case p.status == http.StatusForbidden && strings.Contains(p.body, "only over https") && u.Scheme == "https":
		r.wrong("webhook", "every request is refused: with REQUIRE_HTTPS serve must be told by the proxy that it came by https, and is not, or does not believe it", "let the proxy send X-Forwarded-Proto, and name its address (serve's log names it: \"forwarding headers ignored\"); docs/https.md:", "TRUSTED_PROXIES=127.0.0.1,::1")
	case p.status == http.StatusForbidden && strings.Contains(p.body, "only over https"):
		r.wrong("webhook", said+": REQUIRE_HTTPS is on, and PUBLIC_URL is not https", "write PUBLIC_URL with https://")
	case p.status == http.StatusUnauthorized, p.status == http.StatusForbidden, p.status == http.StatusTooManyRequests:
		r.wrong("webhook", said+": something in front of Quayside asks for a login, or takes us for a robot", "let it pass POST "+webhookPath+" without either: the signature protects it")
	case p.status == http.StatusBadGateway, p.status == http.StatusGatewayTimeout, p.status == http.StatusServiceUnavailable && p.header.Get("X-Request-Id") == "":
		r.wrong("webhook", said+": the proxy is there, and does not reach serve", "is it running, and does the proxy pass on to LISTEN_ADDR, "+d.cfg.ListenAddr+"?", d.command("serve"))
	case p.status == http.StatusServiceUnavailable:
		r.wrong("webhook", said+": serve runs, and cannot store", "see database above; serve's log says more")
	case p.status == http.StatusNotFound, p.status == http.StatusMethodNotAllowed:
		r.wrong("webhook", said+": the proxy does not pass this path on as it is, or something else answers there", "pass "+webhookPath+" on unchanged, with POST; docs/https.md has proxies that do")
	case p.status == http.StatusOK:
		r.wrong("webhook", said+" without a signature: something answers there that is not Quayside, and PayQI's events would be lost in it", "what listens at "+u.Host+"? Let it pass on to LISTEN_ADDR, "+d.cfg.ListenAddr)
	default:
		r.wrong("webhook", said+", and not 400 Invalid signature: something in front of Quayside answers", "let the proxy pass POST "+webhookPath+" on unchanged; docs/https.md")
	}
	return false
}

// plainLocation keeps control characters and lengths of strangers out.
func plainLocation(s string) string {
	u, err := url.Parse(s)
	if err != nil || len(s) > 200 {
		return "elsewhere"
	}
	return u.Redacted()
}

// judgeReady asks whether that Quayside may take traffic. A proxy that keeps
// /readyz to itself is right to.
func (d *doctor) judgeReady(ctx context.Context, r *report) {
	p := d.askPublic(ctx, http.MethodGet, "/readyz", nil, nil)
	if p.status == http.StatusServiceUnavailable { // it may have been busy for a second
		p = d.askPublic(ctx, http.MethodGet, "/readyz", nil, nil)
	}
	if p.err == nil && p.status == http.StatusServiceUnavailable && strings.HasPrefix(p.body, "{") {
		r.wrong("ready", "serve says that it is not: "+oneLine(errors.New(p.body)), "see database above")
	}
}

func (d *doctor) judgeCertificate(r *report, u *url.URL, state *tls.ConnectionState) {
	if u.Scheme != "https" || state == nil || len(state.PeerCertificates) == 0 {
		return
	}
	left := state.PeerCertificates[0].NotAfter.Sub(d.now())
	if left < certificateSoon {
		r.warn("certificate", "of "+u.Host+" ends in "+days(left), "renew it, and see that this is done by itself:", "certbot renew --dry-run")
		return
	}
	r.fine("certificate", "of %s is good for %s; TLS %s", u.Host, days(left), strings.TrimPrefix(tls.VersionName(state.Version), "TLS "))
}

// judgeCertificateFiles looks at what serve itself would show. That the files
// can be read and fit together the settings have said.
func (d *doctor) judgeCertificateFiles(r *report) {
	if d.cfg.TLSCertFile == "" || d.mistaken("TLS_CERT_FILE") || d.mistaken("TLS_KEY_FILE") || d.role == "work" || d.role == "migrate" {
		return
	}
	pair, err := tls.LoadX509KeyPair(d.cfg.TLSCertFile, d.cfg.TLSKeyFile)
	if err != nil {
		return
	}
	leaf := pair.Leaf
	left := leaf.NotAfter.Sub(d.now())
	const renew = "renew it; serve takes the new files without a restart"
	switch {
	case left <= 0:
		r.wrong("TLS_CERT_FILE", "has expired "+ago(-left), renew)
	case leaf.NotBefore.After(d.now()):
		r.wrong("TLS_CERT_FILE", "is valid only from "+leaf.NotBefore.UTC().Format(time.RFC3339), "is this machine's clock right?", "timedatectl status")
	case left < certificateSoon:
		r.warn("TLS_CERT_FILE", "ends in "+days(left), renew)
	default:
		r.fine("TLS_CERT_FILE", "fits its key and is good for %s", days(left))
	}
	if u, err := url.Parse(d.cfg.PublicURL); err == nil && u.Hostname() != "" {
		if err := leaf.VerifyHostname(u.Hostname()); err != nil {
			r.wrong("TLS_CERT_FILE", "is not made out to the host of PUBLIC_URL: "+err.Error(), "get one for "+u.Hostname())
		}
	}
}

// probePublic sends a signed event that means nothing, in a spelling that no
// program would make again: whoever reads and rewrites it on the way breaks
// the signature.
func (d *doctor) probePublic(ctx context.Context, r *report) {
	if len(d.cfg.PayQIWebhookSecrets) == 0 {
		r.warn("probe", "not sent: PAYQI_WEBHOOK_SECRET is not set", "see settings")
		return
	}
	id := "evt_doctor_" + randomHex(8)
	body := fmt.Appendf(nil, "{\"id\": %q,\t\"type\":\"quayside.probe\", \"created\":%s,\n \"data\" : {\"amount\":10.00, \"note\":\"Gr\\u00fc\u00dfe \\/ \u2713\", \"id\":\"pay_test_doctor_%s\", \"metadata\":{}} }\n", id, now(), randomHex(4))
	headers := map[string]string{"X-PayQI-Signature": webhooks.Sign(d.cfg.PayQIWebhookSecrets[0].reveal(), body), "X-PayQI-Timestamp": now()}
	before := d.scrape(ctx)
	p := d.askPublic(ctx, http.MethodPost, webhookPath, body, headers)
	switch {
	case p.err != nil:
		r.wrong("probe", "a signed event got no answer: "+short(p.err), "a signature of 64 letters and a body of 200 bytes are too much for something in front; docs/https.md")
	case p.status == http.StatusOK:
		d.findProbe(ctx, r, id, body)
	case p.body == "Request too old":
		r.wrong("probe", "a signed event was refused as too old", "do the clocks agree (above)? With PAYQI_TIMESTAMP=required the proxy must pass X-PayQI-Timestamp on")
	case p.body == "Invalid signature":
		what, mend := d.whyUnsigned(ctx, body, headers, before)
		r.wrong("probe", what, mend)
	default:
		r.wrong("probe", fmt.Sprintf("a signed event was answered %d, one without signature 400: something in front minds its body or its headers", p.status), "let it pass POST "+webhookPath+" on unchanged; docs/https.md")
	}
}

// whyUnsigned finds out where a signature got lost: by asking serve without
// what is in front of it, and by what serve counted.
func (d *doctor) whyUnsigned(ctx context.Context, body []byte, headers map[string]string, before *metrics) (what, mend string) {
	after := d.scrape(ctx)
	headers["X-Forwarded-Proto"] = "https" // believed from here, if anybody is
	direct := ask(ctx, ownTransport(), http.MethodPost, d.ownAddress()+webhookPath, body, headers)
	rose := func(reason string) bool {
		return before != nil && after != nil && after.verdicts["bad_signature"][reason] > before.verdicts["bad_signature"][reason]
	}
	const guide = " (guide, \"Signature Verification Failing\")"
	switch {
	case direct.err == nil && direct.status == http.StatusBadRequest:
		return "serve itself refuses our signature: it runs with another PAYQI_WEBHOOK_SECRET than these settings" + guide, "restart serve with these settings, or examine it with its own"
	case rose("signature missing"):
		return "the header X-PayQI-Signature is lost on the way" + guide, "let the proxy pass every header on; docs/https.md"
	case rose("signature sent twice"):
		return "the header X-PayQI-Signature arrives twice" + guide, "let the proxy pass headers on once; docs/https.md"
	case rose("signature does not match"), direct.err == nil && direct.status == http.StatusOK:
		return "the body is changed on the way: what is signed is every byte of it" + guide, "switch off what rewrites or re-encodes bodies (a WAF, an API gateway, a JSON filter) for POST " + webhookPath
	}
	return "a signed event was refused: the secret differs, or something in front changes the body or drops X-PayQI-Signature" + guide, "run doctor where serve runs, so that it can ask it directly"
}

// findProbe sees that what was answered OK is in our database, byte for byte.
func (d *doctor) findProbe(ctx context.Context, r *report, id string, body []byte) {
	db, err := database.Open(d.cfg.DatabaseURL.reveal(), database.Options{Name: "doctor", MaxConns: 2})
	if err != nil {
		return // told under database
	}
	defer func() { _ = db.Close() }()
	digests, err := database.Column[[]byte](ctx, db, `SELECT digest FROM inbox WHERE key = $1`, id)
	sum := sha256.Sum256(body)
	switch {
	case err != nil:
		r.warn("probe", "was answered 200 OK; whether it is stored could not be seen: "+short(err), "see database above")
	case len(digests) == 0:
		r.wrong("probe", "was answered 200 OK, and is not in the database of DATABASE_URL: another installation answers at PUBLIC_URL", "point PUBLIC_URL, or the proxy, at this one")
	case !bytes.Equal(digests[0], sum[:]):
		r.wrong("probe", "was stored with other bytes than were sent: "+hex.EncodeToString(digests[0][:4]), "report this, it cannot be")
	default:
		r.fine("probe", "a signed event came through byte for byte and was stored as %s", id)
	}
}

// ownAddress is where serve listens, as seen from this machine.
func (d *doctor) ownAddress() string {
	if d.cfg.TLSCertFile != "" {
		return "https" + strings.TrimPrefix(here(d.cfg.ListenAddr), "http")
	}
	return here(d.cfg.ListenAddr)
}

// ownTransport asks our own process by its address, to which no certificate is
// made out.
func ownTransport() *http.Transport {
	return &http.Transport{
		DialContext: (&net.Dialer{Timeout: time.Second}).DialContext, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // on this machine, and nothing secret is sent
	}
}
