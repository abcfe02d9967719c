"""The reconciliation: what is wanted of one API against what there is.

Level-triggered: it may be called at any time, any number of times, and asks not what happened but how things are.

    read the resource → render its children → apply those that differ → delete those that are no longer rendered → report
"""

import asyncio
import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse
from cortex_api.contract import DESTROY, GATEWAY, object_name
from cortex_operator.apply.applier import Applied, Applier
from cortex_operator.autoscaling.scaling_loop import Scaler
from cortex_operator.capabilities import Capabilities
from cortex_operator.cluster import Cluster, ends_namespace, said
from cortex_operator.kinds import CONFIG_MAP, OPTIONAL_KINDS, ROUTE_KINDS, ChildKind, child_kinds
from cortex_operator.leadership.other_operators import Standby
from cortex_operator.platform import Platform
from cortex_operator.queue_deletion import Retention
from cortex_operator.render import render, route
from cortex_operator.render.names import child_name
from cortex_operator.replicas.replicas import Replicas
from cortex_operator.status import conditions, events, status
from cortex_operator.status.conditions import NAMESPACE_ENDS, Component, Observed, Problem, judge
from cortex_operator.status.status import component_of
from cortex_operator.watch.cache import Cache, Key, source_name

Object = dict[str, Any]
API = RealtimeAPI | AsyncAPI
log = logging.getLogger("cortex.reconcile")


class Reconciler:
    """Reconciles one API at a time, whichever it is given."""

    def __init__(
        self,
        cache: Cache,
        cluster: Cluster,
        platform: Platform,
        scaler: Scaler,
        capabilities: Capabilities | None = None,
        replicas: Replicas | None = None,
        again: Callable[[Key, float], None] = lambda key, seconds: None,
    ) -> None:
        """again: has an API reconciled once so many seconds have passed."""
        self._cache = cache
        self._cluster = cluster
        self._platform = platform
        self._scaler = scaler
        self._capabilities = capabilities
        self._replicas = replicas or Replicas(cache, lambda key: None)
        self._again = again
        self.standby = Standby(cache, cluster, platform)
        self._retention = Retention(cache, cluster, platform)
        self._pruned: list[ChildKind] = [k for k in (*child_kinds(platform), CONFIG_MAP) if k.may_be_pruned]
        self._applier = Applier(cache, cluster)
        self._reported: dict[Key, tuple[Object, Object]] = {}

    async def reconcile(self, key: Key) -> None:
        """Bring one API's children and status to what its resource says.

        Raises ApiException or Unfinished when not all of it could be done; then it is to be called again.
        """
        live = self._cache.api(key)
        if live is None:
            self._applier.forget(key)
            self._reported.pop(key, None)
            return  # Its children are garbage-collected.
        if await self.standby.leaves_alone(key):
            return
        if live["metadata"].get("deletionTimestamp"):
            problem, watched = await self._retention.delete_queue(key, live)
            if problem is not None:
                await self._refuse(key, live, problem)
                if not watched:
                    raise Unfinished(problem.message)
            return
        way_in = self._platform.gateway or self._platform.ingress
        first = self._cache.first_at_endpoint(key) if way_in else key
        rendered = await self._render(key, live, routed=first == key)
        live = self._cache.api(key) or live
        if isinstance(rendered, Problem):
            await self._refuse(key, live, rendered)
            if rendered.reason == "QueueTaken":
                raise Unfinished(rendered.message)  # That the other one goes is no event of this one's.
            return
        api, children = rendered
        live = await self._retention.ensure_finalizer(key, api, live)
        problem = None if first == key else self._endpoint_taken(api, first)
        unfinished = None
        found = await asyncio.gather(*(self._applier.find(key, child) for child in children))
        if taken := next((other for other in found if other is not None and not _is_owned(other, api)), None):
            what = f"{taken['kind']} {taken['metadata']['name']}"
            words = f"{what} exists and is not this API's: rename the API, or delete the {taken['kind']}"
            await self._refuse(key, live, Problem("NameTaken", words))
            return
        applied = Applied()
        for child, there in zip(children, found, strict=True):
            try:
                await self._applier.apply(key, api, child, there, applied)
            except ApiException as error:
                if ends_namespace(error):
                    await self._refuse(key, live, NAMESPACE_ENDS)
                    return
                if error.status >= 500 or error.status in (0, 409, 429):
                    raise
                words = f"the cluster refuses {child['kind']} {child['metadata']['name']}: {said(error)}"
                unfinished = Problem(f"{child['kind']}Refused", words)
                if child["kind"] not in OPTIONAL_KINDS:
                    await self._refuse(key, live, unfinished)
                    raise Unfinished(words) from error
        await self._prune(key, children)
        for reason, message in applied.events:
            await self._tell(events.warning(live, reason, message, _now()))
        observed = self._observe(key, api, children, problem or unfinished or applied.problem)
        verdict = judge(api, observed)
        if conditions.may_end(observed, live) and await self._cluster.ends(key.namespace):
            await self._refuse(key, live, NAMESPACE_ENDS)
            return
        await self._report(key, live, status.compute(api, live, observed, verdict))
        if applied.again is not None:
            self._again(key, applied.again)
        if verdict.until < math.inf:
            self._again(key, verdict.until + 1)
        if unfinished is not None:
            raise Unfinished(unfinished.message)

    async def _render(self, key: Key, live: Object, routed: bool) -> tuple[API, list[Object]] | Problem:
        try:
            api = parse(live)
        except InvalidManifest as error:
            return Problem("InvalidSpec", str(error))
        if isinstance(api, AsyncAPI) and self._platform.queue is None:
            return Problem(
                "NoQueue", "this cluster has no queue for AsyncAPIs: set queue.url in the values of the chart"
            )
        if isinstance(api, AsyncAPI):
            named = await self._retention.name_queue(key, api, live)
            if isinstance(named, Problem):
                return named
            api = named
        name = source_name(live)
        source = self._cache.source(key)
        if name and source is None:
            source = await self._cluster.get("v1", "ConfigMap", key.namespace, name)
            if source is None:
                message = f'ConfigMap "{name}" (handler.source.configMap) is not in namespace {key.namespace}: create it'
                return Problem("SourceUnavailable", message)
            self._cache.put_source(source)
        return api, render(api, self._platform, source, self._capabilities, routed)

    def _endpoint_taken(self, api: API, first: Key) -> Problem:
        text = (
            f"endpoint {route.endpoint(api)} belongs to {first}, which is older: set another networking.endpoint."
            f" Inside the cluster the API is at {route.best_url(api, self._platform, routed=False)}"
        )
        return Problem("EndpointTaken", text)

    async def _prune(self, key: Key, children: list[Object]) -> None:
        wanted = {(child["kind"], child["metadata"]["name"]) for child in children}
        for kind in self._pruned:
            for child in self._cache.children(key, kind.kind):
                if (kind.kind, child["metadata"]["name"]) not in wanted:
                    await self._cluster.delete({**child, "apiVersion": kind.api_version})

    def _observe(self, key: Key, api: API, children: list[Object], problem: Problem | None) -> Observed:
        main, front = self._components(key, child_name(api))
        way = next((child for child in children if child["kind"] in ROUTE_KINDS), None)
        routed = way is not None and (problem is None or problem.reason != f"{way['kind']}Refused")
        if way is not None and routed and problem is None:
            problem = _not_accepted(self._cache.child(key, way["kind"], way["metadata"]["name"]))
            routed = problem is None
        return Observed(
            url=route.best_url(api, self._platform, routed),
            main=main,
            gateway=front,
            hpa=self._cache.child(key, "HorizontalPodAutoscaler", child_name(api)),
            scaling=self._scaler.watched(key),
            problem=problem,
        )

    async def _refuse(self, key: Key, live: Object, problem: Problem) -> None:
        """Report an API whose children cannot be made, with what its pods do meanwhile."""
        main, front = self._components(key, object_name(key.name))
        await self._report(key, live, status.refused(live, problem, Observed(main=main, gateway=front)))

    def _components(self, key: Key, name: str) -> tuple[Component, Component | None]:
        """The component that runs the user's code, and the gateway of an AsyncAPI. name: of the first one's Deployment."""
        pods = self._cache.children(key, "Pod")
        said = self._replicas.reports(key)
        of_gateway = [pod for pod in pods if component_of(pod) == GATEWAY]
        main = Component(
            self._cache.child(key, "Deployment", name),
            [pod for pod in pods if component_of(pod) not in (GATEWAY, DESTROY)],
            said,
        )
        if key.kind != "AsyncAPI":
            return main, None
        return main, Component(self._cache.child(key, "Deployment", f"{name}-{GATEWAY}"), of_gateway, said)

    async def _report(self, key: Key, live: Object, wanted: Object) -> None:
        """Write the status if it says anything new, and tell of a new reason by an Event."""
        now = _now()
        for condition in wanted["conditions"]:
            condition["lastTransitionTime"] = condition["lastTransitionTime"] or now
        last = wanted.get("lastFailure")
        if last is not None and "recoveredAt" in last:
            wanted["lastFailure"] = {**last, "recoveredAt": last["recoveredAt"] or now}
        told = live.get("status") or {}
        if wanted == told or self._reported.get(key) == (wanted, told):
            return
        try:
            written = await self._cluster.write_status(live, wanted)
        except ApiException as error:
            if error.status == 404:
                return  # Deleted: the watch will tell.
            raise
        shown = written.get("status") or {}
        if wanted.keys() - shown.keys():
            lost = ", ".join(sorted(wanted.keys() - shown.keys()))
            log.warning(
                "the CRD of %s is older than this operator and drops status.%s: update it", key.kind, lost
            )
        self._reported[key] = (wanted, shown)
        self._cache.put_api(key, {**written, "apiVersion": live["apiVersion"], "kind": live["kind"]})
        if event := events.of_transition(live, told, wanted, now):
            await self._tell(event)

    async def _tell(self, event: Object) -> None:
        try:
            await self._cluster.create(event)
        except ApiException as error:
            if not ends_namespace(error):
                raise


class Unfinished(Exception):
    """Something could not be done, has been reported, and may be possible later."""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_owned(live: Object, api: API) -> bool:
    return any(owner["uid"] == api.metadata.uid for owner in live["metadata"].get("ownerReferences", ()))


def _not_accepted(way: Object | None) -> Problem | None:
    """Why the Gateway does not take a route; None while it does, or has not said."""
    for parent in (way or {}).get("status", {}).get("parents", ()):
        for condition in parent.get("conditions", ()):
            if condition["type"] in ("Accepted", "ResolvedRefs") and condition["status"] == "False":
                text = (
                    f"the Gateway does not take HTTPRoute {way['metadata']['name']}: {condition['message']}"  # type: ignore[index]
                )
                return Problem("RouteNotAccepted", text)
    return None
