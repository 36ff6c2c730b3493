package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"quayside/internal/orders"
	"quayside/internal/web"
)

// payqiAPI plays PayQI's API for dev and the tests: it creates payments, tells
// the shop of them by webhook, and says how they stand. What PayQI has not, PUT
// /played/payments/{id} {"status": …}, makes one end without a word.
type payqiAPI struct {
	key string

	mu       sync.Mutex
	sender   *player               // nil: nobody is told
	payments map[string]playedPaid // by id
	byKey    map[string]string     // idempotency key → payment
	telling  sync.WaitGroup
	server   *http.Server
}

// playedPaid is a payment as the played API shows it.
type playedPaid struct {
	paymentData
	CheckoutURL string `json:"checkout_url"`
}

// startPayQIAPI serves the played API on a free port of this machine.
func startPayQIAPI(ctx context.Context, key string) (api *payqiAPI, address string, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	api = &payqiAPI{key: key, payments: map[string]playedPaid{}, byKey: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/payments", api.create)
	mux.HandleFunc("GET /api/payments/{id}", api.show)
	mux.HandleFunc("PUT /played/payments/{id}", api.end)
	api.server = web.NewServer(l.Addr().String(), api.keyed(mux))
	go func() { _ = api.server.Serve(l) }() // until Close
	return api, "http://" + l.Addr().String(), nil
}

// tellTo makes the played PayQI send its events there.
func (a *payqiAPI) tellTo(p *player) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sender = p
}

// Close ends it, and waits for events under way.
func (a *payqiAPI) Close() error {
	err := a.server.Close()
	a.telling.Wait()
	return err
}

func (a *payqiAPI) keyed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+a.key {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *payqiAPI) create(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Amount   web.Money
		Currency string
		Metadata struct {
			OrderID string `json:"order_id"`
		}
	}
	key := r.Header.Get("Idempotency-Key")
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&asked); err != nil || key == "" || asked.Metadata.OrderID == "" {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	id, again := a.byKey[key]
	if !again {
		id = paymentOf(asked.Metadata.OrderID)
		for n := 2; a.payments[id].ID != ""; n++ {
			id = fmt.Sprintf("%s_%d", paymentOf(asked.Metadata.OrderID), n)
		}
		e := newEvent(string(created), orders.View{ID: asked.Metadata.OrderID, Currency: asked.Currency, Total: asked.Amount}, id)
		a.byKey[key], a.payments[id] = id, playedPaid{e.Data, "https://pay.payqi.example/" + url.PathEscape(id)}
		if a.sender != nil {
			a.telling.Go(func() { a.tell(a.sender, e) })
		}
	}
	writePlayed(w, http.StatusCreated, a.payments[id])
}

// tell sends an event as PayQI does: again, when it is not taken.
func (a *payqiAPI) tell(sender *player, e eventOf) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if said, err := sender.tell(ctx, e); err == nil && said.Status < http.StatusInternalServerError {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (a *payqiAPI) show(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, known := a.payments[r.PathValue("id")]
	if !known {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	writePlayed(w, http.StatusOK, p)
}

func (a *payqiAPI) end(w http.ResponseWriter, r *http.Request) {
	var how struct{ Status string }
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&how); err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p, known := a.payments[r.PathValue("id")]
	if !known {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	p.Status = how.Status
	if p.Status == strings.TrimPrefix(string(completed), "payment.") {
		hash := strings.ToUpper(randomHex(32))
		p.TxHash = &hash
	}
	a.payments[p.ID] = p
	writePlayed(w, http.StatusOK, p)
}

func writePlayed(w http.ResponseWriter, status int, p playedPaid) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(p) //nolint:errchkjson // a caller who has gone
}
