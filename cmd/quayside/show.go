package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"quayside/internal/notify"
	"quayside/internal/orders"
)

// paint colours words, when on.
type paint struct{ on bool }

// paint is on when a person sits at stdout who has not asked for NO_COLOR.
func (a *app) paint() paint {
	no, _ := a.lookup("NO_COLOR")
	kind, _ := a.lookup("TERM")
	return paint{isTerminal(a.stdout) && no == "" && kind != "dumb"}
}

func (p paint) code(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p paint) good(s string) string   { return p.code("32", s) }
func (p paint) bad(s string) string    { return p.code("31", s) }
func (p paint) warn(s string) string   { return p.code("33", s) }
func (p paint) strong(s string) string { return p.code("1", s) }
func (p paint) faint(s string) string  { return p.code("2", s) }

// answered paints an answer by what it means.
func (p paint) answered(text string) string {
	switch {
	case len(text) == 0 || text[0] == '5':
		return p.bad(text)
	case text[0] == '4':
		return p.warn(text)
	}
	return p.good(text)
}

func (t *trigger) showRequest(r requestMade, args []string) {
	if len(args) > 0 && !slices.Contains(eventTypes, orders.EventType(args[0])) {
		t.say("note: %s is none of PayQI's five events\n", args[0])
	}
	how := ""
	if t.signature != signGood {
		how += ", signature " + t.signature
	}
	if t.timestamp != stampNow {
		how += ", timestamp " + cmp.Or(r.Headers[timestampHeader], stampNone)
	}
	if t.times > 1 {
		how += fmt.Sprintf(", %d times, %d at once", t.times, min(t.parallel, t.times))
	}
	body := r.Bytes
	if body == nil {
		body = []byte(r.Body)
	}
	t.say("%s %s%s\n%s\n\n", t.strong("POST"), r.URL, how, legible(body))
}

// showOutcome prints the answer and what changed.
func (t *trigger) showOutcome(out outcome) {
	t.say("answered %s%s\n", t.answered(tally(out.Answers)), t.faint(", "+took(out.Answers)))
	switch e := out.Event; {
	case e != nil && e.Reason != "":
		t.say("  the event is kept, %s: %s\n", e.State, legible([]byte(e.Reason)))
	case e != nil:
		t.say("  the event is kept, %s\n", e.State)
	case out.Answers[0].Status == 200:
		t.say("  no worker has looked at the event within %s: is `quayside work` running?\n", triggerPatience)
	default:
		t.say("  nothing of it is kept\n")
	}
	if out.After != nil {
		t.showChange(out.Before, out.After)
	}
}

// took is how long answers took.
func took(answers []answer) string {
	least, most := answers[0].Millis, answers[0].Millis
	for _, a := range answers {
		least, most = min(least, a.Millis), max(most, a.Millis)
	}
	if len(answers) == 1 {
		return fmt.Sprintf("%.1f ms", least)
	}
	return fmt.Sprintf("%.1f to %.1f ms", least, most)
}

// showChange prints how an order changed; before is nil for one that was
// opened meanwhile.
func (t *trigger) showChange(before, after *snapshot) {
	o := after.Order
	lines := changes(before, after)
	switch {
	case before == nil:
		t.say("order %s: %s\n", o.ID, t.strong(stateOf(o)))
	case len(lines) == 0:
		t.say("order %s did not change: %s\n", o.ID, stateOf(o))
	case stateOf(before.Order) == stateOf(o):
		t.say("order %s stays %s\n", o.ID, t.strong(stateOf(o)))
	default:
		t.say("order %s: %s → %s\n", o.ID, stateOf(before.Order), t.strong(stateOf(o)))
	}
	for _, l := range lines {
		label := fmt.Sprintf("  %-9s", l.label)
		if l.warn {
			label = t.warn(label)
		}
		t.say("%s %s\n", label, legible([]byte(l.text)))
	}
	if len(lines) > 0 && strings.HasPrefix(o.StatusURL, "http") {
		t.say("  %-9s %s\n", "page", o.StatusURL)
	}
}

// line is one thing that changed.
type line struct {
	label, text string
	warn        bool // a person should look
}

// changes lists what is different, most important first.
func changes(before, after *snapshot) (lines []line) {
	add := func(warn bool, label, format string, args ...any) {
		lines = append(lines, line{label, fmt.Sprintf(format, args...), warn})
	}
	if before == nil {
		before = &snapshot{}
	}
	was, o := before.Order, after.Order
	if !was.AmountPaid.Equal(o.AmountPaid.Decimal) {
		add(false, "money", "%s of %s %s received", o.AmountPaid, o.Total, o.Currency)
	}
	if !was.RefundDue.Equal(o.RefundDue.Decimal) {
		add(true, "money", "due back: %s %s", o.RefundDue, o.Currency)
	}
	if was.ID != "" && goods(was) != goods(o) {
		add(false, "goods", "%s → %s", goods(was), goods(o))
		lines = append(lines, stockChanges(before, after)...) // else it was somebody else's order
	}
	lines = append(lines, caseChanges(before, after)...)
	for _, l := range after.Letters {
		i := slices.IndexFunc(before.Letters, func(b letter) bool { return b.ID == l.ID })
		if (i < 0 || before.Letters[i].State != l.State) && l.State != notify.Dropped {
			add(l.State != notify.Sent, "mail", "%s, %s", l.Kind, l.State)
		}
	}
	for _, s := range after.Timeline {
		if !slices.ContainsFunc(before.Timeline, func(b step) bool { return b.Seq == s.Seq }) {
			add(false, "timeline", "%s  %s", s.At.Format("15:04:05"), cmp.Or(s.Note, s.Kind))
		}
	}
	return lines
}

func stockChanges(before, after *snapshot) (lines []line) {
	for _, l := range after.Stock {
		i := slices.IndexFunc(before.Stock, func(b level) bool { return b.SKU == l.SKU })
		if i >= 0 && before.Stock[i] != l {
			b := before.Stock[i]
			lines = append(lines, line{"stock", fmt.Sprintf("%s: %d on hand, %d reserved → %d on hand, %d reserved", l.SKU, b.OnHand, b.Reserved, l.OnHand, l.Reserved), false})
		}
	}
	return lines
}

func caseChanges(before, after *snapshot) (lines []line) {
	for _, c := range after.Cases {
		i := slices.IndexFunc(before.Cases, func(b orders.CaseView) bool { return b.ID == c.ID })
		switch {
		case c.State == "open" && (i < 0 || before.Cases[i].State != "open"):
			label := "case"
			if c.Blocks {
				label = "held"
			}
			lines = append(lines, line{label, fmt.Sprintf("%s: %s", c.Code, c.Summary), true})
		case c.State != "open" && (i < 0 || before.Cases[i].State == "open"):
			resolution := ""
			if c.Resolution != nil {
				resolution = ", " + *c.Resolution
			}
			lines = append(lines, line{"case", fmt.Sprintf("%s: closed%s", c.Code, resolution), false})
		}
	}
	return lines
}

// goods says where an order's goods are.
func goods(o orders.View) string {
	switch {
	case o.FulfillmentStatus == orders.InQueue:
		return "ready to ship"
	case o.FulfillmentStatus == orders.AllShipped:
		return "shipped"
	case o.FulfillmentStatus == orders.OnHold && slices.ContainsFunc(o.Holds, func(h orders.HoldView) bool { return h.Code == orders.StockGone }):
		return "gone"
	case o.FulfillmentStatus == orders.OnHold:
		return "held back"
	case o.FulfillmentStatus != orders.NotYet:
		return string(o.FulfillmentStatus)
	case o.Status == orders.Pending || o.Status == orders.PaymentFailed:
		return "reserved"
	}
	return "released"
}

// perform plays a scenario and prints it as it goes.
func (t *trigger) perform(ctx context.Context, sc scenario) error {
	s := &stage{shop: t.shop, payqi: t.payqi, api: t.api, run: randomHex(3)}
	if !t.asJSON {
		t.say("%s: %s\n\n", t.strong(sc.name), sc.line)
		s.watch = t.showBeat
	}
	r := s.perform(ctx, sc, t.order)
	if t.asJSON {
		t.sayJSON(r)
		return said(r.OK)
	}
	if r.After != nil {
		t.say("\n")
		t.showChange(r.Before, r.After)
	}
	if !r.OK {
		t.say("\n%s %s did not end as it should:\n", t.bad("✗"), sc.name)
		for _, w := range r.Wrong {
			t.say("  %s\n", w)
		}
		return errSaid
	}
	t.say("\n%s %s ended as it should: %s\n", t.good("✓"), sc.name, sc.want)
	return nil
}

func said(ok bool) error {
	if ok {
		return nil
	}
	return errSaid
}

func (t *trigger) showBeat(b beat) {
	if b.Event == "" {
		t.say("  %s\n", b.What)
		return
	}
	t.say("  %s\n    %s\n    answered %s%s\n", b.What, t.faint(legible(b.Body)), t.answered(tally(b.Answers)), t.faint(", "+took(b.Answers)))
}

// String names an ending: paid/paid/queued, case LATE_PAID, mail payment_confirmed.
func (want ending) String() string {
	parts := []string{want.state}
	switch want.event {
	case "":
		parts = append(parts, "no event kept")
	case orders.Applied:
	default:
		parts = append(parts, "event "+want.event)
	}
	for _, c := range want.cases {
		parts = append(parts, "case "+string(c))
	}
	for _, m := range want.mails {
		parts = append(parts, "mail "+string(m))
	}
	return strings.Join(parts, ", ")
}
