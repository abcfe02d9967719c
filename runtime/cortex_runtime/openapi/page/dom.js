// Build elements. Text of the document is only ever inserted as text, so it cannot contain markup.

/** Return an element. Attributes whose value is null, undefined or false are left out; functions are event listeners. */
export function h(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let count = 0;

/** Return an id that no other element has. */
export function unique(prefix) {
  count += 1;
  return `${prefix}-${count}`;
}

/** Return tabs: `panels` are [title, element] pairs. The arrow keys move between them. */
export function tabs(label, panels, onSelect = () => {}) {
  const group = unique("tabs");
  const buttons = panels.map(([title], index) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: `${group}-${index}`,
        "aria-controls": `${group}-panel-${index}`,
        click: () => select(index),
        keydown: (event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          const target = { Home: 0, End: panels.length - 1 }[event.key] ?? (step && (index + step + panels.length) % panels.length);
          if (target === undefined) return;
          event.preventDefault();
          select(target);
          buttons[target].focus();
        },
      },
      title,
    ),
  );
  const bodies = panels.map(([, content], index) =>
    h("div", { role: "tabpanel", id: `${group}-panel-${index}`, "aria-labelledby": `${group}-${index}` }, content),
  );
  function select(chosen) {
    buttons.forEach((button, index) => {
      button.setAttribute("aria-selected", String(index === chosen));
      button.tabIndex = index === chosen ? 0 : -1;
      bodies[index].hidden = index !== chosen;
    });
    onSelect(chosen);
  }
  select(0);
  return { element: h("div", { class: "tabs" }, h("div", { role: "tablist", "aria-label": label }, buttons), bodies), select };
}

/** Return a button that copies a text. */
export function copyButton(text, label) {
  const button = h("button", { type: "button", class: "quiet", "aria-label": label }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      // Without HTTPS, a browser does not allow it.
      button.textContent = "Select and copy the text";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

/** Return paragraphs, lists and code of a docstring. */
export function prose(text) {
  const blocks = [];
  for (const block of (text ?? "").split(/\n\s*\n/)) {
    if (!block.trim()) continue;
    const lines = block.split("\n");
    if (lines.every((line) => /^( {4}|\t)/.test(line))) {
      blocks.push(h("pre", { tabindex: "0" }, lines.map((line) => line.replace(/^( {4}|\t)/, "")).join("\n")));
    } else if (/^\s*[-*] /.test(lines[0])) {
      const items = block.trim().split(/\n?\s*^\s*[-*] /m).filter(Boolean);
      blocks.push(h("ul", {}, items.map((item) => h("li", {}, inline(item.replace(/\s*\n\s*/g, " "))))));
    } else {
      blocks.push(h("p", {}, inline(lines.map((line) => line.trim()).join(" "))));
    }
  }
  return blocks;
}

/** Return a text whose parts in backquotes are code. */
export function inline(text) {
  return text.split(/(``?[^`]+``?)/).map((part) => (part.startsWith("`") ? h("code", {}, part.replace(/`/g, "")) : part));
}
