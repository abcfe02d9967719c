"""Asks every replica how it is: why it is not ready, how far its start is, and how a worker process of it ended last.

The kubelet reports the end of containers, but not that of a process within one; so each running pod is asked on its admin port,
over plain HTTP and not through the API server. Where the operator cannot reach pods (a NetworkPolicy, an operator outside of
the cluster), it asks them less and less often, and statuses say what the kubelet reports.
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
"""Seconds between two questions to a replica that is ready."""
STARTING_PERIOD = 3.0
"""The same for one that is not, whose answers change sooner."""
MAX_PERIOD = 300.0
"""The same for one that never answers."""


@dataclass
class _Replica:
    """One pod. asked: when, in seconds of the loop's clock. silent: how often in a row it did not answer."""

    key: Key
    pod: str
    uid: str
    asked: float = float("-inf")
    silent: int = 0
    report: Report | None = None
    timer: asyncio.TimerHandle | None = None
    asking: "asyncio.Task[Report | None] | None" = None


class Replicas:
    """The reports of all pods. changed: is called with an API of which a pod reports something new."""

    def __init__(self, cache: Cache, changed: Callable[[Key], None], client: PodClient | None = None) -> None:
        self._cache = cache
        self._changed = changed
        self._client = client or PodClient()
        self._known: dict[Key, dict[str, _Replica]] = {}
        self._runs = False
        self.asked = self.unanswered = 0

    async def run(self) -> None:
        """Ask until cancelled."""
        self._runs = True
        try:
            await asyncio.Event().wait()
        finally:
            self._runs = False
            for key in list(self._known):
                for replica in list(self._known[key].values()):
                    self._forget(replica)

    def reports(self, key: Key) -> dict[str, Report]:
        """What the pods of an API reported last, by name. A pod that is new here is asked from now on."""
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

    async def ask(self, key: Key, pod: Object) -> Report | None:
        """Ask one pod now, for all who want to know; None when it does not answer."""
        name = pod["metadata"]["name"]
        replica = self._known.get(key, {}).get(name)
        if replica is None or replica.uid != _uid(pod):
            return await self._get(pod)
        return await asyncio.shield(self._start_poll(replica))

    def _start_poll(self, replica: _Replica) -> "asyncio.Task[Report | None]":
        if replica.asking is None or replica.asking.done():
            replica.asking = asyncio.create_task(self._poll(replica))
        return replica.asking

    async def _poll(self, replica: _Replica) -> Report | None:
        """Ask, note the answer, and ask again later."""
        pod = self._cache.child(replica.key, "Pod", replica.pod)
        if pod is None or _uid(pod) != replica.uid or not _runs(pod):
            self._forget(replica)
            return None
        report = await self._get(pod)
        if self._known.get(replica.key, {}).get(replica.pod) is not replica:
            return report
        replica.asked = asyncio.get_running_loop().time()
        replica.silent = 0 if report is not None else replica.silent + 1
        period = PERIOD if is_ready(pod) else STARTING_PERIOD
        self._schedule(replica, min(MAX_PERIOD, period * 2 ** min(replica.silent, 10)))
        if report is not None:
            # That all is well is no news.
            before, replica.report = replica.report or Report(True), report
            if report != before:
                self._changed(replica.key)
        return report

    async def _get(self, pod: Object) -> Report | None:
        answer = await self._client.get(pod, READINESS_PATH)
        self.asked += 1
        report = reports.parse(answer[1]) if answer is not None else None
        self.unanswered += report is None
        return report

    def _schedule(self, replica: _Replica, seconds: float) -> None:
        if replica.timer is not None:
            replica.timer.cancel()
        replica.timer = asyncio.get_running_loop().call_later(seconds, self._start_poll, replica)

    def _poll_soon(self, replica: _Replica) -> None:
        """The kubelet knows more than the last report: ask at once, but not more often than a replica that starts."""
        loop = asyncio.get_running_loop()
        at = max(loop.time(), replica.asked + STARTING_PERIOD)
        if replica.timer is None or replica.timer.when() > at:
            self._schedule(replica, at - loop.time())

    def _forget(self, replica: _Replica) -> None:
        if replica.timer is not None:
            replica.timer.cancel()
        if replica.asking is not None and replica.asking is not asyncio.current_task():
            replica.asking.cancel()
        of_api = self._known.get(replica.key, {})
        if of_api.get(replica.pod) is replica:
            del of_api[replica.pod]
            if not of_api:
                del self._known[replica.key]


def _uid(pod: Object) -> str:
    return str(pod["metadata"].get("uid", ""))


def _runs(pod: Object) -> bool:
    """Whether a pod's own container runs, so that it can answer."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    status = pod.get("status", {})
    return any("running" in c.get("state", {}) for c in status.get("containerStatuses", ()))
