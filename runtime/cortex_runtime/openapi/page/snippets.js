// A request as a command of curl, in Python and in JavaScript. API keys are variables of the environment, never written out.

import { tokens } from "./json.js";

const KEY = "API_KEY";

/** Functions that return a request as code, by language. request: { method, url, headers, body, hasFile, needsKey, isStream }. */
export const languages = { curl, Python: python, JavaScript: javascript };

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curl({ method, url, headers, body, hasFile, needsKey, isStream }) {
  const lines = [`curl ${isStream ? "-N " : ""}${method === "GET" || (method === "POST" && (body !== null || hasFile)) ? "" : `-X ${method} `}${quoted(url)}`];
  for (const [name, value] of Object.entries(headers)) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (needsKey) lines.push(`-H "authorization: Bearer $${KEY}"`);
  if (hasFile) lines.push("--data-binary @file");
  else if (body !== null) lines.push(`-d ${quoted(body)}`);
  return lines.join(" \\\n  ");
}

function python({ method, url, headers, body, hasFile, needsKey, isStream }) {
  const isJson = (headers["content-type"] ?? "").endsWith("json") && body !== null && isValid(body);
  const own = Object.entries(headers).filter(([name]) => !(isJson && name === "content-type"));
  const entries = own.map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  if (needsKey) entries.push(`"authorization": f"Bearer {os.environ['${KEY}']}"`);
  const values = [JSON.stringify(url)];
  if (entries.length) values.push(`headers={${entries.join(", ")}}`);
  if (hasFile) values.push('data=open("file", "rb")');
  else if (isJson) values.push(`json=${literal(body)}`);
  else if (body !== null) values.push(`data=${JSON.stringify(body)}.encode()`);
  if (isStream) values.push("stream=True");
  const short = values.join(", ");
  const call = `requests.${method.toLowerCase()}(${short.length < 60 && !short.includes("\n") ? short : `\n    ${values.map((each) => each.replaceAll("\n", "\n    ")).join(",\n    ")},\n`})`;
  const end = isStream ? "for line in response.iter_lines(decode_unicode=True):\n    print(line)" : "print(response.text)";
  return `${needsKey ? "import os\n\n" : ""}import requests\n\nresponse = ${call}\nresponse.raise_for_status()\n${end}`;
}

/** Return a JSON text as a literal of Python. */
function literal(text) {
  const words = { true: "True", false: "False", null: "None" };
  return tokens(text).map(([kind, part]) => (kind === "word" ? words[part] : part)).join("");
}

function javascript({ method, url, headers, body, hasFile, needsKey, isStream }) {
  const entries = Object.entries(headers).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  if (needsKey) entries.push(`"authorization": \`Bearer \${process.env.${KEY}}\``);
  const options = [];
  if (method !== "GET") options.push(`method: ${JSON.stringify(method)}`);
  if (entries.length) options.push(`headers: { ${entries.join(", ")} }`);
  if (hasFile) options.push("body: file");
  else if (body !== null) {
    const isJson = (headers["content-type"] ?? "").endsWith("json") && isExact(body);
    options.push(`body: ${isJson ? `JSON.stringify(${body.replaceAll("\n", "\n  ")})` : JSON.stringify(body)}`);
  }
  const more = options.length ? `, {\n${options.map((each) => `  ${each},`).join("\n")}\n}` : "";
  const end = isStream
    ? "for await (const part of response.body.pipeThrough(new TextDecoderStream())) {\n  console.log(part);\n}"
    : "console.log(await response.text());";
  return `const response = await fetch(${JSON.stringify(url)}${more});\nif (!response.ok) throw new Error(await response.text());\n${end}`;
}

function isValid(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Return whether JavaScript can represent all numbers of a JSON text. */
function isExact(text) {
  return isValid(text) && tokens(text).every(([kind, part]) => kind !== "number" || !/\d{16}/.test(part.replace(".", "")));
}
