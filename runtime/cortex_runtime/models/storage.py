"""A model's location as a path on this machine."""

from pathlib import Path

from cortex_runtime.errors import StartError


def local_path(location: str, project: Path) -> Path:
    """The path of a location; relative ones count from the project.

    Raises StartError: InvalidSpec for a scheme that is not served, ModelNotFound when nothing is there.
    """
    scheme, separator, rest = location.partition("://")
    if separator and scheme != "file":
        raise StartError(
            "InvalidSpec",
            f"handler.models: {location} can't be read: {scheme}:// is not supported by this version; "
            "use a path in the project, an absolute path or file://",
        )
    path = project / (rest if separator else location)
    if not path.exists():
        raise StartError("ModelNotFound", f"handler.models: there is nothing at {path}")
    return path
