"""Changes by other writers are reverted and reported, with backoff."""

import copy
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from cortex_operator.autoscaling.scaling_loop import Scaler
from cortex_operator.platform import Platform
from cortex_operator.reconcile import Reconciler
from cortex_operator.watch.cache import Cache, Key

from .fake import FakeCluster
from .test_any_order import resource

Object = dict[str, Any]
KEY = Key("RealtimeAPI", "default", "a")
SIDECAR = {"name": "proxy", "image": "p"}


class World:
    """A cluster with an API, and an operator whose watches report immediately."""

    def __init__(self) -> None:
        self.now = 0.0
        self.requeued: list[float] = []
        self.cluster = FakeCluster(self._report)
        self.restart()
        self.cluster.put(resource("a", {}))

    def restart(self) -> None:
        self.cache = Cache()
        scaler = Scaler(self.cache, self.cluster, lambda key: None)  # type: ignore[arg-type]
        self.reconciler = Reconciler(
            self.cache,
            self.cluster,  # type: ignore[arg-type]
            Platform(),
            scaler,
            requeue_after=lambda key, seconds: self.requeued.append(seconds),
            clock=lambda: self.now,
        )
        for thing in list(self.cluster.objects.values()):
            self._report("ADDED", copy.deepcopy(thing))

    def _report(self, event: str, thing: Object) -> None:
        if thing["kind"] == "RealtimeAPI":
            self.cache.put_api(KEY, thing, event == "DELETED")
        else:
            self.cache.put_child(thing, event == "DELETED")

    async def reconcile(self) -> None:
        await self.reconciler.reconcile(KEY)

    @property
    def deployment(self) -> Object:
        return self.cluster.objects["Deployment", "default", "api-a"]

    @property
    def containers(self) -> list[str]:
        return [container["name"] for container in self.deployment["spec"]["template"]["spec"]["containers"]]

    def add_sidecar(self) -> None:
        template = copy.deepcopy(self.deployment["spec"]["template"])
        if SIDECAR not in template["spec"]["containers"]:
            template["spec"]["containers"].append(SIDECAR)
        self.cluster.edit("Deployment", "api-a", {"spec": {"template": template}})

    def events_of(self, reason: str) -> list[str]:
        return [event["message"] for event in self.cluster.events if event["reason"] == reason]

    def condition(self, kind: str) -> Object:
        conditions = self.cluster.objects["RealtimeAPI", "default", "a"]["status"]["conditions"]
        return next(condition for condition in conditions if condition["type"] == kind)


@pytest.fixture
async def world() -> World:
    world = World()
    await world.reconcile()
    await world.reconcile()
    return world


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_addition_is_removed_in_one_write(world: World, restarted: bool) -> None:
    world.add_sidecar()
    if restarted:
        world.restart()
    generation = world.deployment["metadata"]["generation"]
    await world.reconcile()
    assert world.containers == ["api"]
    assert world.deployment["metadata"]["generation"] == generation + 1
    assert len(world.events_of("ChangeReverted")) == 1
    writes = world.cluster.writes
    await world.reconcile()
    assert world.cluster.writes == writes


async def test_an_addition_is_removed_despite_concurrent_writes_of_controllers(world: World) -> None:
    world.add_sidecar()
    patch = world.cluster.patch

    async def late(thing: Object, operations: list[Object]) -> Object:
        world.cluster.patch = patch  # type: ignore[method-assign]
        raise ApiException(status=422)

    world.cluster.patch = late  # type: ignore[method-assign]
    await world.reconcile()
    assert world.containers == ["api"]


async def test_additions_of_admission_webhooks_stay_and_are_reported_once(world: World) -> None:
    def inject(thing: Object) -> None:
        if thing["kind"] == "Deployment" and SIDECAR not in thing["spec"]["template"]["spec"]["containers"]:
            thing["spec"]["template"]["spec"]["containers"].append(SIDECAR)

    world.cluster.admission = inject
    world.cluster.edit("Deployment", "api-a", {"spec": {"paused": False, "progressDeadlineSeconds": 1}})
    for _ in range(3):
        await world.reconcile()
    assert world.containers == ["api", "proxy"]
    (message,) = world.events_of("ChangedByAdmission")
    assert "containers[name=proxy] to Deployment api-a" in message
    writes = world.cluster.writes
    for _ in range(3):
        await world.reconcile()
    assert world.cluster.writes == writes
    assert world.condition("Degraded")["reason"] != "FieldsOverwritten"


async def test_a_value_that_the_server_normalizes_is_not_a_change(world: World) -> None:
    def normalize(thing: Object) -> None:
        if thing["kind"] == "Deployment":
            (container,) = thing["spec"]["template"]["spec"]["containers"]
            container["resources"] = {"requests": {"cpu": "200m"}, "written": "otherwise"}
            container["imagePullPolicy"] = "Always"

    world.cluster.admission = normalize
    world.cluster.put(resource("a", {"compute": {"cpu": "0.2"}}))
    await world.reconcile()
    for replicas in range(2, 8):
        world.cluster.edit("Deployment", "api-a", {"spec": {"paused": replicas % 2 == 0}})
        writes = world.cluster.writes
        await world.reconcile()
        assert world.cluster.writes == writes
    assert world.events_of("ChangeReverted") == []
    world.cluster.admission = lambda thing: None
    changed = copy.deepcopy(world.deployment["spec"]["template"])
    changed["spec"]["containers"][0]["imagePullPolicy"] = "Never"
    world.cluster.edit("Deployment", "api-a", {"spec": {"template": changed}})
    await world.reconcile()
    assert len(world.events_of("ChangeReverted")) == 1


async def test_a_persistent_writer_is_named_and_backed_off_from(world: World) -> None:
    for _ in range(50):
        world.add_sidecar()
        await world.reconcile()
        world.now += 0.1
    assert world.containers[:2] == ["api", "proxy"]
    assert len(world.events_of("ChangeReverted")) == 3
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "FieldsOverwritten")
    assert "containers[name=proxy] of Deployment api-a" in degraded["message"]
    assert 0 < world.requeued[-1] <= 10
    world.now += world.requeued[-1]
    await world.reconcile()
    assert world.containers == ["api"], "the operator has the last word once the other stops"
    assert world.condition("Degraded")["reason"] == "FieldsOverwritten"
    world.now += world.requeued[-1]
    await world.reconcile()
    assert "FieldsOverwritten" not in str(world.condition("Ready"))


async def test_conflicts_with_an_operator_of_the_same_field_manager_are_backed_off(world: World) -> None:
    for turn in range(20):
        other = {"metadata": {"annotations": {"cortex.dev/applied-hash": "theirs"}}, "spec": {"other": turn}}
        world.cluster.edit("Deployment", "api-a", other)
        await world.reconcile()
        world.now += 0.1
    assert len(world.events_of("ChangeReverted")) == 3
    assert "cortex-operator of another operator" in world.condition("Degraded")["message"]


async def test_a_change_of_the_spec_is_not_a_conflict(world: World) -> None:
    for replicas in range(20):
        world.cluster.put(resource("a", {"replicas": replicas}))
        await world.reconcile()
    assert world.events_of("ChangeReverted") == []
    assert world.deployment["spec"]["replicas"] == 19
