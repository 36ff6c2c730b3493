package orders

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/inventory"
	"quayside/internal/notify"
	"quayside/internal/payqi"
	"quayside/internal/queue"
)

// Book holds all orders. Its verbs join the caller's transaction.
type Book struct {
	db       *database.DB
	bell     queue.Bell
	outbox   *notify.Outbox
	terms    Terms
	provider Provider
	watch    *watch

	// Events, when set, is how a decision about an event reaches the inbox.
	Events Events

	// PayQI, when set, is the access to PayQI's API.
	PayQI *payqi.Client

	// Opened, when set, is called in the transaction that opens an order: the
	// inbox uses it to wake events that came before their order.
	Opened func(tx database.Tx, orderID string)
}

// NewBook returns the book of a shop with these terms. The provider's name
// becomes that of the terms, and outbox tells the book of letters that failed.
func NewBook(db *database.DB, bell queue.Bell, outbox *notify.Outbox, provider Provider, terms Terms) *Book {
	terms.Provider = provider.Name()
	b := &Book{db: db, bell: bell, outbox: outbox, terms: terms, provider: provider}
	b.watch = newWatch(b)
	outbox.Fate = b.letterEnded
	return b
}

// Hear applies a batch of events, each whole, in the order given, and returns
// what became of each. The caller has locked the inbox rows.
func (b *Book) Hear(tx database.Tx, news []News) ([]Verdict, error) {
	d, err := b.lay(tx, nil, news)
	if err != nil {
		return nil, err
	}
	if err := b.greet(tx, d, news); err != nil {
		return nil, err
	}
	verdicts := make([]Verdict, len(news))
	for i, n := range news {
		verdicts[i] = d.hear(n)
	}
	return verdicts, b.clear(tx, d)
}

// Draft is an order as the shop asks for it.
type Draft struct {
	ID       string // made up when empty
	Email    string
	Name     string
	Currency string
	Items    []DraftItem
	TTL      *time.Duration // nil: the shop's terms
	Metadata map[string]any
}

// DraftItem is one line of a Draft.
type DraftItem struct {
	SKU       string
	Quantity  int64
	UnitPrice decimal.Decimal
}

// MaxTTL is the longest an unpaid order may hold stock.
const MaxTTL = 7 * 24 * time.Hour

var (
	orderID  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	currency = regexp.MustCompile(`^[A-Z0-9]{2,12}$`)
)

// Open creates an order: every line is reserved, or nothing is.
// Errors: Unprocessable naming the fields, Conflict order_exists,
// product_archived or insufficient_stock with the shortage per line.
func (b *Book) Open(tx database.Tx, draft Draft, actor string) (*File, error) {
	o, items, err := b.draft(draft, tx.Now)
	if err != nil {
		return nil, err
	}
	// The row goes in as it will stand after the first step, so that it is written
	// once, and before the stock is locked, so that hot products are held shortly.
	o.TimelineLength = 1
	n, err := database.InsertCount(tx, "orders", "id, currency, total, customer_email, customer_name, metadata, status_token, created_at, "+orderColumns,
		[]Order{o}, "ON CONFLICT (id) DO NOTHING")
	if err != nil {
		return nil, fmt.Errorf("open order %s: %w", o.ID, err)
	}
	if n == 0 {
		return nil, fault.New(fault.Conflict, "order_exists", "order %s exists already", o.ID)
	}
	d := &desk{terms: b.terms, now: tx.Now}
	if d.shelf, err = inventory.Load(tx, skus(items)); err != nil {
		return nil, err
	}
	f := d.newFile(o)
	f.Items, f.fresh, f.TimelineLength = items, true, 0
	if err := f.open(d, actor); err != nil {
		return nil, err
	}
	d.files = map[string]*File{f.ID: f}
	if err := database.Insert(tx, "order_items", "order_id, line, sku, name, quantity, unit_price", f.Items); err != nil {
		return nil, fmt.Errorf("lines of order %s: %w", o.ID, err)
	}
	if b.Opened != nil {
		b.Opened(tx, f.ID)
	}
	return f, b.clear(tx, d)
}

// open reserves the lines and begins the timeline.
func (f *File) open(d *desk, actor string) error {
	var unknown, archived []fault.Field
	for i := range f.Items {
		it := &f.Items[i]
		p := d.shelf.Product(it.SKU)
		if p == nil {
			unknown = append(unknown, fault.Field{Location: fmt.Sprintf("items[%d].sku", i), Message: "there is no product " + it.SKU})
			continue
		}
		it.Name = p.Name
		if p.ArchivedAt != nil {
			archived = append(archived, fault.Field{Location: fmt.Sprintf("items[%d].sku", i), Message: it.SKU + " is not sold any more"})
		}
	}
	if unknown != nil {
		return fault.New(fault.Unprocessable, "unknown_product", "the order names a product that does not exist").With(unknown...)
	}
	if archived != nil {
		return fault.New(fault.Conflict, "product_archived", "the order names a product that is archived; nothing was reserved").With(archived...)
	}
	if short := d.shelf.Reserve(f.ID, f.Reservation, f.lines(), actor); short != nil {
		return f.shortage(short)
	}
	f.describe()
	f.note(change{kind: "opened", cause: actor, note: fmt.Sprintf("order over %s %s opened, stock reserved", Amount(f.Total), f.Currency)}, nil, d.now)
	f.write(notify.OrderReceived, "", d)
	f.letters[0].NotBefore = d.now.Add(detailsWait)
	f.since.Deadline = &f.Deadline
	f.attribute()
	return nil
}

// shortage says which lines are short, and of how much.
func (f *File) shortage(short []inventory.Shortage) error {
	var fields []fault.Field
	for _, s := range short {
		for i, it := range f.Items {
			if it.SKU == s.SKU {
				fields = append(fields, fault.Field{
					Location: fmt.Sprintf("items[%d].quantity", i),
					Message:  fmt.Sprintf("%d of %s wanted, %d available", s.Wanted, s.SKU, max(s.Available, 0)),
				})
			}
		}
	}
	return fault.New(fault.Conflict, "insufficient_stock", "there is not enough stock for this order; nothing was reserved").With(fields...)
}

// draft checks what the shop asks for and makes the rows of it.
func (b *Book) draft(d Draft, now time.Time) (Order, []Item, error) {
	var wrong []fault.Field
	refuse := func(bad bool, location, message string) {
		if bad {
			wrong = append(wrong, fault.Field{Location: location, Message: message})
		}
	}
	if d.ID == "" {
		d.ID = "ord_" + strings.ReplaceAll(uuid.Must(uuid.NewV7()).String(), "-", "")
	}
	ttl := b.terms.TTL
	if d.TTL != nil {
		ttl = *d.TTL
	}
	err := notify.ValidAddress(d.Email)
	refuse(err != nil, "customer.email", fmt.Sprint(err))
	refuse(!orderID.MatchString(d.ID), "id", "must be 1 to 64 letters, digits, dots, underscores or hyphens")
	refuse(!currency.MatchString(d.Currency), "currency", "must be a currency code in capitals, such as XRP")
	refuse(!plain(d.Name, 200), "customer.name", "must be at most 200 characters without control characters")
	refuse(ttl < time.Second || ttl > MaxTTL, "expires_in", "must be 1 to 604800 seconds (7 days)")
	refuse(len(d.Items) == 0 || len(d.Items) > MaxLines, "items", fmt.Sprintf("must be 1 to %d lines", MaxLines))
	o := Order{
		ID: d.ID, Status: Pending, Currency: d.Currency, CustomerEmail: d.Email, CustomerName: d.Name, Metadata: d.Metadata,
		PaymentStatus: Unpaid, FulfillmentStatus: NotYet, StatusToken: newToken(), Stock: StockReserved, Reservation: 1, Deadline: now.Add(ttl), CreatedAt: now, UpdatedAt: now,
	}
	if o.Metadata == nil {
		o.Metadata = map[string]any{}
	}
	places := decimalPlaces(d.Currency)
	items := make([]Item, len(d.Items))
	for i, it := range d.Items {
		at := fmt.Sprintf("items[%d].", i)
		refuse(it.Quantity < 1 || it.Quantity > MaxQuantity, at+"quantity", fmt.Sprintf("must be 1 to %d", MaxQuantity))
		refuse(it.UnitPrice.IsNegative() || -it.UnitPrice.Exponent() > places && !it.UnitPrice.Truncate(places).Equal(it.UnitPrice),
			at+"unit_price", fmt.Sprintf("must be zero or more with at most %d decimals", places))
		items[i] = Item{OrderID: d.ID, Line: i + 1, SKU: it.SKU, Quantity: it.Quantity, UnitPrice: it.UnitPrice}
		o.Total = o.Total.Add(it.UnitPrice.Mul(decimal.NewFromInt(it.Quantity)))
	}
	refuse(!o.Total.IsPositive() && len(d.Items) > 0, "items", "the total must be more than zero")
	refuse(o.Total.GreaterThanOrEqual(maxAmount), "items", "the total must have at most 18 digits before the point")
	if wrong != nil {
		return o, nil, fault.New(fault.Unprocessable, "invalid_order", "the order breaks a rule").With(wrong...)
	}
	return o, items, nil
}

// The bounds of an order.
const (
	MaxLines    = 100
	MaxQuantity = 1_000_000
)

// maxAmount is the first amount that numeric(38,18) does not hold comfortably.
var maxAmount = decimal.New(1, 18)

// decimalPlaces is how fine a currency is: XRP has drops, a millionth each.
func decimalPlaces(currency string) int32 {
	if currency == "XRP" {
		return 6
	}
	return 8
}

// plain reports whether s is text of at most limit characters without controls.
func plain(s string, limit int) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= limit && !strings.ContainsFunc(s, unicode.IsControl)
}

// tokenLength is that of a customer's token: 32 letters and digits, 160 random bits.
const tokenLength = 32

// newToken makes the unguessable part of a customer's link.
func newToken() string {
	b := make([]byte, tokenLength*5/8)
	_, _ = rand.Read(b) // never fails
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))
}

func skus(items []Item) []string {
	s := make([]string, len(items))
	for i, it := range items {
		s[i] = it.SKU
	}
	return s
}

// file lays one order on the desk. Errors: NotFound.
func (b *Book) file(tx database.Tx, id string) (*desk, *File, error) {
	d, err := b.lay(tx, []string{id}, nil)
	if err != nil {
		return nil, nil, err
	}
	f := d.files[id]
	if f == nil {
		return nil, nil, fault.New(fault.NotFound, "order_not_found", "no order %s", id)
	}
	return d, f, nil
}

// Cancel takes an order back: what it held of stock returns, what was got
// becomes due back. Errors: NotFound; Conflict once a line has shipped.
func (b *Book) Cancel(tx database.Tx, id, actor, reason string) (*File, error) {
	d, f, err := b.file(tx, id)
	if err != nil {
		return nil, err
	}
	switch {
	case f.Status == Cancelled:
		return nil, fault.New(fault.Conflict, "order_cancelled", "order %s is cancelled already", id)
	case slices.ContainsFunc(f.Items, Item.shipped):
		return nil, fault.New(fault.Conflict, "order_shipped", "order %s has shipped, at least in part: it cannot be cancelled", id)
	}
	c := change{kind: "cancelled", cause: actor, note: reason}
	was := f.Status
	f.become(Cancelled, c, d)
	f.settled(c, was, d)
	return f, b.clear(tx, d)
}

// Dispatch is what a person reports to have sent.
type Dispatch struct {
	Carrier        string
	TrackingNumber string
	Lines          []int // nil: all that have not shipped
}

// Ship records that lines of a paid order have left the warehouse. Errors:
// NotFound; Conflict when the order is not paid, is held, or a line has
// shipped before.
func (b *Book) Ship(tx database.Tx, id, actor string, what Dispatch) (*Shipment, error) {
	d, f, err := b.file(tx, id)
	if err != nil {
		return nil, err
	}
	lines, err := f.shippable(what.Lines)
	if err != nil {
		return nil, err
	}
	sh := Shipment{
		ID: uuid.Must(uuid.NewV7()), OrderID: id, Carrier: what.Carrier, TrackingNumber: what.TrackingNumber,
		ShippedAt: tx.Now, ShippedBy: actor,
	}
	for _, it := range lines {
		it.ShipmentID = &sh.ID
	}
	f.shipments = append(f.shipments, sh)
	c := change{kind: "shipped", cause: actor, about: sh.ID.String(), note: fmt.Sprintf("%d of %d lines shipped %s %s", len(lines), len(f.Items), what.Carrier, what.TrackingNumber)}
	f.write(notify.OrderShipped, sh.ID.String(), d)
	letter := &f.letters[len(f.letters)-1]
	letter.Facts.Carrier, letter.Facts.TrackingNumber = what.Carrier, what.TrackingNumber
	if len(lines) < len(f.Items) {
		for _, it := range lines {
			letter.Facts.Parcel = append(letter.Facts.Parcel, notify.Line{Name: it.Name, Quantity: it.Quantity})
		}
	}
	was := f.Status
	if !slices.ContainsFunc(f.Items, func(it Item) bool { return !it.done() }) {
		f.become(Fulfilled, c, d)
	}
	f.settled(c, was, d)
	return &sh, b.clear(tx, d)
}

// shippable picks the lines to ship, all that have not when none are named.
func (f *File) shippable(lines []int) ([]*Item, error) {
	switch {
	case f.Status != Paid:
		return nil, fault.New(fault.Conflict, "order_not_paid", "order %s is %s: only a paid order ships", f.ID, f.Status)
	case f.held():
		return nil, fault.New(fault.Conflict, "order_held", "order %s is on hold: its open cases must be decided first", f.ID)
	}
	var picked []*Item
	for i := range f.Items {
		it := &f.Items[i]
		switch {
		case lines == nil && !it.done(), slices.Contains(lines, it.Line) && !it.done():
			picked = append(picked, it)
		case slices.Contains(lines, it.Line) && it.GivenUp:
			return nil, fault.New(fault.Conflict, "line_given_up", "line %d of order %s was given up: its goods were not to be had", it.Line, f.ID)
		case slices.Contains(lines, it.Line):
			return nil, fault.New(fault.Conflict, "line_shipped", "line %d of order %s has shipped already", it.Line, f.ID)
		}
	}
	for i, line := range lines {
		if line < 1 || line > len(f.Items) || slices.Index(lines, line) != i {
			return nil, fault.New(fault.Unprocessable, "unknown_line", "order %s has no such line", f.ID).
				With(fault.Field{Location: fmt.Sprintf("items[%d]", i), Message: fmt.Sprintf("must be a line from 1 to %d, named once", len(f.Items))})
		}
	}
	if len(picked) == 0 {
		return nil, fault.New(fault.Conflict, "line_shipped", "order %s has no such line left to ship", f.ID)
	}
	return picked, nil
}

// Expire settles orders whose deadline has passed, at most limit of them, and
// says how many. Several may run at once.
func (b *Book) Expire(ctx context.Context, limit int) (n int, err error) {
	err = b.db.InTx(ctx, func(tx database.Tx) error {
		var due []string
		err := tx.Raw(`SELECT id FROM orders WHERE status IN ('pending','payment_failed') AND deadline <= ?
			ORDER BY deadline LIMIT ? FOR NO KEY UPDATE SKIP LOCKED`, tx.Now, limit).Scan(&due).Error
		if n = len(due); err != nil || n == 0 {
			return err
		}
		d, err := b.lay(tx, due, nil)
		if err != nil {
			return err
		}
		for _, id := range slices.Sorted(slices.Values(due)) {
			d.files[id].settle(change{kind: "deadline", cause: "sweep:deadline", note: "nothing complete came in time"}, d)
		}
		return b.clear(tx, d)
	})
	if err != nil {
		return 0, fmt.Errorf("expire orders: %w", err)
	}
	return n, nil
}
