// Keeps an open page current. The server sends the parts that have changed; morph() changes only what differs, so that focus,
// selection, scroll positions and open details survive.

const KEPT = new Set(["open"]); // Attributes that the reader changes.

function morph(from, to) {
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  if (from.isEqualNode(to) || from.hasAttribute("data-keep")) return;
  for (const { name, value } of to.attributes) {
    if (!KEPT.has(name) && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  for (const { name } of [...from.attributes]) {
    if (!KEPT.has(name) && !to.hasAttribute(name)) from.removeAttribute(name);
  }
  if (from === document.activeElement && from.matches("input, textarea, select")) return;
  morphChildren(from, to);
}

function morphChildren(from, to) {
  let old = from.firstChild;
  for (const fresh of [...to.childNodes]) {
    let match = null;
    if (fresh.id) match = [...from.children].find((child) => child.id === fresh.id) ?? null;
    else if (old && !old.id && old.nodeName === fresh.nodeName) match = old;
    if (!match) {
      from.insertBefore(fresh, old);
      continue;
    }
    if (match === old) old = old.nextSibling;
    else from.insertBefore(match, old);
    morph(match, fresh);
  }
  while (old) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

function apply({ elements, orders }) {
  const focused = document.activeElement;
  const followed = [...document.querySelectorAll("[data-follow]")].filter(isAtEnd);
  const added = new Map();
  for (const html of elements) {
    const fresh = parse(html);
    const known = document.getElementById(fresh.id);
    if (known) morph(known, fresh);
    else added.set(fresh.id, fresh);
  }
  for (const [parent, ids] of Object.entries(orders)) {
    const list = document.getElementById(parent);
    if (!list) continue;
    const wanted = new Set(ids);
    for (const child of [...list.children]) if (!wanted.has(child.id)) child.remove();
    let cursor = list.firstElementChild;
    for (const id of ids) {
      if (cursor?.id === id) {
        cursor = cursor.nextElementSibling;
        continue;
      }
      const element = document.getElementById(id) ?? added.get(id);
      if (element) list.insertBefore(element, cursor);
    }
  }
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  for (const element of followed) element.scrollTop = element.scrollHeight;
  document.dispatchEvent(new Event("updated"));
}

// A log follows new lines while it is scrolled to its end.
function isAtEnd(element) {
  return element.scrollHeight - element.scrollTop - element.clientHeight < 40;
}

for (const element of document.querySelectorAll("[data-follow]")) element.scrollTop = element.scrollHeight;

// The stream of the current page, open while the page is visible: a browser opens only six connections to a server.

let source = null;

function connect() {
  source?.close();
  source = null;
  if (document.hidden) return;
  source = new EventSource(`/live${location.pathname}${location.search}`);
  source.onopen = () => showConnection(true);
  source.onerror = () => showConnection(false);
  source.onmessage = (event) => apply(JSON.parse(event.data));
}

function showConnection(isConnected) {
  document.documentElement.classList.toggle("offline", !isConnected);
  const text = isConnected ? "Live" : "Not updated: the server of this page does not respond";
  const element = document.getElementById("live-text");
  if (element && element.textContent !== text) element.textContent = text;
}

document.addEventListener("visibilitychange", connect);
connect();

// Filters and sorting: load the page of another URL into this one.

let visits = 0;

async function visit(url, isNew) {
  const visit = ++visits;
  if (isNew) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
  if (await load(fetch(url), () => visit === visits)) connect();
}

// Show the page of a response in this one. isWanted: whether the reader has not asked for another page meanwhile.
async function load(request, isWanted) {
  const response = await request;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  if (!isWanted()) return false;
  morph(document.querySelector("main"), fresh.querySelector("main"));
  document.title = fresh.title;
  for (const element of document.querySelectorAll("[data-follow]")) element.scrollTop = element.scrollHeight;
  return true;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-visit]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  visit(link.href, true);
});
window.addEventListener("popstate", () => location.reload());

function formUrl(form) {
  const fields = [...new FormData(form)].filter(([, value]) => value !== "");
  const query = new URLSearchParams(fields).toString();
  return form.action + (query ? `?${query}` : "");
}

let timer = 0;
document.addEventListener("input", (event) => {
  const form = event.target.closest("form.filter");
  if (!form) return;
  clearTimeout(timer);
  timer = setTimeout(() => visit(formUrl(form), false), 120);
});
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.matches("form.filter")) {
    event.preventDefault();
    visit(formUrl(form), true);
  } else if (form.matches("form[data-send]")) {
    event.preventDefault();
    form.classList.add("busy");
    const body = new URLSearchParams(new FormData(form));
    try {
      await load(fetch(form.action, { method: "POST", body }), () => true);
    } finally {
      form.classList.remove("busy");
    }
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.target.closest("form[data-send]")?.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey) return;
  const search = document.querySelector("input[type=search]");
  if (!search) return;
  event.preventDefault();
  search.focus();
});

// Charts: a line under the pointer, at the same time in all charts of the page, with the values of that time in the legends.

function readout(share) {
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const cursor = figure.querySelector(".cursor");
    if (!cursor) continue;
    const data = JSON.parse(figure.dataset.chart);
    const time = data.start + share * (data.end - data.start);
    cursor.style.visibility = share === null ? "hidden" : "visible";
    cursor.style.left = `${100 * (share ?? 0)}%`;
    figure.querySelectorAll(".legend b").forEach((output, index) => {
      const { times, texts } = data.series[index];
      if (share === null) {
        output.textContent = texts.at(-1) ?? "no data";
        return;
      }
      let nearest = 0;
      times.forEach((each, at) => {
        if (Math.abs(each - time) < Math.abs(times[nearest] - time)) nearest = at;
      });
      output.textContent = texts[nearest] ?? "no data";
    });
  }
}

let shown = null; // The position of the line, from 0 to 1.

function show(share) {
  shown = share;
  readout(share);
}

document.addEventListener("pointermove", (event) => {
  const shapes = event.target.closest?.(".plot")?.querySelector(".shapes");
  if (!shapes) {
    if (shown !== null && !document.activeElement?.matches(".plot")) show(null);
    return;
  }
  const box = shapes.getBoundingClientRect();
  show(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
});
document.addEventListener("keydown", (event) => {
  if (!event.target.matches?.(".plot")) return;
  const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
  if (event.key === "Escape") show(null);
  if (!step) return;
  event.preventDefault();
  show(Math.min(1, Math.max(0, (shown ?? 1) + step)));
});
document.addEventListener("focusout", (event) => {
  if (event.target.matches?.(".plot")) show(null);
});
document.addEventListener("updated", () => {
  if (shown !== null) readout(shown);
});
