"""Leader election by a Lease (coordination.k8s.io).

The elector of the client library never gives up a renewal that hangs, so that two leaders are possible; it uses the wall clock,
and never releases the Lease. Here each call has a deadline, time is monotonic, and a leader that stops releases the Lease. The
durations are those of client-go, shortened for a takeover within 15 s.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_operator.cluster import API_ERRORS, Cluster, error_text

Object = dict[str, Any]
log = logging.getLogger("cortex.lease")

NAME = "cortex-operator"
LEASE_DURATION = 10.0
"""Seconds without a renewal after which another candidate may acquire the Lease."""
RENEW_DEADLINE = 7.0
"""Seconds without a renewal after which a leader gives up leadership."""
RETRY_PERIOD = 2.0
"""Seconds between two attempts to acquire or renew the Lease."""


class Lease:
    """One candidate. identity: its unique name."""

    def __init__(self, cluster: Cluster, namespace: str, identity: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._identity = identity
        self._seen: tuple[str, float] = ("", 0.0)
        self.held = False

    async def acquire(self) -> None:
        """Return once this candidate is the leader."""
        while not await self._attempt():  # noqa: ASYNC110 - polls the API server
            await asyncio.sleep(RETRY_PERIOD)
        self.held = True
        log.info("%s is the leader", self._identity)

    async def renew_until_lost(self) -> None:
        """Renew the Lease until it is lost."""
        renewed = time.monotonic()
        while (left := renewed + RENEW_DEADLINE - time.monotonic()) > 0:
            await asyncio.sleep(min(RETRY_PERIOD, left))
            begun = time.monotonic()
            left = renewed + RENEW_DEADLINE - begun
            try:
                if left > 0 and await asyncio.wait_for(self._attempt(), left):
                    renewed = begun
                elif self._holder_is_another:
                    break
            except TimeoutError:
                break
        self.held = False
        log.error("%s is no longer the leader: the Lease could not be renewed", self._identity)

    async def release(self) -> None:
        """Release the Lease, so that another candidate can acquire it immediately."""
        if not self.held:
            return
        self.held = False
        try:
            live = await asyncio.wait_for(self._get(), RETRY_PERIOD)
            if live is not None and live["spec"].get("holderIdentity") == self._identity:
                live["spec"]["holderIdentity"] = ""
                await asyncio.wait_for(self._cluster.replace(live), RETRY_PERIOD)
        except API_ERRORS as error:
            log.warning("the Lease could not be released: %s", error_text(error))

    @property
    def _holder_is_another(self) -> bool:
        return self._seen[0].split("@", 1)[0] not in ("", self._identity)

    async def _get(self) -> Object | None:
        return await self._cluster.get("coordination.k8s.io/v1", "Lease", self._namespace, NAME)

    async def _attempt(self) -> bool:
        """Acquire or renew the Lease. Returns False when another candidate holds it or the call fails."""
        try:
            live = await self._get()
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            if live is None:
                await self._cluster.create(self._new_lease(now))
                return True
            spec = live["spec"]
            holder = spec.get("holderIdentity") or ""
            if holder not in ("", self._identity) and not self._has_expired(spec):
                return False
            if holder != self._identity:
                spec.update(acquireTime=now, leaseTransitions=spec.get("leaseTransitions", 0) + 1)
            spec.update(
                holderIdentity=self._identity, renewTime=now, leaseDurationSeconds=round(LEASE_DURATION)
            )
            await self._cluster.replace(live)
            self._seen = (f"{self._identity}@{now}", time.monotonic())
            return True
        except API_ERRORS as error:
            if (
                not isinstance(error, ApiException) or error.status != 409
            ):  # 409: another candidate was faster.
                log.warning("the Lease cannot be read or written: %s", error_text(error))
        return False

    def _has_expired(self, spec: Object) -> bool:
        """Return whether the holder has not renewed for a whole duration, by the clock of this candidate."""
        record = f"{spec.get('holderIdentity')}@{spec.get('renewTime')}"
        if record != self._seen[0]:
            self._seen = (record, time.monotonic())
        return time.monotonic() - self._seen[1] > spec.get("leaseDurationSeconds", LEASE_DURATION)

    def _new_lease(self, now: str) -> Object:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": round(LEASE_DURATION),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }
