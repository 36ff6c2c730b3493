package orders

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/mr-tron/base58"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/inventory"
	"quayside/internal/web"
)

// A customer whose goods are gone decides for themselves, on the page of their
// order: the case STOCK_GONE is resolved by "customer". So does one who is to get
// money back and has not said where to.

// customer is who decides on the page of an order: whoever has its link.
const customer = "customer"

// What a customer may choose.
const (
	chooseWait    = "wait"    // for the goods
	choosePart    = "part"    // what is there is sent, the rest goes back
	chooseRefund  = "refund"  // all of it goes back
	chooseAddress = "address" // where an approved refund goes
)

// factChosen is the fact of a case in which a customer's wish to wait stands.
const factChosen = "customer_chose"

// gone is what of an order's goods is there again, of one that holds none.
type gone struct {
	lines  []inventory.Line // that it wants
	number []int            // which line of the order each of them is
	there  map[string]int64 // units available, by SKU
	chosen string           // by the customer; "" when they have said nothing
}

func newGone(c Case) *gone { return &gone{there: map[string]int64{}, chosen: c.Facts[factChosen]} }

// served says which of the lines could be taken, in their order, from what is
// there. It uses up there.
func served(lines []inventory.Line, there map[string]int64) []bool {
	got := make([]bool, len(lines))
	for i, l := range lines {
		if got[i] = there[l.SKU] >= l.Quantity; got[i] {
			there[l.SKU] -= l.Quantity
		}
	}
	return got
}

// addGone says of orders whose goods are gone what is there now.
func (b *Book) addGone(ctx context.Context, ids []string, at map[string]*View) error {
	goods := map[string]*gone{}
	for _, id := range ids {
		if g := at[id].gone; g != nil {
			goods[id] = g
		}
	}
	return b.look(ctx, goods)
}

// look counts, for each of the orders named, what is there of its goods.
func (b *Book) look(ctx context.Context, orders map[string]*gone) error {
	if len(orders) == 0 {
		return nil
	}
	var rows []struct {
		OrderID, SKU        string
		Line                int
		Quantity, Available int64
	}
	err := b.db.Read(ctx).Raw(`SELECT i.order_id, i.line, i.sku, i.quantity, p.on_hand - p.reserved AS available
		FROM order_items i JOIN products p USING (sku) WHERE i.order_id = ANY(?) AND NOT i.given_up ORDER BY i.order_id, i.line`,
		database.Array(slices.Collect(maps.Keys(orders)))).Scan(&rows).Error
	if err != nil {
		return fmt.Errorf("goods of orders: %w", database.Classify(err))
	}
	for _, r := range rows {
		g := orders[r.OrderID]
		g.lines, g.number = append(g.lines, inventory.Line{SKU: r.SKU, Quantity: r.Quantity}), append(g.number, r.Line)
		g.there[r.SKU] = r.Available
	}
	return nil
}

// says is what is there, in words.
func (g *gone) says() string {
	var there []string
	for i, got := range served(g.lines, maps.Clone(g.there)) {
		if got {
			there = append(there, strconv.Itoa(g.number[i]))
		}
	}
	switch len(there) {
	case 0:
		return "nothing"
	case len(g.lines):
		return "everything"
	}
	return "line " + strings.Join(there, ", ")
}

// viewCases shows cases; those about goods that are gone say what of them is
// there again (the case STOCK_GONE does not settle itself: others may want the
// goods more).
func (b *Book) viewCases(ctx context.Context, rows []Case) ([]CaseView, error) {
	goods := map[string]*gone{}
	for _, c := range rows {
		if c.Code == StockGone && c.open() {
			goods[*c.OrderID] = newGone(c)
		}
	}
	if err := b.look(ctx, goods); err != nil {
		return nil, err
	}
	vs := make([]CaseView, len(rows))
	for i, c := range rows {
		if c.Code == StockGone && c.open() {
			c.Facts["now_available"] = goods[*c.OrderID].says()
		}
		vs[i] = viewOfCase(c)
	}
	return vs, nil
}

// ChoiceView is one of the things a customer may choose, as the twins of the
// page promise it. The fields of what it sends back to POST /o/TOKEN
// have the same names.
type ChoiceView struct {
	Choice string    `json:"choice"` // wait, part, refund, address
	Chosen bool      `json:"chosen"` // the customer said so before
	Lines  []int     `json:"lines"`  // of part: those that would be sent
	Refund web.Money `json:"refund"` // what would go back
}

// choices are what the customer may choose now; the page offers them in this order.
func (v *View) choices() []ChoiceView {
	list := []ChoiceView{}
	zero := web.Money{Decimal: decimal.Zero}
	if g := v.gone; g != nil && v.Status == Paid {
		list = append(list, ChoiceView{Choice: chooseWait, Chosen: g.chosen == chooseWait, Lines: []int{}, Refund: zero})
		if part := v.part(); part != nil {
			list = append(list, *part)
		}
		list = append(list, ChoiceView{Choice: chooseRefund, Lines: []int{}, Refund: v.AmountPaid})
	}
	homeless := decimal.Zero
	for _, r := range v.Refunds {
		if v.homeless(r) {
			homeless = homeless.Add(r.Amount.Decimal)
		}
	}
	if homeless.IsPositive() {
		list = append(list, ChoiceView{Choice: chooseAddress, Lines: []int{}, Refund: web.Money{Decimal: homeless}})
	}
	return list
}

// homeless reports whether a refund waits for the customer to say where it goes.
// Of money in another currency than the order's people ask.
func (v *View) homeless(r RefundView) bool {
	return r.State == RefundApproved && r.Address == nil && r.Currency == v.Currency
}

// part is what could be sent now, nil when that is nothing. An order for which
// a person accepted another price than its own is left to people.
func (v *View) part() *ChoiceView {
	if !v.AmountDue.Equal(v.Total.Decimal) {
		return nil
	}
	part, costs := ChoiceView{Choice: choosePart}, v.AmountDue.Decimal
	for i, got := range served(v.gone.lines, maps.Clone(v.gone.there)) {
		line := v.gone.number[i]
		if got {
			part.Lines = append(part.Lines, line)
			continue
		}
		j := slices.IndexFunc(v.Items, func(it ItemView) bool { return it.Line == line })
		costs = costs.Sub(v.Items[j].Sum().Decimal)
	}
	part.Refund.Decimal = decimal.Max(v.AmountPaid.Sub(costs), decimal.Zero)
	if part.Lines == nil {
		return nil
	}
	return &part
}

// wish is what a customer has sent.
type wish struct {
	choice  string
	lines   []int
	version int
	to      *Destination
}

// maxWishBytes is more than any form of the page needs.
const maxWishBytes = 8 << 10

// readWish reads a form (WHATWG URL, application/x-www-form-urlencoded) of an
// order in this currency. Errors: Unprocessable with what the customer reads.
func readWish(c *gin.Context, currency string) (w wish, err error) {
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, maxWishBytes)
	if err := c.Request.ParseForm(); err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return w, err
		}
		return w, fault.New(fault.Invalid, "invalid_form", "this is not a form")
	}
	form := c.Request.PostForm
	var wrong []fault.Field
	refuse := func(bad bool, field, message string) {
		if bad {
			wrong = append(wrong, fault.Field{Location: field, Message: message})
		}
	}
	w.choice = form.Get("choice")
	refuse(!slices.Contains([]string{chooseWait, choosePart, chooseRefund, chooseAddress}, w.choice), "choice", "Please choose one of the possibilities.")
	w.version, err = strconv.Atoi(form.Get("version"))
	refuse(err != nil || w.version < 1, "version", "must be the version of the status that was shown")
	for _, line := range form["lines"] {
		n, err := strconv.Atoi(line)
		refuse(err != nil, "lines", "must be numbers of lines")
		w.lines = append(w.lines, n)
	}
	if w.choice == chooseRefund || w.choice == chooseAddress {
		w.to = &Destination{Address: strings.TrimSpace(form.Get("address"))}
		why := unpayable(currency, w.to.Address)
		refuse(why != "", "address", why)
		if tag := strings.TrimSpace(form.Get("destination_tag")); tag != "" {
			n, err := strconv.ParseUint(tag, 10, 32)
			refuse(err != nil, "destination_tag", "The destination tag must be a number from 0 to 4294967295.")
			number := int64(n)
			w.to.Tag = &number
		}
	}
	if wrong != nil {
		return w, fault.New(fault.Unprocessable, "invalid_choice", "the choice breaks a rule").With(wrong...)
	}
	return w, nil
}

// Choose serves POST /o/{token}: a form of the customer's page. A browser
// is sent back to the page, and sees there what is wrong; who asks for JSON gets
// what StatusAsJSON answers, or a problem. Errors: NotFound for an unknown link;
// Unprocessable; Conflict when what was shown is no longer so.
func (b *Book) Choose(c *gin.Context) {
	private(c)
	forAnyOrigin(c)
	person := c.NegotiateFormat(gin.MIMEHTML, gin.MIMEJSON) != gin.MIMEJSON
	v, err := b.byToken(c)
	if err == nil {
		err = b.choose(c, v)
	}
	switch {
	case err == nil && person:
		c.Redirect(http.StatusSeeOther, c.Param("token"))
	case err == nil:
		b.StatusAsJSON(c)
	case person:
		b.drawStatus(c, err)
	default:
		web.Fail(c, err)
	}
}

func (b *Book) choose(c *gin.Context, v *View) error {
	w, err := readWish(c, v.Currency)
	if err != nil {
		return err
	}
	offered := slices.IndexFunc(v.choices(), func(o ChoiceView) bool { return o.Choice == w.choice })
	if offered < 0 || w.version != v.version {
		return changedMeanwhile(v.ID)
	}
	if v.choices()[offered].Chosen {
		return nil // said twice
	}
	return b.db.InTx(c.Request.Context(), func(tx database.Tx) error { return b.grant(tx, v, w) })
}

func changedMeanwhile(order string) error {
	return fault.New(fault.Conflict, "order_changed", "order %s has changed since this was shown: look again, and choose among what there is now", order)
}

// grant carries out what the customer of an order has chosen.
func (b *Book) grant(tx database.Tx, v *View, w wish) error {
	if w.choice == chooseAddress {
		return b.house(tx, v, w)
	}
	i := slices.IndexFunc(v.Holds, func(h HoldView) bool { return h.Code == StockGone })
	id, err := uuid.Parse(v.Holds[i].CaseID)
	if err != nil {
		return fmt.Errorf("case of order %s: %w", v.ID, err)
	}
	what := map[string]Decision{
		chooseWait:   {Action: actWait},
		choosePart:   {Action: actPart, Lines: w.lines},
		chooseRefund: {Action: actRefund, To: w.to},
	}[w.choice]
	what.Version = w.version
	_, err = b.Resolve(tx, id, customer, what)
	return err
}

// house says where the approved refunds of an order go that have no address.
func (b *Book) house(tx database.Tx, v *View, w wish) error {
	_, f, err := b.file(tx, v.ID)
	if err != nil {
		return err
	}
	if f.TimelineLength != w.version {
		return changedMeanwhile(v.ID)
	}
	for _, r := range v.Refunds {
		if !v.homeless(r) {
			continue
		}
		id, err := uuid.Parse(r.ID)
		if err != nil {
			return fmt.Errorf("refund of order %s: %w", v.ID, err)
		}
		if _, err := b.Address(tx, id, customer, *w.to); err != nil {
			return err
		}
	}
	return nil
}

// drawStatus answers a form that could not be taken with the page as it stands
// now, and what is wrong.
func (b *Book) drawStatus(c *gin.Context, why error) {
	p := web.Refusal(c, why)
	s, err := b.customerView(c)
	if err != nil || p.Status >= http.StatusInternalServerError || p.Status == http.StatusNotFound {
		b.drawRefusal(c, p)
		return
	}
	if len(s.Choices) == 0 { // a button pressed twice: the page says what became of it
		c.Redirect(http.StatusSeeOther, c.Param("token"))
		return
	}
	sent := c.Request.PostForm
	f := form{Address: sent.Get("address"), Tag: sent.Get("destination_tag"), Choice: sent.Get("choice")}
	for _, e := range p.Errors {
		f.Wrong = append(f.Wrong, e.Message)
	}
	if p.Status == http.StatusConflict {
		f.Wrong = []string{"Something has changed in the meantime. Please look at what there is now, and choose again."}
	}
	b.drawOrder(c, p.Status, s, f)
}

// form is what stood in a form that could not be taken, and why it could not.
type form struct {
	Choice, Address, Tag string
	Wrong                []string
}

var accountAlphabet = base58.NewAlphabet("rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz")

// unpayable says why money in a currency cannot go to an address, "" when it
// can. Of the XRP Ledger's the checksum must be right
// (https://xrpl.org/docs/references/protocol/data-types/base58-encodings): money
// sent after a slip of the pen goes nowhere, or to a stranger.
func unpayable(currency, address string) string {
	switch {
	case address == "":
		return "Please say which address the money shall go to."
	case currency == "XRP" && !isAccount(address):
		return "This is not an address of the XRP Ledger: it begins with r and has 25 to 35 letters and digits. Please copy all of it from your wallet."
	case bip21[currency] != "" && !coinAddress.MatchString(address), !refundAddress.MatchString(address):
		return "This cannot be an address. Please copy all of it from your wallet."
	}
	return ""
}

func isAccount(address string) bool {
	if !classicAddress.MatchString(address) {
		return false
	}
	raw, err := base58.DecodeAlphabet(address, accountAlphabet)
	if err != nil || len(raw) != 25 || raw[0] != 0 {
		return false
	}
	once := sha256.Sum256(raw[:21])
	twice := sha256.Sum256(once[:])
	return slices.Equal(twice[:4], raw[21:])
}
