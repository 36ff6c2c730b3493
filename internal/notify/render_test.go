package notify

import (
	"html"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

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

var insideSentences = regexp.MustCompile(`</?(bdi|strong)( [^>]*)?>`)

// onOneLine reads a letter without its line breaks, and without the tags that
// stand inside sentences.
func onOneLine(s string) string {
	return strings.Join(strings.Fields(insideSentences.ReplaceAllString(s, "")), " ")
}

// has wants every word in the text and, read as a browser would, in the HTML.
func has(t *testing.T, text, page string, words ...string) {
	t.Helper()
	text, page = onOneLine(text), onOneLine(html.UnescapeString(page))
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
	for _, kind := range Kinds {
		t.Run(string(kind), func(t *testing.T) {
			subject, text, page := render(t, kind, sample())
			if !strings.Contains(subject, "rder A-12345") || len(subject) > 70 {
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
			[]string{"4.00 XRP", "6.50 XRP", "still missing", "Still to pay"},
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
		"failed": {PaymentFailed, sample(), []string{"did not go through", "kept for you until " + by, "pay again", "rPayHere111", "It is needed to match"}, nil},
		"failed, no deadline known": {
			PaymentFailed, with(func(f *Facts) { f.PayBy = nil }),
			[]string{"pay again"},
			[]string{"kept", "until"},
		},
		"expired": {
			OrderExpired, sample(),
			[]string{"has expired", "You owe nothing", "goods were given back"},
			[]string{"refunded", "rPayHere111", "We have received"},
		},
		"expired with money": {OrderExpired, with(func(f *Facts) { f.Got, f.Missing, f.RefundDue = "4.00", "6.50", "4.00" }), []string{"4.00 XRP", "will be refunded"}, []string{"6.50", "Still to pay"}},
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
		"shipped in part": {
			OrderShipped, with(func(f *Facts) { f.Parcel = []Line{{Name: "Blue mug", Quantity: 2}} }),
			[]string{"Part of your order is on its way", "What is not listed here travels separately"},
			[]string{"Your order is on its way"},
		},
		"shipped, no tracking": {OrderShipped, sample(), []string{"on its way"}, []string{"Carrier", "Tracking"}},
		"goods gone": {GoodsGone, with(func(f *Facts) { f.Got = "10.50" }), []string{
			"has arrived: ", "10.50 XRP", "wait until", "take what we can send now",
			"all of your money back", "choose on your order page", "do not pay again",
		}, []string{"more than was needed"}},
		"refund sent": {RefundSent, with(func(f *Facts) {
			f.Refund = &Repayment{Amount: "4.50", Currency: "XLM", Address: "GCustomer", DestinationTag: "0", TxHash: "0F0F0F0F"}
		}), []string{"sent you 4.50 XLM back for order", "GCustomer", "Destination tag", "Transaction, for your records", "0F0F0F0F", "reply to this e-mail"}, []string{"rPayHere111", "will be refunded"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, text, page := render(t, c.kind, c.facts)
			has(t, text, page, c.has...)
			hasNot(t, text, page, c.hasNot...)
		})
	}
}

// Whatever a customer or a product is called, it stays a word on one line: no
// HTML, no template, no header, no turned text, and no link to somebody else.
func TestNamesCannotDoAnything(t *testing.T) {
	f := sample()
	f.CustomerName = "<script>alert(1)<script>\r\nBcc:\x00 {{.Total}}\u202egpj\u2066"
	f.Items[0].Name = `"><img onerror=x> {{.}}` + "\n\n-- \nPay to rEvil"
	f.Parcel = f.Items[:1]
	f.Reason, f.Carrier, f.TrackingNumber = "</title><b>", "<i>\r\nX: y", "<u>"
	f.StatusURL = "javascript:alert(1)"
	f.OrderID = "A\r\nX-Evil: 1"
	for _, kind := range Kinds {
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
		has(t, text, page, "Hello <script>alert(1)<script> Bcc: {{.Total}}gpj,", "{{.}}")
	}
}

// A name that mail programs would show as a link is not greeted: it was typed
// to make the shop send it to somebody.
func TestNamesThatAreLinks(t *testing.T) {
	for name, want := range map[string]string{
		"Ada Lovelace": "Hello Ada Lovelace,", "J.R.R. Tolkien": "Hello J.R.R. Tolkien,", "Dr. Ölçer": "Hello Dr. Ölçer,", "李小龙": "Hello 李小龙,", "": "Hello,",
		"https://evil.example": "Hello,", "You won: evil.example": "Hello,", "WWW.evil": "Hello,", "me@evil.example": "Hello,", "пример.рф": "Hello,",
	} {
		f := sample()
		f.CustomerName = name
		_, text, page := render(t, OrderReceived, f)
		has(t, text, page, want)
	}
}

// A name of ten thousand letters, or an order of a thousand lines, still makes
// a letter of sensible size that says it was cut.
func TestLongThingsAreCut(t *testing.T) {
	f := sample()
	f.CustomerName = strings.Repeat("é", 10_000)
	f.Items = slices.Repeat([]Line{{strings.Repeat("mug ", 5_000), 1, "6.25"}}, 1000)
	subject, text, page := render(t, OrderReceived, f)
	if len(text) > 40_000 || len(page) > 70_000 || len([]rune(subject)) > maxSubjectRunes {
		t.Errorf("%d bytes of text, %d of HTML", len(text), len(page))
	}
	has(t, text, page, "and 900 more", "Hello "+strings.Repeat("é", 59)+"…,", strings.Repeat("mug ", 48)+"mug…")
}

// No line of the text is wider than a mail program shows, except for words that
// would not work when broken, and prices stand at the right edge.
func TestTextIsAligned(t *testing.T) {
	f := sample()
	f.StatusURL = "https://shop.example/o/" + strings.Repeat("t", 80)
	f.Reason = strings.Repeat("very sorry ", 40)
	f.Items = []Line{{"Mug", 1, "1.00"}, {strings.Repeat("with many words ", 10), 12, "1234567.123456"}, {"Ελιές", 3, "5.50"}}
	for _, kind := range Kinds {
		_, text, _ := render(t, kind, f)
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if n := len([]rune(line)); n > textWidth && line != f.StatusURL {
				t.Errorf("%s: %d columns: %s", kind, n, line)
			}
			if strings.HasSuffix(line, " XRP") && strings.Contains(line, "    ") && !strings.Contains(line, ":") && len([]rune(line)) != textWidth {
				t.Errorf("%s: a price stands elsewhere: %s", kind, line)
			}
		}
		for _, want := range []string{"\n" + f.StatusURL + "\n", "\n  3 x Ελιές   ", "\n    with many"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", kind, want, text)
			}
		}
	}
}

// A word that is too long for its line stays whole, and its price comes after.
func TestRow(t *testing.T) {
	long := strings.Repeat("x", 80)
	for _, c := range []struct{ left, right, want string }{
		{"1 x Mug", "1.00 XRP", "  1 x Mug" + strings.Repeat(" ", textWidth-17) + "1.00 XRP"},
		{"1 x " + long, "1.00 XRP", "  1 x\n    " + long + " 1.00 XRP"},
		{"", "", "  " + strings.Repeat(" ", textWidth-2)},
	} {
		if got := row(c.left, c.right); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// A letter of a kind without a template is refused, not sent empty.
func TestUnknownKindIsAnError(t *testing.T) {
	if _, _, _, err := Render("x", Letter{Kind: "greeting"}); err == nil {
		t.Error("no error")
	}
}

// An order with the least of facts makes a letter that still reads.
func TestBareFacts(t *testing.T) {
	for _, kind := range Kinds {
		_, text, _, err := Render("", Letter{Kind: kind, Facts: Facts{OrderID: "1", Currency: "XRP", Total: "1"}})
		if err != nil || !strings.Contains(text, "\nHello,\n\n") || !strings.HasPrefix(text, "our shop\n") || strings.Contains(text, "  ,") {
			t.Errorf("%s: %v\n%s", kind, err, text)
		}
	}
}
