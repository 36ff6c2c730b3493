package inventory

import (
	"fmt"
	"regexp"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
)

var skuForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Introduce adds a product to the catalogue with onHand units. Errors:
// Unprocessable naming the fields; Conflict product_exists.
func Introduce(tx database.Tx, sku, name string, onHand int64, actor string) (*Product, error) {
	return Add(tx, Product{SKU: sku, Name: name, OnHand: onHand}, actor)
}

// Add is Introduce for a product of which SKU, Name, OnHand and
// LowStockThreshold are filled.
func Add(tx database.Tx, p Product, actor string) (*Product, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	p.Reserved, p.CreatedAt, p.UpdatedAt = 0, tx.Now, tx.Now
	n, err := database.InsertCount(tx, "products", "sku, name, on_hand, reserved, created_at, updated_at, low_stock_threshold", []Product{p}, "ON CONFLICT (sku) DO NOTHING")
	if err != nil {
		return nil, fmt.Errorf("introduce product %s: %w", p.SKU, err)
	}
	if n == 0 {
		return nil, fault.New(fault.Conflict, "product_exists", "product %s exists already", p.SKU)
	}
	id := uuid.Must(uuid.NewV7())
	first := Movement{ID: id, SKU: p.SKU, Kind: Initial, OnHandDelta: p.OnHand, Cause: actor, EffectKey: "initial/" + p.SKU, At: tx.Now}
	if err := database.Insert(tx, "stock_movements", movementColumns, []Movement{first}); err != nil {
		return nil, fmt.Errorf("introduce product %s: %w", p.SKU, err)
	}
	return &p, nil
}

// check refuses a product that breaks a rule, naming the fields.
func (p Product) check() error {
	var wrong []fault.Field
	refuse := func(bad bool, field, message string) {
		if bad {
			wrong = append(wrong, fault.Field{Location: field, Message: message})
		}
	}
	runes := utf8.RuneCountInString(p.Name)
	units := fmt.Sprintf("must be 0 to %d", int64(MaxOnHand))
	refuse(!skuForm.MatchString(p.SKU), "sku", "must be 1 to 64 letters, digits, dots, underscores or hyphens")
	refuse(runes == 0 || runes > 200 || !utf8.ValidString(p.Name) || hasControl(p.Name), "name", "must be 1 to 200 characters without control characters")
	refuse(p.OnHand < 0 || p.OnHand > MaxOnHand, "on_hand", units)
	refuse(p.LowStockThreshold < 0 || p.LowStockThreshold > MaxOnHand, "low_stock_threshold", units)
	if wrong != nil {
		return fault.New(fault.Unprocessable, "invalid_product", "the product breaks a rule").With(wrong...)
	}
	return nil
}

// Edit changes what it names of a product; its stock only moves by adjustments.
type Edit struct {
	Name              *string
	LowStockThreshold *int64
	Archived          *bool // an archived product cannot be ordered; orders that are there go on
}

// Apply edits a product that may, as it stands under its lock, pass agree.
// Errors: NotFound; Unprocessable naming the fields; those of agree.
func (e Edit) Apply(tx database.Tx, sku string, agree func(Product) error) (*Product, error) {
	shelf, err := Load(tx, []string{sku})
	if err != nil {
		return nil, err
	}
	p := shelf.Product(sku)
	if p == nil {
		return nil, fault.New(fault.NotFound, "product_not_found", "no product %s", sku)
	}
	if err := agree(*p); err != nil {
		return nil, err
	}
	if e.Name != nil {
		p.Name = *e.Name
	}
	if e.LowStockThreshold != nil {
		p.LowStockThreshold = *e.LowStockThreshold
	}
	if e.Archived != nil && *e.Archived != (p.ArchivedAt != nil) {
		p.ArchivedAt = nil
		if *e.Archived {
			p.ArchivedAt = &tx.Now
		}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	p.UpdatedAt = tx.Now
	err = tx.Exec(`UPDATE products SET name = ?, low_stock_threshold = ?, archived_at = ?, updated_at = ? WHERE sku = ?`,
		p.Name, p.LowStockThreshold, p.ArchivedAt, p.UpdatedAt, sku).Error
	if err != nil {
		return nil, fmt.Errorf("edit product %s: %w", sku, err)
	}
	return p, nil
}

func hasControl(s string) bool {
	for _, c := range s {
		if unicode.IsControl(c) {
			return true
		}
	}
	return false
}

const movementColumns = "id, sku, kind, on_hand_delta, reserved_delta, order_id, cause, reason, effect_key, at"

// Change adjusts what is on hand of one product. Errors: NotFound, Conflict.
func Change(tx database.Tx, sku string, delta int64, actor, reason string) (*Movement, error) {
	shelf, err := Load(tx, []string{sku})
	if err != nil {
		return nil, err
	}
	if err := shelf.Adjust(sku, delta, actor, reason); err != nil {
		return nil, err
	}
	if err := shelf.Save(tx); err != nil {
		return nil, err
	}
	return &shelf.movements[0], nil
}
