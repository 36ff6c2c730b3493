package notify

import (
	"embed"
	"fmt"
	html "html/template"
	"net/url"
	"regexp"
	"slices"
	"strings"
	text "text/template"
	"time"
	"unicode"
)

//go:embed templates
var files embed.FS

// pair is the template of one kind. KIND.txt defines subject, title and the
// text's body; KIND.html defines preheader, badge, perhaps button, and the
// HTML's body. The layouts around them are letter.txt and letter.html.
type pair struct {
	text *text.Template
	html *html.Template
}

// Kinds are all kinds of letters, in the order of an order's life.
var Kinds = []Kind{OrderReceived, PaymentConfirmed, PaymentFailed, OrderExpired, OrderCancelled, OrderShipped, GoodsGone, RefundSent}

var templates = func() map[Kind]pair {
	all := map[Kind]pair{}
	for _, kind := range Kinds {
		words, body := "templates/"+string(kind)+".txt", "templates/"+string(kind)+".html"
		all[kind] = pair{
			text: text.Must(text.New("letter.txt").Funcs(funcs).ParseFS(files, "templates/letter.txt", words)),
			html: html.Must(html.New("letter.html").Funcs(funcs).ParseFS(files, "templates/letter.html", words, body)), // body's body counts, it comes later
		}
	}
	return all
}()

var funcs = map[string]any{
	"utc":  func(t *time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") },
	"row":  row,
	"rule": rule,
	"fact": func(style, label, value string) fact { return fact{style, label, value} },
	// Outlook on Windows knows no max-width: a table only it can see holds the letter together.
	"outlook": func(end int) html.HTML {
		return []html.HTML{
			`<!--[if mso]><table role="presentation" align="center" width="600" cellpadding="0" cellspacing="0"><tr><td><![endif]-->`,
			`<!--[if mso]></td></tr></table><![endif]-->`,
		}[end]
	},
	// Blanks behind the preheader, so that an inbox shows it alone and not the greeting after it.
	"filler": func() html.HTML { return html.HTML(strings.Repeat("&#8199;&#847; ", 70)) }, //nolint:gosec // a constant
}

// fact is a label with a value beneath it; style is "big", "code" or "".
type fact struct{ Style, Label, Value string }

// page is what a template sees.
type page struct {
	Shop string
	Kind Kind
	Facts
	More int // items beyond those listed
}

// ToPay is what is still missing, the total when nothing came yet.
func (p page) ToPay() string {
	if p.Missing != "" {
		return p.Missing
	}
	return p.Total
}

// linkLike finds what mail programs would turn into a link. A name that is one
// was typed to send somebody else's customers there.
var linkLike = regexp.MustCompile(`(?i)[/@]|www\.|\pL{2,}\.\pL{2,}`)

// Greeting is the name to greet, "" for none.
func (p page) Greeting() string {
	if linkLike.MatchString(p.CustomerName) {
		return ""
	}
	return plain(p.CustomerName, maxGreetingRunes)
}

// total is a row beneath the items.
type total struct {
	Label, Value string
	Strong       bool // it is the sum that matters
}

// Totals are what the order costs and how the money stands.
func (p page) Totals() []total {
	paying := p.Kind == OrderReceived || p.Kind == PaymentFailed
	all := []total{
		{"Order total", p.Total, true},
		{"Received", p.Got, false},
		{"Still to pay", p.Missing, paying},
		{"To be refunded", p.RefundDue, true},
	}
	return slices.DeleteFunc(all, func(t total) bool { return t.Value == "" || t.Label == "Still to pay" && !paying })
}

const (
	maxNameRunes     = 200
	maxGreetingRunes = 60 // fits a line of text, so no part of a name ever begins one
	maxReasonRunes   = 1000
	maxSubjectRunes  = 200
	maxListedItems   = 100
)

// Render writes a letter in the name of shop: the subject, the plain text and
// the HTML. The error means that the letter can never be written.
func Render(shop string, l Letter) (subject, body, page string, err error) {
	t, known := templates[l.Kind]
	if !known {
		return "", "", "", fmt.Errorf("letter %s: there is no template %q", l.ID, l.Kind)
	}
	data := pageOf(shop, l.Kind, l.Facts)
	var s, b, h strings.Builder
	if err = t.text.ExecuteTemplate(&s, "subject", data); err == nil {
		err = t.text.Execute(&b, data)
	}
	if err == nil {
		err = t.html.Execute(&h, data)
	}
	if err != nil {
		return "", "", "", fmt.Errorf("letter %s: %w", l.ID, err)
	}
	return plain(s.String(), maxSubjectRunes), tidy(b.String()), strings.TrimSpace(h.String()) + "\n", nil
}

func pageOf(shop string, kind Kind, f Facts) page {
	f = plainFacts(f)
	p := page{Shop: plain(shop, maxNameRunes), Kind: kind, Facts: f}
	if p.Shop == "" {
		p.Shop = "our shop"
	}
	if len(f.Items) > maxListedItems {
		p.Items, p.More = f.Items[:maxListedItems], len(f.Items)-maxListedItems
	}
	p.Parcel = f.Parcel[:min(len(f.Parcel), maxListedItems)]
	return p
}

// plainFacts is f with every word on one line, of sensible length, without
// signs that hide or turn what stands beside them. Links are http or nothing.
func plainFacts(f Facts) Facts {
	f.Reason = plain(f.Reason, maxReasonRunes)
	f.StatusURL = link(f.StatusURL)
	for _, s := range []*string{
		&f.OrderID, &f.CustomerName, &f.Currency, &f.Total, &f.Got, &f.Missing, &f.RefundDue,
		&f.PayAddress, &f.DestinationTag, &f.TxHash, &f.Carrier, &f.TrackingNumber,
	} {
		*s = plain(*s, maxNameRunes)
	}
	f.Items, f.Parcel = plainLines(f.Items), plainLines(f.Parcel)
	return f
}

func plainLines(lines []Line) []Line {
	all := make([]Line, len(lines))
	for i, it := range lines {
		all[i] = Line{Name: plain(it.Name, maxNameRunes), Quantity: it.Quantity, Price: plain(it.Price, maxNameRunes)}
	}
	return all
}

// plain makes s one line of at most limit runes: controls and line breaks
// become spaces, invisible signs (bidi overrides and isolates) vanish.
func plain(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return ' '
		case r == '\u200e', r == '\u200f', r == '\u061c', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069', r == '\ufeff':
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > limit {
		s = strings.TrimSpace(string(runes[:limit-1])) + "…"
	}
	return s
}

func link(s string) string {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || strings.ContainsFunc(s, unicode.IsSpace) {
		return ""
	}
	return u.String()
}
