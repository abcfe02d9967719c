"""A new split reaches all stable replicas, although a kubelet may learn of the ConfigMap after the annotation of the pod."""

import json
from typing import Any

import pytest

from cortex_api.contract import CANDIDATE_PATH, SPLIT_FILE
from cortex_operator.candidate.delivery import CHECK_AFTER, GIVE_UP_AFTER, SplitDelivery

from .test_candidate_reconcile import KEY, Rollout

Object = dict[str, Any]


class Delivery:
    """The delivery of a split to one stable replica. weight: what the replica uses; None: no split; "": it does not respond."""

    def __init__(self, world: Rollout) -> None:
        self.world = world
        self.now = 1000.0
        self.weight: int | str | None = None
        self.asked = 0
        self.restart()

    def restart(self) -> None:
        cache, cluster = self.world.cache, self.world.cluster
        self.delivery = SplitDelivery(cache, cluster, self, lambda: self.now)  # type: ignore[arg-type]

    async def get(self, pod: Object, path: str) -> tuple[int, Any] | None:
        assert path == CANDIDATE_PATH
        self.asked += 1
        if self.weight == "":
            return None
        return (
            (404, {}) if self.weight is None else (200, {"version": "v", "weight": self.weight, "mirror": 0})
        )

    async def deliver(self, weight: int | None, after: float = 0.0) -> bool:
        """Deliver a split (None: it was deleted), and return whether the delivery is finished."""
        self.now += after
        content = {"version": "v", "weight": weight, "mirror": 0}
        split = None if weight is None else {"data": {SPLIT_FILE: json.dumps(content)}}
        await self.delivery.deliver(KEY, split)
        while self.world.pending:
            self.world.deliver(0)
        return self.delivery.seconds_until_check(KEY) is None


@pytest.fixture
async def delivery() -> Delivery:
    world = Rollout()
    await world.start()
    return Delivery(world)


async def test_a_replica_that_does_not_use_the_split_is_annotated_until_it_does(delivery: Delivery) -> None:
    annotations = [delivery.world.annotation]
    assert not await delivery.deliver(5)
    annotations.append(delivery.world.annotation)
    assert not await delivery.deliver(5, after=CHECK_AFTER / 2)
    assert (delivery.asked, delivery.world.annotation) == (0, annotations[-1])
    for _ in range(2):
        assert not await delivery.deliver(5, after=CHECK_AFTER)
        annotations.append(delivery.world.annotation)
    assert len(set(annotations)) == 4
    delivery.weight = 5
    assert await delivery.deliver(5, after=CHECK_AFTER)
    assert delivery.world.annotation == annotations[-1]
    writes, asked = delivery.world.cluster.writes, delivery.asked
    assert await delivery.deliver(5, after=1000)
    assert (delivery.world.cluster.writes, delivery.asked) == (writes, asked)


@pytest.mark.parametrize(("before", "wanted"), [(5, 50), (5, 0), (5, None), (None, 5)])
async def test_every_change_is_checked(delivery: Delivery, before: int | None, wanted: int | None) -> None:
    delivery.weight = before
    await delivery.deliver(before)
    assert await delivery.deliver(before, after=CHECK_AFTER)
    assert not await delivery.deliver(wanted)
    assert not await delivery.deliver(wanted, after=CHECK_AFTER)
    delivery.weight = wanted or None
    assert await delivery.deliver(wanted, after=CHECK_AFTER)


async def test_a_new_operator_checks_a_split_once_and_an_api_without_one_never(delivery: Delivery) -> None:
    assert await delivery.deliver(None)
    delivery.weight = 5
    await delivery.deliver(5)
    annotation = delivery.world.annotation
    delivery.restart()
    assert not await delivery.deliver(5)
    assert await delivery.deliver(5, after=CHECK_AFTER)
    assert (delivery.asked, delivery.world.annotation) == (1, annotation)


async def test_a_replica_that_does_not_respond_is_asked_again_without_a_write(delivery: Delivery) -> None:
    delivery.weight = ""
    await delivery.deliver(5)
    annotation = delivery.world.annotation
    assert not await delivery.deliver(5, after=CHECK_AFTER)
    assert delivery.world.annotation == annotation
    delivery.weight = 5
    assert await delivery.deliver(5, after=CHECK_AFTER)


async def test_a_replica_that_is_not_ready_is_told_again_as_well(delivery: Delivery) -> None:
    delivery.world.delete_pods("api-a")
    delivery.world.run_pod("api-a", ready=False)
    await delivery.deliver(5)
    annotation = delivery.world.annotation
    assert not await delivery.deliver(5, after=CHECK_AFTER)
    assert delivery.world.annotation != annotation


async def test_the_check_ends_when_the_kubelet_has_updated_the_file_in_any_case(delivery: Delivery) -> None:
    await delivery.deliver(5)
    assert await delivery.deliver(5, after=GIVE_UP_AFTER)


async def test_a_reconciliation_is_scheduled_for_the_check() -> None:
    world = Rollout()
    scheduled: list[float] = []
    await world.start({"weight": 5})
    world.reconciler._requeue_after = lambda key, seconds: scheduled.append(seconds)
    world.run_pod("api-a-candidate")
    await world.settle()
    assert world.split["weight"] == 5
    assert any(0 < seconds <= CHECK_AFTER for seconds in scheduled)


async def test_the_reconciliation_annotates_a_late_replica_again() -> None:
    world = Rollout()
    await world.serve({"weight": 5})
    delivery = world.reconciler._candidates._delivery
    names = ("requests", "errors", "compared", "differing", "failed", "mirror")
    world.replicas.counts = {"version": world.status["version"], "weight": 5, **dict.fromkeys(names, 0)}
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"candidate": {"weight": 6}}})
    await world.settle()
    seen = [world.annotation]
    for _ in range(2):
        world.now += CHECK_AFTER
        world.due.add(KEY)
        await world.settle()
        seen.append(world.annotation)
    assert len(set(seen)) == 3, seen
    world.replicas.counts["weight"] = 6
    world.now += CHECK_AFTER
    world.due.add(KEY)
    await world.settle()
    assert delivery.seconds_until_check(KEY) is None
    assert world.annotation == seen[-1]
