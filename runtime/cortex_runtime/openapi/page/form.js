// A form with one field for each property of a schema.

import { h, inline, unique } from "./dom.js";
import { number, parse, stringify } from "./json.js";
import { alternatives, exampleOf, hintOf, typeName, typesOf } from "./schema.js";

const DEEPEST = 4;
const LONG = 80;

/** Return whether a schema can be shown as a form: an object with named properties. */
export function hasForm(given, resolve) {
  const schema = resolve(given);
  return typesOf(schema)[0] === "object" && Object.keys(schema.properties ?? {}).length > 0;
}

/** Return whether all fields of a form are single values or lists of them, so that it is short. */
export function isShort(given, resolve) {
  return Object.values(resolve(given).properties ?? {}).every((each) => {
    let schema = resolve(each);
    if (typesOf(schema)[0] === "array") schema = resolve(schema.items ?? {});
    const known = alternatives(schema, resolve).options.length < 2;
    return known && typesOf(schema)[0] !== "array" && (!schema.properties || typesOf(resolve(each))[0] === "object");
  });
}

/** Return { element, read }: the fields of a schema with a value, and a function that returns the value in them or undefined. */
export function form(schema, value, resolve) {
  return field("", schema, value, true, resolve, 0);
}

function field(name, given, value, required, resolve, depth) {
  let schema = resolve(given);
  const { options, nullable } = alternatives(schema, resolve);
  if (options.length === 1) schema = { ...options[0], ...pick(schema, ["title", "description", "default"]) };
  const [type] = options.length > 1 ? [] : typesOf(schema);
  const context = { name, schema, value, required: required && !nullable, nullable, resolve, depth };
  if (schema.enum || schema.const !== undefined) return choice(context);
  if (type === "object" && schema.properties && depth < DEEPEST) return group(context);
  if (type === "array" && schema.items && depth < DEEPEST) return list(context);
  if (type === "boolean") return checkbox(context);
  if (type === "number" || type === "integer") return numeric(context, type);
  if (type === "string") return text(context);
  return anything(context);
}

function group(context) {
  const { name, schema, value, required, resolve, depth } = context;
  if (!required && (value === undefined || value === null)) return optional(context);
  const known = Object.entries(schema.properties).map(([key, each]) => [
    key,
    field(key, each, value?.[key], (schema.required ?? []).includes(key), resolve, depth + 1),
  ]);
  const read = () => {
    const own = Object.fromEntries(known.map(([key, each]) => [key, each.read()]).filter(([, each]) => each !== undefined));
    // What the form has no fields for stays as it is.
    const rest = Object.fromEntries(Object.entries(value ?? {}).filter(([key]) => !(key in schema.properties)));
    return { ...own, ...rest };
  };
  const fields = known.map(([, each]) => each.element);
  if (!name) return { element: h("div", { class: "fields" }, fields), read };
  return { element: h("fieldset", {}, h("legend", {}, title(name, required)), note(schema, resolve), fields), read };
}

/** Return a button that adds the fields of an optional object. */
function optional(context) {
  const { name, schema, resolve } = context;
  let made = null;
  const button = h("button", { type: "button", class: "quiet" }, `Add ${name}`);
  const box = h("div", { class: "field" }, button);
  button.addEventListener("click", () => {
    made = group({ ...context, required: true, value: exampleOf(schema, resolve) });
    const remove = h("button", { type: "button", class: "quiet" }, `Remove ${name}`);
    remove.addEventListener("click", () => {
      made = null;
      box.replaceChildren(button);
      button.focus();
      box.dispatchEvent(new Event("input", { bubbles: true }));
    });
    box.replaceChildren(made.element, remove);
    made.element.querySelector("input, select, textarea")?.focus();
    box.dispatchEvent(new Event("input", { bubbles: true }));
  });
  return { element: box, read: () => (made ? made.read() : absent(context)) };
}

function list({ name, schema, value, required, resolve, depth }) {
  const items = [];
  const box = h("div", { class: "items" });
  const add = (each) => {
    const item = field(`${name || "item"} ${items.length + 1}`, schema.items, each, true, resolve, depth + 1);
    const remove = h("button", { type: "button", class: "quiet", "aria-label": `Remove ${name} ${items.length + 1}` }, "Remove");
    const row = h("div", { class: "item" }, item.element, remove);
    remove.addEventListener("click", () => {
      items.splice(items.indexOf(item), 1);
      row.remove();
      box.dispatchEvent(new Event("input", { bubbles: true }));
    });
    items.push(item);
    box.append(row);
  };
  const given = Array.isArray(value) ? value : undefined;
  given?.forEach(add);
  const more = h("button", { type: "button", class: "quiet" }, `Add to ${name || "the list"}`);
  more.addEventListener("click", () => {
    add(exampleOf(schema.items, resolve));
    box.dispatchEvent(new Event("input", { bubbles: true }));
  });
  const read = () => (!items.length && !required && given === undefined ? undefined : items.map((each) => each.read()));
  return { element: h("fieldset", {}, h("legend", {}, title(name, required)), note(schema, resolve), box, more), read };
}

function choice(context, values = context.schema.enum ?? [context.schema.const]) {
  const { schema, value, required, nullable } = context;
  const options = values.map((each, index) => h("option", { value: index }, typeof each === "string" ? each : JSON.stringify(each)));
  const input = h("select", {}, required ? [] : h("option", { value: "" }, schema.default !== undefined && schema.default !== null ? `(default: ${schema.default})` : nullable ? "null" : "(none)"), options);
  const index = values.findIndex((each) => JSON.stringify(each) === JSON.stringify(value));
  input.value = index < 0 ? (required ? "0" : "") : String(index);
  return labelled(context, input, () => (input.value === "" ? absent(context) : values[Number(input.value)]));
}

function checkbox(context) {
  const { value, required } = context;
  if (!required) return choice(context, [true, false]);
  const input = h("input", { type: "checkbox", checked: value === true });
  return labelled(context, input, () => input.checked);
}

function numeric(context, type) {
  const { schema, value } = context;
  const input = h("input", {
    type: "number",
    inputmode: type === "integer" ? "numeric" : "decimal",
    step: type === "integer" ? "1" : "any",
    min: schema.minimum,
    max: schema.maximum,
    value: value === undefined || value === null ? "" : (value.rawJSON ?? String(value)),
  });
  return labelled(context, input, () => (input.value === "" ? absent(context) : number(input.value)));
}

function text(context) {
  const { value, schema } = context;
  const content = typeof value === "string" ? value : "";
  const isLong = content.length > LONG || content.includes("\n") || schema.maxLength > 200;
  const input = isLong ? h("textarea", { rows: 4 }, content) : h("input", { type: "text", value: content });
  const wasAbsent = typeof value !== "string";
  return labelled(context, input, () => (input.value === "" && wasAbsent && !context.required ? absent(context) : input.value));
}

function anything(context) {
  const { value, required } = context;
  const shown = value === undefined ? (required ? "null" : "") : stringify(value);
  const input = h("textarea", { class: "code", rows: Math.min(8, shown.split("\n").length + 1), spellcheck: "false" }, shown);
  let last = value;
  return labelled(context, input, () => {
    if (!input.value.trim()) return absent(context);
    try {
      last = parse(input.value);
      input.setCustomValidity("");
      input.removeAttribute("aria-invalid");
    } catch (error) {
      input.setCustomValidity(error.message);
      input.setAttribute("aria-invalid", "true");
    }
    return last;
  });
}

/** Return what an empty field means. */
function absent({ nullable, required, value }) {
  return nullable && (required || value === null) ? null : undefined;
}

function labelled({ name, schema, required, resolve }, input, read) {
  const id = unique("field");
  const hint = note(schema, resolve, id);
  input.id = id;
  if (hint) input.setAttribute("aria-describedby", `${id}-hint`);
  const label = h("label", { for: id }, title(name || "value", required), h("span", { class: "type" }, typeName(schema, resolve)));
  return { element: h("div", { class: input.type === "checkbox" ? "field check" : "field" }, label, input, hint), read };
}

function note(schema, resolve, id) {
  const words = hintOf(schema);
  return words ? h("p", { class: "hint", id: id ? `${id}-hint` : null }, inline(words)) : null;
}

function title(name, required) {
  return [name, required ? h("span", { class: "required", title: "required" }, " *", h("span", { class: "unseen" }, " required")) : null];
}

function pick(value, keys) {
  return Object.fromEntries(keys.filter((key) => value[key] !== undefined).map((key) => [key, value[key]]));
}
