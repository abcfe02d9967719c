"""`cortex pack`: pack a project folder into a ConfigMap for `handler.source.configMap`."""

import base64
import io
import json
import re
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cortex_api.contract import PROJECT_ARCHIVES
from cortex_cli import manifests
from cortex_cli.project_files import PackError, files_of

LIMIT = 1024 * 1024
"""Maximum total size of the values of a ConfigMap in bytes (MaxSecretSize in Kubernetes)."""
_ANNOTATION_LIMIT = 256 * 1024
"""Maximum total size of the annotations of an object in bytes. `kubectl apply` stores the whole object in an annotation."""
_READ_LIMIT = 64 * LIMIT
"""Total size of the files in bytes above which compression is not tried."""
KEY = re.compile(r"(?!\.\.)[-._a-zA-Z0-9]{1,253}$")
"""Pattern of valid keys of a ConfigMap."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
_MAX_LISTED_FILES = 5
_ZIP_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Packed:
    """A packed project.

    manifest: the ConfigMap. files: number of files. size: total size of the values in bytes.
    """

    manifest: dict[str, Any]
    files: int
    size: int

    @property
    def apply_hint(self) -> str:
        """How to apply the ConfigMap if it is too large for a plain `kubectl apply`; otherwise empty."""
        if not _needs_server_side(self.manifest):
            return ""
        name = self.manifest["metadata"]["name"]
        return (
            f"ConfigMap {name} is too large for client-side apply; use `kubectl apply --server-side`"
            " (in Argo CD: syncOptions ServerSideApply=true)"
        )


@click.command(short_help="Pack a project folder into a ConfigMap.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--name", help="Name of the ConfigMap.  [default: <folder name>-code]")
def pack(folder: Path, name: str | None) -> None:
    """Print a ConfigMap with the project in FOLDER, for handler.source.configMap.

    Hidden files (except .env), compiled Python files, virtual environments, cortex.yaml and Kubernetes manifests are excluded.
    FOLDER/.cortexignore excludes further files, in the syntax of .gitignore. The output depends only on the files.
    """
    if name is None:
        name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:240] + "-code"
    if not _NAME.match(name):
        raise click.UsageError(f"--name must contain only lowercase letters, digits, '-' and '.'; got {name}")
    try:
        packed = pack_folder(folder, name)
    except PackError as error:
        raise click.ClickException(str(error)) from error
    click.echo(manifests.dump([packed.manifest]), nl=False)
    click.echo(f"{folder}: {file_count(packed.files)}, {_size(packed.size)} of {_size(LIMIT)}", err=True)
    if packed.apply_hint:
        click.echo(packed.apply_hint, err=True)


def pack_folder(folder: Path, name: str, without: Collection[Path] = ()) -> Packed:
    """Pack a project into a ConfigMap: one key for each file if possible, otherwise an archive.

    The result depends only on the files.
    without: files to exclude. Raises PackError.
    """
    paths = files_of(folder, without)
    if not paths:
        raise PackError(f"{folder} has no files to pack; check {folder}/.cortexignore")
    sizes = {path: file.stat().st_size for path, file in paths.items()}
    if sum(sizes.values()) > _READ_LIMIT:
        raise _too_large(folder, sum(sizes.values()), sizes, "")
    try:
        files = {path: file.read_bytes() for path, file in paths.items()}
    except OSError as error:
        raise PackError(f"{folder} cannot be read: {error}") from error
    manifest = _pack_as_keys(name, files)
    if manifest is not None:
        return Packed(manifest, len(files), sum(map(len, files.values())))
    content, packed_sizes = _archive(files)
    if len(content) > LIMIT:
        raise _too_large(folder, len(content), packed_sizes, " packed")
    manifest = {**_config_map(name), "binaryData": {PROJECT_ARCHIVES[0]: base64.b64encode(content).decode()}}
    return Packed(manifest, len(files), len(content))


def _pack_as_keys(name: str, files: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Return a ConfigMap with one key for each file, or None if a path is not a valid key or the files are too large."""
    if not all(KEY.match(path) and path not in PROJECT_ARCHIVES for path in files):
        return None
    texts, binaries = {}, {}
    for path, content in files.items():
        if (text := _decode(content)) is not None:
            texts[path] = text
        else:
            binaries[path] = base64.b64encode(content).decode()
    manifest = _config_map(name)
    manifest |= {"data": texts} if texts else {}
    manifest |= {"binaryData": binaries} if binaries else {}
    return None if _needs_server_side(manifest) else manifest


def _decode(content: bytes) -> str | None:
    """Return the content as text, or None if a ConfigMap cannot store it as text without change."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]", text) else text


def _archive(files: Mapping[str, bytes]) -> tuple[bytes, dict[str, int]]:
    """Return a reproducible zip archive of files, and the compressed size of each file in bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, _ZIP_TIMESTAMP)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=9)
        sizes = {entry.filename: entry.compress_size for entry in archive.infolist()}
    return content.getvalue(), sizes


def _config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


def _needs_server_side(manifest: dict[str, Any]) -> bool:
    applied = {**manifest, "metadata": {"annotations": {}, "namespace": "n" * 63, **manifest["metadata"]}}
    key = len("kubectl.kubernetes.io/last-applied-configuration")
    return (
        len(json.dumps(applied, separators=(",", ":"), ensure_ascii=False).encode()) + key + 1
        > _ANNOTATION_LIMIT
    )


def _too_large(folder: Path, size: int, sizes: Mapping[str, int], suffix: str) -> PackError:
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_MAX_LISTED_FILES]
    listed = ", ".join(f"{path} ({_size(bytes_)})" for path, bytes_ in largest)
    return PackError(
        f"{folder} has {size} bytes{suffix}; the limit of a ConfigMap is {LIMIT} bytes (1 MiB). Largest files{suffix}: {listed}."
        " Exclude files with .cortexignore, move models to a bucket (handler.models), or upload the project as an archive"
        " (handler.source.uri)"
    )


def _size(count: int) -> str:
    for unit, factor in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def file_count(files: int) -> str:
    """Return "1 file" or "N files"."""
    return f"{files} file" if files == 1 else f"{files} files"
