package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"

	"quayside/internal/notify"
	"quayside/internal/orders"
)

// snapshot is what the admin API tells of an order at one moment.
type snapshot struct {
	Order    orders.View       `json:"order"`
	Stock    []level           `json:"stock"` // of its products
	Cases    []orders.CaseView `json:"cases"` // about it or about the events sent, oldest first
	Letters  []letter          `json:"letters"`
	Timeline []step            `json:"timeline"`
}

type level struct {
	SKU       string `json:"sku"`
	OnHand    int64  `json:"on_hand"`
	Reserved  int64  `json:"reserved"`
	Available int64  `json:"available"`
}

type letter struct {
	ID      string       `json:"id"`
	OrderID string       `json:"order_id"`
	Kind    notify.Kind  `json:"kind"`
	State   notify.State `json:"state"`
}

// underWay reports whether a letter is about to leave. The first one of an
// order may stay in the queue on purpose, until PayQI says where to pay.
func (l letter) underWay() bool {
	return l.State == notify.Sending || l.State == notify.Queued && l.Kind != notify.OrderReceived
}

type step struct {
	Seq    int            `json:"seq"`
	At     time.Time      `json:"at"`
	Kind   string         `json:"kind"`
	Cause  string         `json:"cause"`
	Was    *orders.Status `json:"was"`
	Became orders.Status  `json:"became"`
	Note   string         `json:"note"`
}

// event is an event as the inbox shows it.
type event struct {
	ID     uuid.UUID `json:"id"`
	Type   *string   `json:"type"`
	State  string    `json:"state"`
	Reason string    `json:"reason"`
}

type listOf[T any] struct {
	Data []T `json:"data"`
}

// list is the newest 200 of a list.
func list[T any](ctx context.Context, s *shopClient, path string, query url.Values) ([]T, error) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("limit", "200")
	var l listOf[T]
	err := s.call(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &l)
	return l.Data, err
}

// look takes a snapshot of an order. Cases about no order are looked for by
// the events that may have raised them.
func (s *shopClient) look(ctx context.Context, id string, events []event) (*snapshot, error) {
	about := url.Values{"order_id": {id}}
	var snap snapshot
	var err error
	if snap.Order, err = s.order(ctx, id); err != nil {
		return nil, err
	}
	if snap.Letters, err = list[letter](ctx, s, "/api/v1/emails", about); err != nil {
		return nil, err
	}
	if snap.Timeline, err = list[step](ctx, s, "/api/v1/orders/"+url.PathEscape(id)+"/timeline", nil); err != nil {
		return nil, err
	}
	if snap.Cases, err = list[orders.CaseView](ctx, s, "/api/v1/cases", about); err != nil {
		return nil, err
	}
	if err := s.lookBeside(ctx, &snap, events); err != nil {
		return nil, err
	}
	slices.Reverse(snap.Cases)
	slices.Reverse(snap.Letters)
	return &snap, nil
}

// lookBeside adds what the order's own lists do not have: cases of the events
// that name no order, and stock.
func (s *shopClient) lookBeside(ctx context.Context, snap *snapshot, events []event) error {
	if len(events) > 0 {
		all, err := list[orders.CaseView](ctx, s, "/api/v1/cases", nil)
		if err != nil {
			return err
		}
		for _, c := range all {
			ofEvent := c.EventID != nil && slices.ContainsFunc(events, func(e event) bool { return e.ID == *c.EventID })
			if ofEvent && (c.OrderID == nil || *c.OrderID != snap.Order.ID) {
				snap.Cases = append(snap.Cases, c)
			}
		}
	}
	for _, it := range snap.Order.Items {
		if slices.ContainsFunc(snap.Stock, func(l level) bool { return l.SKU == it.SKU }) {
			continue
		}
		var l level
		if err := s.call(ctx, http.MethodGet, "/api/v1/products/"+url.PathEscape(it.SKU), nil, &l); err != nil {
			return err
		}
		snap.Stock = append(snap.Stock, l)
	}
	return nil
}

// event shows a stored event by one of its keys; nil when there is none.
func (s *shopClient) event(ctx context.Context, key string) (*event, error) {
	var e event
	err := s.call(ctx, http.MethodGet, "/api/v1/events/"+url.PathEscape(key), nil, &e)
	if refused(err, http.StatusNotFound) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return &e, err
}

const (
	waitBetween = 15 * time.Millisecond
	stateWaits  = "received" // of an event that no worker has looked at
)

// until waits for a condition that others bring about. The error says what
// was waited for, and why it did not come.
func until(ctx context.Context, what string, holds func() (bool, error)) error {
	began := time.Now()
	for {
		ok, err := holds()
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if err != nil && !errors.Is(err, ctx.Err()) {
				return fmt.Errorf("waited %s for %s: %w", time.Since(began).Round(time.Second/10), what, err)
			}
			return fmt.Errorf("waited %s in vain for %s", time.Since(began).Round(time.Second/10), what)
		case <-time.After(waitBetween):
		}
	}
}

// settled waits until workers have looked at the events kept under keys, and
// returns those that exist.
func (s *shopClient) settled(ctx context.Context, keys []string) (events []event, err error) {
	err = until(ctx, "a worker to look at the event", func() (bool, error) {
		events = nil
		for _, key := range keys {
			e, err := s.event(ctx, key)
			switch {
			case err != nil:
				return false, err
			case e == nil:
			case e.State == stateWaits:
				return false, nil
			default:
				events = append(events, *e)
			}
		}
		return true, nil
	})
	return events, err
}
