"""Apply one rendered object by server-side apply, and revert what other writers changed.

An object in the wanted state costs no call to the API server: the cache is enough to see that.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.candidate import candidate_api
from cortex_api.contract import APPLIED_HASH_ANNOTATION, GATEWAY
from cortex_operator.apply.conflicts import Conflicts
from cortex_operator.apply.drift import Change, changes, owns_replicas, removal
from cortex_operator.cluster import MANAGER, REPLICAS_MANAGER, Cluster
from cortex_operator.plan import is_owned
from cortex_operator.render import candidate, gateway
from cortex_operator.render.candidate import is_of_candidate
from cortex_operator.render.deployment import initial_replicas
from cortex_operator.render.names import child_name
from cortex_operator.status.conditions import Problem
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]
API = RealtimeAPI | AsyncAPI

ATTEMPTS = 5
"""Attempts to remove additions while others change the object, before the reconciliation is retried."""
ADVICE = "To customize the pods, use spec.pod of the API"


@dataclass
class ApplyResult:
    """What to report after the objects of an API were applied. events: reason and message. requeue_after: seconds until the next
    reconciliation, when no watch event will cause it.
    """

    events: list[tuple[str, str]] = field(default_factory=list)
    problem: Problem | None = None
    requeue_after: float | None = None


class NameTaken(Exception):
    """An object of the name of a rendered one has another owner. live: that object."""

    def __init__(self, live: Object) -> None:
        super().__init__(f"{_name(live)} is owned by another")
        self.live = live


class Applier:
    """Applies rendered objects, and remembers in which state each was in sync. clock: returns monotonic seconds."""

    def __init__(self, cache: Cache, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._cluster = cluster
        self._clock = clock
        self._in_sync: dict[Key, dict[str, tuple[str, str]]] = {}
        self._tolerated: dict[str, frozenset[tuple[str, str]]] = {}
        """Differences that remain right after an apply: the API server normalizes a quantity, drops an unknown field, or has an
        admission webhook."""
        self._conflicts = Conflicts()

    def forget(self, key: Key) -> None:
        """Drop the state of an API that is deleted."""
        for uid in self._in_sync.pop(key, ()):
            self._conflicts.forget(uid)
            self._tolerated.pop(uid, None)

    async def apply(
        self, key: Key, api: API, child: Object, live: Object | None, result: ApplyResult
    ) -> None:
        """Apply a rendered object unless it is in sync.

        live: the cached object of its name, which this API owns. result: what to report is added to it. Raises NameTaken when an
        object of its name has another owner.
        """
        if live is None:
            created = await self._cluster.apply_new(self._with_first_replicas(key, api, child))
            if created is not None:
                await self._finish(key, child, created, result)
                return
            live = await self._get_existing(api, child)
        if not self._is_in_sync(key, child, live):
            uid, reverted = live["metadata"]["uid"], self._foreign_changes(key, child, live)
            if reverted and self._conflicts.pause(uid, self._clock(), _describe(reverted, child)):
                self._note_conflict(live, result)
                return
            applied = await self._write(key, api, child, live, result)
            left = {change.path for change in changes(applied, child)} if reverted else set()
            if reverted := [change for change in reverted if change.path not in left]:
                self._conflicts.count(uid, self._clock())
                result.events.append(
                    ("ChangeReverted", f"{_describe(reverted, child)}; the change was reverted. {ADVICE}.")
                )
        self._note_conflict(live, result)

    async def _get_existing(self, api: API, child: Object) -> Object:
        """Return an existing object of this API that the cache does not have, such as one without its labels."""
        metadata = child["metadata"]
        place = (child["apiVersion"], child["kind"], metadata["namespace"], metadata["name"])
        live = await self._cluster.get(*place)
        if live is None:
            raise ApiException(status=409, reason=f"{_name(child)} was deleted concurrently")
        if not is_owned(live, api):
            raise NameTaken(live)
        return live

    async def _write(self, key: Key, api: API, child: Object, live: Object, result: ApplyResult) -> Object:
        is_same = _applied_hash(live) == _applied_hash(child)
        unexpected = self._unexpected(child, live) if is_same else []
        if unexpected and all(change.pointer for change in unexpected):
            applied = live  # No field is missing, so removing the additions is enough.
        else:
            if _is_autoscaled(child) and _owns_replicas(live):
                await self._hand_over_replicas(key, api, child, live)
            applied = await self._cluster.apply(child)
        return await self._finish(key, child, applied, result)

    async def _finish(self, key: Key, child: Object, applied: Object, result: ApplyResult) -> Object:
        """Remove what others added to an object that was just written, and remember its state. Returns the live object."""
        found = changes(applied, child)
        if any(change.pointer for change in found):
            applied = await self._remove_additions(child, applied)
            found = changes(applied, child)
            if left := [change.path for change in found if change.item]:
                # The response still has them, so they were added on the way.
                text = (
                    f"an admission webhook adds {_list(left)} to {_name(child)} on every write, so they stay"
                )
                result.events.append(("ChangedByAdmission", text))
        uid = applied["metadata"]["uid"]
        self._in_sync.setdefault(key, {})[uid] = _token(child, applied)
        self._cache.put_child(applied)
        if found:
            self._tolerated[uid] = frozenset((change.path, change.value) for change in found)
        else:
            self._tolerated.pop(uid, None)
        return applied

    async def _remove_additions(self, child: Object, live: Object) -> Object:
        """Remove what others added. Raises ApiException (409) when they change the object faster than it can be read."""
        metadata = child["metadata"]
        for _ in range(ATTEMPTS):
            additions = [change for change in changes(live, child) if change.pointer]
            if not additions:
                return live
            try:
                return await self._cluster.patch(child, removal(live, additions))
            except ApiException as error:
                if error.status not in (409, 422):
                    raise
            place = (child["apiVersion"], child["kind"], metadata["namespace"], metadata["name"])
            if (fresh := await self._cluster.get(*place)) is None:
                break
            live = fresh
        raise ApiException(status=409, reason=f"{_name(child)} was modified concurrently")

    def _is_in_sync(self, key: Key, child: Object, live: Object) -> bool:
        """Return whether the live object is what was rendered: it has the same hash and was not changed since."""
        if live["metadata"].get("deletionTimestamp"):
            return False
        in_sync, uid, token = self._in_sync.setdefault(key, {}), live["metadata"]["uid"], _token(child, live)
        if in_sync.get(uid) == token:
            return True
        if _applied_hash(live) != token[0] or self._unexpected(child, live):
            return False
        in_sync[uid] = token
        return True

    def _unexpected(self, child: Object, live: Object) -> list[Change]:
        """Return the differences that did not exist after the last write."""
        tolerated = self._tolerated.get(live["metadata"]["uid"], frozenset())
        return [change for change in changes(live, child) if (change.path, change.value) not in tolerated]

    def _foreign_changes(self, key: Key, child: Object, live: Object) -> list[Change]:
        """Return what others changed; empty where this operator itself wants another state."""
        if live["metadata"].get("deletionTimestamp"):
            return []
        wanted = _applied_hash(child)
        before = self._in_sync.get(key, {}).get(live["metadata"]["uid"])
        if _applied_hash(live) != wanted:
            another = before is not None and before[0] == wanted
            return [Change("the spec", f"{MANAGER} of another operator", "")] if another else []
        unexpected = self._unexpected(child, live)
        if before is None:
            # The tolerated differences are not known yet.
            unexpected = [change for change in unexpected if change.manager or change.item]
        return unexpected

    def _note_conflict(self, live: Object, result: ApplyResult) -> None:
        if ongoing := self._conflicts.ongoing(live["metadata"]["uid"], self._clock()):
            description, seconds = ongoing
            result.requeue_after = (
                seconds if result.requeue_after is None else min(result.requeue_after, seconds)
            )
            text = f"{description} repeatedly, so the operator reverts it less and less often"
            result.problem = Problem("FieldsOverwritten", f"{text}. Stop the other writer. {ADVICE}.")

    def _with_first_replicas(self, key: Key, api: API, child: Object) -> Object:
        """Return an object as it is created: with the first number of replicas, which is handed over when it is next applied."""
        if not _is_autoscaled(child):
            return child
        return {**child, "spec": {**child["spec"], "replicas": self._first_replicas(key, api, child)}}

    def _first_replicas(self, key: Key, api: API, child: Object) -> int:
        if isinstance(api, AsyncAPI):
            is_gateway = child["metadata"]["name"] == child_name(api, GATEWAY)
            return gateway.initial_replicas(api) if is_gateway else initial_replicas(api)
        if not is_of_candidate(child):
            return initial_replicas(api)
        stable = self._cache.child(key, "Deployment", child_name(api)) or {}
        return candidate.initial_replicas(api, candidate_api(api), stable.get("spec", {}).get("replicas", 1))

    async def _hand_over_replicas(self, key: Key, api: API, child: Object, live: Object) -> None:
        """Give spec.replicas another field manager before we stop applying it; otherwise the API server resets it to 1."""
        identity = {
            "apiVersion": child["apiVersion"],
            "kind": child["kind"],
            "metadata": {"name": child["metadata"]["name"], "namespace": child["metadata"]["namespace"]},
        }
        replicas = live["spec"]["replicas"] or self._first_replicas(key, api, child)
        await self._cluster.apply({**identity, "spec": {"replicas": replicas}}, REPLICAS_MANAGER)


def _is_autoscaled(child: Object) -> bool:
    """Return whether a rendered object is a Deployment whose replicas an autoscaler sets."""
    return child["kind"] == "Deployment" and "replicas" not in child["spec"]


def _name(child: Object) -> str:
    return f"{child['kind']} {child['metadata']['name']}"


def _list(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more fields" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more


def _describe(found: list[Change], child: Object) -> str:
    """Return who changed which fields of an object."""
    managers = sorted({f'"{change.manager}"' for change in found if change.manager})
    writer = f"field manager {' and '.join(managers)}" if managers else "another writer"
    return f"{writer} changed {_list([change.path for change in found])} of {_name(child)}"


def _applied_hash(child: Object) -> str:
    return str((child["metadata"].get("annotations") or {}).get(APPLIED_HASH_ANNOTATION, ""))


def _token(child: Object, live: Object) -> tuple[str, str]:
    """Return the hash of what was applied, and the generation (or resource version) that it resulted in."""
    metadata = live["metadata"]
    return _applied_hash(child), str(metadata.get("generation") or metadata["resourceVersion"])


def _owns_replicas(deployment: Object) -> bool:
    """Return whether our field manager owns spec.replicas."""
    return any(map(owns_replicas, deployment["metadata"].get("managedFields", ())))
