package orders

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"quayside/internal/web"
)

// writePatience is how long a reader may take for one message.
const writePatience = 10 * time.Second

// StatusEvents serves GET /o/{token}/events: what StatusAsJSON serves, at once
// and again after every change, as server-sent events called status. Each is the
// whole state, so a reader that comes again has missed nothing, whatever its
// Last-Event-ID. 404 for an unknown token, 503 when too many streams are open.
func (b *Book) StatusEvents(c *gin.Context) {
	private(c)
	forAnyOrigin(c)
	ctx := c.Request.Context()
	v, err := b.byToken(c)
	if err != nil {
		web.Fail(c, err)
		return
	}
	s, err := b.forCustomer(ctx, v)
	if err != nil {
		web.Fail(c, err)
		return
	}
	first, err := statusMessage(s)
	if err != nil {
		web.Fail(c, err)
		return
	}
	r, err := b.watch.join(v.ID, s.Version, first)
	if err != nil {
		web.Fail(c, err)
		return
	}
	defer b.watch.leave(r)
	c.Header("Content-Type", "text/event-stream; charset=utf-8")
	c.Header("X-Accel-Buffering", "no") // nginx would hold messages back
	c.Status(http.StatusOK)
	out := &stream{c.Writer, http.NewResponseController(c.Writer), writePatience}
	if out.send([]byte("retry: 2000\n\n")) && out.send(first) {
		b.follow(c, r, s.Version, out)
	}
}

// follow sends what is newer than sent until the reader goes or is sent away.
func (b *Book) follow(c *gin.Context, r *reader, sent int, out *stream) {
	beat := time.NewTicker(b.watch.heartbeat)
	defer beat.Stop()
	old := time.NewTimer(b.watch.maxAge)
	defer old.Stop()
	for well := true; well; {
		select {
		case <-c.Request.Context().Done():
			return
		case <-b.watch.ending:
			return
		case <-old.C:
			return
		case <-beat.C: // keeps proxies from hanging up, and finds readers that are gone
			well = out.send([]byte(": still here\n\n"))
		case <-r.wake:
			if version, message := b.watch.newest(r); version > sent {
				sent = version
				well = out.send(message)
			}
		}
	}
}

// EndStreams ends every stream of status events and refuses new ones, so that
// the server can stop.
func (b *Book) EndStreams() { b.watch.end() }

// stream writes past the server's limit for a whole answer: every message has
// its own.
type stream struct {
	http.ResponseWriter
	*http.ResponseController
	patience time.Duration // for one message
}

// send reports whether the reader is still there.
func (s *stream) send(message []byte) bool {
	if s.SetWriteDeadline(time.Now().Add(s.patience)) != nil {
		return false
	}
	if _, err := s.Write(message); err != nil {
		return false
	}
	return s.ResponseController.Flush() == nil
}
