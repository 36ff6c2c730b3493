package orders

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/inventory"
	"quayside/internal/notify"
	"quayside/internal/web"
)

// Effect is one thing that an event did, or that a person decided about it.
type Effect struct {
	At            time.Time  `json:"at" doc:"When; effects of one moment are one change"`
	Kind          string     `json:"kind" enum:"step,stock,email,case_opened,case_closed,shipment_request,refund" doc:"What it is; it says which of the other fields are there"`
	Says          string     `json:"says" doc:"It in one plain sentence, for people: the words may change" example:"2 units of mug left the warehouse for order 1001."`
	OrderID       *string    `json:"order_id,omitempty" doc:"The order it was done to; absent when there is none"`
	ID            *string    `json:"id,omitempty" doc:"Of the stock movement, e-mail, case, shipment request or refund"`
	Step          *string    `json:"step,omitempty" doc:"Of a step in the timeline: its kind" example:"payment.completed"`
	Was           *Status    `json:"was,omitempty" enum:"pending,paid,payment_failed,expired,cancelled,fulfilled" doc:"Of a step: the order's status before"`
	Became        *Status    `json:"became,omitempty" enum:"pending,paid,payment_failed,expired,cancelled,fulfilled" doc:"Of a step: the order's status after"`
	SKU           *string    `json:"sku,omitempty" doc:"Of stock: the product"`
	OnHandDelta   *int64     `json:"on_hand_delta,omitempty" doc:"Of stock: units that came into the warehouse, or left it when negative"`
	ReservedDelta *int64     `json:"reserved_delta,omitempty" doc:"Of stock: units promised, or freed when negative"`
	Email         *string    `json:"email,omitempty" doc:"Of an e-mail: its kind" example:"payment_confirmed"`
	Code          *Code      `json:"code,omitempty" doc:"Of a case: its kind" example:"UNDERPAID"`
	Amount        *web.Money `json:"amount,omitempty" doc:"Of a refund: how much"`
	Currency      *string    `json:"currency,omitempty" doc:"Of a refund: of its amount"`
}

// traces are the rows that an event has left.
type traces struct {
	event     uuid.UUID
	steps     []Step
	movements []inventory.Movement
	letters   map[uuid.UUID]notify.Letter
	cases     map[string]Case
	requests  map[uuid.UUID]ShipmentRequest
	refunds   map[uuid.UUID]Refund
}

// EffectsOf lists what an event did and what was decided about it, in order.
// order and payment are those that the event names; either may be empty.
func (b *Book) EffectsOf(tx database.Tx, event uuid.UUID, order, payment string) ([]Effect, error) {
	t, err := traced(tx, event, order, payment)
	if err != nil {
		return nil, fmt.Errorf("effects of event %s: %w", event, err)
	}
	return t.effects(), nil
}

// traced reads the rows. An event changes the order it names, the one its
// payment belongs to, and those that have a case about it: in their timelines
// are its steps, and these say what else there is.
func traced(tx database.Tx, event uuid.UUID, order, payment string) (*traces, error) {
	t := &traces{event: event, letters: map[uuid.UUID]notify.Letter{}, cases: map[string]Case{}, requests: map[uuid.UUID]ShipmentRequest{}, refunds: map[uuid.UUID]Refund{}}
	about := map[string]any{"event": event, "order": order, "payment": payment}
	const steps = `SELECT * FROM timeline t WHERE inbox_id = @event AND order_id IN (SELECT @order
		UNION SELECT order_id FROM payments WHERE id = @payment UNION SELECT order_id FROM cases WHERE inbox_id = @event)`
	if err := tx.Raw(steps+` ORDER BY at, order_id, seq`, about).Scan(&t.steps).Error; err != nil {
		return nil, err
	}
	err := tx.Raw(`SELECT * FROM stock_movements WHERE (order_id, at, cause) IN (SELECT order_id, at, cause FROM (`+steps+`) t) ORDER BY id`, about).Scan(&t.movements).Error
	if err != nil {
		return nil, err
	}
	var all Details
	for _, s := range t.steps {
		if d := s.Details; d != nil {
			all.Letters, all.Requests, all.Refunds = append(all.Letters, d.Letters...), append(all.Requests, d.Requests...), append(all.Refunds, d.Refunds...)
			all.Opened = append(append(all.Opened, d.Opened...), d.Closed...)
		}
	}
	about["letters"], about["requests"], about["refunds"], about["cases"] =
		database.Array(all.Letters), database.Array(all.Requests), database.Array(all.Refunds), database.Array(all.Opened)
	err = t.read(tx, about)
	return t, err
}

// read reads the rows that the steps name, the cases about the event, and the
// refunds of a payment that a person decided to belong to no order.
func (t *traces) read(tx database.Tx, about map[string]any) error {
	var letters []notify.Letter
	if err := tx.Raw(`SELECT id, order_id, kind FROM letters WHERE id = ANY(@letters)`, about).Scan(&letters).Error; err != nil {
		return err
	}
	for _, l := range letters {
		t.letters[l.ID] = l
	}
	var cases []Case
	if err := tx.Raw(`SELECT * FROM cases WHERE key = ANY(@cases) OR inbox_id = @event`, about).Scan(&cases).Error; err != nil {
		return err
	}
	for _, c := range cases {
		t.cases[c.Key] = c
	}
	var requests []ShipmentRequest
	if err := tx.Raw(`SELECT * FROM shipment_requests WHERE id = ANY(@requests)`, about).Scan(&requests).Error; err != nil {
		return err
	}
	for _, r := range requests {
		t.requests[r.ID] = r
	}
	var refunds []Refund
	err := tx.Raw(`SELECT * FROM refunds WHERE id = ANY(@refunds) OR order_id IS NULL AND payment_id = @payment
		AND decided_at IN (SELECT closed_at FROM cases WHERE inbox_id = @event)`, about).Scan(&refunds).Error
	for _, r := range refunds {
		t.refunds[r.ID] = r
	}
	return err
}

// effects puts the rows in order: step by step, each with what it wrote, and
// between them, by time, what no step names.
func (t *traces) effects() []Effect {
	list := []Effect{}
	named := map[string]bool{} // cases whose opening, or whose closing, a step tells
	for _, s := range t.steps {
		list = append(list, s.effect())
		for _, m := range t.movements {
			if *m.OrderID == s.OrderID && m.At.Equal(s.At) && m.Cause == s.Cause {
				list = append(list, effectOfMovement(m))
			}
		}
		if s.Details == nil {
			continue
		}
		for _, id := range s.Details.Letters {
			if l, kept := t.letters[id]; kept {
				list = append(list, effectOfLetter(l, s.At))
			}
		}
		for _, key := range s.Details.Opened {
			named[key] = true
			list = append(list, t.cases[key].effect("case_opened", s.At))
		}
		for _, key := range s.Details.Closed {
			named["-"+key] = true
			list = append(list, t.cases[key].effect("case_closed", s.At))
		}
		for _, id := range s.Details.Requests {
			list = append(list, effectOfRequest(t.requests[id]))
		}
		for _, id := range s.Details.Refunds {
			list = append(list, effectOfRefund(t.refunds[id], s.At))
			delete(t.refunds, id)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(t.cases)) {
		c := t.cases[key]
		if !named[key] && c.InboxID != nil && *c.InboxID == t.event {
			list = append(list, c.effect("case_opened", c.OpenedAt))
		}
		if c.ClosedAt != nil && !named["-"+key] && c.InboxID != nil && *c.InboxID == t.event {
			list = append(list, c.effect("case_closed", *c.ClosedAt))
		}
	}
	for _, r := range t.refunds {
		list = append(list, effectOfRefund(r, r.DecidedAt))
	}
	slices.SortStableFunc(list, func(a, b Effect) int { return a.At.Compare(b.At) })
	return list
}

func (s Step) effect() Effect {
	e := Effect{At: s.At.UTC(), Kind: "step", OrderID: &s.OrderID, Step: &s.Kind, Was: s.Was, Became: &s.Became}
	e.Says = fmt.Sprintf("Order %s: %s", s.OrderID, s.Note)
	if s.Was != nil && *s.Was != s.Became {
		e.Says += fmt.Sprintf("; it went from %s to %s", *s.Was, s.Became)
	}
	e.Says = strings.TrimSuffix(e.Says, ".") + "."
	return e
}

func effectOfMovement(m inventory.Movement) Effect {
	units := cmp.Or(max(m.OnHandDelta, -m.OnHandDelta), max(m.ReservedDelta, -m.ReservedDelta))
	does := map[inventory.Kind]string{
		inventory.Reserve: "were promised to", inventory.Release: "are free again, no longer promised to",
		inventory.Commit: "left the warehouse for", inventory.Return: "came back into the warehouse from",
	}[m.Kind]
	return Effect{
		At: m.At.UTC(), Kind: "stock", OrderID: m.OrderID, ID: idOf(m.ID), SKU: &m.SKU, OnHandDelta: &m.OnHandDelta, ReservedDelta: &m.ReservedDelta,
		Says: fmt.Sprintf("%d units of %s %s order %s.", units, m.SKU, does, *m.OrderID),
	}
}

func effectOfLetter(l notify.Letter, at time.Time) Effect {
	kind := string(l.Kind)
	return Effect{
		At: at.UTC(), Kind: "email", OrderID: &l.OrderID, ID: idOf(l.ID), Email: &kind,
		Says: fmt.Sprintf("E-mail %s to the customer of order %s was put up for sending.", kind, l.OrderID),
	}
}

func (c Case) effect(kind string, at time.Time) Effect {
	e := Effect{At: at.UTC(), Kind: kind, OrderID: c.OrderID, ID: idOf(c.ID), Code: &c.Code, Says: fmt.Sprintf("Case %s opened: %s", c.Code, c.Summary)}
	if kind == "case_closed" {
		e.Says = fmt.Sprintf("Case %s closed.", c.Code)
	}
	return e
}

func effectOfRequest(r ShipmentRequest) Effect {
	return Effect{
		At: r.CreatedAt.UTC(), Kind: "shipment_request", OrderID: &r.OrderID, ID: idOf(r.ID),
		Says: fmt.Sprintf("The provider %s was asked to ship order %s.", r.Provider, r.OrderID),
	}
}

func effectOfRefund(r Refund, at time.Time) Effect {
	e := Effect{At: at.UTC(), Kind: "refund", OrderID: r.OrderID, ID: idOf(r.ID), Amount: &web.Money{Decimal: r.Amount}, Currency: &r.Currency}
	e.Says = fmt.Sprintf("%s %s of payment %s were decided to go back.", Amount(r.Amount), r.Currency, r.PaymentID)
	if r.State == RefundWaived {
		e.Says = fmt.Sprintf("%s %s of payment %s were decided to stay.", Amount(r.Amount), r.Currency, r.PaymentID)
	}
	return e
}

func idOf(id uuid.UUID) *string {
	s := id.String()
	return &s
}
