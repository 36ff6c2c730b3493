package devstack

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed mailpage.html
var mailPageHTML string

//go:embed mailpage.js
var mailPageScript string

var mailPage = template.Must(template.New("").Funcs(template.FuncMap{
	"join":    strings.Join,
	"headers": readHeaders,
	"title": func(view string) string {
		return map[string]string{"html": "HTML", "text": "Text", "headers": "Headers", "source": "Source"}[view]
	},
	"clock": func(t time.Time) string {
		if now := time.Now(); t.YearDay() == now.YearDay() && t.Year() == now.Year() {
			return t.Format("15:04:05")
		}
		return t.Format("2 Jan 15:04")
	},
}).Parse(mailPageHTML))

// A mail may come from anybody, so no page runs a script but the one of the
// list, and the mail's own HTML is shown in a frame without an origin that
// loads nothing from elsewhere. Its links open in a new tab.
var (
	pagePolicy = "default-src 'none'; script-src '" + digestOf(mailPageScript) + "'; connect-src 'self'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
	mailPolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
	dataPolicy = "default-src 'none'; frame-ancestors 'none'; sandbox"
)

func digestOf(script string) string {
	sum := sha256.Sum256([]byte(script))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

func (m *MailCatcher) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { m.render(w, r, nil) })
	mux.HandleFunc("POST /clear", func(w http.ResponseWriter, r *http.Request) {
		m.Clear()
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /changes", m.tellChanges)
	mux.HandleFunc("GET /mail/{id}", m.withMail(m.render))
	mux.HandleFunc("GET /mail/{id}/html", m.withMail(func(w http.ResponseWriter, _ *http.Request, mail *Mail) {
		// The first doctype and the first base of a page count, so these are ours.
		write(w, "text/html", mailPolicy, `<!doctype html><base target="_blank">`+mail.HTML)
	}))
	mux.HandleFunc("GET /mail/{id}/raw", m.withMail(func(w http.ResponseWriter, _ *http.Request, mail *Mail) {
		write(w, "text/plain", dataPolicy, mail.Raw)
	}))
	mux.HandleFunc("GET /api/messages", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, map[string]any{"messages": m.search(r.FormValue("q"))})
	})
	mux.HandleFunc("GET /api/messages/{id}", m.withMail(func(w http.ResponseWriter, _ *http.Request, mail *Mail) { writeJSON(w, mail) }))
	mux.HandleFunc("DELETE /api/messages", func(w http.ResponseWriter, _ *http.Request) {
		m.Clear()
		w.WriteHeader(http.StatusNoContent)
	})
	return http.NewCrossOriginProtection().Handler(mux) // no page from elsewhere may delete
}

// search returns the mails in which all words of q occur, in any case, the
// newest first. It is never nil, so that JSON says [] and not null.
func (m *MailCatcher) search(q string) []Mail {
	words := strings.Fields(strings.ToLower(q))
	mails := slices.DeleteFunc(append([]Mail{}, m.Messages()...), func(mail Mail) bool {
		if len(words) == 0 {
			return false
		}
		all := strings.ToLower(strings.Join([]string{mail.Subject, mail.From, strings.Join(mail.To, " "), mail.Order, mail.Text}, "\n"))
		return slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(all, word) })
	})
	slices.Reverse(mails)
	return mails
}

// tellChanges sends an event whenever the list has changed, until the reader goes.
func (m *MailCatcher) tellChanges(w http.ResponseWriter, r *http.Request) {
	write(w, "text/event-stream", dataPolicy, ": listening\n\n")
	for flush := http.NewResponseController(w); ; {
		changed := m.onChange()
		if flush.Flush() != nil {
			return
		}
		select {
		case <-changed:
			_, _ = io.WriteString(w, "data: changed\n\n") // Flush says whether the reader has gone
		case <-r.Context().Done():
			return
		}
	}
}

// withMail finds the mail that the path names.
func (m *MailCatcher) withMail(show func(http.ResponseWriter, *http.Request, *Mail)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		mails := m.Messages()
		i, found := slices.BinarySearchFunc(mails, id, func(mail Mail, id int) int { return mail.ID - id })
		switch {
		case err == nil && found:
			show(w, r, &mails[i])
		case strings.HasPrefix(r.URL.Path, "/api/"):
			http.Error(w, "no such mail", http.StatusNotFound)
		default:
			m.render(w, r, nil)
		}
	}
}

// inbox is what the page shows.
type inbox struct {
	Query  string
	Mails  []Mail // those that match it
	Total  int    // of all mails
	Keep   int
	Mail   *Mail  // the one that is open, nil for none
	Gone   bool   // the one asked for is not there
	View   string // html, phone, dark, text, headers or source
	Views  []string
	Script template.JS
}

func (m *MailCatcher) render(w http.ResponseWriter, r *http.Request, mail *Mail) {
	in := inbox{
		Query: r.FormValue("q"), Total: len(m.Messages()), Keep: keepMails, Mail: mail, Gone: mail == nil && r.URL.Path != "/",
		Script: template.JS(mailPageScript), //nolint:gosec // ours, embedded
	}
	in.Mails = m.search(in.Query)
	if mail != nil {
		if mail.HTML != "" {
			in.Views = append(in.Views, "html")
		}
		if mail.Text != "" {
			in.Views = append(in.Views, "text")
		}
		in.Views = append(in.Views, "headers", "source")
		in.View = r.FormValue("view")
		phone := mail.HTML != "" && (in.View == "phone" || in.View == "dark")
		if !phone && !slices.Contains(in.Views, in.View) {
			in.View = in.Views[0]
		}
	}
	var page strings.Builder
	if err := mailPage.ExecuteTemplate(&page, "page", in); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	status := http.StatusOK
	if in.Gone {
		status = http.StatusNotFound
	}
	writeAs(w, status, "text/html", pagePolicy, page.String())
}

// Opens reports whether the mail of this id is the one that is open.
func (in inbox) Opens(id int) bool { return in.Mail != nil && in.Mail.ID == id }

// Tab is the one that View belongs to: a mail's HTML can be looked at in three ways.
func (in inbox) Tab() string {
	if in.View == "phone" || in.View == "dark" {
		return "html"
	}
	return in.View
}

// Home is the list, with the search kept.
func (in inbox) Home() string { return in.link("/", "") }

// Link is the address of a mail in a view, with the search kept.
func (in inbox) Link(id int, view string) string { return in.link("/mail/"+strconv.Itoa(id), view) }

func (in inbox) link(path, view string) string {
	q := url.Values{}
	if view != "" {
		q.Set("view", view)
	}
	if in.Query != "" {
		q.Set("q", in.Query)
	}
	return (&url.URL{Path: path, RawQuery: q.Encode()}).String()
}

// Count says how many mails there are.
func (in inbox) Count() string {
	switch {
	case in.Query != "":
		return fmt.Sprintf("%d of %d", len(in.Mails), in.Total)
	case in.Total == 0:
		return "none"
	}
	return strconv.Itoa(in.Total)
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, "application/json", dataPolicy, string(b))
}

func write(w http.ResponseWriter, kind, policy, body string) {
	writeAs(w, http.StatusOK, kind, policy, body)
}

func writeAs(w http.ResponseWriter, status int, kind, policy, body string) {
	h := w.Header()
	h.Set("Content-Type", kind+"; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // the reader may have gone
}
