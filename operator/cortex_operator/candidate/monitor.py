"""Poll the stable replicas of APIs with a serving candidate: how many requests it answers, and how well.

A replica reports its own counts on the admin port. While the operator is down nothing is rolled back, and the replicas continue
with the split that they have; their breakers and fallbacks do not depend on the operator.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from cortex_api.candidate import Rollback
from cortex_api.contract import (
    API,
    CANDIDATE,
    CANDIDATE_PATH,
    DURATIONS_PATH,
    INTERFACE_PATH,
)
from cortex_operator.candidate import counts, interface
from cortex_operator.candidate.counts import History, Recent
from cortex_operator.candidate.thresholds import exceeded
from cortex_operator.replicas.pod_client import PodClient
from cortex_operator.status.conditions import Component, Problem
from cortex_operator.status.failures import is_ready
from cortex_operator.status.status import component_of
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]
log = logging.getLogger("cortex.candidate")

PERIOD = 1.0
"""Seconds between two polls of a replica."""
REPORT_PERIOD = 10.0
"""Seconds between two updates of the counts in the status."""


class CandidateMonitor:
    """The counts of all serving candidates. on_change: called with an API whose status must be updated. clock: returns monotonic
    seconds."""

    def __init__(
        self,
        cache: Cache,
        on_change: Callable[[Key], None],
        client: PodClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._on_change = on_change
        self.client = client or PodClient()
        self._histories: dict[Key, tuple[History, Rollback]] = {}
        self._reported: dict[Key, float] = {}
        self._has_candidates = asyncio.Event()

    async def run(self) -> None:
        """Poll until cancelled. Replicas that respond late delay the polls of their own API alone."""
        polls: dict[Key, asyncio.Task[None]] = {}
        try:
            while True:
                await self._has_candidates.wait()
                polls = {key: poll for key, poll in polls.items() if not poll.done()}
                for key in self._histories.keys() - polls.keys():
                    polls[key] = asyncio.create_task(self._poll(key))
                await asyncio.sleep(PERIOD)
        finally:
            for poll in polls.values():
                poll.cancel()

    def recent(self, key: Key, version: str) -> Recent:
        """Return the counts of a candidate, empty before the first poll."""
        known = self._histories.get(key)
        return known[0].recent if known is not None and known[0].version == version else Recent()

    def watch(self, key: Key, version: str, rules: Rollback) -> None:
        """Poll the replicas of an API whose candidate serves."""
        known = self._histories.get(key)
        if known is None or known[0].version != version:
            self._histories[key] = History(version, rules.min_requests), rules
            self._has_candidates.set()

    def forget(self, key: Key) -> None:
        """Stop to poll the replicas of an API."""
        self._histories.pop(key, None)
        self._reported.pop(key, None)
        if not self._histories:
            self._has_candidates.clear()

    async def compare_interfaces(self, stable: Component, candidate: Component) -> Problem | bool:
        """Return whether the interfaces are compared and the candidate's is accepted, or why it is refused.

        A change of the stable version during a rollout does not matter: the requests are those of its clients.
        """
        pods = [next(filter(is_ready, each.current()), None) for each in (stable, candidate)]
        if pods[0] is None or pods[1] is None:
            return False
        answers = await asyncio.gather(*(self.client.get(pod, INTERFACE_PATH) for pod in pods if pod))
        for name, answer in zip(("stable version", "candidate"), answers, strict=True):
            if answer is None:
                return False
            if answer[0] != 200:
                text = (
                    f"the {name} does not report its interface (HTTP {answer[0]}), so both cannot be compared:"
                    " its image has an older runtime. Use images of the operator's version for both"
                )
                return Problem("InterfaceUnknown", text)
        (_, of_stable), (_, of_candidate) = (answer for answer in answers if answer is not None)
        if differs := interface.difference(of_stable, of_candidate):
            advice = "Clients of the stable version could not use it: release it as another API"
            text = f"{differs}. The candidate receives no requests. {advice}"
            return Problem("InterfaceChanged", text)
        return True

    async def _poll(self, key: Key) -> None:
        """Poll the replicas of one API."""
        try:
            await self._poll_replicas(key)
        except Exception:  # A failure of one API must not affect the others.
            log.exception("%s: the counts of the candidate cannot be read", key)

    async def _poll_replicas(self, key: Key) -> None:
        known = self._histories.get(key)
        if known is None:
            return
        history, rules = known
        pods = [pod for pod in self._cache.children(key, "Pod") if component_of(pod) in (API, CANDIDATE)]
        ready = [pod for pod in pods if is_ready(pod)]
        stable = [pod for pod in ready if component_of(pod) == API]
        answers = await asyncio.gather(
            *(self.client.get(pod, CANDIDATE_PATH) for pod in stable),
            *(self.client.get(pod, DURATIONS_PATH) for pod in ready),
        )
        reports, durations = {}, {}
        for pod, answer in zip(stable, answers[: len(stable)], strict=True):
            found = counts.parse(answer[1], history.version) if answer is not None else None
            if found is not None:
                reports[pod["metadata"]["uid"]] = found
        for pod, answer in zip(ready, answers[len(stable) :], strict=True):
            found = counts.parse_durations(answer[1], component_of(pod)) if answer is not None else None
            if found is not None:
                durations[pod["metadata"]["uid"]] = found
        if self._histories.get(key, (None,))[0] is not history:
            return  # It was rolled back or replaced meanwhile.
        before, now = history.recent.total, self._clock()
        history.add(now, reports, {pod["metadata"]["uid"] for pod in pods}, durations)
        is_due = now - self._reported.get(key, float("-inf")) >= REPORT_PERIOD
        if exceeded(rules, history.recent) or (is_due and history.recent.total != before):
            self._reported[key] = now
            self._on_change(key)
