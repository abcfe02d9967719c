"""Writes statuses and Events: a status only when it differs from the live one, an Event for each new reason of Ready."""

import logging
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_operator.cluster import Cluster, is_namespace_terminating
from cortex_operator.status import events
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]
log = logging.getLogger("cortex.status")


class StatusReporter:
    """Reports APIs to the API server."""

    def __init__(self, cache: Cache, cluster: Cluster) -> None:
        self._cache = cache
        self._cluster = cluster
        self._written: dict[Key, tuple[Object, Object]] = {}
        """The last status that was sent for an API, and what the API server stored of it, where they differ."""

    def forget(self, key: Key) -> None:
        """Drop the state of an API that is deleted."""
        self._written.pop(key, None)

    async def report(self, key: Key, live: Object, status: Object) -> None:
        """Write the status unless the API has it already, and an Event when Ready or its reason changes.

        The times that `status` leaves open (None) are set to now.
        """
        now = _now()
        for condition in status["conditions"]:
            condition["lastTransitionTime"] = condition["lastTransitionTime"] or now
        if (candidate := status.get("candidate")) is not None:
            status["candidate"] = {**candidate, "since": candidate["since"] or now}
        last = status.get("lastFailure")
        if last is not None and "recoveredAt" in last:
            status["lastFailure"] = {**last, "recoveredAt": last["recoveredAt"] or now}
        before = live.get("status") or {}
        if status == before or self._written.get(key) == (status, before):
            return
        try:
            written = await self._cluster.write_status(live, status)
        except ApiException as error:
            if error.status == 404:
                return  # Deleted; a watch event follows.
            raise
        stored = written.get("status") or {}
        if dropped := status.keys() - stored.keys():
            log.warning(
                "the CRD of %s is older than this operator and drops status.%s: update it",
                key.kind,
                ", ".join(sorted(dropped)),
            )
        if stored == status:
            self._written.pop(key, None)
        else:
            self._written[key] = (status, stored)
        self._cache.put_written_api(
            key, {**written, "apiVersion": live["apiVersion"], "kind": live["kind"]}, live
        )
        for event in (
            events.of_transition(live, before, status, now),
            events.of_candidate(live, before, status, now),
        ):
            if event is not None:
                await self._create(event)

    async def warn(self, live: Object, reason: str, message: str) -> None:
        """Create a Warning Event."""
        await self._create(events.warning(live, reason, message, _now()))

    async def _create(self, event: Object) -> None:
        try:
            await self._cluster.create(event)
        except ApiException as error:
            if not is_namespace_terminating(error):
                raise


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
