//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/shopspring/decimal"
)

// lie is what is wrong with a request, by intent.
type lie string

// The lies.
const (
	truth       lie = ""
	forged      lie = "forged"       // signed with another secret: 400, nothing is kept
	unsigned    lie = "unsigned"     // no signature: the same
	prefixed    lie = "prefixed"     // sha256= before a good signature: the same
	stale       lie = "stale"        // authentic, its timestamp an hour old: 400, kept as refused
	unreadable  lie = "unreadable"   // authentic, but it makes no sense: set aside
	garbled     lie = "garbled"      // the same, and not even its order can be read
	unknownType lie = "unknown type" // authentic, of a type that PayQI's guide does not know: ignored
	testTool    lie = "test"         // of PayQI's testing tool: ignored
	conflicting lie = "conflicting"  // says something else under an id that is stored already: set aside
	respelled   lie = "respelled"    // says the same in other bytes: a duplicate
)

// deaf reports whether nothing of a request may be kept.
func (l lie) deaf() bool { return l == forged || l == unsigned || l == prefixed }

// event is the body of a webhook, as PayQI's guide shows it ("Event Structure").
type event struct {
	ID      string    `json:"id,omitempty"`
	Type    string    `json:"type"`
	Created int64     `json:"created"`
	Data    eventData `json:"data"`
}

type eventData struct {
	ID       string      `json:"id"`
	Amount   json.Number `json:"amount"`
	Currency string      `json:"currency"`
	Status   string      `json:"status"`
	Address  string      `json:"pay_address"`
	Tag      string      `json:"destination_tag"`
	TxHash   string      `json:"tx_hash,omitempty"`
	Metadata struct {
		OrderID string `json:"order_id,omitempty"`
	} `json:"metadata"`
}

// bytes are the event as PayQI would send it.
func (e event) bytes() []byte {
	body, err := json.Marshal(e)
	if err != nil {
		panic(err) // it holds nothing but text and numbers of our own
	}
	return body
}

// respell is the same event with other spaces and its keys in another order.
func (e event) respell() []byte {
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(e.bytes()))
	d.UseNumber()
	_ = d.Decode(&m) // we have just encoded it
	body, err := json.MarshalIndent(m, "", "   ")
	if err != nil {
		panic(err)
	}
	return body
}

// keyOf is the event's id, or that which stands for it.
func keyOf(id string, body []byte) string {
	if id != "" {
		return id
	}
	sum := sha256.Sum256(body)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// fact is an accepted event as the oracle sees it.
type fact struct {
	key, payment, order, kind string // kind: created, pending, completed, failed or expired
	created                   int64
	amount                    decimal.Decimal
	currency, place, tx       string
	lie                       lie
	body                      []byte
}

// factOf reads a body that was accepted. Those that make no sense keep their lie.
func factOf(key string, l lie, body []byte) fact {
	f := fact{key: key, lie: l, body: body}
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		return f
	}
	f.payment, f.order, f.created = e.Data.ID, e.Data.Metadata.OrderID, e.Created
	f.kind = strings.TrimPrefix(e.Type, "payment.")
	f.currency, f.tx = strings.ToUpper(e.Data.Currency), strings.ToUpper(e.Data.TxHash)
	f.place = fmt.Sprintf("%s/%s", e.Data.Address, e.Data.Tag)
	f.amount, _ = decimal.NewFromString(e.Data.Amount.String()) // of others than completed ones it does not count
	return f
}
