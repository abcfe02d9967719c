"""The history of an API in ControllerRevisions (operator/cortex_operator/revisions.py)."""

from typing import Any

import pytest

from cortex_api import parse
from cortex_api.contract import CHANGED_AT_ANNOTATION
from cortex_api.revision import restored, revised
from cortex_operator.revisions import KEPT, RETRY_AFTER, Revisions
from cortex_operator.watch.cache import Key

from .fake import FakeCluster
from .test_any_order import resource

Object = dict[str, Any]


class World:
    """An API whose specs become Ready one after the other."""

    def __init__(self) -> None:
        self.cluster = FakeCluster(lambda event, thing: None)
        self.revisions = Revisions(self.cluster)  # type: ignore[arg-type]
        self.generation = 0
        self.status: Object = {}

    async def ready(self, spec: Object, name: str = "a") -> float | None:
        self.generation += 1
        live = resource(name, spec)
        live["metadata"] |= {"uid": "u", "generation": self.generation}
        self.live = live
        return await self.revisions.record(parse(live), live, self.status)

    def history(self, name: str = "a") -> dict[int, Object]:
        """Return the specs of an API by the number of their revision."""
        found = [thing for place, thing in self.cluster.objects.items() if place[0] == "ControllerRevision"]
        of_api = [each for each in found if each["metadata"]["labels"]["cortex.dev/api"] == name]
        return {each["revision"]: each["data"]["spec"] for each in of_api}


def compute(cpu: int) -> Object:
    return {"compute": {"cpu": cpu}}


async def test_each_spec_that_was_ready_is_a_numbered_revision() -> None:
    world = World()
    for cpu in (1, 2, 3):
        await world.ready(compute(cpu))
    history = world.history()
    assert {number: spec["compute"] for number, spec in history.items()} == {n: {"cpu": n} for n in (1, 2, 3)}
    (last,) = (each for each in world.cluster.objects.values() if each["revision"] == 3)
    assert world.status["revision"] == last["metadata"]["name"]
    assert last["metadata"]["annotations"][CHANGED_AT_ANNOTATION].endswith("Z")
    assert last["metadata"]["ownerReferences"][0]["uid"] == "u"


async def test_replicas_paused_and_the_candidate_are_no_revision() -> None:
    world = World()
    await world.ready(compute(1))
    writes = world.cluster.writes
    for spec in ({"replicas": 5}, {"paused": True}, {"paused": True, "replicas": 3}):
        await world.ready({**compute(1), **spec})
    assert world.cluster.writes == writes
    assert revised({"candidate": {"weight": 5}, "handler": {}}) == {"handler": {}}
    assert restored({"candidate": 1, "replicas": 2, "compute": 3}, {"handler": 4}) == {
        "candidate": 1,
        "replicas": 2,
        "handler": 4,
    }


async def test_a_return_to_an_earlier_spec_gives_its_revision_the_highest_number() -> None:
    world = World()
    for cpu in (1, 2, 1):
        await world.ready(compute(cpu))
    assert {number: spec["compute"]["cpu"] for number, spec in world.history().items()} == {2: 2, 3: 1}


async def test_the_last_ten_are_kept() -> None:
    world = World()
    for cpu in range(1, 15):
        await world.ready(compute(cpu))
    assert sorted(world.history()) == list(range(5, 15))
    assert KEPT == 10


async def test_a_new_api_costs_one_call_and_an_unchanged_one_none() -> None:
    world = World()
    await world.ready(compute(1))
    assert (world.cluster.writes, world.cluster.reads) == (1, 0)
    world.revisions = Revisions(world.cluster)  # type: ignore[arg-type]  # The operator restarts.
    await world.ready(compute(1))
    assert (world.cluster.writes, world.cluster.reads) == (1, 0)


async def test_a_revision_whose_status_was_not_written_is_found_again() -> None:
    world = World()
    await world.ready(compute(1))
    name = world.status["revision"]
    world.status = {}  # The operator exited before it wrote the status.
    await world.ready(compute(1))
    assert world.status["revision"] == name
    assert list(world.history()) == [1]


async def test_revisions_of_two_apis_are_numbered_separately() -> None:
    world = World()
    for cpu in (1, 2):
        await world.ready(compute(cpu))
    world.status = {}
    await world.ready(compute(7), "b")
    assert (sorted(world.history("a")), sorted(world.history("b"))) == ([1, 2], [1])


@pytest.mark.parametrize("status", [403, 500])
async def test_a_refused_write_is_retried_and_does_not_affect_the_api(status: int) -> None:
    world = World()
    world.cluster.fault = lambda: status
    assert await world.ready(compute(1)) == RETRY_AFTER
    assert "revision" not in world.status
    world.cluster.fault = lambda: None
    assert await world.ready(compute(1)) is None
    assert list(world.history()) == [1]


async def test_a_replaced_api_of_the_same_name_is_recorded_again() -> None:
    world = World()
    await world.ready(compute(1))
    first = world.status.pop("revision")
    world.revisions.forget(Key("RealtimeAPI", "default", "a"))
    world.cluster.remove("ControllerRevision", first)
    world.generation = 0
    await world.ready(compute(2))
    assert [spec["compute"]["cpu"] for spec in world.history().values()] == [2]
