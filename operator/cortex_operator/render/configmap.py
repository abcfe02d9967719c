"""The two ConfigMaps of an API: the document that the runtime reads, and the code that was given inline."""

from typing import Any

from cortex_api import AsyncAPI, Document, RealtimeAPI
from cortex_api.contract import DOCUMENT_FILE
from cortex_api.handler import PROJECT_ARCHIVES
from cortex_operator.render import tensorflow
from cortex_operator.render.names import child_name


def config(api: RealtimeAPI | AsyncAPI) -> dict[str, Any]:
    """The document that passes from the operator to the runtime, and what TensorFlow Serving reads."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": child_name(api)},
        "data": {DOCUMENT_FILE: Document.of(api).to_json().decode(), **tensorflow.files(api)},
    }


def code(api: RealtimeAPI | AsyncAPI) -> dict[str, Any] | None:
    """The files of `handler.source.files`. Paths are no ConfigMap keys, so the files are numbered in the order of their paths."""
    source = api.spec.handler.source
    if source is None or source.files is None:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{child_name(api)}-code"},
        "data": {f"file-{i}": source.files[path] for i, path in enumerate(sorted(source.files))},
    }


def is_packed(code: dict[str, Any] | None) -> bool:
    """Whether a ConfigMap with code holds the project as an archive, which the runtime unpacks."""
    return code is not None and any(name in PROJECT_ARCHIVES for name in code.get("binaryData") or ())


def code_items(api: RealtimeAPI | AsyncAPI) -> list[dict[str, str]] | None:
    """Which key of the code ConfigMap is mounted at which path; None when the keys are the paths."""
    source = api.spec.handler.source
    if source is None or source.files is None:
        return None
    return [{"key": f"file-{i}", "path": path} for i, path in enumerate(sorted(source.files))]
