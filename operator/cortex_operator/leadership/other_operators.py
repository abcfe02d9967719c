"""Several operators in one cluster: none touches the APIs that another running operator manages.

Each operator annotates its objects with its namespace, which has its Lease. An operator that finds the annotation of another
reads the Lease of that one. It leaves the API alone while the Lease is renewed, and adopts the API when the Lease does not
exist or was not renewed for ADOPT_AFTER seconds.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from kubernetes.aio.client.exceptions import ApiException

from cortex_api.contract import OPERATOR_ANNOTATION, object_name
from cortex_operator.cluster import API_ERRORS, Cluster, error_text
from cortex_operator.leadership.lease import NAME
from cortex_operator.platform import Platform
from cortex_operator.watch.cache import Cache, Key

log = logging.getLogger("cortex.other_operators")

ADOPT_AFTER = 300.0
"""Seconds without a renewal after which APIs are adopted; long enough for an update or restart of the other operator."""
PERIOD = 60.0
"""Seconds between two reads of the Lease of each operator that manages APIs here."""


class OtherOperators:
    """The other operators in this cluster, by their namespaces."""

    def __init__(self, cache: Cache, cluster: Cluster, platform: Platform) -> None:
        self._cache = cache
        self._cluster = cluster
        self._own = platform.lease_namespace
        self._seen: dict[str, tuple[str, float]] = {}
        self._running: dict[str, tuple[bool, float]] = {}

    async def manages(self, key: Key) -> bool:
        """Return whether another operator manages an API, and note it in `cache.managed_elsewhere`."""
        other = self._manager(key)
        if other is None or not await self._is_running(other):
            self._cache.managed_elsewhere.pop(key, None)
            return False
        if other not in self._cache.managed_elsewhere.values():
            log.warning(
                "the operator in namespace %s manages %s, so this operator ignores it. Give each operator its own namespaces"
                " (watchNamespaces), or uninstall one: APIs are adopted when Lease %s/%s is deleted or not renewed for %.0f s",
                other,
                key,
                other,
                NAME,
                ADOPT_AFTER,
            )
        elif key not in self._cache.managed_elsewhere:
            log.info("ignoring %s: the operator in namespace %s manages it", key, other)
        self._cache.managed_elsewhere[key] = other
        return True

    async def run(self, on_change: Callable[[Key], None]) -> None:
        """Call `on_change` with the APIs of operators that have stopped, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            for other in set(self._cache.managed_elsewhere.values()):
                if await self._is_running(other):
                    continue
                log.warning("the operator in namespace %s has stopped: adopting its APIs", other)
                for key in [
                    key for key, manager in self._cache.managed_elsewhere.items() if manager == other
                ]:
                    on_change(key)

    def _manager(self, key: Key) -> str | None:
        """Return the other operator whose annotation an API has. The Service decides, because every operator applies it
        first."""
        service = self._cache.child(key, "Service", object_name(key.name))
        mark = ((service or {}).get("metadata", {}).get("annotations") or {}).get(OPERATOR_ANNOTATION)
        return None if mark in (None, self._own) else str(mark)

    async def _is_running(self, other: str) -> bool:
        now = time.monotonic()
        running, read = self._running.get(other, (False, -PERIOD))
        if now - read >= PERIOD / 2:
            running = await self._is_renewing(other, now)
            self._running[other] = running, now
        return running

    async def _is_renewing(self, other: str, now: float) -> bool:
        """Return whether another operator renews its Lease, by the clock of this one. True when the Lease cannot be read."""
        try:
            lease = await self._cluster.get("coordination.k8s.io/v1", "Lease", other, NAME)
        except API_ERRORS as error:
            if isinstance(error, ApiException) and error.status == 403:
                log.warning(
                    "the Lease of the operator in namespace %s cannot be read: %s", other, error_text(error)
                )
            return True
        if lease is None:
            return False
        renewed = str(lease["spec"].get("renewTime"))
        if self._seen.get(other, ("", 0.0))[0] != renewed:
            self._seen[other] = renewed, now
        return now - self._seen[other][1] < ADOPT_AFTER
