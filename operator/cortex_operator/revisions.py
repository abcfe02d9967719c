"""The history of an API: one ControllerRevision for each distinct spec that was Ready. `cortex history` shows them.

A revision is written when its spec is Ready, so an API that is created gets its first status without it, and the history contains
only specs that worked. `status.revision` names the last one: an API with an unchanged spec costs no call. As in the history of a
StatefulSet, an API that returns to an earlier spec gives that revision the highest number.
"""

import logging
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import CHANGED_AT_ANNOTATION, object_name, pod_selector
from cortex_api.revision import revised
from cortex_operator.cluster import API_ERRORS, Cluster, error_text, is_namespace_terminating
from cortex_operator.render.names import digest, finish
from cortex_operator.watch.cache import Key

Object = dict[str, Any]
API = RealtimeAPI | AsyncAPI
log = logging.getLogger("cortex.revisions")

KEPT = 10
"""Revisions of an API. The oldest is deleted when there are more."""
RETRY_AFTER = 60.0
"""Seconds after a failed write."""


class Revisions:
    """Writes the ControllerRevisions of all APIs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._names: dict[Key, tuple[str, int, str]] = {}
        """The name of the revision of each API's spec, with the UID and generation that it was computed of."""

    def forget(self, key: Key) -> None:
        """Drop the state of an API that is deleted. Its revisions are garbage-collected."""
        self._names.pop(key, None)

    async def record(self, api: API, live: Object, status: Object) -> float | None:
        """Write the revision of a spec that is Ready, unless `status` names it already, and set its name in `status`.

        Returns the seconds until the next attempt if the API server refuses it. The API serves without it, so nothing is raised.
        """
        name, before = self._name(api, live), status.get("revision")
        if name == before:
            return None
        try:
            if before is not None or not await self._write_first(api, live, name):
                await self._write_next(api, live, name)
        except API_ERRORS as error:
            if not (isinstance(error, ApiException) and is_namespace_terminating(error)):
                log.warning("the revision %s of %s is not recorded: %s", name, _key(api), error_text(error))
            return RETRY_AFTER
        status["revision"] = name
        return None

    def _name(self, api: API, live: Object) -> str:
        uid, generation, name = self._names.get(_key(api), ("", 0, ""))
        if (uid, generation) != (live["metadata"]["uid"], live["metadata"]["generation"]):
            name = f"{object_name(api.metadata.name)}-{digest(revised(live['spec']))[:10]}"
            self._names[_key(api)] = (live["metadata"]["uid"], live["metadata"]["generation"], name)
        return name

    async def _write_first(self, api: API, live: Object, name: str) -> bool:
        """Write the revision with the number 1, without reading others. Returns False if it exists."""
        return await self._cluster.apply_new(_revision(api, live, name, 1)) is not None

    async def _write_next(self, api: API, live: Object, name: str) -> None:
        """Write the revision with the next number, and delete the oldest revisions."""
        selector = pod_selector(api.metadata.name, api.kind)
        found = await self._cluster.list_matching(
            "apps/v1", "ControllerRevision", api.metadata.namespace, selector
        )
        others = [each for each in found if each["metadata"]["name"] != name]
        others.sort(key=lambda each: int(each["revision"]), reverse=True)
        number = int(others[0]["revision"]) + 1 if others else 1
        await self._cluster.apply(_revision(api, live, name, number))
        for old in others[KEPT - 1 :]:
            await self._cluster.delete(old)


def _revision(api: API, live: Object, name: str, number: int) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    revision: Object = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "annotations": {CHANGED_AT_ANNOTATION: now}},
        "revision": number,
        "data": {"spec": revised(live["spec"])},
    }
    return finish(api, revision)


def _key(api: API) -> Key:
    return Key(api.kind, api.metadata.namespace, api.metadata.name)
