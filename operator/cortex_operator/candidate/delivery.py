"""Make the stable replicas use a new split within seconds. The candidate controller calls it.

The kubelet updates the file of a pod when the pod changes, so a new split is followed by an annotation. If the kubelet does not
have the new ConfigMap yet, for example because the API server was down, it would update the file a minute or more later. So the
replicas are asked which split they use, and the pods of those that use another one are annotated again.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api.contract import API, CANDIDATE_PATH, SPLIT_ANNOTATION, SPLIT_FILE
from cortex_operator.cluster import Cluster
from cortex_operator.plan import refused_by_cluster
from cortex_operator.render.names import digest
from cortex_operator.replicas.pod_client import PodClient
from cortex_operator.status.status import component_of
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]
log = logging.getLogger("cortex.candidate")

CHECK_AFTER = 2.0
"""Seconds after which the replicas are asked which split they use, and between two such checks."""
GIVE_UP_AFTER = 150.0
"""Seconds after which the kubelet has updated the file in any case."""


@dataclass
class _Delivery:
    """A split on its way. split_hash: of its data; None if it was deleted. since, next_check: monotonic seconds."""

    split_hash: str | None
    since: float
    next_check: float
    attempts: int = 0


class SplitDelivery:
    """Delivers the splits of all APIs."""

    def __init__(
        self,
        cache: Cache,
        cluster: Cluster,
        client: PodClient,
        clock: Callable[[], float],
    ) -> None:
        """clock: returns monotonic seconds."""
        self._cache = cache
        self._cluster = cluster
        self._client = client
        self._clock = clock
        self._pending: dict[Key, _Delivery] = {}
        self._delivered: dict[Key, str] = {}
        """The hash of the last split that all replicas of an API use. Empty after a start, so all splits are checked then."""

    def forget(self, key: Key) -> None:
        """Drop the state of an API that is deleted."""
        self._pending.pop(key, None)
        self._delivered.pop(key, None)

    def seconds_until_check(self, key: Key) -> float | None:
        """Return the seconds after which `deliver` must be called again; None if all replicas use the split."""
        pending = self._pending.get(key)
        return None if pending is None else max(0.0, pending.next_check - self._clock())

    async def deliver(self, key: Key, split: Object | None) -> None:
        """Annotate the stable pods without the annotation of a split, and those that have it and do not use the split.

        split: as it was applied; None if it does not exist. A pod whose annotation the cluster refuses gets the split later.
        Raises ApiException for an error that a retry may solve.
        """
        wanted = None if split is None else digest(split["data"])
        pods = [p for p in self._cache.children(key, "Pod") if component_of(p) == API and not _is_ending(p)]
        unaware = [pod for pod in pods if _annotated(pod) != wanted]
        pending, now = self._pending.get(key), self._clock()
        if unaware or (
            wanted != self._delivered.get(key) and (pending is None or pending.split_hash != wanted)
        ):
            self._pending[key] = _Delivery(wanted, now, now + CHECK_AFTER)
            for pod in unaware:
                await self._annotate(pod, wanted)
        elif pending is not None and now >= pending.next_check:
            await self._check(key, pending, split, pods)

    async def _check(self, key: Key, pending: _Delivery, split: Object | None, pods: list[Object]) -> None:
        # Also pods that are not ready: after an outage of the API server, the pods of a node may be so for a while.
        used = await asyncio.gather(*(self._uses(pod, split) for pod in pods))
        now = self._clock()
        if all(used) or now - pending.since >= GIVE_UP_AFTER:
            if not all(used):
                log.warning("%s: %d replicas may use an earlier split", key, len(used) - sum(map(bool, used)))
            del self._pending[key]
            self._delivered.pop(key, None)
            if pending.split_hash is not None:
                self._delivered[key] = pending.split_hash
            return
        pending.attempts += 1
        pending.next_check = now + CHECK_AFTER
        for pod, uses in zip(pods, used, strict=True):
            if uses is False:
                await self._annotate(pod, f"{pending.split_hash or ''}-{pending.attempts}")

    async def _uses(self, pod: Object, split: Object | None) -> bool | None:
        """Return whether a replica uses a split; None if it does not respond."""
        answer = await self._client.get(pod, CANDIDATE_PATH)
        if answer is None or answer[0] not in (200, 404):
            return None
        content = {} if split is None else json.loads(split["data"][SPLIT_FILE])
        is_active = bool(content.get("weight") or content.get("mirror"))
        if answer[0] == 404 or not isinstance(answer[1], dict):
            return not is_active
        # An earlier runtime reports only the version.
        names = ("version", *(name for name in ("weight", "mirror") if name in answer[1]))
        return is_active and all(answer[1].get(name) == content[name] for name in names)

    async def _annotate(self, pod: Object, value: str | None) -> None:
        try:
            annotated = await self._cluster.annotate(pod, SPLIT_ANNOTATION, value)
        except ApiException as error:
            if (problem := refused_by_cluster(pod, error)) is None:
                raise
            if error.status != 404:
                log.warning("the replica learns of the new split late: %s", problem.message)
        else:
            self._cache.put_child({**annotated, "apiVersion": "v1", "kind": "Pod"})


def _annotated(pod: Object) -> str | None:
    """Return the hash in the annotation of a pod, without the number of the attempt."""
    value = (pod["metadata"].get("annotations") or {}).get(SPLIT_ANNOTATION)
    return value.partition("-")[0] or None if value else None


def _is_ending(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))
