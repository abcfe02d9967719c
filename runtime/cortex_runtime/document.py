"""Checks that this version of the runtime supports a valid spec. An unsupported field is refused, never ignored."""

from cortex_api import Document
from cortex_runtime.errors import StartError


def require_supported(document: Document) -> None:
    """Raise StartError if this version cannot serve the document."""
    if document.kind != "RealtimeAPI":
        raise StartError("InvalidSpec", f"kind: {document.kind} is not served by `serve`")
