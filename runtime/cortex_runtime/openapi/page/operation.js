// One operation: what it takes and returns, next to the form that tries it.

import { h, inline, prose } from "./dom.js";
import { stringify } from "./json.js";
import { alternatives, hintOf, typeName, typesOf } from "./schema.js";
import { colored } from "./send.js";
import { trial } from "./trial.js";

const DEEPEST = 6;

/** Return { element, open }. open(values): shows the operation; with values for its parameters, also sends it. */
export function operationView(api, path, method, operation) {
  let made = null;
  const body = h("div", { class: "operation-body" });
  const summary = h(
    "summary",
    {},
    h("h3", {}, badge(method), h("code", { class: "path" }, breakable(path))),
    operation.summary && h("span", { class: "summary" }, operation.summary),
  );
  const element = h("details", { class: "operation", id: operation.operationId }, summary, body);
  const build = () => {
    if (made) return;
    // Built when it is opened: an API with many models has many operations.
    made = trial(api, path, method, operation);
    body.append(h("div", { class: "about" }, about(api, operation)), made.element);
  };
  element.addEventListener("toggle", () => element.open && build());
  const open = (values) => {
    build();
    element.open = true;
    element.scrollIntoView({ block: "start" });
    summary.focus({ preventScroll: true });
    if (values) made.fill(values);
  };
  return { element, open };
}

/** Return the name of a method in its color. */
export function badge(method) {
  return h("span", { class: `method ${method.toLowerCase()}` }, method);
}

/** Return a path that may wrap before each slash. */
export function breakable(path) {
  return path.split(/(?=\/)/).flatMap((part, index) => (index ? [h("wbr"), part] : [part]));
}

function about(api, operation) {
  const parts = prose(operation.description);
  const parameters = (operation.parameters ?? []).map(api.resolve);
  if (parameters.length) parts.push(h("h4", {}, "Parameters"), h("ul", { class: "schema" }, parameters.map((each) => parameterLine(each, api.resolve))));
  const content = operation.requestBody ? api.resolve(operation.requestBody).content : {};
  for (const [kind, media] of Object.entries(content)) parts.push(h("h4", {}, "Request body ", h("span", { class: "type" }, kind)), schemaView(media.schema ?? {}, api.resolve));
  const responses = Object.entries(operation.responses ?? {}).map(([status, each]) => [status, api.resolve(each)]);
  const good = responses.filter(([status]) => status.startsWith("2"));
  for (const [status, each] of good) parts.push(...response(status, each, api.resolve));
  const bad = responses.filter(([status]) => !status.startsWith("2"));
  if (bad.length) parts.push(errors(bad));
  return parts;
}

function parameterLine(parameter, resolve) {
  const schema = resolve(parameter.schema ?? {});
  return property(parameter.name, { ...schema, description: [parameter.description, schema.description].filter(Boolean).join(" · ") }, parameter.required, resolve, DEEPEST, parameter.in);
}

function response(status, each, resolve) {
  const kinds = Object.entries(each.content ?? {});
  return kinds.flatMap(([kind, media], index) => {
    const schema = media.schema ?? {};
    const item = schema.contentSchema;
    const examples = Object.entries(media.examples ?? {});
    return [
      h("h4", {}, index ? "or " : `Response ${status} `, h("span", { class: "type" }, kind === "*/*" ? "any content type" : kind)),
      index === 0 && each.description !== "The result" && h("p", { class: "hint" }, inline(each.description)),
      item && h("p", { class: "hint" }, schema.description ?? ""),
      (index === 0 || !item) && schemaView(item ?? schema, resolve),
      examples.map(([name, found]) => h("figure", {}, h("figcaption", { class: "hint" }, `Example ${name}`), h("pre", { tabindex: "0" }, colored(stringify(resolve(found).value))))),
    ];
  });
}

function errors(found) {
  const rows = found.map(([status, each]) => h("tr", {}, h("th", { scope: "row" }, status), h("td", {}, prose(each.description))));
  return h("details", { class: "errors" }, h("summary", {}, `Errors: ${found.map(([status]) => status).join(", ")}`), h("table", {}, rows));
}

/** Return a schema as a list of its properties. */
function schemaView(given, resolve, depth = 0) {
  const schema = resolve(given);
  const { options } = alternatives(schema, resolve);
  if (options.length === 1 && typesOf(options[0])[0] === "object") return schemaView(options[0], resolve, depth);
  const properties = Object.entries(schema.properties ?? {});
  if (!properties.length) {
    const words = hintOf(schema);
    const inside = nested(schema, resolve, depth);
    return h("div", { class: "schema" }, h("p", {}, h("span", { class: "type first" }, typeName(given, resolve)), words && h("span", { class: "hint" }, " ", inline(words))), inside);
  }
  const required = schema.required ?? [];
  return h("div", {}, depth === 0 && schema.description && h("p", { class: "hint" }, schema.description), h("ul", { class: "schema" }, properties.map(([name, each]) => property(name, each, required.includes(name), resolve, depth))));
}

function property(name, given, required, resolve, depth, place) {
  const schema = resolve(given);
  const words = hintOf(schema);
  const values = schema.enum && [" ", schema.enum.slice(0, 12).map((each, index) => [index ? ", " : "", h("code", {}, JSON.stringify(each))]), schema.enum.length > 12 && ", ..."];
  return h(
    "li",
    {},
    h("code", { class: "name" }, name),
    required && [h("span", { class: "required", title: "required" }, "*"), h("span", { class: "unseen" }, " required")],
    " ",
    h("span", { class: "type" }, typeName(given, resolve), values),
    place && h("span", { class: "type" }, ` · in the ${place}`),
    words && h("p", { class: "hint" }, inline(words)),
    nested(schema, resolve, depth),
  );
}

/** Return the properties of the items or alternatives of a schema, if there are any. */
function nested(schema, resolve, depth) {
  if (depth >= DEEPEST) return null;
  if (schema.properties) return schemaView(schema, resolve, depth + 1);
  const found = [schema.items, schema.additionalProperties, ...(schema.anyOf ?? schema.oneOf ?? [])].filter((each) => each && typeof each === "object" && each.type !== "null").map((each) => [each, resolve(each)]);
  const titled = found.flatMap(([, each]) => each.anyOf ?? [each]).filter((each) => each.title && each.description && !each.properties);
  if (titled.length) return h("ul", { class: "schema" }, titled.map((each) => property(each.title, each, false, resolve, DEEPEST)));
  const inside = found.filter(([, each]) => each.properties || each.items?.$ref || each.items?.properties);
  return inside.map(([each, full]) => (full.properties ? [found.length > 1 && h("p", { class: "type" }, typeName(each, resolve)), schemaView(each, resolve, depth + 1)] : nested(full, resolve, depth + 1)));
}
