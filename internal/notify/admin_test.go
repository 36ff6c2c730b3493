package notify

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/devstack"
	"quayside/internal/fault"
	"quayside/internal/web"
)

const adminKey = "qs_live_the-key-of-this-test_00000000000000"

// desk is an outbox with the admin API before it. What it may tell again is
// what the facts of a letter say, unless refusal is set.
type desk struct {
	*fixture
	handler http.Handler
	refusal error
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	e, err := web.NewEngine(web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{fixture: newFixture(t), handler: e}
	d.AdminRoutes(web.NewAPI(e, web.APIOptions{AdminKeys: []string{adminKey}}), func(_ database.Tx, l Letter, actor string) (Facts, error) {
		if actor != "admin:bootstrap" {
			t.Errorf("acted by %q", actor)
		}
		l.Facts.Total = "11.00" // what is true now
		return l.Facts, d.refusal
	})
	return d
}

type answer struct {
	EmailDetail
	Data       []EmailView `json:"data"`
	NextCursor *string     `json:"next_cursor"`
	Code       string      `json:"code"`
	Detail     string      `json:"detail"`
	Errors     []web.FieldError
}

// ask sends a request and reads the answer, which must have this status.
func (d *desk) ask(status int, method, path, body string) (a answer) {
	d.t.Helper()
	r := httptest.NewRequestWithContext(d.t.Context(), method, "/api/v1/emails"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+adminKey)
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != status {
		d.t.Errorf("%s %s %s: %d, want %d: %v %.500s", method, path, body, w.Code, status, err, w.Body)
	}
	return a
}

// An e-mail shows what was sent, byte for byte, and before that how it would
// read now.
func TestShowEmail(t *testing.T) {
	d := newDesk(t)
	l := letter("A-1", OrderReceived)
	l.Facts.CustomerName = "Ада Лавлейс & Söhne"
	l = d.post(l)
	path := "/" + l.ID.String()
	a := d.ask(200, "GET", path, "")
	if a.Rendered != "preview" || a.State != Queued || a.Subject == "" || !strings.Contains(a.Text, "Ада Лавлейс & Söhne") || a.HTML == "" ||
		a.NextAttemptAt == nil || !a.NextAttemptAt.Equal(l.NotBefore) || a.SentAt != nil || a.To != "ada@example.com" || a.ResendOf != nil {
		t.Errorf("before: %+v", a.EmailDetail)
	}
	l = d.try(l.ID)
	a = d.ask(200, "GET", path, "")
	m := d.mails.Messages()[0]
	if a.Text != m.Text || a.HTML != m.HTML || a.Subject != m.Subject || a.MessageID != m.MessageID || m.To[0] != a.To {
		t.Errorf("the catcher got\n%q\n%q\n%q %q\nthe API says\n%q\n%q\n%q %q", m.Text, m.HTML, m.Subject, m.MessageID, a.Text, a.HTML, a.Subject, a.MessageID)
	}
	if a.Rendered != "stored" || a.State != Sent || a.Attempts != 1 || a.NextAttemptAt != nil || a.SentAt == nil || !a.SentAt.Equal(*l.SentAt) || a.ID != l.ID.String() {
		t.Errorf("after: %+v", a.EmailDetail)
	}
	for _, id := range []string{"x", "00000000-0000-0000-0000-000000000000", strings.Repeat("a", 36)} {
		if a := d.ask(404, "GET", "/"+id, ""); a.Code != "email_not_found" {
			t.Errorf("%s: %s", id, a.Code)
		}
	}
}

// Each state shows its error, and when the next attempt is, if any.
func TestEmailStates(t *testing.T) {
	d := newDesk(t)
	d.post(letter("A-0", OrderReceived), letter("A-1", OrderReceived), letter("A-2", OrderReceived), letter("A-3", OrderReceived), letter("A-4", "greeting"))
	rows := d.rows()
	for i, x := range []devstack.Fault{devstack.None, devstack.RefuseConnections, devstack.Reject, devstack.DropAfterDot, devstack.None} {
		d.fault(x)
		d.try(rows[i].ID)
	}
	for i, want := range []struct {
		state    State
		rendered string
		next     bool
		err      string
	}{
		{Sent, "stored", false, ""},
		{Queued, "preview", true, "connection refused"},
		{Failed, "stored", false, "550"},
		{Unknown, "stored", true, ""},
		{Queued, "none", true, ""}, // a newer worker may know it
	} {
		a := d.ask(200, "GET", "/"+rows[i].ID.String(), "")
		if a.State != want.state || a.Rendered != want.rendered || (a.NextAttemptAt != nil) != want.next || !strings.Contains(a.LastError, want.err) {
			t.Errorf("%d: %+v", i, a.EmailView)
		}
		if (want.rendered == "none") != (a.Text == "") {
			t.Errorf("%d: text %q", i, a.Text)
		}
	}
}

// A list is read to its end page by page, each e-mail that was there at the
// start once, newest first, however many are posted meanwhile.
func TestListEmails(t *testing.T) {
	d := newDesk(t)
	var letters []Letter
	for i := range 11 {
		l := letter(fmt.Sprint("A-", i), OrderReceived)
		l.Address = []string{"Ada@Example.com", "bob@example.com"}[i%2]
		letters = append(letters, l)
	}
	d.post(letters...)
	before := d.rows()
	seen, cursor := []string{}, ""
	for n := 0; ; n++ {
		a := d.ask(200, "GET", "?limit=4"+cursor, "")
		for _, v := range a.Data {
			seen = append(seen, v.ID)
			if v.Subject == "" {
				t.Errorf("no subject: %+v", v)
			}
		}
		if a.NextCursor == nil {
			break
		}
		cursor = "&after=" + *a.NextCursor
		d.post(letter(fmt.Sprint("B-", n), OrderReceived))
	}
	var want []string
	for _, l := range slices.Backward(before) {
		want = append(want, l.ID.String())
	}
	if !slices.Equal(seen, want) {
		t.Errorf("saw %v, want %v", seen, want)
	}
	d.try(before[0].ID)
	for query, n := range map[string]int{
		"?order_id=A-3": 1, "?order_id=none": 0, "?state=sent": 1, "?state=queued": 12, "?state=failed": 0, "?kind=order_received": 13, "?kind=goods_gone": 0,
		"?to=ada@example.com": 6 + 2, "?to=ADA@EXAMPLE.COM&state=sent": 1, "?to=ada@example": 0, "?to=%25": 0,
	} {
		if a := d.ask(200, "GET", query, ""); len(a.Data) != n || a.Data == nil {
			t.Errorf("%s: %d e-mails, want %d", query, len(a.Data), n)
		}
	}
	d.ask(422, "GET", "?state=lost", "")
	d.ask(422, "GET", "?kind=greeting", "")
	d.ask(400, "GET", "?after=x", "")
	d.ask(400, "GET", "?address=ada@example.com", "")
}

// A resend is an e-mail of its own: another Message-ID, the address asked for,
// what is true now; the first stays as it was. Each request makes one.
func TestResend(t *testing.T) {
	d := newDesk(t)
	first := d.try(d.post(letter("A-1", OrderReceived)).ID)
	path := "/" + first.ID.String() + "/resends"
	rung := len(d.bell.Rung())
	a := d.ask(201, "POST", path, `{"to":"ada@new.example","note":"She mistyped  her address 🙈"}`)
	if a.State != Queued || a.To != "ada@new.example" || a.ResendOf == nil || *a.ResendOf != first.ID || a.RequestedBy != "admin:bootstrap" ||
		a.Note != "She mistyped  her address 🙈" || a.Kind != OrderReceived || a.OrderID != "A-1" || a.ID == first.ID.String() || a.MessageID == first.MessageID {
		t.Errorf("%+v", a.EmailView)
	}
	if len(d.bell.Rung()) != rung+1 {
		t.Error("nobody was rung for")
	}
	b := d.ask(201, "POST", path, "")
	if b.To != "ada@example.com" || b.ID == a.ID {
		t.Errorf("%+v", b.EmailView)
	}
	for _, l := range d.rows() {
		d.try(l.ID)
	}
	mails := d.mails.Messages()
	if len(mails) != 3 || mails[1].To[0] != "ada@new.example" || mails[1].MessageID != a.MessageID || mails[2].To[0] != "ada@example.com" {
		t.Fatalf("%d mails: %+v", len(mails), mails)
	}
	if !strings.Contains(mails[1].Text, "11.00 XRP") || strings.Contains(mails[0].Text, "11.00 XRP") {
		t.Errorf("the resend does not say what is true now:\n%s", mails[1].Text)
	}
	if l, _ := d.row(first.ID); l.State != Sent || l.Attempts != 1 {
		t.Errorf("the first one changed: %+v", l)
	}
	if again := d.ask(201, "POST", "/"+a.ID+"/resends", `{}`); again.To != "ada@new.example" || again.ResendOf.String() != a.ID {
		t.Errorf("a resend of a resend: %+v", again.EmailView)
	}
}

// What would mislead, or happens by itself anyway, is refused with a reason
// and posts nothing; so is every address that is not one plain address.
func TestResendRefused(t *testing.T) {
	d := newDesk(t)
	d.post(letter("A-0", OrderReceived), letter("A-1", PaymentFailed), letter("A-2", OrderReceived), letter("A-3", OrderReceived))
	rows := d.rows()
	sent := d.try(rows[0].ID)
	if err := d.inTx(func(tx database.Tx) error { return d.Withdraw(tx, []Withdrawal{{"A-1", []Kind{PaymentFailed}}}) }); err != nil {
		t.Fatal(err)
	}
	if _, err := d.claim(t.Context(), rows[3].ID); err != nil {
		t.Fatal(err)
	}
	refuse := func(id, body string, status int, code, words string) {
		t.Helper()
		a := d.ask(status, "POST", "/"+id+"/resends", body)
		if a.Code != code || !strings.Contains(a.Detail, words) {
			t.Errorf("%s %s: %s: %s", id, body, a.Code, a.Detail)
		}
	}
	refuse(rows[1].ID.String(), `{}`, 409, "email_dropped", "outgrown")
	refuse(rows[2].ID.String(), `{}`, 409, "email_under_way", "is queued")
	refuse(rows[3].ID.String(), `{}`, 409, "email_under_way", "is sending")
	refuse("x", `{}`, 404, "email_not_found", "no e-mail x")
	d.refusal = fault.New(fault.Conflict, "email_outgrown", "order A-0 is paid by now")
	refuse(sent.ID.String(), `{}`, 409, "email_outgrown", "is paid by now")
	d.refusal = nil
	for _, to := range []string{
		`ada@example.com\r\nBcc: evil@example.com`, `ada@example.com\nRCPT TO:<x@y>`, `a@example.com,b@example.com`, `a@example.com;b@example.com`,
		`Ada <ada@example.com>`, `ada`, ` ada@example.com`, `ada@example.com\u200b`, `\"a b\"@example.com`, `ada@exa mple.com`,
	} {
		a := d.ask(422, "POST", "/"+sent.ID.String()+"/resends", `{"to":"`+to+`"}`)
		if len(a.Errors) != 1 || a.Errors[0].Location != "to" || a.Errors[0].Message == "" {
			t.Errorf("%s: %+v", to, a)
		}
	}
	if a := d.ask(422, "POST", "/"+sent.ID.String()+"/resends", `{"note":"a\u0007\nb"}`); len(a.Errors) != 1 || a.Errors[0].Location != "note" {
		t.Errorf("%+v", a)
	}
	d.ask(400, "POST", "/"+sent.ID.String()+"/resends", `{"cc":"ada@example.com"}`)
	if n := len(d.rows()); n != 4 {
		t.Errorf("%d letters after refusals", n)
	}
}

// An unknown letter that a person sends again is not sent once more by itself.
func TestResendTakesThePlaceOfTheOneResend(t *testing.T) {
	d := newDesk(t)
	d.fault(devstack.DropAfterDot)
	l := d.try(d.post(letter("A-1", OrderReceived)).ID)
	d.fault(devstack.None)
	b := d.ask(201, "POST", "/"+l.ID.String()+"/resends", "")
	d.age(l.ID, 31*time.Minute)
	d.try(l.ID)
	for _, row := range d.rows() {
		if row.ID.String() == b.ID {
			d.try(row.ID)
		}
	}
	a := d.ask(200, "GET", "/"+l.ID.String(), "")
	if n := len(d.mails.Messages()); n != 2 || a.State != Unknown || a.NextAttemptAt != nil {
		t.Errorf("%d mails, %+v", n, a.EmailView)
	}
}

// A resend that is asked for while an attempt just begins waits to see it, and
// is refused: otherwise both would go out.
func TestResendSeesAnAttemptThatBegins(t *testing.T) {
	d := newDesk(t)
	d.db = dbtest.Open(t, d.url, database.Options{Name: "race", MaxConns: 4})
	d.fault(devstack.DropAfterDot)
	l := d.try(d.post(letter("A-1", OrderReceived)).ID)
	done := make(chan answer)
	err := d.inTx(func(tx database.Tx) error {
		if err := tx.Exec(`UPDATE letters SET state = 'sending', attempts = 2 WHERE id = ?`, l.ID).Error; err != nil { // as claim does
			return err
		}
		go func() { done <- d.ask(409, "POST", "/"+l.ID.String()+"/resends", "") }()
		for waiting := 0; waiting == 0 && t.Context().Err() == nil; {
			err := d.db.Read(t.Context()).Raw(`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
				WHERE NOT l.granted AND a.datname = current_database()`).Scan(&waiting).Error
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := <-done; a.Code != "email_under_way" || len(d.rows()) != 1 {
		t.Errorf("%s, %d letters", a.Code, len(d.rows()))
	}
}

// Addresses are nobody's business without a key.
func TestEmailsNeedAKey(t *testing.T) {
	d := newDesk(t)
	l := d.post(letter("A-1", OrderReceived))
	for method, path := range map[string]string{"GET": "", "HEAD": "/" + l.ID.String(), "POST": "/" + l.ID.String() + "/resends"} {
		w := httptest.NewRecorder()
		d.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/api/v1/emails"+path, nil))
		if w.Code != 401 && w.Code != 405 || strings.Contains(w.Body.String(), "ada@") {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
}
