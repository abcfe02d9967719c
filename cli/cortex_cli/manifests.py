"""Read manifests from files, for `cortex run` and `cortex validate`. Each problem has its file and line."""

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
from cortex_cli.kubectl_yaml import KubectlLoader

STDIN = Path("-")
NO_API = "contains no RealtimeAPI or AsyncAPI"
_LEGACY_FIELDS = {
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
    """A YAML document, or an item of a `kind: List`.

    node: the parsed YAML nodes, which have line numbers.
    """

    content: Any
    node: yaml.Node


@dataclass(frozen=True)
class ManifestDocument:
    """A document of a file: an API, a ConfigMap, or an invalid document with its problems.

    part: None for a file that cannot be read.
    """

    path: Path
    part: Part | None = None
    api: RealtimeAPI | AsyncAPI | None = None
    config_map: dict[str, Any] | None = None
    problems: tuple[str, ...] = ()

    def location(self, field: str) -> str:
        """Return FILE:LINE of a field."""
        return _location(self.path, line_of(self.part.node, field) if self.part else None)


class InvalidYAML(ValueError):
    """A text is not valid YAML.

    line: the line of the error, starting at 1, or None.
    """

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def files_of(path: Path) -> list[Path]:
    """Return the file, or all manifests in a folder and its subfolders."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    return [path]


def read(path: Path, is_from_folder: bool = False) -> list[ManifestDocument]:
    """Return the APIs and ConfigMaps of a file ("-" for standard input) in order; other manifests are skipped.

    Problems have the format "FILE:LINE: spec.field: message". A file that cannot be read or contains no API or ConfigMap is a
    problem too.
    is_from_folder: whether the file was found in a folder; it may then contain no API or ConfigMap.
    """
    try:
        text = sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
    except IsADirectoryError:
        text = f"{path}: is a folder; name the file with the manifest, for example {path / 'api.yaml'}"
        return [ManifestDocument(path, problems=(text,))]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 text ({error})"
        return [ManifestDocument(path, problems=(f"{path}: cannot be read: {reason}",))]
    documents: list[ManifestDocument] = []
    locations: dict[tuple[str, ...], str] = {}
    try:
        for part in parts(text):
            if _is_config_map(part.content):
                documents.append(ManifestDocument(path, part, config_map=part.content))
            elif not _is_other(part.content, is_from_folder):
                documents.append(_parse(path, part, locations))
    except InvalidYAML as error:
        documents.append(
            ManifestDocument(path, problems=(f"{_location(path, error.line)}: not valid YAML: {error}",))
        )
    if documents or is_from_folder:
        return documents
    return [ManifestDocument(path, problems=(f"{path}: {NO_API}",))]


def problems(documents: list[ManifestDocument]) -> Iterator[str]:
    """Yield the problems of documents."""
    for document in documents:
        yield from document.problems


def parts(text: str) -> Iterator[Part]:
    """Yield the documents of a text and the items of lists; empty documents are skipped. Raises InvalidYAML."""
    loader = KubectlLoader(text)
    try:
        while loader.check_node():
            node = loader.next_document()
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
        if "'\\t'" in message:
            message = "a tab cannot indent a line; use spaces"
        elif "<block end>" in message:
            message += "; align this line with its siblings"
        raise InvalidYAML(message, mark.line + 1 if mark else None) from error
    except RecursionError as error:
        raise InvalidYAML("it is nested too deeply", None) from error
    finally:
        loader.dispose()


def line_of(node: yaml.Node, path: str) -> int:
    """Return the line of a field such as "spec.handler.env[0].name", or of its closest existing parent. Lines start at 1."""
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
        # A key can contain dots, for example in labels, so the longest match applies.
        matching = [
            pair for pair in node.value if re.match(re.escape(str(pair[0].value)) + r"($|[.\[])", path)
        ]
        if not matching:
            break
        key, node = max(matching, key=lambda pair: len(pair[0].value))
        line, path = key.start_mark.line, path[len(key.value) :].removeprefix(".")
    return int(line) + 1


def duplicate_keys(node: yaml.Node, path: str = "") -> Iterator[tuple[str, int]]:
    """Yield duplicate keys of mappings with the line of the second one. YAML parsers silently use the last one."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                yield below, key.start_mark.line + 1
            seen.add(str(key.value))
            yield from duplicate_keys(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from duplicate_keys(item, f"{path}[{index}]")


class _Dumper(yaml.SafeDumper):
    """Write multi-line strings as literal blocks, so that changes are readable in a diff."""


_OTHER_TYPE = re.compile(r"[yYnN]|[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+|0o[0-7]+")
"""Text that kubectl reads as a boolean or a number if it is not quoted. PyYAML reads it as text, and so does not quote it."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else "'" if _OTHER_TYPE.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump(documents: list[dict[str, Any]]) -> str:
    """Return manifests as YAML, one document each."""
    # PyYAML does not escape these line breaks, but its parser reads them as line feeds.
    allow_unicode = not re.search(
        "[\x85\u2028\u2029]", json.dumps(documents, ensure_ascii=False, default=str)
    )
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=allow_unicode)


def _parse(path: Path, part: Part, locations: dict[tuple[str, ...], str]) -> ManifestDocument:
    """Parse a document that should be an API.

    locations: FILE:LINE of the APIs that were already found in the file; updated.
    """
    if is_legacy(part.content):
        location = _location(path, part.node.start_mark.line + 1)
        message = f"{location}: is a file of the original Cortex; convert it with `cortex convert {path}`"
        return ManifestDocument(path, part, problems=(message,))
    errors = [(line, f"{field}: duplicate key") for field, line in duplicate_keys(part.node)]
    api = None
    try:
        api = parse(part.content)
    except InvalidManifest as invalid:
        errors += [(line_of(part.node, problem.path), str(problem)) for problem in invalid.problems]
    if api is not None:
        name = (api.kind, api.metadata.namespace, api.metadata.name)
        line = line_of(part.node, "metadata.name")
        first = locations.setdefault(name, _location(path, line))
        if first != _location(path, line):
            text = f"{api.kind} {api.metadata.name} is already defined at {first}; the last definition would overwrite it"
            errors.append((line, f"metadata.name: {text}"))
    if not errors:
        return ManifestDocument(path, part, api)
    return ManifestDocument(
        path, part, problems=tuple(f"{_location(path, line)}: {message}" for line, message in sorted(errors))
    )


def is_legacy(document: Any) -> bool:
    """Return whether a document is from a cortex.yaml of the original Cortex: a list of APIs, or a single API."""
    items = document if isinstance(document, list) else [document]
    return any(
        isinstance(item, dict)
        and not item.keys() & {"apiVersion", "metadata", "spec"}
        and "name" in item
        and bool(item.keys() & _LEGACY_FIELDS)
        for item in items
    )


def _is_config_map(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and document.get("kind") == "ConfigMap"
        and document.get("apiVersion") == "v1"
        and isinstance(document.get("metadata"), dict)
    )


def _location(path: Path, line: int | None) -> str:
    return str(path) if line is None else f"{path}:{line}"


def _child(node: yaml.Node, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for key, value in pairs if key.value == name), None)


def _is_other(document: Any, is_from_folder: bool) -> bool:
    """Return whether to skip a document: a manifest of another API group or, in a folder, any file that is not a manifest."""
    version = document.get("apiVersion") if isinstance(document, dict) else None
    if version is None:
        return is_from_folder
    return isinstance(version, str) and not version.startswith(PREFIX)
