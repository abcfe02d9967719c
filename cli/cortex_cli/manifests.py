"""Manifests from files: what `cortex run` and `cortex validate` read, and every problem in it with its file and line."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse

STDIN = Path("-")
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Found:
    """What one document of a file is: an API, or None with the problems that keep it from being one."""

    api: RealtimeAPI | AsyncAPI | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A YAML document, or an item of a `kind: List` in one: its content and the nodes that know their lines."""

    content: Any
    node: yaml.Node


class Unreadable(ValueError):
    """A text that is no YAML; line: where, counted from 1, or None."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def files_of(path: Path) -> list[Path]:
    """What an argument names: a file, or the manifests in a folder and in those below it."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    return [path]


def read(path: Path, of_folder: bool = False) -> list[Found]:
    """The APIs of a file ("-" is standard input), in its order; other kinds of manifest beside them are passed over.

    Problems read "FILE:LINE: spec.field: what is wrong". A file that can't be read is a problem too, and so is one that holds
    no API. of_folder: it was not named itself, so it may hold none.
    """
    try:
        text = sys.stdin.read() if path == STDIN else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return [Found(None, (f"{path}: can't be read: {reason}",))]
    found: list[Found] = []
    try:
        found.extend(_found(path, part) for part in parts(text) if not _is_foreign(part.content, of_folder))
    except Unreadable as error:
        found.append(Found(None, (f"{_place(path, error.line)}: is no YAML: {error}",)))
    if found or of_folder:
        return found
    return [Found(None, (f"{path}: no RealtimeAPI or AsyncAPI in it",))]


def problems(found: list[Found]) -> Iterator[str]:
    """Every problem of the documents of a file."""
    for document in found:
        yield from document.problems


def parts(text: str) -> Iterator[Part]:
    """The documents of a text, lists taken apart; empty ones are passed over. Raises Unreadable."""
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            content = loader.construct_document(node) if node else None
            if node is None or content is None:
                continue
            if isinstance(content, dict) and content.get("kind") == "List" and "items" in content:
                items = _child(node, "items")
                if isinstance(content["items"], list) and isinstance(items, yaml.SequenceNode):
                    yield from map(Part, content["items"], items.value)
                    continue
            yield Part(content, node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        message = getattr(error, "problem", None) or " ".join(str(error).split())
        raise Unreadable(message, mark.line + 1 if mark else None) from error
    finally:
        loader.dispose()


def line_of(node: yaml.Node, path: str) -> int:
    """The line, counted from 1, of a field such as "spec.handler.env[0].name", or of the deepest part of it that is there."""
    line = node.start_mark.line
    while path:
        if index := re.match(r"\[(\d+)\]\.?", path):
            if not isinstance(node, yaml.SequenceNode) or int(index[1]) >= len(node.value):
                break
            node, path = node.value[int(index[1])], path[index.end() :]
            line = node.start_mark.line
            continue
        if not isinstance(node, yaml.MappingNode):
            break
        # A key may hold dots itself, as labels do: the longest that fits.
        fitting = [
            pair for pair in node.value if re.match(re.escape(str(pair[0].value)) + r"($|[.\[])", path)
        ]
        if not fitting:
            break
        key, node = max(fitting, key=lambda pair: len(pair[0].value))
        line, path = key.start_mark.line, path[len(key.value) :].removeprefix(".")
    return int(line) + 1


def twice(node: yaml.Node, path: str = "") -> Iterator[tuple[str, int]]:
    """Keys that stand twice in one mapping, with the line of the second; a YAML parser takes the last in silence."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                yield below, key.start_mark.line + 1
            seen.add(str(key.value))
            yield from twice(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from twice(item, f"{path}[{index}]")


def _found(path: Path, part: Part) -> Found:
    wrong = [(line, f"{field}: is given twice") for field, line in twice(part.node)]
    api = None
    try:
        api = parse(part.content)
    except InvalidManifest as invalid:
        wrong += [(line_of(part.node, problem.path), str(problem)) for problem in invalid.problems]
    if not wrong:
        return Found(api)
    return Found(None, tuple(f"{_place(path, line)}: {message}" for line, message in sorted(wrong)))


def _place(path: Path, line: int | None) -> str:
    return str(path) if line is None else f"{path}:{line}"


def _child(node: yaml.Node, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for key, value in pairs if key.value == name), None)


def _is_foreign(document: Any, of_folder: bool) -> bool:
    """A manifest of another API group, such as the ConfigMap beside an API; in a folder also what is no manifest."""
    version = document.get("apiVersion") if isinstance(document, dict) else None
    if version is None:
        return of_folder
    return isinstance(version, str) and not version.startswith("cortex.dev/")
