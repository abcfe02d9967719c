"""Docstrings as parts of an OpenAPI document: summary, description and examples. Pure.

The examples of a method are a block at its left margin, with indented JSON values. A name, and the response, are optional:

    Examples:
        setosa: {"petal_length": 1.4} -> {"species": "setosa"}
        {"petal_length": 5.1}

A block that contains anything else is ordinary text, and stays in the description.
"""

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_BLOCK = re.compile(r"^Examples?:[ \t]*\n((?:[ \t]+\S.*(?:\n|\Z)|[ \t]*\n)+)", re.MULTILINE)
_NAME = re.compile(r"([A-Za-z][\w .-]*):\s*")
_SPACE = re.compile(r"\s*")
_ARROW = re.compile(r"\s*->\s*")
_LONGEST_SUMMARY = 120
"""Characters. A longer first paragraph is a description."""


@dataclass(frozen=True)
class Example:
    """name: a key in the document. request, response: values that JSON can represent; absent ones are not set."""

    name: str
    value: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring; "" and () for those that it does not have."""

    summary: str = ""
    description: str = ""
    examples: tuple[Example, ...] = ()

    def values(self, part: str) -> dict[str, Any]:
        """Return the requests or the responses of the examples by name. part: request or response."""
        return {each.name: each.value[part] for each in self.examples if part in each.value}


def parse(text: str | None) -> Docstring:
    """Return the parts of a docstring."""
    if not text:
        return Docstring()
    text, examples = _without_examples(inspect.cleandoc(text))
    first, _, rest = text.strip().partition("\n\n")
    summary = " ".join(first.split())
    if len(summary) > _LONGEST_SUMMARY:
        return Docstring("", text.strip(), examples)
    return Docstring(summary.removesuffix("."), rest.strip(), examples)


def _without_examples(text: str) -> tuple[str, tuple[Example, ...]]:
    for block in _BLOCK.finditer(text):
        try:
            examples = tuple(_read(textwrap.dedent(block[1])))
        except ValueError:
            continue
        if examples:
            return text[: block.start()] + text[block.end() :], examples
    return text, ()


def _read(text: str) -> Iterator[Example]:
    """Yield the examples of a block. Raises ValueError for anything else."""
    end, count = _skip(_SPACE, text, 0), 0
    while end < len(text):
        name, count = "", count + 1
        value: dict[str, Any] = {}
        if (named := _NAME.match(text, end)) is not None:
            name, end = named[1], named.end()
        arrow = _ARROW.match(text, end)
        if arrow is None:
            value["request"], end = _value(text, end)
            arrow = _ARROW.match(text, end)
        if arrow is not None:
            value["response"], end = _value(text, arrow.end())
        yield Example(re.sub(r"[^\w.-]+", "-", name) or f"example-{count}", value)
        end = _skip(_SPACE, text, end)


def _value(text: str, start: int) -> tuple[Any, int]:
    return json.JSONDecoder(parse_constant=_refuse).raw_decode(text, start)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _skip(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    return start if found is None else found.end()
