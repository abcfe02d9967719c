"""What of a valid spec this runtime serves. A field that would have no effect is refused, never ignored."""

from cortex_api import Document
from cortex_runtime.errors import StartError


def require_supported(document: Document) -> None:
    """Raises StartError (InvalidSpec) that names all fields that this version can't serve."""
    handler = document.spec.handler
    problems = []
    if document.kind != "RealtimeAPI":
        problems.append(f"kind: {document.kind} is not served by `serve`")
    if handler.type == "tensorflow":
        problems.append("handler.type: tensorflow is not supported by this version")
    elif handler.path is None:
        problems.append("handler.path: serving a model without a handler is not supported by this version")
    for field, value in (
        ("handler.serverSideBatching", getattr(handler, "server_side_batching", None)),
        ("handler.dependencies", handler.dependencies),
        ("handler.debug", handler.debug),
        ("tracker", document.spec.tracker),
    ):
        if value:
            problems.append(f"{field}: not supported by this version")
    if problems:
        raise StartError("InvalidSpec", "\n".join(problems))
    source = handler.source
    if source is not None and source.uri is not None:
        raise StartError(
            "SourceUnavailable", "handler.source.uri: not supported by this version; use files or configMap"
        )
