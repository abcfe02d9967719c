"""YAML and JSON with classes for colors. The input is escaped."""

import re

from markupsafe import Markup, escape

_LINE = re.compile(
    r"^(?P<indent>\s*(?:- )*)(?P<key>[^\s:'\"][^:]*|\"[^\"]*\"|'[^']*')(?P<colon>:)(?P<value>(?: .*)?)$"
)
_JSON = re.compile(
    r"(?P<string>\"(?:[^\"\\]|\\.)*\")(?P<colon>\s*:)?|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<word>true|false|null)"
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_BLOCK = re.compile(r"[|>][+-]?\d*$")


def yaml_lines(text: str) -> Markup:
    """Return a YAML document as HTML."""
    lines: list[Markup] = []
    block_indent: int | None = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if block_indent is not None and (not line.strip() or indent > block_indent):
            lines.append(_span("string", line))
            continue
        block_indent = None
        found = _LINE.match(line)
        if found is None:
            start, rest = line[: len(line) - len(line.lstrip(" -"))], line.lstrip(" -")
            lines.append(escape(start) + _value(rest))
            continue
        value = found["value"]
        if _BLOCK.match(value.strip()):
            block_indent = len(found["indent"].replace("- ", "  "))
        lines.append(
            escape(found["indent"]) + _span("key", found["key"]) + escape(found["colon"]) + _value(value)
        )
    return Markup("\n").join(lines)


def json_text(text: str) -> Markup:
    """Return a JSON text as HTML."""
    parts: list[Markup] = []
    end = 0
    for found in _JSON.finditer(text):
        parts.append(escape(text[end : found.start()]))
        if found["string"] is not None:
            parts.append(
                _span("key" if found["colon"] else "string", found["string"]) + escape(found["colon"] or "")
            )
        else:
            parts.append(_span("number" if found["number"] is not None else "word", found[0]))
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def _value(text: str) -> Markup:
    bare = text.strip()
    if not bare:
        return escape(text)
    if bare in ("true", "false", "null", "{}", "[]"):
        return _span("word", text)
    return _span("number" if _NUMBER.fullmatch(bare) else "string", text)


def _span(kind: str, text: str) -> Markup:
    return Markup('<span class="hl-{}">{}</span>').format(kind, text)
