"""The queue of an AsyncAPI: its name, and its deletion with the API if `queue.deletionPolicy` is Delete, in every state of the
namespace, the spec and the operator."""

import copy
import json
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from cortex_api import AsyncAPI, parse
from cortex_operator.autoscaling.scaling_loop import Scaler
from cortex_operator.platform import Platform
from cortex_operator.reconcile import Reconciler, RetryLater
from cortex_operator.render import queue_deletion
from cortex_operator.watch.cache import Cache, Key

from .fake import FakeCluster

Object = dict[str, Any]
KEY = Key("AsyncAPI", "default", "jobs")
OWN = "cortex-system"


def platform(**queue: Any) -> Platform:
    return Platform.model_validate({"queue": queue or {"url": "nats://first:4222"}, "leaseNamespace": OWN})


def asyncapi(name: str = "jobs", created: str = "2026-01-01", **spec: Any) -> Object:
    source = {"files": {"handler.py": "x"}}
    return {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "AsyncAPI",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": created},
        "spec": {"handler": {"type": "python", "path": "handler.py", "source": source}, **spec},
    }


class World:
    """A cluster and an operator whose watches report immediately; pods in the namespace of the operator are not watched."""

    def __init__(self) -> None:
        self.cluster = FakeCluster(self._report)
        self.restart(platform())

    def restart(self, settings: Platform) -> None:
        """Start an operator with a filled cache."""
        self.cache = Cache()
        scaler = Scaler(self.cache, self.cluster, lambda key: None)  # type: ignore[arg-type]
        self.reconciler = Reconciler(self.cache, self.cluster, settings, scaler)  # type: ignore[arg-type]
        for thing in list(self.cluster.objects.values()):
            self._report("ADDED", copy.deepcopy(thing))

    def _report(self, event: str, thing: Object) -> None:
        if thing["kind"] == "AsyncAPI":
            key = Key("AsyncAPI", thing["metadata"]["namespace"], thing["metadata"]["name"])
            self.cache.put_api(key, thing, event == "DELETED")
        else:
            self.cache.put_child(thing, event == "DELETED")

    async def reconcile(self, key: Key = KEY) -> str | None:
        """Reconcile once. Returns why it must be retried."""
        try:
            await self.reconciler.reconcile(key)
        except (ApiException, RetryLater) as error:
            return str(error)
        return None

    async def created(self, manifest: Object) -> Object:
        self.cluster.put(manifest)
        await self.reconcile(Key("AsyncAPI", "default", manifest["metadata"]["name"]))
        return self.api(manifest["metadata"]["name"])

    def api(self, name: str = "jobs") -> Object:
        return self.cluster.objects["AsyncAPI", "default", name]

    def pods(self, namespace: str) -> list[Object]:
        found = self.cluster.objects.items()
        return [thing for (kind, place, _), thing in found if (kind, place) == ("Pod", namespace)]

    def pod(self, namespace: str) -> Object:
        (pod,) = self.pods(namespace)
        return pod

    def report_phase(self, pod: Object, phase: str, **status: Any) -> None:
        self.cluster._put({**pod, "status": {"phase": phase, **status}}, "MODIFIED")

    def end_namespace(self) -> None:
        """Delete everything in the namespace that has no finalizers, and reject new objects."""
        self.cluster.terminating.add("default")
        for kind, namespace, name in list(self.cluster.objects):
            if namespace == "default":
                self.cluster.remove(kind, name)

    def exists(self) -> bool:
        return ("AsyncAPI", "default", "jobs") in self.cluster.objects

    def message(self) -> str:
        return str(self.api()["status"]["conditions"][0]["message"])

    def queue(self, name: str = "jobs") -> str:
        """Return the queue that the pods use."""
        deployment = self.cluster.objects["Deployment", "default", f"api-{name}"]
        volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
        config_map = self.cluster.objects["ConfigMap", "default", volumes["config"]["configMap"]["name"]]
        document = json.loads(config_map["data"]["api.json"])
        return str(document["spec"].get("queue", {}).get("name") or document["name"])


@pytest.fixture
def world() -> World:
    return World()


DELETE = {"deletionPolicy": "Delete"}


async def test_with_delete_the_queue_is_named_after_the_uid(world: World) -> None:
    api = await world.created(asyncapi(queue=DELETE))
    assert world.queue() == api["metadata"]["uid"] == api["status"]["queueName"]


async def test_with_retain_a_recreated_api_has_its_queue(world: World) -> None:
    api = await world.created(asyncapi())
    assert world.queue() == "jobs" == api["status"]["queueName"]
    world.cluster.remove("AsyncAPI", "jobs")
    await world.created(asyncapi())
    assert world.queue() == "jobs"


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_a_queue_named_in_the_spec_is_used(world: World, policy: str) -> None:
    api = await world.created(asyncapi(queue={"deletionPolicy": policy, "name": "kept"}))
    assert world.queue() == "kept" == api["status"]["queueName"]


@pytest.mark.parametrize(("before", "after"), [("Retain", "Delete"), ("Delete", "Retain")])
async def test_a_change_of_the_deletion_policy_keeps_the_queue(world: World, before: str, after: str) -> None:
    await world.created(asyncapi(queue={"deletionPolicy": before}))
    queue = world.queue()
    world.restart(platform())
    await world.created(asyncapi(queue={"deletionPolicy": after}))
    assert world.queue() == queue


async def test_an_api_that_ran_before_queues_had_names_keeps_its_queue(world: World) -> None:
    api = await world.created(asyncapi())
    del api["status"]["queueName"]
    world.restart(platform())
    await world.created(asyncapi(queue=DELETE))
    assert world.queue() == "jobs"


async def test_two_apis_never_share_a_queue(world: World) -> None:
    await world.created(asyncapi("jobs"))
    second = await world.created(asyncapi("other", "2026-01-02", queue={"name": "jobs"}))
    assert second["status"]["conditions"][0]["reason"] == "QueueTaken"
    assert "AsyncAPI default/jobs" in second["status"]["conditions"][0]["message"]
    assert ("Deployment", "default", "api-other") not in world.cluster.objects
    world.cluster.remove("AsyncAPI", "jobs")
    assert await world.reconcile(Key("AsyncAPI", "default", "other")) is None
    assert world.queue("other") == "jobs"


async def test_an_api_is_deleted_after_a_pod_deleted_its_queue(world: World) -> None:
    uid = (await world.created(asyncapi(queue=DELETE)))["metadata"]["uid"]
    world.cluster.remove("AsyncAPI", "jobs")
    await world.reconcile()
    pod = world.pod("default")
    assert pod["spec"]["containers"][0]["args"][:2] == ["--queue", f"cortex-default-{uid}"]
    assert world.exists()
    world.report_phase(pod, "Succeeded")
    await world.reconcile()
    assert not world.exists()


async def test_the_queue_of_a_deleted_namespace_is_deleted_from_the_operators_namespace(world: World) -> None:
    uid = (await world.created(asyncapi(queue=DELETE)))["metadata"]["uid"]
    world.end_namespace()
    assert await world.reconcile() is not None, "the pod is not watched, so a retry must follow"
    pod = world.pod(OWN)
    assert pod["spec"]["containers"][0]["args"][:2] == ["--queue", f"cortex-default-{uid}"]
    assert world.exists()
    assert f"{OWN}/{pod['metadata']['name']}" in world.message()
    world.restart(platform())
    await world.reconcile()
    assert world.pod(OWN)["metadata"]["uid"] == pod["metadata"]["uid"], (
        "an operator that is started again goes on"
    )
    world.report_phase(pod, "Succeeded")
    assert await world.reconcile() is None
    assert not world.exists()
    assert world.pods(OWN) == []


async def test_a_namespace_deleted_during_the_deletion_of_a_queue_does_not_hang(world: World) -> None:
    await world.created(asyncapi(queue=DELETE))
    world.cluster.remove("AsyncAPI", "jobs")
    await world.reconcile()
    assert world.pod("default")
    world.end_namespace()
    await world.reconcile()
    world.report_phase(world.pod(OWN), "Succeeded")
    await world.reconcile()
    assert not world.exists()


@pytest.mark.parametrize("namespace_ends", [False, True])
async def test_a_corrected_url_unblocks_a_deletion(world: World, namespace_ends: bool) -> None:
    await world.created(asyncapi(queue=DELETE))
    place = OWN if namespace_ends else "default"
    if namespace_ends:
        world.end_namespace()
    else:
        world.cluster.remove("AsyncAPI", "jobs")
    await world.reconcile()
    failed = {
        "terminated": {"exitCode": 1, "message": '{"reason": "QueueUnreachable", "message": "no route"}'}
    }
    container = {"name": "destroy", "state": failed, "lastState": {}}
    world.report_phase(world.pod(place), "Running", containerStatuses=[container])
    await world.reconcile()
    assert "cannot be deleted" in world.message()
    assert "no route" in world.message()
    world.restart(platform(url="nats://second:4222"))
    await world.reconcile()
    await world.reconcile()
    (container,) = world.pod(place)["spec"]["containers"]
    assert {"name": "CORTEX_QUEUE_URL", "value": "nats://second:4222"} in container["env"]
    world.report_phase(world.pod(place), "Succeeded")
    await world.reconcile()
    assert not world.exists()


async def test_a_pod_that_the_cluster_rejects_is_reported_and_retried(world: World) -> None:
    await world.created(asyncapi(queue=DELETE))
    world.cluster.remove("AsyncAPI", "jobs")
    fault = ApiException(status=403, reason="Forbidden")
    fault.body = '{"message": "exceeded quota: pods"}'

    async def refuse(thing: Object) -> Object:
        raise fault

    create, world.cluster.create = world.cluster.create, refuse  # type: ignore[method-assign]
    await world.reconcile()
    world.cluster.create = create  # type: ignore[method-assign]
    assert "exceeded quota: pods" in world.message()
    await world.reconcile()
    assert world.pod("default")


async def test_retain_unblocks_a_deletion(world: World) -> None:
    await world.created(asyncapi(queue=DELETE))
    world.end_namespace()
    await world.reconcile()
    world.cluster.edit("AsyncAPI", "jobs", {"spec": {"queue": {"deletionPolicy": "Retain"}}})
    await world.reconcile()
    assert not world.exists()


async def test_a_queue_is_deleted_even_if_the_spec_is_invalid_for_this_version(world: World) -> None:
    uid = (await world.created(asyncapi(queue=DELETE)))["metadata"]["uid"]
    world.cluster.edit("AsyncAPI", "jobs", {"spec": {"fromTheFuture": 1}})
    world.cluster.remove("AsyncAPI", "jobs")
    await world.reconcile()
    assert f"cortex-default-{uid}" in world.pod(OWN)["spec"]["containers"][0]["args"]


def parsed(**spec: Any) -> AsyncAPI:
    manifest = asyncapi(**spec)
    manifest["metadata"]["uid"] = "u-1"
    api = parse(manifest)
    assert isinstance(api, AsyncAPI)
    return api


def test_a_pod_in_the_operators_namespace_has_nothing_of_the_spec() -> None:
    """Otherwise users who may write an AsyncAPI could run arbitrary code with the rights of the operator."""
    overlay = {
        "serviceAccountName": "cortex-operator",
        "hostNetwork": True,
        "containers": [{"name": "gateway", "image": "x"}],
    }
    settings = platform(url="nats://n:4222", secretName="queue")
    of_theirs = queue_deletion.in_namespace_of(parsed(pod=overlay), settings, "q")
    assert of_theirs["spec"]["serviceAccountName"] == "cortex-operator"
    own = queue_deletion.in_own_namespace("u-1", "default", settings, "q")
    assert "serviceAccountName" not in own["spec"]
    assert own["spec"]["automountServiceAccountToken"] is False
    assert own["spec"]["containers"][0]["image"] == settings.runtime_image
    names = [source["secretRef"]["name"] for source in own["spec"]["containers"][0]["envFrom"]]
    assert names == ["queue", "queue.default"]


def test_a_sidecar_of_the_overlay_does_not_block_the_deletion_of_a_queue() -> None:
    pod = queue_deletion.in_namespace_of(
        parsed(pod={"containers": [{"name": "proxy", "image": "p"}]}), platform(), "q"
    )
    assert [container["name"] for container in pod["spec"]["containers"]] == ["destroy"]


def test_the_deletion_of_a_queue_needs_no_object_that_may_be_deleted_first() -> None:
    webhook = {"url": "http://h", "secret": {"name": "signing", "key": "k"}}
    pod = queue_deletion.in_namespace_of(parsed(webhook=webhook), platform(), "q")
    assert "configMap" not in str(pod["spec"])
    assert "signing" not in str(pod["spec"])
