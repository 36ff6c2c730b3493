package main

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/shopspring/decimal"
)

// config is everything an operator can set, and this file is the only reader
// of the environment. configs/example.env explains each setting in the same
// order; a test keeps the two in step.
//
// An empty value counts as not set. A secret may also stand in a file whose
// path is in NAME_FILE, as container platforms hand them over.
type config struct {
	// DatabaseURL is postgres://user:password@host:5432/name; several hosts
	// may be listed, the one that takes writes is used.
	DatabaseURL secret `env:"DATABASE_URL"`
	// MigrateDatabaseURL is used by migrate alone, for an address past PgBouncer
	// or a role that owns the tables. Unset it is DatabaseURL.
	MigrateDatabaseURL secret `env:"MIGRATE_DATABASE_URL"`
	// RedisURL is redis://, rediss://, redis-sentinel:// or redis-cluster://.
	RedisURL secret `env:"REDIS_URL"`
	// SMTPURL is smtp://user:password@host:587 (STARTTLS when offered) or smtps://.
	SMTPURL secret `env:"SMTP_URL"`

	// ListenAddr is the host:port of HTTP; an empty host is every interface.
	ListenAddr string `env:"LISTEN_ADDR" envDefault:"127.0.0.1:8080"`
	// PublicURL is how customers reach ListenAddr, the base of links in
	// letters; http(s)://host, no slash at its end.
	PublicURL string `env:"PUBLIC_URL"`

	// PayQIWebhookSecrets are those that may sign events, each at least 16
	// bytes and used literally; more than one during rotation.
	PayQIWebhookSecrets []secret `env:"PAYQI_WEBHOOK_SECRET"`
	// PayQITimestamp says what happens to events without X-PayQI-Timestamp:
	// if-present takes them, required refuses them, off ignores the header.
	PayQITimestamp string `env:"PAYQI_TIMESTAMP" envDefault:"if-present"`

	// PayQIAPIURL and PayQIAPIKey give access to PayQI's API: to create payments
	// at checkout and to ask about silent ones. Both or neither.
	PayQIAPIURL string `env:"PAYQI_API_URL"`
	PayQIAPIKey secret `env:"PAYQI_API_KEY"`

	// TLSCertFile and TLSKeyFile, PEM, make serve speak HTTPS by itself.
	TLSCertFile string `env:"TLS_CERT_FILE"`
	TLSKeyFile  string `env:"TLS_KEY_FILE"`
	// TrustedProxies are the addresses and networks (CIDR) whose forwarding
	// headers are believed; none by default.
	TrustedProxies []string `env:"TRUSTED_PROXIES"`
	// RequireHTTPS refuses requests that came in plain text, as far as
	// serve itself or a trusted proxy can tell.
	RequireHTTPS bool `env:"REQUIRE_HTTPS" envDefault:"false"`

	// LogLevel is debug, info, warn or error.
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"info"`
	// LogFormat is text or json; empty: text on a terminal, else json.
	LogFormat string `env:"LOG_FORMAT"`
	// MetricsAddr, host:port, serves /metrics apart from ListenAddr when set.
	MetricsAddr string `env:"METRICS_ADDR"`

	// MailFrom is the sender of letters: orders@shop.example, or with a name
	// as in Shop <orders@shop.example>.
	MailFrom string `env:"MAIL_FROM"`
	// ShopName is what letters and status pages call the shop, at most 100 letters.
	ShopName string `env:"SHOP_NAME" envDefault:"Quayside"`
	// OrderTTL is how long an unpaid order keeps its stock, 1 s to 7 days.
	OrderTTL time.Duration `env:"ORDER_TTL" envDefault:"30m"`
	// PaymentTolerance is how much less than its total still pays an order, in
	// the order's own currency.
	PaymentTolerance decimal.Decimal `env:"PAYMENT_TOLERANCE" envDefault:"0"`

	// AdminAPIKey is a key of the admin API that may do everything, for
	// automation, at least 24 bytes. Others are made by quayside keys create.
	AdminAPIKey secret `env:"ADMIN_API_KEY"`
}

// The values of PAYQI_TIMESTAMP and LOG_FORMAT.
const (
	timestampIfPresent = "if-present"
	timestampRequired  = "required"
	timestampOff       = "off"

	formatText = "text"
	formatJSON = "json"
)

// needs says what a command cannot do without. What else is set must be right
// all the same: a mistake should show before the day it matters.
type needs struct {
	must     []string // settings that may not be missing
	tls      bool     // reads the certificate, which other processes may not be able to
	examples bool     // takes secrets from documentation: dev and tests
}

// What each command needs.
var (
	forMigrate       = needs{must: []string{"MIGRATE_DATABASE_URL"}}                                                                    // which DATABASE_URL stands in for
	forServe         = needs{must: []string{"DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "PAYQI_WEBHOOK_SECRET", "MAIL_FROM"}, tls: true} // it writes letters, work sends them
	forWork          = needs{must: []string{"DATABASE_URL", "REDIS_URL", "SMTP_URL", "PUBLIC_URL", "MAIL_FROM"}}
	forServeWithWork = needs{must: []string{"DATABASE_URL", "REDIS_URL", "SMTP_URL", "PUBLIC_URL", "PAYQI_WEBHOOK_SECRET", "MAIL_FROM"}, tls: true}
	forDatabase      = needs{must: []string{"DATABASE_URL"}}
)

// settings reads the file of --config and the environment. Its error names
// every mistake, and never the value of a secret.
func (a *app) settings(n needs) (config, error) {
	file, wrong := readEnvFile(a.configFile)
	cfg, more := parseConfig(n, a.lookup, func(name string) (string, bool) { v, ok := file[name]; return v, ok })
	if err := append(wrong, more...).err(); err != nil {
		return config{}, err
	}
	return cfg, nil
}

// loadConfig is settings without a file.
func loadConfig(lookup func(string) (string, bool), n needs) (config, error) {
	cfg, wrong := parseConfig(n, lookup)
	if err := wrong.err(); err != nil {
		return config{}, err
	}
	return cfg, nil
}

// parseConfig makes a config of sources, of which the first that has a setting wins.
func parseConfig(n needs, sources ...func(string) (string, bool)) (cfg config, wrong mistakes) {
	values := map[string]string{}
	for name, field := range settingsOf(&cfg) {
		if v := pick(name, isSecret(field), sources, &wrong); v != "" {
			values[name] = v
		}
	}
	wrong.parse(env.ParseWithOptions(&cfg, env.Options{Environment: values}))
	if cfg.MigrateDatabaseURL == "" {
		cfg.MigrateDatabaseURL = cfg.DatabaseURL
	}
	cfg.check(n, &wrong)
	return cfg, wrong
}

// pick is the value of a setting, "" when it is not set. A secret is taken
// from NAME or from the file named by NAME_FILE.
func pick(name string, secret bool, sources []func(string) (string, bool), wrong *mistakes) string {
	for _, source := range sources {
		value, _ := source(name)
		path := ""
		if secret {
			path, _ = source(name + "_FILE")
		}
		switch {
		case value != "" && path != "":
			wrong.add(name, "and %s_FILE are both set; keep one of them", name)
			return value
		case path != "":
			return readSecret(name, path, wrong)
		case value != "":
			return value
		}
	}
	return ""
}

// readSecret is the content of a file less one newline at its end.
func readSecret(name, path string, wrong *mistakes) string {
	body, err := os.ReadFile(path) //nolint:gosec // the operator's own path
	if err != nil {
		if e, ok := errors.AsType[*os.PathError](err); ok {
			err = e.Err
		}
		wrong.add(name+"_FILE", "%q cannot be read (%v); name a file this process may read", path, err)
		return ""
	}
	value, _ := strings.CutSuffix(string(body), "\n")
	value, _ = strings.CutSuffix(value, "\r")
	if value == "" {
		wrong.add(name+"_FILE", "%q is empty; write the secret into it", path)
	}
	return value
}

// settingsOf gives each setting's name and its field in cfg, in order.
func settingsOf(cfg *config) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		v := reflect.ValueOf(cfg).Elem()
		for i := range v.NumField() {
			if !yield(v.Type().Field(i).Tag.Get("env"), v.Field(i)) {
				return
			}
		}
	}
}

func isSecret(field reflect.Value) bool {
	t := field.Type()
	return t == reflect.TypeFor[secret]() || t == reflect.TypeFor[[]secret]()
}

// mistakes in the settings, one line each: NAME: what is wrong; what to do.
type mistakes []string

func (m *mistakes) add(name, format string, args ...any) {
	*m = append(*m, name+": "+fmt.Sprintf(format, args...))
}

func (m mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	return m
}

func (m mistakes) Error() string {
	count := "a mistake"
	if len(m) > 1 {
		count = fmt.Sprintf("%d mistakes", len(m))
	}
	return fmt.Sprintf("the settings have %s (configs/example.env explains each of them)\n%s", count, strings.Join(m, "\n"))
}

// forms says how the settings are written that are more than text.
var forms = map[string]string{
	"REQUIRE_HTTPS":     "true or false",
	"LOG_LEVEL":         "debug, info, warn or error",
	"ORDER_TTL":         "a duration; write for instance 90s, 30m or 24h",
	"PAYMENT_TOLERANCE": "a decimal number; write for instance 0 or 0.01",
}

// parse notes what the parser refused. None of these is a secret: those are
// text, which is never refused.
func (m *mistakes) parse(err error) {
	all, ok := errors.AsType[env.AggregateError](err)
	if err != nil && !ok {
		m.add("settings", "%v", err)
	}
	for _, err := range all.Errors {
		if e, ok := errors.AsType[env.ParseError](err); ok {
			field, _ := reflect.TypeFor[config]().FieldByName(e.Name)
			name := field.Tag.Get("env")
			m.add(name, "is not %s", forms[name])
			continue
		}
		m.add("settings", "%v", err)
	}
}
