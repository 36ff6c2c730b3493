//go:build unix

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// Everything that /docs refers to is served by ourselves, under a policy that
// lets nothing in from elsewhere, and no framing.
func TestDocsAreOurs(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	var assets [][]string
	for _, path := range []string{"/docs", "/docs/"} {
		r := w.ask(http.MethodGet, path, "", "Authorization", "")
		assets = regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(r.body, -1)
		if r.status != 200 || len(assets) < 3 {
			t.Fatalf("%s: %d, assets %q", path, r.status, assets)
		}
		contains(t, "policy", r.header.Get("Content-Security-Policy"), "default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'")
		for directive := range strings.SplitSeq(r.header.Get("Content-Security-Policy"), "; ") {
			if strings.Contains(directive, "http") || strings.Contains(directive, "*") || strings.Contains(directive, "unsafe-eval") ||
				strings.Contains(directive, "unsafe-inline") && !strings.HasPrefix(directive, "style-src") {
				t.Errorf("the policy lets in too much: %s", directive)
			}
		}
	}
	for _, a := range assets {
		r := w.ask(http.MethodGet, a[1], "", "Authorization", "")
		if !strings.HasPrefix(a[1], "/docs/") || r.status != 200 || r.body == "" || r.header.Get("Content-Security-Policy") == "" {
			t.Errorf("asset %s: %d, %d bytes", a[1], r.status, len(r.body))
		}
	}
}

// In a browser that reaches nothing but us, /docs shows every operation, asks
// nobody else for anything and breaks no policy; with the key, an operation
// can be tried out from it.
func TestDocsInABrowser(t *testing.T) {
	t.Parallel()
	w := stockroom(t)
	n := 0
	operations(w.document(), func(string, string, map[string]any) { n++ })
	ctx := offlineBrowser(t)
	if ctx == nil {
		return
	}
	var mu sync.Mutex
	var asked, complaints []string
	w.must(chromedp.Listen(ctx, func(ev any) {
		if r, ok := ev.(*network.EventRequestWillBeSent); ok {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, r.Request.URL)
		}
	}))
	said := chromedp.Console(ctx)
	go func() {
		for m, err := range said {
			if err != nil {
				return
			}
			if m.IsException() || m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning {
				mu.Lock()
				complaints = append(complaints, m.String())
				mu.Unlock()
			}
		}
	}()
	w.must(chromedp.Do(ctx, chromedp.Navigate(w.shop.url+"/docs")))
	until := func(what, expression string) {
		t.Helper()
		w.await(what, func() bool {
			ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
			return err == nil && ok
		})
	}
	press := func(selector string) {
		t.Helper()
		until(selector, fmt.Sprintf(`!!document.querySelector(%q)`, selector))
		w.must(chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector))))
	}
	until("all operations", fmt.Sprintf(`document.querySelectorAll(".opblock").length === %d`, n))
	press(".btn.authorize")
	until("the place for the key", `!!document.querySelector(".auth-container input")`)
	w.must(chromedp.Do(ctx, chromedp.SendKeys(chromedp.CSS(".auth-container input"), worldKey)))
	press(".auth.btn.authorize")
	press(".auth.btn.btn-done")
	press("#operations-Orders-list-orders .opblock-summary-control")
	press("#operations-Orders-list-orders .execute")
	until("an answer", `(document.querySelector(".live-responses-table tbody .response-col_status") || {innerText: ""}).innerText.startsWith("200")`)
	until("the order in it", `document.querySelector(".live-responses-table tbody").innerText.includes(`+"`\"id\": \"open\"`)")

	mu.Lock()
	defer mu.Unlock()
	for _, url := range asked {
		if !strings.HasPrefix(url, w.shop.url+"/") && !strings.HasPrefix(url, "data:") {
			t.Errorf("the page asked for %s", url)
		}
	}
	for _, path := range []string{"/docs", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/openapi.json", "/api/v1/orders?limit=50"} {
		if !slices.Contains(asked, w.shop.url+path) {
			t.Errorf("the page did not ask for %s, but for %q: the watch sees nothing", path, asked)
		}
	}
	if complaints != nil {
		t.Errorf("the browser complains: %s", strings.Join(complaints, "\n"))
	}
}

// offlineBrowser starts Chromium, which finds no host by its name; nil on a
// machine that has none.
func offlineBrowser(t *testing.T) context.Context {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path),
			chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WindowSize(1200, 1600),
			chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"))
		if os.Getuid() == 0 {
			options = append(options, chromedp.NoSandbox)
		}
		ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
		t.Cleanup(cancel)
		ctx, cancel = chromedp.NewContext(ctx)
		t.Cleanup(cancel)
		ctx, cancel = context.WithTimeout(ctx, 3*patience)
		t.Cleanup(cancel)
		return ctx
	}
	t.Log("NOT SHOWN: there is no chromium, chromium-browser or google-chrome in PATH, so /docs was not looked at in a browser")
	return nil
}
