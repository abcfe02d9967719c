"""The wiring to kopf, and nothing else: every watch event goes into the cache, and the API that it is about into the queue.

Only `on.event` is used: it writes nothing to the watched objects, no finalizer and no annotation.
"""

from collections.abc import Mapping
from typing import Any

import kopf

from cortex_api import GROUP, KINDS, VERSION
from cortex_operator.cache import Cache, Key
from cortex_operator.render.names import API_LABEL
from cortex_operator.workqueue import WorkQueue

CHILDREN = (
    ("", "v1", "pods", "Pod"),
    ("", "v1", "services", "Service"),
    ("apps", "v1", "deployments", "Deployment"),
    ("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
)


def register(registry: kopf.OperatorRegistry, cache: Cache, queue: WorkQueue[Key]) -> None:
    """Have kopf watch both kinds, their children, and ConfigMaps."""
    for kind, model in KINDS.items():
        _watch_apis(registry, cache, queue, kind, model.plural)
    for group, version, plural, kind in CHILDREN:
        _watch_children(registry, cache, queue, group, version, plural, kind)

    @kopf.on.event("", "v1", "configmaps", registry=registry)
    async def on_config_map(event: Mapping[str, Any], **_: Any) -> None:
        live = {**event["object"], "apiVersion": "v1", "kind": "ConfigMap"}
        deleted = event["type"] == "DELETED"
        if key := cache.put_child(live, deleted):
            queue.add(key)
        for key in cache.put_source(live, deleted):
            queue.add(key)


def _watch_apis(
    registry: kopf.OperatorRegistry, cache: Cache, queue: WorkQueue[Key], kind: str, plural: str
) -> None:
    @kopf.on.event(GROUP, VERSION, plural, registry=registry, id=f"on_{plural}")
    async def on_api(event: Mapping[str, Any], **_: Any) -> None:
        live = {**event["object"], "apiVersion": f"{GROUP}/{VERSION}", "kind": kind}
        key = Key(kind, live["metadata"]["namespace"], live["metadata"]["name"])
        cache.put_api(key, None if event["type"] == "DELETED" else live)
        queue.add(key)


def _watch_children(
    registry: kopf.OperatorRegistry,
    cache: Cache,
    queue: WorkQueue[Key],
    group: str,
    version: str,
    plural: str,
    kind: str,
) -> None:
    @kopf.on.event(
        group, version, plural, labels={API_LABEL: kopf.PRESENT}, registry=registry, id=f"on_{plural}"
    )
    async def on_child(event: Mapping[str, Any], **_: Any) -> None:
        api_version = f"{group}/{version}" if group else version
        live = {**event["object"], "apiVersion": api_version, "kind": kind}
        if key := cache.put_child(live, event["type"] == "DELETED"):
            queue.add(key)
