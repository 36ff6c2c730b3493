//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"quayside/internal/notify"
)

// A customer who mistyped their address gets the letter after all: the shop
// finds it, reads it, and sends it again to the right one. Once the order is
// paid nobody can ask them to pay any more. Every answer is as documented.
func TestEmailsOverTheAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 5)
	doc := w.openAPI()
	ask := func(operation string, want int, method, path, body string, into any) {
		t.Helper()
		r := w.ask(method, path, body)
		if r.status != want {
			t.Fatalf("%s: %d %s", operation, r.status, r.body)
		}
		var v any
		w.must(json.Unmarshal([]byte(r.body), &v))
		w.must(json.Unmarshal([]byte(r.body), into))
		for _, operations := range doc.Paths {
			for _, o := range operations {
				if o.OperationID == operation {
					for _, complaint := range doc.fits(o.Responses[fmt.Sprint(want)].Content["application/json"].Schema, v, operation) {
						t.Error(complaint)
					}
				}
			}
		}
	}
	o := w.open("typo", "mug", "customer", map[string]any{"email": "ada@exmaple.example", "name": "Ada"})
	w.tell("payment.created", o)
	first := w.letterTo("ada@exmaple.example", "please pay")
	w.await("the letter to be noted as sent", func() bool { return w.count(`SELECT count(*) FROM letters WHERE state = 'sent'`) == 1 })

	var list struct{ Data []notify.EmailView }
	ask("list-emails", 200, http.MethodGet, "/api/v1/emails?to=ADA@exmaple.example&state=sent", "", &list)
	if len(list.Data) != 1 || list.Data[0].MessageID != first.MessageID {
		t.Fatalf("found %+v", list.Data)
	}
	path := "/api/v1/emails/" + list.Data[0].ID
	var one notify.EmailDetail
	ask("show-email", 200, http.MethodGet, path, "", &one)
	if one.Text != first.Text || one.HTML != first.HTML || one.Rendered != "stored" {
		t.Errorf("shows %+v", one)
	}
	var again notify.EmailView
	ask("resend-email", 201, http.MethodPost, path+"/resends", `{"to":"ada@example.example","note":"she mistyped it"}`, &again)
	second := w.letterTo("ada@example.example", "please pay")
	if second.MessageID != again.MessageID || second.MessageID == first.MessageID || second.Text != first.Text {
		t.Errorf("the second letter %s reads\n%s", second.MessageID, second.Text)
	}
	if got := w.text(`SELECT string_agg(cause || ' ' || note, ',') FROM timeline WHERE order_id = 'typo' AND kind = 'email_sent_again'`); got != "admin:bootstrap e-mail order_received sent again" {
		t.Errorf("the timeline says %q", got)
	}

	w.tell("payment.completed", o)
	w.stands("typo", "paid/paid/queued")
	if r := w.ask(http.MethodPost, path+"/resends", ""); r.status != 409 || r.code() != "email_outgrown" {
		t.Errorf("asked to pay again: %d %s", r.status, r.body)
	}
	if r := w.ask(http.MethodPost, path+"/resends", `{"to":"a@b.example\r\nBcc: c@d.example"}`); r.status != 422 || r.code() != "invalid_resend" {
		t.Errorf("two addresses: %d %s", r.status, r.body)
	}
}
