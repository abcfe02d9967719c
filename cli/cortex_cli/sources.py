"""The ConfigMaps that `handler.source.configMap` names, among the manifests of this machine: found, checked and unpacked."""

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
from cortex_api.handler import PROJECT_ARCHIVES
from cortex_cli import manifests
from cortex_cli.pack import KEY, LIMIT

API = RealtimeAPI | AsyncAPI


def find(api: API, documents: Iterable[manifests.Found]) -> manifests.Found | None:
    """The document of the ConfigMap that an API names as its source."""
    source = api.spec.handler.source
    if source is None or source.config_map is None:
        return None
    wanted = (source.config_map.name, api.metadata.namespace)
    for document in documents:
        if document.config_map is not None:
            metadata = document.config_map["metadata"]
            if (metadata.get("name"), metadata.get("namespace") or "default") == wanted:
                return document
    return None


def find_near(api: API, file: Path) -> dict[str, Any] | None:
    """The ConfigMap of an API in its file, or in another manifest in the folder of that."""
    others = sorted(path for path in file.absolute().parent.iterdir() if path.suffix in manifests.SUFFIXES)
    for path in (file, *others):
        if found := find(api, manifests.read(path, of_folder=path != file)):
            return found.config_map
    return None


def wanted(api: API) -> list[str]:
    """Paths of the project that an API can't do without: its handler, what `dependencies` names, and models in it."""
    handler = api.spec.handler
    named, models = handler.dependencies, handler.models
    paths = [handler.path, named.pip if named else None, named.shell if named else None]
    if models is not None:
        locations = [models.path, models.dir, *(model.path for model in models.paths or ())]
        paths += [place for place in locations if place and "://" not in place and not place.startswith("/")]
    return [path.removeprefix("./").rstrip("/") for path in paths if path is not None]


def unpack(config_map: dict[str, Any], packed: Path, project: Path) -> None:
    """Put the project that a ConfigMap holds into a folder, as a pod would. Raises ClickException.

    packed: the folder for its keys as they are. Nothing is written when it is what was written last.
    """
    from cortex_runtime.errors import StartError
    from cortex_runtime.models.project import unpack_source

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
                    f"ConfigMap {name}: {key} is not a valid key: keys hold no folders"
                )
            (packed / key).write_bytes(data)
        unpack_source(packed, project)
    except ValueError as error:
        raise click.ClickException(f"ConfigMap {name}: {error}") from error
    except StartError as error:
        raise click.ClickException(f"ConfigMap {name}: {error.message}") from error
    stamp.write_text(digest)


def values(config_map: dict[str, Any]) -> dict[str, bytes]:
    """Key to content. Raises ValueError that names a key whose value is not valid, or that is given twice."""
    found: dict[str, bytes] = {}
    for section in ("data", "binaryData"):
        for key, value in (config_map.get(section) or {}).items():
            if not isinstance(value, str):
                raise ValueError(f"{section}.{key} must be a string")
            if key in found:
                raise ValueError(f"{key} is in data and in binaryData: remove one of them")
            try:
                found[key] = value.encode() if section == "data" else base64.b64decode(value, validate=True)
            except (binascii.Error, UnicodeEncodeError) as error:
                raise ValueError(f"{section}.{key} is not valid base64: {error}") from error
    return found


def problems(documents: list[manifests.Found]) -> Iterator[tuple[bool, str]]:
    """What keeps the sources of APIs from working: whether that is certain, and a message with its place.

    It is not certain where a ConfigMap is not among the documents: then it may be in the cluster, and packed.
    """
    for document in documents:
        api = document.api
        source = api.spec.handler.source if api is not None else None
        if api is None or source is None:
            continue
        if source.files is not None:
            for path in wanted(api):
                if not _has(source.files, path):
                    yield (
                        True,
                        f"{document.place('spec.handler.source.files')}: spec.handler.source.files: has no {path}",
                    )
        if source.config_map is None:
            continue
        place = document.place("spec.handler.source.configMap")
        name = source.config_map.name
        found = find(api, documents)
        if found is not None and found.config_map is not None:
            for message in _faults(api, found.config_map):
                yield True, f"{found.place('metadata.name')}: ConfigMap {name}: {message}"
        elif folders := [path for path in wanted(api) if "/" in path]:
            yield (
                False,
                f"{place}: warning: {folders[0]} is in a folder, and keys of a ConfigMap hold no folders: ConfigMap {name}"
                f" must be made by `cortex pack FOLDER --name {name}`",
            )


def _faults(api: API, config_map: dict[str, Any]) -> Iterator[str]:
    try:
        content = values(config_map)
    except ValueError as error:
        yield str(error)
        return
    for key in content:
        if not KEY.match(key):
            yield f"{key} is not a valid key: keys hold no folders; `cortex pack` packs them"
    if (size := sum(map(len, content.values()))) > LIMIT:
        yield f"has {size} bytes, and {LIMIT} is the most: put models into a bucket, or the project (handler.source.uri)"
    archives = [name for name in PROJECT_ARCHIVES if name in content]
    if len(archives) > 1:
        yield f"{' and '.join(archives)} are both projects: keep one of them"
    inside = _names(archives[0], content[archives[0]]) if archives else set()
    if inside is None:
        yield f"{archives[0]} is not a whole archive: make it again by `cortex pack`"
        return
    for path in wanted(api):
        if not _has({*inside, *content}, path):
            hint = "" if archives or "/" not in path else "; keys hold no folders: `cortex pack` packs them"
            yield f"has no {path}{hint}"


def _has(files: Iterable[str], path: str) -> bool:
    """Whether a path is one of the files, or a folder of some."""
    return any(file == path or file.startswith(f"{path}/") for file in files)


def _names(name: str, content: bytes) -> set[str] | None:
    """The files of an archive; None when it can't be read."""
    import tarfile

    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return {_plain(entry) for entry in archive.namelist()}
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            return {_plain(entry) for entry in tar.getnames()}
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError):
        return None


def _plain(entry: str) -> str:
    return re.sub(r"^(\./)+", "", entry)
