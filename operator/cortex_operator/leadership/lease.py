"""Leader election by a Lease (coordination.k8s.io): of several operators, one works and the others stand by.

The client library brings an elector, but a renewal of it that hangs is never given up, so that two could lead at once; it
judges by the wall clock, and never lets go of the Lease. Here each call ends before the deadline, time is monotonic, and a
leader that stops says so, for the next to begin at once. Durations are client-go's, shortened for a takeover within 15 s.
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
"""Seconds after which a Lease that was not renewed is anybody's."""
RENEW_DEADLINE = 7.0
"""Seconds after its last renewal at which a leader stops leading."""
RETRY_PERIOD = 2.0
"""Seconds between two looks at the Lease."""


class Lease:
    """One candidate. identity: what it is called, different from every other's."""

    def __init__(self, cluster: Cluster, namespace: str, identity: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._identity = identity
        self._seen: tuple[str, float] = ("", 0.0)
        self.held = False

    async def acquire(self) -> None:
        """Return once this candidate is the leader."""
        while not await self._attempt():  # noqa: ASYNC110 - it is the cluster's state that is waited for
            await asyncio.sleep(RETRY_PERIOD)
        self.held = True
        log.info("%s leads", self._identity)

    async def renew_until_lost(self) -> None:
        """Renew for as long as that works; returns when the Lease is lost."""
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
        log.error("%s does not lead any more: the Lease could not be renewed", self._identity)

    async def release(self) -> None:
        """Let go, so that another can begin at once."""
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
        """Take or renew the Lease if it may be taken. False when not, or when the API server can't tell."""
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
            if not isinstance(error, ApiException) or error.status != 409:  # 409: another was faster.
                log.warning("the Lease can't be read or written: %s", error_text(error))
        return False

    def _has_expired(self, spec: Object) -> bool:
        """Whether the holder has not renewed for a whole duration, by this candidate's own clock."""
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
