'use strict';
// What this adds to a page that is whole without it: copy buttons, a countdown,
// and changes that show by themselves. The server draws everything; a change
// takes the page's main part in anew.
(() => {
  const root = document.documentElement;
  const said = document.getElementById('said');
  let main = document.getElementById('order');
  root.classList.add('js');

  if (main.dataset.again) { // the order could not be shown
    setTimeout(() => location.reload(), 1000 * main.dataset.again);
    return;
  }

  // Somebody who does not see the screen hears of changes.
  const say = (text) => {
    said.textContent = '';
    setTimeout(() => { said.textContent = text; }, 50); // the same words twice are said twice
  };

  // Copying -----------------------------------------------------------------

  // The way for pages without https, where there is no navigator.clipboard.
  const copyOldWay = (text) => {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'away';
    area.readOnly = true;
    document.body.append(area);
    area.select();
    let done = false;
    try { done = document.execCommand('copy'); } catch { /* then not */ }
    area.remove();
    return done;
  };

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyOldWay(text);
    }
  };

  document.addEventListener('click', async (event) => {
    const button = event.target.closest('.copy');
    if (!button) return;
    const done = await copy(button.dataset.copy);
    button.focus({ preventScroll: true });
    if (!done) {
      getSelection().selectAllChildren(button.closest('div').querySelector('code'));
      say('Your browser does not let this page copy. The text is selected: copy it with your keyboard.');
      return;
    }
    const label = button.firstChild;
    label.data = 'Copied';
    button.classList.add('done');
    say(button.dataset.what + ' copied');
    clearTimeout(button.reset);
    button.reset = setTimeout(() => {
      label.data = 'Copy';
      button.classList.remove('done');
    }, 2000);
  });

  // The countdown -------------------------------------------------------------

  let deadline = 0; // by this browser's clock, from what the server said is left
  const two = (n) => String(n).padStart(2, '0');

  const tick = () => {
    const left = main.querySelector('.left');
    if (!left) return;
    const s = Math.max(0, Math.round((deadline - Date.now()) / 1000));
    const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
    let text = two(m) + ':' + two(s % 60) + ' left';
    if (d) text = d + (d === 1 ? ' day ' : ' days ') + h + ' h left';
    else if (h) text = h + ' h ' + two(m) + ' min left';
    else if (!s) text = 'The time is over';
    if (left.textContent !== text) left.textContent = text;
    left.classList.toggle('short', s < 300);
    left.hidden = false;
  };

  const wind = () => {
    const left = main.querySelector('.left');
    if (left) deadline = Date.now() + 1000 * left.dataset.left;
    for (const time of main.querySelectorAll('time')) {
      time.title = time.textContent;
      time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
    }
    tick();
  };
  wind();
  setInterval(tick, 1000);

  // Changes -------------------------------------------------------------------

  const words = () => main.querySelector('#headline').textContent + '. ' + main.querySelector('#advice').textContent;

  // takeIn swaps the main part and leaves focus, scrolling and what was opened.
  const takeIn = (fresh, title) => {
    const before = words();
    const focus = main.contains(document.activeElement) ? document.activeElement.id : '';
    const open = [...main.querySelectorAll('details[open]')].map((d) => d.id);
    const top = scrollY;
    main.replaceWith(document.adoptNode(fresh));
    main = fresh;
    document.title = title;
    for (const id of open) document.getElementById(id)?.setAttribute('open', '');
    wind();
    if (focus) {
      document.getElementById(focus)?.focus({ preventScroll: true });
      if (!main.contains(document.activeElement)) document.getElementById('headline').focus({ preventScroll: true }); // what had it is gone or folded away
    }
    scrollTo(scrollX, top);
    if (words() !== before) {
      main.classList.add('fresh');
      say(words());
    }
    if (!('live' in main.dataset)) hangUp();
  };

  let busy = false, again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    again = false;
    try {
      const answer = await fetch(location.pathname, { cache: 'no-store' });
      if (answer.status === 404) return location.reload();
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      if (page.documentElement.dataset.build !== root.dataset.build) return location.reload();
      const fresh = page.getElementById('order');
      if (main.querySelector('form') && fresh.dataset.version === main.dataset.version) return; // what was typed stays
      takeIn(fresh, page.title);
    } catch { // no network: the next look comes by itself
    } finally {
      busy = false;
      if (again) refresh();
    }
  };

  let source = null, looks = 0;
  const line = document.getElementById('live');
  const show = (on) => {
    line.hidden = false;
    line.classList.toggle('on', on);
    document.getElementById('live-text').textContent = on ? 'This page changes by itself.' : 'Connecting again…';
  };

  const listen = () => {
    if (!window.EventSource) return;
    source = new EventSource(location.pathname + '/events');
    source.addEventListener('open', () => show(true));
    source.addEventListener('error', () => show(false));
    source.addEventListener('status', (event) => {
      if (event.lastEventId !== main.dataset.version) refresh();
    });
  };

  // Without a stream the page looks for itself: every ten seconds or so.
  const lookAfter = () => {
    if (document.hidden || source?.readyState === EventSource.OPEN) return;
    refresh();
    looks += 1;
    if (source?.readyState === EventSource.CLOSED && looks % 3 === 0) listen(); // a refused one does not come back by itself
  };
  const timer = setInterval(lookAfter, 10000 + 3000 * Math.random());

  // A tab that nobody looks at for a minute holds no connection.
  let forgotten = 0;
  const turned = () => {
    clearTimeout(forgotten);
    if (!('live' in main.dataset)) return;
    if (document.hidden) {
      forgotten = setTimeout(() => { source?.close(); show(false); }, 60000);
    } else if (source?.readyState !== EventSource.OPEN) {
      source?.close();
      refresh();
      listen();
    }
  };

  const hangUp = () => {
    source?.close();
    clearInterval(timer);
    line.hidden = true;
  };

  if ('live' in main.dataset) {
    listen();
    document.addEventListener('visibilitychange', turned);
    addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });
  } else {
    clearInterval(timer);
  }
})();
