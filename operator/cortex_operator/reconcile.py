"""Reconcile one API: bring its objects and its status to what its resource asks for.

It is level-triggered: it may be called at any time and any number of times, and compares states instead of following events.

    read the resource → render its objects → plan (plan.py) → apply and delete → observe → record the revision → report the status

The cache has the live objects, so an API in the wanted state costs no call to the API server.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, RealtimeAPI, development
from cortex_api.contract import CANDIDATE, DESTROY, GATEWAY, object_name
from cortex_operator.apply.applier import Applier, ApplyResult, NameTaken
from cortex_operator.autoscaling.scaling_loop import Scaler
from cortex_operator.candidate.controller import CandidateController, Release, belongs_to_candidate, is_split
from cortex_operator.candidate.monitor import CandidateMonitor
from cortex_operator.candidate.phase import ROLLED_BACK
from cortex_operator.capabilities import Capabilities
from cortex_operator.cluster import Cluster, is_namespace_terminating
from cortex_operator.kinds import CONFIG_MAP, OPTIONAL_KINDS, ObjectKind, child_kinds
from cortex_operator.leadership.other_operators import OtherOperators
from cortex_operator.plan import (
    Plan,
    is_http,
    make_plan,
    name_taken,
    parse_api,
    refused_by_cluster,
    route_problem,
)
from cortex_operator.platform import Platform
from cortex_operator.queue_lifecycle import QueueLifecycle
from cortex_operator.render import route
from cortex_operator.renderer import Renderer
from cortex_operator.replicas.poller import ReplicaPoller
from cortex_operator.revisions import Revisions
from cortex_operator.sources import find_source
from cortex_operator.status import conditions, status
from cortex_operator.status.conditions import NAMESPACE_TERMINATING, Component, Observed, Problem, assess
from cortex_operator.status.reporter import StatusReporter
from cortex_operator.status.status import component_of
from cortex_operator.watch.cache import Cache, Key

log = logging.getLogger("cortex.reconcile")

Object = dict[str, Any]
API = RealtimeAPI | AsyncAPI


class RetryLater(Exception):
    """Part of the work could not be done, has been reported, and may succeed later."""


class Rejected(Exception):
    """The objects of the API cannot be rendered or applied.

    retry: whether to try again on a schedule. False if a watch event reports when the cause is gone.
    """

    def __init__(self, problem: Problem, retry: bool = False) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.retry = retry


class Reconciler:
    """Reconciles APIs, one at each call."""

    def __init__(
        self,
        cache: Cache,
        cluster: Cluster,
        platform: Platform,
        scaler: Scaler,
        capabilities: Capabilities | None = None,
        replicas: ReplicaPoller | None = None,
        requeue_after: Callable[[Key, float], None] = lambda key, seconds: None,
        candidates: CandidateMonitor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """requeue_after: schedules another reconciliation of an API in a number of seconds. clock: returns monotonic seconds."""
        self._cache = cache
        self._cluster = cluster
        self._platform = platform
        self._scaler = scaler
        self._renderer = Renderer(platform, capabilities or Capabilities())
        self._replica_poller = replicas or ReplicaPoller(cache, lambda key: None)
        self._requeue_after = requeue_after
        self.other_operators = OtherOperators(cache, cluster, platform)
        self._queue_lifecycle = QueueLifecycle(cache, cluster, platform)
        self._prunable: list[ObjectKind] = [
            k for k in (*child_kinds(platform), CONFIG_MAP) if k.may_be_pruned
        ]
        self._applier = Applier(cache, cluster, clock)
        self._revisions = Revisions(cluster)
        self._reporter = StatusReporter(cache, cluster)
        self._candidates = CandidateController(
            cache,
            cluster,
            platform,
            capabilities or Capabilities(),
            self._replica_poller,
            candidates or CandidateMonitor(cache, lambda key: None),
            clock,
        )

    async def reconcile(self, key: Key) -> None:
        """Reconcile one API. Raises ApiException or RetryLater when it must be called again."""
        live = self._cache.api(key)
        if live is None:
            self._renderer.forget(key)
            self._applier.forget(key)
            self._revisions.forget(key)
            self._reporter.forget(key)
            self._candidates.forget(key)
            return  # Its objects are garbage-collected.
        if await self.other_operators.manages(key):
            return
        try:
            if live["metadata"].get("deletionTimestamp"):
                await self._delete(key, live)
            elif await self._expire(key, live):
                return
            else:
                await self._bring_up_to_date(key, live)
        except Rejected as rejected:
            await self._reject(key, self._latest(key, live), rejected.problem)
            if rejected.retry:
                raise RetryLater(rejected.problem.message) from rejected

    async def _reject(self, key: Key, live: Object, problem: Problem) -> None:
        """Report why the spec cannot be applied. What ran before continues, also the evaluation of a candidate that serves."""
        main, gateway = self._components(key)
        computed = status.compute_rejected(live, problem, Observed(main=main, gateway=gateway))
        candidate = self._candidates.proceed(key, live)
        if candidate is not None:
            computed["candidate"] = candidate
        await self._reporter.report(key, live, computed)
        if candidate is not None and candidate["phase"] == ROLLED_BACK:
            await self._candidates.take_requests(key)
            self._requeue(key, self._candidates.seconds_until_check(key))

    def _latest(self, key: Key, live: Object) -> Object:
        """Return the resource from the cache, which includes our own writes to it since `live` was read.

        Return `live` if the user has changed or replaced the resource meanwhile: the status of this call belongs to `live`, and
        the change causes another reconciliation.
        """
        latest = self._cache.api(key)
        if latest is None or any(
            latest["metadata"].get(field) != live["metadata"].get(field) for field in ("uid", "generation")
        ):
            return live
        return latest

    async def _expire(self, key: Key, live: Object) -> bool:
        """Delete a development copy that `cortex dev` has not renewed in time. Return whether it has expired."""
        expires = development.expires(key.name, live["metadata"].get("annotations") or {})
        if expires is None:
            return False
        seconds = (expires - datetime.now(UTC)).total_seconds()
        if seconds <= 0:
            log.info("%s: the development copy has expired and is deleted", key)
            await self._cluster.delete(live, only_unchanged=True)
        # After the expiry, or again if it was renewed in the last moment.
        self._requeue_after(key, max(seconds, 0.0) + 1)
        return seconds <= 0

    async def _delete(self, key: Key, live: Object) -> None:
        problem, is_watched = await self._queue_lifecycle.delete_queue(key, live)
        if problem is not None:
            raise Rejected(problem, retry=not is_watched)

    async def _bring_up_to_date(self, key: Key, live: Object) -> None:
        plan, release, live = await self._plan(key, live)
        if release.is_new_rollback:
            # First the decision, so that it is not lost if the operator ends before all replicas have stopped.
            status_so_far = {**(live.get("status") or {"conditions": []}), "candidate": release.status}
            await self._reporter.report(key, live, status_so_far)
            live = self._latest(key, live)
        result, refused, release = await self._execute(key, plan, release)
        for reason, message in result.events:
            await self._reporter.warn(live, reason, message)
        observed = self._observe(key, plan, plan.problem or refused or result.problem)
        assessment = assess(plan.api, observed)
        if conditions.may_be_terminating(observed, live) and await self._cluster.is_terminating(
            key.namespace
        ):
            raise Rejected(NAMESPACE_TERMINATING)
        computed = status.compute(plan.api, live, observed, assessment)
        if release.status is not None:
            computed["candidate"] = release.status
        retry_after = await self._revisions.record(plan.api, live, computed) if assessment.ready else None
        await self._reporter.report(key, live, computed)
        check = self._candidates.seconds_until_check(key)
        self._requeue(
            key, result.requeue_after, retry_after, release.retry_after, check, assessment.until + 1
        )
        for problem in (refused, release.refused):
            if problem is not None:
                raise RetryLater(problem.message)

    def _requeue(self, key: Key, *times: float | None) -> None:
        for seconds in times:
            if seconds is not None and seconds < math.inf:
                self._requeue_after(key, seconds)

    async def _plan(self, key: Key, live: Object) -> tuple[Plan, Release, Object]:
        """Return the plan for an API, its candidate, and its resource.

        An AsyncAPI first gets the name of its queue and its finalizer, so the returned resource can differ from `live`.
        Raises Rejected.
        """
        has_routes = self._platform.gateway or self._platform.ingress
        endpoint_owner = self._cache.first_at_endpoint(key) if has_routes else key
        api = _require_accepted(parse_api(live, self._platform))
        if isinstance(api, AsyncAPI):
            # An older API that releases the queue causes no event of this one.
            api = _require_accepted(await self._queue_lifecycle.name_queue(key, api, live), retry=True)
        source = _require_accepted(await find_source(self._cache, self._cluster, key, api))
        children = self._renderer.render(key, api, source, routed=endpoint_owner == key)
        live = await self._queue_lifecycle.ensure_finalizer(key, api, self._cache.api(key) or live)
        release = await self._candidates.prepare(key, api, live)
        children += release.children
        existing = [self._cache.child(key, child["kind"], child["metadata"]["name"]) for child in children]
        other_api = None if endpoint_owner == key else endpoint_owner
        owned = self._owned(key, release)
        plan = make_plan(api, self._platform, children, existing, owned, other_api)
        return _require_accepted(plan), release, live

    def _owned(self, key: Key, release: Release) -> Iterator[tuple[ObjectKind, Object]]:
        """The live objects of an API that are deleted when they are no longer rendered."""
        for kind in self._prunable:
            for child in self._cache.children(key, kind.kind):
                if not release.keeps(child):
                    yield kind, child

    async def _execute(
        self, key: Key, plan: Plan, release: Release
    ) -> tuple[ApplyResult, Problem | None, Release]:
        """Apply and delete the objects of the plan. Return what to report, the problem of the last optional object that the
        cluster refused, and the candidate with the problem of its last refused object.

        A split that takes requests from the candidate is first: no refused object and no replacement of pods may delay it.
        One that gives requests to it is last.

        Raises Rejected when the cluster refuses an object without which the API cannot serve.
        """
        result, refused = ApplyResult(), None
        for child in plan.delete:
            if is_split(child, key.name):
                await self._cluster.delete(child)
        if not any(is_split(child, key.name) for child, _ in plan.apply):
            await self._candidates.deliver(key, None)
        steps = sorted(plan.apply, key=lambda step: is_split(step[0], key.name) == release.is_serving)
        for child, existing in steps:
            problem: Problem | None = None
            cause: Exception | None = None
            try:
                await self._applier.apply(key, plan.api, child, existing, result)
            except NameTaken as taken:
                problem, cause = name_taken(taken.live), taken
            except ApiException as error:
                if is_namespace_terminating(error):
                    raise Rejected(NAMESPACE_TERMINATING) from error
                problem, cause = refused_by_cluster(child, error), error
                if problem is None:
                    raise
            if problem is None:
                if is_split(child, key.name):
                    await self._candidates.deliver(key, child)
            elif belongs_to_candidate(child, key.name):
                release = release.with_refused(child, problem)
            elif isinstance(cause, NameTaken) or child["kind"] not in OPTIONAL_KINDS:
                raise Rejected(problem, retry=True) from cause
            else:
                refused = problem
        for child in plan.delete:
            if not is_split(child, key.name):
                await self._cluster.delete(child)
        return result, refused, release

    def _observe(self, key: Key, plan: Plan, problem: Problem | None) -> Observed:
        """Return the live objects of an API as the cache has them after the plan was executed."""
        main, gateway = self._components(key)
        # A refused route is a problem with the reason HTTPRouteRefused, GRPCRouteRefused or IngressRefused.
        refused = "" if problem is None else problem.reason
        routed = any(f"{child['kind']}Refused" != refused for child in plan.routes if is_http(child))
        for child in plan.routes if problem is None else ():
            found = route_problem(self._cache.child(key, child["kind"], child["metadata"]["name"]))
            routed = routed and not (found and is_http(child))
            problem = problem or found
        return Observed(
            url=route.best_url(plan.api, self._platform, routed),
            main=main,
            gateway=gateway,
            hpa=self._cache.child(key, "HorizontalPodAutoscaler", object_name(key.name)),
            scaling=self._scaler.observed(key),
            problem=problem,
        )

    def _components(self, key: Key) -> tuple[Component, Component | None]:
        """Return the component that runs the user's code, and the gateway of an AsyncAPI."""
        pods = self._cache.children(key, "Pod")
        reports = self._replica_poller.reports(key)
        deployment = self._cache.child(key, "Deployment", object_name(key.name))
        main = Component(
            deployment,
            [pod for pod in pods if component_of(pod) not in (GATEWAY, DESTROY, CANDIDATE)],
            reports,
        )
        if key.kind != "AsyncAPI":
            return main, None
        deployment = self._cache.child(key, "Deployment", object_name(key.name, GATEWAY))
        return main, Component(deployment, [pod for pod in pods if component_of(pod) == GATEWAY], reports)


def _require_accepted(value: Any, retry: bool = False) -> Any:
    """Return a value that is not a problem. Raises Rejected for a Problem."""
    if isinstance(value, Problem):
        raise Rejected(value, retry)
    return value
