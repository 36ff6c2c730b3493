package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/joho/godotenv"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"quayside/internal/database"
	"quayside/internal/devstack"
	"quayside/internal/fault"
	"quayside/internal/inventory"
	"quayside/migrations"
)

// devOptions are the flags of dev.
type devOptions struct {
	data      string
	ephemeral bool
	demo      bool
	once      bool
	plain     bool
}

func newDevCommand(a *app) *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, with nothing to set up",
		Long: `Run everything in one process: a PostgreSQL and a Redis-compatible store of its
own, a mail catcher with a page, the API and a worker. It makes a sample shop,
an admin key and a webhook secret, and prints what to try next. Data is kept
between runs; Ctrl-C stops all of it.`,
		Example: `  quayside dev --demo          watch orders being paid, refused, expired
  quayside dev                 a shop of your own to play with
  quayside dev --demo --once   the same as a check: exit code 0 when all went as it should`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.dev(cmd.Context(), o) },
	}
	cmd.Flags().StringVar(&o.data, "data", ".quayside", "keep data in `DIR`")
	cmd.Flags().BoolVar(&o.ephemeral, "ephemeral", false, "keep nothing")
	cmd.Flags().BoolVar(&o.demo, "demo", false, "play customers and PayQI, and show what becomes of each order")
	cmd.Flags().BoolVar(&o.once, "once", false, "stop when the demo is over (implies --demo)")
	cmd.Flags().BoolVar(&o.plain, "plain", false, "print the demo line by line, also on a terminal")
	return cmd
}

// dev is the embedded default. Everything it starts ends with it.
func (a *app) dev(ctx context.Context, o devOptions) error {
	o.demo = o.demo || o.once
	began := time.Now()
	cfg, err := a.devSettings(&o)
	if err != nil {
		return err
	}
	var screen *theatre
	if o.demo {
		screen = a.newTheatre(o.plain)
		a.minding(screen)
	}
	a.log(cfg)
	s, err := a.startStack(ctx, o, &cfg)
	if err != nil {
		return err
	}
	defer s.stop()
	h, err := openDevHouse(ctx, cfg)
	if err != nil {
		return err
	}
	defer h.close()
	env, err := writeDevEnv(o.data, cfg)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.serve(gctx, s.listener, 0) })
	g.Go(func() error { return h.work(gctx) })
	g.Go(func() error { return s.watch(gctx) })
	g.Go(func() error {
		waitReady(gctx, cfg.PublicURL)
		t := tour{w: a.stdout, cfg: cfg, stack: s, env: env, data: o.data, program: programName()}
		t.welcome(time.Since(began))
		if !o.demo {
			t.next()
			return nil
		}
		ok, err := playDemo(gctx, a.stdout, h, screen)
		select {
		case <-gctx.Done(): // somebody stopped it
			return nil
		default:
		}
		if err != nil {
			return err
		}
		if o.once {
			stop()
			if !ok {
				return errSaid
			}
			return nil
		}
		t.nextAfterDemo()
		return nil
	})
	return g.Wait()
}

// By these prefixes doctor tells what dev made up.
const (
	devSecretPrefix = "whsec_dev_" //nolint:gosec // no secret, how one begins
	devKeyPrefix    = "qs_dev_"
)

// devSettings are the operator's own where they are set, else made up once and
// kept in the data folder.
func (a *app) devSettings(o *devOptions) (config, error) {
	if o.ephemeral {
		dir, err := os.MkdirTemp("", "quayside-dev-")
		if err != nil {
			return config{}, err
		}
		o.data = dir
	}
	if err := os.MkdirAll(o.data, 0o755); err != nil { //nolint:gosec // the database's own user must get through to its folder
		return config{}, fmt.Errorf("--data: %w", err)
	}
	kept, err := godotenv.Read(filepath.Join(o.data, devEnvName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return config{}, fmt.Errorf("%s: %w; delete the file to have it made anew", filepath.Join(o.data, devEnvName), err)
	}
	made := map[string]string{
		"PAYQI_WEBHOOK_SECRET": devSecretPrefix + randomHex(24),
		"ADMIN_API_KEY":        devKeyPrefix + randomHex(24),
		"MAIL_FROM":            "Quayside Dev Shop <orders@shop.example>",
		"SHOP_NAME":            "Quayside Dev Shop",
	}
	if o.demo {
		made["LOG_LEVEL"] = "error" // the demo says what happens; that forgeries are refused is part of it
	}
	lookup := func(name string) (string, bool) {
		if strings.HasSuffix(name, "_URL") || strings.HasPrefix(name, "TLS_") || strings.HasPrefix(name, "PAYQI_API_") || name == "REQUIRE_HTTPS" || name == "METRICS_ADDR" {
			return "", false // dev has its own
		}
		if v, set := a.lookup(name); set {
			return v, true
		}
		if name == "PAYQI_WEBHOOK_SECRET" || name == "ADMIN_API_KEY" {
			if v := kept[name]; v != "" {
				return v, true
			}
		}
		v, ok := made[name]
		return v, ok
	}
	return loadConfig(lookup, needs{examples: true})
}

// stack is what dev starts besides the service itself.
type stack struct {
	postgres  *devstack.Postgres
	redis     *devstack.Redis
	mail      *devstack.MailCatcher
	payqi     *payqiAPI
	listener  net.Listener
	throwaway string // folder to remove at the end
}

// startStack starts database, store and mail catcher and completes cfg with
// their addresses.
func (a *app) startStack(ctx context.Context, o devOptions, cfg *config) (s *stack, err error) {
	s = &stack{}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(a.stderr, format+"\n", args...) }
	if o.ephemeral {
		s.throwaway = o.data
	}
	say("starting PostgreSQL (a first run takes a few seconds) …")
	s.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: filepath.Join(o.data, "postgres"), Log: say})
	if err != nil {
		return s, err
	}
	if s.redis, err = devstack.StartRedis(ctx, ""); err != nil {
		return s, err
	}
	if s.mail, err = startMail(ctx); err != nil {
		return s, err
	}
	if s.listener, err = listenNear(ctx, cfg.ListenAddr); err != nil {
		return s, err
	}
	cfg.ListenAddr = s.listener.Addr().String()
	cfg.PublicURL = here(cfg.ListenAddr)
	cfg.DatabaseURL, cfg.RedisURL, cfg.SMTPURL = secret(s.postgres.URL), secret(s.redis.URL), secret(s.mail.SMTPURL)
	cfg.PayQIAPIKey = secret(devSecretPrefix + randomHex(24))
	if s.payqi, cfg.PayQIAPIURL, err = startPayQIAPI(ctx, cfg.PayQIAPIKey.reveal()); err != nil {
		return s, err
	}
	s.payqi.tellTo(newPayQI(cfg.PublicURL, cfg.PayQIWebhookSecrets[0].reveal()))
	return s, nil
}

// startMail prefers the ports that Mailpit uses, and takes others when they
// are taken.
func startMail(ctx context.Context) (*devstack.MailCatcher, error) {
	m, err := devstack.StartMailCatcher(ctx, "127.0.0.1:1025", "127.0.0.1:8025")
	if err != nil {
		return devstack.StartMailCatcher(ctx, "", "")
	}
	return m, nil
}

// listenNear listens on addr, or on any free port of the same host.
func listenNear(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	host, _, herr := net.SplitHostPort(addr)
	if herr != nil {
		return nil, err
	}
	return lc.Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
}

// watch ends dev when its database dies.
func (s *stack) watch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.postgres.Done():
		return fmt.Errorf("PostgreSQL stopped by itself: %w", err)
	}
}

func (s *stack) stop() {
	if s.listener != nil {
		_ = s.listener.Close()
	}
	if s.payqi != nil {
		_ = s.payqi.Close()
	}
	if s.mail != nil {
		_ = s.mail.Close()
	}
	if s.redis != nil {
		s.redis.Close()
	}
	if s.postgres != nil {
		_ = s.postgres.Stop()
		if s.throwaway != "" {
			_ = os.RemoveAll(s.postgres.Dir) // for root it may be elsewhere
		}
	}
	if s.throwaway != "" {
		_ = os.RemoveAll(s.throwaway)
	}
}

// openDevHouse brings the database up to date, fills the sample shop and
// builds the service.
func openDevHouse(ctx context.Context, cfg config) (*house, error) {
	db, err := database.Open(cfg.DatabaseURL.reveal(), database.Options{Name: "migrate", MaxConns: 2, Timeout: -1})
	if err != nil {
		return nil, err
	}
	_, err = db.Migrate(ctx, migrations.FS)
	if err == nil {
		err = stockSampleShop(ctx, db)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return nil, err
	}
	return openHouse(ctx, cfg)
}

// sampleProducts is the sample shop.
var sampleProducts = []inventory.Product{
	{SKU: "mug-blue", Name: "Blue mug", OnHand: 200},
	{SKU: "tee-m", Name: "T-shirt, size M", OnHand: 100},
	{SKU: "sticker", Name: "Sticker", OnHand: 5000},
}

func stockSampleShop(ctx context.Context, db *database.DB) error {
	for _, p := range sampleProducts {
		err := db.InTx(ctx, func(tx database.Tx) error {
			_, err := inventory.Introduce(tx, p.SKU, p.Name, p.OnHand, "admin:dev")
			return err
		})
		if err != nil && fault.KindOf(err) != fault.Conflict { // it is there from an earlier run
			return err
		}
	}
	return nil
}

const devEnvName = "dev.env"

// writeDevEnv keeps the settings for the other commands: --config FILE.
func writeDevEnv(dir string, cfg config) (string, error) {
	path := filepath.Join(dir, devEnvName)
	body, err := godotenv.Marshal(map[string]string{
		"DATABASE_URL": cfg.DatabaseURL.reveal(), "REDIS_URL": cfg.RedisURL.reveal(), "SMTP_URL": cfg.SMTPURL.reveal(),
		"LISTEN_ADDR": cfg.ListenAddr, "PUBLIC_URL": cfg.PublicURL, "MAIL_FROM": cfg.MailFrom, "SHOP_NAME": cfg.ShopName,
		"PAYQI_WEBHOOK_SECRET": cfg.PayQIWebhookSecrets[0].reveal(), "ADMIN_API_KEY": cfg.AdminAPIKey.reveal(),
		"PAYQI_API_URL": cfg.PayQIAPIURL, "PAYQI_API_KEY": cfg.PayQIAPIKey.reveal(),
	})
	if err != nil {
		return "", err
	}
	note := "# Written by `quayside dev` at every start. Give it to other commands with --config.\n"
	if err := os.WriteFile(path, []byte(note+body+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the settings of dev: %w", err)
	}
	return path, nil
}

// waitReady waits until the service may take traffic.
func waitReady(ctx context.Context, url string) {
	c := newShopClient(url, "")
	for c.call(ctx, http.MethodGet, "/readyz", nil, nil) != nil && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// programName is how the user started us: lines to copy must work.
func programName() string {
	exe, err := os.Executable()
	if err == nil && strings.Contains(exe, string(filepath.Separator)+"go-build") {
		return "go run ./cmd/quayside"
	}
	return os.Args[0]
}

// tour is what dev prints.
type tour struct {
	w         io.Writer
	cfg       config
	stack     *stack
	env, data string
	program   string
}

func (t tour) welcome(took time.Duration) {
	kept := t.data + " (kept between runs)"
	if t.stack.throwaway != "" {
		kept = "none is kept"
	}
	_, _ = fmt.Fprintf(t.w, `
Quayside is ready after %.1f s.

  API        %s/api/v1   documented at %s/docs
  Webhooks   %s/webhooks/payqi
  Mails      %s
  Admin key  %s
  Data       %s
`, took.Seconds(), t.cfg.PublicURL, t.cfg.PublicURL, t.cfg.PublicURL, t.stack.mail.PageURL, t.cfg.AdminAPIKey.reveal(), kept)
}

func (t tour) next() {
	order := "my-" + randomHex(3)
	_, _ = fmt.Fprintf(t.w, `
Try next, in another terminal:

  # open an order over 2 mugs
  curl -s %[1]s/api/v1/orders -H 'Authorization: Bearer %[2]s' -H 'Content-Type: application/json' \
    -d '{"id":"%[3]s","customer":{"email":"you@example.com"},"currency":"XRP","items":[{"sku":"mug-blue","quantity":2,"unit_price":"5.00"}]}'

  # be PayQI: tell of the payment, signed
  %[4]s trigger payment.created --order %[3]s --config %[5]s
  %[4]s trigger payment.completed --order %[3]s --config %[5]s

  # or see one of the things that go wrong; --list names %[6]d of them
  %[4]s trigger late --config %[5]s

  # be the warehouse: report what was shipped
  curl -s %[1]s/api/v1/orders/%[3]s/shipments -H 'Authorization: Bearer %[2]s' -H 'Content-Type: application/json' \
    -d '{"carrier":"DHL","tracking_number":"JD0146"}'

  # does everything add up?
  %[4]s check --config %[5]s

Ctrl-C stops it.
`, t.cfg.PublicURL, t.cfg.AdminAPIKey.reveal(), order, t.program, t.env, len(scenarios))
}

// nextAfterDemo is short: what the demo has added up stays on the screen.
func (t tour) nextAfterDemo() {
	_, _ = fmt.Fprintf(t.w, `
Try next, in another terminal:

  # one scene again, step by step; --list names all %[1]d of them
  %[2]s trigger late --config %[3]s
  # be PayQI: pay too little for an order of your own
  %[2]s trigger payment.completed --amount 4.50 --config %[3]s
  # does everything add up?
  %[2]s check --config %[3]s

Mails %[4]s   API %[5]s/docs   Ctrl-C stops it.
`, len(scenarios), t.program, t.env, t.stack.mail.PageURL, t.cfg.PublicURL)
}
