package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

const (
	maxUploads     = 2               // files that one process holds in memory
	uploadPatience = 2 * time.Minute // for one to arrive, and to be answered
)

// File is what was sent to an operation made by [Upload].
type File struct {
	Type string // its media type, one of those the operation takes
	Body []byte
}

type fileKey struct{}

// FileOf returns the file of a request, nil when its operation takes none.
func FileOf(ctx context.Context) *File {
	f, _ := ctx.Value(fileKey{}).(*File)
	return f
}

const uploadMeta = "quayside:upload"

// Upload makes op one whose body is a file of at most limit bytes, of one of the
// media types, which its handler gets by [FileOf]. A third file at once is
// refused with 503: files are read into memory.
func Upload(op huma.Operation, limit int64, types ...string) huma.Operation {
	content := map[string]*huma.MediaType{}
	for _, t := range types {
		content[t] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Description: "The file"}}
	}
	op.RequestBody = &huma.RequestBody{Description: "The file, in UTF-8", Required: true, Content: content}
	op.Metadata = map[string]any{uploadMeta: upload{limit, types}}
	return op
}

type upload struct {
	limit int64
	types []string
}

func uploadOf(op *huma.Operation) (upload, bool) {
	u, ok := op.Metadata[uploadMeta].(upload)
	return u, ok
}

var uploads = make(chan struct{}, maxUploads)

// take reads the file and leaves it in the context.
func (u upload) take(hc huma.Context, next func(huma.Context)) {
	c := humagin.Unwrap(hc)
	media, err := u.media(c.Request.Header)
	if err == nil && c.Request.ContentLength > u.limit {
		err = bodyTooLarge()
	}
	if err != nil {
		failHuma(hc, err)
		return
	}
	select {
	case uploads <- struct{}{}:
		defer func() { <-uploads }()
	default:
		failHuma(hc, Refuse(http.StatusServiceUnavailable, "busy", "Other files are being received: send it again in a moment."))
		return
	}
	body, err := u.read(c)
	if err != nil {
		failHuma(hc, err)
		return
	}
	next(huma.WithValue(hc, fileKey{}, &File{Type: media, Body: body}))
}

func (u upload) media(h http.Header) (string, error) {
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset, said := params["charset"]
	encoding := h.Get("Content-Encoding")
	if err != nil || !slices.Contains(u.types, media) || said && !strings.EqualFold(charset, "utf-8") || encoding != "" && !strings.EqualFold(encoding, "identity") {
		return "", Refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "Send the file itself, uncompressed and in UTF-8, with Content-Type %s.", strings.Join(u.types, " or "))
	}
	return media, nil
}

// read gives the file more time than other requests have.
func (u upload) read(c *gin.Context) ([]byte, error) {
	patient := http.NewResponseController(c.Writer)
	until := time.Now().Add(uploadPatience)
	_ = patient.SetReadDeadline(until) // without it the server's own counts
	_ = patient.SetWriteDeadline(until.Add(uploadPatience))
	body := bytes.NewBuffer(make([]byte, 0, max(0, c.Request.ContentLength)+bytes.MinRead))
	_, err := io.Copy(body, http.MaxBytesReader(c.Writer, c.Request.Body, u.limit))
	if err == nil {
		return body.Bytes(), nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, bodyTooLarge()
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return nil, Refuse(http.StatusRequestTimeout, "request_timeout", "The file did not arrive in time.")
	}
	return nil, Refuse(http.StatusBadRequest, "unreadable_body", "The file could not be read to its end.")
}
