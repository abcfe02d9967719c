// Send a request, and show its response as it arrives.

import { copyButton, h } from "./dom.js";
import { format, tokens } from "./json.js";

const MOST_SHOWN = 200_000;
const TEXT = /^text\/|json|xml|javascript|event-stream/;

/** Return an element with a JSON text in colors. */
export function colored(text) {
  return tokens(text).map(([kind, part]) => (kind === "space" || kind === "mark" ? part : h("span", { class: `json-${kind}` }, part)));
}

/** Send a request and show its response in `place`. Returns { status, body } or null. signal: aborts it. */
export async function send({ method, url, headers, body }, place, status, signal) {
  const began = performance.now();
  const elapsed = () => `${Math.round(performance.now() - began)} ms`;
  place.replaceChildren();
  status.className = "status";
  status.textContent = "Waiting for the response ...";
  let response;
  try {
    response = await fetch(url, { method, headers, body: method === "GET" ? undefined : (body ?? undefined), signal, cache: "no-store" });
  } catch (error) {
    status.textContent = signal.aborted ? "Canceled." : `The request failed: ${error.message}`;
    status.classList.add("bad");
    return null;
  }
  const name = `${response.status} ${response.statusText}`.trim();
  status.classList.add(response.ok ? "good" : "bad");
  status.textContent = `${name} · first byte after ${elapsed()}`;
  const kind = response.headers.get("content-type") ?? "";
  const shown = h("pre", { class: "response", tabindex: "0", "aria-label": "Body of the response" });
  place.append(headerTable(response), shown);
  const parts = [];
  let size = 0;
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (let reader = response.body?.getReader(), step; reader && !(step = await reader.read()).done; ) {
      parts.push(step.value);
      size += step.value.length;
      if (TEXT.test(kind)) {
        text += decoder.decode(step.value, { stream: true });
        shown.textContent = text.slice(-MOST_SHOWN);
        if (/event-stream|ndjson/.test(kind)) shown.scrollTop = shown.scrollHeight;
      }
    }
  } catch (error) {
    status.classList.add("bad");
    status.textContent = `${name} · ${signal.aborted ? "canceled" : `the connection was lost: ${error.message}`} after ${elapsed()}`;
    return null;
  }
  status.textContent = `${name} · ${elapsed()} · ${bytes(size)}`;
  text += decoder.decode();
  finish(new Blob(parts, { type: kind }), kind, text, shown);
  return { status: response.status, body: text };
}

function finish(content, kind, text, shown) {
  if (!content.size) shown.replaceWith(h("p", { class: "hint" }, "The response has no body."));
  else if (/^image\//.test(kind)) shown.replaceWith(h("img", { src: URL.createObjectURL(content), alt: "The image in the response" }));
  else if (/^audio\//.test(kind)) shown.replaceWith(h("audio", { src: URL.createObjectURL(content), controls: true }));
  else if (!TEXT.test(kind)) shown.replaceWith(download(content, `Download the response (${kind || "no content type"})`));
  else {
    const isJson = /^application\/(.*\+)?json\b/.test(kind);
    if (text.length > MOST_SHOWN) shown.textContent = `${text.slice(0, MOST_SHOWN)}\n...`;
    else if (isJson) shown.replaceChildren(...colored(format(text)));
    shown.before(h("div", { class: "tools" }, copyButton(() => text, "Copy the response"), download(content, "Download")));
  }
}

function download(content, label) {
  return h("a", { href: URL.createObjectURL(content), download: "response", class: "quiet" }, label);
}

function headerTable(response) {
  const rows = [...response.headers].map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value)));
  return h("details", {}, h("summary", {}, "Headers"), h("table", {}, rows));
}

function bytes(size) {
  if (size < 1000) return `${size} bytes`;
  return size < 1e6 ? `${(size / 1000).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}
