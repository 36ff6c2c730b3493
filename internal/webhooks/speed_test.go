package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// How fast the code is by itself; for how fast the service is, see cmd/bench.
// Compare two versions with benchstat:
//
//	go test ./internal/webhooks ./internal/orders -run '^$' -bench . -benchmem -count 6

func spoken(i int) string {
	id := fmt.Sprintf("%07d", i)
	return event("evt_"+id, "payment.completed", "pay_"+id, "o-"+id, "10.00")
}

func BenchmarkVerify(b *testing.B) {
	for _, secrets := range []int{1, 2} {
		b.Run(fmt.Sprintf("secrets=%d", secrets), func(b *testing.B) {
			v := verifier(b, []string{testSecret, "whsec_another_one_of_these"}[:secrets]...)
			body := []byte(spoken(1))
			signature := Sign(testSecret, body)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := v.Verify(body, signature); !ok {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	body := []byte(spoken(1))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if e := parseEvent(body); e.Unreadable != "" {
			b.Fatal(e.Unreadable)
		}
	}
}

// Receive is a whole request but for the database: a refused one, which goes
// the same way up to the signature, and one that is verified and parsed.
func BenchmarkReceive(b *testing.B) {
	o := Options{Verifier: verifier(b, testSecret), Timestamp: TimestampIfPresent}
	in := &Inbox{opts: o}
	in.queued = make(chan *delivery, 1)
	answerer := make(chan struct{})
	go func() {
		defer close(answerer)
		for d := range in.queued {
			d.done <- outcome{answer: stored}
		}
	}()
	h := engineOf(b, in)
	body := spoken(1)
	for name, secret := range map[string]string{"accepted": testSecret, "refused": "whsec_of_somebody_else"} {
		b.Run("answer="+name, func(b *testing.B) {
			signature := Sign(secret, []byte(body))
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, "/webhooks/payqi", strings.NewReader(body))
				r.Header.Set("X-PayQI-Signature", signature)
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
	close(in.queued)
	<-answerer
}

// batchOf makes events n to n+size-1, as Receive hands them to a writer.
func batchOf(n, size int) []*delivery {
	var batch []*delivery
	for i := range size {
		body := []byte(spoken(n + i))
		batch = append(batch, &delivery{Event: parseEvent(body), body: body, label: "bench", done: make(chan outcome, 1)})
	}
	return batch
}

// Store is one commit of a writer, on a Postgres that does not wait for its disk.
func BenchmarkStore(b *testing.B) {
	for _, size := range []int{1, 4, 16, 64, 256} {
		b.Run(fmt.Sprintf("rows=%d", size), func(b *testing.B) {
			s := newShop(b)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				batch := batchOf(n, size)
				n += size
				b.StartTimer()
				s.in.store(batch)
				for _, d := range batch {
					if o := <-d.done; o.answer != stored {
						b.Fatalf("%+v", o)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
		})
	}
}

// Apply is one batch of a worker, from the claim to the commit.
func BenchmarkApply(b *testing.B) {
	for _, products := range []string{"spread", "hot"} {
		for _, size := range []int{1, 4, 16, 64} {
			b.Run(fmt.Sprintf("products=%s/events=%d", products, size), func(b *testing.B) { benchmarkApply(b, products, size) })
		}
	}
}

func benchmarkApply(b *testing.B, products string, size int) {
	s := newShop(b, today)
	skus := []string{"mug"}
	if products == "spread" {
		for i := range 100 {
			skus = append(skus, fmt.Sprintf("mug-%d", i))
		}
	}
	for _, sku := range skus {
		s.product(sku, 1_000_000)
	}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i := range size {
			s.order(fmt.Sprintf("o-%07d", n+i), skus[(n+i)%len(skus)])
		}
		batch := batchOf(n, size)
		n += size
		s.in.store(batch)
		var ids []uuid.UUID
		for _, d := range batch {
			ids = append(ids, d.id)
		}
		b.StartTimer()
		if err := s.in.Apply(context.Background(), ids); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	is(b, "orders paid", one[int](s, `SELECT count(*) FROM orders WHERE status = 'paid'`), n)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
}
