package notify

import (
	"embed"
	"fmt"
	html "html/template"
	"net/url"
	"strings"
	text "text/template"
	"time"
	"unicode"
)

//go:embed templates
var files embed.FS

// A template of one kind: KIND.txt defines subject and body, KIND.html
// preheader and body. The layouts around them are letter.txt and letter.html.
type pair struct {
	text *text.Template
	html *html.Template
}

var templates = func() map[Kind]pair {
	all := map[Kind]pair{}
	for _, kind := range []Kind{OrderReceived, PaymentConfirmed, PaymentFailed, OrderExpired, OrderCancelled, OrderShipped, GoodsGone} {
		name := "templates/" + string(kind)
		all[kind] = pair{
			text: text.Must(text.New("letter.txt").Funcs(funcs).ParseFS(files, "templates/letter.txt", name+".txt")),
			html: html.Must(html.New("letter.html").Funcs(funcs).ParseFS(files, "templates/letter.html", name+".html")),
		}
	}
	return all
}()

var funcs = map[string]any{
	"utc": func(t *time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") },
}

// page is what a template sees.
type page struct {
	Shop string
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

const (
	maxNameRunes    = 200
	maxReasonRunes  = 1000
	maxSubjectRunes = 200
	maxListedItems  = 100
)

// Render writes a letter in the name of shop: the subject, the plain text and
// the HTML. The error means that the letter can never be written.
func Render(shop string, l Letter) (subject, body, page string, err error) {
	t, known := templates[l.Kind]
	if !known {
		return "", "", "", fmt.Errorf("letter %s: there is no template %q", l.ID, l.Kind)
	}
	data := pageOf(shop, l.Facts)
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
	return plain(s.String(), maxSubjectRunes), tidy(b.String()), h.String(), nil
}

func pageOf(shop string, f Facts) page {
	f = plainFacts(f)
	p := page{Shop: plain(shop, maxNameRunes), Facts: f}
	if p.Shop == "" {
		p.Shop = "our shop"
	}
	if len(f.Items) > maxListedItems {
		p.Items, p.More = f.Items[:maxListedItems], len(f.Items)-maxListedItems
	}
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
	items := make([]Line, len(f.Items))
	for i, it := range f.Items {
		items[i] = Line{Name: plain(it.Name, maxNameRunes), Quantity: it.Quantity, Price: plain(it.Price, maxNameRunes)}
	}
	f.Items = items
	return f
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

// tidy leaves one empty line where templates made several.
func tidy(s string) string {
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		line = strings.TrimRight(line, " ")
		if line == "" && (len(out) == 0 || out[len(out)-1] == "") {
			continue
		}
		out = append(out, line)
	}
	return strings.TrimRight(strings.Join(out, "\n"), "\n") + "\n"
}
