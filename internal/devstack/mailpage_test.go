//go:build unix

package devstack

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"quayside/internal/browsertest"
)

// hostileMail tries to run, to load, to break out of its frame and of the list.
const hostileMail = `Subject: <script>document.title='owned'</script> %d
From: shop@example.com
X-Order-ID: 1001
Content-Type: text/html; charset=utf-8

<script>top.document.title = 'owned'; document.title = 'owned'</script>
<img src="%simg" onerror="top.document.title='owned'"><link rel="stylesheet" href="%scss">
<form action="%sclear" method="post" target="_top"><button id="b">b</button></form><p id="p">words</p>`

// In a real browser mails appear by themselves, are found while one types, are
// read with keys alone, and can do nothing; it fits a phone and a desktop.
func TestMailPageInABrowser(t *testing.T) {
	t.Parallel()
	m := startCatcher(t)
	b := browsertest.Open(t)
	if b == nil {
		return
	}
	b.Show(browsertest.Desktop, m.PageURL)
	b.Await(`document.querySelector(".empty h2").textContent === "No mail yet"`)
	for i := range 3 {
		check(t, send(m, fmt.Sprintf(hostileMail, i+1, m.PageURL, m.PageURL, m.PageURL)))
		b.Await(fmt.Sprintf(`document.querySelectorAll("#list li").length === %d && document.querySelector("#count").textContent === "%[1]d"`, i+1))
	}

	// A letter that comes takes neither the place nor the mail that is open.
	b.Do(chromedp.Navigate(m.PageURL + "mail/1"))
	b.Await(`document.querySelector("iframe") !== null`)
	b.Do(chromedp.Evaluate[chromedp.Void](`document.querySelector('#list a[href="/mail/2"]').focus(); window.same = true`))
	check(t, send(m, "Subject: Four\n\nwords"))
	b.Await(`document.querySelectorAll("#list li").length === 4`)
	if got := browsertest.Ask[string](b, `document.activeElement.getAttribute("href") + " " + window.same + " " + document.querySelector("#list [aria-current]").getAttribute("href")`); got != "/mail/2 true /mail/1" {
		t.Errorf("focus, page and open mail: %s", got)
	}
	if title := browsertest.Ask[string](b, `document.title`); title == "owned" || !strings.Contains(title, "<script>") {
		t.Errorf("the mail ran: %s", title)
	}
	if n := browsertest.Ask[int](b, `performance.getEntriesByType("resource").filter(e => /(img|css)$/.test(e.name)).length`); n != 0 {
		t.Errorf("the mail loaded %d things", n)
	}

	// Keys alone: a tab, a view, a search.
	b.Do(chromedp.Evaluate[chromedp.Void](`[...document.querySelectorAll("nav.tabs a")].find(a => a.textContent === "Source").focus()`), chromedp.KeyEvent("\r"))
	b.Await(`document.querySelector("pre")?.textContent.includes("X-Order-ID: 1001")`)
	b.Do(chromedp.Evaluate[chromedp.Void](`document.querySelector("#q").focus()`), chromedp.KeyEvent("four"))
	b.Await(`document.querySelectorAll("#list li").length === 1 && document.querySelector("#count").textContent === "1 of 4"`)
	if got := browsertest.Ask[string](b, `location.search`); !strings.Contains(got, "q=four") || !strings.Contains(got, "view=source") {
		t.Errorf("the address does not keep the search: %s", got)
	}

	for _, screen := range []browsertest.Screen{browsertest.Phone, browsertest.DarkPhone, browsertest.Desktop, browsertest.DarkDesktop} {
		for _, path := range []string{"", "?q=none", "mail/1", "mail/1?view=source", "mail/1?view=headers", "mail/4?view=text", "mail/9"} {
			b.Show(screen, m.PageURL+path)
			if over := browsertest.Ask[int](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
				t.Errorf("/%s is %d px wider than a %s", path, over, screen.Name)
			}
			if faint := browsertest.Ask[[]string](b, browsertest.FaintWords); len(faint) > 0 {
				t.Errorf("/%s on a %s is hard to read: %q", path, screen.Name, faint)
			}
			if unnamed := browsertest.Ask[int](b, unnamedControls); unnamed != 0 {
				t.Errorf("/%s has %d controls without a name", path, unnamed)
			}
		}
	}

	// The button asks first, deletes, and can be used again when mail has come.
	b.Show(browsertest.Phone, m.PageURL)
	if !browsertest.Ask[bool](b, `(() => {
		let stopped;
		document.querySelector("#clear").addEventListener("submit", e => { stopped = e.defaultPrevented }, { once: true });
		window.confirm = () => false;
		document.querySelector("#clear button").click();
		return stopped;
	})()`) {
		t.Error("deletes without asking")
	}
	b.Do(chromedp.Evaluate[chromedp.Void](`window.confirm = () => true; document.querySelector("#clear button").click()`))
	b.Await(`document.querySelector(".empty h2")?.textContent === "No mail yet" && document.querySelector("#clear button").disabled`)
	if n := len(m.Messages()); n != 0 {
		t.Errorf("%d mails are left", n)
	}
	check(t, send(m, "Subject: Five\n\nwords"))
	b.Await(`document.querySelectorAll("#list li").length === 1 && !document.querySelector("#clear button").disabled`)
}

// unnamedControls counts what a screen reader could only call "link" or "button".
const unnamedControls = `[...document.querySelectorAll("a, button, input, iframe")].filter(e =>
	!(e.getAttribute("aria-label") || e.title || e.textContent.trim())).length`
