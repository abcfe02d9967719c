"""The cost of an event: calls to the API server, and reconciliations of other APIs."""

from typing import Any

from cortex_operator.watch.cache import Cache, Key

from .test_any_order import World, resource

CODE = {
    "kind": "ConfigMap",
    "metadata": {"name": "code", "namespace": "default"},
    "data": {"handler.py": "1"},
}
SOURCE = {"handler": {"source": {"configMap": {"name": "code"}}}}


def one_of_many(number: int, status: int = 0, **metadata: str) -> tuple[Key, dict[str, Any]]:
    """Return an API with the same name, and so the same endpoint, in each namespace."""
    namespace = f"team-{number}"
    known = {"namespace": namespace, "name": "iris", "uid": f"u{number}", "resourceVersion": str(status + 1)}
    live = {"metadata": {**known, **metadata}, "spec": {}, "status": {"replicas": status}}
    return Key("RealtimeAPI", namespace, "iris"), live


def cache_of(count: int) -> Cache:
    cache = Cache()
    for number in range(count):
        cache.put_api(*one_of_many(number))
    return cache


async def test_changes_of_an_api_do_not_reread_its_code() -> None:
    world = World()
    world.cluster.put(CODE)
    world.cluster.put(resource("a", {**SOURCE, "replicas": 2}))
    await world.settle()
    reads, before = world.cluster.reads, world.cluster.objects["RealtimeAPI", "default", "a"]["status"]
    for replicas in (3, 4, 5):
        world.cluster.edit("RealtimeAPI", "a", {"spec": {"replicas": replicas}})
        await world.settle()
    assert world.cluster.objects["RealtimeAPI", "default", "a"]["status"] != before
    assert world.cluster.reads == reads


async def test_the_events_of_own_writes_cause_no_reconciliation() -> None:
    world = World()
    world.cluster.put(resource("a", {"replicas": 2}))
    world.deliver(0)
    (key,) = world.due
    await world.reconcile(key)
    assert {thing["kind"] for _, thing in world.pending} >= {"RealtimeAPI", "Deployment", "Service"}
    of_controllers = [
        (event, thing)
        for event, thing in world.pending
        if thing["kind"] == "Deployment" and "observedGeneration" in thing.get("status", {})
    ]
    world.pending = [one for one in world.pending if one not in of_controllers]
    while world.pending:
        world.deliver(0)
    assert world.due == set()


def test_a_status_affects_no_other_api_on_the_endpoint() -> None:
    cache = cache_of(100)
    concerned = [cache.put_api(*one_of_many(number, status=1)) for number in range(100)]
    assert concerned == [{one_of_many(number)[0]} for number in range(100)]


def test_adding_removing_or_replacing_an_api_affects_every_api_on_the_endpoint() -> None:
    cache, every_api = cache_of(3), {one_of_many(number)[0] for number in range(4)}
    assert cache.put_api(*one_of_many(3)) == every_api
    assert cache.put_api(*one_of_many(0, 1, uid="successor", creationTimestamp="2026-01-01")) == every_api
    assert cache.put_api(*one_of_many(3), deleted=True) == every_api
