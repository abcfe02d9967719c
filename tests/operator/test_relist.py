"""A watch that restarts lists the existing objects: objects that were deleted in between are found, and no other object is
dropped."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kopf._cogs.clients.watching import Bookmark

from cortex_operator.kinds import API_KINDS, CONFIG_MAP, ObjectKind, child_kinds
from cortex_operator.watch.cache import Key
from cortex_operator.watch.handlers import EventHandler
from cortex_operator.workqueue import WorkQueue

from .test_any_order import PLATFORM, World, resource
from .test_cost import CODE, SOURCE

Object = dict[str, Any]
A, B = Key("RealtimeAPI", "default", "a"), Key("RealtimeAPI", "default", "b")
KINDS = {kind.kind: kind for kind in (*API_KINDS, *child_kinds(PLATFORM), CONFIG_MAP)}


class Due(WorkQueue[Key]):
    """The APIs that were added."""

    def __init__(self) -> None:
        self.keys: set[Key] = set()

    def add(self, key: Key, urgent: bool = False) -> None:
        self.keys.add(key)


async def interrupted() -> World:
    """Return a settled world with two APIs, the first with code in a ConfigMap of the user."""
    world = World()
    world.cluster.put(CODE)
    world.cluster.put(resource("a", SOURCE))
    world.cluster.put(resource("b", {}))
    await world.settle()
    return world


async def listing(world: World, kind: ObjectKind, complete: bool = True) -> AsyncIterator[Bookmark | Object]:
    for (of, _, _), thing in list(world.cluster.objects.items()):
        if of == kind.kind:
            yield {"type": None, "object": thing}
    if complete:
        yield Bookmark.LISTED
        yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "99"}}}


async def relist(world: World, namespace: str | None = None, complete: bool = True) -> set[Key]:
    """Start all watches again. Returns the APIs that must be reconciled."""
    world.pending.clear()
    due = Due()
    for kind in KINDS.values():
        events = listing(world, kind, complete)
        await EventHandler(world.cache, due).follow(kind, namespace, events)
    return due.keys


async def test_no_object_is_dropped_while_all_exist() -> None:
    world = await interrupted()
    assert await relist(world) == set()
    assert {A, B} == set(world.cache.apis())
    assert world.cache.child(A, "Deployment", "api-a")
    assert world.cache.source(A, "code")


@pytest.mark.parametrize("kind", ["Deployment", "Service", "HTTPRoute", "ConfigMap"])
async def test_a_deleted_object_is_created_again(kind: str) -> None:
    world = await interrupted()
    before = set(world.cluster.objects)
    deleted = next(place for place in before if place[0] == kind and place[2].startswith("api-b"))
    del world.cluster.objects[deleted]
    world.due |= await relist(world)
    assert world.due == {B}
    await world.settle()
    assert set(world.cluster.objects) == before


async def test_a_deleted_api_is_dropped() -> None:
    world = await interrupted()
    del world.cluster.objects["RealtimeAPI", "default", "b"]
    assert B in await relist(world)
    assert world.cache.api(B) is None


async def test_deleted_code_is_reported() -> None:
    world = await interrupted()
    del world.cluster.objects["ConfigMap", "default", "code"]
    world.due |= await relist(world)
    await world.settle()
    assert world.refused("a")
    assert not world.refused("b")


async def test_an_incomplete_list_drops_no_object() -> None:
    world = await interrupted()
    world.cluster.objects.clear()
    assert await relist(world, complete=False) == set()
    assert {A, B} == set(world.cache.apis())


async def test_the_list_of_a_namespace_does_not_affect_another() -> None:
    world = await interrupted()
    world.cluster.objects.clear()
    assert await relist(world, namespace="other") == set()
    assert {A, B} == set(world.cache.apis())


async def test_an_object_that_is_created_during_the_list_is_kept() -> None:
    world = await interrupted()

    async def events() -> AsyncIterator[Bookmark | Object]:
        world.cache.put_api(
            Key("RealtimeAPI", "default", "new"), {"metadata": {**new, "name": "new"}, "spec": {}}
        )
        async for event in listing(world, KINDS["RealtimeAPI"]):
            yield event

    new = {"namespace": "default", "uid": "new", "resourceVersion": "1000"}
    await EventHandler(world.cache, Due()).follow(KINDS["RealtimeAPI"], None, events())
    assert world.cache.api(Key("RealtimeAPI", "default", "new")) is not None


async def test_an_invalid_object_does_not_stop_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    world, due = World(), Due()

    async def events() -> AsyncIterator[Object]:
        yield {"type": "ADDED", "object": {"metadata": {}}}
        yield {"type": "ADDED", "object": {"metadata": {"name": "a", "namespace": "default"}, "spec": {}}}

    await EventHandler(world.cache, due).follow(KINDS["RealtimeAPI"], None, events())
    assert due.keys == {A}
    assert "an event of RealtimeAPI cannot be handled" in caplog.text
