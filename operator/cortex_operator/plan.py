"""What one reconciliation must do, as a value. Pure: the reconciler reads the inputs, and executes the plan."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse
from cortex_api.contract import TEMPLATE_LABEL, split_name
from cortex_operator.cluster import error_text
from cortex_operator.kinds import ROUTE_KINDS, ObjectKind
from cortex_operator.platform import Platform
from cortex_operator.render import route
from cortex_operator.render.candidate import is_of_candidate
from cortex_operator.status.conditions import Problem
from cortex_operator.watch.cache import Key

Object = dict[str, Any]
API = RealtimeAPI | AsyncAPI


@dataclass(frozen=True)
class Plan:
    """apply: each rendered object with the live object of its name (None: it must be created), in the order in which they are
    applied. delete: live objects that are no longer rendered. problem: what to report although all of this is done.
    """

    api: API
    apply: list[tuple[Object, Object | None]]
    delete: list[Object]
    problem: Problem | None = None

    @property
    def routes(self) -> list[Object]:
        """The rendered HTTPRoute or Ingress, then the GRPCRoute."""
        return [child for child, _ in self.apply if child["kind"] in ROUTE_KINDS]


def parse_api(live: Object, platform: Platform) -> API | Problem:
    """Parse a resource, or return why this operator cannot serve it."""
    try:
        api = parse(live)
    except InvalidManifest as error:
        return Problem("InvalidSpec", str(error))
    if isinstance(api, AsyncAPI) and platform.queue is None:
        return Problem(
            "NoQueue", "this cluster has no queue for AsyncAPIs: set queue.url in the values of the chart"
        )
    return api


def make_plan(
    api: API,
    platform: Platform,
    children: Sequence[Object],
    existing: Sequence[Object | None],
    owned: Iterable[tuple[ObjectKind, Object]],
    endpoint_owner: Key | None,
) -> Plan | Problem:
    """Return the plan for an API, or why its objects must not be touched.

    children: the rendered objects. existing: the cached object of the name of each. owned: the API's live objects of the kinds
    that may be pruned. endpoint_owner: an older API with the same endpoint; None where the endpoint is this API's.
    """
    for other in existing:
        if other is not None and not is_owned(other, api):
            return name_taken(other)
    rendered = {(child["kind"], child["metadata"]["name"]) for child in children}
    split = split_name(api.metadata.name)
    rolling_out = {
        is_of_candidate(child)
        for child, live in zip(children, existing, strict=True)
        if child["kind"] == "Deployment" and not is_rolled_out(child, live)
    }
    delete = [
        {**child, "apiVersion": kind.api_version}
        for kind, child in owned
        if (kind.kind, child["metadata"]["name"]) not in rendered
        and not (
            kind.kind == "ConfigMap"
            and is_of_candidate(child) in rolling_out
            and child["metadata"]["name"] != split
        )
    ]
    return Plan(
        api,
        apply=list(zip(children, existing, strict=True)),
        delete=delete,
        problem=None if endpoint_owner is None else endpoint_taken(api, platform, endpoint_owner),
    )


def is_rolled_out(rendered: Object, live: Object | None) -> bool:
    """Return whether all pods of a Deployment have the rendered template and are available, so that no pod of an earlier template
    can start. A pod that was deleted a moment ago is not counted, although its ReplicaSet replaces it.
    """
    if live is None:
        return False
    label, earlier = (
        deployment["spec"]["template"]["metadata"]["labels"].get(TEMPLATE_LABEL)
        for deployment in (rendered, live)
    )
    status, wanted = live.get("status", {}), live["spec"].get("replicas", 1)
    return (
        label == earlier
        and status.get("observedGeneration") == live["metadata"].get("generation")
        and all(
            status.get(count, 0) == wanted for count in ("replicas", "updatedReplicas", "availableReplicas")
        )
    )


def name_taken(other: Object) -> Problem:
    """Return the problem of an API whose object has the name of an object that it does not own."""
    kind = other["kind"]
    text = f"{kind} {other['metadata']['name']} exists and is not owned by this API: rename the API, or delete the {kind}"
    return Problem("NameTaken", text)


def endpoint_taken(api: API, platform: Platform, owner: Key) -> Problem:
    """Return the problem of an API whose endpoint belongs to an older API."""
    text = (
        f"endpoint {route.endpoint(api)} belongs to {owner}, which is older: set another networking.endpoint."
        f" Inside the cluster the API is at {route.best_url(api, platform, routed=False)}"
    )
    return Problem("EndpointTaken", text)


def refused_by_cluster(child: Object, error: ApiException) -> Problem | None:
    """Return the problem that an apply failed with; None for an error that a retry may solve."""
    if error.status >= 500 or error.status in (0, 409, 429):
        return None
    text = f"the cluster refuses {child['kind']} {child['metadata']['name']}: {error_text(error)}"
    return Problem(f"{child['kind']}Refused", text)


def is_http(child: Object) -> bool:
    """Return whether a route is for HTTP, so that `status.url` depends on it."""
    return child["kind"] != "GRPCRoute"


def route_problem(live_route: Object | None) -> Problem | None:
    """Return why the Gateway does not accept a route; None while it does, or before it has reported."""
    if live_route is None:
        return None
    for parent in live_route.get("status", {}).get("parents", ()):
        for condition in parent.get("conditions", ()):
            if condition["type"] in ("Accepted", "ResolvedRefs") and condition["status"] == "False":
                name = f"{live_route['kind']} {live_route['metadata']['name']}"
                # Some controllers write only a reason.
                explanation = ": ".join(filter(None, (condition["reason"], condition["message"])))
                return Problem("RouteNotAccepted", f"the Gateway does not accept {name}: {explanation}")
    return None


def is_owned(live: Object, api: API) -> bool:
    """Return whether an API owns a live object."""
    return any(owner["uid"] == api.metadata.uid for owner in live["metadata"].get("ownerReferences", ()))
