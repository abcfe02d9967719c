"""Parse a cortex.yaml into entries with line numbers, and determine the releases whose format it has."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from cortex_cli import manifests
from cortex_cli.convert.releases import (
    EVERY,
    FIELDS,
    JOBS,
    KINDS,
    TEXTS,
    TRAINING,
    WITHOUT_KIND,
    ReleaseRange,
)


class LegacyFileError(ValueError):
    """A file cannot be converted.

    problems: all problems as (line or None, message).
    """

    def __init__(self, *problems: tuple[int | None, str]) -> None:
        super().__init__("\n".join(message for _, message in problems))
        self.problems = problems


@dataclass(frozen=True)
class Entry:
    """One API or other item of a cortex.yaml."""

    content: dict[str, Any]
    node: yaml.Node

    def line(self, field: str = "") -> int:
        """Return the line of a field."""
        return manifests.line_of(self.node, field)

    def get(self, field: str) -> Any:
        """Return the value of a field, or None if it is absent."""
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
class LegacyFile:
    """A parsed cortex.yaml.

    releases: the releases whose format it has. is_repaired: whether missing indentation of list items was added.
    """

    entries: list[Entry]
    releases: ReleaseRange
    is_repaired: bool


def read(text: str) -> LegacyFile:
    """Parse a file. Raises LegacyFileError if it is not a cortex.yaml, or if no release has all of its fields."""
    try:
        parts, is_repaired = list(manifests.parts(text)), False
    except manifests.InvalidYAML as error:
        try:
            parts, is_repaired = _repair(text)
        except manifests.InvalidYAML:
            raise LegacyFileError((error.line, f"not valid YAML: {error}")) from error
    entries: list[Entry] = []
    for part in parts:
        listed = isinstance(part.content, list) and isinstance(part.node, yaml.SequenceNode)
        items = zip(part.content, part.node.value, strict=True) if listed else [(part.content, part.node)]
        for content, node in items:
            line = node.start_mark.line + 1
            if not isinstance(content, dict):
                raise LegacyFileError((line, "an API must be a mapping with a name"))
            if "apiVersion" in content:
                raise LegacyFileError((line, "is already a Kubernetes manifest; use `cortex validate`"))
            entries.append(Entry(content, node))
        if duplicates := list(manifests.duplicate_keys(part.node)):
            raise LegacyFileError(
                *((line, f"{re.sub(r'^.[0-9]+..?', '', field)}: duplicate key") for field, line in duplicates)
            )
    if not entries:
        raise LegacyFileError((None, "contains no API"))
    return LegacyFile(entries, _releases(entries), is_repaired)


def fields(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield the path of each field ("predictor.models.paths[0].name") and its path in `FIELDS`."""
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


def _releases(entries: list[Entry]) -> ReleaseRange:
    """Return the releases that have all fields. Raises LegacyFileError if a field is unknown, or if no release has them all."""
    evidence: list[tuple[ReleaseRange, int, str]] = []
    unknown: list[tuple[int | None, str]] = []
    for entry in entries:
        if entry.kind in KINDS:
            evidence.append((KINDS[entry.kind], entry.line("kind"), f"kind: {entry.kind}"))
        elif "kind" in entry.content:
            unknown.append((entry.line("kind"), f"unknown kind {entry.kind}"))
        else:
            evidence.append((WITHOUT_KIND, entry.line(), "an API without kind"))
        if entry.kind in (*JOBS, *TRAINING, *TEXTS):
            continue
        if "predictor" in entry.content and entry.get("predictor.type") is None:
            evidence.append((ReleaseRange(10, 11), entry.line("predictor"), "a predictor without type"))
        for path, pattern in fields(entry):
            if pattern in FIELDS:
                evidence.append((FIELDS[pattern], entry.line(path), path))
            elif not _is_empty_parent(entry, path, pattern):
                unknown.append((entry.line(path), f"{path}: {_unknown(pattern)}"))
    if unknown:
        raise LegacyFileError(*unknown)
    releases = EVERY
    for one, _, _ in evidence:
        releases = releases & one
    if not releases.is_empty:
        return releases
    late, early = max(evidence, key=lambda t: t[0].first), min(evidence, key=lambda t: t[0].last)
    raise LegacyFileError(
        (early[1], f"{early[2]} belongs to Cortex {early[0]}"),
        (late[1], f"{late[2]} belongs to Cortex {late[0]}"),
        (None, "mixes formats of different Cortex releases; use the format of one release"),
    )


def _is_empty_parent(entry: Entry, path: str, pattern: str) -> bool:
    """Return whether a field is an empty section, such as `compute:`."""
    return not entry.get(path) and any(name.startswith((f"{pattern}.", f"{pattern}[]")) for name in FIELDS)


def _unknown(pattern: str) -> str:
    known = [name.rstrip("*") for name in FIELDS]
    matches = difflib.get_close_matches(pattern, known, 1, 0.8)
    return "unknown field" + (f"; did you mean {matches[0]}?" if matches else "")


def _repair(text: str) -> tuple[list[manifests.Part], bool]:
    """Return the documents of an invalid YAML text, and whether indentation was added. Raises InvalidYAML."""
    # Up to 0.7, "@name" without quotes referred to another entry.
    quoted = re.sub(r"(?<![\w\"'@])@[\w.]+", lambda found: f'"{found[0]}"', text)
    try:
        return list(manifests.parts(quoted)), False
    except manifests.InvalidYAML:
        return list(manifests.parts(_indent(quoted))), True


def _indent(text: str) -> str:
    """Indent the unindented fields below a list item such as "- kind: api"."""
    lines = text.split("\n")
    is_in_item = False
    for number, line in enumerate(lines):
        if line.startswith("- "):
            is_in_item = True
        elif is_in_item and re.match(r"[\w]+:", line):
            lines[number] = f"  {line}"
    return "\n".join(lines)
