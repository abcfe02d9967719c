"""`cortex pack`: a project's folder as a ConfigMap, which `handler.source.configMap` names."""

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

from cortex_api.handler import PROJECT_ARCHIVES
from cortex_cli import manifests
from cortex_cli.project import Unpackable, files_of

LIMIT = 1024 * 1024
"""Bytes that the values of a ConfigMap may have, all together (MaxSecretSize of Kubernetes)."""
_ANNOTATIONS = 256 * 1024
"""Bytes that the annotations of an object may have; `kubectl apply` writes all of the object into one."""
_MOST_READ = 64 * LIMIT
"""Bytes of files above which nothing is compressed to see whether it fits."""
KEY = re.compile(r"(?!\.\.)[-._a-zA-Z0-9]{1,253}$")
"""What a key of a ConfigMap must match."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
_LISTED = 5
_BEGIN = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Packed:
    """A ConfigMap. files: how many it holds. size: bytes of its values."""

    manifest: dict[str, Any]
    files: int
    size: int

    @property
    def advice(self) -> str:
        """How to apply it, where `kubectl apply` alone is refused; else empty."""
        if not _needs_server_side(self.manifest):
            return ""
        name = self.manifest["metadata"]["name"]
        return (
            f"ConfigMap {name} is too large for the annotation that `kubectl apply` writes: use `kubectl apply --server-side`"
            " (Argo CD: syncOptions ServerSideApply=true)"
        )


@click.command(short_help="Make a ConfigMap of a project's folder.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--name", help="Name of the ConfigMap.  [default: the folder's name and -code]")
def pack(folder: Path, name: str | None) -> None:
    """Print a ConfigMap that holds the project in FOLDER, for handler.source.configMap.

    Hidden files (but .env), compiled Python, virtual environments, cortex.yaml and Kubernetes manifests are left out, and so is
    what FOLDER/.cortexignore names in the syntax of .gitignore. The same files make the same ConfigMap.
    """
    if name is None:
        name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:240] + "-code"
    if not _NAME.match(name):
        raise click.UsageError(f"--name: {name} is not valid: use lower case letters, digits, '-' and '.'")
    try:
        packed = pack_folder(folder, name)
    except Unpackable as error:
        raise click.ClickException(str(error)) from error
    click.echo(manifests.dump([packed.manifest]), nl=False)
    click.echo(f"{folder}: {counted(packed.files)}, {_size(packed.size)} of {_size(LIMIT)}", err=True)
    if packed.advice:
        click.echo(packed.advice, err=True)


def pack_folder(folder: Path, name: str, without: Collection[Path] = ()) -> Packed:
    """The ConfigMap of a project: its files as keys where that is possible and small, else as an archive.

    The same files make the same bytes. Raises Unpackable.
    """
    paths = files_of(folder, without)
    if not paths:
        raise Unpackable(f"{folder} has no files for a ConfigMap: see what {folder}/.cortexignore leaves out")
    sizes = {path: file.stat().st_size for path, file in paths.items()}
    if sum(sizes.values()) > _MOST_READ:
        raise _too_large(folder, sum(sizes.values()), sizes, "")
    try:
        files = {path: file.read_bytes() for path, file in paths.items()}
    except OSError as error:
        raise Unpackable(f"{folder} can't be read: {error}") from error
    manifest = _plain(name, files)
    if manifest is not None:
        return Packed(manifest, len(files), sum(map(len, files.values())))
    content, packed_sizes = _archive(files)
    if len(content) > LIMIT:
        raise _too_large(folder, len(content), packed_sizes, " packed")
    manifest = {**_config_map(name), "binaryData": {PROJECT_ARCHIVES[0]: base64.b64encode(content).decode()}}
    return Packed(manifest, len(files), len(content))


def _plain(name: str, files: Mapping[str, bytes]) -> dict[str, Any] | None:
    """The ConfigMap with a key for each file, which can be read and edited; None where keys can't be the files."""
    if not all(KEY.match(path) and path not in PROJECT_ARCHIVES for path in files):
        return None
    texts, binaries = {}, {}
    for path, content in files.items():
        if (text := _text(content)) is not None:
            texts[path] = text
        else:
            binaries[path] = base64.b64encode(content).decode()
    manifest = _config_map(name)
    manifest |= {"data": texts} if texts else {}
    manifest |= {"binaryData": binaries} if binaries else {}
    return None if _needs_server_side(manifest) else manifest


def _text(content: bytes) -> str | None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]", text) else text


def _archive(files: Mapping[str, bytes]) -> tuple[bytes, dict[str, int]]:
    """A zip of files, the same for the same files, and how many bytes of it each file has."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, _BEGIN)
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
        len(json.dumps(applied, separators=(",", ":"), ensure_ascii=False).encode()) + key + 1 > _ANNOTATIONS
    )


def _too_large(folder: Path, size: int, sizes: Mapping[str, int], how: str) -> Unpackable:
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_LISTED]
    listed = ", ".join(f"{path} ({_size(bytes_)})" for path, bytes_ in largest)
    return Unpackable(
        f"{folder} has {size} bytes{how}, and a ConfigMap holds {LIMIT} (1 MiB); its largest files{how}: {listed}."
        " Name files that are not needed in .cortexignore, put models into a bucket (handler.models), or put the project"
        " there as an archive (handler.source.uri)"
    )


def _size(count: int) -> str:
    for unit, factor in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def counted(files: int) -> str:
    """A number of files in words."""
    return f"{files} file" if files == 1 else f"{files} files"
