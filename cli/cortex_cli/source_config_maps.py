"""Find, validate and unpack the ConfigMaps of `handler.source.configMap` in local manifests."""

import base64
import binascii
import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import PROJECT_ARCHIVES
from cortex_cli import manifests
from cortex_cli.commands.pack import KEY, LIMIT

API = RealtimeAPI | AsyncAPI


def find(api: API, documents: Iterable[manifests.ManifestDocument]) -> manifests.ManifestDocument | None:
    """Return the document of the ConfigMap that is the source of an API, or None."""
    source = api.spec.handler.source
    if source is None or source.config_map is None:
        return None
    key = (source.config_map.name, api.metadata.namespace)
    for document in documents:
        if document.config_map is not None:
            metadata = document.config_map["metadata"]
            if (metadata.get("name"), metadata.get("namespace") or "default") == key:
                return document
    return None


def find_near(api: API, file: Path) -> dict[str, Any] | None:
    """Return the source ConfigMap of an API from its file or from another manifest in the same folder, or None."""
    others = sorted(path for path in file.absolute().parent.iterdir() if path.suffix in manifests.SUFFIXES)
    for path in (file, *others):
        if document := find(api, manifests.read(path, is_from_folder=path != file)):
            return document.config_map
    return None


def required_paths(api: API) -> list[str]:
    """Return the project paths that an API requires: the handler, the files in `dependencies`, and local models."""
    handler = api.spec.handler
    dependencies, models = handler.dependencies, handler.models
    paths = [
        handler.path,
        dependencies.pip if dependencies else None,
        dependencies.shell if dependencies else None,
    ]
    if models is not None:
        locations = [models.path, models.dir, *(model.path for model in models.paths or ())]
        paths += [each for each in locations if each and "://" not in each and not each.startswith("/")]
    return [path.removeprefix("./").rstrip("/") for path in paths if path is not None]


def unpack(config_map: dict[str, Any], packed: Path, project: Path) -> None:
    """Unpack the project in a ConfigMap like a pod does. Does nothing if the content has not changed since the last call.

    packed: folder for the keys of the ConfigMap. project: folder for the project. Raises ClickException.
    """
    from cortex_runtime.errors import StartError
    from cortex_runtime.handler.project_source import unpack_source

    content = json.dumps([config_map.get("data"), config_map.get("binaryData")], sort_keys=True)
    stamp, digest = packed.with_suffix(".sha256"), hashlib.sha256(content.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    shutil.rmtree(packed, ignore_errors=True)
    packed.mkdir()
    name = config_map["metadata"].get("name")
    try:
        for key, data in values(config_map).items():
            if not KEY.match(key):
                raise click.ClickException(
                    f"ConfigMap {name}: {key} is not a valid key; keys cannot contain folders"
                )
            (packed / key).write_bytes(data)
        unpack_source(packed, project)
    except ValueError as error:
        raise click.ClickException(f"ConfigMap {name}: {error}") from error
    except StartError as error:
        raise click.ClickException(f"ConfigMap {name}: {error.message}") from error
    stamp.write_text(digest)


def values(config_map: dict[str, Any]) -> dict[str, bytes]:
    """Return the content of each key. Raises ValueError for an invalid value, and for a key in both data and binaryData."""
    found: dict[str, bytes] = {}
    for section in ("data", "binaryData"):
        for key, value in (config_map.get(section) or {}).items():
            if not isinstance(value, str):
                raise ValueError(f"{section}.{key} must be a string")
            if key in found:
                raise ValueError(f"{key} is in both data and binaryData; remove one of them")
            try:
                found[key] = value.encode() if section == "data" else base64.b64decode(value, validate=True)
            except (binascii.Error, UnicodeEncodeError) as error:
                raise ValueError(f"{section}.{key} is not valid base64: {error}") from error
    return found


def problems(documents: list[manifests.ManifestDocument]) -> Iterator[tuple[bool, str]]:
    """Yield the problems of the sources of APIs: whether it is an error, and the message with its file and line.

    A problem is only a warning if the ConfigMap is not among the documents: the cluster may contain a suitable one.
    """
    for document in documents:
        api = document.api
        source = api.spec.handler.source if api is not None else None
        if api is None or source is None:
            continue
        if source.files is not None:
            for path in required_paths(api):
                if not _has(source.files, path):
                    location = document.location("spec.handler.source.files")
                    yield True, f"{location}: spec.handler.source.files: {path} is missing"
        if source.config_map is None:
            continue
        name = source.config_map.name
        found = find(api, documents)
        if found is not None and found.config_map is not None:
            for message in _config_map_errors(api, found.config_map):
                yield True, f"{found.location('metadata.name')}: ConfigMap {name}: {message}"
        elif nested := [path for path in required_paths(api) if "/" in path]:
            yield (
                False,
                f"{document.location('spec.handler.source.configMap')}: warning: {nested[0]} is in a folder, and keys of a"
                f" ConfigMap cannot contain folders; create ConfigMap {name} with `cortex pack FOLDER --name {name}`",
            )


def _config_map_errors(api: API, config_map: dict[str, Any]) -> Iterator[str]:
    try:
        content = values(config_map)
    except ValueError as error:
        yield str(error)
        return
    for key in content:
        if not KEY.match(key):
            yield f"{key} is not a valid key; keys cannot contain folders, use `cortex pack`"
    if (size := sum(map(len, content.values()))) > LIMIT:
        yield (
            f"size must be at most {LIMIT} bytes; got {size}; move the models to a bucket, or the project"
            " (handler.source.uri)"
        )
    archives = [name for name in PROJECT_ARCHIVES if name in content]
    if len(archives) > 1:
        yield f"{' and '.join(archives)} are both project archives; remove one of them"
    members = _archive_members(archives[0], content[archives[0]]) if archives else set()
    if members is None:
        yield f"{archives[0]} is not a valid archive; create it again with `cortex pack`"
        return
    for path in required_paths(api):
        if not _has({*members, *content}, path):
            hint = "" if archives or "/" not in path else "; keys cannot contain folders, use `cortex pack`"
            yield f"{path} is missing{hint}"


def _has(files: Iterable[str], path: str) -> bool:
    """Return whether a path is one of the files or a folder that contains one."""
    return any(file == path or file.startswith(f"{path}/") for file in files)


def _archive_members(name: str, content: bytes) -> set[str] | None:
    """Return the paths in an archive, or None if it cannot be read."""
    import tarfile

    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return {_normalize(entry) for entry in archive.namelist()}
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            return {_normalize(entry) for entry in tar.getnames()}
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError):
        return None


def _normalize(entry: str) -> str:
    return re.sub(r"^(\./)+", "", entry)
