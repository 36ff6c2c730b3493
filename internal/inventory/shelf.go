package inventory

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
)

// Line is a number of units of one product.
type Line struct {
	SKU      string
	Quantity int64
}

// Shortage says that fewer units are available than a line wants.
type Shortage struct {
	SKU               string
	Wanted, Available int64
}

// Shelf is the stock a transaction works on: levels read under their row
// locks, and the movements thought of so far. Its verbs only think; Save
// writes. Each order sees the levels as earlier ones in the batch left them.
type Shelf struct {
	levels    map[string]*Product
	loaded    map[string]Product
	movements []Movement
}

// Load reads and locks the products, in SKU order, so that two batches never
// wait for each other. Unknown SKUs are simply not on the shelf.
func Load(tx database.Tx, skus []string) (*Shelf, error) {
	if len(skus) == 0 {
		return NewShelf(), nil
	}
	var rows []Product
	err := tx.Raw(`SELECT * FROM products WHERE sku = ANY(?) ORDER BY sku FOR NO KEY UPDATE`, database.Array(skus)).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("lock stock: %w", err)
	}
	return NewShelf(rows...), nil
}

// NewShelf returns a shelf with these products on it. Only Load locks them.
func NewShelf(products ...Product) *Shelf {
	s := &Shelf{levels: map[string]*Product{}, loaded: map[string]Product{}}
	for _, p := range products {
		s.levels[p.SKU], s.loaded[p.SKU] = &p, p
	}
	return s
}

// Product returns what the shelf knows of sku, nil when there is no such product.
func (s *Shelf) Product(sku string) *Product { return s.levels[sku] }

// Reserve promises lines to an order: all of them or, when something is short,
// none. number counts the order's reservations from 1; a step of one
// reservation happens once.
func (s *Shelf) Reserve(order string, number int, lines []Line, cause string) []Shortage {
	var short []Shortage
	sums := sum(lines)
	for _, sku := range slices.Sorted(maps.Keys(sums)) {
		have := int64(0)
		if p := s.levels[sku]; p != nil {
			have = p.Available()
		}
		if have < sums[sku] {
			short = append(short, Shortage{SKU: sku, Wanted: sums[sku], Available: have})
		}
	}
	if short == nil {
		s.move(Reserve, order, number, sums, cause)
	}
	return short
}

// Commit takes what is reserved for an order out of the warehouse.
func (s *Shelf) Commit(order string, number int, lines []Line, cause string) {
	s.move(Commit, order, number, sum(lines), cause)
}

// Release ends an order's reservation.
func (s *Shelf) Release(order string, number int, lines []Line, cause string) {
	s.move(Release, order, number, sum(lines), cause)
}

// Return puts committed goods back.
func (s *Shelf) Return(order string, number int, lines []Line, cause string) {
	s.move(Return, order, number, sum(lines), cause)
}

// Restock puts the goods of one line of an order, which had left, back on the
// shelf.
func (s *Shelf) Restock(order string, number, line int, goods Line, cause string) {
	s.book(Movement{
		SKU: goods.SKU, Kind: Return, OnHandDelta: goods.Quantity, OrderID: &order, Cause: cause,
		EffectKey: fmt.Sprintf("order/%s/%d/%s/%s/line/%d", order, number, Return, goods.SKU, line),
	})
}

func sum(lines []Line) map[string]int64 {
	m := map[string]int64{}
	for _, l := range lines {
		m[l.SKU] += l.Quantity
	}
	return m
}

var deltas = map[Kind]struct{ onHand, reserved int64 }{
	Reserve: {0, +1}, Release: {0, -1}, Commit: {-1, -1}, Return: {+1, 0},
}

func (s *Shelf) move(kind Kind, order string, number int, sums map[string]int64, cause string) {
	for _, sku := range slices.Sorted(maps.Keys(sums)) {
		d := deltas[kind]
		s.book(Movement{
			SKU: sku, Kind: kind, OnHandDelta: d.onHand * sums[sku], ReservedDelta: d.reserved * sums[sku],
			OrderID: &order, Cause: cause, EffectKey: fmt.Sprintf("order/%s/%d/%s/%s", order, number, kind, sku),
		})
	}
}

func (s *Shelf) book(m Movement) {
	p := s.levels[m.SKU]
	if p == nil {
		panic("inventory: " + m.SKU + " moved without its lock") // would part level and ledger
	}
	p.OnHand += m.OnHandDelta
	p.Reserved += m.ReservedDelta
	s.movements = append(s.movements, m)
}

// Adjust changes what is on hand by delta, for a reason a person gives.
// Errors: Conflict when less would be left than is reserved.
func (s *Shelf) Adjust(sku string, delta int64, actor, reason string) error {
	p := s.levels[sku]
	if p == nil {
		return fault.New(fault.NotFound, "product_not_found", "no product %s", sku)
	}
	if p.OnHand+delta < p.Reserved {
		return fault.New(fault.Conflict, "insufficient_stock",
			"%s has %d on hand of which %d are reserved: it cannot go down by %d", sku, p.OnHand, p.Reserved, -delta)
	}
	if p.OnHand+delta > MaxOnHand {
		return fault.New(fault.Conflict, "too_much_stock", "%s would have more than %d units on hand", sku, int64(MaxOnHand))
	}
	id := uuid.Must(uuid.NewV7())
	s.book(Movement{ID: id, SKU: sku, Kind: Adjust, OnHandDelta: delta, Cause: actor, Reason: reason, EffectKey: "adjust/" + id.String()})
	return nil
}

// MaxOnHand is the most units of one product there may be (stock_is_never_negative).
const MaxOnHand = 1_000_000_000_000

// Save writes the movements and, summed per product, the levels: one statement
// each. The CHECKs of the schema refuse a level that cannot be.
func (s *Shelf) Save(tx database.Tx) error {
	for i := range s.movements {
		m := &s.movements[i]
		if m.ID == uuid.Nil {
			m.ID = uuid.Must(uuid.NewV7())
		}
		m.At = tx.Now
	}
	var changed []levelChange
	for sku, p := range s.levels {
		was := s.loaded[sku]
		if p.OnHand != was.OnHand || p.Reserved != was.Reserved {
			changed = append(changed, levelChange{SKU: sku, OnHand: p.OnHand - was.OnHand, Reserved: p.Reserved - was.Reserved})
		}
	}
	if len(changed) > 0 {
		res, err := tx.ExecRows(`UPDATE products p SET on_hand = p.on_hand + d.on_hand, reserved = p.reserved + d.reserved, updated_at = @now
			FROM json_to_recordset(@rows) AS d(sku text, on_hand bigint, reserved bigint) WHERE p.sku = d.sku`, changed)
		if err != nil {
			return fmt.Errorf("save stock levels: %w", err)
		}
		if res != int64(len(changed)) {
			return fmt.Errorf("save stock levels: %d of %d products found", res, len(changed))
		}
	}
	err := database.Insert(tx, "stock_movements", movementColumns, s.movements)
	if err != nil {
		return fmt.Errorf("save stock movements: %w", err)
	}
	return nil
}

type levelChange struct {
	SKU      string `json:"sku"`
	OnHand   int64  `json:"on_hand"`
	Reserved int64  `json:"reserved"`
}
