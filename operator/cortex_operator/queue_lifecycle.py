"""Choose the queue of an AsyncAPI, and delete it with the API where `queue.deletionPolicy` is Delete.

With Retain the queue stays and the API has no finalizer. With Delete it has one: its pods are deleted, a pod deletes the queue
with all jobs and results, then the finalizer is removed. The finalizer is the only state, so a restarted operator continues.
"""

import logging
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse
from cortex_api.contract import APPLIED_HASH_ANNOTATION, DESTROY, QUEUE_FINALIZER, full_queue_name
from cortex_operator.cluster import Cluster, error_text, is_namespace_terminating
from cortex_operator.platform import Platform
from cortex_operator.render import queue_deletion
from cortex_operator.status import failures
from cortex_operator.status.conditions import Problem
from cortex_operator.status.status import component_of
from cortex_operator.watch.cache import Cache, Key

Object = dict[str, Any]
log = logging.getLogger("cortex.queue")

_HINT = "to delete the API and keep the queue, set queue.deletionPolicy: Retain"


class QueueLifecycle:
    """Chooses queues, keeps the finalizer, and deletes queues."""

    def __init__(self, cache: Cache, cluster: Cluster, platform: Platform) -> None:
        self._cache = cache
        self._cluster = cluster
        self._platform = platform

    async def name_queue(self, key: Key, api: AsyncAPI, live: Object) -> AsyncAPI | Problem:
        """Return the API with `spec.queue.name` set, or why it cannot have that queue.

        A name that the operator chose never changes: a name made of the UID is written to the status before a pod uses it, so
        that a later change of deletionPolicy does not change the queue.
        """
        name = queue_name(live)
        if name == live["metadata"]["uid"] and recorded_name(live) != name:
            status = {**(live.get("status") or {}), "queueName": name}
            written = await self._cluster.write_status(live, status)
            written = {**written, "apiVersion": live["apiVersion"], "kind": live["kind"]}
            self._cache.put_written_api(key, written, live)
            if recorded_name(written) != name:
                name = key.name  # The CRD is older than the field.
        if other := self._older_user(key, name, live):
            text = f"queue {name} is used by {other}, which is older: set another queue.name"
            return Problem("QueueTaken", text)
        if name == key.name:
            return api  # The default of the runtime: the pods do not change.
        queue = api.spec.queue.model_copy(update={"name": name})
        return api.model_copy(update={"spec": api.spec.model_copy(update={"queue": queue})})

    def _older_user(self, key: Key, name: str, live: Object) -> Key | None:
        wanted = full_queue_name(key.namespace, name)
        for other in self._cache.apis():
            if other.kind != key.kind or other == key:
                continue
            there = self._cache.api(other)
            shares = there is not None and full_queue_name(other.namespace, queue_name(there)) == wanted
            if there is not None and shares and _age(other, there) < _age(key, live):
                return other
        return None

    async def ensure_finalizer(self, key: Key, api: RealtimeAPI | AsyncAPI, live: Object) -> Object:
        """Add the finalizer, or remove it when the policy no longer needs it. Returns the resource after that."""
        wanted = isinstance(api, AsyncAPI) and api.spec.queue.deletion_policy == "Delete"
        finalizers = live["metadata"].get("finalizers", [])
        if wanted == (QUEUE_FINALIZER in finalizers):
            return live
        others = [name for name in finalizers if name != QUEUE_FINALIZER]
        return await self._write(key, live, [*others, QUEUE_FINALIZER] if wanted else others)

    async def delete_queue(self, key: Key, live: Object) -> tuple[Problem | None, bool]:
        """Delete the queue of an API that is being deleted, if its policy says so.

        Returns what the deletion still waits for, and whether a watch event follows when that changes.
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
            text = "the queue cannot be deleted because this cluster has none: set queue.url in the values of the chart"
            return f"{text} ({_HINT})", True
        for deployment in self._cache.children(key, "Deployment"):
            await self._cluster.delete({**deployment, "apiVersion": "apps/v1"})
        if any(component_of(pod) != DESTROY for pod in self._cache.children(key, "Pod")):
            return (
                "waiting for its pods to terminate; then its queue is deleted (queue.deletionPolicy: Delete)",
                True,
            )
        queue = full_queue_name(key.namespace, queue_name(live))
        try:
            api = parse(live)
            assert isinstance(api, AsyncAPI)
            return await self._run(queue_deletion.in_namespace_of(api, self._platform, queue), key)
        except InvalidManifest:
            pass  # Written for another version. Its queue section is enough.
        except ApiException as error:
            if not is_namespace_terminating(error):
                raise
        own = queue_deletion.in_own_namespace(live["metadata"]["uid"], key.namespace, self._platform, queue)
        waits_for, _ = await self._run(own)
        if waits_for is None:
            log.info("pod %s deleted the queue of %s", own["metadata"]["name"], key)
            return None, True
        place = own["metadata"]["namespace"]
        pod = f"{place}/{own['metadata']['name']}"
        text = f"namespace {key.namespace} accepts no pods, so pod {pod} deletes the queue: {waits_for}"
        if secret := self._platform.queue.secret_name:
            text += (
                f". Its credentials are in Secret {secret} or {secret}.{key.namespace} in namespace {place}"
            )
        return text, False

    async def _run(self, wanted: Object, key: Key | None = None) -> tuple[str | None, bool]:
        """Run a pod until it has succeeded. key: the API that it is cached for; None: the pod is not watched.

        Returns what the caller must wait for, and whether a watch event follows. Raises ApiException, also when the namespace is
        terminating.
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
                        f"its queue cannot be deleted: the cluster refuses pod {name}: {error_text(error)} ({_HINT})",
                        False,
                    )
                if error.status != 409:
                    raise
        elif not _is_current(pod, wanted):
            # The configuration, such as queue.url, has changed, and the spec of a pod is immutable.
            await self._cluster.delete({**pod, "apiVersion": "v1", "kind": "Pod"})
        elif pod.get("status", {}).get("phase") == "Succeeded":
            if key is None:
                # Before the finalizer is removed: the pod is not tracked afterwards, and deleting a queue twice is harmless.
                await self._cluster.delete({**pod, "apiVersion": "v1", "kind": "Pod"})
            return None, True
        elif failure := failures.of_pod(pod):
            return f"its queue cannot be deleted: {failure.message} ({_HINT})", True
        return "deleting its queue (queue.deletionPolicy: Delete)", True

    async def _write(self, key: Key, live: Object, finalizers: list[str]) -> Object:
        try:
            written = await self._cluster.write_finalizers(live, finalizers)
        except ApiException as error:
            if error.status == 404:
                return live
            raise
        written = {**written, "apiVersion": live["apiVersion"], "kind": live["kind"]}
        if not written["metadata"].get("deletionTimestamp"):
            self._cache.put_written_api(key, written, live)
        return written


def queue_name(live: Object) -> str:
    """Return the name of an AsyncAPI's queue within its namespace: that of its spec, or the recorded one. A new API has a queue
    of its own name with Retain, and of its UID with Delete.
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
    """Return the name of the queue that the status records."""
    return (live.get("status") or {}).get("queueName")


def _queue_of(live: Object) -> Object:
    queue = (live.get("spec") or {}).get("queue")
    return queue if isinstance(queue, dict) else {}


def _age(key: Key, live: Object) -> tuple[str, str, str]:
    return live["metadata"].get("creationTimestamp", ""), key.namespace, key.name


def _is_current(pod: Object, wanted: Object) -> bool:
    before = pod["metadata"].get("annotations", {}).get(APPLIED_HASH_ANNOTATION)
    return bool(before == wanted["metadata"]["annotations"][APPLIED_HASH_ANNOTATION])
