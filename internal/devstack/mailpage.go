package devstack

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

//go:embed mailpage.html
var mailPageHTML string

var mailPage = template.Must(template.New("").Funcs(template.FuncMap{
	"join": strings.Join,
}).Parse(mailPageHTML))

// A mail may come from anybody, so no page runs a script, and the mail's own HTML is shown in a
// frame without an origin that loads nothing from elsewhere. Its links open in a new tab.
const (
	pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	mailPolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)

func (m *MailCatcher) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		render(w, "list", m.newestFirst())
	})
	mux.HandleFunc("GET /mail/{id}", m.withMail(func(w http.ResponseWriter, mail Mail) {
		render(w, "mail", mail)
	}))
	mux.HandleFunc("GET /mail/{id}/html", m.withMail(func(w http.ResponseWriter, mail Mail) {
		// The first doctype and the first base of a page count, so these are ours.
		write(w, "text/html", mailPolicy, `<!doctype html><base target="_blank">`+mail.HTML)
	}))
	mux.HandleFunc("GET /mail/{id}/raw", m.withMail(func(w http.ResponseWriter, mail Mail) {
		write(w, "text/plain", pagePolicy, mail.Raw)
	}))
	mux.HandleFunc("GET /api/messages", func(w http.ResponseWriter, _ *http.Request) {
		b, err := json.Marshal(map[string]any{"messages": m.newestFirst()})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		write(w, "application/json", pagePolicy, string(b))
	})
	return mux
}

// newestFirst is never nil, so that JSON says [] and not null.
func (m *MailCatcher) newestFirst() []Mail {
	mails := append([]Mail{}, m.Messages()...)
	slices.Reverse(mails)
	return mails
}

// withMail finds the mail that the path names.
func (m *MailCatcher) withMail(show func(http.ResponseWriter, Mail)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		mails := m.Messages()
		i, found := slices.BinarySearchFunc(mails, id, func(mail Mail, id int) int { return mail.ID - id })
		if err != nil || !found {
			w.WriteHeader(http.StatusNotFound)
			render(w, "gone", nil)
			return
		}
		show(w, mails[i])
	}
}

func render(w http.ResponseWriter, name string, data any) {
	var page strings.Builder
	if err := mailPage.ExecuteTemplate(&page, name, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, "text/html", pagePolicy, page.String())
}

func write(w http.ResponseWriter, kind, policy, body string) {
	h := w.Header()
	h.Set("Content-Type", kind+"; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, body) // the reader may have gone
}
