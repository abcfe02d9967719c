"""`handler.source.uri`: fetches the project's code before anything of it is imported."""

import contextlib
import shutil
import tempfile
import threading
from pathlib import Path

from cortex_runtime.errors import StartError
from cortex_runtime.models import archive, tree
from cortex_runtime.models.disk import download, sync_folder
from cortex_runtime.models.listing import Changed
from cortex_runtime.models.progress import Progress
from cortex_runtime.models.storage import open_source

_ATTEMPTS = 3


def fetch_source(uri: str, into: Path, stop: threading.Event | None = None) -> None:
    """Put the project at a location into a folder, in place of what is in it.

    An archive (.zip, .tar.gz, .tgz) is unpacked, a folder or prefix is copied with all that is below it, a file stands alone.
    stop: when it is set, Stopped is raised soon. Raises StartError (SourceUnavailable); the folder is as it was before then.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into, prefix=".cortex-incoming-") as scratch:
            whole = _fetch(uri, into, Path(scratch), stop)
            for old in [path for path in into.iterdir() if path != Path(scratch)]:
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
            for path in whole.iterdir():
                path.rename(into / path.name)
            sync_folder(into)
    except StartError as error:
        raise StartError("SourceUnavailable", f"handler.source.uri: {error.message}") from error
    except OSError as error:
        raise StartError(
            "SourceUnavailable", f"handler.source.uri: {into} can't be written: {error}"
        ) from error


def _fetch(uri: str, into: Path, scratch: Path, stop: threading.Event | None) -> Path:
    progress = Progress("downloading the project", None, stop)
    source = open_source(uri, into, progress.wait, hidden=True)
    for attempt in range(_ATTEMPTS):
        fetched = scratch / f"fetched-{attempt}"
        listing = source.listing()
        with contextlib.suppress(Changed):
            download(source, list(listing.entries), "", fetched, progress)
            progress.finished()
            name = listing.entries[0].name
            if not listing.is_file or not name.lower().endswith(tree.ARCHIVES):
                return fetched
            unpacked = scratch / "unpacked"
            archive.unpack(fetched / name, unpacked, source.shown)
            return unpacked
    raise StartError("SourceUnavailable", f"{source.shown} kept changing while it was fetched")
