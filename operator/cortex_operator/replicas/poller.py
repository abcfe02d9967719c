"""Poll every replica: why it is not ready, what its start is doing, and how a worker process last exited.

The kubelet reports the exit of containers, but not of processes in them. So the operator polls the admin port of each running
pod, with plain HTTP and not through the API server. Pods that it cannot reach (because of a NetworkPolicy, or from outside of
the cluster) are polled less and less often, and statuses show what the kubelet reports.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cortex_api.contract import READINESS_PATH
from cortex_operator.replicas import reports
from cortex_operator.replicas.pod_client import PodClient
from cortex_operator.replicas.reports import Report
from cortex_operator.status.failures import is_ready
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]

PERIOD = 10.0
"""Seconds between two polls of a ready replica."""
STARTING_PERIOD = 3.0
"""Seconds between two polls of a replica that is not ready."""
MAX_PERIOD = 300.0
"""Seconds between two polls of a replica that never responds."""


@dataclass
class _Replica:
    """One pod. polled_at: time of the last poll, on the clock of the event loop. failures: failed polls in a row."""

    key: Key
    pod: str
    uid: str
    polled_at: float = float("-inf")
    failures: int = 0
    report: Report | None = None
    timer: asyncio.TimerHandle | None = None
    poll: "asyncio.Task[Report | None] | None" = None


class ReplicaPoller:
    """The reports of all replicas. on_change: called with an API when a report of one of its pods changes."""

    def __init__(
        self, cache: Cache, on_change: Callable[[Key], None], client: PodClient | None = None
    ) -> None:
        self._cache = cache
        self._on_change = on_change
        self._client = client or PodClient()
        self._known: dict[Key, dict[str, _Replica]] = {}
        self._runs = False
        self.polls = self.failed_polls = 0

    async def run(self) -> None:
        """Poll until cancelled."""
        self._runs = True
        try:
            await asyncio.Event().wait()
        finally:
            self._runs = False
            for key in list(self._known):
                for replica in list(self._known[key].values()):
                    self._forget(replica)

    def reports(self, key: Key) -> dict[str, Report]:
        """Return the last report of each pod of an API, by name. Starts to poll new pods."""
        if not self._runs:
            return {}
        pods = {pod["metadata"]["name"]: pod for pod in self._cache.children(key, "Pod") if _runs(pod)}
        known = self._known.setdefault(key, {})
        for replica in [r for r in known.values() if r.pod not in pods or r.uid != _uid(pods[r.pod])]:
            self._forget(replica)
        known = self._known.setdefault(key, {})
        for name, pod in pods.items():
            if name not in known:
                known[name] = replica = _Replica(key, name, _uid(pod))
                self._schedule(replica, random.uniform(0, PERIOD) if is_ready(pod) else 0.0)
            elif not is_ready(pod) and (report := known[name].report) is not None and report.ready:
                self._poll_soon(known[name])
        if not known:
            del self._known[key]
        return {name: replica.report for name, replica in known.items() if replica.report is not None}

    async def poll(self, key: Key, pod: Object) -> Report | None:
        """Poll one pod now; concurrent callers share the poll. Returns None when it does not respond."""
        name = pod["metadata"]["name"]
        replica = self._known.get(key, {}).get(name)
        if replica is None or replica.uid != _uid(pod):
            return await self._get(pod)
        return await asyncio.shield(self._start_poll(replica))

    def _start_poll(self, replica: _Replica) -> "asyncio.Task[Report | None]":
        if replica.poll is None or replica.poll.done():
            replica.poll = asyncio.create_task(self._poll(replica))
        return replica.poll

    async def _poll(self, replica: _Replica) -> Report | None:
        """Poll, store the report, and schedule the next poll."""
        pod = self._cache.child(replica.key, "Pod", replica.pod)
        if pod is None or _uid(pod) != replica.uid or not _runs(pod):
            self._forget(replica)
            return None
        report = await self._get(pod)
        if self._known.get(replica.key, {}).get(replica.pod) is not replica:
            return report
        replica.polled_at = asyncio.get_running_loop().time()
        replica.failures = 0 if report is not None else replica.failures + 1
        period = PERIOD if is_ready(pod) else STARTING_PERIOD
        self._schedule(replica, min(MAX_PERIOD, period * 2 ** min(replica.failures, 10)))
        if report is not None:
            # A first report of a ready replica changes nothing.
            before, replica.report = replica.report or Report(True), report
            if report != before:
                self._on_change(replica.key)
        return report

    async def _get(self, pod: Object) -> Report | None:
        answer = await self._client.get(pod, READINESS_PATH)
        self.polls += 1
        report = reports.parse(answer[1]) if answer is not None else None
        self.failed_polls += report is None
        return report

    def _schedule(self, replica: _Replica, seconds: float) -> None:
        if replica.timer is not None:
            replica.timer.cancel()
        replica.timer = asyncio.get_running_loop().call_later(seconds, self._start_poll, replica)

    def _poll_soon(self, replica: _Replica) -> None:
        """Poll earlier because the kubelet reports a change, but not more often than a starting replica."""
        loop = asyncio.get_running_loop()
        at = max(loop.time(), replica.polled_at + STARTING_PERIOD)
        if replica.timer is None or replica.timer.when() > at:
            self._schedule(replica, at - loop.time())

    def _forget(self, replica: _Replica) -> None:
        if replica.timer is not None:
            replica.timer.cancel()
        if replica.poll is not None and replica.poll is not asyncio.current_task():
            replica.poll.cancel()
        of_api = self._known.get(replica.key, {})
        if of_api.get(replica.pod) is replica:
            del of_api[replica.pod]
            if not of_api:
                del self._known[replica.key]


def _uid(pod: Object) -> str:
    return str(pod["metadata"].get("uid", ""))


def _runs(pod: Object) -> bool:
    """Return whether a container of a pod runs, so that the pod can respond."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    status = pod.get("status", {})
    return any("running" in c.get("state", {}) for c in status.get("containerStatuses", ()))
