// Package orders moves an order from pending to fulfilled. It is the only
// package that writes orders, payments, cases and shipments.
//
// Every change goes the same way: load and lock the rows of a whole batch,
// think with pure functions (File), save with one statement per table (Book).
package orders

import (
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

// Order is a row of orders. Amounts are exact, in Currency.
type Order struct {
	ID                string              `json:"id"` // the shop's own, PayQI's metadata.order_id
	Status            Status              `json:"status"`
	PaymentStatus     PaymentStatus       `json:"payment_status"`
	FulfillmentStatus FulfillmentStatus   `json:"fulfillment_status"`
	Currency          string              `json:"currency"`
	Total             decimal.Decimal     `json:"total"`
	Accepted          decimal.NullDecimal `json:"accepted"`   // what a person took as full payment; invalid: nobody did
	GivenUp           decimal.Decimal     `json:"given_up"`   // price of the lines that were not to be had
	Returned          decimal.Decimal     `json:"returned"`   // how much less it costs for goods that came back
	Got               decimal.Decimal     `json:"got"`        // completed, matched payments less what went back or was kept
	RefundDue         decimal.Decimal     `json:"refund_due"` // of Got, what no goods stand against
	PaymentID         *string             `json:"payment_id"` // of the completed ones the lowest by (created, id)
	TxHash            *string             `json:"tx_hash"`
	PayAddress        *string             `json:"pay_address"` // where to pay, from the newest open payment
	DestinationTag    *int64              `json:"destination_tag"`
	CustomerEmail     string              `json:"customer_email"`
	CustomerName      string              `json:"customer_name"`
	Metadata          map[string]any      `json:"metadata" gorm:"serializer:json"`
	StatusToken       string              `json:"status_token"` // of the customer's link
	Stock             StockState          `json:"stock"`
	Reservation       int                 `json:"reservation"` // number of the latest, from 1
	TimelineLength    int                 `json:"timeline_length"`
	Deadline          time.Time           `json:"deadline"` // when an unpaid order gives its stock back
	Grace             bool                `json:"grace"`    // Deadline includes the one grace
	Reopenings        int                 `json:"reopenings"`
	CreatedAt         time.Time           `json:"created_at"`
	UpdatedAt         time.Time           `json:"updated_at"`
	PaidAt            *time.Time          `json:"paid_at"`
	FulfilledAt       *time.Time          `json:"fulfilled_at"`
	CancelledAt       *time.Time          `json:"cancelled_at"`
}

// Item is a row of order_items, with what became of it.
type Item struct {
	OrderID     string          `json:"order_id"`
	Line        int             `json:"line"` // from 1
	SKU         string          `gorm:"column:sku" json:"sku"`
	Name        string          `json:"name"` // of the product when it was ordered
	Quantity    int64           `json:"quantity"`
	UnitPrice   decimal.Decimal `json:"unit_price"`
	GivenUp     bool            `json:"given_up"`    // the goods were not to be had; its price is due back
	RequestID   *uuid.UUID      `json:"-" gorm:"->"` // set once the provider was asked to ship it
	ShipmentID  *uuid.UUID      `json:"-" gorm:"->"` // set once it has shipped
	DeliveredAt *time.Time      `json:"-" gorm:"->"` // when its parcel arrived
	ReturnID    *uuid.UUID      `json:"-" gorm:"->"` // set once it came back
}

// Step is a row of timeline: what happened to an order.
type Step struct {
	OrderID string     `json:"order_id"`
	Seq     int        `json:"seq"` // from 1
	At      time.Time  `json:"at"`
	Kind    string     `json:"kind"`  // an event's type, or opened, deadline, cancelled, shipped
	Cause   string     `json:"cause"` // event:evt_…, admin:NAME, sweep:deadline
	Was     *Status    `json:"was"`
	Became  Status     `json:"became"`
	Note    string     `json:"note"` // in plain words
	InboxID *uuid.UUID `json:"inbox_id"`
	Details *Details   `json:"details" gorm:"serializer:json"` // nil: nothing besides, or written by older code

	wrote []letterKey // letters, of which Details names those that are posted
}

// TableName names the table of steps for GORM.
func (Step) TableName() string { return "timeline" }

// ShipmentRequest is a row of shipment_requests: what a provider was asked to
// ship. Its id is the idempotency key of that request and never changes.
type ShipmentRequest struct {
	ID        uuid.UUID  `json:"id"`
	OrderID   string     `json:"order_id"`
	Provider  string     `json:"provider"`
	State     string     `json:"state"` // queued, handed_over, withdrawn, dead
	Attempts  int        `json:"attempts"`
	NotBefore time.Time  `json:"not_before"`
	RungAt    time.Time  `json:"rung_at"`
	LastError string     `json:"last_error"`
	CreatedAt time.Time  `json:"created_at"`
	HandedAt  *time.Time `json:"handed_at"`
}

// Shipment is a row of shipments: what left the warehouse.
type Shipment struct {
	ID             uuid.UUID  `json:"id"`
	OrderID        string     `json:"order_id"`
	Carrier        string     `json:"carrier"`
	TrackingNumber string     `json:"tracking_number"`
	ShippedAt      time.Time  `json:"shipped_at"`
	ShippedBy      string     `json:"shipped_by"`   // admin:NAME
	DeliveredAt    *time.Time `json:"delivered_at"` // nil until somebody says that it arrived
	DeliveredBy    *string    `json:"delivered_by"`
}

// shippedLine is a row of shipment_lines or, with RequestID, of shipment_request_lines.
type shippedLine struct {
	OrderID    string    `json:"order_id"`
	Line       int       `json:"line"`
	ShipmentID uuid.UUID `json:"shipment_id"`
	RequestID  uuid.UUID `json:"request_id"`
}
