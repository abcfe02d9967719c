"""With two operators that have their own Leases, one manages an API and the other ignores it."""

from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from cortex_operator.autoscaling.scaling_loop import Scaler
from cortex_operator.leadership import other_operators
from cortex_operator.platform import Platform
from cortex_operator.reconcile import Reconciler
from cortex_operator.watch.cache import Cache, Key

from .fake import FakeCluster
from .test_any_order import resource

Object = dict[str, Any]
KEY = Key("RealtimeAPI", "default", "a")


class Operator:
    """An operator whose watches report immediately."""

    def __init__(self, cluster: FakeCluster, namespace: str | None) -> None:
        self.cache = Cache()
        platform = Platform.model_validate({"leaseNamespace": namespace})
        scaler = Scaler(self.cache, cluster, lambda key: None)  # type: ignore[arg-type]
        self.reconciler = Reconciler(self.cache, cluster, platform, scaler)  # type: ignore[arg-type]

    def report(self, event: str, thing: Object) -> None:
        if thing["kind"] == "RealtimeAPI":
            self.cache.put_api(KEY, thing, event == "DELETED")
        else:
            self.cache.put_child(thing, event == "DELETED")


class Clock:
    """A fake of the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class World:
    def __init__(self) -> None:
        self.operators: list[Operator] = []
        self.cluster = FakeCluster(lambda event, thing: [o.report(event, thing) for o in self.operators])

    def add(self, namespace: str | None) -> Operator:
        self.operators.append(Operator(self.cluster, namespace))
        return self.operators[-1]

    def renew(self, namespace: str, when: str) -> None:
        metadata = {"name": "cortex-operator", "namespace": namespace}
        spec = {"holderIdentity": "one", "renewTime": when}
        self.cluster.objects["Lease", namespace, "cortex-operator"] = {
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec,
        }


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(other_operators, "time", clock)
    return clock


@pytest.fixture
async def world() -> World:
    """A cluster with an API that the operator in namespace one manages."""
    world = World()
    first = world.add("one")
    world.renew("one", "1")
    world.cluster.put(resource("a", {}))
    await first.reconciler.reconcile(KEY)
    await first.reconciler.reconcile(KEY)
    return world


def catch_up(world: World, operator: Operator) -> None:
    for thing in list(world.cluster.objects.values()):
        if thing["kind"] != "Lease":
            operator.report("ADDED", thing)


@pytest.mark.parametrize("namespace", ["two", None])
async def test_apis_of_another_operator_are_ignored(
    world: World, clock: Clock, namespace: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    second = world.add(namespace)
    catch_up(world, second)
    writes = world.cluster.writes
    for when in range(2, 12):
        world.renew("one", str(when))
        await second.reconciler.reconcile(KEY)
        clock.now += 60
    assert world.cluster.writes == writes
    assert KEY in second.cache.managed_elsewhere
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "the operator in namespace one manages RealtimeAPI default/a" in warning
    assert "watchNamespaces" in warning


async def test_of_two_operators_that_start_together_one_manages_the_api(clock: Clock) -> None:
    world = World()
    both = [world.add("one"), world.add("two")]
    for namespace in ("one", "two"):
        world.renew(namespace, "1")
    world.cluster.put(resource("a", {}))
    # Neither operator has objects of the other in its cache before both have written.
    report = both[1].report
    both[1].report = lambda event, thing: None  # type: ignore[method-assign]
    await both[0].reconciler.reconcile(KEY)
    await both[1].reconciler.reconcile(KEY)
    both[1].report = report  # type: ignore[method-assign]
    catch_up(world, both[1])
    for _ in range(5):
        for operator in both:
            await operator.reconciler.reconcile(KEY)
    assert [KEY in operator.cache.managed_elsewhere for operator in both] == [True, False]
    writes = world.cluster.writes
    for operator in both:
        await operator.reconciler.reconcile(KEY)
    assert world.cluster.writes == writes


async def test_apis_of_a_stopped_operator_are_adopted(world: World, clock: Clock) -> None:
    second = world.add("two")
    catch_up(world, second)
    await second.reconciler.reconcile(KEY)
    assert KEY in second.cache.managed_elsewhere
    clock.now += other_operators.ADOPT_AFTER - 1
    await second.reconciler.reconcile(KEY)
    assert KEY in second.cache.managed_elsewhere, "a restart or an update is no reason"
    clock.now += other_operators.PERIOD
    await second.reconciler.reconcile(KEY)
    assert KEY not in second.cache.managed_elsewhere
    mark = world.cluster.objects["Deployment", "default", "api-a"]["metadata"]["annotations"]
    assert mark["cortex.dev/operator"] == "two"


async def test_apis_of_an_operator_without_a_lease_are_adopted_immediately(
    world: World, clock: Clock
) -> None:
    second = world.add("two")
    catch_up(world, second)
    del world.cluster.objects["Lease", "one", "cortex-operator"]
    await second.reconciler.reconcile(KEY)
    assert KEY not in second.cache.managed_elsewhere


async def test_apis_are_not_adopted_when_the_lease_cannot_be_read(world: World, clock: Clock) -> None:
    second = world.add("two")
    catch_up(world, second)
    get = world.cluster.get

    async def forbidden(api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        if kind == "Lease":
            raise ApiException(status=403)
        return await get(api_version, kind, namespace, name)

    world.cluster.get = forbidden  # type: ignore[method-assign]
    await second.reconciler.reconcile(KEY)
    assert KEY in second.cache.managed_elsewhere


async def test_own_apis_cause_no_reads_of_a_lease(world: World) -> None:
    reads = world.cluster.reads
    await world.operators[0].reconciler.reconcile(KEY)
    assert world.cluster.reads == reads
