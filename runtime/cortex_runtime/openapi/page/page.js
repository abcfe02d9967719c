// The page: reads the document, asks for an API key if one is needed, and shows the operations by tag.

import { h, prose, unique } from "./dom.js";
import { badge, breakable, operationView } from "./operation.js";
import { resolver } from "./schema.js";

const VERBS = ["get", "post", "put", "patch", "delete"];
// The page may have a prefix, which a gateway strips: all URLs are relative to it.
const documentUrl = new URL("openapi.json", location.href);
// The theme that follows each.
const THEMES = { light: "dark", dark: "auto", auto: "light" };
let key = "";

const main = document.getElementById("main");
const dialog = keyDialog();
document.body.append(dialog.element);
theme(read("theme") ?? "auto");
load();

async function load() {
  let response;
  try {
    response = await fetch(documentUrl, { headers: key ? { authorization: `Bearer ${key}` } : {} });
  } catch (error) {
    return fail(`The document could not be loaded: ${error.message}.`);
  }
  if (response.status === 401) {
    fail("This API needs an API key.");
    return dialog.open(load, key ? "The API has refused this key." : "");
  }
  if (!response.ok) return fail(`The document could not be loaded: ${response.status} ${response.statusText}.`);
  show(await response.json());
}

function fail(message) {
  main.removeAttribute("aria-busy");
  const again = h("button", { type: "button", click: load }, "Try again");
  main.replaceChildren(h("div", { class: "notice", role: "alert" }, h("p", {}, message), again));
}

function show(api) {
  const title = api.info.title;
  document.title = `${title} · API`;
  const needsKey = (api.security ?? []).length > 0;
  const views = new Map();
  const context = {
    base: new URL(api.servers?.[0]?.url ?? ".", documentUrl).href.replace(/\/*$/, "/"),
    resolve: resolver(api),
    key: () => key,
    needsKey,
    askForKey: () => dialog.open(() => {}, "The API has refused the request: the key is missing or not valid."),
    open: (name, values) => views.get(name)?.open(values),
    summary: (name) => operations.find((each) => each.operation.operationId === name)?.operation.summary ?? name,
  };
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    VERBS.filter((verb) => item[verb]).map((verb) => ({ path, method: verb.toUpperCase(), operation: item[verb] })),
  );
  const tags = (api.tags ?? []).map((tag) => ({ ...tag, own: operations.filter(({ operation }) => operation.tags?.[0] === tag.name) }));
  const rest = operations.filter(({ operation }) => !tags.some((tag) => tag.own.some((each) => each.operation === operation)));
  if (rest.length) tags.push({ name: "Other", own: rest });
  const sections = tags.filter((tag) => tag.own.length).map((tag) => section(tag, context, views));
  main.replaceChildren(intro(api), ...sections.map((each) => each.element), ...extras(api));
  main.removeAttribute("aria-busy");
  header(api, needsKey);
  navigation(sections, views);
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (views.has(wanted)) views.get(wanted).open();
  else if (operations.length) views.get(operations[0].operation.operationId).element.open = true;
  window.addEventListener("hashchange", () => views.get(decodeURIComponent(location.hash.slice(1)))?.open());
}

function section(tag, context, views) {
  const own = tag.own.map(({ path, method, operation }) => {
    const view = operationView(context, path, method, operation);
    views.set(operation.operationId, view);
    return view.element;
  });
  const id = unique("tag");
  const element = h("section", { "aria-labelledby": id }, h("h2", { id }, tag.name), tag.description && h("div", { class: "hint" }, prose(tag.description)), own);
  return { tag, id, element };
}

function intro(api) {
  const { summary, description } = api.info;
  return summary || description ? h("div", { class: "intro" }, summary && h("p", { class: "lead" }, summary), prose(description)) : "";
}

/** Return the routes that OpenAPI cannot describe. */
function extras(api) {
  const found = [
    ["WebSockets", api["x-cortex-websockets"]],
    ["Mounted applications", api["x-cortex-mounts"]],
  ];
  return found
    .filter(([, routes]) => routes?.length)
    .map(([title, routes]) => h("section", {}, h("h2", {}, title), h("ul", { class: "schema" }, routes.map((each) => h("li", {}, h("code", { class: "name" }, each.path), each.summary && h("span", { class: "hint" }, ` ${each.summary}`))))));
}

function header(api, needsKey) {
  const keyButton = needsKey && h("button", { type: "button", id: "key", click: () => dialog.open(() => keyState(keyButton)) });
  if (keyButton) keyState(keyButton);
  const { title, version } = api.info;
  document.getElementById("top").replaceChildren(
    h("h1", {}, title),
    h("span", { class: "version", title: "A hash of the document" }, version),
    h("div", { class: "right" }, keyButton, h("a", { href: documentUrl.href, class: "quiet" }, "openapi.json"), themeButton()),
  );
}

function navigation(sections, views) {
  const lists = sections.map(({ tag, id }) => [
    h("h2", {}, h("a", { href: `#${id}` }, tag.name)),
    h("ul", {}, tag.own.map(({ path, method, operation }) => h("li", {}, h("a", { href: `#${operation.operationId}`, title: operation.summary }, badge(method), h("span", { class: "path" }, breakable(path)))))),
  ]);
  const box = h("details", {}, h("summary", {}, "Operations"), lists);
  const wide = matchMedia("(min-width: 60rem)");
  const adapt = () => (box.open = wide.matches);
  wide.addEventListener("change", adapt);
  adapt();
  box.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link) return;
    // The same hash again is not a change.
    views.get(link.getAttribute("href").slice(1))?.open();
    if (!wide.matches) box.open = false;
  });
  document.getElementById("operations").replaceChildren(box);
}

/** Return the dialog for the API key. It is kept in the memory of this tab only. */
function keyDialog() {
  const id = unique("key");
  const input = h("input", { id, type: "password", autocomplete: "off", required: true, "aria-describedby": `${id}-hint` });
  const problem = h("p", { class: "hint bad", role: "alert" });
  const close = h("button", { type: "button", click: () => element.close() }, "Cancel");
  let done = () => {};
  const submit = (event) => {
    event.preventDefault();
    key = input.value.trim();
    element.close();
    done();
  };
  const element = h(
    "dialog",
    { "aria-labelledby": `${id}-title` },
    h(
      "form",
      { submit },
      h("h2", { id: `${id}-title` }, "API key"),
      problem,
      h("div", { class: "field" }, h("label", { for: id }, "Key"), input, h("p", { class: "hint", id: `${id}-hint` }, "Sent with each request. It stays in this tab until it is closed or loaded again.")),
      h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Use key"), close),
    ),
  );
  const open = (next, message = "") => {
    done = next;
    problem.textContent = message;
    input.value = key;
    element.showModal();
  };
  return { element, open };
}

function keyState(button) {
  button.textContent = key ? "API key: set" : "Set API key";
}

function themeButton() {
  const button = h("button", { type: "button", class: "quiet" });
  const name = () => {
    button.textContent = `Theme: ${current()}`;
  };
  const current = () => document.documentElement.dataset.theme ?? "auto";
  button.addEventListener("click", () => {
    theme(THEMES[current()]);
    name();
  });
  name();
  return button;
}

function theme(name) {
  if (name === "light" || name === "dark") document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("theme", name);
  } catch {
    // Storage may be off.
  }
}

function read(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}
