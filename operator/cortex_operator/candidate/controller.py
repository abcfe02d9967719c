"""Bring the candidate of an API to what its spec asks for, and tell the stable replicas. The reconciler calls it.

A problem of a candidate is in `status.candidate` and never affects the stable version.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.candidate import Rollback, candidate_api
from cortex_api.contract import (
    API,
    CANDIDATE,
    TEMPLATE_LABEL,
    object_name,
    split_name,
)
from cortex_operator.candidate import phase
from cortex_operator.candidate.delivery import SplitDelivery
from cortex_operator.candidate.monitor import CandidateMonitor
from cortex_operator.candidate.phase import Seen
from cortex_operator.capabilities import Capabilities
from cortex_operator.cluster import Cluster
from cortex_operator.kinds import CONFIG_MAP
from cortex_operator.plan import is_owned, name_taken
from cortex_operator.platform import Platform
from cortex_operator.render import candidate as rendering
from cortex_operator.render import deployment as deployment_rendering
from cortex_operator.replicas.poller import ReplicaPoller
from cortex_operator.sources import find_source
from cortex_operator.status.conditions import Component, Observed, Problem, assess
from cortex_operator.status.status import component_of
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]
log = logging.getLogger("cortex.candidate")


@dataclass(frozen=True)
class Release:
    """The candidate of an API in one reconciliation.

    children: its objects and the split, to be applied. status: `status.candidate`; None without a candidate. is_blocked: whether
    it cannot be rendered, so that its existing objects stay. retry_after: seconds after which the candidate must be reconciled
    again. refused: why the cluster refused an object of it.
    """

    api: RealtimeAPI | AsyncAPI
    children: list[Object] = field(default_factory=list)
    status: Object | None = None
    seen: Seen | None = None
    previous: Object = field(default_factory=dict)
    is_blocked: bool = False
    retry_after: float | None = None
    refused: Problem | None = None

    @property
    def is_serving(self) -> bool:
        """Whether the candidate receives requests."""
        return self.status is not None and self.status["phase"] == phase.SERVING

    @property
    def is_new_rollback(self) -> bool:
        """Whether this reconciliation decided to roll the candidate back, so that the status must be written first."""
        if self.status is None or self.status["phase"] != phase.ROLLED_BACK:
            return False
        return self.previous.get("phase") != phase.ROLLED_BACK

    def keeps(self, child: Object) -> bool:
        """Return whether an object that is not rendered stays. Without the split, the stable version answers all requests."""
        if not self.is_blocked:
            return False
        return rendering.is_of_candidate(child) or (
            self.is_serving and is_split(child, self.api.metadata.name)
        )

    def with_refused(self, child: Object, problem: Problem) -> "Release":
        """Return the release after the cluster refused an object of the candidate.

        A candidate that starts to serve still does, unless the object is the split: requests reach it, so it must be possible to
        roll it back.
        """
        assert isinstance(self.api, RealtimeAPI)
        assert self.seen is not None
        assert self.status is not None
        seen = replace(self.seen, problem=problem)
        starts = self.is_serving and not is_split(child, self.api.metadata.name)
        status = phase.decide(self.api, self.status if starts else self.previous, seen)
        return replace(self, seen=seen, status=status, refused=problem)


class CandidateController:
    """Prepares the candidates of all APIs, and tells stable replicas about them."""

    def __init__(
        self,
        cache: Cache,
        cluster: Cluster,
        platform: Platform,
        capabilities: Capabilities,
        replicas: ReplicaPoller,
        monitor: CandidateMonitor,
        clock: Callable[[], float],
    ) -> None:
        """clock: returns monotonic seconds."""
        self._cache = cache
        self._cluster = cluster
        self._platform = platform
        self._capabilities = capabilities
        self._replicas = replicas
        self._monitor = monitor
        self._delivery = SplitDelivery(cache, cluster, monitor.client, clock)

    def forget(self, key: Key) -> None:
        """Drop the state of an API that is deleted."""
        self._monitor.forget(key)
        self._delivery.forget(key)

    async def prepare(self, key: Key, api: RealtimeAPI | AsyncAPI, live: Object) -> Release:
        """Return the candidate of an API: its objects, and its status as far as it is known before they are applied."""
        if not isinstance(api, RealtimeAPI) or api.spec.candidate is None:
            self._monitor.forget(key)
            return Release(api)
        candidate = candidate_api(api)
        source = await find_source(self._cache, self._cluster, key, candidate)
        if isinstance(source, Problem):
            return self._blocked(key, api, live, source)
        rendered = rendering.render(api, candidate, self._platform, source, self._capabilities)
        if problem := self._taken(key, api, rendered.children):
            return self._blocked(key, api, live, problem)
        return await self._prepare(key, api, live, rendered)

    async def _prepare(
        self, key: Key, api: RealtimeAPI, live: Object, rendered: rendering.RenderedCandidate
    ) -> Release:
        assert api.spec.candidate is not None
        component = self._component(key, rendered.children)
        assessment = None
        if component.deployment is not None:
            assessment = assess(rendered.api, Observed(main=component))
        previous = phase.before(live, rendered.version)
        recent = self._monitor.recent(key, rendered.version)
        seen = Seen(rendered.version, component, assessment, recent=recent)
        retry_after = None
        if previous.get("phase") not in (phase.SERVING, phase.ROLLED_BACK) and phase.is_startable(seen):
            stable = self._stable(key)
            found = await self._monitor.compare_interfaces(stable, component)
            if isinstance(found, Problem):
                seen = replace(seen, problem=found)
            else:
                seen = replace(seen, is_accepted=found)
                retry_after = None if found else 1.0
        status = phase.decide(api, previous, seen)
        is_serving = status["phase"] == phase.SERVING
        if is_serving:
            self._monitor.watch(key, rendered.version, api.spec.candidate.rollback)
            if _share(status) > _share(previous):
                await self._scale_out(key, api, rendered.api, component.deployment)
        else:
            self._monitor.forget(key)
        service = self._cache.child(key, "Service", object_name(key.name, CANDIDATE))
        address = (service or {}).get("spec", {}).get("clusterIP")
        if address is None and is_serving:
            retry_after = 0.5  # The Service was deleted; the next call has the address of the new one.
        host = address or f"{object_name(key.name, CANDIDATE)}.{key.namespace}.svc"
        split = rendering.split(api, rendered, host, is_serving, self._platform.lease_namespace)
        return Release(api, [*rendered.children, split], status, seen, previous, retry_after=retry_after)

    async def _scale_out(
        self, key: Key, api: RealtimeAPI, candidate: RealtimeAPI, deployment: Object | None
    ) -> None:
        """Give an autoscaled candidate the replicas for a larger share at once: its autoscaler follows the load only later, and a
        candidate that is overloaded meanwhile would be rolled back."""
        if deployment is None or deployment_rendering.fixed_replicas(candidate) is not None:
            return
        stable = self._cache.child(key, "Deployment", object_name(key.name)) or {}
        wanted = rendering.initial_replicas(api, candidate, stable.get("spec", {}).get("replicas", 1))
        if deployment["spec"].get("replicas", 1) < wanted:
            await self._cluster.scale(deployment, wanted)

    def _blocked(self, key: Key, api: RealtimeAPI, live: Object, problem: Problem) -> Release:
        """Return the release of a candidate that cannot be rendered. Its existing objects stay as they are, and it continues to
        serve unless it exceeds a threshold."""
        assert api.spec.candidate is not None
        previous = (live.get("status") or {}).get("candidate") or {}
        version = previous.get("version", "")
        seen = Seen(version, problem=problem, recent=self._monitor.recent(key, version))
        status = phase.decide(api, previous, seen)
        if status["phase"] == phase.SERVING:
            self._monitor.watch(key, version, api.spec.candidate.rollback)
        else:
            self._monitor.forget(key)
        return Release(api, [], status, seen, previous, is_blocked=True)

    def proceed(self, key: Key, live: Object) -> Object | None:
        """Return `status.candidate` of an API whose spec cannot be applied; None without a candidate.

        A candidate that serves still does, unless it exceeds a threshold: with the rules of the spec, if they are valid.
        """
        previous: Object | None = (live.get("status") or {}).get("candidate")
        if previous is None:
            return None
        version = previous["version"]
        deployment = self._cache.child(key, "Deployment", object_name(key.name, CANDIDATE))
        component = Component(deployment, self._pods(key, CANDIDATE), self._replicas.reports(key))
        rules = rollback_rules(live["spec"])
        status = phase.proceed(previous, key.name, rules, component, self._monitor.recent(key, version))
        if status["phase"] == phase.SERVING:
            self._monitor.watch(key, version, rules)
        else:
            self._monitor.forget(key)
        return status

    async def take_requests(self, key: Key) -> None:
        """Let the stable version answer all requests, although the spec cannot be applied. Without the split, it does.

        Raises ApiException.
        """
        split = self._cache.child(key, "ConfigMap", split_name(key.name))
        if split is not None and rendering.forwards(split):
            await self._cluster.delete({**split, "apiVersion": CONFIG_MAP.api_version})
            split = None
        await self._delivery.deliver(key, split)

    def _taken(self, key: Key, api: RealtimeAPI, children: list[Object]) -> Problem | None:
        """Return the problem that an object of the candidate has the name of another owner's object."""
        names = [(child["kind"], child["metadata"]["name"]) for child in children]
        for kind, name in (*names, ("ConfigMap", split_name(key.name))):
            other = self._cache.child(key, kind, name)
            if other is not None and not is_owned(other, api):
                return name_taken(other)
        return None

    def _component(self, key: Key, children: list[Object]) -> Component:
        """Return the Deployment of the candidate with its pods; without the Deployment while it has another template."""
        rendered = next(child for child in children if child["kind"] == "Deployment")
        deployment = self._cache.child(key, "Deployment", rendered["metadata"]["name"])
        if deployment is not None and _template(deployment) != _template(rendered):
            deployment = None
        return Component(deployment, self._pods(key, CANDIDATE), self._replicas.reports(key))

    def _stable(self, key: Key) -> Component:
        deployment = self._cache.child(key, "Deployment", object_name(key.name))
        return Component(deployment, self._pods(key, API), self._replicas.reports(key))

    def _pods(self, key: Key, component: str) -> list[Object]:
        return [pod for pod in self._cache.children(key, "Pod") if component_of(pod) == component]

    async def deliver(self, key: Key, split: Object | None) -> None:
        """Make the stable replicas use a split: as it was applied; None if it does not exist. Raises ApiException."""
        await self._delivery.deliver(key, split)

    def seconds_until_check(self, key: Key) -> float | None:
        """Return the seconds after which the API must be reconciled again, to check that its replicas use the split, or None."""
        return self._delivery.seconds_until_check(key)


def rollback_rules(spec: Object) -> Rollback:
    """Return `candidate.rollback` of a spec that may be invalid, or the defaults if it is."""
    try:
        return Rollback.model_validate(spec["candidate"].get("rollback") or {})
    except (KeyError, TypeError, AttributeError, ValidationError):
        return Rollback()


def belongs_to_candidate(child: Object, api: str) -> bool:
    """Return whether an object of an API exists for its candidate: an object of it, or the split."""
    return rendering.is_of_candidate(child) or is_split(child, api)


def is_split(child: Object, api: str) -> bool:
    """Return whether an object is the ConfigMap with the split of an API."""
    return bool(child["kind"] == "ConfigMap" and child["metadata"]["name"] == split_name(api))


def _share(status: Object) -> int:
    """Return the percentage of requests that a candidate with a status receives."""
    return int(status.get("weight", 0)) + int(status.get("mirror", 0))


def _template(deployment: Object) -> Any:
    return deployment["spec"]["template"]["metadata"]["labels"].get(TEMPLATE_LABEL)
