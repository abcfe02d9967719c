"""A cortex.yaml as a list of entries whose fields know their lines, and the age that all of them have in common."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from cortex_cli import manifests
from cortex_cli.convert.ages import EVERY, FIELDS, JOBS, KINDS, TEXTS, TRAINING, WITHOUT_KIND, Age


class Unusable(ValueError):
    """A file that can't be converted; problems: every one, as (line or None, message)."""

    def __init__(self, *problems: tuple[int | None, str]) -> None:
        super().__init__("\n".join(message for _, message in problems))
        self.problems = problems


@dataclass(frozen=True)
class Entry:
    """One element of the file's list."""

    content: dict[str, Any]
    node: yaml.Node

    def line(self, field: str = "") -> int:
        """Where a field stands."""
        return manifests.line_of(self.node, field)

    def get(self, field: str) -> Any:
        """The value of a field, None when it is absent."""
        value: Any = self.content
        for name in re.findall(r"[^.\[\]]+", field):
            if isinstance(value, list):
                value = value[int(name)] if name.isdecimal() and int(name) < len(value) else None
            else:
                value = value.get(name) if isinstance(value, dict) else None
        return value

    @property
    def kind(self) -> str:
        return str(self.content.get("kind") or "")


@dataclass(frozen=True)
class OldFile:
    """A whole file. repaired: whether fields that stood beside their list item were taken as its own."""

    entries: list[Entry]
    age: Age
    repaired: bool


def read(text: str) -> OldFile:
    """The entries of a file. Raises Unusable when it is none of Cortex's, or mixes its ages."""
    try:
        parts, repaired = list(manifests.parts(text)), False
    except manifests.Unreadable as error:
        try:
            parts, repaired = _repaired(text)
        except manifests.Unreadable:
            raise Unusable((error.line, f"is not valid YAML: {error}")) from error
    entries: list[Entry] = []
    for part in parts:
        listed = isinstance(part.content, list) and isinstance(part.node, yaml.SequenceNode)
        items = zip(part.content, part.node.value, strict=True) if listed else [(part.content, part.node)]
        for content, node in items:
            line = node.start_mark.line + 1
            if not isinstance(content, dict):
                raise Unusable((line, "an API is a mapping: name, and what it serves"))
            if "apiVersion" in content:
                raise Unusable((line, "is a Kubernetes manifest already: cortex validate checks it"))
            entries.append(Entry(content, node))
        if repeated := list(manifests.twice(part.node)):
            raise Unusable(
                *((line, f"{re.sub(r'^.[0-9]+..?', '', field)}: is given twice") for field, line in repeated)
            )
    if not entries:
        raise Unusable((None, "has no API in it"))
    return OldFile(entries, _age(entries), repaired)


def fields(entry: Entry) -> Iterator[tuple[str, str]]:
    """Every field of an entry: as it stands ("predictor.models.paths[0].name") and as `FIELDS` calls it."""
    yield from _fields(entry.content, "", "")


def _fields(value: Any, path: str, pattern: str) -> Iterator[tuple[str, str]]:
    if path and f"{pattern}*" in FIELDS:
        yield path, f"{pattern}*"
    elif isinstance(value, dict) and (value or not path) and pattern not in FIELDS:
        for name, below in value.items():
            dot = "." if path else ""
            yield from _fields(below, f"{path}{dot}{name}", f"{pattern}{dot}{name}")
    elif isinstance(value, list) and value and pattern not in FIELDS:
        for index, below in enumerate(value):
            yield from _fields(below, f"{path}[{index}]", f"{pattern}[]")
    else:
        yield path, pattern


def _age(entries: list[Entry]) -> Age:
    """The releases that knew all of it. Raises Unusable with every unknown field, or with two that never met."""
    told: list[tuple[Age, int, str]] = []
    unknown: list[tuple[int | None, str]] = []
    for entry in entries:
        if entry.kind in KINDS:
            told.append((KINDS[entry.kind], entry.line("kind"), f"kind: {entry.kind}"))
        elif "kind" in entry.content:
            unknown.append((entry.line("kind"), f"kind: {entry.kind} was never one of Cortex's"))
        else:
            told.append((WITHOUT_KIND, entry.line(), "an API without kind"))
        if entry.kind in (*JOBS, *TRAINING, *TEXTS):
            continue
        if "predictor" in entry.content and entry.get("predictor.type") is None:
            told.append((Age(10, 11), entry.line("predictor"), "a predictor without type"))
        for path, pattern in fields(entry):
            if pattern in FIELDS:
                told.append((FIELDS[pattern], entry.line(path), path))
            elif not _is_empty_parent(entry, path, pattern):
                unknown.append((entry.line(path), f"{path}: {_unknown(pattern)}"))
    if unknown:
        raise Unusable(*unknown)
    age = EVERY
    for one, _, _ in told:
        age = age & one
    if not age.empty:
        return age
    late, early = max(told, key=lambda t: t[0].first), min(told, key=lambda t: t[0].last)
    raise Unusable(
        (early[1], f"{early[2]} is of Cortex {early[0]}"),
        (late[1], f"{late[2]} is of Cortex {late[0]}"),
        (
            None,
            "mixes ages of Cortex: these two never stood in one version. Spell all of it as one version did.",
        ),
    )


def _is_empty_parent(entry: Entry, path: str, pattern: str) -> bool:
    """Whether it is a section with nothing in it, such as `compute:` alone."""
    return not entry.get(path) and any(name.startswith((f"{pattern}.", f"{pattern}[]")) for name in FIELDS)


def _unknown(pattern: str) -> str:
    known = [name.rstrip("*") for name in FIELDS]
    near = difflib.get_close_matches(pattern, known, 1, 0.8)
    return "was never a field of Cortex's" + (f"; did you mean {near[0]}?" if near else "")


def _repaired(text: str) -> tuple[list[manifests.Part], bool]:
    """The documents of a text that YAML refuses, and whether indentation was added. Raises Unreadable."""
    # Up to 0.7 "@name" referred to another entry, and needed no quotes.
    quoted = re.sub(r"(?<![\w\"'@])@[\w.]+", lambda found: f'"{found[0]}"', text)
    try:
        return list(manifests.parts(quoted)), False
    except manifests.Unreadable:
        return list(manifests.parts(_indented(quoted))), True


def _indented(text: str) -> str:
    """The text with fields that stand at the margin, below "- kind: api", taken into that list item."""
    lines = text.split("\n")
    below = False
    for number, line in enumerate(lines):
        if line.startswith("- "):
            below = True
        elif below and re.match(r"[\w]+:", line):
            lines[number] = f"  {line}"
    return "\n".join(lines)
