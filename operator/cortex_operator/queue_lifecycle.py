"""Which queue an AsyncAPI uses, and what becomes of it when the API is deleted.

With `queue.deletionPolicy: Retain` the queue stays: the operator is not even asked. With Delete, and only then, the API has a
finalizer: its pods end, a pod removes the queue with all jobs and results, and then the API may go. The finalizer is the only
memory of that, so an operator that is started again goes on where the last one was.
"""

import logging
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse
from cortex_api.contract import APPLIED_HASH_ANNOTATION, DESTROY, QUEUE_FINALIZER
from cortex_operator.cluster import Cluster, error_text, is_namespace_terminating
from cortex_operator.platform import Platform
from cortex_operator.render import destroy
from cortex_operator.status import failures
from cortex_operator.status.conditions import Problem
from cortex_operator.status.status import component_of
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]
log = logging.getLogger("cortex.queue")

_HINT = "queue.deletionPolicy: Retain lets the API go and keeps the queue"


class QueueLifecycle:
    """Chooses queues, keeps the finalizer as `queue.deletionPolicy` says, and keeps the promise behind it."""

    def __init__(self, cache: Cache, cluster: Cluster, platform: Platform) -> None:
        self._cache = cache
        self._cluster = cluster
        self._platform = platform

    async def name_queue(self, key: Key, api: AsyncAPI, live: Object) -> AsyncAPI | Problem:
        """The API with `spec.queue.name` filled in, or why it can't have that queue.

        A name that the operator chooses is the same for as long as the API lives: an API's own UID is written into the status
        before any pod uses it, so that a later change of deletionPolicy leaves the API with its queue.
        """
        name = queue_name(live)
        if name == live["metadata"]["uid"] and recorded_name(live) != name:
            status = {**(live.get("status") or {}), "queueName": name}
            written = await self._cluster.write_status(live, status)
            self._cache.put_api(key, {**written, "apiVersion": live["apiVersion"], "kind": live["kind"]})
            if recorded_name(written) != name:
                name = key.name  # The CRD is older than the field.
        if other := self._older_user(key, name, live):
            text = f"queue {name} is the one of {other}, which is older: set another queue.name"
            return Problem("QueueTaken", text)
        if name == key.name:
            return api  # As it was before queues had names of their own, so that no pod changes.
        queue = api.spec.queue.model_copy(update={"name": name})
        return api.model_copy(update={"spec": api.spec.model_copy(update={"queue": queue})})

    def _older_user(self, key: Key, name: str, live: Object) -> Key | None:
        wanted = full_name(key, name)
        for other in self._cache.apis():
            if other.kind != key.kind or other == key:
                continue
            there = self._cache.api(other)
            shares = there is not None and full_name(other, queue_name(there)) == wanted
            if there is not None and shares and _age(other, there) < _age(key, live):
                return other
        return None

    async def ensure_finalizer(self, key: Key, api: RealtimeAPI | AsyncAPI, live: Object) -> Object:
        """Add the finalizer, or take it away when it is not wanted any more. Returns the resource as it is then."""
        wanted = isinstance(api, AsyncAPI) and api.spec.queue.deletion_policy == "Delete"
        finalizers = live["metadata"].get("finalizers", [])
        if wanted == (QUEUE_FINALIZER in finalizers):
            return live
        others = [name for name in finalizers if name != QUEUE_FINALIZER]
        return await self._write(key, live, [*others, QUEUE_FINALIZER] if wanted else others)

    async def delete_queue(self, key: Key, live: Object) -> tuple[Problem | None, bool]:
        """Remove the queue of an API that is being deleted, if that was asked for.

        Returns what the deletion still waits for, and whether a watch event follows when that has changed.
        """
        finalizers = live["metadata"].get("finalizers", [])
        if QUEUE_FINALIZER not in finalizers:
            return None, True
        waits_for, watched = await self._remove(key, live)
        if waits_for:
            return Problem("Deleting", waits_for, is_transient=_HINT not in waits_for), watched
        await self._write(key, live, [name for name in finalizers if name != QUEUE_FINALIZER])
        return None, True

    async def _remove(self, key: Key, live: Object) -> tuple[str | None, bool]:
        if _queue_of(live).get("deletionPolicy") != "Delete":
            return None, True
        if self._platform.queue is None:
            text = "the queue can't be removed, for this cluster has none: set queue.url in the values of the chart"
            return f"{text} ({_HINT})", True
        for deployment in self._cache.children(key, "Deployment"):
            await self._cluster.delete({**deployment, "apiVersion": "apps/v1"})
        if any(component_of(pod) != DESTROY for pod in self._cache.children(key, "Pod")):
            return "its pods end, then its queue is removed (queue.deletionPolicy: Delete)", True
        queue = full_name(key, queue_name(live))
        try:
            api = parse(live)
            assert isinstance(api, AsyncAPI)
            return await self._run(destroy.in_namespace_of(api, self._platform, queue), key)
        except InvalidManifest:
            pass  # It is of another version. What it says of its queue is enough.
        except ApiException as error:
            if not is_namespace_terminating(error):
                raise
        own = destroy.in_own_namespace(live["metadata"]["uid"], key.namespace, self._platform, queue)
        waits_for, _ = await self._run(own)
        if waits_for is None:
            log.info("the queue of %s is removed by pod %s", key, own["metadata"]["name"])
            return None, True
        place = own["metadata"]["namespace"]
        text = f"namespace {key.namespace} takes no pods, so pod {place}/{own['metadata']['name']} does it: {waits_for}"
        if secret := self._platform.queue.secret_name:
            text += (
                f". Its credentials are in Secret {secret} or {secret}.{key.namespace} of namespace {place}"
            )
        return text, False

    async def _run(self, wanted: Object, key: Key | None = None) -> tuple[str | None, bool]:
        """Run a pod until it has succeeded. key: the API that it is cached for; None: it is watched by nobody.

        Returns what there is to wait for, and whether a watch event follows. Raises ApiException, also when the namespace ends.
        """
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        pod = self._cache.child(key, "Pod", name) if key is not None else None
        if pod is None:
            pod = await self._cluster.get("v1", "Pod", namespace, name)
        if pod is None or pod["metadata"].get("deletionTimestamp"):
            try:
                await self._cluster.create(wanted)
            except ApiException as error:
                if error.status in (403, 422) and not is_namespace_terminating(error):
                    return (
                        f"its queue can't be removed: the cluster refuses pod {name}: {error_text(error)} ({_HINT})",
                        False,
                    )
                if error.status != 409:
                    raise
        elif not _is_current(pod, wanted):
            # Its queue.url, image or the like has been corrected since, and a pod's can't be changed.
            await self._cluster.delete({**pod, "apiVersion": "v1", "kind": "Pod"})
        elif pod.get("status", {}).get("phase") == "Succeeded":
            if key is None:
                # Before the finalizer goes: nothing would remind of the pod afterwards, and a second removal does no harm.
                await self._cluster.delete({**pod, "apiVersion": "v1", "kind": "Pod"})
            return None, True
        elif failure := failures.of_pod(pod):
            return f"its queue can't be removed: {failure.message} ({_HINT})", True
        return "its queue is being removed (queue.deletionPolicy: Delete)", True

    async def _write(self, key: Key, live: Object, finalizers: list[str]) -> Object:
        try:
            written = await self._cluster.write_finalizers(live, finalizers)
        except ApiException as error:
            if error.status == 404:
                return live
            raise
        written = {**written, "apiVersion": live["apiVersion"], "kind": live["kind"]}
        if not written["metadata"].get("deletionTimestamp"):
            self._cache.put_api(key, written)
        return written


def queue_name(live: Object) -> str:
    """The name of an AsyncAPI's queue within its namespace: what its spec says, or what it has had so far. A new API has the
    queue of its own name with Retain, and one of its UID with Delete.
    """
    if given := _queue_of(live).get("name"):
        return str(given)
    if known := recorded_name(live):
        return known
    ran_before_names = "url" in (live.get("status") or {})
    if _queue_of(live).get("deletionPolicy") != "Delete" or ran_before_names:
        return str(live["metadata"]["name"])
    return str(live["metadata"]["uid"])


def recorded_name(live: Object) -> str | None:
    """The name of the queue in the status."""
    return (live.get("status") or {}).get("queueName")


def full_name(key: Key, name: str) -> str:
    """As the queue's server has it, for all namespaces."""
    return f"cortex-{key.namespace}-{name}"


def _queue_of(live: Object) -> Object:
    queue = (live.get("spec") or {}).get("queue")
    return queue if isinstance(queue, dict) else {}


def _age(key: Key, live: Object) -> tuple[str, str, str]:
    return live["metadata"].get("creationTimestamp", ""), key.namespace, key.name


def _is_current(pod: Object, wanted: Object) -> bool:
    before = pod["metadata"].get("annotations", {}).get(APPLIED_HASH_ANNOTATION)
    return bool(before == wanted["metadata"]["annotations"][APPLIED_HASH_ANNOTATION])
