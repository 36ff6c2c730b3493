package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"
)

// mountDocs serves Swagger UI at /docs, from the binary. The key that somebody
// enters there is in the page's memory only.
func mountDocs(e *gin.Engine) {
	ui := v5emb.NewHandlerWithConfig(swgui.Config{
		Title: "Quayside", SwaggerJSON: "/openapi.json", BasePath: "/docs",
		SettingsUI: map[string]string{
			"tryItOutEnabled": "true", "displayRequestDuration": "true", "filter": "true", "persistAuthorization": "false",
		},
	})
	policy := docsPolicy(ui)
	serve := func(c *gin.Context) {
		c.Header("Content-Security-Policy", policy)
		ui.ServeHTTP(c.Writer, c.Request)
	}
	e.GET("/docs", serve)
	e.GET("/docs/*asset", serve)
}

var inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)

// docsPolicy allows the page's own inline scripts by their digest and no
// other. Swagger UI writes style attributes, so styles have to be free.
func docsPolicy(ui http.Handler) string {
	page := httptest.NewRecorder()
	ui.ServeHTTP(page, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/docs", nil))
	scripts := []string{"script-src 'self'"}
	for _, m := range inlineScript.FindAllSubmatch(page.Body.Bytes(), -1) {
		digest := sha256.Sum256(bytes.ReplaceAll(m[1], []byte("\r\n"), []byte("\n")))
		scripts = append(scripts, "'sha256-"+base64.StdEncoding.EncodeToString(digest[:])+"'")
	}
	return strings.Join([]string{
		"default-src 'none'", strings.Join(scripts, " "), "style-src 'self' 'unsafe-inline'",
		"img-src 'self' data:", "font-src 'self' data:", "connect-src 'self'",
		"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
	}, "; ")
}
