//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/jackc/pgx/v5"

	"quayside/internal/database/dbtest"
	"quayside/internal/devstack"
	"quayside/internal/orders"
)

const shopHost = "shop.test"

// clinic is a healthy installation: serve and a worker as processes of their
// own, and a proxy with HTTPS in front, reached under a name of its own.
type clinic struct {
	*world
	own   string // host:port of serve
	front string // host:port of the proxy
	ca    *authority
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	c := &clinic{world: newWorld(t), ca: newAuthority(t)}
	c.cfg.PublicURL = "https://" + shopHost
	c.cfg.MailFrom = "Test Shop <orders@" + shopHost + ">"
	p := process(t, c.settings(), "serve")
	c.own = p.said("serving")["addr"].(string)
	c.speakTo("http://" + c.own)
	c.workApart()
	c.front = c.proxy(t, "http://"+c.own, c.ca.cert(t, shopHost, 90*24*time.Hour))
	c.stock("mug", 10)
	c.tell("payment.created", c.open("seen", "mug"))
	return c
}

// settings are those of every process, with changes: NAME, value, …
func (c *clinic) settings(changes ...string) map[string]string {
	m := c.env()
	m["TRUSTED_PROXIES"] = "127.0.0.1,::1"
	if c.own != "" {
		m["LISTEN_ADDR"] = c.own
	}
	for i := 0; i < len(changes); i += 2 {
		m[changes[i]] = changes[i+1]
	}
	return m
}

// proxy passes on to a service, with TLS, and with what change does to it.
func (c *clinic) proxy(t *testing.T, to string, cert tls.Certificate, change ...func(http.Handler) http.Handler) (addr string) {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	var h http.Handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.SetXForwarded()
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	for _, f := range change {
		h = f(h)
	}
	return c.site(t, h, &cert)
}

// site is a web server, with HTTPS when it has a certificate.
func (c *clinic) site(t *testing.T, h http.Handler, cert *tls.Certificate) (addr string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if cert != nil {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// doctor is one that finds the proxy under the shop's name.
func (c *clinic) doctor(t *testing.T, settings map[string]string, o doctorOptions, file string) *doctor {
	t.Helper()
	if o.role == "" {
		o.role = "all"
	}
	d, err := (&app{lookup: from(settings), configFile: file}).newDoctor(o)
	if err != nil {
		t.Fatal(err)
	}
	d.roots = c.ca.pool
	d.patience = patience
	d.resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == shopHost {
			return []netip.Addr{netip.MustParseAddr("203.0.113.9")}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	d.dial = c.dialTo(c.front)
	return d
}

func (c *clinic) dialTo(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, to string) (net.Conn, error) {
		if strings.HasPrefix(to, shopHost+":") {
			to = addr
		}
		return (&net.Dialer{}).DialContext(ctx, network, to)
	}
}

// authority vouches for certificates.
type authority struct {
	pool *x509.CertPool
	cert func(t *testing.T, host string, left time.Duration) tls.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	root, _ = x509.ParseCertificate(der)
	a := &authority{pool: x509.NewCertPool()}
	a.pool.AddCert(root)
	a.cert = func(t *testing.T, host string, left time.Duration) tls.Certificate {
		t.Helper()
		own := newKey(t)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{host}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore: time.Now().AddDate(0, -3, 0), NotAfter: time.Now().Add(left), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}, root, &own.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, _ := x509.ParseCertificate(der)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: own, Leaf: leaf}
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// pemFiles writes a certificate and its key.
func pemFiles(t *testing.T, c tls.Certificate) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert = write(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})))
	return cert, write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// visit is one examination, before it is made.
type visitOf struct {
	t *testing.T
	*clinic
	settings map[string]string
	options  doctorOptions
	file     string
	change   func(*doctor)
}

// ill is a planted misconfiguration and what the doctor must say of it.
type ill struct {
	name    string
	plant   func(v *visitOf)
	group   string
	check   string
	finding string // words of it
	mend    string // words of the mend, or of a line to copy
	warning bool   // it works all the same
}

func set(changes ...string) func(v *visitOf) {
	return func(v *visitOf) {
		for i := 0; i < len(changes); i += 2 {
			v.settings[changes[i]] = changes[i+1]
		}
	}
}

// The healthy installation is told to be so; each planted misconfiguration is
// found, with its mend, and no secret is told in doing so.
func TestDoctor(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	t.Run("healthy", func(t *testing.T) { c.healthy(t) })
	for _, all := range [][]ill{settingIlls, secretIlls, databaseIlls, redisIlls, mailIlls, publicIlls, proxyIlls, trafficIlls} {
		for _, i := range all {
			t.Run(i.group+"/"+i.name, func(t *testing.T) { c.find(t, i) })
		}
	}
}

func (c *clinic) healthy(t *testing.T) {
	to := "operator@customers.example"
	d := c.doctor(t, c.settings(), doctorOptions{probe: true, mailTo: to}, "")
	found := d.examine(t.Context())
	var warned []string
	for _, f := range found {
		switch f.Verdict {
		case isWrong:
			t.Errorf("wrong: %+v", f)
		case isWarning:
			warned = append(warned, f.Group+"/"+f.Check)
		case isFine:
		}
	}
	// These are true: the database of the tests is a throw-away one with a single role, and its secrets say that they are for tests.
	if want := []string{"database/safety", "database/role", "secrets/ADMIN_API_KEY", "secrets/PAYQI_WEBHOOK_SECRET"}; !slices.Equal(warned, want) {
		t.Errorf("warned of %q, want %q:\n%s", warned, want, printed(t, found))
	}
	text := printed(t, found)
	for _, part := range []string{
		"arrives", "payment.created", "came through byte for byte", "taken by the mail server for " + to, "203.0.113.9", "is good for 89 days",
		"workers: 1 running", "requests came through trusted proxies", "quayside check", " 0 wrong, 4 warnings,",
	} {
		if part != "arrives" && !strings.Contains(" "+strings.Join(strings.Fields(text), " "), part) {
			t.Errorf("it does not say %q:\n%s", part, text)
		}
	}
	c.letterTo(to, "Test letter")
	if n := c.count(`SELECT count(*) FROM inbox WHERE key LIKE 'evt_doctor_%'`); n != 1 {
		t.Errorf("%d probes are stored, want 1", n)
	}
}

func printed(t *testing.T, found diagnoses) string {
	t.Helper()
	var text, asJSON bytes.Buffer
	if err := found.print(&text, false); err != nil {
		t.Fatal(err)
	}
	if err := found.print(&asJSON, true); err != nil || !json.Valid(asJSON.Bytes()) {
		t.Fatalf("JSON: %v\n%s", err, &asJSON)
	}
	return text.String()
}

func (c *clinic) find(t *testing.T, i ill) {
	v := &visitOf{t: t, clinic: c, settings: c.settings(), change: func(*doctor) {}}
	i.plant(v)
	d := c.doctor(t, v.settings, v.options, v.file)
	v.change(d)
	found := d.examine(t.Context())
	text := printed(t, found)
	for name, value := range v.settings {
		for _, s := range secretsIn(name, value) {
			if strings.Contains(text, s) {
				t.Errorf("it tells %s:\n%s", name, text)
			}
		}
	}
	want := map[bool]grade{true: isWarning, false: isWrong}[i.warning]
	for _, f := range found {
		if f.Group == i.group && f.Check == i.check && f.Verdict == want && strings.Contains(f.Finding, i.finding) {
			if all := f.Mend + "\n" + strings.Join(f.Commands, "\n"); i.mend == "" || !strings.Contains(all, i.mend) {
				t.Errorf("the mend is %q, want %q", all, i.mend)
			}
			return
		}
	}
	var own diagnoses
	for _, f := range found {
		if f.Group == i.group {
			own = append(own, f)
		}
	}
	t.Errorf("not found: %s %s/%s with %q:\n%s", want, i.group, i.check, i.finding, printed(t, own))
}

// secretsIn are the parts of a setting that nobody may read.
func secretsIn(name, value string) (secrets []string) {
	if name == "PAYQI_WEBHOOK_SECRET" || name == "ADMIN_API_KEY" {
		for s := range strings.SplitSeq(value, ",") {
			if len(s) > 5 {
				secrets = append(secrets, strings.TrimSpace(s))
			}
		}
		return secrets
	}
	if u, err := url.Parse(value); err == nil && u.User != nil {
		if password, ok := u.User.Password(); ok {
			return []string{password}
		}
	}
	return nil
}

var settingIlls = []ill{
	{"a mistyped name", func(v *visitOf) {
		v.file = write(v.t, filepath.Join(v.t.TempDir(), "x.env"), "ORDER_TLL=1h\n")
	}, "settings", "ORDER_TLL", "is not a setting", "ORDER_TTL", false},
	{"two mistakes, the first", set("ORDER_TTL", "12", "METRICS_ADDR", "9090"), "settings", "ORDER_TTL", "not a duration", "30m", false},
	{"two mistakes, the second", set("ORDER_TTL", "12", "METRICS_ADDR", "9090"), "settings", "METRICS_ADDR", "not host:port", "127.0.0.1:8080", false},
	{"a missing secret", func(v *visitOf) { delete(v.settings, "PAYQI_WEBHOOK_SECRET") }, "settings", "serve", "lacks PAYQI_WEBHOOK_SECRET", "copy it from PayQI", false},
	{"another value in the file", func(v *visitOf) {
		v.file = write(v.t, filepath.Join(v.t.TempDir(), "x.env"), "SHOP_NAME=Other\n")
	}, "settings", "SHOP_NAME", "the environment wins", "unset SHOP_NAME", true},
	{"no timestamps", set("PAYQI_TIMESTAMP", "off"), "settings", "PAYQI_TIMESTAMP", "is off", "if-present", true},
	{"an example for a sender", set("MAIL_FROM", "orders@shop.example"), "settings", "MAIL_FROM", "is an example", "your shop", true},
	{"nothing at all", func(v *visitOf) { clear(v.settings) }, "settings", "source", "no settings", "--config FILE", false},
}

var secretIlls = []ill{
	{"too short", set("PAYQI_WEBHOOK_SECRET", "whsec_kurz"), "secrets", "PAYQI_WEBHOOK_SECRET", "only 10 bytes", "dashboard", false},
	{"an example", set("PAYQI_WEBHOOK_SECRET", "whsec_test_secret"), "secrets", "PAYQI_WEBHOOK_SECRET", "an example", "dashboard", false},
	{"a line break at its end", func(v *visitOf) {
		delete(v.settings, "PAYQI_WEBHOOK_SECRET")
		v.settings["PAYQI_WEBHOOK_SECRET_FILE"] = write(v.t, filepath.Join(v.t.TempDir(), "secret"), "whsec_f83jd02kd93kd03kd\n\n")
	}, "secrets", "PAYQI_WEBHOOK_SECRET", "line break", "remove", false},
	{"quotation marks", set("PAYQI_WEBHOOK_SECRET", `"whsec_f83jd02kd93kd03kd"`), "secrets", "PAYQI_WEBHOOK_SECRET", "quotation mark", "without quotation marks", false},
	{"the name before it", set("ADMIN_API_KEY", "ADMIN_API_KEY=f83jd02kd93kd03kdxx"), "secrets", "ADMIN_API_KEY", "words before it", "value alone", false},
	{"of dev", set("PAYQI_WEBHOOK_SECRET", "whsec_dev_0a1b2c3d4e5f60718293"), "secrets", "PAYQI_WEBHOOK_SECRET", "made up by `quayside dev`", "dashboard", false},
	{"of a test", set("PAYQI_WEBHOOK_SECRET", "whsec_test_f83jd02kd93kd03kd"), "secrets", "PAYQI_WEBHOOK_SECRET", "test mode", "dashboard", true},
	{"easily guessed", set("ADMIN_API_KEY", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"), "secrets", "ADMIN_API_KEY", "can be guessed", "openssl rand", false},
	{"one for two", set("ADMIN_API_KEY", worldSecret), "secrets", "ADMIN_API_KEY", "same as PAYQI_WEBHOOK_SECRET", "openssl rand", false},
	{"no rotation", set("PAYQI_WEBHOOK_SECRET", worldSecret+","+worldSecret), "secrets", "PAYQI_WEBHOOK_SECRET", "are the same", "old and the new", true},
	{"a password for two", set("SMTP_URL", "smtp://u:"+worldKey+"@127.0.0.1:1"), "secrets", "the password in SMTP_URL", "same as ADMIN_API_KEY", "its own", true},
	{"a file for everybody", func(v *visitOf) {
		v.file = write(v.t, filepath.Join(reachableDir(v.t), "quayside.env"), "ADMIN_API_KEY="+worldKey+"\n")
		if err := os.Chmod(v.file, 0o644); err != nil {
			v.t.Fatal(err)
		}
	}, "secrets", "--config", "every user of this machine", "chmod 600", false},
}

// role makes a role on the server of the tests and points DATABASE_URL at it.
// Statements may name it as @role.
func role(statements ...string) func(v *visitOf) {
	return func(v *visitOf) {
		name := "doctor_" + randomHex(4)
		v.admin("CREATE ROLE " + name + " LOGIN PASSWORD 'CANARYpassword'")
		v.t.Cleanup(func() {
			v.t.Helper()
			v.admin("DROP OWNED BY " + name)
			v.admin("DROP ROLE " + name)
		})
		for _, s := range statements {
			v.admin(strings.ReplaceAll(s, "@role", name))
		}
		v.settings["DATABASE_URL"] = v.address(func(u *url.URL) { u.User = url.UserPassword(name, "CANARYpassword") })
	}
}

func allRights() (statements []string) {
	for _, line := range ownRole()[1:] {
		statements = append(statements, strings.ReplaceAll(line, "quayside_app", "@role"))
	}
	return statements
}

// admin runs a statement in the database that the settings name, as its owner.
func (v *visitOf) admin(statement string) {
	v.t.Helper()
	conn, err := pgx.Connect(context.Background(), v.cfg.DatabaseURL.reveal())
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(context.Background(), statement); err != nil {
		v.t.Fatalf("%s: %v", statement, err)
	}
}

// address is DATABASE_URL with a change.
func (v *visitOf) address(change func(*url.URL)) string {
	u, err := url.Parse(v.cfg.DatabaseURL.reveal())
	if err != nil {
		v.t.Fatal(err)
	}
	change(u)
	return u.String()
}

func address(change func(*url.URL)) func(v *visitOf) {
	return func(v *visitOf) { v.settings["DATABASE_URL"] = v.address(change) }
}

func query(pairs ...string) func(*url.URL) {
	return func(u *url.URL) {
		q := u.Query()
		for i := 0; i < len(pairs); i += 2 {
			q.Set(pairs[i], pairs[i+1])
		}
		u.RawQuery = q.Encode()
	}
}

var databaseIlls = []ill{
	{"nobody there", address(func(u *url.URL) { u.Host = "127.0.0.1:1" }), "database", "DATABASE_URL", "refused", "is Postgres running", false},
	{"no such host", address(func(u *url.URL) { u.Host = "nobody.invalid:5432" }), "database", "DATABASE_URL", "nobody.invalid", "DNS", false},
	{"a wrong password", address(func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "CANARYwrong") }), "database", "DATABASE_URL", "password authentication failed", "%40", false},
	{"no such database", address(func(u *url.URL) { u.Path = "/missing" }), "database", "DATABASE_URL", "does not exist", "createdb", false},
	{"TLS from a server without", address(query("sslmode", "require")), "database", "DATABASE_URL", "refused TLS", "sslmode=disable", false},
	{"a mail server", func(v *visitOf) {
		v.settings["DATABASE_URL"] = v.address(func(u *url.URL) { u.Host = strings.TrimPrefix(v.mail.SMTPURL, "smtp://") })
	}, "database", "DATABASE_URL", "says nothing", "5432", false},
	{"fsync off", address(query("quayside.throwaway", "off")), "database", "safety", "fsync = off", "ALTER SYSTEM SET fsync = on;", false},
	{"synchronous_commit off for the role", func(v *visitOf) {
		role(append(allRights(), "ALTER ROLE @role SET synchronous_commit = off", "ALTER ROLE @role SET quayside.throwaway = 'off'")...)(v)
	}, "database", "safety", "synchronous_commit = off", "ALTER ROLE", false},
	{"read only", role("ALTER ROLE @role SET default_transaction_read_only = on"), "database", "default_transaction_read_only", "is on", "= off;", false},
	{"another isolation", role("ALTER ROLE @role SET default_transaction_isolation = 'serializable'"), "database", "default_transaction_isolation", "serializable", "read committed", false},
	{"no right to a table", func(v *visitOf) {
		role(append(allRights(), "REVOKE INSERT ON timeline FROM @role")...)(v)
	}, "database", "rights", "lacks INSERT on timeline", "GRANT INSERT ON timeline TO doctor_", false},
	{"no rights", role(), "database", "rights", "SELECT/UPDATE on orders", "GRANT SELECT ON", false},
	{"few connections for the role", func(v *visitOf) {
		role(append(allRights(), "ALTER ROLE @role CONNECTION LIMIT 15")...)(v)
	}, "database", "connections", "may have 15", "CONNECTION LIMIT -1", false},
	{"one process", func(v *visitOf) {
		role(append(allRights(), "ALTER ROLE @role CONNECTION LIMIT 25")...)(v)
	}, "database", "connections", "enough for 1 of", "--with-worker", true},
	{"no schema", func(v *visitOf) { v.settings["DATABASE_URL"] = dbtest.Empty(v.t) }, "database", "schema", "no schema yet", "migrate", false},
	{"an old schema", func(v *visitOf) {
		v.ownDatabase("DELETE FROM goose_db_version WHERE version_id > 0")
	}, "database", "schema", "this program needs", "migrate", false},
	{"a newer schema", func(v *visitOf) {
		v.ownDatabase("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)")
	}, "database", "schema", "newer than", "install", false},
	{"a superuser", func(*visitOf) {}, "database", "role", "is a superuser", "GRANT SELECT, INSERT ON", true},
	{"a migrate role that may not", func(v *visitOf) {
		before := v.settings["DATABASE_URL"]
		role()(v)
		v.settings["MIGRATE_DATABASE_URL"], v.settings["DATABASE_URL"] = v.settings["DATABASE_URL"], before
	}, "database", "migrate", "may not change the tables", "owns them", false},
	{"a migrate of its own", func(v *visitOf) {
		v.settings = map[string]string{"MIGRATE_DATABASE_URL": v.address(func(u *url.URL) { u.Path = "/missing" })}
		v.options.role = "migrate"
	}, "database", "MIGRATE_DATABASE_URL", "does not exist", "createdb", false},
	{"a wrong clock", func(v *visitOf) {
		v.change = func(d *doctor) { d.now = func() time.Time { return time.Now().Add(-7 * time.Minute) } }
	}, "clock", "Postgres", "behind that of Postgres", "timedatectl", false},
	{"a clock that drifts", func(v *visitOf) {
		v.change = func(d *doctor) { d.now = func() time.Time { return time.Now().Add(5 * time.Second) } }
	}, "clock", "Redis", "ahead of that of Redis", "timedatectl", true},
}

// ownDatabase points the settings at a fresh database after some statements.
func (v *visitOf) ownDatabase(statements ...string) {
	v.t.Helper()
	fresh := dbtest.URL(v.t)
	conn, err := pgx.Connect(context.Background(), fresh)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, s := range statements {
		if _, err := conn.Exec(context.Background(), s); err != nil {
			v.t.Fatalf("%s: %v", s, err)
		}
	}
	v.settings["DATABASE_URL"] = fresh
}

// ownRedis points the settings at a real Redis after some commands.
func ownRedis(commands ...string) func(v *visitOf) {
	return func(v *visitOf) {
		r, err := devstack.StartRealRedis(v.t.Context())
		if err != nil {
			v.t.Fatalf("%v: this cannot be shown without a real one", err)
		}
		v.t.Cleanup(func() { _ = r.Stop() })
		for _, c := range commands {
			speakTo(v.t, r.Addr, c)
		}
		v.settings["REDIS_URL"] = r.URL
	}
}

// speakTo says one line and must not be answered with an error.
func speakTo(t *testing.T, addr, line string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, line+"\r\n")
	answer := make([]byte, 200)
	n, err := conn.Read(answer)
	if err != nil || n == 0 || answer[0] == '-' {
		t.Fatalf("%s: %q %v", line, answer[:n], err)
	}
}

// pretender is what there is no real thing of: an old Redis.
func pretender(v *visitOf) {
	addr := scripted(v.t, func(line string) string {
		bulk := func(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }
		switch strings.ToUpper(line) {
		case "HELLO":
			return "-ERR unknown command\r\n"
		case "TIME":
			return fmt.Sprintf("*2\r\n%s%s", bulk(fmt.Sprint(time.Now().Unix())), bulk("0"))
		case "INFO":
			return bulk("redis_version:5.0.14\r\nrole:master\r\nused_memory:1\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n")
		case "PING":
			return "+PONG\r\n"
		}
		return "+OK\r\n"
	})
	v.settings["REDIS_URL"] = "redis://" + addr + "/0"
}

// scripted answers the first word of each RESP command.
func scripted(t *testing.T, answer func(word string) string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				for {
					words, err := command(conn)
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, answer(words[0]))
				}
			}()
		}
	}()
	return l.Addr().String()
}

// command reads one RESP array of bulk strings.
func command(r io.Reader) (words []string, err error) {
	line := func() (n int) {
		var kind byte
		_, err = fmt.Fscanf(r, "%c%d\r\n", &kind, &n)
		return n
	}
	n := line()
	for range n {
		if err != nil {
			return nil, err
		}
		word := make([]byte, line()+2)
		if _, err := io.ReadFull(r, word); err != nil {
			return nil, err
		}
		words = append(words, string(word[:len(word)-2]))
	}
	if len(words) == 0 {
		return nil, io.EOF
	}
	return words, err
}

var redisIlls = []ill{
	{"nobody there", set("REDIS_URL", "redis://127.0.0.1:1/0"), "redis", "REDIS_URL", "nothing is lost", "is Redis running", false},
	{"a web server", func(v *visitOf) {
		v.settings["REDIS_URL"] = "redis://" + v.site(v.t, http.NotFoundHandler(), nil) + "/0"
	}, "redis", "REDIS_URL", "is not Redis", "6379", false},
	{"it throws away", ownRedis("CONFIG SET maxmemory-policy allkeys-lru"), "redis", "maxmemory-policy", "is allkeys-lru", "CONFIG SET maxmemory-policy noeviction", false},
	{"no password", ownRedis("CONFIG SET requirepass CANARYpassword"), "redis", "REDIS_URL", "refuses the login", "redis://:password@", false},
	{"a wrong password", func(v *visitOf) {
		ownRedis("CONFIG SET requirepass CANARYpassword")(v)
		v.settings["REDIS_URL"] = strings.Replace(v.settings["REDIS_URL"], "//", "//:CANARYwrong@", 1)
	}, "redis", "REDIS_URL", "refuses the login", "redis://user:password@", false},
	{"nearly full", ownRedis("CONFIG SET maxmemory 1100000"), "redis", "memory", "are used", "--bigkeys", true},
	{"TLS from a server without", func(v *visitOf) {
		v.settings["REDIS_URL"] = strings.Replace(v.cfg.RedisURL.reveal(), "redis://", "rediss://", 1)
	}, "redis", "REDIS_URL", "says nothing", "write redis://", false},
	{"a replica", ownRedis("REPLICAOF 127.0.0.1 1"), "redis", "role", "replica", "redis-sentinel://", false},
	{"no scripts", func(v *visitOf) {
		ownRedis("ACL SETUSER small on >CANARYpassword ~* &* +@all -eval -evalsha")(v)
		v.settings["REDIS_URL"] = strings.Replace(v.settings["REDIS_URL"], "//", "//small:CANARYpassword@", 1)
	}, "redis", "scripts", "refuses them", "ACL SETUSER", false},
	{"an old one", pretender, "redis", "version", "5.0.14", "6.2", false},
	{"it hangs", func(v *visitOf) {
		v.settings["REDIS_URL"] = "redis://" + silent(v.t) + "/0"
	}, "redis", "REDIS_URL", "does not answer", "it hangs", false},
}

// silent takes connections and says nothing.
func silent(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func mailServer(f devstack.Fault) func(v *visitOf) {
	return func(v *visitOf) {
		m, err := devstack.StartMailCatcher(v.t.Context(), "", "")
		if err != nil {
			v.t.Fatal(err)
		}
		v.t.Cleanup(func() { _ = m.Close() })
		if err := m.SetFault(f); err != nil {
			v.t.Fatal(err)
		}
		v.settings["SMTP_URL"] = m.SMTPURL
	}
}

// strictMail is a mail server with TLS from the start that takes letters from nobody.
func strictMail(scheme string) func(v *visitOf) {
	return func(v *visitOf) {
		s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return strictSession{}, nil }))
		s.ErrorLog = log.New(io.Discard, "", 0)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			v.t.Fatal(err)
		}
		if scheme == "smtps" {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{v.ca.cert(v.t, shopHost, time.Hour)}})
		}
		go func() { _ = s.Serve(l) }()
		v.t.Cleanup(func() { _ = s.Close() })
		v.settings["SMTP_URL"] = scheme + "://" + l.Addr().String()
	}
}

type strictSession struct{}

func (strictSession) Mail(string, *smtp.MailOptions) error {
	return &smtp.SMTPError{Code: 553, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Sender address rejected: not owned by user"}
}
func (strictSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (strictSession) Data(io.Reader) error                 { return nil }
func (strictSession) Reset()                               {}
func (strictSession) Logout() error                        { return nil }

var mailIlls = []ill{
	{"nobody there", mailServer(devstack.RefuseConnections), "mail", "SMTP_URL", "refused", "465", false},
	{"it hangs", func(v *visitOf) {
		mailServer(devstack.Silent)(v)
		v.change = func(d *doctor) { d.patience = time.Second }
	}, "mail", "SMTP_URL", "letters wait", "465", false},
	{"a login it does not know", func(v *visitOf) {
		mailServer(devstack.None)(v)
		v.settings["SMTP_URL"] = strings.Replace(v.settings["SMTP_URL"], "//", "//shop:CANARYpassword@", 1)
	}, "mail", "SMTP_URL", "letters wait", "STARTTLS", false},
	{"half a login", func(v *visitOf) {
		v.settings["SMTP_URL"] = strings.Replace(v.settings["SMTP_URL"], "//", "//shop@", 1)
	}, "mail", "SMTP_URL", "only one of user and password", "%40", false},
	{"a home-made certificate", strictMail("smtps"), "mail", "SMTP_URL", "certificate", "trusts", false},
	{"a sender it refuses", strictMail("smtp"), "mail", "SMTP_URL", "Sender address rejected", "MAIL_FROM", false},
	{"a recipient it refuses", func(v *visitOf) {
		mailServer(devstack.Reject)(v)
		v.options.mailTo = "me@example.com"
	}, "mail", "test letter", "No such mailbox", "relaying", false},
}

// front puts something else at the public address.
func front(build func(v *visitOf) (addr string)) func(v *visitOf) {
	return func(v *visitOf) {
		addr := build(v)
		v.change = func(d *doctor) { d.dial = v.dialTo(addr) }
	}
}

// answering is a site with a good certificate.
func answering(h http.HandlerFunc) func(v *visitOf) {
	return front(func(v *visitOf) string {
		cert := v.ca.cert(v.t, shopHost, 90*24*time.Hour)
		return v.site(v.t, h, &cert)
	})
}

// meddling is a proxy that changes what it passes on.
func meddling(change func(r *http.Request)) func(v *visitOf) {
	plant := front(func(v *visitOf) string {
		return v.proxy(v.t, "http://"+v.own, v.ca.cert(v.t, shopHost, 90*24*time.Hour), func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				change(r)
				next.ServeHTTP(w, r)
			})
		})
	})
	return func(v *visitOf) {
		plant(v)
		v.options.probe = true
	}
}

func certified(host string, left time.Duration) func(v *visitOf) {
	return front(func(v *visitOf) string { return v.proxy(v.t, "http://"+v.own, v.ca.cert(v.t, host, left)) })
}

// rewritten parses the body and writes it anew, as JSON filters do.
func rewritten(r *http.Request) {
	var v any
	if json.NewDecoder(r.Body).Decode(&v) == nil {
		body, _ := json.Marshal(v)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.Header.Set("Content-Length", fmt.Sprint(len(body)))
	}
}

var publicIlls = []ill{
	{"this machine", set("PUBLIC_URL", "http://localhost:8080"), "public address", "PUBLIC_URL", "is this machine", "tunnel", false},
	{"no HTTPS", set("PUBLIC_URL", "http://"+shopHost), "public address", "PUBLIC_URL", "not https", "docs/https.md", false},
	{"no such name", set("PUBLIC_URL", "https://shop.invalid"), "public address", "DNS", "has no address", "dig +short shop.invalid", false},
	{"nobody there", front(func(*visitOf) string { return "127.0.0.1:1" }), "public address", "reachable", "does not answer", "firewall", false},
	{"it hangs", front(func(v *visitOf) string { return silent(v.t) }), "public address", "reachable", "no", "firewall", false},
	{"plain HTTP on its port", front(func(v *visitOf) string { return v.own }), "public address", "reachable", "speaks plain HTTP", "TLS_CERT_FILE", false},
	{"an expired certificate", certified(shopHost, -time.Hour), "public address", "reachable", "expired", "renew", false},
	{"another's certificate", certified("other.test", 90*24*time.Hour), "public address", "reachable", "another name", "PUBLIC_URL", false},
	{"a home-made certificate", front(func(v *visitOf) string {
		return v.proxy(v.t, "http://"+v.own, newAuthority(v.t).cert(v.t, shopHost, 90*24*time.Hour))
	}), "public address", "reachable", "nobody vouches", "fullchain.pem", false},
	{"a certificate that ends", certified(shopHost, 3*24*time.Hour+time.Minute), "public address", "certificate", "ends in 3 days", "certbot", true},
	{"a redirect", answering(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://www."+shopHost+r.URL.Path, http.StatusMovedPermanently)
	}), "public address", "webhook", "its body is lost", "without a redirect", false},
	{"a login in front", answering(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }), "public address", "webhook", "asks for a login", "the signature protects it", false},
	{"another program", answering(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Welcome to nginx!") }), "public address", "webhook", "not Quayside", "LISTEN_ADDR", false},
	{"a path that is not passed on", answering(http.NotFound), "public address", "webhook", "does not pass this path on", "unchanged", false},
	{"serve is away", front(func(v *visitOf) string {
		return v.proxy(v.t, "http://127.0.0.1:1", v.ca.cert(v.t, shopHost, 90*24*time.Hour))
	}), "public address", "webhook", "does not reach serve", "serve", false},
	{"a body that is rewritten", meddling(rewritten), "public address", "probe", "the body is changed on the way", "WAF", false},
	{"a header that is dropped", meddling(func(r *http.Request) { r.Header.Del("X-PayQI-Signature") }), "public address", "probe", "X-PayQI-Signature is lost", "every header", false},
	{"another secret in serve", func(v *visitOf) {
		v.settings["PAYQI_WEBHOOK_SECRET"] = "whsec_f83jd02kd93kd03kd"
		v.options.probe = true
	}, "public address", "probe", "another PAYQI_WEBHOOK_SECRET", "restart serve", false},
	{"another installation", func(v *visitOf) {
		v.settings["DATABASE_URL"] = dbtest.URL(v.t)
		v.options.probe = true
	}, "public address", "probe", "another installation", "PUBLIC_URL", false},
	{"an expired certificate of its own", func(v *visitOf) {
		v.settings["TLS_CERT_FILE"], v.settings["TLS_KEY_FILE"] = pemFiles(v.t, v.ca.cert(v.t, shopHost, -time.Hour))
	}, "public address", "TLS_CERT_FILE", "has expired", "without a restart", false},
	{"a certificate of its own for another", func(v *visitOf) {
		v.settings["TLS_CERT_FILE"], v.settings["TLS_KEY_FILE"] = pemFiles(v.t, v.ca.cert(v.t, "other.test", 90*24*time.Hour))
	}, "public address", "TLS_CERT_FILE", "not made out", "get one for " + shopHost, false},
	{"another's key", func(v *visitOf) {
		v.settings["TLS_CERT_FILE"], _ = pemFiles(v.t, v.ca.cert(v.t, shopHost, time.Hour))
		_, v.settings["TLS_KEY_FILE"] = pemFiles(v.t, v.ca.cert(v.t, shopHost, time.Hour))
	}, "settings", "TLS_CERT_FILE", "cannot be used", "its key", false},
}

// strictServe is a serve of its own with other settings, and its proxy.
func strictServe(changes ...string) func(v *visitOf) {
	return front(func(v *visitOf) string {
		set(append(changes, "LISTEN_ADDR", "127.0.0.1:0")...)(v)
		own := process(v.t, v.settings, "serve").said("serving")["addr"].(string)
		v.settings["LISTEN_ADDR"] = own
		return v.proxy(v.t, "http://"+own, v.ca.cert(v.t, shopHost, 90*24*time.Hour))
	})
}

var proxyIlls = []ill{
	{"half of the internet", set("TRUSTED_PROXIES", "0.0.0.0/1"), "proxies", "TRUSTED_PROXIES", "more addresses than any proxy", "name the proxies", false},
	{"nobody trusted", set("TRUSTED_PROXIES", ""), "proxies", "TRUSTED_PROXIES", "is empty", "TRUSTED_PROXIES=127.0.0.1,::1", true},
	{"nobody trusted and HTTPS required", set("TRUSTED_PROXIES", "", "REQUIRE_HTTPS", "true"), "proxies", "TRUSTED_PROXIES", "every request is refused", "TRUSTED_PROXIES=127.0.0.1,::1", false},
	{"a door past the proxy", set("LISTEN_ADDR", ":8080"), "proxies", "LISTEN_ADDR", "past the proxy", "REQUIRE_HTTPS=true", true},
	{"the wrong one trusted", strictServe("REQUIRE_HTTPS", "true", "TRUSTED_PROXIES", "10.0.0.7"), "public address", "webhook", "every request is refused", "X-Forwarded-Proto", false},
	{"the wrong one trusted, seen by the proxies", strictServe("REQUIRE_HTTPS", "true", "TRUSTED_PROXIES", "10.0.0.7"), "proxies", "X-Forwarded-Proto", "takes https for plain text", "LOG_LEVEL=debug", false},
	{"headers that nobody believes", func(v *visitOf) {
		strictServe("TRUSTED_PROXIES", "")(v)
		meet := v.change
		v.change = func(d *doctor) {
			meet(d)
			if p := d.askPublic(v.t.Context(), http.MethodGet, "/healthz", nil, nil); p.status != http.StatusOK {
				v.t.Fatalf("%+v", p)
			}
		}
	}, "proxies", "X-Forwarded-For", "nobody is believed", "TRUSTED_PROXIES=", true},
}

// anEvent is a row of the inbox that waits in a state.
func anEvent(state string) []string {
	id := "01900000-0000-7000-8000-00000000" + randomHex(2)
	return []string{
		`INSERT INTO inbox (id, key, event_id, type, payment_id, body, digest, secret_label, received_at, last_seen_at)
			VALUES ('` + id + `', 'evt_1', 'evt_1', 'payment.completed', 'pay_1', '{}', sha256('{}'), '00000000', now() - interval '1 hour', now() - interval '1 hour')`,
		`INSERT INTO inbox_open (inbox_id, state, not_before, rung_at) VALUES ('` + id + `', '` + state + `', now() - interval '1 hour', now())`,
	}
}

func aLetter(state string) string {
	return `INSERT INTO letters (id, order_id, kind, address, facts, state, not_before, rung_at, message_id, posted_at)
		VALUES (gen_random_uuid(), 'o', 'order_received', 'CANARY@customers.example', '{}', '` + state + `', now() - interval '1 hour', now(), 'm', now())`
}

func inbox(statements ...string) func(v *visitOf) {
	return func(v *visitOf) { v.ownDatabase(statements...) }
}

var trafficIlls = []ill{
	{"no event ever", inbox(), "traffic", "last event", "none was ever stored", "https://" + shopHost + "/webhooks/payqi", true},
	{"nobody applies", inbox(anEvent("received")...), "traffic", "events", "1 wait to be applied", "work", false},
	{"a dead event", inbox(anEvent("dead")...), "traffic", "dead events", "1 were given up", "state=dead", false},
	{"a quarantined event", inbox(anEvent("quarantined")...), "traffic", "quarantined events", "make no sense", "state=quarantined", true},
	{"an unknown order", inbox(anEvent("parked")...), "traffic", "parked events", "an order that is not here", "metadata.order_id", true},
	{"a late event", inbox(anEvent("refused")...), "traffic", "refused events", "more than 5 minutes off", "clock", true},
	{"letters that wait", inbox(aLetter("queued")), "traffic", "letters", "wait to be sent", "work", false},
	{"letters that failed", inbox(aLetter("failed")), "traffic", "letters", "could not be sent", "last_error", true},
	{"a case", inbox(`INSERT INTO cases (id, code, key, severity, blocks, state, summary, facts, opened_at)
		VALUES (gen_random_uuid(), 'UNDERPAID', 'k', 'warning', true, 'open', 's', '{}', now())`), "traffic", "cases", "1 UNDERPAID", "/api/v1/cases", true},
	{"a late order", inbox(`INSERT INTO orders (id, status, payment_status, fulfillment_status, currency, total, customer_email, status_token, stock, reservation, timeline_length, deadline, created_at, updated_at)
		VALUES ('o', 'pending', 'unpaid', 'none', 'XRP', 1, 'a@b.example', 't', 'reserved', 1, 0, now() - interval '1 hour', now(), now())`), "traffic", "orders", "past their deadline", "work", false},
	{"no worker", ownRedis(), "traffic", "workers", "none is running", "work", false},
	{"serve is not here", set("LISTEN_ADDR", "127.0.0.1:1"), "traffic", "refusals", "were not there to read", "serve", true},
	{"rotation", set("PAYQI_WEBHOOK_SECRET", worldSecret+",whsec_f83jd02kd93kd03kd"), "traffic", "rotation", "number 2", "leave the old one out", true},
	{"a secret that never signed", set("PAYQI_WEBHOOK_SECRET", "whsec_f83jd02kd93kd03kd"), "traffic", "secret", "not in PAYQI_WEBHOOK_SECRET", "dashboard", true},
	{"a wrong secret", func(v *visitOf) {
		v.settings["PAYQI_WEBHOOK_SECRET"] = "whsec_f83jd02kd93kd03kd"
		strictServe()(v)
		sender := newPayQI("http://"+v.settings["LISTEN_ADDR"], worldSecret)
		defer sender.http.CloseIdleConnections()
		if a, err := sender.tell(v.t.Context(), newEvent("payment.created", orders.View{ID: "x", Currency: "XRP"}, "pay_x")); err != nil || a.Status != http.StatusBadRequest {
			v.t.Fatalf("%v %v", a, err)
		}
	}, "traffic", "refusals", "1 signature does not match", "--probe", false},
}

// Whatever hangs, the doctor does not.
func TestDoctorDoesNotHang(t *testing.T) {
	t.Parallel()
	hung := silent(t)
	d, err := (&app{lookup: from(map[string]string{
		"DATABASE_URL": "postgres://u:p@" + hung + "/x?sslmode=disable", "REDIS_URL": "redis://" + hung, "SMTP_URL": "smtp://" + hung, "PUBLIC_URL": "http://" + hung,
		"MAIL_FROM": "a@b.test", "LISTEN_ADDR": hung, "PAYQI_WEBHOOK_SECRET": worldSecret, "ADMIN_API_KEY": worldKey,
	})}).newDoctor(doctorOptions{role: "all"})
	if err != nil {
		t.Fatal(err)
	}
	d.patience = time.Second
	done := make(chan diagnoses, 1)
	go func() { done <- d.examine(context.Background()) }()
	select {
	case found := <-done:
		for _, group := range []string{"database", "redis", "mail", "public address"} {
			if !slices.ContainsFunc(found, func(f diagnosis) bool { return f.Group == group && f.Verdict == isWrong && f.Mend != "" }) {
				t.Errorf("nothing is wrong with %s:\n%s", group, printed(t, found))
			}
		}
	case <-time.After(2 * patience):
		t.Fatal("it hangs")
	}
}

// PgBouncer refuses the settings that come with a connection until it is told
// to pass over them, and is then known for what it is.
func TestDoctorSeesPgBouncer(t *testing.T) {
	t.Parallel()
	bin, dir := installed(t, "pgbouncer"), reachableDir(t)
	if bin == "" {
		return
	}
	u, err := url.Parse(dbtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	start := func(more string) string {
		port := freePort(t)
		ini := write(t, filepath.Join(dir, "pgbouncer"+port+".ini"), fmt.Sprintf("[databases]\n%s = host=127.0.0.1 port=%s dbname=%s user=%s password=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nauth_type = any\nunix_socket_dir =\n%s\n",
			strings.TrimPrefix(u.Path, "/"), u.Port(), strings.TrimPrefix(u.Path, "/"), u.User.Username(), password, port, more))
		if err := os.Chmod(ini, 0o644); err != nil {
			t.Fatal(err)
		}
		run := []string{bin, ini}
		if os.Geteuid() == 0 {
			run = []string{bin, "-u", "nobody", ini}
		}
		foreground(t, "127.0.0.1:"+port, run...)
		through := *u
		through.Host = "127.0.0.1:" + port
		return through.String()
	}
	examine := func(address string) string {
		d, err := (&app{lookup: from(map[string]string{"DATABASE_URL": address})}).newDoctor(doctorOptions{role: "migrate"})
		if err != nil {
			t.Fatal(err)
		}
		d.patience = patience
		return strings.Join(strings.Fields(printed(t, d.examine(t.Context()))), " ")
	}
	contains(t, "strict", examine(start("")), "✗ DATABASE_URL: a pooler such as PgBouncer answers, and refuses our settings", "ignore_startup_parameters = extra_float_digits,statement_timeout")
	contains(t, "told", examine(start("ignore_startup_parameters = extra_float_digits,statement_timeout,lock_timeout,idle_in_transaction_session_timeout,random_page_cost")),
		"✓ DATABASE_URL:", "! pooler: one such as PgBouncer is in between, and keeps our time limits", "SET statement_timeout = '5s';", "MIGRATE_DATABASE_URL=")
}

// serve and work need no right that programRights does not name, and every
// table of the schema is named there.
func TestProgramRightsAreEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var named []string
	if err := w.db.Read(t.Context()).Raw(`SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r','v','m','p') ORDER BY 1`).Scan(&named).Error; err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(programRights)); !slices.Equal(got, slices.Sorted(slices.Values(named))) {
		t.Errorf("programRights names %q, the schema has %q: say in doctor_database.go what serve and work do with each table", got, named)
	}
	c := &clinic{world: w}
	v := &visitOf{t: t, clinic: c, settings: map[string]string{}}
	role(allRights()...)(v)
	t.Run("a trade", func(t *testing.T) {
		w := *w
		w.t = t
		w.cfg.DatabaseURL = secret(v.settings["DATABASE_URL"])
		w.serve()
		w.work()
		w.stock("mug", 10)
		w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/products/mug/adjustments", map[string]any{"delta": 5, "reason": "found"}, nil))
		paid := w.open("paid", "mug")
		e := newEvent("payment.completed", paid, "pay_paid")
		w.answered("200 OK", e)
		w.answered("200 Already processed", e)
		e.Data.Amount = "1.00"
		w.answered("200 Already processed", e) // contradicts
		short := newEvent("payment.completed", w.open("short", "mug"), "pay_short")
		short.Data.Amount = "1.00"
		w.answered("200 OK", short)
		w.tell("payment.expired", w.open("expired", "mug"))
		w.open("cancelled", "mug")
		w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/cancelled/cancellation", map[string]any{"reason": "changed mind"}, nil))
		w.await("cases", func() bool { return w.count(`SELECT count(*) FROM cases`) >= 2 })
		w.tell("payment.completed", w.open("shipped", "mug"))
		w.stands("shipped", "paid/paid/queued")
		w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/shipped/shipments", map[string]any{}, nil))
		w.letter("shipped", "on its way")
		if got := w.imported(w.fieldOf(w.send("products", "", "sku,name,on_hand\npot,Pot,1\nmug,Mug,1\n"), "id")); got != "done 1/1/0" {
			t.Errorf("imported: %s", got)
		}
		if r := w.ask(http.MethodGet, "/api/v1/exports/orders", ""); r.status != 200 {
			t.Errorf("export: %d %s", r.status, r.body)
		}
		w.quiet()
	})
}

// With nothing but the file that dev writes the doctor finds nothing wrong.
func TestDoctorOfDev(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	data := filepath.Join(dir, "data")
	p := process(t, devEnv(dir), "dev", "--data", data)
	p.ready()
	d := process(t, devEnv(dir), "doctor", "--config", filepath.Join(data, devEnvName))
	if code := d.exit(); code != 0 {
		t.Errorf("exit code %d:\n%s%s", code, d.stdout.String(), d.stderr.String())
	}
	contains(t, "it", d.stdout.String(), "0 wrong, 0 warnings,", "a development installation")
}

// Exit codes are those of the other commands.
func TestDoctorExitCodes(t *testing.T) {
	for args, want := range map[string]int{
		"doctor": exitFail, "doctor --json": exitFail, "doctor --role nobody": exitUsage, "doctor --mail-to nonsense": exitUsage, "doctor now": exitUsage,
		"doctor --config /nowhere/x.env": exitUsage,
	} {
		if code, _, stderr := quayside(t, nil, strings.Fields(args)...); code != want || (stderr == "") != (want == exitFail) {
			t.Errorf("%s: %d %q", args, code, stderr)
		}
	}
	if _, out, _ := quayside(t, nil, "doctor", "--json"); !json.Valid([]byte(out)) {
		t.Errorf("not JSON: %s", out)
	}
}
