// JSON as text: numbers keep all their digits, which JSON.parse and JSON.stringify would not.

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]|\s+|[^\s]/g;

/** Return the value of a JSON text. A number that JavaScript cannot represent keeps its text. Throws SyntaxError. */
export function parse(text) {
  return JSON.parse(text, (key, value, context) => {
    const exact = typeof value === "number" && context?.source !== undefined && JSON.rawJSON;
    return exact && String(value) !== context.source ? JSON.rawJSON(context.source) : value;
  });
}

/** Return a value as indented JSON. */
export function stringify(value) {
  return format(JSON.stringify(value) ?? "");
}

/** Return the text of a number as a value with all its digits. */
export function number(text) {
  const value = Number(text);
  return String(value) === text || !JSON.rawJSON ? value : JSON.rawJSON(text);
}

/** Return the kinds and texts of the tokens: key, string, number, word, mark or space. */
export function tokens(text) {
  const found = (text.match(TOKEN) ?? []).map((part) => [kindOf(part), part]);
  found.forEach((token, index) => {
    if (token[0] !== "string") return;
    let next = index + 1;
    while (found[next]?.[0] === "space") next += 1;
    if (found[next]?.[1] === ":") token[0] = "key";
  });
  return found;
}

function kindOf(part) {
  if (part[0] === '"') return "string";
  if (/^[-\d]/.test(part)) return "number";
  if (/^[tfn]/.test(part)) return "word";
  return /^\s/.test(part) ? "space" : "mark";
}

/** Return a JSON text with indentation; lists of numbers and short values stay on one line. */
export function format(text, width = 60) {
  const parts = (text.match(TOKEN) ?? []).filter((part) => part.trim());
  let index = 0;

  function value(indent) {
    const part = parts[index++];
    if (part !== "{" && part !== "[") return part ?? "";
    const close = part === "{" ? "}" : "]";
    const items = [];
    while (index < parts.length && parts[index] !== close) {
      if (parts[index] === ",") index += 1;
      else if (part === "{") {
        const key = parts[index];
        index += 2;
        items.push(`${key}: ${value(`${indent}  `)}`);
      } else items.push(value(`${indent}  `));
    }
    index += 1;
    const line = items.join(", ");
    if (!items.length) return part + close;
    if (line.length <= width && !line.includes("\n") && !(part === "{" && indent === "")) {
      return part === "{" ? `{ ${line} }` : `[${line}]`;
    }
    return `${part}\n${items.map((item) => `${indent}  ${item}`).join(",\n")}\n${indent}${close}`;
  }
  return value("");
}
