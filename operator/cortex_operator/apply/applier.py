"""Brings one child to what was rendered, by server-side apply, and sets back what others have changed of it.

Nothing is asked or written for a child that is as it should be already: that is judged by what the watches have told.
"""

import copy
import time
from dataclasses import dataclass, field
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import APPLIED_HASH_ANNOTATION, GATEWAY
from cortex_operator.apply.conflicts import Conflicts
from cortex_operator.apply.drift import Change, changes, removal
from cortex_operator.cluster import MANAGER, REPLICAS_MANAGER, Cluster
from cortex_operator.render import gateway
from cortex_operator.render.deployment import initial_replicas
from cortex_operator.render.names import child_name
from cortex_operator.status.conditions import Problem
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]
API = RealtimeAPI | AsyncAPI

ATTEMPTS = 5
"""Times that additions are removed before the reconciliation begins again, while others change the object."""
TO_ADD = "To add to the pods, use spec.pod of the API"


@dataclass
class ApplyResult:
    """What there is to tell of a reconciliation's children. events: reason and message. again: seconds until the children should
    be looked at again, though nothing may happen; None when that is not needed."""

    events: list[tuple[str, str]] = field(default_factory=list)
    problem: Problem | None = None
    requeue_after: float | None = None


class Applier:
    """Applies children, one API after the other."""

    def __init__(self, cache: Cache, cluster: Cluster) -> None:
        self._cache = cache
        self._cluster = cluster
        self._in_sync: dict[Key, dict[str, tuple[str, str]]] = {}
        self._tolerated: dict[str, frozenset[tuple[str, str]]] = {}
        """Paths and values that are not what was applied, though nobody has changed it since: the API server writes a quantity in
        another way, does not know a field, or has an admission webhook."""
        self._conflicts = Conflicts()

    def forget(self, key: Key) -> None:
        """The API is gone, and its children with it."""
        for uid in self._in_sync.pop(key, ()):
            self._conflicts.forget(uid)
            self._tolerated.pop(uid, None)

    async def find(self, key: Key, child: Object) -> Object | None:
        """What there is under the name of a child, whoever's it is."""
        kind, name = child["kind"], child["metadata"]["name"]
        if known := self._cache.child(key, kind, name):
            return known
        try:
            return await self._cluster.get(child["apiVersion"], kind, key.namespace, name)
        except ApiException as error:
            if error.status == 403:
                return None  # Nor may it be applied, which is reported then.
            raise

    async def apply(self, key: Key, api: API, child: Object, live: Object | None, told: ApplyResult) -> None:
        """Apply a child unless it is as it should be. live: what there is under its name. told: what to tell is added to it."""
        if live is None:
            await self._write(key, api, child, live, told)
            return
        if not self._is_in_sync(key, child, live):
            uid, reverted = live["metadata"]["uid"], self._foreign_changes(key, child, live)
            if reverted and self._conflicts.pause(uid, time.monotonic(), _describe(reverted, child)):
                self._note_conflict(live, told)
                return
            applied = await self._write(key, api, child, live, told)
            left = {change.path for change in changes(applied, child)} if reverted else set()
            if reverted := [change for change in reverted if change.path not in left]:
                self._conflicts.count(uid, time.monotonic())
                told.events.append(
                    ("ChangeReverted", f"{_describe(reverted, child)}; it is set back. {TO_ADD}.")
                )
        self._note_conflict(live, told)

    async def _write(
        self, key: Key, api: API, child: Object, live: Object | None, told: ApplyResult
    ) -> Object:
        odd = (
            self._unexpected(child, live)
            if live is not None and _fingerprint(live) == _fingerprint(child)
            else []
        )
        if live is not None and odd and all(change.pointer for change in odd):
            applied = live  # Nothing is missing, so a removal is enough.
        else:
            if child["kind"] == "Deployment" and "replicas" not in child["spec"]:
                await self._hand_over_replicas(api, child, live)
            applied = await self._cluster.apply(child)
        if any(change.pointer for change in changes(applied, child)):
            applied = await self._remove_additions(child, applied)
            if left := [change.path for change in changes(applied, child) if change.item]:
                # What the answer still has was put back on its way.
                text = f"an admission webhook adds {_list(left)} to {_name(child)} whenever it is written, so that stays"
                told.events.append(("ChangedByAdmission", text))
        uid = applied["metadata"]["uid"]
        self._in_sync.setdefault(key, {})[uid] = _token(child, applied)
        self._cache.put_child(applied)
        if usual := frozenset((change.path, change.value) for change in changes(applied, child)):
            self._tolerated[uid] = usual
        else:
            self._tolerated.pop(uid, None)
        return applied

    async def _remove_additions(self, child: Object, live: Object) -> Object:
        """Raises ApiException (409) when others change the object faster than it can be read."""
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
        raise ApiException(status=409, reason=f"{_name(child)} was changed meanwhile")

    def _is_in_sync(self, key: Key, child: Object, live: Object) -> bool:
        """Whether a live child is what was rendered: the same fingerprint, and nobody has changed it since."""
        if live["metadata"].get("deletionTimestamp"):
            return False
        settled, uid, token = self._in_sync.setdefault(key, {}), live["metadata"]["uid"], _token(child, live)
        if settled.get(uid) == token:
            return True
        if _fingerprint(live) != token[0] or self._unexpected(child, live):
            return False
        settled[uid] = token
        return True

    def _unexpected(self, child: Object, live: Object) -> list[Change]:
        """What is not as it was when it was last written."""
        usual = self._tolerated.get(live["metadata"]["uid"], frozenset())
        return [change for change in changes(live, child) if (change.path, change.value) not in usual]

    def _foreign_changes(self, key: Key, child: Object, live: Object) -> list[Change]:
        """What others have changed of a child; nothing where it is this operator that asks for another state."""
        if live["metadata"].get("deletionTimestamp"):
            return []
        wanted = _fingerprint(child)
        before = self._in_sync.get(key, {}).get(live["metadata"]["uid"])
        if _fingerprint(live) != wanted:
            another = before is not None and before[0] == wanted
            return [Change("its state", f"{MANAGER} of another operator", "")] if another else []
        odd = self._unexpected(child, live)
        if before is None:
            # What is usual is not known yet.
            odd = [change for change in odd if change.manager or change.item]
        return odd

    def _note_conflict(self, live: Object, told: ApplyResult) -> None:
        if ongoing := self._conflicts.ongoing(live["metadata"]["uid"], time.monotonic()):
            words, seconds = ongoing
            told.requeue_after = seconds if told.requeue_after is None else min(told.requeue_after, seconds)
            text = f"{words} again each time that it was set back, so the operator waits longer and longer in between"
            told.problem = Problem("FieldsOverwritten", f"{text}. Stop the other writer. {TO_ADD}.")

    async def _hand_over_replicas(self, api: API, child: Object, live: Object | None) -> None:
        """Give spec.replicas a holder before it leaves what we apply; else the API server would set it back to 1."""
        first = initial_replicas(api)
        if isinstance(api, AsyncAPI) and child["metadata"]["name"] == child_name(api, GATEWAY):
            first = gateway.initial_replicas(api)
        if live is None:
            born = copy.deepcopy(child)
            born["spec"]["replicas"] = first
            live = await self._cluster.apply(born)
        if not _owns_replicas(live):
            return
        identity = {
            "apiVersion": child["apiVersion"],
            "kind": child["kind"],
            "metadata": {"name": child["metadata"]["name"], "namespace": child["metadata"]["namespace"]},
        }
        replicas = live["spec"]["replicas"] or first
        await self._cluster.apply({**identity, "spec": {"replicas": replicas}}, REPLICAS_MANAGER)


def _name(child: Object) -> str:
    return f"{child['kind']} {child['metadata']['name']}"


def _list(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more fields" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more


def _describe(found: list[Change], child: Object) -> str:
    """Who changed which fields of a child."""
    managers = sorted({f'"{change.manager}"' for change in found if change.manager})
    who = f"field manager {' and '.join(managers)}" if managers else "another writer"
    return f"{who} changed {_list([change.path for change in found])} of {_name(child)}"


def _fingerprint(child: Object) -> str:
    return str((child["metadata"].get("annotations") or {}).get(APPLIED_HASH_ANNOTATION, ""))


def _token(child: Object, live: Object) -> tuple[str, str]:
    """What was applied, and the state that it was applied to: a generation where the kind has one."""
    metadata = live["metadata"]
    return _fingerprint(child), str(metadata.get("generation") or metadata["resourceVersion"])


def _owns_replicas(deployment: Object) -> bool:
    """Whether spec.replicas is ours by server-side apply."""
    return any(
        entry.get("manager") == MANAGER
        and entry.get("operation") == "Apply"
        and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields", ())
    )
