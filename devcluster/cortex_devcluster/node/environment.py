"""The environment and command line of a container's process. Paths below mount paths are replaced by local paths."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from cortex_devcluster.node.volumes import Lookup, decode_data
from cortex_devcluster.objects import Object, nested

ENTRYPOINT = ("python", "-m", "cortex_runtime")
"""The command of the runtime's image."""


class ConfigFailed(Exception):
    """The container cannot be configured (CreateContainerConfigError); the text is the message of the kubelet."""


def to_local_path(text: str, mounts: Mapping[str, Path]) -> str:
    """Replace the mount path at the start of a text, or after "--flag=", by the local path."""
    flag, equals, value = text.partition("=")
    if flag.startswith("-") and equals:
        return f"{flag}={to_local_path(value, mounts)}"
    for path in sorted(mounts, key=len, reverse=True):
        if text == path or text.startswith(path + "/"):
            return str(mounts[path]) + text[len(path) :]
    return text


def expand(text: str, env: Mapping[str, str]) -> str:
    """Expand $(NAME) references; $$ is a dollar sign, undefined names remain."""

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return env.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([A-Za-z_][\w.-]*)\)", replace, text)


def environment(
    container: Object, pod: Object, lookup: Lookup, mounts: Mapping[str, Path], home: Path
) -> dict[str, str]:
    """Return the environment. Of the dev cluster's own it has only PATH. Raises ConfigFailed."""
    address = (pod.get("status") or {}).get("podIP", "")
    env = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "HOME": str(home),
        "HOSTNAME": pod["metadata"]["name"],
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "CORTEX_HOST": address,
    }
    if "/tmp" in mounts:
        env["TMPDIR"] = str(mounts["/tmp"])
    for source in container.get("envFrom") or ():
        env |= _from_source(source, lookup)
    for entry in container.get("env") or ():
        value = entry.get("value")
        if value is None and "valueFrom" in entry:
            value = _from_reference(entry["valueFrom"], pod, lookup)
            if value is None:
                continue
        env[entry["name"]] = expand(to_local_path(value or "", mounts), env)
    return env


def _from_source(source: Object, lookup: Lookup) -> dict[str, str]:
    for kind, resource in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
        if kind in source:
            found = lookup(resource, source[kind]["name"])
            if found is None and not source[kind].get("optional"):
                raise ConfigFailed(f'{resource[:-1]} "{source[kind]["name"]}" not found')
            prefix = source.get("prefix", "")
            plain = {name: value for name, value in (found or {}).items() if name != "binaryData"}
            return {prefix + key: raw.decode() for key, raw in decode_data(plain).items()}
    return {}


def _from_reference(source: Object, pod: Object, lookup: Lookup) -> str | None:
    """Return the value, or None if it is optional and does not exist. Raises ConfigFailed."""
    if "fieldRef" in source:
        return _pod_field(pod, source["fieldRef"]["fieldPath"])
    for kind, resource in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
        if kind in source:
            ref = source[kind]
            found = lookup(resource, ref["name"])
            if found is not None and ref["key"] in (data := decode_data(found)):
                return data[ref["key"]].decode()
            if ref.get("optional"):
                return None
            space = pod["metadata"]["namespace"]
            what = "ConfigMap" if resource == "configmaps" else "Secret"
            if found is None:
                raise ConfigFailed(f'{resource[:-1]} "{ref["name"]}" not found')
            raise ConfigFailed(f"couldn't find key {ref['key']} in {what} {space}/{ref['name']}")
    raise ConfigFailed(f"the dev cluster does not support the environment source {', '.join(source)}")


def _pod_field(pod: Object, path: str) -> str:
    """Return the value of a field of the pod (metadata.name, metadata.labels['x'], status.podIP, ...)."""
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path):
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    value = nested(pod, path)
    return "" if value is None else str(value)


def command(container: Object, env: Mapping[str, str], mounts: Mapping[str, Path]) -> list[str]:
    """Return the command line; `python` is this interpreter."""
    words = list(container.get("command") or ())
    words += container.get("args") or ([] if words else ["serve"])
    if not container.get("command"):
        words = [*ENTRYPOINT, *words]
    return localize_command(words, env, mounts)


def localize_command(words: list[str], env: Mapping[str, str], mounts: Mapping[str, Path]) -> list[str]:
    vector = [expand(to_local_path(word, mounts), env) for word in words]
    if vector[0] in ("python", "python3"):
        vector[0] = sys.executable
    return vector
