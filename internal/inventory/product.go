// Package inventory holds the shop's goods: how many units of each product are
// on hand and how many of these are promised to unpaid orders. Every change is
// a row of an append-only ledger, and the levels are always its sums.
package inventory

import (
	"time"

	"github.com/google/uuid"
)

// Product is a row of products.
type Product struct {
	SKU       string    `gorm:"primaryKey;column:sku" json:"sku"`
	Name      string    `json:"name"`
	OnHand    int64     `json:"on_hand"`  // units in the warehouse
	Reserved  int64     `json:"reserved"` // of these, promised to unpaid orders
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`

	LowStockThreshold int64      `json:"low_stock_threshold"` // 0: never low
	ArchivedAt        *time.Time `json:"archived_at"`         // nil while it can be ordered
}

// Low reports whether it is time to buy more.
func (p Product) Low() bool { return p.LowStockThreshold > 0 && p.Available() <= p.LowStockThreshold }

// Available is how many units can still be promised.
func (p Product) Available() int64 { return p.OnHand - p.Reserved }

// Kind says why stock moved.
type Kind string

// The kinds of movement and what they do to (on hand, reserved).
const (
	Initial Kind = "initial" // (+n, 0) a product comes into the catalogue
	Adjust  Kind = "adjust"  // (±n, 0) a person counted, bought or wrote off
	Correct Kind = "correct" // (±n, ±n) the ledger had drifted from the levels, which stay
	Reserve Kind = "reserve" // (0, +q) promised to an order
	Release Kind = "release" // (0, −q) the promise ends
	Commit  Kind = "commit"  // (−q, −q) the order was paid: the goods leave
	Return  Kind = "return"  // (+q, 0) a paid order was cancelled before it shipped
)

// Movement is a row of stock_movements, the ledger.
type Movement struct {
	ID            uuid.UUID `json:"id"`
	SKU           string    `gorm:"column:sku" json:"sku"`
	Kind          Kind      `json:"kind"`
	OnHandDelta   int64     `json:"on_hand_delta"`
	ReservedDelta int64     `json:"reserved_delta"`
	OrderID       *string   `json:"order_id"`
	Cause         string    `json:"cause"` // event:evt_…, admin:NAME, sweep:deadline
	Reason        string    `json:"reason"`
	EffectKey     string    `json:"effect_key"` // unique: the same effect cannot happen twice
	At            time.Time `json:"at"`
}

// TableName names the ledger for GORM.
func (Movement) TableName() string { return "stock_movements" }
