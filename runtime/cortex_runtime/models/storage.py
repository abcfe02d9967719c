"""From a location in the spec to the source that lists and fetches it. What a scheme needs is imported when it is met."""

from pathlib import Path

from cortex_runtime.errors import StartError
from cortex_runtime.models import local
from cortex_runtime.models.listing import Source


def open_source(location: str, project: Path) -> Source:
    """The source for a location; relative paths count from the project.

    Raises StartError (InvalidSpec) for a scheme that is not known and for a location that says too little.
    """
    scheme, separator, rest = location.partition("://")
    if not separator:
        return local.LocalSource(location, project / location)
    if scheme == "file":
        return local.LocalSource(location, project / rest)
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        if not claim or ".." in rest.split("/"):
            raise StartError("InvalidSpec", f"{location}: write pvc://<claim>/<path>, without '..'")
        return local.LocalSource(location, local.CLAIMS / claim / path)
    raise StartError(
        "InvalidSpec",
        f"{location} can't be read: the schemes of this version are file:// and pvc://, "
        "or a path in the project",
    )
