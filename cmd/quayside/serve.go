package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/inventory"
	"quayside/internal/queue"
	"quayside/internal/web"
	"quayside/migrations"
)

const (
	intakeTimeout = time.Second      // of one statement of the intake
	drainNotice   = 2 * time.Second  // between telling the load balancer and closing the door
	lastWords     = time.Second / 2  // for those let in to say what they want: net/http hangs up on who speaks after Shutdown
	drainPatience = 20 * time.Second // for requests under way
)

func newServeCommand(a *app) *cobra.Command {
	var withWorker bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answer HTTP: webhooks, admin API, status pages",
		Long: `Answer HTTP: PayQI's webhooks, the admin API and the customers' status pages.
Run any number of them. Each needs a worker somewhere (quayside work), or
--with-worker, which is enough for a small shop.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			need := forServe
			if withWorker {
				need = forServeWithWork
			}
			cfg, err := a.settings(need)
			if err != nil {
				return err
			}
			a.log(cfg)
			h, err := openHouse(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer h.close()
			l, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", cfg.ListenAddr)
			if err != nil {
				return fmt.Errorf("LISTEN_ADDR: %w", err)
			}
			h.adviseKeys(cmd.Context())
			g, ctx := errgroup.WithContext(cmd.Context())
			g.Go(func() error { return h.serve(ctx, l, drainNotice) })
			if withWorker {
				g.Go(func() error { return h.work(ctx) })
			}
			return g.Wait()
		},
	}
	cmd.Flags().BoolVar(&withWorker, "with-worker", false, "also do what `quayside work` does")
	return cmd
}

// adviseKeys says so when nobody can use the admin API.
func (h *house) adviseKeys(ctx context.Context) {
	if h.cfg.AdminAPIKey != "" {
		return
	}
	now, err := h.db.Now(ctx)
	if err != nil {
		return // readiness tells
	}
	keys, err := access.List(ctx, h.db)
	if err == nil && !slices.ContainsFunc(keys, func(k access.Key) bool { return k.State(now) == "active" }) {
		slog.WarnContext(ctx, "nobody can use the admin API yet: make a key with quayside keys create NAME")
	}
}

// door is what readiness looks at.
type door struct{ closing atomic.Bool }

// lastCalls tells clients, once the door is closing, to open a new connection
// for their next request. Otherwise one on a kept connection may meet its end,
// and a webhook would fail that could have gone to another process.
func (d *door) lastCalls(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.closing.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// routes is the list of every URL the service answers.
func (h *house) routes(d *door) (http.Handler, error) {
	e, err := web.NewEngine(web.Options{TrustedProxies: h.cfg.TrustedProxies, RequireHTTPS: h.cfg.RequireHTTPS})
	if err != nil {
		return nil, err
	}
	e.POST("/webhooks/payqi", h.inbox.Receive)
	e.POST("/webhooks/payqi/", h.inbox.Receive) // as some type it into PayQI's dashboard; a redirect would lose the body

	e.GET("/healthz", func(c *gin.Context) { c.String(http.StatusOK, "alive\n") })
	e.GET("/readyz", func(c *gin.Context) { h.ready(c, d) })
	if h.cfg.MetricsAddr == "" {
		e.GET("/metrics", gin.WrapH(h.metricsHandler()))
	}

	const live = "/o/:token/events"
	e.GET("/o/:token", h.book.StatusPage)          // the customer's page
	e.POST("/o/:token", h.book.Choose)             // what the customer chooses there
	e.GET("/o/:token/status", h.book.StatusAsJSON) // the same for shops that draw their own
	e.GET(live, h.book.StatusEvents)               // and live

	version, _ := buildOf(debug.ReadBuildInfo())
	keys := access.NewKeys(h.db)
	options := web.APIOptions{Version: version, Keys: keys}
	if h.cfg.AdminAPIKey != "" {
		options.AdminKeys = []string{h.cfg.AdminAPIKey.reveal()}
	}
	api := web.NewAPI(e, options)            // also /openapi.json and /docs
	keys.AdminRoutes(api)                    // /api/v1/keys
	inventory.Admin{DB: h.db}.Register(api)  // /api/v1/products…
	h.book.AdminRoutes(api)                  // /api/v1/orders… and /cases
	h.inbox.AdminRoutes(api)                 // /api/v1/events…
	h.outbox.AdminRoutes(api, h.book.Retell) // /api/v1/emails…
	h.dock.AdminRoutes(api)                  // /api/v1/imports… and /exports…
	web.AnswerHEAD(e, live)
	return e, nil
}

// ready tells a load balancer whether this process may take traffic. Redis
// being away does not matter: events are stored, and workers sweep.
func (h *house) ready(c *gin.Context, d *door) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), time.Second)
	defer cancel()
	state := gin.H{"database": "ok", "schema": "ok", "redis": "ok"}
	status := http.StatusOK
	if err := h.intake.Ping(ctx); err != nil {
		state["database"], state["schema"], status = "does not answer", "unknown", http.StatusServiceUnavailable
	} else if err := h.db.SchemaKnown(ctx, migrations.FS); errors.Is(err, database.ErrNewerSchema) {
		state["schema"] = fault.Message(err) + "; this process goes on as before" // migrations are made so
	} else if err != nil {
		state["schema"], status = err.Error(), http.StatusServiceUnavailable
	}
	if err := queue.Ready(ctx, h.redis); err != nil {
		state["redis"] = "does not answer; events are stored and applied by the sweep"
	}
	if d.closing.Load() {
		state["process"], status = "is stopping", http.StatusServiceUnavailable
	}
	c.JSON(status, state)
}

// serve answers on l until ctx ends. Then it says so to the load balancer for
// as long as notice, lets requests under way finish and stores what waits.
func (h *house) serve(ctx context.Context, l net.Listener, notice time.Duration) error {
	d := &door{}
	handler, err := h.routes(d)
	if err != nil {
		return err
	}
	h.inbox.Start()
	defer h.inbox.Close()
	srv := web.NewServer(h.cfg.ListenAddr, d.lastCalls(handler))
	srv.RegisterOnShutdown(h.book.EndStreams) // Shutdown waits for them, they for nothing
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.listen(srv, l) })
	metrics := h.metricsServer()
	if metrics != nil {
		g.Go(func() error { return unlessClosed(metrics.ListenAndServe()) })
	}
	slog.InfoContext(ctx, "serving", "addr", l.Addr().String())
	<-gctx.Done()
	d.closing.Store(true)
	if ctx.Err() != nil {
		slog.InfoContext(ctx, "stopping: requests under way are finished")
		time.Sleep(notice)
		_ = l.Close()
		time.Sleep(min(notice, lastWords))
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainPatience)
	defer cancel()
	err = unlessClosed(srv.Shutdown(stopping)) // which minds that l is closed already
	if metrics != nil {
		err = errors.Join(err, metrics.Close())
	}
	return errors.Join(g.Wait(), err)
}

func (h *house) listen(srv *http.Server, l net.Listener) error {
	if h.cfg.TLSCertFile == "" {
		return unlessClosed(srv.Serve(l))
	}
	cert, err := web.NewCertificate(h.cfg.TLSCertFile, h.cfg.TLSKeyFile)
	if err != nil {
		return err
	}
	srv.TLSConfig = cert.TLS()
	return unlessClosed(srv.ServeTLS(l, "", ""))
}

func unlessClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// metricsServer serves /metrics on METRICS_ADDR, nil when that is not set.
func (h *house) metricsServer() *http.Server {
	if h.cfg.MetricsAddr == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h.metricsHandler())
	return web.NewServer(h.cfg.MetricsAddr, mux)
}
