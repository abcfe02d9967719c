"""Volumes of a pod as directories: ConfigMaps and Secrets, updated atomically like the kubelet does, and emptyDir.

A mount is a symbolic link in the root directory of the container: `/etc/cortex` is `<root>/etc/cortex`.
"""

from __future__ import annotations

import os
import shutil
import uuid
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path

from cortex_devcluster.objects import Object

Lookup = Callable[[str, str], Object | None]
"""Returns an object in the namespace of the pod by resource and name, or None."""


class MountFailed(Exception):
    """A volume cannot be set up yet; the text is the message of the kubelet."""


def files(volume: Object, lookup: Lookup) -> dict[str, bytes] | None:
    """Return the files of a volume (path to content), or None for an emptyDir.

    Raises MountFailed if an object or key does not exist, or the type of the volume is not supported.
    """
    if "emptyDir" in volume:
        return None
    for kind, resource, named in (("configMap", "configmaps", "name"), ("secret", "secrets", "secretName")):
        if kind in volume:
            source = volume[kind]
            name = source.get(named) or source.get("name")
            found = lookup(resource, name)
            if found is None:
                if source.get("optional"):
                    return {}
                raise MountFailed(
                    f'MountVolume.SetUp failed for volume "{volume["name"]}" : {kind.lower()} "{name}" not found'
                )
            return _select_keys(
                decode_data(found), source.get("items"), volume["name"], kind, bool(source.get("optional"))
            )
    kinds = ", ".join(sorted(set(volume) - {"name"})) or "nothing"
    raise MountFailed(
        f'MountVolume.SetUp failed for volume "{volume["name"]}" : the dev cluster does not support volumes of type {kinds}'
    )


def decode_data(obj: Object) -> dict[str, bytes]:
    """Return the keys and values of a ConfigMap or Secret."""
    if obj.get("kind") == "Secret":
        return {key: b64decode(value) for key, value in (obj.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    return plain | {key: b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}


def _select_keys(
    data: dict[str, bytes], items: list[Object] | None, volume: str, kind: str, optional: bool
) -> dict[str, bytes]:
    if items is None:
        return data
    result = {}
    for item in items:
        if item["key"] in data:
            result[item["path"]] = data[item["key"]]
        elif not optional:
            message = f"{kind.lower()} references non-existent config key: {item['key']}"
            raise MountFailed(f'MountVolume.SetUp failed for volume "{volume}" : {message}')
    return result


def write(directory: Path, content: Mapping[str, bytes]) -> None:
    """Replace the files of a volume. Readers see all old or all new files, by means of the `..data` link of the kubelet."""
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / "..data"
    before = data.resolve() if data.is_symlink() else None
    if before is not None and _read(before) == dict(content):
        return
    fresh = directory / f"..{uuid.uuid4().hex[:12]}"
    fresh.mkdir()
    for name, raw in content.items():
        target = fresh / name
        if not target.resolve().is_relative_to(fresh.resolve()):
            raise MountFailed(f"the path {name!r} is outside its volume")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(raw)
    link = directory / "..data_tmp"
    link.symlink_to(fresh.name)
    os.replace(link, data)
    tops = {name.split("/")[0] for name in content}
    for entry in directory.iterdir():
        # Other files were written by the container: mounts are not read-only here.
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    for name in tops:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    if before is not None:
        shutil.rmtree(before)


def _read(directory: Path) -> dict[str, bytes]:
    paths = (path for path in directory.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def mount(root: Path, volumes: Path, container: Object) -> dict[str, Path]:
    """Link the mounts of a container below `root`. Return the local path of each mount path."""
    mounts: dict[str, Path] = {}
    for entry in sorted(container.get("volumeMounts") or (), key=lambda entry: len(entry["mountPath"])):
        source = volumes / entry["name"] / entry.get("subPath", "")
        location = root / entry["mountPath"].strip("/")
        nested = next(
            (p for path, p in mounts.items() if entry["mountPath"].startswith(path.rstrip("/") + "/")), None
        )
        if nested is None:
            location.parent.mkdir(parents=True, exist_ok=True)
            if not location.is_symlink():
                location.symlink_to(source)
        elif not location.exists():
            location.parent.mkdir(parents=True, exist_ok=True)
            location.symlink_to(source)
        mounts[entry["mountPath"].rstrip("/")] = location
    return mounts
