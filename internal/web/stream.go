package web

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

const (
	streamBuffer   = 32 << 10         // bytes sent at once
	streamPatience = 20 * time.Second // for a reader to take them
)

// Stream is an answer that is sent while write still writes it, in bounded
// memory. Header may be changed until the first 32 KiB are written. An error
// before that is a [Problem] like any other; after that the connection is cut,
// so that nobody takes what came for the whole. ctx ends when the reader goes.
func Stream(contentType string, write func(ctx context.Context, header http.Header, out *bufio.Writer) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		c := humagin.Unwrap(hc)
		ctx := hc.Context()
		s := &streamed{c: c, patient: http.NewResponseController(c.Writer), header: http.Header{"Content-Type": {contentType}}}
		out := bufio.NewWriterSize(s, streamBuffer)
		if c.Request.Method == http.MethodHead { // the work would be for nothing
			s.begin()
			return
		}
		err := write(ctx, s.header, out)
		if err == nil {
			err = out.Flush()
		}
		switch {
		case err == nil:
			s.begin()
		case !s.begun:
			_ = s.patient.SetWriteDeadline(time.Now().Add(streamPatience))
			Fail(c, err)
		default:
			NoteContext(ctx, slog.String("error", "cut off: "+err.Error()))
			c.Abort()
			panic(http.ErrAbortHandler) // HTTP's way to say that more should have come
		}
	}}
}

// streamed sends the headers with the first bytes, and gives each write its
// own time: the server's is for a whole answer.
type streamed struct {
	c       *gin.Context
	patient *http.ResponseController
	header  http.Header
	begun   bool
}

func (s *streamed) begin() {
	if s.begun {
		return
	}
	s.begun = true
	for name, values := range s.header {
		s.c.Writer.Header()[name] = values
	}
	s.c.Status(http.StatusOK)
	s.c.Writer.WriteHeaderNow()
}

// Write sends p, or fails when the reader does not take it in time.
func (s *streamed) Write(p []byte) (int, error) {
	if err := s.patient.SetWriteDeadline(time.Now().Add(streamPatience)); err != nil {
		return 0, err
	}
	s.begin()
	return s.c.Writer.Write(p)
}
