package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/notify"
	"quayside/internal/payqi"
	"quayside/internal/queue"
)

// Bounds of settings.
const (
	minSecretBytes   = 16 // behaviour: a shorter HMAC key can be guessed
	minAdminKeyBytes = 24
	minOrderTTL      = time.Second
	maxOrderTTL      = 7 * 24 * time.Hour
	maxShopName      = 100 // letters
)

// check notes what is missing, malformed or unsafe.
func (cfg *config) check(n needs, wrong *mistakes) {
	for _, name := range cfg.missing(n) {
		wrong.add(name, "is missing; %s", advice[name])
	}
	cfg.checkServers(wrong)
	cfg.checkWeb(n, wrong)
	cfg.checkSecrets(n, wrong)
	cfg.checkShop(wrong)
	cfg.checkPayQI(n, wrong)
	oneOf(wrong, "PAYQI_TIMESTAMP", cfg.PayQITimestamp, timestampIfPresent, timestampRequired, timestampOff)
	if cfg.LogFormat != "" {
		oneOf(wrong, "LOG_FORMAT", cfg.LogFormat, formatText, formatJSON)
	}
}

// missing names what a command with these needs lacks.
func (cfg *config) missing(n needs) (names []string) {
	for name, field := range settingsOf(cfg) {
		if field.IsZero() && slices.Contains(n.must, name) {
			name, _ = strings.CutPrefix(name, "MIGRATE_") // DATABASE_URL would do
			names = append(names, name)
		}
	}
	return names
}

// advice for those who have not set what a command needs.
var advice = map[string]string{ //nolint:gosec // no credentials, the form of them
	"DATABASE_URL":         "set it to a Postgres address such as " + postgresForm,
	"REDIS_URL":            "set it to a Redis address such as redis://localhost:6379/0",
	"SMTP_URL":             "set it to a mail server such as " + smtpForm,
	"PUBLIC_URL":           "set it to the address customers use, such as https://shop.example",
	"PAYQI_WEBHOOK_SECRET": "copy it from PayQI's dashboard, Settings > Webhooks",
	"MAIL_FROM":            "set it to the sender of letters, such as orders@shop.example",
	"ADMIN_API_KEY":        "make one up, for instance with `openssl rand -base64 32`",
}

const (
	postgresForm = "postgres://user:password@host:5432/name" //nolint:gosec // no credentials, the form of them
	smtpForm     = "smtp://user:password@host:587"           //nolint:gosec // no credentials, the form of them
)

func oneOf(wrong *mistakes, name, value string, good ...string) {
	if !slices.Contains(good, value) {
		wrong.add(name, "is %q; write %s or %s", value, strings.Join(good[:len(good)-1], ", "), good[len(good)-1])
	}
}

// checkServers looks at the addresses of the servers we call. They hold
// passwords, so no message repeats them.
func (cfg *config) checkServers(wrong *mistakes) {
	if cfg.DatabaseURL != "" && !postgresURL(cfg.DatabaseURL.reveal()) {
		wrong.add("DATABASE_URL", "is not a Postgres address; write %s", postgresForm)
	}
	if cfg.MigrateDatabaseURL != cfg.DatabaseURL && !postgresURL(cfg.MigrateDatabaseURL.reveal()) {
		wrong.add("MIGRATE_DATABASE_URL", "is not a Postgres address; write %s", postgresForm)
	}
	if cfg.RedisURL != "" {
		if rdb, err := queue.Open(cfg.RedisURL.reveal()); err != nil {
			*wrong = append(*wrong, err.Error()) // names the setting itself
		} else {
			_ = rdb.Close()
		}
	}
	if cfg.SMTPURL != "" && !smtpURL(cfg.SMTPURL.reveal()) {
		wrong.add("SMTP_URL", "is not a mail server's address; write %s, or smtps:// for TLS from the start", smtpForm)
	}
}

func postgresURL(address string) bool {
	if !strings.HasPrefix(address, "postgres://") && !strings.HasPrefix(address, "postgresql://") {
		return false
	}
	db, err := database.Open(address, database.Options{Name: "check"}) // parses, does not connect
	if err == nil {
		_ = db.Close()
	}
	return err == nil
}

func smtpURL(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "smtp" || u.Scheme == "smtps") && u.Hostname() != "" &&
		strings.Trim(u.Path, "/") == "" && u.Fragment == "" && (u.Port() == "" || isPort(u.Port()))
}

// checkPayQI looks at the access to PayQI's API.
func (cfg *config) checkPayQI(n needs, wrong *mistakes) {
	if cfg.PayQIAPIKey != "" {
		checkSecret(wrong, n, "PAYQI_API_KEY", "is", cfg.PayQIAPIKey, minSecretBytes, "copy it whole from PayQI's dashboard")
	}
	switch {
	case cfg.PayQIAPIURL == "" && cfg.PayQIAPIKey != "":
		wrong.add("PAYQI_API_URL", "is missing while PAYQI_API_KEY is set; set both or neither")
	case cfg.PayQIAPIURL != "" && cfg.PayQIAPIKey == "":
		wrong.add("PAYQI_API_KEY", "is missing while PAYQI_API_URL is set; set both or neither")
	}
	if cfg.PayQIAPIURL != "" {
		if err := payqi.CheckAddress(cfg.PayQIAPIURL); err != nil {
			wrong.add("PAYQI_API_URL", "%v", err)
		}
	}
}

// checkWeb looks at how others reach us.
func (cfg *config) checkWeb(n needs, wrong *mistakes) {
	hostPort(wrong, "LISTEN_ADDR", cfg.ListenAddr)
	if cfg.MetricsAddr != "" {
		hostPort(wrong, "METRICS_ADDR", cfg.MetricsAddr)
		if cfg.MetricsAddr == cfg.ListenAddr && !strings.HasSuffix(cfg.ListenAddr, ":0") {
			wrong.add("METRICS_ADDR", "is the same as LISTEN_ADDR; give it a port of its own, or leave it out")
		}
	}
	if cfg.PublicURL != "" {
		cfg.checkPublicURL(wrong)
	}
	for i, proxy := range cfg.TrustedProxies {
		cfg.TrustedProxies[i] = strings.TrimSpace(proxy)
		checkProxy(wrong, cfg.TrustedProxies[i])
	}
	switch cert, key := cfg.TLSCertFile, cfg.TLSKeyFile; {
	case cert != "" && key == "":
		wrong.add("TLS_KEY_FILE", "is missing while TLS_CERT_FILE is set; set both or neither")
	case key != "" && cert == "":
		wrong.add("TLS_CERT_FILE", "is missing while TLS_KEY_FILE is set; set both or neither")
	case cert != "" && n.tls:
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			wrong.add("TLS_CERT_FILE", "and TLS_KEY_FILE cannot be used (%v); name a PEM certificate and its key", err)
		}
	}
}

func (cfg *config) checkPublicURL(wrong *mistakes) {
	cfg.PublicURL = strings.TrimRight(cfg.PublicURL, "/")
	u, err := url.Parse(cfg.PublicURL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(cfg.PublicURL, "?# "):
		wrong.add("PUBLIC_URL", "is not an absolute address; write for instance https://shop.example")
	case u.Scheme == "http" && cfg.RequireHTTPS:
		wrong.add("PUBLIC_URL", "begins with http:// although REQUIRE_HTTPS is on; write https://")
	}
}

func hostPort(wrong *mistakes, name, value string) {
	_, port, err := net.SplitHostPort(value)
	if err != nil || !isPort(port) {
		wrong.add(name, "%q is not host:port; write for instance 127.0.0.1:8080, or :8080 for every interface", value)
	}
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// checkProxy refuses a network so wide that everybody could claim any address.
func checkProxy(wrong *mistakes, proxy string) {
	if _, err := netip.ParseAddr(proxy); err == nil {
		return
	}
	network, err := netip.ParsePrefix(proxy)
	switch {
	case err != nil:
		wrong.add("TRUSTED_PROXIES", "%q is neither an IP address nor a network; write for instance 10.0.0.7 or 10.0.0.0/24", proxy)
	case network.Bits() == 0:
		wrong.add("TRUSTED_PROXIES", "%q would let everybody claim any address; name the proxies themselves", proxy)
	}
}

// exampleSecrets stand in documentation, so everybody knows them.
var exampleSecrets = []string{
	"whsec_test_secret",
	"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
	"It's a Secret to Everybody",
}

func (cfg *config) checkSecrets(n needs, wrong *mistakes) {
	for i, s := range cfg.PayQIWebhookSecrets {
		which := "is"
		if len(cfg.PayQIWebhookSecrets) > 1 {
			which = fmt.Sprintf("number %d is", i+1)
		}
		checkSecret(wrong, n, "PAYQI_WEBHOOK_SECRET", which, s, minSecretBytes, "copy it whole from PayQI's dashboard, Settings > Webhooks")
	}
	if cfg.AdminAPIKey != "" {
		checkSecret(wrong, n, "ADMIN_API_KEY", "is", cfg.AdminAPIKey, minAdminKeyBytes, "make one up, for instance with `openssl rand -base64 32`")
	}
}

func checkSecret(wrong *mistakes, n needs, name, which string, s secret, least int, mend string) {
	value := s.reveal()
	placeholder := strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(value))
	switch {
	case strings.TrimSpace(value) != value || strings.ContainsFunc(value, unicode.IsControl):
		wrong.add(name, "%s written with a space or line break that does not belong to it; remove that", which)
	case len(value) < least:
		wrong.add(name, "%s only %d bytes long, at least %d are needed; %s", which, len(value), least, mend)
	case !n.examples && (slices.Contains(exampleSecrets, value) || strings.Contains(placeholder, "changeme")):
		wrong.add(name, "%s an example that everybody can read; %s", which, mend)
	}
}

// checkShop looks at what customers see and what their orders follow.
func (cfg *config) checkShop(wrong *mistakes) {
	if cfg.MailFrom != "" {
		if notify.ValidFrom(cfg.MailFrom) != nil {
			wrong.add("MAIL_FROM", "%q is not a mail address; write for instance orders@shop.example", cfg.MailFrom)
		}
	}
	if strings.ContainsFunc(cfg.ShopName, unicode.IsControl) || utf8.RuneCountInString(cfg.ShopName) > maxShopName {
		wrong.add("SHOP_NAME", "is longer than %d letters or holds control characters; write a short name in one line", maxShopName)
	}
	// A TTL that did not parse is 0, and has been noted.
	if cfg.OrderTTL != 0 && (cfg.OrderTTL < minOrderTTL || cfg.OrderTTL > maxOrderTTL) {
		wrong.add("ORDER_TTL", "is %s; write a duration from 1s to 168h (7 days)", cfg.OrderTTL)
	}
	if t := cfg.PaymentTolerance; t.IsNegative() || !fits(t) {
		wrong.add("PAYMENT_TOLERANCE", "is not an amount; write a plain decimal number from 0, at most 18 digits before and after its point")
	}
}

// fits reports whether the database can keep d. The exponent is looked at
// first: written out, 1e999999999 would fill the memory.
func fits(d decimal.Decimal) bool {
	const digits = 18
	return d.Exponent() >= -digits && d.Exponent() <= digits && d.LessThan(decimal.New(1, digits))
}
