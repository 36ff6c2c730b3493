package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"quayside/internal/database"
	"quayside/internal/dock"
	"quayside/internal/notify"
	"quayside/internal/orders"
	"quayside/internal/payqi"
	"quayside/internal/queue"
	"quayside/internal/webhooks"
	"quayside/migrations"
)

// house is the service, put together. Read openHouse from top to bottom:
// nothing is used before it is built, and nothing below is known above.
type house struct {
	cfg    config
	db     *database.DB // admin API and workers
	intake *database.DB // webhooks only: nothing slow delays them
	redis  redis.UniversalClient
	bell   *queue.Client
	outbox *notify.Outbox
	book   *orders.Book
	inbox  *webhooks.Inbox
	dock   *dock.Dock
}

const (
	poolConns   = 16 // of the admin API and the workers
	intakeConns = 4  // two writers, and room for one to reconnect
)

// openHouse builds the service and checks that its database is one that money
// may be trusted to. Redis may be away.
func openHouse(ctx context.Context, cfg config) (h *house, err error) {
	h = &house{cfg: cfg}
	defer func() {
		if err != nil {
			h.close()
			h = nil
		}
	}()
	if h.db, err = database.Open(cfg.DatabaseURL.reveal(), database.Options{Name: "main", MaxConns: poolConns}); err != nil {
		return h, err
	}
	if err := errors.Join(h.db.Durable(ctx), h.db.SchemaKnown(ctx, migrations.FS)); err != nil {
		return h, err
	}
	if h.intake, err = database.Open(cfg.DatabaseURL.reveal(), database.Options{Name: "intake", MaxConns: intakeConns, Timeout: intakeTimeout}); err != nil {
		return h, err
	}
	if h.redis, err = queue.Open(cfg.RedisURL.reveal()); err != nil {
		return h, err
	}
	if queue.Evicts(ctx, h.redis) {
		slog.WarnContext(ctx, "Redis may throw jobs away when it is full: set maxmemory-policy noeviction; nothing is lost, but work is delayed")
	}
	h.bell = queue.NewClient(h.redis)
	sender, err := h.sender()
	if err != nil {
		return h, err
	}
	h.outbox = notify.NewOutbox(h.db, h.bell, sender, notify.Options{From: cfg.MailFrom, ShopName: cfg.ShopName})
	h.book = orders.NewBook(h.db, h.bell, h.outbox, orders.Manual{}, orders.Terms{
		TTL: cfg.OrderTTL, Tolerance: cfg.PaymentTolerance, PublicURL: cfg.PublicURL, ShopName: cfg.ShopName,
	})
	if cfg.PayQIAPIKey != "" {
		if h.book.PayQI, err = payqi.New(cfg.PayQIAPIURL, cfg.PayQIAPIKey.reveal()); err != nil {
			return h, fmt.Errorf("PAYQI_API_URL: %w", err)
		}
	}
	var secrets []string
	for _, s := range cfg.PayQIWebhookSecrets {
		secrets = append(secrets, s.reveal())
	}
	var verifier *webhooks.Verifier
	if len(secrets) > 0 { // work has none
		if verifier, err = webhooks.NewVerifier(secrets...); err != nil {
			return h, fmt.Errorf("PAYQI_WEBHOOK_SECRET: %w", err)
		}
	}
	h.inbox = webhooks.NewInbox(h.intake, h.db, h.bell, h.book, webhooks.Options{
		Verifier: verifier, Timestamp: webhooks.TimestampMode(cfg.PayQITimestamp),
	})
	h.dock = dock.New(h.db, h.bell, h.book)
	return h, nil
}

// sender is where letters go; a process that serves only sends none.
func (h *house) sender() (notify.Sender, error) {
	if h.cfg.SMTPURL == "" {
		return nil, nil
	}
	return notify.NewSMTP(h.cfg.SMTPURL.reveal())
}

// close lets go of everything, the bell first: it rings what still waits.
func (h *house) close() {
	if h.bell != nil {
		_ = h.bell.Close()
	}
	if h.redis != nil {
		_ = h.redis.Close()
	}
	for _, db := range []*database.DB{h.intake, h.db} {
		if db != nil {
			_ = db.Close()
		}
	}
}
