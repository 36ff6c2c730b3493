package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"quayside/internal/access"
	"quayside/internal/queue"
)

const (
	sweepEvery   = time.Second // how soon work whose bell was lost is found again
	sealEvery    = 2 * time.Second
	auditEvery   = time.Minute // between two looks at a part of the stock
	auditParts   = 10          // of 50 products, in one look
	moneyWorkers = 4           // batches applied at once
	postWorkers  = 8           // letters and shipment requests under way at once
	bulkWorkers  = 1           // imports under way at once: more would only keep payments waiting for their stock
	workBatch    = 100         // letters sent in one round without Redis
)

func newWorkCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "work",
		Short: "Apply events, expire orders, send letters",
		Long: `Apply events, expire orders at their deadline, ask for shipments, send letters
and work imports off. Run any number of them, on any number of machines. Redis only rings
the bell: while it is away workers find their work in Postgres.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.settings(forWork)
			if err != nil {
				return err
			}
			a.log(cfg)
			h, err := openHouse(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer h.close()
			g, ctx := errgroup.WithContext(cmd.Context())
			g.Go(func() error { return h.work(ctx) })
			if m := h.metricsServer(); m != nil {
				g.Go(func() error { return unlessClosed(m.ListenAndServe()) })
				g.Go(func() error { <-ctx.Done(); return m.Close() })
			}
			return g.Wait()
		},
	}
}

// work works the queues and sweeps until ctx ends; then it takes nothing new
// and lets what is under way finish.
func (h *house) work(ctx context.Context) error {
	mux := queue.NewMux()
	h.inbox.Register(mux)
	h.book.Register(mux)
	h.outbox.Register(mux)
	h.dock.Register(mux)
	money := queue.NewServer(h.redis, mux, queue.Money, moneyWorkers)
	post := queue.NewServer(h.redis, mux, queue.Post, postWorkers)
	bulk := queue.NewServer(h.redis, mux, queue.Bulk, bulkWorkers)
	servers := []*queue.Server{money, post, bulk}
	for _, s := range servers {
		if err := s.Start(); err != nil {
			return fmt.Errorf("start worker: %w", err)
		}
	}
	slog.InfoContext(ctx, "working")
	var sweeps errgroup.Group // apart, so that a slow mail server keeps no payment waiting
	sweeps.Go(func() error { sweepUntil(ctx, "silent payments", sweepEvery, h.sweepSilence); return nil })
	sweeps.Go(func() error { sweepUntil(ctx, "money", sweepEvery, h.sweepMoney); return nil })
	sweeps.Go(func() error { sweepUntil(ctx, "letters", sweepEvery, h.sweepLetters); return nil })
	sweeps.Go(func() error { sweepUntil(ctx, "imports", sweepEvery, h.sweepImports); return nil })
	sweeps.Go(func() error { sweepUntil(ctx, "stock", auditEvery, h.auditStock()); return nil })
	sweeps.Go(func() error {
		sweepUntil(ctx, "the audit log", sealEvery, func(ctx context.Context) error { return access.Seal(ctx, h.db) })
		return nil
	})
	sweeps.Go(func() error {
		sweepUntil(ctx, "old answers", time.Hour, func(ctx context.Context) error { return access.ForgetAnswers(ctx, h.db) })
		return nil
	})
	_ = sweeps.Wait()
	slog.InfoContext(ctx, "stopping: jobs under way are finished")
	var g errgroup.Group
	for _, s := range servers {
		g.Go(func() error { s.Shutdown(); return nil })
	}
	return g.Wait()
}

// sweepUntil looks at once and then at every tick for what waits. It tells of a
// failure once, and of the recovery.
func sweepUntil(ctx context.Context, what string, every time.Duration, sweep func(context.Context) error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	failing := false
	for {
		err := sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			slog.ErrorContext(ctx, "sweep failed, trying on", "of", what, "error", err)
		case err == nil && failing:
			slog.InfoContext(ctx, "sweep works again", "of", what)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweepMoney rings again for events and orders that wait. When Redis does not
// answer it does the work itself, through the same functions.
func (h *house) sweepMoney(ctx context.Context) error {
	if queue.Ready(ctx, h.redis) == nil {
		return errors.Join(h.inbox.Sweep(ctx), h.book.Sweep(ctx))
	}
	return errors.Join(h.inbox.Work(ctx), h.book.Work(ctx))
}

// sweepSilence asks PayQI about what it says nothing of.
func (h *house) sweepSilence(ctx context.Context) error {
	return errors.Join(h.book.MindSilence(ctx), h.book.Inquire(ctx))
}

// sweepImports is sweepMoney for files.
func (h *house) sweepImports(ctx context.Context) error {
	if queue.Ready(ctx, h.redis) == nil {
		return h.dock.Sweep(ctx)
	}
	return h.dock.Work(ctx)
}

// auditStock returns a sweep that goes through the catalogue part by part.
func (h *house) auditStock() func(context.Context) error {
	var after string
	return func(ctx context.Context) (err error) {
		for range auditParts {
			if after, err = h.book.AuditStock(ctx, after); err != nil || after == "" {
				return err
			}
		}
		return nil
	}
}

// sweepLetters is sweepMoney for letters.
func (h *house) sweepLetters(ctx context.Context) error {
	err := h.outbox.Sweep(ctx)
	if queue.Ready(ctx, h.redis) == nil {
		return err
	}
	_, werr := h.outbox.Work(ctx, workBatch)
	return errors.Join(err, werr)
}
