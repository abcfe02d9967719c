"""What an event costs: calls to the API server, and APIs that are looked at again."""

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
    """An API that has the same name, and so the same endpoint, in each namespace."""
    namespace = f"team-{number}"
    known = {"namespace": namespace, "name": "iris", "uid": f"u{number}", "resourceVersion": str(status + 1)}
    live = {"metadata": {**known, **metadata}, "spec": {}, "status": {"replicas": status}}
    return Key("RealtimeAPI", namespace, "iris"), live


def cache_of(count: int) -> Cache:
    cache = Cache()
    for number in range(count):
        cache.put_api(*one_of_many(number))
    return cache


async def test_an_api_that_changes_and_is_reported_has_no_code_read_again() -> None:
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


async def test_code_that_went_unseen_is_missed_once_sources_are_forgotten() -> None:
    world = World()
    world.cluster.put(CODE)
    world.cluster.put(resource("a", SOURCE))
    await world.settle()
    del world.cluster.objects["ConfigMap", "default", "code"]
    world.due |= world.cache.drop_sources()
    await world.settle()
    assert world.refused("a")


def test_a_status_concerns_nobody_else_however_many_share_the_endpoint() -> None:
    cache = cache_of(100)
    concerned = [cache.put_api(*one_of_many(number, status=1)) for number in range(100)]
    assert concerned == [{one_of_many(number)[0]} for number in range(100)]


def test_who_comes_goes_or_is_replaced_concerns_all_at_the_endpoint() -> None:
    cache, everybody = cache_of(3), {one_of_many(number)[0] for number in range(4)}
    assert cache.put_api(*one_of_many(3)) == everybody
    assert cache.put_api(*one_of_many(0, 1, uid="successor", creationTimestamp="2026-01-01")) == everybody
    assert cache.put_api(*one_of_many(3), deleted=True) == everybody
