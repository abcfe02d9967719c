"""The kopf handlers: every watch event goes into the cache, and the API that it concerns into the work queue.

Only `on.event` is used, because it writes nothing to the watched objects: no finalizer and no annotation.
"""

from collections.abc import Callable, Mapping
from typing import Any

import kopf

from cortex_api import GROUP, KINDS, VERSION
from cortex_api.contract import API_LABEL
from cortex_operator.kinds import ChildKind, child_kinds
from cortex_operator.platform import Platform
from cortex_operator.watch.cache import Cache, Key
from cortex_operator.workqueue import WorkQueue


def register(
    registry: kopf.OperatorRegistry,
    cache: Cache,
    queue: WorkQueue[Key],
    platform: Platform,
    on_relist: Callable[[], None],
) -> None:
    """Register handlers for both kinds of API, their objects, and ConfigMaps.

    on_relist: called when a watch starts with a list, which does not show what was deleted before.
    """
    for kind, model in KINDS.items():
        _watch_apis(registry, cache, queue, kind, model.plural, on_relist)
    for child in child_kinds(platform):
        _watch_children(registry, cache, queue, child, on_relist)

    @kopf.on.event("", "v1", "configmaps", registry=registry)
    async def on_config_map(event: Mapping[str, Any], **_: Any) -> None:
        live = {**event["object"], "apiVersion": "v1", "kind": "ConfigMap"}
        if event["type"] is None:
            on_relist()
        deleted = event["type"] == "DELETED"
        if key := cache.put_child(live, deleted):
            queue.add(key)
        for key in cache.put_source(live, deleted):
            queue.add(key)


def selectors(platform: Platform) -> dict[tuple[str, str, str], str]:
    """Return the label selector of each watched kind. ConfigMaps have none, because users own some of them."""
    return {(c.group, c.version, c.plural): API_LABEL for c in child_kinds(platform)}


def _watch_apis(
    registry: kopf.OperatorRegistry,
    cache: Cache,
    queue: WorkQueue[Key],
    kind: str,
    plural: str,
    on_relist: Callable[[], None],
) -> None:
    @kopf.on.event(GROUP, VERSION, plural, registry=registry, id=f"on_{plural}")
    async def on_api(event: Mapping[str, Any], **_: Any) -> None:
        live = {**event["object"], "apiVersion": f"{GROUP}/{VERSION}", "kind": kind}
        key = Key(kind, live["metadata"]["namespace"], live["metadata"]["name"])
        if event["type"] is None:
            on_relist()
        for affected in cache.put_api(key, live, event["type"] == "DELETED"):
            queue.add(affected, urgent=affected == key and _is_awaited(live))


def _is_awaited(live: Mapping[str, Any]) -> bool:
    """Return whether the status is of an older generation: a user may wait for this one."""
    observed = live.get("status", {}).get("observedGeneration")
    return bool(observed != live["metadata"].get("generation"))


def _watch_children(
    registry: kopf.OperatorRegistry,
    cache: Cache,
    queue: WorkQueue[Key],
    child: ChildKind,
    on_relist: Callable[[], None],
) -> None:
    @kopf.on.event(child.group, child.version, child.plural, registry=registry, id=f"on_{child.plural}")
    async def on_child(event: Mapping[str, Any], **_: Any) -> None:
        live = {**event["object"], "apiVersion": child.api_version, "kind": child.kind}
        if event["type"] is None:
            on_relist()
        if key := cache.put_child(live, event["type"] == "DELETED"):
            queue.add(key)
