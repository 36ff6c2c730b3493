// Package browsertest lets tests look at pages in a real browser and keep
// pictures of them.
package browsertest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// patience is that of one step; a page takes a tenth of a second.
const patience = time.Minute

// Browser is one tab.
type Browser struct {
	t   testing.TB
	ctx context.Context
}

// Open starts a browser that ends with the test and shares nothing with other
// browsers on the machine. It returns nil where no Chromium is installed,
// having said so: the test then shows nothing and returns.
func Open(t testing.TB) *Browser {
	t.Helper()
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		t.Logf("NOT SHOWN: %s needs Chromium, and there is none in PATH", t.Name())
		return nil
	}
	o := append([]chromedp.ExecAllocatorOption{}, chromedp.DefaultExecAllocatorOptions[:]...)
	o = append(o, chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), o...)
	t.Cleanup(stop)
	ctx, shut := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits until it has gone
		shut()
	})
	if err := chromedp.Do(ctx); err != nil { // without a limit: it would end the browser
		t.Fatalf("start %s: %v", program, err)
	}
	return &Browser{t, ctx}
}

// Do takes steps one after the other.
func (b *Browser) Do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// Ask returns what a JavaScript expression yields on b's page.
func Ask[T any](b *Browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("browser: %s: %v", expression, err)
	}
	return v
}

// Await waits until a JavaScript expression is true on the page, or on the one
// that the browser is just going to.
func (b *Browser) Await(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && holds {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			b.t.Fatalf("browser: waited in vain for %s: %v", expression, err)
		}
	}
}

// Screen is what a page is looked at on.
type Screen struct {
	Name          string
	Width, Height int64
	Dark          bool // whether its owner prefers dark colours
}

// The screens that pages are looked at on.
var (
	Phone       = Screen{"phone", 390, 844, false}
	DarkPhone   = Screen{"phone-dark", 390, 844, true}
	Desktop     = Screen{"desktop", 1200, 800, false}
	DarkDesktop = Screen{"desktop-dark", 1200, 800, true}
)

// Show opens url on a screen.
func (b *Browser) Show(s Screen, url string) {
	b.t.Helper()
	scheme := "light"
	if s.Dark {
		scheme = "dark"
	}
	var o []chromedp.EmulateViewportOption
	if s.Width < 600 {
		o = append(o, chromedp.EmulateMobile)
	}
	b.Do(chromedp.EmulateViewport(s.Width, s.Height, o...),
		chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
			})
			return err
		}),
		chromedp.Navigate(url))
}

// Keep writes a picture of the page to name.png in the folder that
// QUAYSIDE_SCREENSHOTS names; without one it does nothing. A whole page goes
// beyond the screen's edge.
func (b *Browser) Keep(name string, whole bool) {
	b.t.Helper()
	dir := os.Getenv("QUAYSIDE_SCREENSHOTS") //nolint:forbidigo // a switch of the tests, no setting of the program
	if dir == "" {
		return
	}
	shoot := chromedp.CaptureScreenshot()
	if whole {
		shoot = chromedp.FullScreenshot(100)
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	// A frame that another process paints comes a moment after the page has
	// loaded: the picture is good when the next one is the same.
	var before, picture []byte
	var err error
	for same := 0; same < 3 && err == nil; same++ {
		before = picture
		if picture, err = chromedp.Run(ctx, shoot); !bytes.Equal(picture, before) {
			same = 0
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600) //nolint:gosec // a folder of the tester's own choosing
	}
	if err != nil {
		b.t.Fatalf("picture %s: %v", name, err)
	}
}

// FaintWords is for Ask: the texts whose contrast is below 4.5, what WCAG 2.2 AA
// asks of small print.
const FaintWords = `(() => {
	const rgb = s => s.match(/[\d.]+/g).map(Number);
	const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, k, i) => sum + k * (c[i] / 255 <= 0.04045 ? c[i] / 255 / 12.92 : ((c[i] / 255 + 0.055) / 1.055) ** 2.4), 0);
	const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c } return [255, 255, 255] };
	const faint = [];
	for (const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walk.nextNode();) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.data.trim() || !e.checkVisibility()) continue;
		const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
		if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) faint.push(walk.currentNode.data.trim());
	}
	return faint;
})()`
