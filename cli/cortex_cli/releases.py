"""Change the version of an API: for `cortex promote`, `abort`, `retry`, `history` and `rollback`."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from cortex_api import InvalidManifest, parse
from cortex_api.contract import CHANGED_AT_ANNOTATION, RETRY_ANNOTATION
from cortex_api.revision import revised
from cortex_cli import apis, manifests
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, Object, path

FIELD_MANAGER = "cortex"
_GIT_MARKS = {
    "Argo CD": ("argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance"),
    "Flux": ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"),
}
"""Labels and annotations of the tools that apply manifests from Git."""
_GIT_MANAGERS = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
}
"""Their field managers."""
_TOOLS_OWN = (
    "kubectl.kubernetes.io/",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    RETRY_ANNOTATION,
)
_MAX_VALUE = 60
"""Characters of a value in the list of changes."""


@dataclass(frozen=True)
class Revision:
    """A spec of an API that was Ready. spec: without replicas, paused and candidate. changed_at: RFC 3339."""

    number: int
    name: str
    changed_at: str
    spec: Object


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that changes a spec: `print_only` and `force`."""
    command = click.option(
        "--force",
        is_flag=True,
        help="Change the resource although Git, or the state of the candidate, is against it.",
    )(command)
    return click.option(
        "--print", "print_only", is_flag=True, help="Print the manifest to commit, and change nothing."
    )(command)


def change(
    cluster: Cluster, api: API, spec: Object, command: str, print_only: bool, force: bool
) -> int | None:
    """Replace the spec of an API, or print the manifest with it.

    command: the command line of the user, for messages. Returns the new generation; None if the manifest was printed.
    Raises ClusterError if the spec is invalid, if the resource has changed since `api` was read, or if it is managed in Git.
    """
    wanted = manifest(api, spec)
    try:
        parse(wanted)
    except InvalidManifest as error:
        raise ClusterError(f"the new spec of {api.kind} {api.name} is invalid: {error}") from error
    if print_only:
        click.echo(manifests.dump([wanted]), nl=False)
        return None
    tool = git_tool(api)
    if tool is not None and not force:
        raise ClusterError(
            f"{tool} manages {api.kind} {api.name} and would revert the change: commit the output of `{command} --print`,"
            " or add --force to change the cluster until the next sync"
        )
    return _replace_spec(cluster, api, spec)


def _replace_spec(cluster: Cluster, api: API, spec: Object) -> int:
    """Replace the spec unless anyone has changed it since it was read. The operator's writes of the status are no conflict."""
    metadata = api.live["metadata"]
    operations = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {"op": "test", "path": "/metadata/generation", "value": metadata["generation"]},
        {"op": "replace", "path": "/spec", "value": spec},
    ]
    url = path(apis.resource(api.kind), api.namespace, api.name)
    try:
        response = cluster.request(
            "PATCH",
            url,
            {"fieldManager": FIELD_MANAGER},
            json.dumps(operations).encode(),
            {"content-type": "application/json-patch+json"},
        )
    except ClusterError as error:
        if error.status in (409, 422) and _has_changed(cluster, api):
            raise ClusterError(
                f"{api.kind} {api.name} was changed by another writer meanwhile; read it and run the command again",
                status=409,
            ) from error
        raise
    return int(json.loads(response.body)["metadata"]["generation"])


def retry_candidate(cluster: Cluster, api: API, time: str) -> None:
    """Start the candidate of an API anew. time: when, the new value of the annotation. Raises ClusterError."""
    change = {"metadata": {"annotations": {RETRY_ANNOTATION: time}}}
    cluster.request(
        "PATCH",
        path(apis.resource(api.kind), api.namespace, api.name),
        {"fieldManager": FIELD_MANAGER},
        json.dumps(change).encode(),
        {"content-type": "application/merge-patch+json"},
    )


def _has_changed(cluster: Cluster, api: API) -> bool:
    now = cluster.get(path(apis.resource(api.kind), api.namespace, api.name))["metadata"]
    before = api.live["metadata"]
    return (now["uid"], now["generation"]) != (before["uid"], before["generation"])


def manifest(api: API, spec: Object) -> Object:
    """Return the manifest of an API with another spec, as it belongs into Git: without what the cluster and tools add."""
    metadata = api.live["metadata"]
    kept: Object = {"name": api.name, "namespace": api.namespace}
    for field in ("labels", "annotations"):
        values = {k: v for k, v in (metadata.get(field) or {}).items() if not k.startswith(_TOOLS_OWN)}
        if values:
            kept[field] = values
    return {"apiVersion": api.live["apiVersion"], "kind": api.kind, "metadata": kept, "spec": spec}


def git_tool(api: API) -> str | None:
    """Return the tool that applies an API from Git, or None."""
    metadata = api.live["metadata"]
    marks = {*(metadata.get("labels") or ()), *(metadata.get("annotations") or ())}
    for tool, names in _GIT_MARKS.items():
        if marks & set(names):
            return tool
    managers = {entry.get("manager") for entry in metadata.get("managedFields") or ()}
    return next((tool for manager, tool in _GIT_MANAGERS.items() if manager in managers), None)


def candidate_of(api: API) -> Object:
    """Return spec.candidate. Raises ClusterError if there is none."""
    candidate: Object | None = api.live["spec"].get("candidate")
    if candidate is None:
        raise ClusterError(f"{api.kind} {api.name} has no candidate")
    return candidate


def without_candidate(spec: Object) -> Object:
    """Return a spec whose stable version answers all requests."""
    return {field: value for field, value in spec.items() if field != "candidate"}


def revisions(cluster: Cluster, api: API) -> list[Revision]:
    """Return the revisions of an API, newest first. Raises ClusterError."""
    found = cluster.list("apps/v1/controllerrevisions", api.namespace, labelSelector=api.selector)
    result = [
        Revision(
            int(each["revision"]),
            str(each["metadata"]["name"]),
            str((each["metadata"].get("annotations") or {}).get(CHANGED_AT_ANNOTATION, "")),
            (each.get("data") or {}).get("spec") or {},
        )
        for each in found
    ]
    return sorted(result, key=lambda revision: (revision.number, revision.changed_at), reverse=True)


def is_current(api: API, revision: Revision) -> bool:
    """Return whether an API has the spec of a revision now."""
    return revised(api.live["spec"]) == revision.spec


def changes(before: Any, after: Any, field: str = "") -> Iterator[str]:
    """Yield the fields that differ between two specs, such as `compute.cpu: 1 -> 2`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from changes(before.get(name), after.get(name), f"{field}.{name}" if field else name)
    elif before != after:
        yield f"{field}: {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    if value is None:
        return "(absent)"
    text = value if isinstance(value, str) else json.dumps(value)
    first = text.splitlines()[0] if text else '""'
    return first if len(text) <= _MAX_VALUE else f"{first[: _MAX_VALUE - 1]}…"
