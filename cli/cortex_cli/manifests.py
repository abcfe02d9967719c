"""Manifests from files: what `cortex run` and `cortex validate` read, and every problem in it with its file and line."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse
from cortex_api.contract import PREFIX

STDIN = Path("-")
NO_API = "no RealtimeAPI or AsyncAPI in it"
_FORMER_FIELDS = {
    "kind",
    "predictor",
    "handler",
    "model",
    "python",
    "tensorflow",
    "onnx",
    "pod",
    "apis",
    "definition",
}
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Part:
    """A YAML document, or an item of a `kind: List` in one: its content and the nodes that know their lines."""

    content: Any
    node: yaml.Node


@dataclass(frozen=True)
class Found:
    """What one document of a file is: an API, a ConfigMap, or neither with the problems that keep it from being one.

    path, part: where it is; part is None for a file that can't be read.
    """

    path: Path
    part: Part | None = None
    api: RealtimeAPI | AsyncAPI | None = None
    config_map: dict[str, Any] | None = None
    problems: tuple[str, ...] = ()

    def place(self, field: str) -> str:
        """FILE:LINE of a field."""
        return _place(self.path, line_of(self.part.node, field) if self.part else None)


class Unreadable(ValueError):
    """A text that is not valid YAML; line: where, counted from 1, or None."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def files_of(path: Path) -> list[Path]:
    """What an argument names: a file, or the manifests in a folder and in those below it."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    return [path]


def read(path: Path, of_folder: bool = False) -> list[Found]:
    """The APIs and ConfigMaps of a file ("-" is standard input), in its order; other manifests are passed over.

    Problems read "FILE:LINE: spec.field: what is wrong". A file that can't be read is a problem too, and so is one that holds
    none of these. of_folder: it was not named itself, so it may hold none.
    """
    try:
        text = sys.stdin.read() if path == STDIN else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return [Found(path, problems=(f"{path}: can't be read: {reason}",))]
    found: list[Found] = []
    lines: dict[tuple[str, ...], str] = {}
    try:
        for part in parts(text):
            if _is_config_map(part.content):
                found.append(Found(path, part, config_map=part.content))
            elif not _is_foreign(part.content, of_folder):
                found.append(_found(path, part, lines))
    except Unreadable as error:
        found.append(Found(path, problems=(f"{_place(path, error.line)}: is not valid YAML: {error}",)))
    if found or of_folder:
        return found
    return [Found(path, problems=(f"{path}: {NO_API}",))]


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


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, as a person would: their changes can be read in a diff."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def dump(documents: list[dict[str, Any]]) -> str:
    """Manifests as YAML, one document each."""
    # PyYAML writes these line breaks as they are, where its own reader takes them for line feeds.
    plain = not re.search("[\x85\u2028\u2029]", json.dumps(documents, ensure_ascii=False, default=str))
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=plain)


def _found(path: Path, part: Part, lines: dict[tuple[str, ...], str]) -> Found:
    """lines: the place of each API that was found in the file before."""
    if is_former(part.content):
        place = _place(path, part.node.start_mark.line + 1)
        words = f"{place}: is a file of the former Cortex: `cortex convert {path}` makes manifests of it"
        return Found(path, part, problems=(words,))
    wrong = [(line, f"{field}: is given twice") for field, line in twice(part.node)]
    api = None
    try:
        api = parse(part.content)
    except InvalidManifest as invalid:
        wrong += [(line_of(part.node, problem.path), str(problem)) for problem in invalid.problems]
    if api is not None:
        name = (api.kind, api.metadata.namespace, api.metadata.name)
        line = line_of(part.node, "metadata.name")
        if (first := lines.setdefault(name, _place(path, line))) != _place(path, line):
            what = f"{api.kind} {api.metadata.name}"
            wrong.append((line, f"metadata.name: {what} is at {first} already; applied, only the last stays"))
    if not wrong:
        return Found(path, part, api)
    return Found(
        path, part, problems=tuple(f"{_place(path, line)}: {message}" for line, message in sorted(wrong))
    )


def is_former(document: Any) -> bool:
    """Whether a document is of a cortex.yaml of the former Cortex: a list of APIs, or one of its APIs alone."""
    items = document if isinstance(document, list) else [document]
    return any(
        isinstance(item, dict)
        and not item.keys() & {"apiVersion", "metadata", "spec"}
        and "name" in item
        and bool(item.keys() & _FORMER_FIELDS)
        for item in items
    )


def _is_config_map(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and document.get("kind") == "ConfigMap"
        and document.get("apiVersion") == "v1"
        and isinstance(document.get("metadata"), dict)
    )


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
    return isinstance(version, str) and not version.startswith(PREFIX)
