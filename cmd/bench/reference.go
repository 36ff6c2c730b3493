//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/shopspring/decimal"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"quayside/internal/web"
	"quayside/internal/webhooks"
)

// The references written in Go are processes of their own, so that their CPU
// time is: this program starts itself again as one of them. None of it is in quayside.
//
//	bench as-storeless ADDR
//	bench as-naive-serve ADDR DATABASE_URL REDIS_ADDR
//	bench as-naive-work DATABASE_URL REDIS_ADDR
const (
	asStoreless  = "as-storeless"
	asNaiveServe = "as-naive-serve"
	asNaiveWork  = "as-naive-work"
)

// reference runs one of them until it is killed.
func reference(args []string) error {
	switch {
	case len(args) == 2 && args[0] == asStoreless:
		return storeless(args[1])
	case len(args) == 4 && args[0] == asNaiveServe:
		return naiveServe(args[1], args[2], args[3])
	case len(args) == 3 && args[0] == asNaiveWork:
		return naiveWork(args[1], args[2])
	}
	return fmt.Errorf("no such reference: %v", args)
}

// isReference reports whether this process is to be one.
func isReference(args []string) bool {
	return len(args) > 0 && (args[0] == asStoreless || args[0] == asNaiveServe || args[0] == asNaiveWork)
}

// storeless is the intake with storing switched off: quayside's own engine,
// server, log line, signature check and parser, and the answer at once.
func storeless(addr string) error {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	options, err := intakeOptions()
	if err != nil {
		return err
	}
	e, err := web.NewEngine(web.Options{})
	if err != nil {
		return err
	}
	e.GET("/readyz", func(c *gin.Context) { c.String(http.StatusOK, "ready\n") })
	e.POST("/webhooks/payqi", func(c *gin.Context) {
		body, ev := admit(c, options)
		if ev == nil {
			return
		}
		web.Note(c, slog.String("verdict", "stored"), slog.String("event_id", ev.Key),
			slog.String("event_type", ev.Type), slog.String("payment_id", ev.PaymentID), slog.Int("body_bytes", len(body)))
		c.String(http.StatusOK, "OK")
	})
	return web.NewServer(addr, e).ListenAndServe()
}

func intakeOptions() (webhooks.Options, error) {
	v, err := webhooks.NewVerifier(secret)
	return webhooks.Options{Verifier: v, Timestamp: webhooks.TimestampIfPresent}, err
}

// admit reads, verifies and parses; when that fails it has answered.
func admit(c *gin.Context, o webhooks.Options) ([]byte, *webhooks.Event) {
	body := make([]byte, max(0, min(c.Request.ContentLength, webhooks.MaxBody)))
	if _, err := io.ReadFull(c.Request.Body, body); err != nil {
		c.String(http.StatusBadRequest, "Body incomplete")
		return nil, nil
	}
	a := o.Admit(c.Request.Header, body)
	if a.Event == nil || a.Reason != "" {
		c.String(http.StatusBadRequest, a.Text)
		return nil, nil
	}
	return body, a.Event
}

// Naive Go is what the first tutorial of each library leads to: GORM statement
// by statement in its default transaction, one Enqueue for each request, Asynq
// as it comes. Its tables are the peer's (bench/peer/schema.sql).
type naiveEvent struct {
	ID          string `gorm:"primaryKey"`
	Type        string
	Body        string
	ReceivedAt  time.Time
	ProcessedAt *time.Time
}

type naiveOrder struct {
	ID, Status, CustomerEmail string
	PaymentID, TxHash         *string
	UpdatedAt                 time.Time
}

type naiveItem struct {
	OrderID, SKU string
	Quantity     int64
}

type naivePayment struct {
	ID, OrderID, Currency, TxHash string
	Amount                        decimal.Decimal
}

type naiveMovement struct {
	ID           int64
	SKU, OrderID string
	Delta        int64
}

type naiveLetter struct {
	ID                     int64
	OrderID, Kind, Address string
}

func (naiveEvent) TableName() string    { return "events" }
func (naiveOrder) TableName() string    { return "orders" }
func (naiveItem) TableName() string     { return "order_items" }
func (naivePayment) TableName() string  { return "payments" }
func (naiveMovement) TableName() string { return "stock_movements" }
func (naiveLetter) TableName() string   { return "outbox" }

const naiveJob = "payment"

func openNaive(url string) (*gorm.DB, error) {
	db, err := gorm.Open(postgres.Open(url), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		return nil, err
	}
	pool, err := db.DB()
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(32)
	pool.SetMaxIdleConns(32)
	return db, nil
}

func naiveServe(addr, url, redisAddr string) error {
	options, err := intakeOptions()
	if err != nil {
		return err
	}
	db, err := openNaive(url)
	if err != nil {
		return err
	}
	client := asynq.NewClientFromRedisClient(dialNaive(redisAddr))
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.GET("/readyz", func(c *gin.Context) { c.String(http.StatusOK, "ready\n") })
	e.POST("/webhooks/payqi", func(c *gin.Context) {
		body, ev := admit(c, options)
		if ev == nil {
			return
		}
		err := db.WithContext(c.Request.Context()).Create(&naiveEvent{ID: ev.ID, Type: ev.Type, Body: string(body), ReceivedAt: time.Now()}).Error
		if err == nil {
			_, err = client.EnqueueContext(c.Request.Context(), asynq.NewTask(naiveJob, body))
		}
		if err != nil {
			c.String(http.StatusInternalServerError, "Error")
			return
		}
		c.String(http.StatusOK, "OK")
	})
	return web.NewServer(addr, e).ListenAndServe()
}

func dialNaive(addr string) redis.UniversalClient {
	return redis.NewClient(&redis.Options{Addr: addr, DB: naiveRedis})
}

func naiveWork(url, redisAddr string) error {
	db, err := openNaive(url)
	if err != nil {
		return err
	}
	server := asynq.NewServerFromRedisClient(dialNaive(redisAddr), asynq.Config{Concurrency: 16, LogLevel: asynq.ErrorLevel})
	mux := asynq.NewServeMux()
	mux.HandleFunc(naiveJob, func(ctx context.Context, t *asynq.Task) error { return naiveApply(db.WithContext(ctx), t.Payload()) })
	return server.Run(mux)
}

// naiveApply pays an order, as the guide's handle_payment_completed does.
func naiveApply(db *gorm.DB, body []byte) error {
	var ev struct {
		ID   string `json:"id"`
		Data struct {
			ID       string          `json:"id"`
			Amount   decimal.Decimal `json:"amount"`
			Currency string          `json:"currency"`
			TxHash   string          `json:"tx_hash"`
			Metadata struct {
				OrderID string `json:"order_id"`
			} `json:"metadata"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &ev); err != nil {
		return err
	}
	return db.Transaction(func(tx *gorm.DB) error {
		var event naiveEvent
		if err := tx.First(&event, "id = ?", ev.ID).Error; err != nil || event.ProcessedAt != nil {
			return err
		}
		var o naiveOrder
		if err := tx.First(&o, "id = ?", ev.Data.Metadata.OrderID).Error; err != nil {
			return err
		}
		now := time.Now()
		err := errors.Join(
			tx.Create(&naivePayment{ID: ev.Data.ID, OrderID: o.ID, Amount: ev.Data.Amount, Currency: ev.Data.Currency, TxHash: ev.Data.TxHash}).Error,
			tx.Model(&o).Updates(map[string]any{"status": "paid", "payment_id": ev.Data.ID, "tx_hash": ev.Data.TxHash, "updated_at": now}).Error,
			tx.Create(&naiveLetter{OrderID: o.ID, Kind: "payment_confirmed", Address: o.CustomerEmail}).Error,
			naiveStock(tx, o.ID),
		)
		if err != nil {
			return err
		}
		return tx.Model(&event).Update("processed_at", now).Error
	})
}

func naiveStock(tx *gorm.DB, order string) error {
	var items []naiveItem
	if err := tx.Where("order_id = ?", order).Order("sku").Find(&items).Error; err != nil {
		return err
	}
	for _, it := range items {
		if err := tx.Create(&naiveMovement{SKU: it.SKU, OrderID: order, Delta: -it.Quantity}).Error; err != nil {
			return err
		}
		if err := tx.Table("products").Where("sku = ?", it.SKU).Update("on_hand", gorm.Expr("on_hand - ?", it.Quantity)).Error; err != nil {
			return err
		}
	}
	return nil
}
