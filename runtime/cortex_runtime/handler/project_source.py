"""Fetch the project of `handler.source` into its folder, before its code is imported."""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_api.contract import PROJECT_ARCHIVES
from cortex_runtime.errors import StartError
from cortex_runtime.models import folder_layout
from cortex_runtime.models.disk_cache import download, sync_folder
from cortex_runtime.models.download_progress import Progress
from cortex_runtime.models.sources import open_source
from cortex_runtime.models.sources.base import Changed

if TYPE_CHECKING:
    from cortex_api.handler import BaseHandler

_ATTEMPTS = 3
_MARK = ".cortex-source"


class ProjectSource:
    """The project of a handler, which is fetched if the spec has a source. Another thread may call `stop`.

    packed: the folder of a mounted ConfigMap with an archive of the project, or None. folder: the folder of the project, after
    `fetch`. This is the given folder if it is empty, as in a pod, or has an earlier download. Otherwise it is a subfolder of
    the models, so that a user's own files are never changed.
    """

    def __init__(
        self, handler: "BaseHandler", project: Path, models: Path, packed: Path | None = None
    ) -> None:
        source = handler.source
        self._packed = packed
        self._uri = source.uri if source is not None else None
        self._base = project
        is_fetched = (self._uri is not None or packed is not None) and not _is_replaceable(project)
        self.folder = models / ".project" if is_fetched else project
        self._stop = threading.Event()

    def fetch(self) -> None:
        """Fetch the project, unless the spec has no source. Raises StartError (SourceUnavailable) and Stopped."""
        if self._packed is not None:
            unpack_source(self._packed, self.folder)
        elif self._uri is not None:
            fetch_source(self._uri, self.folder, self._base, self._stop)

    def stop(self) -> None:
        """Make `fetch` raise Stopped."""
        self._stop.set()


def fetch_source(uri: str, into: Path, base: Path, stop: threading.Event | None = None) -> None:
    """Fetch the project at a location into a folder. Replaces an earlier download.

    An archive (.zip, .tar.gz, .tgz) is unpacked, a folder or prefix is copied recursively, a file is copied. base: the folder of
    relative locations. stop: once it is set, Stopped is raised. On StartError (SourceUnavailable) the folder is unchanged.
    """
    _replace(into, lambda scratch: _fetch(uri, base, scratch, stop), "handler.source.uri")


def unpack_source(packed: Path, into: Path) -> None:
    """Copy the project of a mounted ConfigMap into a folder. Replaces an earlier copy.

    Its archive is unpacked, and its other keys are copied next to the content. Raises StartError (SourceUnavailable); then the
    folder is unchanged.
    """
    _replace(into, lambda scratch: _unpack(packed, scratch), "handler.source.configMap")


def _replace(into: Path, make: Callable[[Path], Path], field: str) -> None:
    """Replace the content of a folder by that of the folder that `make` creates inside of a temporary folder."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        if not _is_replaceable(into):
            raise StartError(
                "SourceUnavailable",
                f"{into} must be empty, because the project is fetched into it; it contains other files",
            )
        with tempfile.TemporaryDirectory(dir=into, prefix=".cortex-incoming-") as scratch:
            complete = make(Path(scratch))
            for old in [path for path in into.iterdir() if path != Path(scratch)]:
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
            (into / _MARK).touch()
            for path in complete.iterdir():
                path.rename(into / path.name)
            sync_folder(into)
    except StartError as error:
        raise StartError("SourceUnavailable", f"{field}: {error.message}") from error
    except OSError as error:
        raise StartError("SourceUnavailable", f"{field}: failed to write to {into}: {error}") from error


def _is_replaceable(folder: Path) -> bool:
    """Return whether a project may be fetched into a folder: it is empty, or contains an earlier download."""
    return not folder.is_dir() or (folder / _MARK).exists() or not any(folder.iterdir())


def _unpack(packed: Path, scratch: Path) -> Path:
    from cortex_runtime.models import archive

    unpacked = scratch / "unpacked"
    # Names that begin with ".." belong to the kubelet.
    keys = sorted(path for path in packed.iterdir() if not path.name.startswith("..") and path.is_file())
    archives = [path for path in keys if path.name in PROJECT_ARCHIVES]
    if len(archives) > 1:
        names = " and ".join(path.name for path in archives)
        raise StartError(
            "SourceUnavailable", f"the ConfigMap must have only one archive of a project; got {names}"
        )
    if archives:
        archive.unpack(archives[0], unpacked, archives[0].name)
    else:
        unpacked.mkdir()
    for path in keys:
        if path in archives:
            continue
        if (unpacked / path.name).exists():
            raise StartError(
                "SourceUnavailable",
                f"{path.name} is both a key of the ConfigMap and a file in {archives[0].name}; remove one of them",
            )
        shutil.copyfile(path, unpacked / path.name)
    return unpacked


def _fetch(uri: str, base: Path, scratch: Path, stop: threading.Event | None) -> Path:
    progress = Progress("downloading the project", None, stop)
    source = open_source(uri, base, progress.wait, hidden=True)
    for attempt in range(_ATTEMPTS):
        fetched = scratch / f"fetched-{attempt}"
        listing = source.listing()
        with contextlib.suppress(Changed):
            download(source, list(listing.entries), "", fetched, progress)
            progress.finished()
            name = listing.entries[0].name
            if not listing.is_file or not name.lower().endswith(folder_layout.ARCHIVES):
                return fetched
            from cortex_runtime.models import archive

            unpacked = scratch / "unpacked"
            archive.unpack(fetched / name, unpacked, source.shown)
            return unpacked
    raise StartError(
        "SourceUnavailable", f"{source.shown} changed during each of {_ATTEMPTS} attempts to fetch it"
    )
