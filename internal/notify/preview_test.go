package notify

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"quayside/internal/browsertest"
)

// previews are the letters as docs/mails.md shows them.
func previews() map[Kind]Facts {
	all := map[Kind]Facts{}
	for _, kind := range Kinds {
		f := sample()
		f.OrderID, f.CustomerName, f.Total = "1001", "Ada Lovelace", "17.00"
		f.StatusURL = "https://shop.example/o/kv7h2mwn4qbzs6r5xt3cpd8fyj9gla2e"
		f.PayAddress, f.DestinationTag = "rQuaysideDemoAddressNobodyHasThis", "1001337"
		f.Items = []Line{{"Enamel mug, blue", 2, "12.50"}, {"Tea & biscuits", 1, "4.50"}}
		switch kind {
		case PaymentConfirmed:
			f.Got, f.TxHash = "17.00", "7F3A1C5E9B2D4F6081A3C5E7092B4D6F8A1C3E5F70921B4D6F8A0C2E4F608192"
		case OrderExpired:
			f.Got, f.RefundDue = "5.00", "5.00"
		case OrderCancelled:
			f.Got, f.RefundDue, f.Reason = "17.00", "17.00", "The mugs arrived broken at our store, and no others can be had."
		case OrderShipped:
			f.Carrier, f.TrackingNumber, f.Parcel = "DHL", "JD014600003828", []Line{{Name: "Enamel mug, blue", Quantity: 2}}
		case GoodsGone:
			f.Got = "17.00"
		case RefundSent:
			f.Refund = &Repayment{Amount: "17.00", Currency: "XRP", Address: "rCustomerDemoAddressNobodyHasThis", DestinationTag: "42", TxHash: "0B5D1C7E9B2D4F6081A3C5E7092B4D6F8A1C3E5F70921B4D6F8A0C2E4F60AA17"}
		case OrderReceived, PaymentFailed:
		}
		all[kind] = f
	}
	return all
}

// hostile is what a letter must survive without growing wider than a phone.
func hostile() Facts {
	f := previews()[OrderReceived]
	f.OrderID = strings.Repeat("A1b2", 16)
	f.CustomerName = strings.Repeat("Wolfeschlegelsteinhausenbergerdorff", 2)
	f.Total, f.Got, f.Missing = "999999999999999999.999999", "0.000001", "999999999999999999.999998"
	f.Items = []Line{
		{strings.Repeat("x", 200), 1_000_000, "123456789012345678.123456"},
		{"\u202eقهوة عربية 250\u202c g <b>\"&", 3, "4.50"},
		{"コーヒー豆", 1, "1.00"},
	}
	f.TrackingNumber, f.TxHash = strings.Repeat("7F", 60), strings.Repeat("7F", 64)
	f.Refund = &Repayment{Amount: f.Total, Currency: f.Currency, Address: strings.Repeat("r", 128), DestinationTag: "4294967295", TxHash: f.TxHash}
	return f
}

// Every letter fits a phone and a desktop, in light and dark colours with
// enough contrast, asks for nothing from elsewhere and shows its button. With
// QUAYSIDE_SCREENSHOTS set its pictures are kept.
func TestLettersInABrowser(t *testing.T) {
	t.Parallel()
	b := browsertest.Open(t)
	if b == nil {
		return
	}
	var pages map[string]string
	asked := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, known := pages[strings.TrimPrefix(r.URL.Path, "/")]
		if !known && r.URL.Path != "/favicon.ico" {
			asked <- r.URL.Path
		}
		_, _ = w.Write([]byte(page))
	}))
	t.Cleanup(s.Close)
	pages = map[string]string{}
	for kind, f := range previews() {
		_, _, pages[string(kind)] = render(t, kind, f)
		_, _, pages["hostile-"+string(kind)] = render(t, kind, hostile())
	}
	for name := range pages {
		for _, screen := range []browsertest.Screen{browsertest.Phone, browsertest.DarkPhone, browsertest.Desktop} {
			b.Show(screen, s.URL+"/"+name)
			if over := browsertest.Ask[int](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
				t.Errorf("%s is %d px wider than a %s", name, over, screen.Name)
			}
			if faint := browsertest.Ask[[]string](b, browsertest.FaintWords); len(faint) > 0 {
				t.Errorf("%s on a %s is hard to read: %q", name, screen.Name, faint)
			}
			if n := browsertest.Ask[int](b, `performance.getEntriesByType('resource').filter(e => !e.name.endsWith('/favicon.ico')).length`); n > 0 {
				t.Errorf("%s loads %d things", name, n)
			}
			if n := browsertest.Ask[int](b, `[...document.links].filter(a => a.getBoundingClientRect().height >= 44).length`); n != 1 {
				t.Errorf("%s on a %s has %d buttons that a thumb can hit", name, screen.Name, n)
			}
			if !strings.HasPrefix(name, "hostile-") {
				b.Keep("mail-"+name+"-"+screen.Name, true)
			}
		}
	}
	select {
	case path := <-asked:
		t.Errorf("a letter asked for %s", path)
	default:
	}
}

// The mail catcher shows our letters as they went out, to a browser with light
// and with dark colours. With QUAYSIDE_SCREENSHOTS set its pictures are kept.
func TestLettersInTheMailCatcher(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	b := browsertest.Open(t)
	if b == nil {
		return
	}
	b.Show(browsertest.Desktop, f.mails.PageURL)
	b.Keep("mailcatcher-empty", false)
	facts := previews()
	for i, kind := range []Kind{OrderExpired, PaymentFailed, OrderShipped, PaymentConfirmed, OrderReceived} {
		l := Letter{OrderID: fmt.Sprint(1004 - max(0, i-1)), Kind: kind, Address: []string{"grace@customers.example", "ada@customers.example"}[min(i/2, 1)], Facts: facts[kind]}
		l.Facts.OrderID = l.OrderID
		f.post(l)
	}
	for _, l := range f.rows() {
		f.try(l.ID)
	}
	b.Await(`document.querySelectorAll("#list li").length === 5`)
	b.Show(browsertest.Desktop, f.mails.PageURL+"mail/5")
	b.Keep("mailcatcher-desktop", false)
	b.Show(browsertest.DarkDesktop, f.mails.PageURL+"mail/5?view=dark")
	b.Keep("mailcatcher-desktop-dark", false)
	b.Show(browsertest.Desktop, f.mails.PageURL+"mail/5?view=text")
	b.Keep("mailcatcher-text", false)
	b.Show(browsertest.Phone, f.mails.PageURL)
	b.Keep("mailcatcher-phone", false)
	b.Show(browsertest.Phone, f.mails.PageURL+"mail/5")
	b.Keep("mailcatcher-phone-mail", false)
	if got := browsertest.Ask[string](b, `document.querySelector(".head dl").textContent`); !strings.Contains(got, "Order1001") {
		t.Errorf("the catcher does not know the order: %s", got)
	}
}
