// Read the schemas of the document: references, types in words, and example values.

/** Return a function that replaces a reference by what it refers to. */
export function resolver(document) {
  return function resolve(schema) {
    let found = schema;
    for (let depth = 0; found?.$ref !== undefined && depth < 20; depth += 1) {
      const { $ref, ...own } = found;
      const target = $ref.slice(2).split("/").reduce((value, part) => value?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], document);
      found = { title: decodeURIComponent($ref.split("/").pop()), ...target, ...own };
    }
    return merged(found ?? {}, resolve);
  };
}

/** Return a schema with the members of its allOf merged into it. */
function merged(schema, resolve) {
  if (!schema.allOf) return schema;
  const { allOf, ...rest } = schema;
  return allOf.map(resolve).reduce(
    (sum, each) => ({
      ...each,
      ...sum,
      properties: { ...each.properties, ...sum.properties },
      required: [...(sum.required ?? []), ...(each.required ?? [])],
    }),
    rest,
  );
}

/** Return the types of a schema, without null. */
export function typesOf(schema) {
  const types = [schema.type ?? []].flat();
  if (!types.length && schema.properties) return ["object"];
  return types.filter((type) => type !== "null");
}

/** Return the alternatives of a schema without null, and whether null is one of them. */
export function alternatives(schema, resolve) {
  const options = (schema.anyOf ?? schema.oneOf ?? []).map(resolve);
  const isNull = (each) => each.type === "null";
  const nullable = options.some(isNull) || [schema.type ?? []].flat().includes("null");
  return { options: options.filter((each) => !isNull(each)), nullable };
}

/** Return the type of a schema in words, such as "array of number". */
export function typeName(given, resolve, depth = 0) {
  const schema = resolve(given);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return "one of";
  const { options, nullable } = alternatives(schema, resolve);
  const end = nullable ? " or null" : "";
  if (options.length) return [...new Set(options.map((each) => typeName(each, resolve, depth + 1)))].join(" or ") + end;
  const [type] = typesOf(schema);
  if (type === "array") return arrayName(schema, resolve, depth) + end;
  if (type === "object" && schema.properties && schema.title) return schema.title + end;
  if (type === "object" && !schema.properties && typeof schema.additionalProperties === "object") {
    return `object of ${typeName(schema.additionalProperties, resolve, depth + 1)}${end}`;
  }
  return (type ? (schema.format ? `${type} (${schema.format})` : type) : nullable ? "null" : "any value") + (type ? end : "");
}

/** Return the type of an array: its number of dimensions, and the type of its elements. */
function arrayName(schema, resolve, depth) {
  let item = schema;
  let dimensions = 0;
  while (typesOf(item)[0] === "array" && dimensions < 8) {
    item = resolve(item.items ?? {});
    dimensions += 1;
  }
  if (depth > 4) return "array";
  // Several kinds of elements are listed below the type.
  const name = (item.anyOf ?? item.oneOf ?? []).filter((each) => each.type !== "null").length > 1 ? "values" : typeName(item, resolve, depth + 1);
  return dimensions > 1 ? `array with ${dimensions} dimensions of ${name}` : `array of ${name}`;
}

/** Return the description and the constraints of a schema as one text. */
export function hintOf(schema) {
  return [schema.description, constraints(schema).join(", ")].filter(Boolean).join(" · ");
}

/** Return the constraints of a schema in words. */
function constraints(schema) {
  const found = [];
  const add = (key, text) => schema[key] !== undefined && found.push(text(schema[key]));
  add("minimum", (value) => `at least ${value}`);
  add("exclusiveMinimum", (value) => `greater than ${value}`);
  add("maximum", (value) => `at most ${value}`);
  add("exclusiveMaximum", (value) => `less than ${value}`);
  add("multipleOf", (value) => `a multiple of ${value}`);
  if (schema.minItems !== undefined && schema.minItems === schema.maxItems) found.push(count(schema.minItems, "item"));
  else {
    add("minItems", (value) => `at least ${count(value, "item")}`);
    add("maxItems", (value) => `at most ${count(value, "item")}`);
  }
  add("minLength", (value) => `at least ${count(value, "character")}`);
  add("maxLength", (value) => `at most ${count(value, "character")}`);
  add("pattern", (value) => `matches ${value}`);
  if (schema.default !== null) add("default", (value) => `by default ${JSON.stringify(value)}`);
  return found;
}

/** Return a number with a noun: 1 item, 2 items. */
function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** Return a value that matches a schema, as a start for the user. */
export function exampleOf(given, resolve, depth = 0) {
  const schema = resolve(given);
  const known = [schema.const, schema.example, schema.examples?.[0], schema.default, schema.enum?.[0]];
  const first = known.find((value) => value !== undefined);
  if (first !== undefined) return first;
  if (depth > 6) return null;
  const { options, nullable } = alternatives(schema, resolve);
  if (options.length) return exampleOf(options[0], resolve, depth + 1);
  switch (typesOf(schema)[0]) {
    case "object":
      return exampleObject(schema, resolve, depth);
    case "array":
      return Array.from({ length: Math.min(schema.minItems ?? 1, 100) }, () => exampleOf(schema.items ?? {}, resolve, depth + 1));
    case "string":
      return exampleText(schema);
    case "boolean":
      return false;
    case "integer":
    case "number":
      return exampleNumber(schema, typesOf(schema)[0] === "integer");
    default:
      return nullable ? null : {};
  }
}

function exampleObject(schema, resolve, depth) {
  const required = schema.required ?? [];
  const names = Object.keys(schema.properties ?? {});
  const chosen = names.filter((name) => required.includes(name) || !required.length);
  return Object.fromEntries(chosen.map((name) => [name, exampleOf(schema.properties[name], resolve, depth + 1)]));
}

function exampleText(schema) {
  const known = { "date-time": "2026-01-31T12:00:00Z", date: "2026-01-31", uuid: "123e4567-e89b-12d3-a456-426614174000", uri: "https://example.com/" };
  return known[schema.format] ?? "text".padEnd(schema.minLength ?? 0, "t").slice(0, schema.maxLength ?? 1000);
}

function exampleNumber(schema, isInteger) {
  const step = isInteger ? 1 : 0.5;
  const low = schema.minimum ?? (schema.exclusiveMinimum === undefined ? undefined : schema.exclusiveMinimum + step);
  const high = schema.maximum ?? (schema.exclusiveMaximum === undefined ? undefined : schema.exclusiveMaximum - step);
  return low ?? (high === undefined || high > step ? step : high);
}
