package dock

import "fmt"

// kind is what a column holds, which decides how it is written.
type kind int

const (
	word     kind = iota // one of our words, ids or times: cannot be anything else
	text                 // may be anybody's
	personal             // a customer's name or address
	money                // an amount
	number               // a whole number
)

// column is a column of an export.
type column struct {
	name string
	kind kind
	sql  string // an expression that yields it as text
}

// Table is something that can be exported.
type Table struct {
	Name   string // as in the path of the API and on the command line
	Scope  string // that one needs to read it
	Filter string // the name of its filter by state, "" without
	States []string

	about   string // what a row is
	period  string // what from and to ask about
	from    string
	columns []column
	at      string // the expression that from and to compare
	state   string // the expression that the filter compares
	order   string
}

// moment writes a time as RFC 3339 in UTC.
func moment(name, expression string) column {
	return column{name, word, fmt.Sprintf(`to_char(%s AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`, expression)}
}

func amount(name, expression string) column {
	return column{name, money, fmt.Sprintf(`trim_scale(%s)::text`, expression)}
}

func plainly(k kind, names ...string) (list []column) {
	for _, n := range names {
		list = append(list, column{n, k, n + "::text"})
	}
	return list
}

func join(lists ...[]column) (all []column) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func one(c ...column) []column { return c }

// standing is the state of a payment: the highest that PayQI has told of.
const standing = `CASE WHEN completed_seen IS NOT NULL THEN 'completed' WHEN expired_seen IS NOT NULL THEN 'expired'
	WHEN failed_seen IS NOT NULL THEN 'failed' WHEN pending_seen IS NOT NULL THEN 'pending' ELSE 'created' END`

// Tables are what can be exported. A column keeps its name and meaning.
var Tables = []Table{
	{
		Name: "orders", Scope: "orders:read", Filter: "status", States: []string{"pending", "paid", "payment_failed", "expired", "cancelled", "fulfilled"},
		about: "Orders, as they stand now, by the time they were created. items is SKU:QUANTITY:PRICE for each line, as imports take it", period: "when it was created",
		from: "orders o", at: "created_at", state: "status", order: "created_at, id",
		columns: join(
			plainly(text, "id"), plainly(word, "status", "payment_status", "fulfillment_status", "currency"),
			one(
				amount("total", "total"), amount("amount_due", "COALESCE(accepted, total - given_up) - returned"), amount("amount_paid", "got"), amount("refund_due", "refund_due"),
				column{"payment_id", text, "payment_id"}, column{"tx_hash", text, "tx_hash"},
				column{"customer_email", personal, "customer_email"}, column{"customer_name", personal, "customer_name"},
				column{"items", text, `(SELECT string_agg(i.sku || ':' || i.quantity || ':' || trim_scale(i.unit_price), ' ' ORDER BY i.line) FROM order_items i WHERE i.order_id = o.id)`},
				moment("created_at", "created_at"), moment("expires_at", "deadline"), moment("paid_at", "paid_at"), moment("fulfilled_at", "fulfilled_at"), moment("cancelled_at", "cancelled_at"),
			),
		),
	},
	{
		Name: "payments", Scope: "orders:read", Filter: "state", States: []string{"created", "pending", "failed", "expired", "completed"},
		about: "PayQI's payments, by the time they completed or, of one that has not, were first heard of. counted says whether its money counts towards the order; refunded and kept are parts of amount", period: "when it completed or, of one that has not, was first heard of",
		from: "payments", at: "COALESCE(completed_at, first_seen_at)", state: standing, order: "COALESCE(completed_at, first_seen_at), id",
		columns: join(
			plainly(text, "id", "order_id"), one(column{"state", word, standing}, amount("amount", "amount")), plainly(text, "currency", "tx_hash"), plainly(word, "counted"),
			one(amount("refunded", "refunded"), amount("kept", "kept")), plainly(text, "attached_by"),
			one(moment("first_seen_at", "first_seen_at"), moment("completed_at", "completed_at")),
		),
	},
	{
		Name: "refunds", Scope: "orders:read", Filter: "state", States: []string{"approved", "sent", "confirmed", "waived", "withdrawn"},
		about: "What goes back or was decided to stay (waived), by the time it was decided", period: "when it was decided",
		from: "refunds", at: "decided_at", state: "state", order: "decided_at, id",
		columns: join(
			plainly(word, "id"), plainly(text, "payment_id", "order_id"), plainly(word, "state"), one(amount("amount", "amount")),
			plainly(text, "currency", "address"), plainly(number, "destination_tag"), plainly(text, "tx_hash", "note", "decided_by"),
			one(moment("decided_at", "decided_at"), moment("sent_at", "sent_at"), moment("confirmed_at", "confirmed_at"), moment("withdrawn_at", "withdrawn_at")),
		),
	},
	{
		Name: "movements", Scope: "stock:read", Filter: "kind", States: []string{"initial", "adjust", "correct", "reserve", "release", "commit", "return"},
		about: "The ledger of stock: every change of what is on hand or reserved, by time", period: "when it happened",
		from: "stock_movements", at: "at", state: "kind", order: "at, id",
		columns: join(
			plainly(word, "id"), plainly(text, "sku"), plainly(word, "kind"), plainly(number, "on_hand_delta", "reserved_delta"),
			plainly(text, "order_id", "cause", "reason"), one(moment("at", "at")),
		),
	},
	{
		Name: "products", Scope: "stock:read",
		about: "Products and their stock, by SKU", period: "when it was added",
		from: "products", at: "created_at", order: "sku",
		columns: join(
			plainly(text, "sku", "name"), plainly(number, "on_hand", "low_stock_threshold", "reserved"), one(column{"available", number, "(on_hand - reserved)::text"}),
			one(moment("created_at", "created_at"), moment("updated_at", "updated_at"), moment("archived_at", "archived_at")),
		),
	},
	{
		Name: "events", Scope: "events:read", Filter: "state", States: []string{"received", "parked", "quarantined", "dead", "refused", "applied", "ignored"},
		about: "What PayQI sent, by the time it was received, without the bodies", period: "when it was received",
		from: "events", at: "received_at", state: "state", order: "received_at, id",
		columns: join(
			plainly(word, "id"), plainly(text, "event_id", "type", "payment_id"), one(column{"order_id", text, "order_ref"}), plainly(word, "state"), plainly(text, "reason"),
			plainly(number, "deliveries"), one(moment("received_at", "received_at"), moment("settled_at", "settled_at")),
		),
	},
}

// TableOf returns the table of that name, nil when there is none.
func TableOf(name string) *Table {
	for i := range Tables {
		if Tables[i].Name == name {
			return &Tables[i]
		}
	}
	return nil
}
