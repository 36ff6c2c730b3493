package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"quayside/internal/database"
)

// backlog tells Prometheus what waits in Postgres: read at each scrape, from
// narrow tables, so that it is true whichever process is asked.
type backlog struct{ db *database.DB }

var (
	waitingDesc = prometheus.NewDesc("quayside_inbox_open", "Events that wait, by state (received: for a worker; parked: for their order; quarantined, dead, refused: for a person).", []string{"state"}, nil)
	oldestDesc  = prometheus.NewDesc("quayside_inbox_oldest_seconds", "Age of the oldest event that waits for a worker.", nil, nil)
	casesDesc   = prometheus.NewDesc("quayside_cases_open", "Cases that wait for a person, by code and severity.", []string{"code", "severity"}, nil)
	lettersDesc = prometheus.NewDesc("quayside_letters_open", "Letters that are not settled, by state.", []string{"state"}, nil)
	lastDesc    = prometheus.NewDesc("quayside_last_event_seconds", "Age of the newest event; none until the first. Long silence is alarming only while payments are open: see the case NO_EVENTS.", nil, nil)
	importsDesc = prometheus.NewDesc("quayside_imports_open", "Imports that have lines left, by state (waiting: for a worker; stopped: for a person).", []string{"state"}, nil)
	overdueDesc = prometheus.NewDesc("quayside_orders_overdue", "Unpaid orders past their deadline; more than a few for longer than a minute means that no worker sweeps.", nil, nil)
)

// Describe implements prometheus.Collector.
func (b backlog) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{waitingDesc, oldestDesc, casesDesc, lettersDesc, lastDesc, importsDesc, overdueDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (b backlog) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, g := range []struct {
		desc  *prometheus.Desc
		query string
	}{
		{waitingDesc, `SELECT s AS a, '' AS b, (SELECT count(*) FROM inbox_open WHERE state = s) AS n
			FROM unnest(ARRAY['received','parked','quarantined','dead','refused']) s`},
		{oldestDesc, `SELECT '' AS a, '' AS b, COALESCE(extract(epoch FROM now() - min(i.received_at)), 0) AS n
			FROM inbox_open o JOIN inbox i ON i.id = o.inbox_id WHERE o.state = 'received'`},
		{casesDesc, `SELECT code AS a, severity AS b, count(*) AS n FROM cases WHERE state = 'open' GROUP BY code, severity`},
		{lettersDesc, `SELECT state AS a, '' AS b, count(*) AS n FROM letters WHERE state IN ('queued','sending','unknown') GROUP BY state`},
		{lastDesc, `SELECT '' AS a, '' AS b, extract(epoch FROM now() - received_at) AS n FROM inbox ORDER BY id DESC LIMIT 1`},
		{importsDesc, `SELECT s AS a, '' AS b, (SELECT count(*) FROM imports WHERE state = s) AS n FROM unnest(ARRAY['waiting','stopped']) s`},
		{overdueDesc, `SELECT '' AS a, '' AS b, count(*) AS n FROM orders WHERE status IN ('pending','payment_failed') AND deadline < now()`},
	} {
		var rows []struct {
			A, B string
			N    float64
		}
		if err := b.db.Read(ctx).Raw(g.query).Scan(&rows).Error; err != nil {
			slog.Warn("metrics of the backlog left out", "error", database.Classify(err))
			return
		}
		for _, r := range rows {
			labels := map[*prometheus.Desc][]string{waitingDesc: {r.A}, lettersDesc: {r.A}, importsDesc: {r.A}, casesDesc: {r.A, r.B}}[g.desc]
			out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, r.N, labels...)
		}
	}
}

// metricsHandler serves the process's own metrics and the backlog.
func (h *house) metricsHandler() http.Handler {
	own := prometheus.NewRegistry()
	own.MustRegister(backlog{h.db})
	return promhttp.HandlerFor(prometheus.Gatherers{prometheus.DefaultGatherer, own}, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}
