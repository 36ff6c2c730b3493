package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"quayside/internal/database"
	"quayside/internal/webhooks"
)

// metrics are what a running serve counts since it started.
type metrics struct {
	at        string                        // where they were read
	verdicts  map[string]map[string]float64 // of webhooks, by verdict and reason
	forwarded map[string]float64            // by whether it was believed
}

// scrape asks the serve of this machine; nil when nobody answers.
func (d *doctor) scrape(ctx context.Context) *metrics {
	at := d.ownAddress() + "/metrics"
	if d.cfg.MetricsAddr != "" {
		at = here(d.cfg.MetricsAddr) + "/metrics"
	}
	p := ask(ctx, ownTransport(), http.MethodGet, at, nil, nil)
	if p.err != nil || p.status != http.StatusOK {
		return nil
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader([]byte(p.body)))
	if err != nil || families["quayside_forwarded_total"] == nil {
		return nil // of somebody else
	}
	m := &metrics{at: at, verdicts: map[string]map[string]float64{}, forwarded: map[string]float64{}}
	for _, series := range families["quayside_forwarded_total"].GetMetric() {
		m.forwarded[series.GetLabel()[0].GetValue()] += series.GetCounter().GetValue()
	}
	for _, series := range families["quayside_webhooks_total"].GetMetric() {
		labels := map[string]string{}
		for _, l := range series.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		byReason := m.verdicts[labels["verdict"]]
		if byReason == nil {
			byReason = map[string]float64{}
			m.verdicts[labels["verdict"]] = byReason
		}
		byReason[labels["reason"]] += series.GetCounter().GetValue()
	}
	return m
}

// total of some verdicts.
func (m *metrics) total(verdicts ...string) (n float64) {
	for _, v := range verdicts {
		for _, count := range m.verdicts[v] {
			n += count
		}
	}
	return n
}

// traffic is what the database says of events, cases and letters.
type traffic struct {
	err      error
	last     *lastEvent
	secrets  []secretUse
	tests    testEvents
	waiting  waiting
	cases    []caseCount
	received int // of the newest events, how many
	repeated int // and how many deliveries of them were repetitions
}

type lastEvent struct {
	Type, Key  string
	ReceivedAt time.Time
}

type secretUse struct {
	Label string
	Last  time.Time
}

type testEvents struct {
	Events, Deliveries int
	Last               *time.Time
}

// waiting counts what is not settled. Ages are of the oldest that is due.
type waiting struct {
	Due, Dead, Quarantined, Parked, Refused int
	DueSince                                *time.Time
	LettersDue, LettersFailed, LettersLost  int
	LettersSince                            *time.Time
	Overdue                                 int
}

type caseCount struct {
	Code string
	N    int
}

// newest is how many of the newest events are looked through: the inbox keeps
// all there ever were.
const newest = 10_000

func (d *doctor) readTraffic(ctx context.Context, _ *report) (learn func()) {
	if d.mistaken("DATABASE_URL") || d.cfg.DatabaseURL == "" {
		return nil
	}
	t := &traffic{}
	t.err = d.askTraffic(ctx, t)
	return func() { d.traffic = t }
}

func (d *doctor) askTraffic(ctx context.Context, t *traffic) error {
	db, err := database.Open(d.cfg.DatabaseURL.reveal(), database.Options{Name: "doctor", MaxConns: 2})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	recent := fmt.Sprintf(`(SELECT * FROM inbox WHERE event_id IS NULL OR event_id NOT LIKE 'evt\_doctor\_%%' ORDER BY id DESC LIMIT %d) i`, newest)
	var last []lastEvent
	var counts []struct{ Received, Repeated int }
	for _, q := range []struct {
		into  any
		query string
	}{
		{&last, `SELECT COALESCE(type, 'unreadable') AS type, key, received_at FROM ` + recent + ` ORDER BY id DESC LIMIT 1`},
		{&counts, `SELECT count(*) AS received, COALESCE(sum(deliveries - 1), 0) AS repeated FROM ` + recent},
		{&t.secrets, `SELECT secret_label AS label, max(last_seen_at) AS last FROM ` + recent + ` GROUP BY 1 ORDER BY 2 DESC`},
		{&t.tests, `SELECT count(*) AS events, COALESCE(sum(deliveries), 0) AS deliveries, max(last_seen_at) AS last FROM ` + recent + `
			WHERE payment_id LIKE 'pay\_test%' OR order_ref = '12345' OR payment_id = 'pay_abc123' OR event_id = 'evt_1234567890'`},
		{&t.waiting, `SELECT e.*, l.*, (SELECT count(*) FROM orders WHERE status IN ('pending','payment_failed') AND deadline < now() - interval '2 minutes') AS overdue
			FROM (SELECT count(*) FILTER (WHERE state = 'received' AND not_before < now()) AS due, min(not_before) FILTER (WHERE state = 'received' AND not_before < now()) AS due_since,
				count(*) FILTER (WHERE state = 'dead') AS dead, count(*) FILTER (WHERE state = 'quarantined') AS quarantined,
				count(*) FILTER (WHERE state = 'parked') AS parked, count(*) FILTER (WHERE state = 'refused') AS refused FROM inbox_open) e,
			(SELECT count(*) FILTER (WHERE state = 'queued' AND not_before < now()) AS letters_due, min(not_before) FILTER (WHERE state = 'queued' AND not_before < now()) AS letters_since,
				count(*) FILTER (WHERE state = 'failed') AS letters_failed, count(*) FILTER (WHERE state = 'unknown') AS letters_lost FROM letters WHERE state IN ('queued','failed','unknown')) l`},
		{&t.cases, `SELECT code, count(*) AS n FROM cases WHERE state = 'open' AND blocks GROUP BY code ORDER BY 2 DESC, 1`},
	} {
		if err := db.Read(ctx).Raw(q.query).Scan(q.into).Error; err != nil {
			return fmt.Errorf("look at the traffic: %w", database.Classify(err))
		}
	}
	if len(last) > 0 {
		t.last = &last[0]
	}
	t.received, t.repeated = counts[0].Received, counts[0].Repeated
	return nil
}

// judgeTraffic says what has come in, what was refused, and what waits.
func (d *doctor) judgeTraffic(r *report) {
	if d.role == "migrate" {
		return
	}
	t := d.traffic
	if t == nil || t.err != nil {
		r.warn("not looked at", "the database did not tell (see there)", "")
	} else {
		d.judgeEvents(r, t)
		d.judgeKeys(r, t)
	}
	if d.role != "work" {
		d.judgeRefusals(r)
	}
	if t != nil && t.err == nil {
		d.judgeWaiting(r, t.waiting)
		d.judgePeople(r, t)
	}
	d.judgeWorkers(r)
}

func (d *doctor) judgeEvents(r *report, t *traffic) {
	switch {
	case t.last != nil:
		r.fine("last event", "%s %s", t.last.Type, ago(d.now().Sub(t.last.ReceivedAt)))
	case d.isDev():
		r.fine("last event", "none yet; `quayside trigger` sends one")
	default:
		r.warn("last event", "none was ever stored (guide, \"Register Webhook URL\")", "in PayQI's dashboard, Settings > Webhooks > Add Webhook Endpoint, enter this address, choose all five events, put the secret into PAYQI_WEBHOOK_SECRET, and send a test:",
			strings.TrimRight(d.cfg.PublicURL, "/")+webhookPath)
	}
	if t.repeated > 0 {
		r.fine("repetitions", "the newest %d events came %d times in all; each was stored once, and repetitions were answered Already processed (guide, \"Duplicate Events\")", t.received, t.received+t.repeated)
	}
	if t.tests.Events > 0 && t.tests.Last != nil {
		r.fine("PayQI's test events", "%d, sent %d times, last %s. The test tool may send one id and order 12345 again and again: that is stored once, and does nothing to an order unless you have one called 12345", t.tests.Events, t.tests.Deliveries, ago(d.now().Sub(*t.tests.Last)))
	}
}

// judgeKeys says which secret has signed lately, so that an old one can go.
func (d *doctor) judgeKeys(r *report, t *traffic) {
	if len(d.cfg.PayQIWebhookSecrets) == 0 {
		return
	}
	used := map[string]time.Time{}
	for _, s := range t.secrets {
		used[s.Label] = s.Last
	}
	var told []string
	current := false
	for i, s := range d.cfg.PayQIWebhookSecrets {
		label := webhooks.Label(s.reveal())
		at, ok := used[label]
		when := "has signed nothing yet"
		if ok {
			when, current = "signed last "+ago(d.now().Sub(at)), true
		}
		told = append(told, fmt.Sprintf("number %d (%s) %s", i+1, label, when))
	}
	switch {
	case len(t.secrets) > 0 && !current:
		r.warn("secret", "all events so far were signed with secrets that are not in PAYQI_WEBHOOK_SECRET any more", "if it was just changed: fine; else compare it with PayQI's dashboard, Settings > Webhooks")
	case len(told) > 1:
		r.warn("rotation", strings.Join(told, ", "), "when the new one signs, leave the old one out of PAYQI_WEBHOOK_SECRET")
	}
}

// judgeRefusals reads what serve has counted (guide, "Troubleshooting").
func (d *doctor) judgeRefusals(r *report) {
	m := d.metrics
	if m == nil {
		r.warn("refusals", "serve's counters were not there to read at "+d.ownAddress()+"/metrics", "run doctor where serve runs, with its LISTEN_ADDR and METRICS_ADDR; is it running?", d.command("serve"))
		return
	}
	took := m.total("stored", "duplicate", "conflict", "released")
	var told []string
	for _, v := range slices.Sorted(maps.Keys(m.verdicts)) {
		if slices.Contains([]string{"stored", "duplicate", "conflict", "released"}, v) {
			continue
		}
		for _, reason := range slices.Sorted(maps.Keys(m.verdicts[v])) {
			told = append(told, fmt.Sprintf("%.0f %s", m.verdicts[v][reason], strings.ReplaceAll(orElse(reason, v), "_", " ")))
		}
	}
	found := fmt.Sprintf("since serve started it took %.0f webhooks", took)
	if len(told) > 0 {
		found += " and refused: " + strings.Join(told, ", ")
	}
	bad := m.verdicts["bad_signature"]
	switch {
	case bad["signature does not match"] > 0 && took == 0:
		r.wrong("refusals", found+" (guide, \"Signature Verification Failing\")", "compare PAYQI_WEBHOOK_SECRET with PayQI's dashboard, Settings > Webhooks, letter by letter; is it that endpoint's secret, live and not test? Whether something on the way changes the body says:", d.command("doctor --probe"))
	case d.isDev():
		r.fine("refusals", "%s", found)
	case m.total("not_stored") > 0:
		r.warn("refusals", found, "what was not stored PayQI sends again; see database above and serve's log")
	case m.total("too_old") > 0:
		r.warn("refusals", found, "is this machine's clock right (above)? Refused events are kept: GET /api/v1/events?state=refused")
	case bad["signature does not match"] > 0 || m.total("too_large", "compressed", "cut_short", "too_slow") > 0:
		r.warn("refusals", found, "strangers may try; if PayQI's dashboard shows failures, docs/troubleshooting.md goes through them")
	default:
		r.fine("refusals", "%s", found)
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

const idleTooLong = 30 * time.Second // workers look every second

func (d *doctor) judgeWaiting(r *report, w waiting) {
	since := func(at *time.Time) time.Duration {
		if at == nil {
			return 0
		}
		return d.now().Sub(*at)
	}
	if late := since(w.DueSince); late > idleTooLong {
		r.wrong("events", fmt.Sprintf("%d wait to be applied, the oldest since %s", w.Due, strings.TrimSuffix(ago(late), " ago")), "start a worker, or look at its log:", d.command("work"))
	} else {
		r.fine("events", "%d wait to be applied", w.Due)
	}
	if w.Overdue > 0 {
		r.wrong("orders", fmt.Sprintf("%d are past their deadline by minutes and still hold stock", w.Overdue), "start a worker, or look at its log:", d.command("work"))
	}
	if late := since(w.LettersSince); late > 2*time.Minute {
		r.wrong("letters", fmt.Sprintf("%d wait to be sent, the oldest since %s", w.LettersDue, strings.TrimSuffix(ago(late), " ago")), "see mail above; does a worker run?", d.command("work"))
	}
	if w.LettersFailed > 0 {
		r.warn("letters", fmt.Sprintf("%d could not be sent for good", w.LettersFailed), "mail servers refused them; look at why, mend the address or the sender, and write to those customers:", `psql "$DATABASE_URL" -c "SELECT order_id, kind, last_error FROM letters WHERE state = 'failed' ORDER BY posted_at DESC LIMIT 20"`)
	}
	if w.LettersLost > 0 {
		r.warn("letters", fmt.Sprintf("of %d nobody knows whether they arrived: the connection broke after the last dot", w.LettersLost), "each is sent once more after 30 minutes")
	}
}

// judgePeople counts what waits for a person.
func (d *doctor) judgePeople(r *report, t *traffic) {
	w := t.waiting
	if w.Dead > 0 {
		r.wrong("dead events", fmt.Sprintf("%d were given up after 12 attempts; money may be among them", w.Dead), "look at them, and at the error in the worker's log: GET /api/v1/events?state=dead")
	}
	if w.Quarantined > 0 {
		r.warn("quarantined events", fmt.Sprintf("%d are signed, and make no sense", w.Quarantined), "look at them: GET /api/v1/events?state=quarantined")
	}
	if w.Parked > 0 {
		r.warn("parked events", fmt.Sprintf("%d name an order that is not here (yet)", w.Parked), "metadata.order_id at PayQI must be the id of an order made with POST /api/v1/orders; GET /api/v1/events?state=parked")
	}
	if w.Refused > 0 {
		r.warn("refused events", fmt.Sprintf("%d are signed, and their timestamp is more than 5 minutes off", w.Refused), "is the clock right (above)? A repetition in time lets each in; GET /api/v1/events?state=refused")
	}
	if len(t.cases) == 0 {
		r.fine("cases", "none holds a shipment")
		return
	}
	n, told := 0, []string{}
	for _, c := range t.cases {
		n += c.N
		told = append(told, fmt.Sprintf("%d %s", c.N, c.Code))
	}
	r.warn("cases", fmt.Sprintf("%d hold shipments and wait for a person: %s", n, strings.Join(told, ", ")), "GET /api/v1/cases?state=open says what was expected and what came")
}

func (d *doctor) judgeWorkers(r *report) {
	switch {
	case d.workers == nil:
		r.warn("workers", "Redis did not tell whether one runs (see there)", "")
	case *d.workers == 0:
		r.wrong("workers", "none is running: events are stored and not applied, no letter is sent", "start one, or `serve --with-worker`:", d.command("work"))
	default:
		r.fine("workers", "%d running", *d.workers)
	}
}
