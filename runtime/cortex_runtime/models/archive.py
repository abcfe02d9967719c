"""Unpack archives of models and code. Entries outside of the target folder, links and special files are refused."""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

from cortex_runtime.errors import StartError
from cortex_runtime.models.download_progress import size_in_words
from cortex_runtime.models.sources.base import safe_name

_MAX_ENTRIES = 200_000
_CORRUPT = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


def unpack(archive: Path, into: Path, where: str) -> None:
    """Unpack a .zip, .tar.gz or .tgz into a new folder. where: the location, for messages.

    Raises StartError (ModelInvalid) if the file is not such an archive or is corrupt, if an entry is refused, or if the disk is
    full.
    """
    into.mkdir(parents=True)
    try:
        if archive.name.lower().endswith(".zip"):
            _unzip(archive, into, where)
        else:
            _untar(archive, into, where)
    except _CORRUPT as error:
        raise StartError("ModelInvalid", f"{where} is not a valid archive: {error}") from error
    except RuntimeError as error:
        # zipfile raises RuntimeError for an encrypted entry.
        raise StartError("ModelInvalid", f"failed to unpack {where}: {error}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise StartError(
            "ModelInvalid", f"{where} has two entries with the same name: {error.filename}"
        ) from error


def _unzip(archive: Path, into: Path, where: str) -> None:
    with zipfile.ZipFile(archive) as content:
        entries = content.infolist()
        _require_room(sum(entry.file_size for entry in entries), len(entries), into, where)
        for entry in entries:
            mode = entry.external_attr >> 16
            target = _target(entry.filename.rstrip("/") if entry.is_dir() else entry.filename, into, where)
            if target is None:
                continue
            if entry.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                with content.open(entry) as source:
                    _write(source, target)
            else:
                raise _refused(entry.filename, where)


def _untar(archive: Path, into: Path, where: str) -> None:
    with tarfile.open(archive, "r:*") as content:
        entries = content.getmembers()
        _require_room(sum(entry.size for entry in entries), len(entries), into, where)
        for entry in entries:
            target = _target(entry.name, into, where)
            if target is None:
                continue
            if entry.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif entry.isfile():
                source = content.extractfile(entry)
                assert source is not None
                with source:
                    _write(source, target)
            else:
                raise _refused(entry.name, where)


def _target(name: str, into: Path, where: str) -> Path | None:
    while name.startswith("./"):
        name = name[2:]
    if name in ("", "."):
        return None
    if not safe_name(name):
        raise StartError(
            "ModelInvalid",
            f"{where}: the path of entry {name!r} is outside of the target folder; nothing was unpacked",
        )
    return into / name


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        shutil.copyfileobj(source, file, 1024 * 1024)
        file.flush()
        os.fsync(file.fileno())


def _refused(name: str, where: str) -> StartError:
    return StartError(
        "ModelInvalid", f"{where}: entry {name!r} must be a file or a folder, not a link or a special file"
    )


def _require_room(size: int, entries: int, into: Path, where: str) -> None:
    free = shutil.disk_usage(into).free
    if size > free:
        sizes = f"{size_in_words(size)} in {into}; {size_in_words(free)} are free"
        raise StartError("ModelInvalid", f"unpacking {where} requires {sizes}")
    if entries > _MAX_ENTRIES:
        raise StartError("ModelInvalid", f"{where} must have at most {_MAX_ENTRIES} entries; got {entries}")
