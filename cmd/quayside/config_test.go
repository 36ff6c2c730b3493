package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/joho/godotenv"
)

const exampleFile = "../../configs/example.env"

// good is a complete environment.
func good() map[string]string {
	return map[string]string{
		"DATABASE_URL": "postgres://u:dbpassword@db:5432/shop", "REDIS_URL": "redis://:redispassword@cache:6379/1",
		"SMTP_URL": "smtp://u:mailpassword@mail:587", "PUBLIC_URL": "https://shop.example/",
		"PAYQI_WEBHOOK_SECRET": "whsec_first_of_two_secrets,whsec_second_of_two_secrets",
		"MAIL_FROM":            "orders@shop.example", "ADMIN_API_KEY": "an-admin-key-of-enough-bytes",
		"PAYQI_API_URL": "https://api.payqi.example", "PAYQI_API_KEY": "a-payqi-key-of-enough-bytes",
	}
}

func from(m map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
}

// with is good with some settings changed.
func with(pairs ...string) map[string]string {
	m := good()
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// configs/example.env names what config reads, in the same order, no more and no less.
func TestExampleNamesEverySetting(t *testing.T) {
	body, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	var written, read []string
	for line := range strings.Lines(string(body)) {
		if name, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			written = append(written, name)
		}
	}
	for name := range settingsOf(&config{}) {
		read = append(read, name)
	}
	if diff := cmp.Diff(read, written); diff != "" {
		t.Errorf("config reads (-), example.env names (+):\n%s", diff)
	}
}

// What example.env suggests is right; only the secret that nobody can suggest
// is missing. Its defaults are the program's.
func TestExampleLoads(t *testing.T) {
	values, err := godotenv.Read(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	_, err = loadConfig(from(values), forServeWithWork)
	wrong, _ := errors.AsType[mistakes](err)
	if len(wrong) != 1 || !strings.HasPrefix(wrong[0], "PAYQI_WEBHOOK_SECRET: is missing") {
		t.Errorf("got %q", wrong)
	}
	defaults, err := loadConfig(from(nil), needs{})
	if err != nil {
		t.Fatal(err)
	}
	example, _ := parseConfig(needs{}, from(values))
	for _, own := range []*config{&defaults, &example} { // what has no default
		own.DatabaseURL, own.MigrateDatabaseURL, own.RedisURL, own.SMTPURL, own.PublicURL, own.MailFrom = "", "", "", "", "", ""
	}
	if diff := cmp.Diff(defaults, example); diff != "" {
		t.Errorf("defaults (-), example.env (+):\n%s", diff)
	}
}

// A complete environment is understood, with secrets split and slashes trimmed.
func TestLoadConfig(t *testing.T) {
	cfg, err := loadConfig(from(with("TRUSTED_PROXIES", "10.0.0.7, 10.1.0.0/16,::1", "ORDER_TTL", "2h",
		"PAYMENT_TOLERANCE", "0.05", "LOG_LEVEL", "debug", "REQUIRE_HTTPS", "true", "LISTEN_ADDR", ":0")), forServeWithWork)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.PayQIWebhookSecrets; len(got) != 2 || got[0].reveal() != "whsec_first_of_two_secrets" || got[1].reveal() != "whsec_second_of_two_secrets" {
		t.Errorf("%d secrets, or not the right ones", len(got))
	}
	if cfg.MigrateDatabaseURL.reveal() != cfg.DatabaseURL.reveal() {
		t.Error("MIGRATE_DATABASE_URL does not fall back to DATABASE_URL")
	}
	got := []any{cfg.PublicURL, cfg.TrustedProxies, cfg.OrderTTL, cfg.PaymentTolerance.String(), cfg.LogLevel, cfg.RequireHTTPS, cfg.PayQITimestamp, cfg.ShopName}
	want := []any{"https://shop.example", []string{"10.0.0.7", "10.1.0.0/16", "::1"}, 2 * time.Hour, "0.05", slog.LevelDebug, true, "if-present", "Quayside"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Each command names what it cannot do without, all of it.
func TestNeeds(t *testing.T) {
	for name, tc := range map[string]struct {
		need needs
		want []string
	}{
		"migrate":             {forMigrate, []string{"DATABASE_URL"}},
		"serve":               {forServe, []string{"DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "PAYQI_WEBHOOK_SECRET", "MAIL_FROM"}},
		"work":                {forWork, []string{"DATABASE_URL", "REDIS_URL", "SMTP_URL", "PUBLIC_URL", "MAIL_FROM"}},
		"serve --with-worker": {forServeWithWork, []string{"DATABASE_URL", "REDIS_URL", "SMTP_URL", "PUBLIC_URL", "PAYQI_WEBHOOK_SECRET", "MAIL_FROM"}},
		"check":               {forDatabase, []string{"DATABASE_URL"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadConfig(from(nil), tc.need)
			var got []string
			wrong, _ := errors.AsType[mistakes](err)
			for _, m := range wrong {
				setting, _, _ := strings.Cut(m, ":")
				got = append(got, setting)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if _, err := loadConfig(from(good()), tc.need); err != nil {
				t.Errorf("complete, yet: %v", err)
			}
		})
	}
	if _, err := loadConfig(from(map[string]string{"MIGRATE_DATABASE_URL": "postgres://db/x"}), forMigrate); err != nil {
		t.Errorf("MIGRATE_DATABASE_URL alone: %v", err)
	}
}

// Every mistake is named by its setting, with what to do.
func TestMistakes(t *testing.T) {
	for _, tc := range []struct{ name, value, want string }{
		{"DATABASE_URL", "mysql://u:hunter2@db/x", "postgres://"},
		{"DATABASE_URL", "postgres://u:hunter2@db:99999/x", "postgres://"},
		{"DATABASE_URL", "host=db password=hunter2", "postgres://"},
		{"DATABASE_URL", "postgres://u:hunter2@db/x\x00", "postgres://"},
		{"MIGRATE_DATABASE_URL", "u:hunter2@db/x", "postgres://"},
		{"REDIS_URL", "cache:6379", "redis://"},
		{"REDIS_URL", "http://:hunter2@cache", "rediss"},
		{"REDIS_URL", "redis://:hunter2@cache/notanumber", "database number"},
		{"REDIS_URL", "redis-sentinel://:hunter2@a:1,b:2", "master=NAME"},
		{"SMTP_URL", "mail:25", "smtp://"},
		{"SMTP_URL", "http://u:hunter2@mail", "smtp://"},
		{"SMTP_URL", "smtp://u:hunter2@", "smtp://"},
		{"SMTP_URL", "smtp://u:hunter2@mail:99999", "smtp://"},
		{"LISTEN_ADDR", "8080", "host:port"},
		{"LISTEN_ADDR", "localhost:http", "host:port"},
		{"LISTEN_ADDR", ":99999", "host:port"},
		{"METRICS_ADDR", "9090", "host:port"},
		{"METRICS_ADDR", "127.0.0.1:8080", "same as LISTEN_ADDR"},
		{"PUBLIC_URL", "shop.example", "absolute"},
		{"PUBLIC_URL", "ftp://shop.example", "absolute"},
		{"PUBLIC_URL", "https://", "absolute"},
		{"PUBLIC_URL", "https://shop.example/?a=b", "absolute"},
		{"PUBLIC_URL", "https://u:p@shop.example", "absolute"},
		{"PAYQI_WEBHOOK_SECRET", "hunter2", "only 7 bytes"},
		{"PAYQI_WEBHOOK_SECRET", "whsec_first_of_two_secrets,", "number 2 is only 0 bytes"},
		{"PAYQI_WEBHOOK_SECRET", "whsec_first_of_two_secrets, whsec_hunter2_of_two_secrets", "number 2 is written with a space"},
		{"PAYQI_WEBHOOK_SECRET", "whsec_hunter2\nof_some_length", "line break"},
		{"PAYQI_WEBHOOK_SECRET", "whsec_test_secret", "example"},
		{"PAYQI_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "example"},
		{"PAYQI_WEBHOOK_SECRET", "It's a Secret to Everybody", "example"},
		{"PAYQI_WEBHOOK_SECRET", "whsec_CHANGE_ME_change_me", "example"},
		{"PAYQI_TIMESTAMP", "maybe", "if-present, required or off"},
		{"PAYQI_API_URL", "api.example", "absolute"},
		{"PAYQI_API_URL", "http://api.example", "https://"},
		{"PAYQI_API_KEY", "hunter2", "only 7 bytes"},
		{"PAYQI_API_KEY", "hunter2hunter2 hunter2 ", "space"},
		{"TRUSTED_PROXIES", "10.0.0.7,loadbalancer", `"loadbalancer" is neither`},
		{"TRUSTED_PROXIES", "0.0.0.0/0", "everybody"},
		{"TRUSTED_PROXIES", "::/0", "everybody"},
		{"REQUIRE_HTTPS", "yes please", "true or false"},
		{"LOG_LEVEL", "loud", "debug, info, warn or error"},
		{"LOG_FORMAT", "xml", "text or json"},
		{"MAIL_FROM", "orders", "orders@shop.example"},
		{"MAIL_FROM", "a@b.example\r\nBcc: c@d.example", "orders@shop.example"},
		{"SHOP_NAME", "Shop\r\nBcc: c@d.example", "one line"},
		{"SHOP_NAME", strings.Repeat("x", 101), "100 letters"},
		{"ORDER_TTL", "30", "30m"},
		{"ORDER_TTL", "-1h", "1s to 168h"},
		{"ORDER_TTL", "999ms", "1s to 168h"},
		{"ORDER_TTL", "168h0m1s", "1s to 168h"},
		{"PAYMENT_TOLERANCE", "a bit", "decimal number"},
		{"PAYMENT_TOLERANCE", "-0.01", "decimal number from 0"},
		{"PAYMENT_TOLERANCE", "NaN", "decimal number"},
		{"PAYMENT_TOLERANCE", "1e999999999", "decimal number"},
		{"PAYMENT_TOLERANCE", "1e30", "decimal number from 0"},
		{"PAYMENT_TOLERANCE", "0.0000000000000000001", "decimal number from 0"},
		{"ADMIN_API_KEY", "hunter2hunter2hunter2hu", "only 23 bytes"},
		{"ADMIN_API_KEY", "hunter2hunter2hunter2 hunter2 ", "space"},
		{"ADMIN_API_KEY", "change-me-change-me-change-me", "example"},
	} {
		t.Run(tc.name+"="+tc.value, func(t *testing.T) {
			_, err := loadConfig(from(with(tc.name, tc.value)), forServeWithWork)
			wrong, _ := errors.AsType[mistakes](err)
			if len(wrong) != 1 || !strings.HasPrefix(wrong[0], tc.name+": ") || !strings.Contains(wrong[0], tc.want) {
				t.Errorf("got %q, want one mistake of %s with %q", []string(wrong), tc.name, tc.want)
			}
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("a secret is printed: %v", err)
			}
		})
	}
}

// The bounds themselves are allowed.
func TestBoundsAreAllowed(t *testing.T) {
	for _, pair := range [][2]string{
		{"ORDER_TTL", "1s"},
		{"ORDER_TTL", "168h"},
		{"PAYMENT_TOLERANCE", "0"},
		{"PAYMENT_TOLERANCE", "0.000000000000000001"},
		{"PAYQI_WEBHOOK_SECRET", "sixteen-bytes-ok"},
		{"ADMIN_API_KEY", "twentyfour-bytes-will-do"},
		{"SHOP_NAME", strings.Repeat("ü", 100)},
		{"DATABASE_URL", "postgres://u:p%40ss@h1:5432,h2:5433/x?sslmode=disable"},
		{"REDIS_URL", "redis-sentinel://a:1,b:2/0?master=m"},
		{"REDIS_URL", "redis-cluster://a:1,b:2"},
		{"REDIS_URL", "rediss://cache"},
		{"SMTP_URL", "smtps://mail"},
		{"MAIL_FROM", "The Shop <orders@shop.example>"},
		{"LISTEN_ADDR", "[::1]:8080"},
		{"PUBLIC_URL", "http://localhost:8080"},
		{"TRUSTED_PROXIES", "0.0.0.0/1"},
	} {
		if _, err := loadConfig(from(with(pair[0], pair[1])), forServeWithWork); err != nil {
			t.Errorf("%s=%s: %v", pair[0], pair[1], err)
		}
	}
	if _, err := loadConfig(from(with("PAYQI_WEBHOOK_SECRET", "whsec_test_secret")), needs{examples: true}); err != nil {
		t.Errorf("dev may use an example: %v", err)
	}
}

// An operator sees every mistake at the first try, each in a line of its own.
func TestAllMistakesAtOnce(t *testing.T) {
	_, err := loadConfig(from(map[string]string{
		"DATABASE_URL": "db", "ORDER_TTL": "soon", "PAYMENT_TOLERANCE": "-1", "REQUIRE_HTTPS": "true", "PUBLIC_URL": "http://shop.example",
		"TRUSTED_PROXIES": "::/0,x", "PAYQI_WEBHOOK_SECRET": "short,it", "LISTEN_ADDR": "x", "TLS_CERT_FILE": "/nowhere.pem",
	}), forServe)
	wrong, _ := errors.AsType[mistakes](err)
	var got []string
	for _, m := range wrong {
		name, rest, ok := strings.Cut(m, ": ")
		if !ok || !strings.ContainsAny(rest, ";") || strings.Contains(rest, "\n") {
			t.Errorf("not NAME: what is wrong; what to do: %q", m)
		}
		got = append(got, name)
	}
	slices.Sort(got)
	want := []string{
		"DATABASE_URL", "LISTEN_ADDR", "MAIL_FROM", "ORDER_TTL", "PAYMENT_TOLERANCE", "PAYQI_WEBHOOK_SECRET",
		"PAYQI_WEBHOOK_SECRET", "PUBLIC_URL", "REDIS_URL", "TLS_KEY_FILE", "TRUSTED_PROXIES", "TRUSTED_PROXIES",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(err.Error(), "12 mistakes") || strings.Count(err.Error(), "\n") != 12 {
		t.Errorf("the error is\n%v", err)
	}
}

// serve reads its certificate at once; a process that needs none does not.
func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	set := from(with("TLS_CERT_FILE", cert, "TLS_KEY_FILE", key))
	if _, err := loadConfig(set, forServe); err == nil || !strings.Contains(err.Error(), "TLS_CERT_FILE: and TLS_KEY_FILE cannot be used") {
		t.Errorf("files that are not there: %v", err)
	}
	if _, err := loadConfig(set, forWork); err != nil {
		t.Errorf("work: %v", err)
	}
	writeCertificate(t, cert, key)
	if _, err := loadConfig(set, forServe); err != nil {
		t.Errorf("good files: %v", err)
	}
	if _, err := loadConfig(from(with("TLS_KEY_FILE", key)), forServe); err == nil || !strings.Contains(err.Error(), "TLS_CERT_FILE: is missing") {
		t.Errorf("key alone: %v", err)
	}
}

func writeCertificate(t *testing.T, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

func write(t *testing.T, path, body string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// However a config is printed, encoded or logged, no secret shows.
func TestSecretsAreNeverPrinted(t *testing.T) {
	secrets := map[string]string{
		"DATABASE_URL": "postgres://u:CANARY@db/x", "MIGRATE_DATABASE_URL": "postgres://u:CANARY@db/y",
		"REDIS_URL": "redis://:CANARY@cache", "SMTP_URL": "smtp://u:CANARY@mail",
		"PAYQI_WEBHOOK_SECRET": "CANARY_CANARY_CANARY,CANARY_CANARY_CANARY", "ADMIN_API_KEY": "CANARY_CANARY_CANARY_CANARY",
		"PAYQI_API_KEY": "CANARY_CANARY_CANARY", "PAYQI_API_URL": "https://api.payqi.example",
	}
	for name, field := range settingsOf(&config{}) {
		if _, ok := secrets[name]; ok != isSecret(field) && name != "PAYQI_API_URL" { // which the key needs
			t.Errorf("%s: secret type %v, in this test %v", name, isSecret(field), ok)
		}
	}
	cfg, err := loadConfig(from(secrets), needs{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, v := range []any{cfg, &cfg, cfg.DatabaseURL, cfg.PayQIWebhookSecrets, map[string]secret{"a": cfg.AdminAPIKey}} {
		_, _ = fmt.Fprintf(&out, "%v %+v %#v %s %q %x %X %d\n", v, v, v, v, v, v, v, v)
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Error(err)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	s := cfg.DatabaseURL
	out.WriteString(s.String() + s.GoString() + fmt.Sprint(errors.New(s.String())))
	text := out.String()
	if strings.Contains(text, "CANARY") || strings.Contains(text, fmt.Sprintf("%x", "CANARY")) || strings.Contains(text, fmt.Sprintf("%X", "CANARY")) {
		t.Errorf("printed:\n%s", text)
	}
	if !strings.Contains(text, redacted) {
		t.Error("nothing says [redacted]")
	}
}

// The environment wins over the file; an empty value is no value.
func TestEnvironmentWinsOverFile(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "quayside.env"), `# a comment
DATABASE_URL=postgres://file/x
export SHOP_NAME="From the file"
ORDER_TTL=1h
ADMIN_API_KEY='$ingle quoted # key, kept as it is'
SOMEBODY_ELSES=setting
`)
	secretFile := write(t, filepath.Join(t.TempDir(), "secret"), "postgres://from-a-file/x\n")
	a := &app{configFile: file, lookup: from(map[string]string{"SHOP_NAME": "From the environment", "ORDER_TTL": "", "DATABASE_URL_FILE": secretFile})}
	cfg, err := a.settings(forDatabase)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{cfg.DatabaseURL.reveal(), cfg.ShopName, cfg.OrderTTL.String(), cfg.AdminAPIKey.reveal()}
	want := []string{"postgres://from-a-file/x", "From the environment", "1h0m0s", "$ingle quoted # key, kept as it is"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A secret may stand in a file; one newline at its end is not part of it.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(body string) string { return write(t, filepath.Join(dir, fmt.Sprintf("%x", body)), body) }
	long := "whsec_long_enough_for_us"
	for _, body := range []string{long, long + "\n", long + "\r\n"} {
		cfg, err := loadConfig(from(map[string]string{"PAYQI_WEBHOOK_SECRET_FILE": file(body)}), needs{})
		if err != nil || len(cfg.PayQIWebhookSecrets) != 1 || cfg.PayQIWebhookSecrets[0].reveal() != long {
			t.Errorf("%q: not read whole, or %v", body, err)
		}
	}
	for _, tc := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"PAYQI_WEBHOOK_SECRET_FILE": file(long + "\n\n")}, "PAYQI_WEBHOOK_SECRET: is written with a space or line break"},
		{map[string]string{"PAYQI_WEBHOOK_SECRET_FILE": file("\n")}, "is empty"},
		{map[string]string{"ADMIN_API_KEY_FILE": filepath.Join(dir, "nowhere")}, "ADMIN_API_KEY_FILE: "},
		{map[string]string{"REDIS_URL": "redis://cache", "REDIS_URL_FILE": file("redis://cache")}, "REDIS_URL: and REDIS_URL_FILE are both set"},
	} {
		if _, err := loadConfig(from(tc.env), needs{}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: got %v, want %q", tc.env, err, tc.want)
		}
	}
}

// A name in the file that was meant for us is not passed over in silence.
func TestMistypedNamesInTheFile(t *testing.T) {
	for name, want := range map[string]string{
		"DATABSE_URL": "DATABASE_URL", "database_url": "DATABASE_URL", "PAYQI_SECRET": "PAYQI_WEBHOOK_SECRET", "ORDER_TIMEOUT": "ORDER_TTL",
		"REDIS_PASSWORD": "REDIS_URL", "TRUSTED_PROXY": "TRUSTED_PROXIES", "REDIS_URL_FIEL": "REDIS_URL_FILE",
		"POSTGRES_PASSWORD": "", "PATH": "", "SHOP_NAME": "", "ADMIN_API_KEY_FILE": "", "PAYQI_API_KEY": "",
	} {
		if got := didYouMean(name, knownNames()); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	dir := t.TempDir()
	for body, want := range map[string]string{
		"ORDER_TLL=1h\n":                          "ORDER_TLL: in ",
		"ADMIN_API_KEY=hunter2$hunter2\n":         "ADMIN_API_KEY: holds a $",
		"ADMIN_API_KEY=\"hunter2${hunter2}\"\n":   "ADMIN_API_KEY: holds a $",
		"hunter2 hunter2\n":                       "not made of lines",
		"PAYQI_API_KEY=hunter2\n":                 "PAYQI_API_KEY: is only 7 bytes",
		"REDIS_URL=\nREDIS_URL_FILE=/nowhere/x\n": "REDIS_URL_FILE: ",
	} {
		a := &app{configFile: write(t, filepath.Join(dir, "x.env"), body), lookup: from(nil)}
		_, err := a.settings(needs{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v, want %q and no secret", body, err, want)
		}
	}
	a := &app{configFile: filepath.Join(dir, "missing.env"), lookup: from(nil)}
	if _, err := a.settings(needs{}); err == nil || !strings.Contains(err.Error(), "\n--config: ") {
		t.Errorf("a file that is not there: %v", err)
	}
}
