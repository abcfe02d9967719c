// "Try it": the parameters and the body of one operation, its code in several languages, and its response.

import { copyButton, h, tabs, unique } from "./dom.js";
import { form, hasForm, isShort } from "./form.js";
import { parse, stringify } from "./json.js";
import { exampleOf, typesOf } from "./schema.js";
import { send } from "./send.js";
import { languages } from "./snippets.js";

/** Return { element, fill }. api: { base, resolve, key(), needsKey, open(operationId, values) }. fill: sets parameters, and sends. */
export function trial(api, path, method, operation) {
  const parameters = (operation.parameters ?? []).map((each) => parameterField(api.resolve(each), api.resolve));
  const body = operation.requestBody ? bodyEditor(api.resolve(operation.requestBody).content, api.resolve) : null;
  const streams = Object.keys(api.resolve(operation.responses?.["200"])?.content ?? {}).includes("text/event-stream");
  const streamsByBody = body?.has("stream") ?? false;
  const accept = streams && !streamsByBody ? h("input", { type: "checkbox", id: unique("events"), checked: true }) : null;
  const status = h("p", { class: "status", role: "status", "aria-live": "polite" });
  const response = h("div", { class: "result" });
  const code = h("div", { class: "code-block" });
  let controller = null;

  const build = () => {
    const headers = {};
    const query = new URLSearchParams();
    let filled = path;
    for (const { name, place, read } of parameters) {
      const value = read();
      if (place === "path") filled = filled.replace(`{${name}}`, encodeURIComponent(value).replaceAll("%2F", "/"));
      else if (value === "") continue;
      else if (place === "header") headers[name.toLowerCase()] = value;
      else if (name === null) new URLSearchParams(value).forEach((each, key) => query.append(key, each));
      else query.append(name, value);
    }
    if (body?.type()) headers["content-type"] = body.type();
    if (accept?.checked) headers.accept = "text/event-stream";
    const search = query.size ? `?${query}` : "";
    const url = api.base + filled.replace(/^\//, "") + search;
    return { method, url, headers, body: body?.text() ?? null, file: body?.file() ?? null, isStream: streams && (streamsByBody ? /"stream":\s*true/.test(body.text()) : accept.checked) };
  };
  const show = () => {
    const request = build();
    const given = { ...request, hasFile: request.file !== null || body?.wantsFile(), needsKey: api.needsKey };
    for (const [name, panel] of panels) panel.textContent = languages[name](given);
  };
  const run = async () => {
    controller?.abort();
    const invalid = element.querySelector("input:invalid, select:invalid, textarea:invalid");
    if (invalid) {
      invalid.reportValidity();
      return;
    }
    controller = new AbortController();
    const request = build();
    const headers = { ...request.headers, ...(api.needsKey && api.key() ? { authorization: `Bearer ${api.key()}` } : {}) };
    cancel.hidden = false;
    const answer = await send({ ...request, headers, body: request.file ?? request.body }, response, status, controller.signal);
    cancel.hidden = true;
    if (answer?.status === 401 && api.needsKey) api.askForKey();
    if (answer) addLinks(api, operation, answer, response);
  };
  const panels = Object.keys(languages).map((name) => [name, h("pre", { tabindex: "0", "aria-label": `Request in ${name}` })]);
  let chosen = 0;
  const group = tabs("Request as code", panels, (index) => (chosen = index));
  code.append(copyButton(() => panels[chosen][1].textContent, "Copy the code"), group.element);
  const cancel = h("button", { type: "button", hidden: true, click: () => controller?.abort() }, "Cancel");
  const element = h(
    "form",
    {
      class: "trial",
      "aria-label": `Try ${method} ${path}`,
      novalidate: true,
      submit: (event) => {
        event.preventDefault();
        run();
      },
      keydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
      },
      input: show,
      change: show,
    },
    h("h4", {}, "Try it"),
    parameters.map((each) => each.element),
    body?.element,
    accept && h("div", { class: "field check" }, h("label", { for: accept.id }, "Stream as server-sent events"), accept),
    h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Send"), cancel, status),
    response,
    code,
  );
  body?.onChange(show);
  show();
  const fill = (values) => {
    for (const each of parameters) if (each.name in values) each.set(values[each.name]);
    show();
    run();
  };
  return { element, fill };
}

/** Add buttons for the links of a response: other operations, with values of this one. */
function addLinks(api, operation, answer, place) {
  const links = api.resolve(operation.responses?.[String(answer.status)] ?? {}).links ?? {};
  for (const link of Object.values(links)) {
    const values = {};
    for (const [name, expression] of Object.entries(link.parameters ?? {})) {
      const pointer = /^\$response\.body#\/(\w+)$/.exec(expression);
      if (pointer) values[name] = JSON.parse(answer.body)[pointer[1]];
    }
    const target = () => api.open(link.operationId, values);
    place.append(h("button", { type: "button", click: target }, `${api.summary(link.operationId)} (${Object.values(values).join(", ")})`));
  }
}

function parameterField(parameter, resolve) {
  const schema = resolve(parameter.schema ?? {});
  const id = unique("parameter");
  const isFree = parameter.in === "query" && typesOf(schema)[0] === "object";
  const required = parameter.required === true;
  let input;
  if (schema.enum) {
    const options = schema.enum.map((each) => h("option", {}, String(each)));
    input = h("select", { id }, required ? options : [h("option", { value: "" }, "(none)"), options]);
  } else {
    const isNumber = typesOf(schema)[0] === "integer";
    const value = required ? (parameter.example ?? String(exampleOf(schema, resolve))) : "";
    input = h("input", { id, required, type: isNumber ? "number" : "text", min: schema.minimum, value, placeholder: isFree ? "name=value&other=value" : null });
  }
  const place = { path: "in the path", query: "in the query", header: "header" }[parameter.in];
  const words = [isFree ? "" : parameter.description, schema.description].filter(Boolean).join(" · ");
  if (words) input.setAttribute("aria-describedby", `${id}-hint`);
  const label = h(
    "label",
    { for: id },
    isFree ? "Query parameters" : parameter.name,
    required && [h("span", { class: "required" }, " *"), h("span", { class: "unseen" }, " required")],
    h("span", { class: "type" }, isFree ? "as in a URL" : place),
  );
  return {
    name: isFree ? null : parameter.name,
    place: parameter.in,
    read: () => input.value,
    set: (value) => (input.value = value),
    element: h("div", { class: "field" }, label, input, words && h("p", { class: "hint", id: `${id}-hint` }, words)),
  };
}

/** Return the editor of a request body. content: media types. */
function bodyEditor(content, resolve) {
  const kinds = Object.keys(content);
  const box = h("div", {});
  let editor = null;
  let changed = () => {};
  const open = (kind) => {
    const isJson = /json$/.test(kind);
    editor = isJson ? jsonEditor(content[kind], resolve, () => changed()) : plainEditor(kind, content[kind]);
    box.replaceChildren(editor.element);
    changed();
  };
  let kind = kinds[0];
  const select = h("select", { id: unique("kind") }, kinds.map((each) => h("option", {}, each)));
  select.addEventListener("change", () => open((kind = select.value)));
  open(kind);
  const chooser = kinds.length > 1 && h("div", { class: "field" }, h("label", { for: select.id }, "Content type of the body"), select);
  return {
    element: h("div", { class: "body" }, chooser, box),
    text: () => editor.text(),
    file: () => editor.file?.() ?? null,
    wantsFile: () => editor.file !== undefined,
    has: (name) => Object.values(content).some((media) => name in (resolve(media.schema ?? {}).properties ?? {})),
    // The boundary of a form is chosen by the browser.
    type: () => (kind === "multipart/form-data" ? null : kind),
    onChange: (listener) => (changed = listener),
  };
}

function plainEditor(kind, media) {
  const id = unique("body");
  if (/^text\//.test(kind)) {
    const first = Object.values(media.examples ?? {})[0]?.value ?? "text";
    const area = h("textarea", { id, rows: 5 }, first);
    return { element: h("div", { class: "field" }, h("label", { for: id }, "Body"), area), text: () => area.value };
  }
  const input = h("input", { id, type: "file" });
  const file = () => {
    const chosen = input.files[0] ?? null;
    if (kind !== "multipart/form-data" || chosen === null) return chosen;
    const data = new FormData();
    data.append("file", chosen);
    return data;
  };
  return { element: h("div", { class: "field" }, h("label", { for: id }, "File as the body"), input), text: () => null, file };
}

function jsonEditor(media, resolve, changed) {
  const schema = media.schema ?? {};
  const examples = Object.entries(media.examples ?? {});
  const start = examples.length ? valueOf(examples[0][1], resolve) : exampleOf(schema, resolve);
  const id = unique("body");
  const area = h("textarea", { id, class: "code", spellcheck: "false", autocapitalize: "off", "aria-describedby": `${id}-error` });
  const problem = h("p", { class: "hint bad", id: `${id}-error`, role: "alert" });
  const fields = h("div", {});
  let reader = null;
  let inForm = false;
  const check = () => {
    try {
      parse(area.value);
      problem.textContent = "";
      area.removeAttribute("aria-invalid");
      return true;
    } catch (error) {
      problem.textContent = `Not valid JSON: ${error.message}`;
      area.setAttribute("aria-invalid", "true");
      return false;
    }
  };
  const resize = () => (area.rows = Math.min(18, Math.max(4, area.value.split("\n").length + 1)));
  const write = (value) => {
    area.value = stringify(value);
    resize();
    check();
  };
  const openForm = () => {
    if (!check()) {
      fields.replaceChildren(h("p", { class: "hint bad" }, "The JSON is not valid, so it cannot be shown as a form."));
      reader = null;
      return;
    }
    const made = form(schema, parse(area.value), resolve);
    reader = made.read;
    fields.replaceChildren(made.element);
  };
  area.addEventListener("input", () => {
    resize();
    check();
  });
  fields.addEventListener("input", () => reader && write(reader()));
  write(start);
  const json = h("div", { class: "field" }, h("label", { for: id, class: "unseen" }, "Body as JSON"), area, problem);
  let element = json;
  if (hasForm(schema, resolve)) {
    const group = tabs("Body", [["Form", fields], ["JSON", json]], (index) => {
      inForm = index === 0;
      if (inForm) openForm();
    });
    if (!isShort(schema, resolve)) group.select(1);
    element = group.element;
  }
  if (examples.length > 1) {
    const select = h("select", { id: unique("example") }, examples.map(([name], index) => h("option", { value: index }, name)));
    select.addEventListener("change", () => {
      write(valueOf(examples[Number(select.value)][1], resolve));
      if (inForm) openForm();
      changed();
    });
    element = [h("div", { class: "field" }, h("label", { for: select.id }, "Example"), select), element];
  }
  return { element: h("div", {}, element), text: () => area.value };
}

function valueOf(example, resolve) {
  return resolve(example).value;
}
