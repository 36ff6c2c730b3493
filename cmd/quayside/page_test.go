//go:build unix

package main

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"quayside/internal/orders"
)

// insecure is a name that the browser takes for our own machine but, unlike
// 127.0.0.1, not for a safe place: there is no navigator.clipboard.
const insecure = "shop.test"

// newBrowser starts Chromium with a profile of its own; ok is false on a machine
// that has none.
func newBrowser(t *testing.T) (ctx context.Context, ok bool) {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Log("NOT SHOWN: there is no chromium, chromium-browser or google-chrome in PATH, so the customer's page was not looked at in a browser")
		return nil, false
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path),
		chromedp.Flag("disable-quic", true), chromedp.Flag("no-first-run", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("host-resolver-rules", "MAP "+insecure+" 127.0.0.1"))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx, true
}

// tab is a page of an order, open in a browser.
type tab struct {
	w     *world
	ctx   context.Context
	close context.CancelFunc

	mu         sync.Mutex
	complaints []string // what the console says of scripts and of the policy
}

// openTab opens an address and, unless JavaScript is off, marks the document, so
// that a reload shows.
func (w *world) openTab(b context.Context, address string, first ...chromedp.Action[chromedp.Void]) *tab {
	w.t.Helper()
	ctx, cancel := chromedp.NewContext(b)
	w.t.Cleanup(cancel)
	p := &tab{w: w, ctx: ctx, close: cancel}
	said := chromedp.Console(ctx)
	go func() {
		for m, err := range said {
			if err != nil {
				return
			}
			if m.Source != "network" && (m.IsException() || m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning) {
				p.mu.Lock()
				p.complaints = append(p.complaints, m.String())
				p.mu.Unlock()
			}
		}
	}()
	p.do(first...)
	p.do(chromedp.Navigate(address))
	return p
}

func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.w.t.Fatalf("in the browser: %v", err)
	}
}

// js evaluates an expression, a promise too.
func js[T any](p *tab, expression string) T {
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.w.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// waits until an expression is true.
func (p *tab) waits(what, expression string) {
	p.w.t.Helper()
	p.w.await(what, func() bool { return js[bool](p, expression) })
}

// shows waits for a headline, and for all of words.
func (p *tab) shows(headline string, words ...string) {
	p.w.t.Helper()
	p.waits("the headline "+headline, `document.getElementById('headline')?.textContent === `+jsonOf(headline))
	text := js[string](p, `document.body.innerText`)
	contains(p.w.t, headline, text, words...)
}

// stay marks the document; stayed finds out whether it is the same one.
func (p *tab) stay() { js[bool](p, `window.stayed = true`) }

func (p *tab) stayed() {
	p.w.t.Helper()
	if !js[bool](p, `window.stayed === true`) {
		p.w.t.Error("the page was loaded anew")
	}
}

// quiet looks at what the console said.
func (p *tab) quiet() {
	p.w.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.complaints {
		p.w.t.Errorf("the console says %s", c)
	}
}

// media sets what the reader prefers.
func (p *tab) media(scheme string) {
	p.w.t.Helper()
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	p.w.must(err)
}

// The widths that people have.
const (
	narrow  = 320
	phone   = 390
	desktop = 1280
)

// photograph writes page-NAME.png for phone and desktop, light and dark, into the
// folder that QUAYSIDE_SCREENSHOTS names: those in docs/images come from here.
func (p *tab) photograph(name string) {
	p.w.t.Helper()
	folder := os.Getenv("QUAYSIDE_SCREENSHOTS")
	if folder == "" {
		return
	}
	js[bool](p, `document.activeElement.blur(), scrollTo(0, 0), true`)
	for _, scheme := range []string{"light", "dark"} {
		p.media(scheme)
		for place, width := range map[string]int64{"phone": phone, "desktop": desktop} {
			p.do(chromedp.EmulateViewport(width, map[string]int64{"phone": 844, "desktop": 800}[place]))
			ctx, cancel := context.WithTimeout(p.ctx, patience)
			png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			cancel()
			p.w.must(err)
			file := "page-" + name + "-" + place
			if scheme == "dark" {
				file += "-dark"
			}
			p.w.must(os.WriteFile(filepath.Join(folder, file+".png"), png, 0o600))
		}
	}
	p.media("light")
	p.do(chromedp.EmulateViewport(desktop, 800))
}

// newShopWindow is a world that serves, works and has goods, and a browser.
func newShopWindow(t *testing.T) (w *world, b context.Context, ok bool) {
	t.Helper()
	if b, ok = newBrowser(t); !ok {
		return nil, nil, false
	}
	w = newWorld(t)
	w.cfg.ShopName = "Harbour Goods"
	w.serve()
	w.work()
	for sku, name := range map[string]string{"mug": "Stoneware mug, ocean blue", "coffee": "Filter coffee, 250 g"} {
		w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/products", map[string]any{"sku": sku, "name": name, "on_hand": 100}, nil))
	}
	return w, b, true
}

// order opens an order over 42.50 XRP and its page.
func (w *world) orderPage(b context.Context, id string) (orders.View, *tab) {
	w.t.Helper()
	o := w.open(id, "mug", "items", []map[string]any{
		{"sku": "mug", "quantity": 2, "unit_price": "12.50"}, {"sku": "coffee", "quantity": 1, "unit_price": "17.50"},
	})
	p := w.openTab(b, w.shop.url+w.link(o))
	p.media("light")
	p.do(chromedp.EmulateViewport(desktop, 800))
	p.stay()
	p.waits("the stream to be open", `document.getElementById('live').classList.contains('on')`)
	return o, p
}

// The page changes under the customer's eyes with every signed event, without a
// reload, tells those who do not see it, and keeps focus where it is.
func TestPageFollowsPayment(t *testing.T) {
	t.Parallel()
	w, b, ok := newShopWindow(t)
	if !ok {
		return
	}
	o, p := w.orderPage(b, "1001")
	p.shows("Awaiting payment", "Harbour Goods", "Order 1001", "in a moment", "2 × Stoneware mug, ocean blue", "42.50 XRP")

	e := newEvent("payment.created", o, "pay_1001")
	w.answered("200 OK", e)
	p.waits("the payment details", `document.getElementById('address')?.textContent === `+jsonOf(demoAddress))
	p.shows("Awaiting payment", "exactly this amount", tagOf("pay_1001"), "left", "Open in wallet")
	if uri := js[string](p, `document.getElementById('wallet').getAttribute('href')`); uri != "xrpl:"+demoAddress+"?amount=42.5&dt="+tagOf("pay_1001") {
		t.Errorf("the link opens %s", uri)
	}
	p.runsDown()
	p.accessible("awaiting payment")
	p.photograph("awaiting")

	js[bool](p, `document.getElementById('copy-address').focus(), true`)
	w.tell("payment.failed", o)
	p.shows("The payment failed", "still kept", "pay again")
	if id := js[string](p, `document.activeElement.id`); id != "copy-address" {
		t.Errorf("the focus went to %q", id)
	}
	p.waits("the change to be told", `document.getElementById('said').textContent.startsWith('The payment failed. ')`)
	p.accessible("failed")

	second := newEvent("payment.pending", o, "pay_second")
	w.answered("200 OK", second)
	p.shows("Awaiting confirmation", "need not do anything", "Payment details, in case you have not paid")
	if id := js[string](p, `document.activeElement.id`); id != "headline" { // the button is folded away
		t.Errorf("the focus went to %q", id)
	}
	p.accessible("awaiting confirmation")
	p.photograph("confirming")

	second = newEvent("payment.completed", o, "pay_second")
	w.answered("200 OK", second)
	p.shows("Paid", "getting your order ready", *second.Data.TxHash)
	if link := js[[]string](p, `(a => [a.href, a.rel, a.target])(document.querySelector('a[href^="https://livenet"]'))`); !slices.Equal(link,
		[]string{"https://livenet.xrpl.org/transactions/" + *second.Data.TxHash, "noopener noreferrer", "_blank"}) {
		t.Errorf("the transaction's link is %q", link)
	}
	p.accessible("paid")
	p.photograph("paid")

	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/1001/shipments", map[string]any{"carrier": "DHL", "tracking_number": "JD014600003", "items": []int{1}}, nil))
	p.shows("Partly shipped", "the rest follows", "with DHL", "JD014600003")
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/1001/shipments", map[string]any{"carrier": "DHL", "tracking_number": "JD014600004"}, nil))
	p.shows("Shipped", "on its way", "JD014600003", "JD014600004")
	p.accessible("shipped")
	p.photograph("shipped")
	p.stayed()
	p.quiet()
}

// So do the ways that end elsewhere.
func TestPageTellsTrouble(t *testing.T) {
	t.Parallel()
	w, b, ok := newShopWindow(t)
	if !ok {
		return
	}
	for _, tc := range []struct {
		id   string
		tell func(o orders.View, e eventOf)
		want string
		say  []string
	}{
		{
			"part", func(_ orders.View, e eventOf) { e.Data.Amount = "30"; w.answered("200 OK", e) }, "Part of the money has arrived",
			[]string{"received 30.00 of 42.50 XRP", "missing 12.50 XRP", "Amount still missing"},
		},
		{"late", func(o orders.View, _ eventOf) { w.tell("payment.expired", o) }, "Expired", []string{"do not pay any more"}},
		{"other", func(_ orders.View, e eventOf) { e.Data.Currency = "BTC"; w.answered("200 OK", e) }, "We are checking a payment", []string{"do not pay again"}},
		{"held", func(_ orders.View, e eventOf) {
			w.answered("200 OK", e)
			w.stands("held", "paid/paid/queued")
			e.Data.Amount = "43"
			w.answered("200 Already processed", e) // contradicts itself
		}, "Paid, on hold", []string{"a person has to look"}},
		{"more", func(_ orders.View, e eventOf) { e.Data.Amount = "50"; w.answered("200 OK", e) }, "Paid", []string{"7.50 XRP more than needed", "To be paid back"}},
		{"gone", func(orders.View, eventOf) {
			w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/gone/cancellation", map[string]any{"reason": "Ordered twice"}, nil))
		}, "Cancelled", []string{"You owe nothing"}},
	} {
		o, p := w.orderPage(b, tc.id)
		w.tell("payment.created", o)
		p.waits("the payment details", `document.getElementById('address') !== null`)
		tc.tell(o, newEvent("payment.completed", o, "pay_"+o.ID))
		p.shows(tc.want, tc.say...)
		p.stayed()
		p.accessible(tc.want)
		p.quiet()
		p.photograph(tc.id)
		p.close() // a browser opens six connections to one server, and streams take them
	}
	p := w.openTab(b, w.shop.url+"/o/"+strings.Repeat("a", 32))
	p.shows("There is no order at this address", "Harbour Goods", "e-mail")
	p.accessible("no order")
	p.quiet()
}

// A copy button copies the bare value, shows and tells that it did, and does so
// by keyboard and where the page came without https.
func TestPageCopies(t *testing.T) {
	t.Parallel()
	w, b, ok := newShopWindow(t)
	if !ok {
		return
	}
	o, p := w.orderPage(b, "copy")
	w.tell("payment.created", o)
	p.waits("the payment details", `document.getElementById('address') !== null`)
	for _, may := range []string{"clipboard-read", "clipboard-write"} {
		_, err := chromedp.CallBrowser(b, browser.SetPermission, browser.SetPermissionParams{
			Origin: w.shop.url, Permission: &browser.PermissionDescriptor{Name: may, AllowWithoutSanitization: true}, Setting: browser.PermissionSettingGranted,
		})
		w.must(err)
	}
	_, err := chromedp.Call(p.ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	w.must(err)
	copied := func(want string) {
		t.Helper()
		p.waits("the clipboard to hold "+want, `navigator.clipboard.readText().then(s => s === `+jsonOf(want)+`)`)
	}
	for id, want := range map[string]string{"copy-amount": "42.50", "copy-address": demoAddress, "copy-tag": tagOf("pay_copy")} {
		p.do(chromedp.Click(chromedp.ID(id)))
		copied(want)
		p.waits("the button to say so", `document.getElementById('`+id+`').innerText.trim().startsWith('Copied')`)
		p.waits("it to be told", `document.getElementById('said').textContent.endsWith(' copied')`)
	}
	js[bool](p, `document.getElementById('copy-amount').focus(), true`)
	p.do(chromedp.KeyEvent("\r"))
	copied("42.50")
	p.waits("the button to be itself again", `document.getElementById('copy-amount').innerText.trim().startsWith('Copy') && !document.querySelector('.copy.done')`)

	u, err := url.Parse(w.shop.url)
	w.must(err)
	q := w.openTab(b, "http://"+net.JoinHostPort(insecure, u.Port())+w.link(o))
	if js[bool](q, `'clipboard' in navigator`) {
		t.Fatal("the browser takes " + insecure + " for a safe place")
	}
	q.do(chromedp.Click(chromedp.ID("copy-tag")))
	q.waits("it to be told", `document.getElementById('said').textContent === 'Destination tag copied'`)
	copied(tagOf("pay_copy"))
	js[bool](q, `document.execCommand = () => false, true`)
	q.do(chromedp.Click(chromedp.ID("copy-address")))
	q.waits("the address to be selected", `getSelection().toString() === `+jsonOf(demoAddress))
	p.quiet()
	q.quiet()
}

// A tab in the background hangs up after a minute, and is up to date as soon as
// somebody looks at it.
func TestPageForgotten(t *testing.T) {
	t.Parallel()
	w, b, ok := newShopWindow(t)
	if !ok {
		return
	}
	o, p := w.orderPage(b, "forgotten")
	js[bool](p, `(() => {
		const later = setTimeout;
		window.setTimeout = (f, ms) => later(f, ms === 60000 ? 0 : ms); // a minute is over at once
		window.turn = (hidden) => {
			Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
			document.dispatchEvent(new Event('visibilitychange'));
			return true;
		};
		return turn(true);
	})()`)
	p.waits("it to hang up", `!document.getElementById('live').classList.contains('on')`)
	w.tell("payment.completed", o)
	w.stands("forgotten", "paid/paid/queued")
	js[bool](p, `turn(false)`)
	p.shows("Paid", "getting your order ready")
	p.waits("the stream to be open again", `document.getElementById('live').classList.contains('on')`)
	p.stayed()
	p.quiet()
}

// When no stream can be had the page asks for itself.
func TestPageWithoutStream(t *testing.T) {
	t.Parallel()
	w, b, ok := newShopWindow(t)
	if !ok {
		return
	}
	o := w.open("refused", "mug")
	full := make([]*events, 20)
	for i := range full {
		full[i] = w.openStream(w.link(o) + "/events")
	}
	p := w.openTab(b, w.shop.url+w.link(o))
	p.stay()
	p.waits("the stream to be refused", `document.getElementById('live-text').textContent === 'Connecting again…'`)
	w.tell("payment.completed", o)
	p.shows("Paid", "getting your order ready")
	p.stayed()
	p.quiet()
}

// Without JavaScript the page has all it needs to pay, no button that does
// nothing, and shows what is new by reloading.
func TestPageWithoutJavaScript(t *testing.T) {
	t.Parallel()
	w, b, ok := newShopWindow(t)
	if !ok {
		return
	}
	o := w.open("plain", "mug")
	w.tell("payment.created", o)
	w.await("the payment details", func() bool { return w.order("plain").PayAddress != nil })
	off := chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	})
	p := w.openTab(b, w.shop.url+w.link(o), off)
	see := func() string {
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		defer cancel()
		html, err := chromedp.Run(ctx, chromedp.OuterHTML(chromedp.CSS("html")))
		if err != nil {
			t.Logf("looked while the page was being loaded: %v", err)
		}
		return html
	}
	html := see()
	contains(t, "the page", html, "Awaiting payment", demoAddress, tagOf("pay_plain"), `id="qr"`, "Pay by <time", "This page reloads by itself every 10 seconds.")
	if strings.Contains(html, `class="js"`) {
		t.Fatal("JavaScript ran")
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	box, err := chromedp.Run(ctx, chromedp.ComputedStyle(chromedp.ID("copy-address"), chromedp.NodeReady))
	w.must(err)
	for _, style := range box {
		if style.Name == "display" && style.Value != "none" {
			t.Errorf("a copy button that does nothing is shown: %s", style.Value)
		}
	}
	w.tell("payment.completed", o)
	w.await("the page to reload by itself", func() bool { return strings.Contains(see(), "getting your order ready") })
}

// The page outlives a restart of the server: it comes back to the stream and
// shows what happened meanwhile.
func TestPageSurvivesRestart(t *testing.T) {
	t.Parallel()
	b, ok := newBrowser(t)
	if !ok {
		return
	}
	w := newWorld(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	w.must(err)
	w.cfg.ListenAddr = l.Addr().String() // the same for both
	w.must(l.Close())
	first := w.serveApart()
	w.workApart()
	w.stock("mug", 10)
	w.stock("coffee", 10)
	o, p := w.orderPage(b, "1001")
	w.tell("payment.created", o)
	p.waits("the payment details", `document.getElementById('address') !== null`)
	first.signal(syscall.SIGTERM)
	if code := first.exit(); code != 0 {
		t.Errorf("serve with an open page ended with %d", code)
	}
	p.waits("the page to notice", `!document.getElementById('live').classList.contains('on')`)
	w.serveApart()
	w.tell("payment.completed", o)
	p.shows("Paid", "getting your order ready")
	p.waits("the stream to be open again", `document.getElementById('live').classList.contains('on')`)
	p.stayed()
	p.quiet()
}

// runsDown waits for the countdown to change.
func (p *tab) runsDown() {
	p.w.t.Helper()
	read := func() string { return js[string](p, `document.querySelector('.left').textContent`) }
	first := read()
	if _, err := time.Parse("04:05 left", first); err != nil {
		p.w.t.Errorf("the countdown says %q", first)
	}
	p.w.await("the countdown to run", func() bool { s := read(); return s != first && s < first })
}

// accessible looks at what every page must have for those who cannot see it
// well, use a keyboard, or have a small screen, in light and dark.
func (p *tab) accessible(name string) {
	p.w.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		p.media(scheme)
		for _, fault := range js[[]string](p, pageFaults) {
			p.w.t.Errorf("%s, %s: %s", name, scheme, fault)
		}
	}
	p.media("light")
	for _, width := range []int64{narrow, phone, desktop} {
		p.do(chromedp.EmulateViewport(width, 800))
		if wide := js[int64](p, `document.documentElement.scrollWidth`); wide > width {
			p.w.t.Errorf("%s: at %d px the page is %d px wide", name, width, wide)
		}
	}
	if wide := js[int64](p, `document.documentElement.style.fontSize = '200%', document.documentElement.scrollWidth`); wide > desktop {
		p.w.t.Errorf("%s: with letters twice as large the page is %d px wide", name, wide)
	}
	js[bool](p, `document.documentElement.style.fontSize = '', true`)
	for _, unseen := range js[[]string](p, `[...document.querySelectorAll('a[href], button, summary')].filter(e => e.checkVisibility()).map(e => {
		e.focus({focusVisible: true});
		const s = getComputedStyle(e);
		return s.outlineStyle === 'none' || parseFloat(s.outlineWidth) < 2 ? e.outerHTML.slice(0, 80) : '';
	}).filter(Boolean)`) {
		p.w.t.Errorf("%s: nobody sees the focus on %s", name, unseen)
	}
}

// pageFaults finds what checkers of accessibility find first: language, one
// headline, headings in order, names, unique ids, labels that exist, targets
// large enough for a finger, and the contrast of every text (WCAG 2.2, AA).
const pageFaults = `(() => {
	const faults = [];
	const need = (ok, fault) => { if (!ok) faults.push(fault); };
	const all = (s) => [...document.querySelectorAll(s)];
	need(document.documentElement.lang === 'en', 'no language');
	need(document.title.trim() !== '', 'no title');
	need(all('h1').length === 1, all('h1').length + ' h1');
	need(all('main').length === 1, 'not one main');
	let level = 0;
	for (const h of all('h1, h2, h3, h4')) {
		need(+h.tagName[1] <= level + 1, 'a heading is skipped before ' + h.textContent);
		level = +h.tagName[1];
	}
	const ids = all('[id]').map((e) => e.id);
	need(new Set(ids).size === ids.length, 'an id stands twice: ' + ids.filter((id, i) => ids.indexOf(id) !== i));
	for (const e of all('[aria-labelledby]')) need(document.getElementById(e.getAttribute('aria-labelledby')), 'a label is missing: ' + e.outerHTML.slice(0, 80));
	for (const e of all('a, button, summary')) need((e.getAttribute('aria-label') || e.textContent).trim() !== '', 'no name: ' + e.outerHTML.slice(0, 80));
	for (const e of all('svg')) need(e.getAttribute('aria-hidden') === 'true' || e.getAttribute('role') === 'img' && e.getAttribute('aria-label'), 'a drawing without words: ' + e.outerHTML.slice(0, 80));
	for (const e of all('[tabindex]')) need(e.tabIndex <= 0, 'a tabindex above zero');
	for (const e of all('button, a.button')) if (e.checkVisibility()) need(e.getBoundingClientRect().height >= 44, 'too small for a finger: ' + e.textContent);
	need(all('.steps').length === 0 || all('.steps [aria-current=step]').length === 1, 'not one current step');
	need(all('[aria-live=polite]').length === 1, 'nothing is told');

	const rgb = (s) => s.match(/[\d.]+/g).map(Number);
	const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
	const ground = (e) => {
		for (; e; e = e.parentElement) {
			const c = rgb(getComputedStyle(e).backgroundColor);
			if (c.length === 3 || c[3] === 1) return c;
		}
		return [255, 255, 255];
	};
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	let texts = 0;
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest('script, style, .away')) continue;
		const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		need(ratio >= 4.5, 'contrast ' + ratio.toFixed(2) + ' of ' + walk.currentNode.data.trim());
		texts++;
	}
	need(texts > 2, 'only ' + texts + ' texts were looked at');
	return faults;
})()`
