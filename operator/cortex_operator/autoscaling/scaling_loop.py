"""The loop of the autoscaler: poll the load of pods, decide, and scale through the scale subresource.

It depends on nothing in the cluster but the pods. While the operator is down nothing is scaled, and pods keep serving.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse
from cortex_api.candidate import candidate_api
from cortex_api.contract import API, CANDIDATE, GATEWAY, LOAD_PATH, QUEUE_PATH, object_name
from cortex_operator.autoscaling.autoscaler import (
    Decision,
    ObservedQueue,
    ObservedScaling,
    Rules,
    State,
    decide,
)
from cortex_operator.cluster import Cluster, error_text
from cortex_operator.replicas.pod_client import PodClient
from cortex_operator.replicas.poller import ReplicaPoller
from cortex_operator.status import failures
from cortex_operator.status.failures import is_ready
from cortex_operator.status.status import component_of
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]
log = logging.getLogger("cortex.scaler")

PERIOD = 10.0
"""Seconds between two decisions, as in Cortex."""


@dataclass(frozen=True)
class _Target:
    """A Deployment that is scaled: the one that runs the handler of an API, or that of its candidate."""

    key: Key
    is_candidate: bool = False

    @property
    def name(self) -> str:
        """The name of the Deployment."""
        return object_name(self.key.name, CANDIDATE if self.is_candidate else API)

    def __str__(self) -> str:
        return f"the candidate of {self.key}" if self.is_candidate else str(self.key)


class Scaler:
    """Scales every API with `targetInFlight`, and observes the queues of AsyncAPIs.

    on_change: called with an API whose status must be updated.
    """

    def __init__(
        self,
        cache: Cache,
        cluster: Cluster,
        on_change: Callable[[Key], None],
        replicas: ReplicaPoller | None = None,
        client: PodClient | None = None,
    ) -> None:
        self._cache = cache
        self._cluster = cluster
        self._on_change = on_change
        self._watched: dict[_Target, ObservedScaling] = {}
        self._client = client or PodClient()
        self._replicas = replicas or ReplicaPoller(cache, on_change, self._client)

    def observed(self, key: Key) -> ObservedScaling | None:
        """Return the state of an API; None when this loop does not observe it."""
        return self._watched.get(_Target(key))

    async def run(self) -> None:
        """Evaluate all APIs every PERIOD, until cancelled."""
        while True:
            begun = time.monotonic()
            await self._evaluate_all()
            await asyncio.sleep(max(1.0, begun + PERIOD - time.monotonic()))

    async def _evaluate_all(self) -> None:
        observed = {key for key in self._cache.apis() if self._is_observed(key)}
        for gone in [target for target in self._watched if target.key not in observed]:
            del self._watched[gone]
        await asyncio.gather(*(self._evaluate(key) for key in observed))

    def _is_observed(self, key: Key) -> bool:
        """Return whether this loop may have something to do for an API."""
        if key in self._cache.managed_elsewhere:
            return False
        live = self._cache.api(key)
        if live is None or key.kind == "AsyncAPI":
            return live is not None
        specs = (live["spec"], live["spec"].get("candidate") or {})
        return any("targetInFlight" in (spec.get("autoscaling") or ()) for spec in specs)

    async def _evaluate(self, key: Key) -> None:
        live = self._cache.api(key)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return
        try:
            api = parse(live)
        except InvalidManifest:
            return
        await self._evaluate_target(_Target(key), api)
        if isinstance(api, RealtimeAPI) and api.spec.candidate is not None:
            await self._evaluate_target(_Target(key, is_candidate=True), candidate_api(api))
        else:
            self._watched.pop(_Target(key, is_candidate=True), None)

    async def _evaluate_target(self, target: _Target, api: RealtimeAPI | AsyncAPI) -> None:
        """Evaluate one Deployment. api: for a candidate, the candidate as an API of its own."""
        deployment = self._cache.child(target.key, "Deployment", target.name)
        if deployment is None:
            return
        scaling = api.spec.autoscaling
        scales = scaling is not None and scaling.target_in_flight is not None and not api.spec.paused
        if not scales and not isinstance(api, AsyncAPI):
            self._watched.pop(target, None)
            return
        watched = self._watched.setdefault(target, ObservedScaling(State(time.monotonic())))
        try:
            load = await self._load(target, api, watched)
            if scales:
                await self._scale(target, api, deployment, watched, load)
        except ApiException as error:
            log.warning("%s cannot be scaled: %s", target, error_text(error))
        except Exception:  # A failure of one API must not affect the others.
            log.exception("%s cannot be scaled", target)

    def _pods(self, target: _Target) -> list[Object]:
        """Return the pods of a Deployment; for an AsyncAPI, those of its gateway as well."""
        return [
            pod
            for pod in self._cache.children(target.key, "Pod")
            if (component_of(pod) == CANDIDATE) == target.is_candidate
        ]

    async def _load(
        self, target: _Target, api: RealtimeAPI | AsyncAPI, watched: ObservedScaling
    ) -> float | None:
        """Return the load of a Deployment; None when fewer than half of its pods report it.

        A request that a stable replica forwards to the candidate is part of the candidate's load alone.
        """
        pods = [pod for pod in self._pods(target) if is_ready(pod)]
        if isinstance(api, AsyncAPI):
            return await self._queue_load(target.key, pods, watched)
        answers = await asyncio.gather(*(self._replica_load(target.key, pod) for pod in pods))
        loads = {
            pod["metadata"]["name"]: load for pod, load in zip(pods, answers, strict=True) if load is not None
        }
        if pods and 2 * len(loads) < len(pods):
            return None
        silent = {pod["metadata"]["name"] for pod in pods} - loads.keys()
        watched.last_loads = loads | {name: watched.last_loads.get(name, 0.0) for name in silent}
        return sum(watched.last_loads.values())

    async def _replica_load(self, key: Key, pod: Object) -> float | None:
        report = await self._replicas.poll(key, pod)
        if report is None or report.load is not None:
            return None if report is None else report.load
        # The reports of older runtimes have no load.
        answer = await self._client.get(pod, LOAD_PATH)
        found = answer[1] if answer is not None and isinstance(answer[1], dict) else {}
        load = found.get("average", found.get("inFlight"))
        return float(load) if isinstance(load, int | float) else None

    async def _queue_load(self, key: Key, pods: list[Object], watched: ObservedScaling) -> float | None:
        """Return the number of queued and running jobs, from the first gateway that responds."""
        for pod in pods:
            if component_of(pod) != GATEWAY:
                continue
            status, answer = await self._client.get(pod, QUEUE_PATH) or (0, None)
            if not isinstance(answer, dict):
                continue
            if status == 503:
                self._note_queue_problem(key, watched, str(answer.get("message", "no reason given"))[:1000])
                return None
            try:
                age, counts = answer["oldest_seconds"], (int(answer["queued"]), int(answer["in_flight"]))
                oldest = None if age is None else round(time.time() - age)
            except (KeyError, TypeError, ValueError):
                continue
            self._note_queue_problem(key, watched, "")
            self._note_queue(key, watched, ObservedQueue(*counts, oldest))
            return float(sum(counts))
        return None

    def _note_queue_problem(self, key: Key, watched: ObservedScaling, problem: str) -> None:
        if watched.queue_problem != problem:
            watched.queue_problem = problem
            self._on_change(key)

    def _note_queue(self, key: Key, watched: ObservedScaling, queue: ObservedQueue) -> None:
        before = watched.queue
        known = before.oldest if before is not None else None
        if known is not None and queue.oldest is not None and abs(known - queue.oldest) <= 2:
            queue.oldest = known  # The same job: its age is rounded to seconds.
        if before != queue:
            watched.queue = queue
            self._on_change(key)

    async def _scale(
        self,
        target: _Target,
        api: RealtimeAPI | AsyncAPI,
        deployment: Object,
        watched: ObservedScaling,
        load: float | None,
    ) -> None:
        assert api.spec.autoscaling is not None
        rules = Rules.of(api.spec.autoscaling)
        current = deployment["spec"].get("replicas", 1)
        if load is None:
            why = (
                "no gateway responds"
                if isinstance(api, AsyncAPI)
                else "fewer than half of the pods report their load"
            )
            watched.no_metrics_since = watched.no_metrics_since or datetime.now(UTC)
            self._explain(target, watched, f"held at {current}: {why}", current)
            return
        watched.no_metrics_since = None
        pods = self._pods(target)
        blocked = any(f.reason == "Unschedulable" for f in map(failures.of_pod, pods) if f is not None)
        now = time.monotonic()
        watched.state, decision = decide(rules, watched.state, now, current, load, scale_in=not blocked)
        if decision.replicas != current:
            await self._cluster.scale(
                {"metadata": {"name": target.name, "namespace": target.key.namespace}}, decision.replicas
            )
            log.info("%s: %s", target, _describe(api, current, decision))
            self._explain(target, watched, _describe(api, current, decision), decision.replicas)
        elif decision.hold_reason is not None:
            self._explain(target, watched, f"held at {current}: {decision.hold_reason}", current)
        elif watched.explanation.startswith("held") or watched.desired is None:
            self._explain(target, watched, "no change needed", current)

    def _explain(self, target: _Target, watched: ObservedScaling, explanation: str, desired: int) -> None:
        if (watched.explanation, watched.desired) != (explanation, desired):
            watched.explanation, watched.desired = explanation, desired
            self._on_change(target.key)


def _describe(api: RealtimeAPI | AsyncAPI, current: int, decision: Decision) -> str:
    scaling = api.spec.autoscaling
    assert scaling is not None
    unit = "in-flight requests" if isinstance(api, RealtimeAPI) else "queued or running jobs"
    average = f"{decision.load:.1f} {unit} on average over {scaling.window}"
    return (
        f"from {current} to {decision.replicas}: {average}, target {scaling.target_in_flight:g} per replica"
    )
