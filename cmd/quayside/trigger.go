package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tidwall/sjson"

	"quayside/internal/orders"
	"quayside/internal/webhooks"
)

// triggerOptions are the flags of trigger.
type triggerOptions struct {
	order, payment, amount, currency, txHash string
	url, id, created, timestamp, signature   string
	raw, scenario                            string
	metadata                                 map[string]string
	set, unset, expect                       []string
	noID, yes, print, asJSON, list           bool
	times, parallel                          int
}

var eventTypes = []orders.EventType{created, pending, completed, failed, expired}

func newTriggerCommand(a *app) *cobra.Command {
	var o triggerOptions
	cmd := &cobra.Command{
		Use:   "trigger TYPE|SCENARIO [--order ID]",
		Short: "Be PayQI: send a signed event, or play a whole scenario",
		Long: `Be PayQI: build an event from an order as it stands, sign it, send it to a
running quayside, wait, and print the answer and what it did to the order. Without
--order it opens an order of its own. For local work; quayside dev prints lines to copy.

TYPE is payment.created, payment.pending, payment.completed, payment.failed or
payment.expired; any other with a dot in it is sent as it is. The flags change
the event and how it is sent.

SCENARIO is a story of several events and its end, which is checked: exit code 1
when it ends otherwise. quayside trigger --list names them all; --scenario NAME
is another way to name one.

--set reaches every field, as in --set data.destination_tag=7 (JSON where it is
JSON, else a string; sjson's paths: \. is a dot in a name). --unset removes one.

Settings used: PAYQI_WEBHOOK_SECRET (the first one), ADMIN_API_KEY, PUBLIC_URL
or LISTEN_ADDR.`,
		Example: `  quayside trigger late --config .quayside/dev.env                    a scenario
  quayside trigger payment.completed --order 1001 --amount 4.50       too little
  quayside trigger payment.completed --order 1001 --times 20 --parallel 20
  quayside trigger payment.completed --order 1001 --signature bad --expect 400
  quayside trigger payment.completed --order 1001 --expect paid       for scripts
  quayside trigger payment.completed --order 1001 --print             a curl line`,
		Args: func(cmd *cobra.Command, args []string) error { return o.check(args, cmd.Flags()) },
		RunE: func(cmd *cobra.Command, args []string) error { return a.trigger(cmd.Context(), o, o.named(args)) },
	}
	o.flags(cmd.Flags())
	return cmd
}

func (o *triggerOptions) flags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.BoolVar(&o.list, "list", false, "list the scenarios")
	f.StringVar(&o.scenario, "scenario", "", "play the scenario `NAME`, as its bare name does")
	f.StringVar(&o.order, "order", "", "the order it is about (default a new one)")
	f.StringVar(&o.payment, "payment", "", "PayQI's payment id (default pay_ORDER)")
	f.StringVar(&o.amount, "amount", "", "amount received (default the order's total)")
	f.StringVar(&o.currency, "currency", "", "currency received (default the order's)")
	f.StringVar(&o.txHash, "tx-hash", "", "transaction hash (default a random one for payment.completed)")
	f.StringVar(&o.id, "id", "", "the event's id (default a random one)")
	f.BoolVar(&o.noID, "no-id", false, "send no event id, as the guide's curl example does")
	f.StringVar(&o.created, "created", "", "when PayQI made the event: Unix seconds, or -1h for an hour ago (default now)")
	f.StringToStringVar(&o.metadata, "metadata", nil, "`KEY=VALUE` to add to metadata, or order_id=OTHER to lie")
	f.StringArrayVar(&o.set, "set", nil, "`PATH=VALUE` to put into the body, as in data.status=failed")
	f.StringArrayVar(&o.unset, "unset", nil, "`PATH` to remove from the body, as in data.amount")
	f.StringVar(&o.timestamp, "timestamp", stampNow, "X-PayQI-Timestamp: now, none, -10m for ten minutes ago, or what to send")
	f.StringVar(&o.signature, "signature", signGood, "good, bad (another secret), upper (upper-case hex), prefix (sha256=…) or none")
	f.IntVar(&o.times, "times", 1, "deliver the event so often")
	f.IntVar(&o.parallel, "parallel", 1, "so many at once")
	f.StringVar(&o.raw, "raw", "", "send the bytes of `FILE` (- for standard input) instead of building an event")
	f.BoolVar(&o.print, "print", false, "send nothing: print headers, body and a curl command that sends them")
	f.StringArrayVar(&o.expect, "expect", nil, "`WHAT` must come of it: an HTTP status (400) or the order's state (paid, or paid/paid/queued); else exit code 1")
	f.BoolVar(&o.asJSON, "json", false, "print one JSON object: request, answers, the order before and after")
	f.StringVar(&o.url, "url", "", "where quayside runs (default PUBLIC_URL, or LISTEN_ADDR)")
	f.BoolVar(&o.yes, "yes", false, "send even if the target is not this machine")
}

// withScenario are the flags that mean something to a scenario, which makes its own events.
var withScenario = []string{"scenario", "order", "url", "yes", "json", "config"}

// withRaw are those that mean nothing to a body that is sent as it is.
var notWithRaw = []string{"payment", "amount", "currency", "tx-hash", "id", "no-id", "created", "metadata", "set", "unset"}

// named is what is to be played or sent: the argument, or the scenario of --scenario.
func (o *triggerOptions) named(args []string) []string {
	if o.scenario != "" {
		return []string{o.scenario}
	}
	return args
}

// check refuses what cannot be meant.
func (o *triggerOptions) check(args []string, f *pflag.FlagSet) error {
	if o.scenario != "" {
		if len(args) > 0 || o.raw != "" || o.list {
			return errors.New("--scenario names what is played: leave out TYPE, --raw and --list")
		}
		if strings.Contains(o.scenario, ".") {
			return fmt.Errorf("--scenario takes a name of --list; 'quayside trigger %s' sends one event", o.scenario)
		}
	}
	args = o.named(args)
	switch {
	case o.list && len(args) == 0:
		return nil
	case o.list:
		return errors.New("--list takes no TYPE or SCENARIO")
	case o.raw != "" && len(args) > 0:
		return errors.New("--raw sends a body as it is: name no TYPE")
	case o.raw == "" && len(args) != 1:
		return errors.New("name one TYPE of event, such as payment.completed, or one SCENARIO (--list shows them), or a body with --raw")
	case !slices.Contains(signatures, o.signature):
		return fmt.Errorf("--signature is %s or %s", strings.Join(signatures[:len(signatures)-1], ", "), signNone)
	case o.times < 1 || o.times > 10_000 || o.parallel < 1 || o.parallel > 256:
		return errors.New("--times is 1 to 10000 and --parallel 1 to 256")
	case o.id != "" && o.noID:
		return errors.New("--id and --no-id contradict each other: leave one out")
	case o.print && o.times > 1:
		return errors.New("--print sends nothing: leave out --times")
	case o.print && len(o.expect) > 0:
		return errors.New("--print sends nothing that could be as expected: leave out --expect")
	case o.print && o.order == "" && o.raw == "":
		return errors.New("--print builds the event from an order: name it with --order ID, or a body with --raw")
	}
	if err := o.checkName(args, f); err != nil {
		return err
	}
	return errors.Join(o.checkValues()...)
}

// checkName looks at what is sent, and at flags that do not go with it.
func (o *triggerOptions) checkName(args []string, f *pflag.FlagSet) (err error) {
	refuse := func(why string, wrong func(name string) bool) {
		f.Visit(func(fl *pflag.Flag) {
			if err == nil && wrong(fl.Name) {
				err = fmt.Errorf("%s: leave out --%s", why, fl.Name)
			}
		})
	}
	if o.raw != "" {
		refuse("--raw sends a body as it is", func(name string) bool { return slices.Contains(notWithRaw, name) })
		return err
	}
	sc, known := findScenario(args[0])
	switch {
	case known && sc.own != "" && o.order != "":
		return fmt.Errorf("%s opens its own order, because %s: leave out --order", sc.name, sc.own)
	case known:
		refuse(sc.name+" is a scenario and sends its own events", func(name string) bool { return !slices.Contains(withScenario, name) })
	case !strings.Contains(args[0], "."):
		mend := "'quayside trigger --list' shows them"
		if near := nearest(args[0]); near != "" {
			mend = "did you mean " + near + "? " + mend
		}
		return fmt.Errorf("no scenario %q (a TYPE has a dot, as in payment.completed); %s", args[0], mend)
	}
	return err
}

// checkValues looks at each flag's own value.
func (o *triggerOptions) checkValues() (errs []error) {
	if o.amount != "" && !json.Valid([]byte(`[`+o.amount+`]`)) || strings.ContainsAny(o.amount, `,"[]{}tfn `) {
		errs = append(errs, fmt.Errorf(`--amount %q is not a number; --set 'data.amount="ten"' sends anything`, o.amount))
	}
	if _, err := o.createdAt(); err != nil {
		errs = append(errs, err)
	}
	for _, path := range append(pathsOf(o.set), o.unset...) {
		_, err := sjson.Set(`{}`, path, "")
		if _, more := sjson.Delete(`{}`, path); path == "" || err != nil || more != nil {
			errs = append(errs, fmt.Errorf("--set and --unset take a PATH such as data.amount, not %q", path))
		}
	}
	for _, s := range o.set {
		if !strings.Contains(s, "=") {
			errs = append(errs, fmt.Errorf("--set takes PATH=VALUE, not %q", s))
		}
	}
	for _, e := range o.expect {
		if err := checkExpectation(e); err != nil {
			errs = append(errs, err)
		} else if o.raw != "" && o.order == "" && !isStatus(e) {
			errs = append(errs, fmt.Errorf("--expect %s is about an order: name it with --order ID", e))
		}
	}
	return errs
}

func pathsOf(set []string) (paths []string) {
	for _, s := range set {
		path, _, _ := strings.Cut(s, "=")
		paths = append(paths, path)
	}
	return paths
}

// createdAt reads --created; 0 for none.
func (o *triggerOptions) createdAt() (int64, error) {
	if d, relative := offset(o.created); relative {
		return time.Now().Add(d).Unix(), nil
	}
	if o.created == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(o.created, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("--created %q is neither Unix seconds nor a time from now such as -1h; --set created=… sends anything", o.created)
	}
	return n, nil
}

func (a *app) trigger(ctx context.Context, o triggerOptions, args []string) error {
	if o.list {
		_, _ = fmt.Fprintln(a.stdout, "Scenarios of quayside trigger:")
		listScenarios(a.stdout)
		return nil
	}
	cfg, err := a.settings(needs{must: []string{"PAYQI_WEBHOOK_SECRET", "ADMIN_API_KEY"}, examples: true})
	if err != nil {
		return err
	}
	target := o.url
	if target == "" {
		target = cfg.PublicURL
	}
	if target == "" {
		target = here(cfg.ListenAddr)
	}
	target, local, err := parseTarget(target)
	if err != nil {
		return err
	}
	if !local && !o.yes {
		return misuse(target + " is not this machine; an event sent there is real to it. Add --yes if you mean it")
	}
	t := &trigger{
		triggerOptions: o, app: a, paint: a.paint(), secrets: cfg.secretValues(),
		shop:  newShopClient(target, cfg.AdminAPIKey.reveal()),
		payqi: newPayQI(target, cfg.PayQIWebhookSecrets[0].reveal()),
	}
	if !o.yes {
		t.shop.http.Transport, t.payqi.http.Transport = stayHere(), stayHere()
	}
	if cfg.PayQIAPIURL != "" {
		t.api = newShopClient(cfg.PayQIAPIURL, cfg.PayQIAPIKey.reveal())
		t.api.http.Transport = stayHere() // only the played one has what scenarios need
		defer t.api.http.CloseIdleConnections()
	}
	defer t.shop.http.CloseIdleConnections()
	defer t.payqi.http.CloseIdleConnections()
	if len(args) > 0 {
		if sc, known := findScenario(args[0]); known {
			return t.perform(ctx, sc)
		}
	}
	return t.send(ctx, args)
}

// secretValues are the settings that no output may hold.
func (cfg *config) secretValues() (values []string) {
	for _, s := range append(slices.Clone(cfg.PayQIWebhookSecrets), cfg.PayQIAPIKey, cfg.AdminAPIKey) {
		if s != "" {
			values = append(values, s.reveal())
		}
	}
	return values
}

// trigger is one run of the command.
type trigger struct {
	triggerOptions
	*app
	paint
	shop    *shopClient
	payqi   *player
	api     *shopClient // of the played PayQI; nil without one
	secrets []string
}

// say prints; a secret that got into a body or an answer is not repeated.
func (t *trigger) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for _, s := range t.secrets {
		text = strings.ReplaceAll(text, s, redacted)
	}
	_, _ = io.WriteString(t.stdout, text)
}

// outcome is what --json prints about one event.
type outcome struct {
	Request requestMade `json:"request"`
	Answers []answer    `json:"answers"`
	Event   *event      `json:"event"`  // as the inbox kept it; null when it did not
	Before  *snapshot   `json:"before"` // Before and After are null for a raw body without --order
	After   *snapshot   `json:"after"`
	Wrong   []string    `json:"unexpected"` // what --expect did not find
}

// send sends one event and shows what came of it.
func (t *trigger) send(ctx context.Context, args []string) error {
	before, err := t.orderBefore(ctx)
	if err != nil {
		return err
	}
	body, err := t.body(args, before)
	if err != nil {
		return err
	}
	req := t.request(body)
	if t.print {
		return t.printRequest(req, body)
	}
	out := outcome{Request: req, Before: before, Wrong: []string{}}
	if !t.asJSON {
		t.showRequest(req, args)
	}
	if out.Answers, err = t.payqi.deliver(ctx, body, t.signature, req.Headers[timestampHeader], t.times, t.parallel); err != nil {
		return err
	}
	if err := t.followUp(ctx, body, &out); err != nil {
		return err
	}
	if t.asJSON {
		t.sayJSON(out)
	} else {
		t.showOutcome(out)
	}
	if len(out.Wrong) > 0 {
		return errors.New(strings.Join(out.Wrong, "; "))
	}
	return nil
}

func (t *trigger) sayJSON(v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		b = fmt.Appendf(nil, `{"error": %q}`, err) // plain structs: they always encode
	}
	t.say("%s\n", b)
}

// orderBefore is the order as it stands; a new one unless one is named.
func (t *trigger) orderBefore(ctx context.Context) (*snapshot, error) {
	switch {
	case t.order != "":
		return t.shop.look(ctx, t.order, nil)
	case t.raw != "":
		return nil, nil //nolint:nilnil // a raw body needs no order
	}
	s := &stage{shop: t.shop, run: randomHex(3), watch: t.beatOpened, scenario: scenario{name: "order"}}
	if err := s.begin(ctx, ""); err != nil {
		return nil, err
	}
	t.order = s.order.ID
	return s.before, nil
}

func (t *trigger) beatOpened(b beat) {
	if !t.asJSON {
		t.say("%s\n", b.What)
	}
}

// body builds the event, or reads it.
func (t *trigger) body(args []string, before *snapshot) ([]byte, error) {
	if t.raw != "" {
		return t.rawBody()
	}
	o := before.Order
	payment := t.payment
	if payment == "" {
		payment = paymentOf(o.ID)
	}
	e := newEvent(args[0], o, payment)
	if t.id != "" {
		e.ID = t.id
	}
	if t.noID {
		e.ID = ""
	}
	if at, _ := t.createdAt(); t.created != "" { // it has been looked at
		e.Created = at
	}
	if t.amount != "" {
		e.Data.Amount = json.Number(t.amount)
	}
	if t.currency != "" {
		e.Data.Currency = t.currency
	}
	if t.txHash != "" {
		e.Data.TxHash = &t.txHash
	}
	for k, v := range t.metadata {
		e.Data.Metadata[k] = v
	}
	body, err := json.Marshal(e)
	if err != nil {
		return nil, misuse(fmt.Sprintf("--amount %q is not a number; --set 'data.amount=\"ten\"' sends anything", t.amount))
	}
	return t.edit(body)
}

// edit follows --set and --unset.
func (t *trigger) edit(body []byte) (_ []byte, err error) {
	for _, s := range t.set {
		path, value, _ := strings.Cut(s, "=")
		if json.Valid([]byte(value)) {
			body, err = sjson.SetRawBytes(body, path, []byte(value))
		} else {
			body, err = sjson.SetBytes(body, path, value)
		}
		if err != nil {
			return nil, misuse(fmt.Sprintf("--set %s: %v", s, err))
		}
	}
	for _, path := range t.unset {
		if body, err = sjson.DeleteBytes(body, path); err != nil {
			return nil, misuse(fmt.Sprintf("--unset %s: %v", path, err))
		}
	}
	return body, nil
}

func (t *trigger) rawBody() (body []byte, err error) {
	if t.raw == "-" {
		body, err = io.ReadAll(t.stdin)
	} else {
		body, err = os.ReadFile(t.raw)
	}
	if err != nil {
		return nil, misuse(fmt.Sprintf("--raw: %v; name a file that can be read, or - for standard input", err))
	}
	return body, nil
}

const triggerPatience = 10 * time.Second // for a worker to apply what was sent, and for --expect

// followUp waits for what was sent to take effect, and looks at the order.
func (t *trigger) followUp(ctx context.Context, body []byte, out *outcome) error {
	out.Wrong = append(out.Wrong, wrongStatus(t.expect, out.Answers)...)
	waiting, cancel := context.WithTimeout(ctx, triggerPatience)
	defer cancel()
	own, contradiction := webhooks.KeysOf(body)
	events, err := t.shop.settled(waiting, []string{own, contradiction})
	if err != nil && waiting.Err() == nil {
		return err
	}
	if len(events) > 0 {
		out.Event = &events[len(events)-1]
	}
	if t.order == "" {
		return nil
	}
	for _, e := range t.expect {
		if !isStatus(e) {
			if err := t.shop.stands(waiting, t.order, e); err != nil {
				out.Wrong = append(out.Wrong, "expected "+e+": "+err.Error())
			}
		}
	}
	mailing, cancel := context.WithTimeout(ctx, triggerPatience/2)
	defer cancel()
	_ = t.shop.posted(mailing, t.order) // those that are still under way are shown as such
	out.After, err = t.shop.look(ctx, t.order, events)
	return err
}
