// New mails appear by themselves. Without this script the page reloads instead.
const list = () => document.getElementById("list");
const query = document.getElementById("q");
const clear = document.getElementById("clear");
let turn = 0;

// refresh asks for this page again and takes over its list. The mail that is
// open stays as it is, and so do focus and scrolling.
async function refresh() {
  const mine = ++turn;
  const answer = await fetch(location.href).catch(() => null); // the program may have stopped
  if (!answer || mine !== turn) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (mine !== turn || !page.getElementById("list")) return;
  const focus = list().contains(document.activeElement) && document.activeElement.getAttribute("href");
  list().replaceWith(page.getElementById("list"));
  document.getElementById("count").textContent = page.getElementById("count").textContent;
  clear.querySelector("button").disabled = page.querySelector("#clear button").disabled;
  if (focus) list().querySelector(`a[href="${CSS.escape(focus)}"]`)?.focus();
}

query.addEventListener("input", () => {
  const url = new URL(location.href);
  if (query.value) url.searchParams.set("q", query.value);
  else url.searchParams.delete("q");
  history.replaceState(null, "", url);
  refresh();
});

clear.addEventListener("submit", (e) => {
  if (!confirm("Delete all mails that were caught?")) e.preventDefault();
});

const changes = new EventSource("/changes");
changes.onopen = refresh; // what came before we listened
changes.onmessage = refresh;
