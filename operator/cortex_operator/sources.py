"""Find the ConfigMap with the code of an API or of its candidate."""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_operator.cluster import Cluster
from cortex_operator.status.conditions import Problem
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]


async def find_source(
    cache: Cache, cluster: Cluster, key: Key, api: RealtimeAPI | AsyncAPI
) -> Object | Problem | None:
    """Return the ConfigMap that `handler.source.configMap` names, or the problem that it does not exist; None without one."""
    source = api.spec.handler.source
    if source is None or source.config_map is None:
        return None
    name = source.config_map.name
    found = cache.source(key, name)
    if found is None:
        found = await cluster.get("v1", "ConfigMap", key.namespace, name)
        if found is None:
            return _missing(key, name)
        cache.put_read_source(found)
    return found


def _missing(key: Key, name: str) -> Problem:
    text = (
        f'ConfigMap "{name}" (handler.source.configMap) is not in namespace {key.namespace}: create it with'
        f" `cortex pack FOLDER --name {name} | kubectl apply -n {key.namespace} --server-side -f -`"
    )
    return Problem("SourceUnavailable", text)
