"""The reconciliation: what is wanted of one API against what there is.

Level-triggered: it may be called at any time, any number of times, and asks not what happened but how things are.

    read the resource → render its children → apply those that differ → delete those that are no longer rendered → report
"""

import copy
import logging
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse
from cortex_operator import status
from cortex_operator.cache import Cache, Key, source_name
from cortex_operator.cluster import MANAGER, REPLICAS_MANAGER, Cluster
from cortex_operator.platform import Platform
from cortex_operator.render import render
from cortex_operator.render.deployment import birth_replicas
from cortex_operator.render.names import HASH_ANNOTATION
from cortex_operator.status import Observed, Problem

Object = dict[str, Any]
log = logging.getLogger("cortex.reconcile")

PRUNED = ("ConfigMap", "HorizontalPodAutoscaler")
"""Kinds that an API has at some times and not at others."""


class Reconciler:
    """Reconciles one API at a time, whichever it is given."""

    def __init__(self, cache: Cache, cluster: Cluster, platform: Platform) -> None:
        self._cache = cache
        self._cluster = cluster
        self._platform = platform
        self._settled: dict[tuple[str, str], tuple[str, str]] = {}

    async def reconcile(self, key: Key) -> None:
        """Bring one API's children and status to what its resource says. Raises ApiException; then it is to be called again."""
        live = self._cache.api(key)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return  # Its children are garbage-collected.
        rendered = await self._render(key, live)
        if isinstance(rendered, Problem):
            await self._report(live, status.refused(live, rendered))
            return
        api, children = rendered
        try:
            for child in children:
                await self._apply(key, api, child)
        except NotOurs as taken:
            await self._report(live, status.refused(live, Problem("NameTaken", str(taken))))
            return
        except ApiException as error:
            if error.status == 403 and "being terminated" in str(error.body):
                return  # The namespace goes, and the API with it.
            raise
        await self._prune(key, children)
        await self._report(live, status.compute(api, live, self._observe(key)))

    async def _render(self, key: Key, live: Object) -> tuple[RealtimeAPI, list[Object]] | Problem:
        try:
            api = parse(live)
        except InvalidManifest as error:
            return Problem("InvalidSpec", str(error))
        if isinstance(api, AsyncAPI):
            return Problem("Unsupported", "this version of the operator runs RealtimeAPIs only")
        if api.spec.handler.type == "tensorflow":
            return Problem(
                "Unsupported",
                "this version of the runtime has no handler.type tensorflow: use python or onnx",
            )
        name = source_name(live)
        source = self._cache.source(key)
        if name and source is None:
            source = await self._cluster.get("v1", "ConfigMap", key.namespace, name)
            if source is None:
                message = f'ConfigMap "{name}" (handler.source.configMap) is not in namespace {key.namespace}: create it'
                return Problem("SourceUnavailable", message)
            self._cache.put_source(source)
        return api, render(api, self._platform, source)

    async def _apply(self, key: Key, api: RealtimeAPI, child: Object) -> None:
        """Apply a child unless it is as it should be already."""
        kind, name = child["kind"], child["metadata"]["name"]
        live = next((c for c in self._cache.children(key, kind) if c["metadata"]["name"] == name), None)
        if live is None:
            live = await self._cluster.get(child["apiVersion"], kind, key.namespace, name)
        if live is not None:
            self._check_owner(live, api)
            if self._is_settled(child, live):
                return
        if kind == "Deployment" and "replicas" not in child["spec"]:
            await self._hand_over_replicas(api, child, live)
        applied = await self._cluster.apply(child)
        self._settled[applied["metadata"]["uid"], name] = _token(child, applied)
        self._cache.put_child(applied)

    def _is_settled(self, child: Object, live: Object) -> bool:
        """Whether a live child is what was rendered: the same fingerprint, and nobody has edited it since."""
        if live["metadata"].get("deletionTimestamp"):
            return False
        place = (live["metadata"]["uid"], live["metadata"]["name"])
        token = _token(child, live)
        if self._settled.get(place) == token:
            return True
        same = live["metadata"].get("annotations", {}).get(HASH_ANNOTATION) == token[0]
        if same and contains(live, child):
            self._settled[place] = token
            return True
        return False

    def _check_owner(self, live: Object, api: RealtimeAPI) -> None:
        owners = live["metadata"].get("ownerReferences", ())
        if not any(owner["uid"] == api.metadata.uid for owner in owners):
            what = f"{live['kind']} {live['metadata']['name']}"
            raise NotOurs(
                f"{what} exists and is not this API's: rename the API, or delete the {live['kind']}"
            )

    async def _hand_over_replicas(self, api: RealtimeAPI, child: Object, live: Object | None) -> None:
        """Give spec.replicas a holder before it leaves what we apply; else the API server would set it back to 1."""
        if live is None:
            born = copy.deepcopy(child)
            born["spec"]["replicas"] = birth_replicas(api)
            live = await self._cluster.apply(born)
        if not _holds_replicas(live):
            return
        identity = {
            "apiVersion": child["apiVersion"],
            "kind": child["kind"],
            "metadata": {"name": child["metadata"]["name"], "namespace": child["metadata"]["namespace"]},
        }
        replicas = live["spec"]["replicas"] or birth_replicas(api)
        await self._cluster.apply({**identity, "spec": {"replicas": replicas}}, REPLICAS_MANAGER)

    async def _prune(self, key: Key, children: list[Object]) -> None:
        wanted = {(child["kind"], child["metadata"]["name"]) for child in children}
        for kind in PRUNED:
            for child in self._cache.children(key, kind):
                if (kind, child["metadata"]["name"]) not in wanted:
                    group = {"ConfigMap": "v1", "HorizontalPodAutoscaler": "autoscaling/v2"}[kind]
                    await self._cluster.delete({**child, "apiVersion": group})

    def _observe(self, key: Key) -> Observed:
        deployment = next(iter(self._cache.children(key, "Deployment")), None)
        hpa = next(iter(self._cache.children(key, "HorizontalPodAutoscaler")), None)
        return Observed(deployment, hpa, self._cache.children(key, "Pod"))

    async def _report(self, live: Object, wanted: Object) -> None:
        """Write the status if it says anything new, and tell of a new reason by an Event."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for condition in wanted["conditions"]:
            condition["lastTransitionTime"] = condition["lastTransitionTime"] or now
        if wanted == live.get("status"):
            return
        before = _ready(live.get("status") or {})
        after = _ready(wanted)
        try:
            written = await self._cluster.write_status(live, wanted)
        except ApiException as error:
            if error.status in (404, 409):
                return  # Deleted, or deleted and made again: the watch will tell.
            raise
        metadata = live["metadata"]
        key = Key(live["kind"], metadata["namespace"], metadata["name"])
        if (current := self._cache.api(key)) and current["metadata"]["uid"] == metadata["uid"]:
            current["status"] = written.get("status")
        if (before.get("status"), before.get("reason")) != (after["status"], after["reason"]):
            await self._cluster.write_event(_event(live, after, now))


class NotOurs(Exception):
    """An object of the child's name exists and has another owner."""


def contains(live: Any, wanted: Any) -> bool:
    """Whether everything in `wanted` stands in `live` as well; live may have more fields, but no more list items."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(k in live and contains(live[k], v) for k, v in wanted.items())
    if isinstance(wanted, list):
        same = isinstance(live, list) and len(live) == len(wanted)
        return same and all(contains(a, b) for a, b in zip(live, wanted, strict=True))
    return live == wanted


def _token(child: Object, live: Object) -> tuple[str, str]:
    """What was applied, and the state that it was applied to: a generation where the kind has one."""
    metadata = live["metadata"]
    state = metadata.get("generation") or metadata["resourceVersion"]
    return child["metadata"]["annotations"][HASH_ANNOTATION], str(state)


def _holds_replicas(deployment: Object) -> bool:
    """Whether spec.replicas is ours by server-side apply."""
    return any(
        entry.get("manager") == MANAGER
        and entry.get("operation") == "Apply"
        and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields", ())
    )


def _ready(status: Object) -> Object:
    return next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})


def _event(live: Object, ready: Object, now: str) -> Object:
    metadata = live["metadata"]
    fine = ready["status"] == "True" or ready["reason"] in ("Starting", "Paused", "ScaledToZero")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": live["apiVersion"],
            "kind": live["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": "Normal" if fine else "Warning",
        "reason": ready["reason"],
        "message": ready["message"][:1024],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
