"""Events in any order, repeated events and failed writes all lead to the objects and the status of the last spec."""

import asyncio
import contextlib
import itertools
import math
from typing import Any

from hypothesis import example, given, note, settings
from hypothesis import strategies as st
from kubernetes.aio.client.exceptions import ApiException

from cortex_operator.autoscaling.scaling_loop import Scaler
from cortex_operator.platform import Platform
from cortex_operator.reconcile import Reconciler, RetryLater
from cortex_operator.watch.cache import Cache, Key

from .fake import FakeCluster

Object = dict[str, Any]
NAMES = ("a", "b")
SPECS: list[Object] = [
    {},
    {"replicas": 2},
    {"autoscaling": {"minReplicas": 2}},
    {"paused": True},
    {"networking": {"endpoint": "/same"}},
    {"handler": {"source": {"files": {"handler.py": "other"}}}},
    {"handler": {"source": {"configMap": {"name": "code"}}}},
    {"replicas": 2, "autoscaling": {}},
]
EDITS: dict[str, Object] = {
    "Deployment": {"spec": {"progressDeadlineSeconds": 1}},
    "Service": {"spec": {"type": "NodePort"}},
}
PLATFORM = Platform.model_validate({"gateway": {"name": "g", "namespace": "n", "hostname": "h"}})


def resource(name: str, spec: Object) -> Object:
    handler = {"type": "python", "path": "handler.py", "source": {"files": {"handler.py": "x"}}}
    return {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {
            "name": name,
            "namespace": "default",
            "creationTimestamp": f"2026-01-0{NAMES.index(name) + 1}",
        },
        "spec": {**spec, "handler": {**handler, **spec.get("handler", {})}},
    }


class World:
    """A cluster, an operator, and the watch events that are not delivered yet. Time passes in `settle_later` alone."""

    def __init__(self) -> None:
        self.now = 0.0
        self.later: dict[Key, float] = {}
        self.pending: list[tuple[str, Object]] = []
        self.cluster = FakeCluster(lambda event, thing: self.pending.append((event, thing)))
        self.cache = Cache()
        self.due: set[Key] = set()
        scaler = Scaler(self.cache, self.cluster, self.due.add)  # type: ignore[arg-type]
        self.reconciler = Reconciler(
            self.cache,
            self.cluster,  # type: ignore[arg-type]
            PLATFORM,
            scaler,
            requeue_after=self.requeue_after,
            clock=self.clock,
        )

    def clock(self) -> float:
        return self.now

    def requeue_after(self, key: Key, seconds: float) -> None:
        self.later[key] = min(self.now + seconds, self.later.get(key, math.inf))

    def deliver(self, index: int, again: bool = False) -> None:
        """Deliver the oldest event of one kind, since each kind has its own watch. again: keep it for a second delivery."""
        if not self.pending:
            return
        kinds = list(dict.fromkeys(thing["kind"] for _, thing in self.pending))
        kind = kinds[index % len(kinds)]
        place = next(i for i, (_, thing) in enumerate(self.pending) if thing["kind"] == kind)
        event, thing = self.pending[place]
        if not again:
            del self.pending[place]
        deleted = event == "DELETED"
        key = Key(thing["kind"], "default", thing["metadata"]["name"])
        if thing["kind"] == "RealtimeAPI":
            self.due |= self.cache.put_api(key, thing, deleted)
        elif owner := self.cache.put_child(thing, deleted):
            self.due.add(owner)
        if thing["kind"] == "ConfigMap":
            self.due |= self.cache.put_source(thing, deleted)

    async def reconcile(self, key: Key) -> None:
        self.due.discard(key)
        try:
            await self.reconciler.reconcile(key)
        except (ApiException, RetryLater):
            self.due.add(key)

    async def settle(self) -> None:
        """Deliver all events and reconcile until nothing is due."""
        self.cluster.fault = lambda: None
        for _ in range(200):
            self.cluster.collect()
            while self.pending:
                self.deliver(0)
            if not self.due:
                return
            await self.reconcile(min(self.due, key=str))
        raise AssertionError(f"never at rest: {self.due}")

    async def settle_later(self) -> None:
        """Settle now, and at each time for which a reconciliation is scheduled, until none is."""
        await self.settle()
        for _ in range(200):
            if not self.later:
                return
            key = min(self.later, key=lambda key: self.later[key])
            self.now = max(self.now, self.later.pop(key))
            self.due.add(key)
            await self.settle()
        raise AssertionError(f"always scheduled again: {self.later}")

    def refused(self, name: str) -> bool:
        """Return whether the spec of an API cannot be rendered."""
        live = self.cluster.objects.get(("RealtimeAPI", "default", name), {})
        conditions = live.get("status", {}).get("conditions", ())
        return any(c["reason"] in ("InvalidSpec", "SourceUnavailable") for c in conditions)

    def seen(self) -> dict[str, Any]:
        """Return children and statuses without fields that count writes. Of a rejected API only the rejection is compared:
        previous objects stay."""
        found = {}
        refused = [api for api in NAMES if self.refused(api)]
        for (kind, _, name), thing in sorted(self.cluster.objects.items()):
            if any(name == f"api-{api}" or name.startswith(f"api-{api}-") for api in refused):
                continue
            if kind == "RealtimeAPI" and name in refused:
                thing = {**thing, "status": {"conditions": thing["status"]["conditions"]}}
            content = {key: thing.get(key) for key in ("spec", "data", "status")}
            for condition in (content["status"] or {}).get("conditions", ()):
                for ticking in ("lastTransitionTime", "observedGeneration"):
                    condition.pop(ticking, None)
            (content["status"] or {}).pop("observedGeneration", None)
            # The autoscaler changes the number of replicas from the current one.
            if kind == "Deployment" and ("HorizontalPodAutoscaler", "default", name) in self.cluster.objects:
                del content["spec"]["replicas"]
                for count in ("replicas", "updatedReplicas", "availableReplicas"):
                    content["status"].pop(count, None)
            scaled = ("HorizontalPodAutoscaler", "default", f"api-{name}") in self.cluster.objects
            if scaled and name not in refused:
                content["status"].get("autoscaling", {}).pop("current", None)
                for condition in (content["status"] or {}).get("conditions", ()):
                    del condition["message"]
            found[f"{kind}/{name}"] = content
        return found


steps = st.one_of(
    st.tuples(st.just("apply"), st.sampled_from(NAMES), st.sampled_from(range(len(SPECS)))),
    st.tuples(st.just("delete"), st.sampled_from(NAMES)),
    st.tuples(st.just("code"), st.sampled_from(("1", "2"))),
    st.tuples(st.just("no code")),
    st.tuples(st.just("edit child"), st.sampled_from(NAMES), st.sampled_from(("Deployment", "Service"))),
    st.tuples(
        st.just("delete child"),
        st.sampled_from(NAMES),
        st.sampled_from(("Deployment", "Service", "HTTPRoute", "ConfigMap")),
    ),
    st.tuples(st.just("deliver"), st.integers(0, 20), st.booleans()),
    st.tuples(st.just("reconcile"), st.sampled_from(NAMES)),
    st.tuples(st.just("work")),
    st.tuples(st.just("work")),
    st.tuples(st.just("work")),
    st.tuples(st.just("faults"), st.sampled_from((409, 429, 500, 503))),
)


async def play(world: World, story: list[tuple[Any, ...]]) -> None:
    cluster = world.cluster
    for step in story:
        match step:
            case ("apply", name, number):
                cluster.put(resource(name, SPECS[number]))
            case ("delete", name):
                cluster.remove("RealtimeAPI", name)
            case ("code", text):
                config_map = {"kind": "ConfigMap", "metadata": {"name": "code", "namespace": "default"}}
                cluster.put({**config_map, "data": {"handler.py": text}})
            case ("no code",):
                cluster.remove("ConfigMap", "code")
            case ("edit child", name, kind):
                cluster.edit(kind, f"api-{name}", EDITS[kind])
            case ("delete child", name, kind):
                for of, _, found in list(cluster.objects):
                    if of == kind and found.startswith(f"api-{name}"):
                        cluster.remove(kind, found)
            case ("deliver", index, again):
                world.deliver(index, again)
            case ("reconcile", name):
                await world.reconcile(Key("RealtimeAPI", "default", name))
            case ("work",):
                for _ in range(len(world.pending)):
                    world.deliver(0)
                for key in sorted(world.due, key=str):
                    await world.reconcile(key)
            case ("faults", status):
                turns = itertools.cycle((status, None, None))
                cluster.fault = lambda turns=turns: next(turns)  # type: ignore[misc]


async def outcome(story: list[tuple[Any, ...]]) -> dict[str, Any]:
    world = World()
    await play(world, story)
    await world.settle_later()
    writes = world.cluster.writes
    for key in world.cache.apis():
        await world.reconcile(key)
    assert world.cluster.writes == writes, "a settled cluster is written to"
    return world.seen()


async def straight(story: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Return the result of the last user objects, applied to an empty cluster."""
    last: dict[str, tuple[Any, ...]] = {}
    for step in story:
        if step[0] in ("apply", "delete"):
            last[step[1]] = step
        elif step[0] in ("code", "no code"):
            last["code"] = step
    order = [last[name] for name in ("code", *NAMES) if name in last]
    return await outcome([step for step in order if step[0] in ("apply", "code")])


@given(st.lists(steps, max_size=30))
@example(
    [("apply", "a", 6), ("deliver", 0, False), ("apply", "a", 0), ("reconcile", "a")]
)  # changed before the status is written
@example([("apply", "a", 0), ("work",), ("apply", "a", 2)])  # autoscaled from another number of replicas
@example(
    [("apply", "a", 0), ("work",), *[("edit child", "a", "Deployment"), ("work",)] * 5]
)  # changed so often that the operator backs off
@example(
    [("apply", "b", 6), ("apply", "a", 6), ("work",), ("code", "1"), ("reconcile", "a")]
)  # code of two APIs that one of them reads before its event arrives
@settings(max_examples=150, deadline=None)
def test_the_result_depends_only_on_the_last_state(story: list[tuple[Any, ...]]) -> None:
    note(repr(story))
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        assert loop.run_until_complete(outcome(story)) == loop.run_until_complete(straight(story))
