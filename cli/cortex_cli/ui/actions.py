"""Changes that the page offers. Each is shown before it is made, and made with the permissions of the user."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cortex_api import GROUP, KINDS
from cortex_api.candidate import promoted
from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, Object, path
from cortex_cli.platform_checks import review_access
from cortex_cli.releases import change, git_tool, retry_candidate, without_candidate

_MAX_REPLICAS = 1000


@dataclass(frozen=True)
class Action:
    """A change of an API. question: what it does, with its consequence. command: the equivalent command.

    spec: returns the new spec; None for `cortex retry`, which changes no spec.
    """

    name: str
    title: str
    question: str
    command: str
    spec: Callable[[Object, str], Object] | None
    is_dangerous: bool = False
    value: str = ""
    """Label of a number that the reader enters, or ""."""


def actions_of(api: API) -> list[Action]:
    """Return the changes that make sense for an API in its state."""
    resource = f"{KINDS[api.kind].plural[:-1]}/{api.name} -n {api.namespace}"
    spec = api.live["spec"]
    found = []
    if spec.get("candidate") is not None:
        if (api.status.get("candidate") or {}).get("phase") in ("RolledBack", "Failed"):
            found.append(
                Action(
                    "retry",
                    "Retry candidate",
                    "The candidate starts anew: its pods are replaced, and it gets its share of the requests again.",
                    f"cortex retry {api.name} -n {api.namespace}",
                    None,
                )
            )
        found += [
            Action(
                "promote",
                "Promote candidate",
                "The candidate becomes the stable version, by a rolling update of the pods.",
                f"cortex promote {api.name} -n {api.namespace}",
                lambda spec, _: dict(promoted({**api.live, "spec": spec})["spec"]),
            ),
            Action(
                "abort",
                "Abort candidate",
                "The candidate is removed. The stable version answers all requests.",
                f"cortex abort {api.name} -n {api.namespace}",
                lambda spec, _: without_candidate(spec),
                is_dangerous=True,
            ),
        ]
    if spec.get("autoscaling") is None and not spec.get("paused"):
        found.append(
            Action(
                "scale",
                "Scale",
                "Set the number of replicas.",
                f"kubectl scale {resource} --replicas=NUMBER",
                lambda spec, value: {**spec, "replicas": _replicas(value)},
                value="Replicas",
            )
        )
    if spec.get("paused"):
        found.append(
            Action(
                "resume",
                "Resume",
                "The pods are created again.",
                f'kubectl patch {resource} --type merge -p \'{{"spec": {{"paused": false}}}}\'',
                lambda spec, _: {**spec, "paused": False},
            )
        )
    else:
        found.append(
            Action(
                "pause",
                "Pause",
                "All pods are deleted, and requests fail until the API is resumed.",
                f'kubectl patch {resource} --type merge -p \'{{"spec": {{"paused": true}}}}\'',
                lambda spec, _: {**spec, "paused": True},
                is_dangerous=True,
            )
        )
    return found


def perform(cluster: Cluster, api: API, action: Action, value: str) -> None:
    """Make a change, unless the resource has changed since `api` was read. Raises ClusterError."""
    if action.spec is None:
        retry_candidate(cluster, api, datetime.now(UTC).isoformat(timespec="milliseconds"))
        return
    spec = action.spec(api.live["spec"], value)
    change(cluster, api, spec, action.command, print_only=False, force=True)


def read(cluster: Cluster, api: API) -> API:
    """Return the current state of an API, with the field managers. Raises ClusterError."""
    return API(cluster.get(path(apis.resource(api.kind), api.namespace, api.name)))


def warning(api: API) -> str:
    """Return what the reader should know before any change, or "". api: with its field managers."""
    tool = git_tool(api)
    return f"{tool} manages this API and will revert the change at its next sync." if tool else ""


def may(cluster: Cluster, api: API) -> bool:
    """Return whether the user may change an API. True if the API server does not answer access reviews: it then decides later."""
    attributes = {
        "namespace": api.namespace,
        "verb": "patch",
        "group": GROUP,
        "resource": KINDS[api.kind].plural,
        "name": api.name,
    }
    return review_access(cluster, attributes) is not False


def _replicas(value: str) -> int:
    if not value.isdecimal() or int(value) > _MAX_REPLICAS:
        raise ClusterError(
            f"the number of replicas must be a whole number from 0 to {_MAX_REPLICAS}; got {value!r}"
        )
    return int(value)
