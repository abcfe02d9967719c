"""`handler.source`: puts the project's code into its folder before anything of it is imported."""

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
    """The project of a handler, fetched when the spec names a location for it. `stop` may be called by another thread.

    packed: the folder of a mounted ConfigMap that holds the project as an archive, or None. folder: where the project is, once
    `fetch` has returned. What is fetched goes into the given folder when that is there for it, as in a pod, where it is empty at
    first; otherwise it goes beside the models, and nobody's own files are touched.
    """

    def __init__(
        self, handler: "BaseHandler", project: Path, models: Path, packed: Path | None = None
    ) -> None:
        source = handler.source
        self._packed = packed
        self._uri = source.uri if source is not None else None
        self._base = project
        own = (self._uri is not None or packed is not None) and not _may_hold(project)
        self.folder = models / ".project" if own else project
        self._stop = threading.Event()

    def fetch(self) -> None:
        """Fetch the project; nothing when the spec names no location. Raises StartError (SourceUnavailable) and Stopped."""
        if self._packed is not None:
            unpack_source(self._packed, self.folder)
        elif self._uri is not None:
            fetch_source(self._uri, self.folder, self._base, self._stop)

    def stop(self) -> None:
        """Let `fetch` end soon, by Stopped."""
        self._stop.set()


def fetch_source(uri: str, into: Path, base: Path, stop: threading.Event | None = None) -> None:
    """Put the project at a location into a folder, in place of what was fetched into it before.

    An archive (.zip, .tar.gz, .tgz) is unpacked, a folder or prefix is copied with all that is below it, a file stands alone.
    base: where a relative location counts from. stop: when it is set, Stopped is raised soon.
    Raises StartError (SourceUnavailable); the folder is as it was before then.
    """
    _replace(into, lambda scratch: _fetch(uri, base, scratch, stop), "handler.source.uri")


def unpack_source(packed: Path, into: Path) -> None:
    """Put the project of a mounted ConfigMap into a folder, in place of what was there from it before.

    Its archive is unpacked, and its other keys stand next to what that holds. Raises StartError (SourceUnavailable); the
    folder is as it was before then.
    """
    _replace(into, lambda scratch: _unpack(packed, scratch), "handler.source.configMap")


def _replace(into: Path, make: Callable[[Path], Path], field: str) -> None:
    """Give a folder the content of another, which `make` makes in the scratch folder that it is given."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        if not _may_hold(into):
            raise StartError(
                "SourceUnavailable", f"{into} holds other files; code is fetched into an empty folder"
            )
        with tempfile.TemporaryDirectory(dir=into, prefix=".cortex-incoming-") as scratch:
            whole = make(Path(scratch))
            for old in [path for path in into.iterdir() if path != Path(scratch)]:
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
            (into / _MARK).touch()
            for path in whole.iterdir():
                path.rename(into / path.name)
            sync_folder(into)
    except StartError as error:
        raise StartError("SourceUnavailable", f"{field}: {error.message}") from error
    except OSError as error:
        raise StartError("SourceUnavailable", f"{field}: {into} can't be written: {error}") from error


def _may_hold(folder: Path) -> bool:
    """Whether a folder is there for code that is fetched: it is empty, or was filled so before."""
    return not folder.is_dir() or (folder / _MARK).exists() or not any(folder.iterdir())


def _unpack(packed: Path, scratch: Path) -> Path:
    from cortex_runtime.models import archive

    whole = scratch / "unpacked"
    # What begins with ".." is the kubelet's own.
    keys = sorted(path for path in packed.iterdir() if not path.name.startswith("..") and path.is_file())
    archives = [path for path in keys if path.name in PROJECT_ARCHIVES]
    if len(archives) > 1:
        names = " and ".join(path.name for path in archives)
        raise StartError("SourceUnavailable", f"{names} are both projects: keep one of them")
    if archives:
        archive.unpack(archives[0], whole, archives[0].name)
    else:
        whole.mkdir()
    for path in keys:
        if path in archives:
            continue
        if (whole / path.name).exists():
            raise StartError(
                "SourceUnavailable",
                f"{path.name} is a key, and also in {archives[0].name}: remove one of them",
            )
        shutil.copyfile(path, whole / path.name)
    return whole


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
    raise StartError("SourceUnavailable", f"{source.shown} kept changing while it was fetched")
