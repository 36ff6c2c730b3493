//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"quayside/internal/webhooks"
)

// secret signs what the load generator sends, to ours and to the references.
const secret = "whsec_bench_only_never_a_real_one" //nolint:gosec // of servers that live for minutes, on loopback

// connections is how many requests are under way at once, each on a kept connection.
const connections = 64

// post is one webhook, signed and ready to be written to a connection.
type post struct {
	key  string // the event's id
	wire []byte // the whole request
}

// journal is what was sent and what became of it, in the order of sending.
type journal struct {
	posts   []post
	answers []answer
	took    time.Duration // from the first byte sent to the last answer
}

// answer to one post.
type answer struct {
	status int // of HTTP; 0: none came
	known  bool
	took   time.Duration
}

// created is when all our payments were made, Unix seconds; fixed, so that one event is the same bytes every time.
const created = 1767225600

// eventBody is a body as PayQI writes it (docs/payqi-webhook-guide.txt, "Event
// Structure"). sql/history.sql writes the same bytes.
func eventBody(set string, i int) (key, body string) {
	key = fmt.Sprintf("evt_%s-%07d", set, i)
	return key, fmt.Sprintf(`{"id":"%[1]s","type":"payment.completed","created":%[2]d,"data":{"id":"pay_%[3]s-%07[4]d","amount":10.00,"currency":"XRP","status":"completed","pay_address":"rN7n7otQDd6FczFgLdSqtcsAUxDkw6fzRH","destination_tag":"%[4]d","tx_hash":"%[5]X","metadata":{"order_id":"%[3]s-%07[4]d"}}}`,
		key, created, set, i, sha256.Sum256([]byte(key)))
}

// presign makes the posts from..to-1 of a set of orders.
func presign(set string, from, to int) []post {
	now := strconv.FormatInt(time.Now().Unix(), 10)
	posts := make([]post, 0, to-from)
	for i := from; i < to; i++ {
		key, body := eventBody(set, i)
		var w bytes.Buffer
		fmt.Fprintf(&w, "POST /webhooks/payqi HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/json\r\n"+
			"X-PayQI-Signature: %s\r\nX-PayQI-Timestamp: %s\r\nContent-Length: %d\r\n\r\n%s",
			webhooks.Sign(secret, []byte(body)), now, len(body), body)
		posts = append(posts, post{key: key, wire: w.Bytes()})
	}
	return posts
}

// send posts what it is given over kept connections, until all is
// answered or the time is up: then what is under way is waited for and the
// rest is not sent. Zero is no limit.
func send(ctx context.Context, addr string, posts []post, limit time.Duration) *journal {
	j := &journal{posts: posts, answers: make([]answer, len(posts))}
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range connections {
		wg.Go(func() {
			line := &line{addr: addr}
			defer line.hangUp()
			for ctx.Err() == nil && (limit == 0 || time.Since(began) < limit) {
				i := int(next.Add(1)) - 1
				if i >= len(posts) {
					return
				}
				j.answers[i] = line.post(ctx, posts[i].wire)
			}
		})
	}
	wg.Wait()
	j.took = time.Since(began)
	sent := min(int(next.Load()), len(posts))
	j.posts, j.answers = posts[:sent], j.answers[:sent]
	return j
}

// line is one kept connection. After an error it is dialled anew.
type line struct {
	addr string
	conn net.Conn
	in   *bufio.Reader
}

// answerPatience is how long an answer may take before it counts as none.
const answerPatience = 10 * time.Second

func (l *line) post(ctx context.Context, wire []byte) answer {
	began := time.Now()
	status, known, err := l.try(ctx, wire)
	if err != nil {
		l.hangUp()
		status = 0
	}
	return answer{status: status, known: known, took: time.Since(began)}
}

func (l *line) try(ctx context.Context, wire []byte) (status int, known bool, err error) {
	if l.conn == nil {
		d := net.Dialer{Timeout: answerPatience}
		if l.conn, err = d.DialContext(ctx, "tcp", l.addr); err != nil {
			return 0, false, err
		}
		l.in = bufio.NewReader(l.conn)
	}
	if err := l.conn.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return 0, false, err
	}
	if _, err := l.conn.Write(wire); err != nil {
		return 0, false, err
	}
	r, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return 0, false, err
	}
	text, err := io.ReadAll(r.Body)
	if err := r.Body.Close(); err != nil {
		return 0, false, err
	}
	if r.Close {
		l.hangUp()
	}
	return r.StatusCode, bytes.HasPrefix(text, []byte("Already")), err
}

func (l *line) hangUp() {
	if l.conn != nil {
		_ = l.conn.Close() // nothing is under way on it
		l.conn = nil
	}
}

// taken are the keys that were answered 200 OK: they must be there for ever.
func (j *journal) taken() (keys []string) {
	for i, a := range j.answers {
		if a.status == http.StatusOK && !a.known {
			keys = append(keys, j.posts[i].key)
		}
	}
	return keys
}

// errors counts what was answered otherwise than 200, or not at all.
func (j *journal) errors() (n int) {
	for _, a := range j.answers {
		if a.status != http.StatusOK {
			n++
		}
	}
	return n
}

// rate is answers of 200 a second.
func (j *journal) rate() float64 {
	return float64(len(j.answers)-j.errors()) / j.took.Seconds()
}

// percentile of the time an answer took, exactly: p from 0 to 1.
func (j *journal) percentile(p float64) time.Duration {
	all := make([]time.Duration, len(j.answers))
	for i, a := range j.answers {
		all[i] = a.took
	}
	return percentile(all, p)
}

func percentile(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(p*float64(len(all))))]
}
