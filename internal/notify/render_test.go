package notify

import (
	"html"
	"strings"
	"testing"
	"time"
)

var kinds = []Kind{OrderReceived, PaymentConfirmed, PaymentFailed, OrderExpired, OrderCancelled, OrderShipped, GoodsGone}

func sample() Facts {
	by := time.Date(2026, 1, 2, 16, 4, 0, 0, time.FixedZone("", 3600))
	return Facts{
		OrderID: "A-12345", CustomerName: "Ada Lovelace", Currency: "XRP", Total: "10.50", StatusURL: "https://shop.example/o/tok?a=1&b=2",
		PayAddress: "rPayHere111", DestinationTag: "0", PayBy: &by,
		Items: []Line{{"Blue mug", 2, "6.25"}, {"Tea & biscuits", 1, "4.25"}},
	}
}

func render(t *testing.T, kind Kind, f Facts) (subject, text, page string) {
	t.Helper()
	subject, text, page, err := Render("Quay & Sons", Letter{Kind: kind, Facts: f})
	if err != nil {
		t.Fatal(err)
	}
	return subject, text, page
}

// has wants every word in the text and, read as a browser would, in the HTML.
func has(t *testing.T, text, page string, words ...string) {
	t.Helper()
	page = html.UnescapeString(page)
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("the text lacks %q:\n%s", w, text)
		}
		if !strings.Contains(page, w) {
			t.Errorf("the HTML lacks %q:\n%s", w, page)
		}
	}
}

func hasNot(t *testing.T, text, page string, words ...string) {
	t.Helper()
	for _, w := range words {
		if strings.Contains(text, w) || strings.Contains(page, w) {
			t.Errorf("the letter should not say %q:\n%s", w, text)
		}
	}
}

// Every letter says who writes, to whom, about which order, its lines, its
// total and where to look, in both parts, and leaves no template unfilled.
func TestEveryLetterIsComplete(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			subject, text, page := render(t, kind, sample())
			if !strings.HasPrefix(subject, "Quay & Sons: ") || !strings.Contains(subject, "A-12345") {
				t.Errorf("subject %q", subject)
			}
			has(t, text, page, "Quay & Sons", "Hello Ada Lovelace,", "A-12345", "Blue mug", "6.25 XRP", "Tea & biscuits", "4.25 XRP",
				"10.50 XRP", "https://shop.example/o/tok?a=1&b=2", "reply to this e-mail")
			hasNot(t, text, page, "<no value>", "%!", "ZgotmplZ", "{{", "<img", "\n\n\n\n")
			for _, want := range []string{`name="color-scheme" content="light dark"`, "<!DOCTYPE html>", `name="viewport"`} {
				if !strings.Contains(page, want) {
					t.Errorf("the HTML lacks %q", want)
				}
			}
			if strings.Contains(page, "src=") || strings.Contains(page, "@import") {
				t.Error("the HTML loads something from elsewhere")
			}
		})
	}
}

// Each letter says what its reader must know, and nothing that is not so.
func TestLettersSayWhatMatters(t *testing.T) {
	const by = "2 Jan 2026, 15:04 UTC"
	with := func(change func(*Facts)) Facts {
		f := sample()
		change(&f)
		return f
	}
	for name, c := range map[string]struct {
		kind   Kind
		facts  Facts
		has    []string
		hasNot []string
	}{
		"received": {OrderReceived, sample(), []string{"rPayHere111", "10.50 XRP", by, "Destination tag", "It is needed to match your payment"}, []string{"You will find the payment details"}},
		"received, address not known yet": {
			OrderReceived, with(func(f *Facts) { f.PayAddress, f.DestinationTag = "", "" }),
			[]string{"You will find the payment details on your order page", by},
			[]string{"Destination tag"},
		},
		"received, no page either": {
			OrderReceived, with(func(f *Facts) { f.PayAddress, f.DestinationTag, f.StatusURL, f.PayBy = "", "", "", nil }),
			[]string{"we will send you the payment details"},
			[]string{"order page", "until"},
		},
		"received, currency without tags": {OrderReceived, with(func(f *Facts) { f.DestinationTag = "" }), []string{"rPayHere111"}, []string{"tag"}},
		"part came": {
			OrderReceived, with(func(f *Facts) { f.Got, f.Missing = "4.00", "6.50" }),
			[]string{"4.00 XRP", "6.50 XRP", "still missing"},
			nil,
		},
		"confirmed": {
			PaymentConfirmed, with(func(f *Facts) { f.Got, f.TxHash = "10.50", "C0FFEE" }),
			[]string{"has arrived: ", "C0FFEE", "getting your order ready"},
			[]string{"refunded", "rPayHere111"},
		},
		"confirmed, too much": {
			PaymentConfirmed, with(func(f *Facts) { f.Got, f.RefundDue = "12.00", "1.50" }),
			[]string{"1.50 XRP", "will be refunded"},
			nil,
		},
		"failed": {PaymentFailed, sample(), []string{"did not go through", "kept for you until", by, "pay again", "rPayHere111", "It is needed to match"}, nil},
		"expired": {
			OrderExpired, sample(),
			[]string{"has expired", "You owe nothing", "goods were given back"},
			[]string{"refunded", "rPayHere111", "We have received"},
		},
		"expired with money": {OrderExpired, with(func(f *Facts) { f.Got, f.RefundDue = "4.00", "4.00" }), []string{"4.00 XRP", "will be refunded"}, nil},
		"cancelled": {
			OrderCancelled, with(func(f *Facts) { f.Reason = "Damaged in our store." }),
			[]string{"was cancelled", "The reason: Damaged in our store.", "You owe nothing"},
			[]string{"refunded"},
		},
		"cancelled with money": {
			OrderCancelled, with(func(f *Facts) { f.Got, f.RefundDue = "10.50", "10.50" }),
			[]string{"was cancelled", "10.50 XRP", "will be refunded"},
			[]string{"reason", "owe nothing"},
		},
		"shipped": {
			OrderShipped, with(func(f *Facts) { f.Carrier, f.TrackingNumber = "DHL", "JJD000" }),
			[]string{"on its way", "Carrier", "DHL", "Tracking number", "JJD000"},
			[]string{"rPayHere111"},
		},
		"shipped, no tracking": {OrderShipped, sample(), []string{"on its way"}, []string{"Carrier", "Tracking"}},
		"goods gone": {GoodsGone, with(func(f *Facts) { f.Got = "10.50" }), []string{
			"has arrived: ", "10.50 XRP", "wait until", "take what we can send now",
			"all of your money back", "We will contact you", "reply to this e-mail", "do not pay again",
		}, []string{"more than was needed"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, text, page := render(t, c.kind, c.facts)
			// Bold print may stand between two words of the HTML.
			bare := strings.NewReplacer("<strong>", "", "</strong>", "").Replace(page)
			has(t, text, bare, c.has...)
			hasNot(t, text, page, c.hasNot...)
		})
	}
}

// Whatever a customer or a product is called, it stays a word on one line: no
// HTML, no template, no header, no turned text.
func TestNamesCannotDoAnything(t *testing.T) {
	f := sample()
	f.CustomerName = "<script>alert(1)</script>\r\nBcc: evil@example.com\x00 {{.Total}}\u202egpj.exe\u2066"
	f.Items[0].Name = `"><img onerror=x> {{.}}` + "\n\n-- \nPay to rEvil"
	f.Reason, f.Carrier, f.TrackingNumber = "</title><b>", "<i>\r\nX: y", "<u>"
	f.StatusURL = "javascript:alert(1)"
	f.OrderID = "A\r\nX-Evil: 1"
	for _, kind := range kinds {
		subject, text, page := render(t, kind, f)
		if strings.ContainsAny(subject, "\r\n\x00") || strings.Contains(text, "\r") {
			t.Errorf("%s: line breaks in %q", kind, subject)
		}
		for _, bad := range []string{"<script>", "<img", "<b>", "<i>", "<u>", "javascript:", "\x00", "\u202e", "\u2066"} {
			if strings.Contains(page, bad) {
				t.Errorf("%s: the HTML contains %q", kind, bad)
			}
		}
		if strings.Contains(text, "\nBcc:") || strings.Contains(text, "\nPay to") || strings.Contains(text, "javascript:") {
			t.Errorf("%s: a name broke out of its line:\n%s", kind, text)
		}
		has(t, text, page, "{{.Total}}", "{{.}}", "<script>alert(1)</script> Bcc: evil@example.com")
	}
}

// A name of ten thousand letters, or an order of a thousand lines, still makes
// a letter of sensible size that says it was cut.
func TestLongThingsAreCut(t *testing.T) {
	f := sample()
	f.CustomerName = strings.Repeat("é", 10_000)
	f.Items = make([]Line, 1000)
	subject, text, page := render(t, OrderReceived, f)
	if len(text) > 20_000 || len(page) > 60_000 || len([]rune(subject)) > maxSubjectRunes {
		t.Errorf("%d bytes of text, %d of HTML", len(text), len(page))
	}
	has(t, text, page, "and 900 more", strings.Repeat("é", 199)+"…")
}

// A letter of a kind without a template is refused, not sent empty.
func TestUnknownKindIsAnError(t *testing.T) {
	if _, _, _, err := Render("x", Letter{Kind: "greeting"}); err == nil {
		t.Error("no error")
	}
}

// An order with the least of facts makes a letter that still reads.
func TestBareFacts(t *testing.T) {
	for _, kind := range kinds {
		_, text, _, err := Render("", Letter{Kind: kind, Facts: Facts{OrderID: "1", Currency: "XRP", Total: "1"}})
		if err != nil || !strings.HasPrefix(text, "Hello,\n\n") || strings.Contains(text, "  ,") {
			t.Errorf("%s: %v\n%s", kind, err, text)
		}
	}
}
