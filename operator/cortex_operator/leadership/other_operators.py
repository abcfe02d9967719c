"""Two operators with Leases of their own: one leaves alone what the other manages, for as long as the other works.

Each marks the objects that it makes with its namespace, which is that of its Lease. An operator that finds the mark of another
reads the other's Lease. While that is renewed, the API is left alone; when it is gone or is not renewed for ADOPT_AFTER seconds,
the API is adopted.
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
"""Seconds without a renewal after which another operator does not work any more. Its update or restart is no reason to adopt."""
PERIOD = 60.0
"""Seconds between two looks at the Leases of operators whose APIs are left alone; without such APIs there are none."""


class OtherOperators:
    """The other operators on this cluster, by their namespaces."""

    def __init__(self, cache: Cache, cluster: Cluster, platform: Platform) -> None:
        self._cache = cache
        self._cluster = cluster
        self._own = platform.lease_namespace
        self._seen: dict[str, tuple[str, float]] = {}
        self._running: dict[str, tuple[bool, float]] = {}

    async def manage(self, key: Key) -> bool:
        """Whether another operator manages an API. One that is left alone is in `cache.managed_elsewhere` from then on."""
        other = self._manager(key)
        if other is None or not await self._is_running(other):
            self._cache.managed_elsewhere.pop(key, None)
            return False
        if other not in self._cache.managed_elsewhere.values():
            log.warning(
                "the operator in namespace %s manages %s, so this one leaves it alone. Have each serve namespaces of its own"
                " (watchNamespaces), or uninstall one: APIs are adopted when Lease %s/%s is gone or is not renewed for %.0f s",
                other,
                key,
                other,
                NAME,
                ADOPT_AFTER,
            )
        elif key not in self._cache.managed_elsewhere:
            log.info("%s is left alone: the operator in namespace %s manages it", key, other)
        self._cache.managed_elsewhere[key] = other
        return True

    async def run(self, changed: Callable[[Key], None]) -> None:
        """Call `changed` with the APIs of operators that do not work any more, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            for other in set(self._cache.managed_elsewhere.values()):
                if await self._is_running(other):
                    continue
                log.warning(
                    "the operator in namespace %s does not work any more: its APIs are adopted", other
                )
                for key in [
                    key for key, manager in self._cache.managed_elsewhere.items() if manager == other
                ]:
                    changed(key)

    def _manager(self, key: Key) -> str | None:
        """The other operator that has marked an API's objects; the first of them decides, for both apply it first."""
        first = self._cache.child(key, "ConfigMap", object_name(key.name))
        mark = ((first or {}).get("metadata", {}).get("annotations") or {}).get(OPERATOR_ANNOTATION)
        return None if mark in (None, self._own) else str(mark)

    async def _is_running(self, other: str) -> bool:
        now = time.monotonic()
        works, asked = self._running.get(other, (False, -PERIOD))
        if now - asked >= PERIOD / 2:
            works = await self._is_renewing(other, now)
            self._running[other] = works, now
        return works

    async def _is_renewing(self, other: str, now: float) -> bool:
        """Whether the Lease of another operator has been renewed lately, by this one's own clock. True when it can't be read."""
        try:
            lease = await self._cluster.get("coordination.k8s.io/v1", "Lease", other, NAME)
        except API_ERRORS as error:
            if isinstance(error, ApiException) and error.status == 403:
                log.warning(
                    "the Lease of the operator in namespace %s can't be read: %s", other, error_text(error)
                )
            return True
        if lease is None:
            return False
        renewed = str(lease["spec"].get("renewTime"))
        if self._seen.get(other, ("", 0.0))[0] != renewed:
            self._seen[other] = renewed, now
        return now - self._seen[other][1] < ADOPT_AFTER
