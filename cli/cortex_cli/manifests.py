"""Manifests from files: what `cortex run` and `cortex validate` read, and every problem in it with its file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse


@dataclass(frozen=True)
class Found:
    """What one document of a file is: an API, or None with the problems that keep it from being one."""

    api: RealtimeAPI | AsyncAPI | None
    problems: tuple[str, ...] = ()


def read(path: Path) -> list[Found]:
    """The APIs of a file, in its order; other kinds of manifest beside them are passed over.

    Problems read "FILE: spec.field: what is wrong". A file that can't be read, or holds no API, is a problem too.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return [Found(None, (f"{path}: can't be read: {reason}",))]
    except yaml.YAMLError as error:
        return [Found(None, (f"{path}: is no YAML: {' '.join(str(error).split())}",))]
    found = [_found(path, document) for document in documents if not _is_foreign(document)]
    return found or [Found(None, (f"{path}: no RealtimeAPI or AsyncAPI in it",))]


def problems(found: list[Found]) -> Iterator[str]:
    """Every problem of the documents of a file."""
    for document in found:
        yield from document.problems


def _found(path: Path, document: Any) -> Found:
    try:
        return Found(parse(document))
    except InvalidManifest as invalid:
        return Found(None, tuple(f"{path}: {problem}" for problem in invalid.problems))


def _is_foreign(document: Any) -> bool:
    """A manifest of another API group, such as the ConfigMap beside an API."""
    version = document.get("apiVersion") if isinstance(document, dict) else None
    return isinstance(version, str) and not version.startswith("cortex.dev/")
