"""What of a valid spec this runtime serves. A field that would have no effect is refused, never ignored."""

from cortex_api import Document
from cortex_runtime.errors import StartError


def require_supported(document: Document) -> None:
    """Raises StartError that names what this version can't serve."""
    if document.kind != "RealtimeAPI":
        raise StartError("InvalidSpec", f"kind: {document.kind} is not served by `serve`")
