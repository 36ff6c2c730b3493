package orders

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
	"github.com/shopspring/decimal"
	"rsc.io/qr"

	"quayside/internal/web"
)

func money(s string) web.Money { return web.Money{Decimal: decimal.RequireFromString(s)} }

const (
	aHash    = "1616A61F1B3DBE39EE45E38C207F6EB0D12023F5D91FD4FAF3149F5444ED11AF"
	anXRP    = "rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh" // as wallets' own tests have it
	aBitcoin = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
)

// viewed is an order over 10 XRP that waits for its money, changed by change.
func viewed(change func(v *View)) View {
	address, tag := anXRP, "12345"
	v := View{
		ID: "1001", Status: Pending, PaymentStatus: Unpaid, FulfillmentStatus: NotYet, Currency: "XRP",
		Total: money("10"), AmountDue: money("10"), AmountPaid: money("0"), RefundDue: money("0"), PayAddress: &address, DestinationTag: &tag,
		ExpiresAt: opening.Add(30 * time.Minute), Items: []ItemView{{Line: 1, Name: "A mug", Quantity: 2, UnitPrice: money("5")}}, version: 3,
	}
	change(&v)
	return v
}

func paid(v *View) {
	hash := aHash
	v.Status, v.PaymentStatus, v.FulfillmentStatus, v.AmountPaid, v.TxHash = Paid, PaidUp, InQueue, money("10"), &hash
}

// What the customer is told for each way an order can stand: the state, the
// headline, words of the advice, which step is reached, and whether to pay.
func TestScenes(t *testing.T) {
	pendingPayment := []PaymentView{{State: "completed", Counted: CountedMatched}, {State: "pending", Counted: CountedNo}}
	for _, tc := range []struct {
		name     string
		change   func(v *View)
		state    Scene
		headline string
		advice   []string
		step     string // the one it stands at, "" for none
		asking   bool
	}{
		{"no details yet", func(v *View) { v.PayAddress, v.DestinationTag = nil, nil }, "awaiting_payment", "Awaiting payment", []string{"will appear here in a moment"}, "Awaiting payment", false},
		{"details", func(*View) {}, "awaiting_payment", "Awaiting payment", []string{"exactly this amount", "destination tag"}, "Awaiting payment", true},
		{"no tag", func(v *View) { v.DestinationTag = nil }, "awaiting_payment", "Awaiting payment", []string{"exactly this amount to this address"}, "Awaiting payment", true},
		{"pending", func(v *View) { v.PaymentStatus = AwaitingConfirmation }, "awaiting_confirmation", "Awaiting confirmation", []string{"need not do anything"}, "Awaiting confirmation", false},
		{
			"part came", func(v *View) { v.PaymentStatus, v.AmountPaid = Underpaid, money("2.5") }, "underpaid", "Part of the money has arrived",
			[]string{"received 2.50 of 10.00 XRP", "missing 7.50 XRP to the address below", "same destination tag"},
			"Awaiting payment", true,
		},
		{
			"part came, the rest is coming", func(v *View) { v.PaymentStatus, v.AmountPaid, v.Payments = Underpaid, money("2.5"), pendingPayment }, "underpaid", "Part of the money has arrived",
			[]string{"received 2.50 of 10.00 XRP", "wait for it before you send more"},
			"Awaiting payment", false,
		},
		{
			"part came, nowhere to send the rest", func(v *View) { v.PaymentStatus, v.AmountPaid, v.PayAddress = Underpaid, money("2.5"), nil }, "underpaid", "Part of the money has arrived",
			[]string{"missing 7.50 XRP will appear here"},
			"Awaiting payment", false,
		},
		{"part came, its case holds", func(v *View) {
			v.PaymentStatus, v.AmountPaid, v.Holds = Underpaid, money("2.5"), []HoldView{{Code: UnderpaidCase}}
		}, "underpaid", "Part of the money has arrived", []string{"missing 7.50 XRP"}, "Awaiting payment", true},
		{"failed", func(v *View) { v.Status = PaymentFailed }, "payment_failed", "The payment failed", []string{"still kept", "pay again with these details"}, "Awaiting payment", true},
		{"failed, no details", func(v *View) { v.Status, v.PayAddress = PaymentFailed, nil }, "payment_failed", "The payment failed", []string{"still kept", "will appear here"}, "Awaiting payment", false},
		{"another currency came", func(v *View) {
			v.Holds, v.Payments = []HoldView{{Code: WrongCurrency}}, []PaymentView{{State: "completed", Counted: CountedUnmatched}}
		}, "in_review", "We are checking a payment", []string{"do not pay again"}, "Awaiting payment", false},
		{"expired", func(v *View) { v.Status = Expired }, "expired", "Expired", []string{"do not pay any more", "Have you just paid?"}, "", false},
		{"expired with money", func(v *View) {
			v.Status, v.PaymentStatus, v.AmountPaid, v.RefundDue = Expired, RefundDue, money("2.5"), money("2.5")
		}, "expired", "Expired", []string{"received 2.50 XRP and will pay it back", "do not pay any more"}, "", false},
		{"expired, another currency came", func(v *View) {
			v.Status, v.Payments = Expired, []PaymentView{{State: "completed", Counted: CountedUnmatched}}
		}, "expired", "Expired", []string{"does not fit this order", "write to you"}, "", false},
		{"cancelled", func(v *View) { v.Status = Cancelled }, "cancelled", "Cancelled", []string{"You owe nothing", "do not pay"}, "", false},
		{"cancelled with money", func(v *View) {
			v.Status, v.PaymentStatus, v.AmountPaid, v.RefundDue = Cancelled, RefundDue, money("10"), money("10")
		}, "cancelled", "Cancelled", []string{"received 10.00 XRP for it and will pay it back"}, "", false},
		{"paid", paid, "paid", "Paid", []string{"getting your order ready"}, "Paid", false},
		{
			"overpaid", func(v *View) { paid(v); v.PaymentStatus, v.AmountPaid, v.RefundDue = Overpaid, money("12"), money("2") }, "paid", "Paid",
			[]string{"getting your order ready", "2.00 XRP more than needed; we will pay it back"},
			"Paid", false,
		},
		{"held", func(v *View) { paid(v); v.FulfillmentStatus, v.Holds = OnHold, []HoldView{{Code: Regression}} }, "on_hold", "Paid, on hold", []string{"money has arrived", "a person has to look"}, "Paid", false},
		{
			"goods gone", func(v *View) { paid(v); v.FulfillmentStatus, v.Holds = OnHold, []HoldView{{Code: StockGone}} }, "goods_gone", "Paid, but goods are missing",
			[]string{"money is safe", "choose below", "do not pay again"},
			"Paid", false,
		},
		{"a part shipped", func(v *View) { paid(v); v.FulfillmentStatus = Partial }, "partly_shipped", "Partly shipped", []string{"the rest follows"}, "Shipped", false},
		{
			"a part shipped, the rest held", func(v *View) { paid(v); v.FulfillmentStatus, v.Holds = Partial, []HoldView{{Code: EventConflict}} }, "partly_shipped", "Partly shipped",
			[]string{"a person has to look"},
			"Shipped", false,
		},
		{"shipped", func(v *View) { paid(v); v.Status, v.FulfillmentStatus = Fulfilled, AllShipped }, "shipped", "Shipped", []string{"on its way"}, "Shipped", false},
	} {
		v := viewed(tc.change)
		s := v.forCustomer("A Shop", opening)
		if s.State != tc.state || s.Headline != tc.headline {
			t.Errorf("%s: %s %q, want %s %q", tc.name, s.State, s.Headline, tc.state, tc.headline)
		}
		for _, words := range tc.advice {
			if !strings.Contains(s.Advice, words) {
				t.Errorf("%s: the advice %q does not say %q", tc.name, s.Advice, words)
			}
		}
		at := ""
		for _, step := range s.Steps() {
			if step.State == "now" {
				at = step.Name
			}
		}
		if asking := (pageView{statusView: s}).Asking(); at != tc.step || asking != tc.asking {
			t.Errorf("%s: it stands at %q and asks for money: %t; want %q, %t", tc.name, at, asking, tc.step, tc.asking)
		}
		drawn(t, tc.name, s)
	}
}

// drawn draws a page and looks at what every page must have.
func drawn(t *testing.T, name string, s statusView) string {
	t.Helper()
	body, err := pageView{statusView: s, Tone: stages[s.State].tone, Reload: 10}.draw()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	html := string(body)
	if strings.Count(html, "<h1") != 1 || strings.Contains(html, "ZgotmplZ") || strings.Contains(html, "<nil>") {
		t.Errorf("%s: not one headline, or something was not drawn:\n%s", name, html)
	}
	for _, own := range []string{"<style>" + pageStyle + "</style>", "<script>" + pageScript + "</script>"} {
		if !strings.Contains(html, own) { // byte for byte, or the policy refuses it
			t.Errorf("%s: the page has not its own %.8s", name, own)
		}
	}
	return html
}

// Every scene has a stage, and every open case that blocks ends in a scene that
// asks nobody to pay twice.
func TestScenesAreComplete(t *testing.T) {
	for code, rule := range Rules {
		if !rule.Blocks || code == UnderpaidCase {
			continue
		}
		v := viewed(func(v *View) { v.Holds = []HoldView{{Code: code}} })
		if got := v.scene(); got != SceneInReview {
			t.Errorf("an unpaid order held for %s is %s", code, got)
		}
	}
	for scene, stage := range stages {
		if stage.headline == "" || stage.tone == "" {
			t.Errorf("%s has no headline or tone", scene)
		}
	}
}

// Fields that a shop may have built upon keep their names.
func TestStatusFieldsStay(t *testing.T) {
	v := viewed(paid)
	body, err := json.Marshal(v.forCustomer("A Shop", opening))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	documented, err := os.ReadFile("../../docs/customer-page.md")
	if err != nil {
		t.Fatal(err)
	}
	for scene := range stages {
		if !bytes.Contains(documented, []byte("`"+scene+"`")) {
			t.Errorf("docs/customer-page.md does not tell of %s", scene)
		}
	}
	for field := range strings.FieldsSeq(`id status payment_status fulfillment_status currency total amount_paid missing pay_address destination_tag expires_at on_hold
		items shipments state headline advice pay_uri seconds_left refund_due tx_hash explorer_url paid_at fulfilled_at cancelled_at shop_name version choices repayments`) {
		if !bytes.Contains(documented, []byte("`"+field+"`")) {
			t.Errorf("docs/customer-page.md does not tell of %s", field)
		}
		if _, there := got[field]; !there {
			t.Errorf("no %s in %s", field, body)
		}
		delete(got, field)
	}
	if len(got) > 0 {
		t.Errorf("fields this test does not know: %v", got)
	}
}

// The URI carries all that is needed in the form that wallets read, or there is none.
func TestPayURI(t *testing.T) {
	for _, tc := range []struct{ currency, address, tag, amount, want string }{
		{"XRP", anXRP, "12345", "10.00", "xrpl:" + anXRP + "?amount=10&dt=12345"},
		{"XRP", anXRP, "4294967295", "0.000001", "xrpl:" + anXRP + "?amount=0.000001&dt=4294967295"},
		{"XRP", anXRP, "", "1234567.5", "xrpl:" + anXRP + "?amount=1234567.5"},
		{"XRP", anXRP, "0", "10", ""},
		{"XRP", anXRP + "?amount=1", "1", "10", ""},
		{"XRP", "rTest123...", "123456", "10", ""}, // the guide's own
		{"XRP", "javascript:alert(1)", "1", "10", ""},
		{"XRP", "r0OIl8TK3gBgk5auZkwc6sHnwrGVJH8Dua", "1", "10", ""}, // letters that base 58 has not
		{"XRP", aBitcoin, "1", "10", ""},
		{"XRP", "", "1", "10", ""},
		{"XRP", anXRP, "1", "0", ""},
		{"XRP", anXRP, "1", "-1", ""},
		{"BTC", aBitcoin, "", "0.00010000", "bitcoin:" + aBitcoin + "?amount=0.0001"},
		{"LTC", "ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9", "", "2", "litecoin:ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9?amount=2"},
		{"DOGE", "DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L", "", "42", "dogecoin:DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L?amount=42"},
		{"BTC", aBitcoin, "7", "1", ""}, // nowhere to put the tag
		{"ETH", "0x1f9090aaE28b8a3dCeaDf281B0F12828e676c326", "", "1", ""},
	} {
		if got := payURI(tc.currency, tc.address, tc.tag, decimal.RequireFromString(tc.amount)); got != tc.want {
			t.Errorf("%s to %q tag %q in %s: %q, want %q", tc.amount, tc.address, tc.tag, tc.currency, got, tc.want)
		}
	}
}

// Only what is a transaction of the XRP Ledger gets a link.
func TestExplorerURL(t *testing.T) {
	for hash, want := range map[string]string{
		aHash: "https://livenet.xrpl.org/transactions/" + aHash, strings.ToLower(aHash): "https://livenet.xrpl.org/transactions/" + aHash,
		"": "", "ABC123...": "", aHash[1:]: "", aHash + "0": "", aHash[2:] + "/x": "", aHash[1:] + "\n": "",
	} {
		if got := explorerURL("XRP", hash); got != want {
			t.Errorf("%q: %q, want %q", hash, got, want)
		}
	}
	if got := explorerURL("BTC", aHash); got != "" {
		t.Errorf("of another currency: %q", got)
	}
}

var svgRun = regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`)

// A decoder other than the encoder reads the drawing as it stands in the page,
// quiet zone and all.
func TestQRCodeIsRead(t *testing.T) {
	v := viewed(func(*View) {})
	s := v.forCustomer("A Shop", opening)
	html := drawn(t, "awaiting payment", s)
	m := regexp.MustCompile(`viewBox="0 0 (\d+) (\d+)" role="img".*<rect width="\d+" height="\d+" fill="#fff"/><path d="([^"]+)" fill="#000"/>`).FindStringSubmatch(html)
	if m == nil {
		t.Fatalf("no QR code:\n%s", html)
	}
	var size int
	_, _ = fmt.Sscan(m[1], &size)
	const scale = 4
	img := image.NewGray(image.Rect(0, 0, size*scale, size*scale))
	for i := range img.Pix {
		img.Pix[i] = 0xff
	}
	black, left := 0, size
	for _, run := range svgRun.FindAllStringSubmatch(m[3], -1) {
		var x, y, n int
		_, _ = fmt.Sscan(run[1]+" "+run[2]+" "+run[3], &x, &y, &n)
		black, left = black+n, min(left, x, y, size-x-n, size-1-y)
		for px := x * scale; px < (x+n)*scale; px++ {
			for py := y * scale; py < (y+1)*scale; py++ {
				img.SetGray(px, py, color.Gray{})
			}
		}
	}
	if left != 4 {
		t.Errorf("the quiet zone is %d modules wide, want 4", left)
	}
	bits, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		t.Fatal(err)
	}
	read, err := qrcode.NewQRCodeReader().Decode(bits, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := "xrpl:" + anXRP + "?amount=10&dt=12345"; read.GetText() != want || *s.PayURI != want {
		t.Errorf("a scanner reads %q, the twin says %q, want %q", read.GetText(), *s.PayURI, want)
	}
	if !strings.Contains(html, `href="`+template.HTMLEscapeString(*s.PayURI)+`">Open in wallet`) {
		t.Error("the link does not lead where the QR code does")
	}
	code, err := qr.Encode(*s.PayURI, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for y := range code.Size {
		for x := range code.Size {
			if code.Black(x, y) {
				want++
			}
		}
	}
	if black != want {
		t.Errorf("%d black modules, want %d", black, want)
	}
}

// Nothing that came from outside is more than text on the page.
func TestPageEscapes(t *testing.T) {
	evil := `"><img src=x onerror=alert(1)>`
	v := viewed(func(v *View) {
		v.ID, v.PayAddress, v.DestinationTag, v.TxHash = evil, &evil, &evil, &evil
		v.Items = []ItemView{{Name: evil, Quantity: 1, UnitPrice: money("10")}}
		v.Shipments = []ShipmentView{{Carrier: evil, TrackingNumber: evil}}
	})
	html := drawn(t, "evil", v.forCustomer(evil, opening))
	if strings.Contains(html, "<img") || strings.Contains(html, `id="qr"`) || strings.Contains(html, `id="wallet"`) {
		t.Errorf("got through:\n%s", html)
	}
	if n := strings.Count(html, "&lt;img"); n < 8 {
		t.Errorf("shown %d times", n)
	}
}

// An amount finer than its currency is asked for rounded up: what is sent must do.
func TestMissingCanBeSent(t *testing.T) {
	v := viewed(func(v *View) { v.PaymentStatus, v.AmountPaid = Underpaid, money("9.9999995") })
	s := v.forCustomer("", opening)
	if s.Missing.String() != "0.000001" || *s.PayURI != "xrpl:"+anXRP+"?amount=0.000001&dt=12345" {
		t.Errorf("missing %s, %s", s.Missing, *s.PayURI)
	}
	if left := v.forCustomer("", v.ExpiresAt.Add(time.Minute)).SecondsLeft; *left != 0 {
		t.Errorf("after the deadline %d seconds are left", *left)
	}
}

// People get a page when there is no order, and another when the fault is ours.
func TestRefusalPages(t *testing.T) {
	for status, words := range map[int]string{404: "no order at this address", 503: "nothing is lost", 500: "nothing is lost"} {
		p := refusalOf(status)
		body, err := p.draw()
		if err != nil || !bytes.Contains(body, []byte(words)) || bytes.Contains(body, []byte(`class="steps"`)) || (p.Reload > 0) == (status == 404) {
			t.Errorf("%d: %v, %s", status, err, body)
		}
	}
}
