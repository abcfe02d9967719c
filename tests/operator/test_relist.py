"""What was deleted while a watch was interrupted is found, and nothing else is dropped from the cache."""

import pytest

from cortex_operator.watch.cache import Key
from cortex_operator.watch.relist import Relister

from .test_any_order import PLATFORM, World, resource
from .test_cost import CODE, SOURCE

A, B = Key("RealtimeAPI", "default", "a"), Key("RealtimeAPI", "default", "b")


async def interrupted() -> World:
    """Return a settled world with two APIs, the first with code in a ConfigMap of the user."""
    world = World()
    world.cluster.put(CODE)
    world.cluster.put(resource("a", SOURCE))
    world.cluster.put(resource("b", {}))
    await world.settle()
    return world


async def relist(world: World) -> set[Key]:
    world.pending.clear()
    return await Relister(world.cache, world.cluster, PLATFORM).drop_deleted()  # type: ignore[arg-type]


async def test_nothing_is_dropped_while_everything_exists() -> None:
    world = await interrupted()
    reads = world.cluster.reads
    assert await relist(world) == set()
    assert world.cluster.reads - reads == 9, "one list of each kind"
    assert {A, B} == set(world.cache.apis())
    assert world.cache.child(A, "Deployment", "api-a")
    assert world.cache.source(A)


@pytest.mark.parametrize("kind", ["Deployment", "Service", "HTTPRoute", "ConfigMap"])
async def test_a_deleted_object_is_created_again(kind: str) -> None:
    world = await interrupted()
    del world.cluster.objects[kind, "default", "api-b"]
    world.due |= await relist(world)
    assert world.due == {B}
    await world.settle()
    assert (kind, "default", "api-b") in world.cluster.objects


async def test_a_deleted_api_is_dropped() -> None:
    world = await interrupted()
    del world.cluster.objects["RealtimeAPI", "default", "b"]
    assert B in await relist(world)
    assert world.cache.api(B) is None
    assert world.cache.all_children(B) == []


async def test_deleted_code_is_reported() -> None:
    world = await interrupted()
    del world.cluster.objects["ConfigMap", "default", "code"]
    world.due |= await relist(world)
    await world.settle()
    assert world.refused("a")
    assert not world.refused("b")
