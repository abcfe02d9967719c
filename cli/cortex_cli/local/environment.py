"""Environment variables of an API under `cortex run`, and notes on fields without effect outside a cluster."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import WEBHOOK_SECRET_VARIABLE
from cortex_api.handler import EnvVar

_REFERENCE = re.compile(r"\$(?:\$|\(([-._a-zA-Z0-9]+)\))")
_CLUSTER_FIELDS = (
    "compute",
    "replicas",
    "autoscaling",
    "updateStrategy",
    "networking",
    "pod",
    "paused",
    "gateway",
)
_POD_FIELDS = ("image", "tensorflowServingImage", "shmSize")


def resolve(api: RealtimeAPI | AsyncAPI, process_environment: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the variables in handler.env.

    process_environment: the environment of this command, which contains the variables with valueFrom.
    Raises ClickException for variables without a value.
    """
    resolved: dict[str, str] = {}
    # $(NAME) refers only to variables of the container. Those of envFrom are in the environment of this command.
    references = dict(process_environment) if api.spec.handler.env_from else {}
    missing = []
    for index, variable in enumerate(api.spec.handler.env):
        if variable.value_from is None:
            resolved[variable.name] = _expand(variable.value or "", {**references, **resolved})
        elif variable.name in process_environment:
            resolved[variable.name] = process_environment[variable.name]
        elif (value := _pod_field(variable, api)) is not None:
            resolved[variable.name] = value
        elif not _is_optional(variable):
            missing.append(
                f"spec.handler.env[{index}]: {variable.name} comes from {_source(variable.value_from)} in a cluster; "
                f"set it in the environment of this command: {variable.name}=... cortex run ..."
            )
    if missing:
        raise click.ClickException("\n".join(missing))
    return resolved


def notes(api: RealtimeAPI | AsyncAPI, process_environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a note for each field that has no effect, or a different effect, outside a cluster."""
    handler = api.spec.handler
    fields = api.spec.model_dump(by_alias=True, exclude_unset=True)
    ignored = [name for name in _CLUSTER_FIELDS if name in fields]
    ignored += [f"handler.{name}" for name in _POD_FIELDS if name in fields["handler"]]
    if ignored:
        yield f"these fields have no effect under `cortex run`: {', '.join(ignored)}"
    if handler.env_from:
        sources = ", ".join(_source_name(each) for each in handler.env_from)
        yield f"`cortex run` ignores handler.envFrom; set the variables of {sources} in the environment of this command"
    webhook = api.spec.webhook if isinstance(api, AsyncAPI) else None
    if (
        webhook is not None
        and webhook.secret is not None
        and WEBHOOK_SECRET_VARIABLE not in process_environment
    ):
        yield f"webhooks are not signed; set {WEBHOOK_SECRET_VARIABLE} to the key in webhook.secret to sign them"


def _expand(value: str, references: Mapping[str, str]) -> str:
    """Expand $(NAME) like Kubernetes: $$ is a dollar sign, and unknown names are kept."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else references.get(name, match.group(0))

    return _REFERENCE.sub(replace, value)


def _pod_field(variable: EnvVar, api: RealtimeAPI | AsyncAPI) -> str | None:
    """Return the local value of a pod field, or None."""
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


def _source_name(source: Mapping[str, Any]) -> str:
    kinds = {"secretRef": "Secret", "configMapRef": "ConfigMap"}
    kind = next((kind for kind in kinds if kind in source), "")
    return f"{kinds.get(kind, 'a source')} {(source.get(kind) or {}).get('name', '')}".strip()
