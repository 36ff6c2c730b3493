package dock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/inventory"
	"quayside/internal/orders"
	"quayside/internal/web"
)

// Kind is something that can be imported. Its lines are bodies of requests of
// the API, read and carried out by the same code.
type Kind struct {
	Name  string // as in the path of the API and on the command line
	Scope string // that one needs to import it

	about   string
	batch   int // lines in one transaction
	columns []cell
	read    func(body []byte) (line, error)
}

// maxSavepoints is the most lines of a batch: each has a savepoint, and with
// more than 64 in one transaction Postgres has to look them up on disk.
const maxSavepoints = 50

// cell is a column of a CSV file.
type cell struct {
	name     string
	path     string // in the body of the request
	required bool
	number   bool
	fill     func(s string) (any, error) // nil: the text itself
}

// line is one line of a file, ready to be carried out.
type line interface {
	skus() []string // whose stock it locks
	apply(d *Dock, tx database.Tx, actor string) error
}

// Kinds are what can be imported.
var Kinds = []Kind{
	{
		Name: "products", Scope: "stock:write", about: "adds a product, as POST /api/v1/products does", batch: maxSavepoints,
		columns: []cell{
			{name: "sku", path: "sku", required: true},
			{name: "name", path: "name", required: true},
			{name: "on_hand", path: "on_hand", required: true, number: true},
			{name: "low_stock_threshold", path: "low_stock_threshold", number: true},
		},
		read: func(body []byte) (line, error) { return readAs[productLine](body) },
	},
	{
		Name: "stock", Scope: "stock:write", about: "changes what is on hand of a product, as POST /api/v1/products/{sku}/adjustments does", batch: maxSavepoints,
		columns: []cell{
			{name: "sku", path: "sku", required: true}, {name: "delta", path: "delta", required: true, number: true}, {name: "reason", path: "reason", required: true},
		},
		read: func(body []byte) (line, error) { return readAs[stockLine](body) },
	},
	{
		Name: "orders", Scope: "orders:write", about: "opens an order and reserves its stock, as POST /api/v1/orders does, with an id of yours", batch: 10, // an order is some ten statements, and others wait for its stock
		columns: []cell{
			{name: "id", path: "id", required: true},
			{name: "customer_email", path: "customer.email", required: true},
			{name: "customer_name", path: "customer.name"},
			{name: "currency", path: "currency", required: true},
			{name: "items", path: "items", required: true, fill: readItems},
			{name: "expires_in", path: "expires_in", number: true},
		},
		read: func(body []byte) (line, error) { return readAs[orderLine](body) },
	},
}

// KindOf returns the kind of that name, nil when there is none.
func KindOf(name string) *Kind {
	for i := range Kinds {
		if Kinds[i].Name == name {
			return &Kinds[i]
		}
	}
	return nil
}

// Columns are the names of its columns, those first that a file must have.
func (k *Kind) Columns() []string {
	var must, may []string
	for _, c := range k.columns {
		if c.required {
			must = append(must, c.name)
		} else {
			may = append(may, c.name)
		}
	}
	return append(must, may...)
}

func (k *Kind) cell(name string) *cell {
	i := slices.IndexFunc(k.columns, func(c cell) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return &k.columns[i]
}

// checkColumns refuses a first line that names other columns than there are.
func (k *Kind) checkColumns(names []string) error {
	var wrong []fault.Field
	refuse := func(message string) { wrong = append(wrong, fault.Field{Location: "line 1", Message: message}) }
	for i, name := range names {
		switch {
		case name == "":
			refuse(fmt.Sprintf("column %d has no name", i+1))
		case k.cell(name) == nil:
			refuse(fmt.Sprintf("%.60q is not a column of %s: take it out", name, k.Name))
		case slices.Index(names, name) < i:
			refuse(fmt.Sprintf("%s is there twice", name))
		}
	}
	for _, c := range k.columns {
		if c.required && !slices.Contains(names, c.name) {
			refuse("the column " + c.name + " is missing")
		}
	}
	if wrong == nil {
		return nil
	}
	return fault.New(fault.Unprocessable, "wrong_columns", "The first line must name the columns: %s. Nothing was imported.", strings.Join(k.Columns(), ",")).With(wrong...)
}

// record is one line of a file.
type record struct {
	line int
	body []byte // the body of a request
	err  error  // why there is none
}

// records are the lines of a batch. A line that cannot be read is one with an error.
func (k *Kind) records(f Format, l Layout, first int, data []byte) ([]record, error) {
	if f == Lines {
		var list []record
		for raw := range bytes.Lines(data) {
			if raw = bytes.TrimSpace(raw); len(raw) > 0 {
				list = append(list, record{line: first, body: raw})
			}
			first++
		}
		return list, nil
	}
	var list []record
	r := l.reader(data)
	for {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("a batch that could be read before: %w", err)
		}
		if blank(cells) {
			continue
		}
		at, _ := r.FieldPos(0)
		rec := record{line: first + at - 1}
		rec.body, rec.err = k.body(l, cells)
		list = append(list, rec)
	}
}

var wholeNumber = regexp.MustCompile(`^([+-]?)0*([0-9]+)$`)

// body writes the cells of a line as the body of a request. A cell that is
// empty is a field that is not there.
func (k *Kind) body(l Layout, cells []string) ([]byte, error) {
	if len(cells) != len(l.Columns) {
		return nil, fault.New(fault.Invalid, "malformed_line", "the line has %d cells, and the first line %d", len(cells), len(l.Columns))
	}
	body := map[string]any{}
	for i, name := range l.Columns {
		c := k.cell(name)
		if cells[i] == "" {
			continue
		}
		value, err := c.value(cells[i])
		if err != nil {
			return nil, err
		}
		into := body
		path := strings.Split(c.path, ".")
		for _, step := range path[:len(path)-1] {
			if into[step] == nil {
				into[step] = map[string]any{}
			}
			into, _ = into[step].(map[string]any)
		}
		into[path[len(path)-1]] = value
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("write a line as JSON: %w", err)
	}
	return text, nil
}

func (c *cell) value(s string) (any, error) {
	switch {
	case c.fill != nil:
		return c.fill(unshield(s))
	case c.number:
		m := wholeNumber.FindStringSubmatch(strings.TrimSpace(s))
		if m == nil {
			return s, nil // the rules say what is wrong with it
		}
		return json.Number(strings.TrimPrefix(m[1], "+") + m[2]), nil
	}
	return unshield(s), nil
}

// readItems reads the cell of an order's lines: SKU:QUANTITY:PRICE, with blanks
// between them.
func readItems(s string) (any, error) {
	var items []map[string]any
	for _, word := range strings.Fields(s) {
		part := strings.Split(word, ":")
		if len(part) != 3 {
			return nil, fault.New(fault.Unprocessable, "malformed_line", "the items cannot be read").
				With(fault.Field{Location: "items", Message: "must be SKU:QUANTITY:PRICE for each line of the order, with blanks between them, such as mug-blue:2:5.00 sticker:1:0.50"})
		}
		item := map[string]any{"sku": part[0], "quantity": part[1], "unit_price": part[2]}
		if m := wholeNumber.FindStringSubmatch(part[1]); m != nil {
			item["quantity"] = json.Number(strings.TrimPrefix(m[1], "+") + m[2])
		}
		items = append(items, item)
	}
	return items, nil
}

// place names what the API calls path, in a CSV file.
func (k *Kind) place(f Format, path string) string {
	if f == Lines {
		return path
	}
	for _, c := range k.columns {
		if c.path == path {
			return c.name
		}
	}
	return path
}

func readAs[T line](body []byte) (line, error) {
	v, err := web.Read[T](body)
	if err != nil {
		return nil, err
	}
	return *v, nil
}

type productLine struct{ inventory.NewProduct }

func (productLine) skus() []string { return nil }

func (l productLine) apply(_ *Dock, tx database.Tx, actor string) error {
	_, err := inventory.Add(tx, l.Product(), actor)
	return err
}

type stockLine struct {
	SKU string `json:"sku" minLength:"1" maxLength:"64" doc:"The product"`
	inventory.Adjustment
}

func (l stockLine) skus() []string { return []string{l.SKU} }

func (l stockLine) apply(_ *Dock, tx database.Tx, actor string) error {
	_, err := l.Apply(tx, l.SKU, actor)
	return err
}

type orderLine struct{ orders.NewOrder }

func (l orderLine) skus() []string {
	var skus []string
	for _, it := range l.Items {
		skus = append(skus, it.SKU)
	}
	return skus
}

func (l orderLine) apply(d *Dock, tx database.Tx, actor string) error {
	if l.ID == "" { // without one, a file that is sent again would open its orders again
		return fault.New(fault.Unprocessable, "invalid_order", "an imported order needs an id of yours").
			With(fault.Field{Location: "id", Message: "is required"})
	}
	_, err := d.book.Open(tx, l.Draft(), actor)
	return err
}
