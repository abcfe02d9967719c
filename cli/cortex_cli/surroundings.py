"""What a cluster would give an API's containers, as far as `cortex run` can: variables, and notes on what has no effect here."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import WEBHOOK_SECRET_VARIABLE
from cortex_api.handler import EnvVar

_REFERENCE = re.compile(r"\$(?:\$|\(([-._a-zA-Z0-9]+)\))")
_OF_THE_CLUSTER = (
    "compute",
    "replicas",
    "autoscaling",
    "updateStrategy",
    "networking",
    "pod",
    "paused",
    "gateway",
)
_OF_THE_POD = ("image", "tensorflowServingImage", "shmSize")


def environment(api: RealtimeAPI | AsyncAPI, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of handler.env. given: the environment of this command, which has those of valueFrom.

    Raises ClickException that names every variable that only a cluster has.
    """
    found: dict[str, str] = {}
    # References know the container's variables alone; those of envFrom are in the environment of this command.
    known = dict(given) if api.spec.handler.env_from else {}
    missing = []
    for place, variable in enumerate(api.spec.handler.env):
        if variable.value_from is None:
            found[variable.name] = _expanded(variable.value or "", {**known, **found})
        elif variable.name in given:
            found[variable.name] = given[variable.name]
        elif (value := _known(variable, api)) is not None:
            found[variable.name] = value
        elif not _is_optional(variable):
            missing.append(
                f"spec.handler.env[{place}]: {variable.name} comes from {_source(variable.value_from)} in a cluster; "
                f"here, set it in the environment of this command: {variable.name}=... cortex run ..."
            )
    if missing:
        raise click.ClickException("\n".join(missing))
    return found


def notes(api: RealtimeAPI | AsyncAPI, given: Mapping[str, str]) -> Iterator[str]:
    """What of the manifest has no effect here, or another one than in a cluster. given: the environment of this command."""
    handler = api.spec.handler
    set_here = api.spec.model_dump(by_alias=True, exclude_unset=True)
    without = [name for name in _OF_THE_CLUSTER if name in set_here]
    without += [f"handler.{name}" for name in _OF_THE_POD if name in set_here["handler"]]
    if without:
        yield f"without effect on this machine: {', '.join(without)}"
    if handler.env_from:
        sources = ", ".join(_named(each) for each in handler.env_from)
        yield f"handler.envFrom is not read here: set the variables of {sources} in the environment of this command"
    webhook = api.spec.webhook if isinstance(api, AsyncAPI) else None
    if webhook is not None and webhook.secret is not None and WEBHOOK_SECRET_VARIABLE not in given:
        yield f"webhooks are not signed here: set {WEBHOOK_SECRET_VARIABLE} to the key that webhook.secret has in a cluster"


def _expanded(value: str, known: Mapping[str, str]) -> str:
    """A value with its references, as Kubernetes resolves them: $(NAME); $$ is a dollar; an unknown name stays."""

    def resolve(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else known.get(name, match.group(0))

    return _REFERENCE.sub(resolve, value)


def _known(variable: EnvVar, api: RealtimeAPI | AsyncAPI) -> str | None:
    """A field of the pod that has a value here too."""
    field = (variable.value_from.get("fieldRef") or {}).get("fieldPath") if variable.value_from else None
    return {
        "metadata.namespace": api.metadata.namespace or "default",
        "metadata.name": api.metadata.name,
        "status.podIP": "127.0.0.1",
        "status.hostIP": "127.0.0.1",
        "spec.nodeName": "localhost",
    }.get(str(field))


def _reference(source: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    kind, reference = next(iter(source.items()), ("", {}))
    return kind, reference if isinstance(reference, dict) else {}


def _is_optional(variable: EnvVar) -> bool:
    return _reference(variable.value_from or {})[1].get("optional") is True


def _source(source: Mapping[str, Any]) -> str:
    kind, reference = _reference(source)
    names = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}
    if kind in names:
        return f"key {reference.get('key')} of {names[kind]} {reference.get('name')}"
    return f"{kind} {reference.get('fieldPath') or reference.get('resource') or ''}".strip()


def _named(source: Mapping[str, Any]) -> str:
    kinds = {"secretRef": "Secret", "configMapRef": "ConfigMap"}
    kind = next((kind for kind in kinds if kind in source), "")
    return f"{kinds.get(kind, 'a source')} {(source.get(kind) or {}).get('name', '')}".strip()
