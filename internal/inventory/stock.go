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
	var wrong []fault.Field
	if !skuForm.MatchString(sku) {
		wrong = append(wrong, fault.Field{Location: "sku", Message: "must be 1 to 64 letters, digits, dots, underscores or hyphens"})
	}
	if n := utf8.RuneCountInString(name); n == 0 || n > 200 || !utf8.ValidString(name) || hasControl(name) {
		wrong = append(wrong, fault.Field{Location: "name", Message: "must be 1 to 200 characters without control characters"})
	}
	if onHand < 0 || onHand > MaxOnHand {
		wrong = append(wrong, fault.Field{Location: "on_hand", Message: fmt.Sprintf("must be 0 to %d", int64(MaxOnHand))})
	}
	if wrong != nil {
		return nil, fault.New(fault.Unprocessable, "invalid_product", "the product breaks a rule").With(wrong...)
	}
	p := Product{SKU: sku, Name: name, OnHand: onHand, CreatedAt: tx.Now, UpdatedAt: tx.Now}
	n, err := database.InsertCount(tx, "products", "sku, name, on_hand, reserved, created_at, updated_at", []Product{p}, "ON CONFLICT (sku) DO NOTHING")
	if err != nil {
		return nil, fmt.Errorf("introduce product %s: %w", sku, err)
	}
	if n == 0 {
		return nil, fault.New(fault.Conflict, "product_exists", "product %s exists already", sku)
	}
	id := uuid.Must(uuid.NewV7())
	first := Movement{ID: id, SKU: sku, Kind: Initial, OnHandDelta: onHand, Cause: actor, EffectKey: "initial/" + sku, At: tx.Now}
	if err := database.Insert(tx, "stock_movements", movementColumns, []Movement{first}); err != nil {
		return nil, fmt.Errorf("introduce product %s: %w", sku, err)
	}
	return &p, nil
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
