package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"quayside/internal/orders"
)

// triggerOptions are the flags of trigger.
type triggerOptions struct {
	order, payment, amount, currency, txHash string
	url, id, timestamp, signature, raw       string
	metadata                                 map[string]string
	noID, yes                                bool
	times, parallel                          int
}

var eventTypes = []orders.EventType{
	orders.PaymentCreatedEvent, orders.PaymentPendingEvent, orders.PaymentCompletedEvent, orders.PaymentFailedEvent, orders.PaymentExpiredEvent,
}

func newTriggerCommand(a *app) *cobra.Command {
	var o triggerOptions
	cmd := &cobra.Command{
		Use:   "trigger TYPE --order ID",
		Short: "Be PayQI: send a signed event about an order",
		Long: `Be PayQI: build an event from an order as it stands, sign it, send it to a
running quayside, wait, and print what it did to the order. For local work;
quayside dev prints a line to copy.

TYPE is payment.created, payment.pending, payment.completed, payment.failed or
payment.expired; any other is sent as it is.

Settings used: PAYQI_WEBHOOK_SECRET (the first one), ADMIN_API_KEY, PUBLIC_URL
or LISTEN_ADDR.`,
		Example: `  quayside trigger payment.completed --order 1001 --config .quayside/dev.env
  quayside trigger payment.completed --order 1001 --amount 4.50       too little
  quayside trigger payment.completed --order 1001 --times 20 --parallel 20
  quayside trigger payment.completed --order 1001 --signature bad     a forgery`,
		Args: func(_ *cobra.Command, args []string) error {
			if o.raw == "" && len(args) != 1 {
				return errors.New("name one TYPE of event, such as payment.completed, or a body with --raw")
			}
			if o.raw != "" && len(args) > 0 {
				return errors.New("--raw sends a body as it is: name no TYPE")
			}
			if o.order == "" && o.raw == "" {
				return errors.New("name the order with --order ID")
			}
			if !slices.Contains([]string{signGood, signBad, signNone}, o.signature) {
				return errors.New("--signature is good, bad or none")
			}
			if o.times < 1 || o.times > 10_000 || o.parallel < 1 || o.parallel > 256 {
				return errors.New("--times is 1 to 10000 and --parallel 1 to 256")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.trigger(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.order, "order", "", "the order the event is about")
	f.StringVar(&o.payment, "payment", "", "PayQI's payment id (default pay_ORDER)")
	f.StringVar(&o.amount, "amount", "", "amount received (default the order's total)")
	f.StringVar(&o.currency, "currency", "", "currency received (default the order's)")
	f.StringVar(&o.txHash, "tx-hash", "", "transaction hash (default a random one for payment.completed)")
	f.StringVar(&o.id, "id", "", "the event's id (default a random one)")
	f.BoolVar(&o.noID, "no-id", false, "send no event id, as the guide's curl example does")
	f.StringToStringVar(&o.metadata, "metadata", nil, "`KEY=VALUE` to add to metadata, or order_id=OTHER to lie")
	f.StringVar(&o.timestamp, "timestamp", "now", "X-PayQI-Timestamp: now, none, or what to send")
	f.StringVar(&o.signature, "signature", signGood, "good, bad or none")
	f.StringVar(&o.raw, "raw", "", "send the bytes of `FILE` instead of building an event")
	f.IntVar(&o.times, "times", 1, "deliver the event so often")
	f.IntVar(&o.parallel, "parallel", 1, "so many at once")
	f.StringVar(&o.url, "url", "", "where quayside runs (default PUBLIC_URL, or LISTEN_ADDR)")
	f.BoolVar(&o.yes, "yes", false, "send even if the target is not this machine")
	return cmd
}

func (a *app) trigger(ctx context.Context, o triggerOptions, args []string) error {
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
	if !loopback(target) && !o.yes {
		return fmt.Errorf("%s is not this machine; an event sent there is real to it. Add --yes if you mean it", target)
	}
	t := &trigger{
		triggerOptions: o, app: a, shop: newShopClient(target, cfg.AdminAPIKey.reveal()),
		payqi: newPayQI(target, cfg.PayQIWebhookSecrets[0].reveal()),
	}
	return t.run(ctx, args)
}

// here is how this machine reaches what listens on addr, perhaps on every interface.
func here(addr string) string {
	host, port, _ := net.SplitHostPort(addr) // settings and listeners have both
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

func loopback(target string) bool {
	u, err := url.Parse(target)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || (ip != nil && ip.IsLoopback())
}

type trigger struct {
	triggerOptions
	*app
	shop  *shopClient
	payqi *payqi
}

func (t *trigger) run(ctx context.Context, args []string) error {
	var before orders.View
	var err error
	if t.order != "" {
		if before, err = t.shop.order(ctx, t.order); err != nil {
			return err
		}
	}
	body, err := t.body(args, before)
	if err != nil {
		return err
	}
	t.say("POST %s\n%s\n\n", t.payqi.url, body)
	answers, err := t.deliver(ctx, body)
	if err != nil {
		return err
	}
	t.say("answered %s\n", tally(answers))
	if t.order == "" {
		return nil
	}
	return t.show(ctx, before)
}

func (t *trigger) say(format string, args ...any) { _, _ = fmt.Fprintf(t.stdout, format, args...) }

func (t *trigger) body(args []string, o orders.View) ([]byte, error) {
	if t.raw != "" {
		return os.ReadFile(t.raw)
	}
	if !slices.Contains(eventTypes, orders.EventType(args[0])) && t.signature == signGood {
		t.say("note: %s is none of PayQI's five events; it will be stored and ignored\n", args[0])
	}
	payment := t.payment
	if payment == "" {
		payment = "pay_" + o.ID
	}
	e := newEvent(args[0], o, payment)
	if t.id != "" {
		e.ID = t.id
	}
	if t.noID {
		e.ID = ""
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
		return nil, fmt.Errorf("--amount %q is not a number; --raw sends any bytes: %w", t.amount, err)
	}
	return body, nil
}

// deliver sends body as often as asked, so many at once.
func (t *trigger) deliver(ctx context.Context, body []byte) ([]string, error) {
	stamp := t.timestamp
	switch stamp {
	case "now":
		stamp = now()
	case "none":
		stamp = ""
	}
	answers, errs := make([]string, t.times), make([]error, t.times)
	slots := make(chan struct{}, t.parallel)
	var wg sync.WaitGroup
	for i := range t.times {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			a, err := t.payqi.send(ctx, body, t.signature, stamp)
			answers[i], errs[i] = a.String(), err
		})
	}
	wg.Wait()
	return answers, errors.Join(errs...)
}

const triggerPatience = 3 * time.Second // for a worker to apply what was sent

// show waits until the order has changed and prints how; one that does not
// change within a few seconds is shown as it stands.
func (t *trigger) show(ctx context.Context, before orders.View) error {
	deadline := time.Now().Add(triggerPatience)
	var after orders.View
	var err error
	for {
		if after, err = t.shop.order(ctx, t.order); err != nil {
			return err
		}
		if !after.UpdatedAt.Equal(before.UpdatedAt) || time.Now().After(deadline) {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	if after.UpdatedAt.Equal(before.UpdatedAt) {
		t.say("order %s did not change: %s\n", t.order, stateOf(after))
		return nil
	}
	t.say("order %s: %s → %s, %s of %s %s received\n", t.order, stateOf(before), stateOf(after), after.AmountPaid.String(), after.Total.String(), after.Currency)
	for _, h := range after.Holds {
		t.say("  held: %s: %s\n", h.Code, h.Summary)
	}
	if after.RefundDue.IsPositive() {
		t.say("  due back: %s %s\n", after.RefundDue.String(), after.Currency)
	}
	if strings.HasPrefix(after.StatusURL, "http") {
		t.say("  the customer's page: %s\n", after.StatusURL)
	}
	return nil
}
