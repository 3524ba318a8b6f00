// Adds events as they happen, and renews the other parts of the page. Without it the page shows
// the state of its time.
"use strict";

const RENEWAL_MS = 15000;
const SOON_MS = 1000;
const RETRY_MS = 10000;
const MOST_EVENTS = 100;

const table = document.getElementById("event-table");
const rows = table.querySelector("tbody");
const state = document.getElementById("state");
const pause = document.getElementById("pause");

let after = table.dataset.after;
let source = null;
let timer = null;
let due = 0;
let renewed = Date.now();
let isRenewing = false;
let isPaused = false;

function show(text) {
  if (state.textContent !== text) state.textContent = text;
}

function add(message) {
  const event = JSON.parse(message.data);
  after = message.lastEventId;
  const row = document.createElement("tr");
  for (const text of [event.at, event.kind, event.subject, event.text]) {
    row.insertCell().textContent = text;
  }
  rows.prepend(row);
  while (rows.children.length > MOST_EVENTS) rows.lastElementChild.remove();
  show(`Latest event: ${event.kind} ${event.subject}: ${event.text}`);
  renewIn(SOON_MS);
}

function follow() {
  source = new EventSource("events?after=" + encodeURIComponent(after));
  source.onmessage = add;
  source.onerror = () => {
    renewIn(SOON_MS);
    // While it is connecting, the browser tries again by itself.
    if (source && source.readyState === EventSource.CLOSED) {
      show("Events are not followed: too many browsers, or the daemon is not running. Trying again.");
      source = null;
      setTimeout(() => isActive() && !source && follow(), RETRY_MS);
    }
  };
}

// Whoever reads or uses a part keeps it as it is.
function isInUse(part) {
  const selection = getSelection();
  return part.contains(document.activeElement) || (!selection.isCollapsed && part.contains(selection.anchorNode));
}

function replace(part, by) {
  const left = [...part.querySelectorAll(".scroll")].map((region) => region.scrollLeft);
  part.replaceChildren(...by.childNodes);
  part.querySelectorAll(".scroll").forEach((region, n) => (region.scrollLeft = left[n] || 0));
}

async function renew() {
  timer = null;
  if (isRenewing) return renewIn(SOON_MS);
  isRenewing = true;
  try {
    const options = { cache: "no-store", signal: AbortSignal.timeout(RETRY_MS) };
    const response = await fetch(location.href, options);
    if (!response.ok) throw new Error(response.statusText);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const by = page.getElementById(part.id);
      if (by && !isInUse(part)) replace(part, by);
    }
    if (document.body.classList.replace("stale", "fresh")) show("The daemon responds again.");
  } catch {
    document.body.classList.remove("fresh");
    document.body.classList.add("stale");
    show("The daemon does not respond: the page is out of date. Trying again.");
  }
  isRenewing = false;
  renewed = Date.now();
  renewIn(RENEWAL_MS);
}

// The earlier of two renewals counts, so that events without end do not put it off.
function renewIn(milliseconds) {
  const at = Date.now() + milliseconds;
  if (!isActive() || (timer && due <= at)) return;
  clearTimeout(timer);
  due = at;
  timer = setTimeout(renew, milliseconds);
}

function isActive() {
  return !isPaused && !document.hidden;
}

// A page that nobody looks at costs the daemon nothing.
function update() {
  if (!isActive()) {
    clearTimeout(timer);
    timer = null;
    if (source) source.close();
    source = null;
  } else if (!source) {
    follow();
    renewIn(Math.max(SOON_MS, renewed + RENEWAL_MS - Date.now()));
  }
}

pause.hidden = false;
pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.textContent = isPaused ? "Resume updates" : "Pause updates";
  show(isPaused ? "Updates are paused." : "Updates are resumed.");
  update();
});
document.addEventListener("visibilitychange", update);
show("The page is updated as events happen.");
update();
