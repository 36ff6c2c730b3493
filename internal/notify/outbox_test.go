package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/devstack"
	"quayside/internal/fault"
	"quayside/internal/queue"
	"quayside/internal/queue/queuetest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// fixture is an outbox on a database and a mail catcher of its own.
type fixture struct {
	*Outbox
	t     *testing.T
	url   string
	bell  *queuetest.Bell
	mails *devstack.MailCatcher
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	db, url := dbtest.New(t)
	mails, bell := catcher(t), &queuetest.Bell{}
	o := NewOutbox(db, bell, hasty(t, mails.SMTPURL), Options{From: "Quay <shop@quay.example>", ShopName: "Quay"})
	return &fixture{Outbox: o, t: t, url: url, bell: bell, mails: mails}
}

func letter(order string, kind Kind) Letter {
	return Letter{OrderID: order, Kind: kind, Address: "ada@example.com", Facts: Facts{OrderID: order, Currency: "XRP", Total: "10", Items: []Line{{"Mug", 1, "10"}}}}
}

func (f *fixture) inTx(fn func(database.Tx) error) error { return f.db.InTx(f.t.Context(), fn) }

// post posts letters and returns the one row there is.
func (f *fixture) post(letters ...Letter) Letter {
	f.t.Helper()
	if err := f.inTx(func(tx database.Tx) error { _, err := f.Post(tx, letters); return err }); err != nil {
		f.t.Fatal(err)
	}
	return f.rows()[0]
}

func (f *fixture) rows() (rows []Letter) {
	f.t.Helper()
	if err := f.db.Read(f.t.Context()).Raw(`SELECT * FROM letters ORDER BY id`).Scan(&rows).Error; err != nil {
		f.t.Fatal(err)
	}
	return rows
}

// row is the letter and how far its not_before lies ahead on Postgres's clock.
func (f *fixture) row(id uuid.UUID) (l Letter, ahead time.Duration) {
	f.t.Helper()
	var got struct {
		Letter
		Ahead float64
	}
	err := f.db.Read(f.t.Context()).Raw(`SELECT *, extract(epoch FROM not_before - now())::float8 AS ahead FROM letters WHERE id = ?`, id).Scan(&got).Error
	if err != nil {
		f.t.Fatal(err)
	}
	return got.Letter, time.Duration(got.Ahead * float64(time.Second))
}

// age makes everything of a letter happen d earlier.
func (f *fixture) age(id uuid.UUID, d time.Duration) {
	f.t.Helper()
	n, err := f.db.Exec(f.t.Context(), `UPDATE letters SET not_before = not_before - make_interval(secs => $2), rung_at = rung_at - make_interval(secs => $2),
		started_at = started_at - make_interval(secs => $2), posted_at = posted_at - make_interval(secs => $2) WHERE id = $1`, id, d.Seconds())
	if err != nil || n != 1 {
		f.t.Fatal(n, err)
	}
}

func (f *fixture) try(id uuid.UUID) Letter {
	f.t.Helper()
	if err := f.send(f.t.Context(), sendArgs{LetterID: id}); err != nil {
		f.t.Fatal(err)
	}
	l, _ := f.row(id)
	return l
}

func (f *fixture) fault(x devstack.Fault) {
	f.t.Helper()
	if err := f.mails.SetFault(x); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) sweep() (rings int) {
	f.t.Helper()
	before := len(f.bell.Rung())
	if err := f.Sweep(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return len(f.bell.Rung()) - before
}

// A posted letter is a queued row with a ring after the commit, is sent once,
// and keeps a copy of what was sent.
func TestPostAndSend(t *testing.T) {
	f := newFixture(t)
	l := f.post(letter("A-1", OrderReceived))
	if l.State != Queued || l.MessageID != "letter-"+l.ID.String()+"@quay.example" || l.ID.Version() != 7 || l.PostedAt.IsZero() || !l.NotBefore.Equal(l.PostedAt) {
		t.Errorf("%+v", l)
	}
	if got := f.bell.Rung(); !slices.Equal(got, []string{"notify.send"}) {
		t.Errorf("rung %v", got)
	}
	if l = f.try(l.ID); l.State != Sent || l.SentAt == nil || l.Attempts != 1 || l.LastError != "" || l.Subject == "" || l.Text == "" || l.HTML == "" {
		t.Errorf("%+v", l)
	}
	f.try(l.ID)
	mails := f.mails.Messages()
	if len(mails) != 1 || mails[0].MessageID != l.MessageID || mails[0].Subject != l.Subject || mails[0].Text != l.Text {
		t.Errorf("%+v", mails)
	}
}

// The same news twice is one letter, also inside one post; other news is another.
func TestPostTwice(t *testing.T) {
	f := newFixture(t)
	about := letter("A-1", PaymentFailed)
	about.About = "pay_2"
	f.post(letter("A-1", PaymentFailed), letter("A-1", PaymentFailed))
	f.post(letter("A-1", PaymentFailed), about, letter("A-2", PaymentFailed))
	if n := len(f.rows()); n != 3 {
		t.Errorf("%d rows", n)
	}
	if err := f.inTx(func(tx database.Tx) error { _, err := f.Post(tx, nil); return err }); err != nil {
		t.Error(err)
	}
}

// A name with a NUL in it does not undo the payment it is told about.
func TestPostTakesAnyName(t *testing.T) {
	f := newFixture(t)
	l := letter("A-1", OrderShipped)
	l.Facts.CustomerName, l.Facts.Items[0].Name = "A\x00da\r\n", "\xff\u202e"
	if got := f.post(l); got.Facts.CustomerName != "A da" {
		t.Errorf("%+v", got.Facts)
	}
}

// What was rolled back is neither written nor rung for.
func TestRollback(t *testing.T) {
	f := newFixture(t)
	no := errors.New("no")
	err := f.inTx(func(tx database.Tx) error {
		_, err := f.Post(tx, []Letter{letter("A-1", OrderReceived)})
		return errors.Join(err, no)
	})
	if !errors.Is(err, no) || len(f.rows()) != 0 || len(f.bell.Rung()) != 0 {
		t.Errorf("%v, %d rows, %v", err, len(f.rows()), f.bell.Rung())
	}
}

// A letter for later is not rung for, sent or swept before its time.
func TestNotBefore(t *testing.T) {
	f := newFixture(t)
	l := letter("A-1", OrderReceived)
	l.NotBefore = time.Now().Add(time.Hour)
	l = f.post(l)
	if l = f.try(l.ID); l.State != Queued || l.Attempts != 0 || len(f.bell.Rung()) != 0 || f.sweep() != 0 {
		t.Errorf("%+v, %v", l, f.bell.Rung())
	}
	f.age(l.ID, time.Hour+time.Second)
	if f.sweep() != 1 || f.try(l.ID).State != Sent {
		t.Error("not sent when its time had come")
	}
}

// Withdraw drops the named kinds of the named orders and nothing else, and
// leaves alone what was sent.
func TestWithdraw(t *testing.T) {
	f := newFixture(t)
	f.post(letter("A-1", PaymentFailed), letter("A-1", OrderReceived), letter("A-2", PaymentFailed), letter("A-3", PaymentFailed))
	for _, l := range f.rows() {
		if l.OrderID == "A-3" {
			f.try(l.ID)
		}
	}
	err := f.inTx(func(tx database.Tx) error {
		return f.Withdraw(tx, []Withdrawal{{"A-1", []Kind{PaymentFailed, OrderExpired}}, {"A-3", []Kind{PaymentFailed}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]State{}
	for _, l := range f.rows() {
		got[l.OrderID+" "+string(l.Kind)] = l.State
		if l.State == Dropped && f.try(l.ID).State != Dropped {
			t.Error("a dropped letter was sent")
		}
	}
	want := map[string]State{"A-1 payment_failed": Dropped, "A-1 order_received": Queued, "A-2 payment_failed": Queued, "A-3 payment_failed": Sent}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v", got)
	}
}

// withdrawing is a sender during whose attempt the order outgrows the letter.
type withdrawing struct {
	f      *fixture
	result Result
}

func (w withdrawing) Send(context.Context, Message) Result {
	err := w.f.inTx(func(tx database.Tx) error {
		return w.f.Withdraw(tx, []Withdrawal{{"A-1", []Kind{PaymentFailed}}})
	})
	if err != nil {
		w.f.t.Error(err)
	}
	return w.result
}

// A letter outgrown while it is being sent gets no further attempt.
func TestWithdrawWhileSending(t *testing.T) {
	no := errors.New("no")
	for result, want := range map[Outcome]State{Accepted: Sent, NotSent: Dropped, Deferred: Dropped, Refused: Failed, Ambiguous: Unknown} {
		f := newFixture(t)
		f.sender = withdrawing{f, Result{Outcome: result, Stage: atDot, Err: no}}
		l := f.try(f.post(letter("A-1", PaymentFailed)).ID)
		f.age(l.ID, 31*time.Minute)
		if l.State != want || f.sweep() != 0 || f.try(l.ID).Attempts != 1 {
			t.Errorf("%s: %s, want %s", result, l.State, want)
		}
	}
}

// An unknown letter that the order outgrows while it waits is not sent again.
func TestWithdrawUnknown(t *testing.T) {
	f := newFixture(t)
	f.fault(devstack.DropAfterDot)
	l := f.try(f.post(letter("A-1", PaymentFailed)).ID)
	if err := f.inTx(func(tx database.Tx) error {
		return f.Withdraw(tx, []Withdrawal{{"A-1", []Kind{PaymentFailed}}})
	}); err != nil {
		t.Fatal(err)
	}
	f.age(l.ID, 31*time.Minute)
	if f.sweep() != 0 || f.try(l.ID).State != Unknown || len(f.mails.Messages()) != 1 {
		t.Errorf("%+v", f.rows())
	}
}

// Twenty workers that are rung for the same letter at once send it once.
func TestManyWorkersOneLetter(t *testing.T) {
	f := newFixture(t)
	f.db = dbtest.Open(t, f.url, database.Options{Name: "many", MaxConns: 20})
	for i := range 5 {
		f.post(letter(fmt.Sprint("A-", i), OrderReceived))
		l := f.rows()[i]
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range 20 {
			wg.Go(func() {
				<-begin
				if err := f.send(t.Context(), sendArgs{LetterID: l.ID}); err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		if n := len(f.mails.Messages()); n != i+1 {
			t.Fatalf("%d mails after %d letters", n, i+1)
		}
	}
}

// A mail server that is away costs a pause, not the letter, and the copy of
// what would have been sent is there to read.
func TestServerAway(t *testing.T) {
	for _, x := range []devstack.Fault{devstack.RefuseConnections, devstack.Silent} {
		f := newFixture(t)
		f.fault(x)
		l := f.try(f.post(letter("A-1", OrderReceived)).ID)
		_, ahead := f.row(l.ID)
		if l.State != Queued || l.Attempts != 1 || l.LastError == "" || l.Text == "" || ahead < 14*time.Second || ahead > 18*time.Second {
			t.Errorf("fault %d: %+v, %s ahead", x, l, ahead)
		}
		if f.sweep() != 0 || f.try(l.ID).Attempts != 1 {
			t.Error("tried before its pause was over")
		}
		f.fault(devstack.None)
		f.age(l.ID, 20*time.Second)
		if f.sweep() != 1 || f.try(l.ID).State != Sent || len(f.mails.Messages()) != 1 {
			t.Errorf("not sent when the server was back: %+v", f.rows())
		}
	}
}

// A greylisting server is given the five minutes it wants.
func TestGreylist(t *testing.T) {
	f := newFixture(t)
	f.fault(devstack.Greylist)
	l := f.try(f.post(letter("A-1", OrderReceived)).ID)
	if _, ahead := f.row(l.ID); l.State != Queued || ahead < 299*time.Second || ahead > 6*time.Minute {
		t.Errorf("%+v, %s ahead", l, ahead)
	}
}

// A letter that the server or its own address makes impossible fails at once
// and says why.
func TestFailsAtOnce(t *testing.T) {
	f := newFixture(t)
	f.fault(devstack.Reject)
	bad := letter("A-2", OrderReceived)
	bad.Address = "ada@example.com\r\nBcc: evil@example.com"
	f.post(letter("A-1", OrderReceived), bad)
	for i, want := range []string{"550", "control characters"} {
		if l := f.try(f.rows()[i].ID); l.State != Failed || !strings.Contains(l.LastError, want) || l.Attempts != 1 {
			t.Errorf("%+v", l)
		}
	}
	if f.sweep() != 0 {
		t.Error("a failed letter was rung for")
	}
}

// While versions run side by side, a letter of a kind that only the newer one
// knows is neither rung for, taken nor failed by the older: it waits for the
// newer.
func TestUnknownKindIsLeft(t *testing.T) {
	f := newFixture(t)
	l := f.post(letter("A-1", "greeting"))
	f.age(l.ID, time.Minute)
	if n := f.sweep(); n != 0 {
		t.Errorf("%d rings", n)
	}
	if n, err := f.Work(t.Context(), 10); n != 0 || err != nil {
		t.Error(n, err)
	}
	if l = f.try(l.ID); l.State != Queued || l.Attempts != 0 {
		t.Errorf("%+v", l)
	}
	newer := due
	defer func() { due = newer }()
	due = dueOf(append(slices.Clone(Kinds), "greeting"))
	if l = f.try(l.ID); l.Attempts != 1 {
		t.Errorf("the newer left it too: %+v", l)
	}
}

// Where nobody can tell whether a letter arrived it is sent once more, after
// half an hour, under the same Message-ID, and never a third time.
func TestAmbiguous(t *testing.T) {
	f := newFixture(t)
	f.fault(devstack.DropAfterDot)
	l := f.try(f.post(letter("A-1", OrderReceived)).ID)
	_, ahead := f.row(l.ID)
	if l.State != Unknown || ahead < 29*time.Minute || ahead > 31*time.Minute {
		t.Fatalf("%+v, %s ahead", l, ahead)
	}
	f.age(l.ID, 29*time.Minute)
	if f.sweep() != 0 || f.try(l.ID).Attempts != 1 || len(f.mails.Messages()) != 1 {
		t.Error("sent again too early")
	}
	f.age(l.ID, 2*time.Minute)
	if f.sweep() != 1 {
		t.Error("not rung for when its half hour was over")
	}
	if l = f.try(l.ID); l.State != Unknown || l.Attempts != 2 || len(f.mails.Messages()) != 2 {
		t.Errorf("%+v", l)
	}
	f.age(l.ID, 365*24*time.Hour)
	if f.sweep() != 0 || f.try(l.ID).Attempts != 2 {
		t.Error("sent a third time")
	}
	if m := f.mails.Messages(); m[0].MessageID != m[1].MessageID {
		t.Error("another Message-ID")
	}
}

// The one resend is not used up by a server that was not there.
func TestResendMeetsADeadServer(t *testing.T) {
	f := newFixture(t)
	f.fault(devstack.DropAfterDot)
	l := f.try(f.post(letter("A-1", OrderReceived)).ID)
	f.fault(devstack.RefuseConnections)
	f.age(l.ID, 31*time.Minute)
	if l = f.try(l.ID); l.State != Unknown || l.Attempts != 2 {
		t.Errorf("%+v", l)
	}
	f.fault(devstack.None)
	f.age(l.ID, time.Minute)
	if f.sweep() != 1 || f.try(l.ID).State != Sent || len(f.mails.Messages()) != 2 {
		t.Errorf("%+v", f.rows())
	}
}

// An attempt whose process died is as good as an ambiguous one: half an hour
// after it began the letter is sent once more; if that process dies too, never.
func TestProcessDied(t *testing.T) {
	f := newFixture(t)
	l := f.post(letter("A-1", OrderReceived))
	for died := range 2 {
		if got, err := f.claim(t.Context(), l.ID); err != nil || got == nil || got.Attempts != died+1 {
			t.Fatal(got, err)
		}
		f.ageAttempt(l.ID, 14*time.Minute)
		if f.sweep() != 0 || f.state(l.ID) != Sending {
			t.Error("given up too early")
		}
		f.ageAttempt(l.ID, 2*time.Minute)
		if f.sweep() != 0 || f.state(l.ID) != Unknown {
			t.Errorf("not given up: %s", f.state(l.ID))
		}
		f.age(l.ID, 15*time.Minute)
	}
	if got, err := f.claim(t.Context(), l.ID); err != nil || got != nil || f.sweep() != 0 {
		t.Error("sent a third time", got, err)
	}
}

func (f *fixture) ageAttempt(id uuid.UUID, d time.Duration) {
	f.t.Helper()
	if _, err := f.db.Exec(f.t.Context(), `UPDATE letters SET started_at = started_at - make_interval(secs => $2) WHERE id = $1`, id, d.Seconds()); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) state(id uuid.UUID) State { l, _ := f.row(id); return l.State }

// A process that slept through being given up may still say how it ended, but
// not once another attempt has begun.
func TestLateOutcome(t *testing.T) {
	f := newFixture(t)
	l := f.post(letter("A-1", OrderReceived))
	first, err := f.claim(t.Context(), l.ID)
	if err != nil {
		t.Fatal(err)
	}
	f.age(l.ID, 31*time.Minute)
	f.sweep()
	second, err := f.claim(t.Context(), l.ID)
	if err != nil || second == nil {
		t.Fatal(second, err)
	}
	if v, err := f.settle(t.Context(), *first, Result{Outcome: Refused, Stage: atTo, Err: errors.New("550")}); err != nil || v.label != "superseded" || f.state(l.ID) != Sending {
		t.Errorf("%+v, %v", v, err)
	}
	f.age(l.ID, 16*time.Minute)
	f.sweep()
	if v, err := f.settle(t.Context(), *second, Result{Outcome: Accepted}); err != nil || v.label != "sent" || f.state(l.ID) != Sent {
		t.Errorf("%+v, %v", v, err)
	}
}

// stopping is a sender during whose attempt the process is told to stop.
type stopping struct{ stop context.CancelFunc }

func (s stopping) Send(context.Context, Message) Result {
	s.stop()
	return Result{Outcome: Accepted, Stage: atDot}
}

// What the mail server said is noted even when the process is told to stop
// meanwhile; otherwise the customer would get the letter twice.
func TestOutcomeSurvivesShutdown(t *testing.T) {
	f := newFixture(t)
	l := f.post(letter("A-1", OrderReceived))
	ctx, cancel := context.WithCancel(t.Context())
	f.sender = stopping{cancel}
	if err := f.send(ctx, sendArgs{LetterID: l.ID}); err != nil || f.state(l.ID) != Sent {
		t.Error(err, f.state(l.ID))
	}
}

// A letter whose ring was lost is rung again after a second and a half, not
// sooner, and the longer it has waited the rarer.
func TestSweepRings(t *testing.T) {
	f := newFixture(t)
	l := f.post(letter("A-1", OrderReceived))
	if f.sweep() != 0 {
		t.Error("rung again at once")
	}
	f.age(l.ID, 2*time.Second)
	if f.sweep() != 1 || f.sweep() != 0 {
		t.Error("not rung again exactly once")
	}
	if _, err := f.db.Exec(t.Context(), `UPDATE letters SET not_before = now() - interval '1 hour', rung_at = now() - interval '29 seconds'`); err != nil {
		t.Fatal(err)
	}
	if f.sweep() != 0 {
		t.Error("a letter that waits in a long queue is rung too often")
	}
	if _, err := f.db.Exec(t.Context(), `UPDATE letters SET rung_at = now() - interval '31 seconds'`); err != nil {
		t.Fatal(err)
	}
	if f.sweep() != 1 {
		t.Error("forgotten")
	}
}

// Several sweeps at once ring once for each letter.
func TestSweepsShare(t *testing.T) {
	f := newFixture(t)
	f.db = dbtest.Open(t, f.url, database.Options{Name: "many", MaxConns: 8})
	var letters []Letter
	for i := range 100 {
		letters = append(letters, letter(fmt.Sprint("A-", i), OrderReceived))
	}
	f.post(letters...)
	if _, err := f.db.Exec(t.Context(), `UPDATE letters SET rung_at = rung_at - interval '2 seconds'`); err != nil {
		t.Fatal(err)
	}
	before := len(f.bell.Rung())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := f.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f.sweep() // those a loser of the race passed over are none
	if n := len(f.bell.Rung()) - before; n != 100 {
		t.Errorf("%d rings", n)
	}
}

// A sweep does not wait for a letter that somebody is just working on.
func TestSweepPassesLockedLetters(t *testing.T) {
	f := newFixture(t)
	l := f.post(letter("A-1", OrderReceived))
	f.age(l.ID, 2*time.Second)
	err := f.inTx(func(tx database.Tx) error {
		if err := tx.Exec(`SELECT 1 FROM letters WHERE id = ? FOR UPDATE`, l.ID).Error; err != nil {
			return err
		}
		if f.sweep() != 0 {
			t.Error("rung for a letter that somebody holds")
		}
		return nil
	})
	if err != nil || f.sweep() != 1 {
		t.Error(err)
	}
}

// Without Redis the letters go out all the same, each once, from several
// goroutines; letters that wait are left alone.
func TestWork(t *testing.T) {
	f := newFixture(t)
	f.db = dbtest.Open(t, f.url, database.Options{Name: "many", MaxConns: 6})
	var letters []Letter
	for i := range 30 {
		letters = append(letters, letter(fmt.Sprint("A-", i), OrderReceived))
	}
	later := letter("B-1", OrderReceived)
	later.NotBefore = time.Now().Add(time.Hour)
	f.post(append(letters, later)...)
	if n, err := f.Work(t.Context(), 3); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := f.Work(t.Context(), 100); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	to := map[string]int{}
	for _, m := range f.mails.Messages() {
		to[m.MessageID]++
	}
	if len(to) != 30 || len(f.mails.Messages()) != 30 {
		t.Errorf("%d mails, %d letters", len(f.mails.Messages()), len(to))
	}
	if n, err := f.Work(t.Context(), 100); n != 0 || err != nil {
		t.Error(n, err)
	}
}

// Over the real queue: posted, rung after the commit, sent by a worker.
func TestThroughTheQueue(t *testing.T) {
	f := newFixture(t)
	r, err := devstack.StartRedis(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	rdb, err := queue.Open(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	client, m := queue.NewClient(rdb), queue.NewMux()
	t.Cleanup(func() { _ = client.Close() })
	f.Outbox.bell = client
	f.Register(m)
	server := queue.NewServer(rdb, m, queue.Post, 2)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	l := f.post(letter("A-1", OrderReceived))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := f.mails.WaitFor(ctx, func(m devstack.Mail) bool { return m.MessageID == l.MessageID }); err != nil {
		t.Error(err)
	}
}

// Nothing a log line says tells who the customer is or what was written.
func TestLogsAreDiscreet(t *testing.T) {
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() { slog.SetDefault(old) })
	f := newFixture(t)
	for i, x := range []devstack.Fault{devstack.None, devstack.RefuseConnections, devstack.Greylist, devstack.Reject, devstack.DropAfterDot} {
		f.fault(x)
		l := letter(fmt.Sprint("A-", i), OrderReceived)
		l.Facts.CustomerName = "CANARY"
		l.Address = "canary@example.com"
		f.post(l)
		f.try(f.rows()[i].ID)
	}
	said := log.String()
	if strings.Contains(strings.ToLower(said), "canary") || strings.Contains(said, "Mug") {
		t.Error(said)
	}
	for _, want := range []string{
		`"outcome":"sent"`, `"outcome":"retry"`, `"outcome":"failed"`, `"outcome":"unknown"`, `"letter_id":"`, `"order_id":"A-1"`,
		`"kind":"order_received"`, `"attempt":1`, `"elapsed_ms":`, "connection refused",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the log lacks %s:\n%s", want, said)
		}
	}
}

// A letter that was dropped before it was sent goes out when it is true again:
// an order that expires, revives and expires once more.
func TestDroppedIsPostedAgain(t *testing.T) {
	f := newFixture(t)
	f.post(letter("A-1", OrderExpired))
	err := f.inTx(func(tx database.Tx) error {
		return f.Withdraw(tx, []Withdrawal{{OrderID: "A-1", Kinds: []Kind{OrderExpired}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.rows(); len(got) != 1 || got[0].State != Dropped {
		t.Fatalf("after Withdraw: %+v", got)
	}
	f.post(letter("A-1", OrderExpired))
	if got := f.rows(); len(got) != 1 || got[0].State != Queued || got[0].LastError != "" {
		t.Errorf("posted again: %+v", got)
	}
}

// Who asked hears of a letter that failed for good and of a resend that was
// sent, once, in the transaction that notes it; of others nothing.
func TestFate(t *testing.T) {
	f := newFixture(t)
	var heard []string
	var fails error
	f.Fate = func(_ database.Tx, x Fate) error {
		heard = append(heard, fmt.Sprintf("%s %s %v", x.State, x.First, x.ID == x.First))
		return fails
	}
	told := func(what, want string) {
		t.Helper()
		if got := strings.Join(heard, ", "); got != want {
			t.Errorf("%s: told %q, want %q", what, got, want)
		}
		heard = nil
	}
	again := func(l Letter) (r *Letter) {
		t.Helper()
		err := f.inTx(func(tx database.Tx) (err error) {
			r, err = f.Again(tx, l, Letter{Address: "ada@example.com", Facts: l.Facts, PostedBy: "admin:test"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := f.post(letter("A-1", OrderReceived))
	f.fault(devstack.Greylist)
	f.try(first.ID)
	told("put off", "")
	f.age(first.ID, time.Hour)
	f.fault(devstack.Reject)
	fails = fault.New(fault.Conflict, "no", "no")
	if err := f.send(t.Context(), sendArgs{LetterID: first.ID}); err == nil {
		t.Error("the one told failed, and nobody noticed")
	}
	if l, _ := f.row(first.ID); l.State != Sending {
		t.Errorf("noted as %s though the one told failed", l.State)
	}
	told("undone", fmt.Sprintf("failed %s true", first.ID))
	fails = nil
	if _, err := f.db.Exec(t.Context(), `UPDATE letters SET state = 'queued', not_before = now()`); err != nil {
		t.Fatal(err)
	}
	f.try(first.ID)
	told("refused", fmt.Sprintf("failed %s true", first.ID))
	second := again(first)
	f.try(second.ID)
	told("refused again", fmt.Sprintf("failed %s false", first.ID))
	third := again(*second)
	f.fault(devstack.None)
	f.try(third.ID)
	told("sent after all", fmt.Sprintf("sent %s false", first.ID))

	other := letter("A-2", PaymentFailed)
	other.ID = uuid.Must(uuid.NewV7())
	f.post(other)
	l, err := f.claim(t.Context(), other.ID)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	if err := f.inTx(func(tx database.Tx) error { return f.Withdraw(tx, []Withdrawal{{"A-2", []Kind{PaymentFailed}}}) }); err != nil {
		t.Fatal(err)
	}
	f.fault(devstack.Reject)
	if err := f.attempt(t.Context(), *l); err != nil {
		t.Fatal(err)
	}
	if l, _ := f.row(other.ID); l.State != Failed {
		t.Fatalf("refused: %s", l.State)
	}
	told("outgrown", "")
	f.fault(devstack.None)
	last := letter("A-3", OrderExpired)
	last.ID = uuid.Must(uuid.NewV7())
	f.post(last)
	f.try(last.ID)
	told("sent at once", "")
}
