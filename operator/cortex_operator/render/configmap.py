"""The two ConfigMaps of an API: the document that the runtime reads, and inline code."""

from typing import Any

from cortex_api import AsyncAPI, Document, RealtimeAPI
from cortex_api.contract import DOCUMENT_FILE, PROJECT_ARCHIVES
from cortex_operator.render import tensorflow
from cortex_operator.render.names import child_name


def config(api: RealtimeAPI | AsyncAPI) -> dict[str, Any]:
    """Return the ConfigMap with the document for the runtime and the files of TensorFlow Serving."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": child_name(api)},
        "data": {DOCUMENT_FILE: Document.of(api).to_json().decode(), **tensorflow.files(api)},
    }


def code(api: RealtimeAPI | AsyncAPI) -> dict[str, Any] | None:
    """Return the ConfigMap with `handler.source.files`. Paths are not valid keys, so the keys are numbers in the order of the
    paths."""
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
    """Return whether a ConfigMap has the project as an archive, which the runtime extracts."""
    return code is not None and any(name in PROJECT_ARCHIVES for name in code.get("binaryData") or ())


def code_items(api: RealtimeAPI | AsyncAPI) -> list[dict[str, str]] | None:
    """Return which key of the ConfigMap with code is mounted at which path; None where keys are file names."""
    source = api.spec.handler.source
    if source is None or source.files is None:
        return None
    return [{"key": f"file-{i}", "path": path} for i, path in enumerate(sorted(source.files))]
