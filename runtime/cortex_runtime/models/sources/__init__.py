"""Sources of models and code: one module for each kind of location, imported on use."""

from collections.abc import Callable
from pathlib import Path

from cortex_runtime.errors import StartError
from cortex_runtime.models.file_locks import sleep
from cortex_runtime.models.sources import local
from cortex_runtime.models.sources.base import Source


def open_source(
    location: str, project: Path, wait: Callable[[float], object] = sleep, *, hidden: bool = False
) -> Source:
    """Return the source of a location. Relative paths are relative to the project.

    wait: pauses between attempts; may raise to give up. hidden: whether local names that begin with a dot are included. Raises
    StartError (InvalidSpec).
    """
    scheme, separator, rest = location.partition("://")
    if not separator:
        return local.LocalSource(location, project / location, hidden=hidden)
    if scheme == "file":
        return local.LocalSource(location, project / rest, hidden=hidden)
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        if not claim or ".." in rest.split("/"):
            raise StartError("InvalidSpec", f"{location}: expected pvc://<claim>/<path>, without '..'")
        return local.LocalSource(location, local.CLAIMS / claim / path, hidden=hidden)
    if scheme in ("s3", "gs"):
        from cortex_runtime.models.sources.s3 import S3Source

        return S3Source(location, wait)
    if scheme in ("http", "https"):
        from cortex_runtime.models.sources.web import WebSource

        return WebSource(location, wait)
    raise StartError(
        "InvalidSpec",
        f"{location} is not a valid location; use s3://, gs://, http://, https://, file://, pvc:// or a path in the project",
    )
