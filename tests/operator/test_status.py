"""The fields of a status; it is written once for each change, with times and an Event."""

import copy
from datetime import datetime
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from cortex_api import parse
from cortex_operator.autoscaling.autoscaler import ObservedQueue, ObservedScaling, State
from cortex_operator.status import events
from cortex_operator.status.conditions import (
    NAMESPACE_TERMINATING,
    Component,
    Observed,
    Problem,
    assess,
    may_be_terminating,
)
from cortex_operator.status.reporter import StatusReporter
from cortex_operator.status.status import component_of, compute_rejected
from cortex_operator.watch.cache import Cache, Key

from .fake import FakeCluster
from .situations import (
    GENERATION,
    IN_FLIGHT,
    NOW,
    SCALING,
    WAS_READY,
    at,
    condition,
    crashed,
    deployment,
    died,
    hpa,
    pod,
    ready,
    resource,
    status,
)

Object = dict[str, Any]


def of(found: Object, kind: str) -> Object:
    return next(condition for condition in found["conditions"] if condition["type"] == kind)


def leaving(found: Object) -> Object:
    found["metadata"]["deletionTimestamp"] = at(5)
    return found


# Fields


def test_counts_are_those_of_pods_that_stay() -> None:
    pods = (ready("a"), ready("b", "old"), pod("c"), leaving(ready("d")))
    found = status(*pods, replicas=3, url="http://a")
    assert (found["replicas"], found["readyReplicas"]) == (3, 1)
    assert (found["url"], found["observedGeneration"]) == ("http://a", GENERATION)
    assert found["selector"] == "cortex.dev/api=a,cortex.dev/kind=RealtimeAPI,cortex.dev/component=api"


def test_the_queue_and_its_name() -> None:
    def found(spec: Object | None = None, **observed: Any) -> Object:
        return status(ready(), kind="AsyncAPI", spec=spec, **observed)

    scaling = ObservedScaling(
        State(0.0), queue=ObservedQueue(3, 2, datetime.fromisoformat(at(60)).timestamp())
    )
    assert found(scaling=scaling)["queue"] == {"queued": 3, "inFlight": 2, "oldest": at(60)}
    empty = ObservedScaling(State(0.0), queue=ObservedQueue(0, 0, None))
    assert found(scaling=empty)["queue"] == {"queued": 0, "inFlight": 0}
    assert "queue" not in found(scaling=ObservedScaling(State(0.0)))
    assert found()["queueName"] == "a"
    assert found({"queue": {"name": "own"}})["queueName"] == "own"
    assert "queueName" not in status(ready())


@pytest.mark.parametrize(
    ("kind", "spec", "observed", "expected"),
    [
        ("RealtimeAPI", {}, {}, None),
        ("RealtimeAPI", IN_FLIGHT, {}, {"provider": "builtin", "current": 4, "metric": "in-flight"}),
        ("AsyncAPI", {"autoscaling": {}}, {}, {"provider": "builtin", "current": 4, "metric": "queue"}),
        (
            "RealtimeAPI", IN_FLIGHT, {"scaling": ObservedScaling(State(0.0), "load 8.0", desired=5)},
            {"provider": "builtin", "current": 4, "metric": "in-flight", "desired": 5, "reason": "load 8.0"},
        ),
        (
            "RealtimeAPI", IN_FLIGHT, {"scaling": ObservedScaling(State(0.0), "held")},
            {"provider": "builtin", "current": 4, "metric": "in-flight"},
        ),
        ("RealtimeAPI", SCALING, {}, {"provider": "hpa", "current": 4, "metric": "cpu"}),
        (
            "RealtimeAPI", SCALING, {"hpa": {"status": {"desiredReplicas": 7, "conditions": None}}},
            {"provider": "hpa", "current": 4, "metric": "cpu", "desired": 7},
        ),
        *[
            (
                "RealtimeAPI", SCALING,
                {"hpa": {"status": {"conditions": [condition(kind, state, reason="R", message="m")]}}},
                {"provider": "hpa", "current": 4, "metric": "cpu", **reason},
            )
            for kind, state, reason in [
                ("ScalingActive", "False", {"reason": "R: m"}),
                ("AbleToScale", "False", {"reason": "R: m"}),
                ("ScalingLimited", "False", {}),
                ("ScalingActive", "True", {}),
            ]
        ],
        (
            "RealtimeAPI", SCALING, {"hpa": {"status": {"conditions": [condition("AbleToScale", "False")]}}},
            {"provider": "hpa", "current": 4, "metric": "cpu", "reason": ": "},
        ),
    ],
)  # fmt: skip
def test_autoscaling(kind: str, spec: Object, observed: Object, expected: Object | None) -> None:
    found = status(ready(), kind=kind, spec=spec, deployed={"replicas": 4}, **observed)
    assert found.get("autoscaling") == expected


def test_autoscaling_before_the_deployment_exists() -> None:
    found = status(ready(), spec=IN_FLIGHT)
    assert found["autoscaling"]["current"] == 0


def test_each_condition_keeps_its_time_while_its_status_stays() -> None:
    before = status(pod())
    for kind in before["conditions"]:
        kind["lastTransitionTime"] = at(300)
    after = {c["type"]: c for c in status(ready(), before=before)["conditions"]}
    assert {kind: c["lastTransitionTime"] for kind, c in after.items()} == {
        "Ready": None,
        "Available": None,
        "Progressing": None,
        "Degraded": at(300),
    }
    assert {c["observedGeneration"] for c in after.values()} == {GENERATION}
    assert {kind: (c["reason"], c["message"]) for kind, c in after.items()} == {
        "Ready": ("Ready", "1 of 1 replicas are ready"),
        "Available": ("Available", ""),
        "Progressing": ("NotProgressing", ""),
        "Degraded": ("NotDegraded", ""),
    }
    assert of(before, "Available")["reason"] == "Starting"


def test_the_component_of_a_pod() -> None:
    assert component_of({"metadata": {"labels": {"cortex.dev/component": "gateway"}}}) == "gateway"
    assert component_of({"metadata": {}}) == ""


# An API that is rejected


PROBLEM = Problem("InvalidSpec", "words")
KEPT = {"url": "u", "selector": "s", "autoscaling": {"current": 1}, "queue": {"queued": 1}, "queueName": "q"}


def test_a_rejected_api_keeps_its_status_where_it_is_still_true() -> None:
    found = compute_rejected(resource(status={**KEPT, "readyReplicas": 2, "foo": 1}), PROBLEM)
    assert {name: found[name] for name in KEPT} == KEPT
    assert found["observedGeneration"] == GENERATION
    assert set(found) == {*KEPT, "observedGeneration", "conditions"}
    assert compute_rejected({"metadata": {"name": "a"}}, PROBLEM)["observedGeneration"] == 0


@pytest.mark.parametrize(
    ("previous", "pods", "counts"),
    [
        ({}, [], (None, None)),
        ({"replicas": 3}, [], (0, 0)),
        ({}, [ready("a"), pod("b")], (2, 1)),
        ({"replicas": 3}, [ready("a"), ready("b", "old")], (2, 1)),
    ],
)
def test_the_counts_of_a_rejected_api(previous: Object, pods: list[Object], counts: tuple[Any, Any]) -> None:
    observed = Observed(main=Component(deployment(), pods))
    found = compute_rejected(resource(status=previous), PROBLEM, observed)
    assert (found.get("replicas"), found.get("readyReplicas")) == counts


OTHER = " (pods of a previous generation are still ready)"


@pytest.mark.parametrize(
    ("previous", "main", "gateway", "is_ready", "is_available", "message"),
    [
        (WAS_READY, [ready()], None, True, True, "words"),
        (WAS_READY, [ready("p", "old")], None, False, True, f"words{OTHER}"),
        ({}, [ready()], None, False, True, f"words{OTHER}"),
        (WAS_READY, [pod()], None, False, False, "words"),
        (WAS_READY, [ready()], [ready("g")], True, True, "words"),
        (WAS_READY, [ready()], [pod("g")], False, False, "words"),
        (WAS_READY, [pod()], [ready("g")], False, False, "words"),
    ],
)
def test_whether_a_rejected_api_is_ready(
    previous: Object, main: list[Object], gateway: list[Object] | None, is_ready: bool, is_available: bool, message: str
) -> None:  # fmt: skip
    observed = Observed(
        main=Component(deployment(), main),
        gateway=Component(deployment(), gateway) if gateway is not None else None,
    )
    found = compute_rejected(resource(status=previous), PROBLEM, observed)
    assert (of(found, "Ready")["status"], of(found, "Available")["status"]) == (
        str(is_ready),
        str(is_available),
    )
    assert (of(found, "Ready")["reason"], of(found, "Ready")["message"]) == ("InvalidSpec", message)
    assert of(found, "Degraded")["status"] == "True"


# Conditions beyond the table of situations


def test_the_other_writer_is_the_reason_only_while_the_api_is_not_ready() -> None:
    problem = Problem("FieldsOverwritten", "by kubectl")
    found = of(status(crashed(), problem=problem), "Ready")
    assert (found["status"], found["reason"]) == ("False", "FieldsOverwritten")
    assert found["message"].endswith("; FieldsOverwritten: by kubectl")
    found = of(status(ready(), pod("q"), replicas=2, problem=problem), "Ready")
    assert (found["status"], found["reason"]) == ("True", "FieldsOverwritten")
    found = of(status(crashed(), problem=Problem("HTTPRouteRefused", "forbidden")), "Ready")
    assert found["reason"] == "CrashLoop"


def test_an_unreachable_queue_does_not_hide_why_workers_fail() -> None:
    scaling = ObservedScaling(State(0.0), queue_problem="NATS: no answer")
    text = "the queue cannot be reached, so jobs are not accepted: NATS: no answer"
    for pods, reason in [
        ([ready()], "QueueUnreachable"),
        ([pod()], "QueueUnreachable"),
        ([crashed()], "CrashLoop"),
    ]:
        found = status(*pods, kind="AsyncAPI", scaling=scaling)
        assert (of(found, "Ready")["reason"], of(found, "Ready")["message"]) == (reason, text)
        assert [of(found, kind)["status"] for kind in ("Ready", "Available", "Progressing", "Degraded")] == [
            "False", "False", "False", "True",
        ]  # fmt: skip
    # The earlier failure of a worker does not explain why the queue does not respond.
    recent = status(ready(), kind="AsyncAPI", scaling=scaling, reports={"p": died("OutOfMemory", 5)})
    assert of(recent, "Ready")["reason"] == "QueueUnreachable"


def test_a_gateway_that_starts_or_degrades_counts_for_the_api() -> None:
    def found(*pods: Object, reports: Object | None = None, replicas: int = 1) -> Object:
        return status(
            ready(), kind="AsyncAPI", gateway=Component(deployment(replicas), list(pods), reports or {})
        )

    starting = found(pod("g"))
    assert (of(starting, "Ready")["reason"], of(starting, "Progressing")["reason"]) == (
        "Starting",
        "Starting",
    )
    assert of(starting, "Ready")["message"].startswith("gateway: 0 of 1 replicas are ready")
    assert of(starting, "Degraded")["status"] == "False"
    degraded = found(ready("g"), crashed("h"), replicas=2)
    assert [of(degraded, kind)["status"] for kind in ("Ready", "Degraded")] == ["True", "True"]
    assert of(degraded, "Ready")["message"].startswith(
        "1 of 1 replicas are ready; CrashLoop: gateway: 1 of 2 replicas are ready"
    )
    assert degraded["lastFailure"]["pod"] == "h"


def test_pods_that_are_deleted_are_not_in_the_way() -> None:
    found = status(ready("a"), leaving(ready("b")))
    assert of(found, "Progressing")["status"] == "False"
    found = status(ready("a"), leaving(pod("b")), pod("c"), replicas=2)
    assert "pod c running since" in of(found, "Ready")["message"]
    found = status(ready("a"), leaving(pod("b")), replicas=2)
    assert of(found, "Ready")["message"] == "1 of 2 replicas are ready"


def test_the_reason_of_progressing() -> None:
    def reason(*pods: Object, replicas: int) -> str:
        return of(status(*pods, replicas=replicas), "Progressing")["reason"]

    assert reason(pod(), replicas=1) == "Starting"
    assert reason(ready(), pod("q"), replicas=2) == "Scaling"
    assert reason(ready(), ready("q"), replicas=1) == "Scaling"
    assert reason(ready(), ready("o", "old"), replicas=1) == "Updating"
    assert reason(ready("o", "old"), pod(), replicas=1) == "Updating"


def test_a_rollout_past_its_deadline_has_the_activity_of_the_new_pod() -> None:
    deadline = {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}
    found = status(ready("o", "old"), pod("q"), deployed=deadline)
    count = "0 of 1 replicas are ready (1 of the previous generation still ready)"
    text = f"{count}: no new pod became ready before the progress deadline"
    assert of(found, "Ready")["message"] == f"{text}; pod q running since {at(600)}"
    bare = status(ready("o", "old"), deployed=deadline)
    assert (of(bare, "Ready")["reason"], of(bare, "Ready")["message"]) == ("RolloutStuck", text)
    for other in (
        {"type": "Available", "reason": "ProgressDeadlineExceeded"},
        {"type": "Progressing", "reason": "x"},
    ):
        found = status(ready("o", "old"), pod("q"), deployed={"conditions": [other]})
        assert of(found, "Ready")["reason"] == "Updating"


@pytest.mark.parametrize(
    ("unavailable", "wanted", "needed"),
    [("25%", 4, 3), ("25%", 3, 3), ("50%", 3, 2), ("100%", 3, 1), (2, 4, 2), (0, 2, 2), (9, 4, 1)],
)
def test_how_many_pods_a_rollout_keeps_available(unavailable: Any, wanted: int, needed: int) -> None:
    spec = {"updateStrategy": {"maxUnavailable": unavailable}}
    for number in range(wanted + 1):
        new = [ready(f"n{i}") for i in range(number)]
        found = status(*new, ready("o", "old"), replicas=wanted, spec=spec)
        assert (of(found, "Ready")["status"] == "True") == (number >= needed), number


def assessment(*pods: Object, spec: Object | None = None, **observed: Any) -> Any:
    reports = observed.pop("reports", {})
    observed = {"main": Component(deployment(), list(pods), reports), "now": NOW, **observed}
    return assess(parse(resource(**(spec or {}))), Observed(**observed))


def test_when_a_status_must_be_computed_again() -> None:
    assert assessment(ready()).until == float("inf")
    assert assessment(ready(), reports={"p": died("OutOfMemory", 100)}).until == 200
    assert assessment(ready(since=30), spec=SCALING, hpa=hpa(300)).until == 60
    assert assessment(ready(since=500), spec=SCALING, hpa=hpa(20)).until == 70
    assert assessment(ready(since=500), spec=SCALING, hpa=hpa(89)).degraded is False
    assert assessment(ready(since=500), spec=SCALING, hpa=hpa(90)).degraded is True


def test_an_autoscaler_without_metrics_reports_which_and_the_remedy() -> None:
    scaling = ObservedScaling(State(0.0), "held at 1", no_metrics_since=datetime.fromisoformat(at(100)))
    found = of(status(ready(), spec=IN_FLIGHT, scaling=scaling), "Degraded")
    assert found["reason"] == "MetricsUnavailable"
    assert "autoscaling is inactive: held at 1. The operator must " in found["message"]
    assert "8081" in found["message"]


def test_an_hpa_condition_without_words_or_time_counts_at_once() -> None:
    bare = {"status": {"conditions": [{"type": "AbleToScale", "status": "False"}]}}
    found = of(status(ready(), spec=SCALING, hpa=bare), "Degraded")
    assert (found["status"], found["reason"]) == ("True", "AutoscalerFailed")
    assert found["message"].endswith(": : ")


@pytest.mark.parametrize(
    ("main", "previous", "expected"),
    [
        (Component(deployment(), [leaving(ready())]), None, True),
        (Component(deployment(), [leaving(ready()), ready("q")]), None, False),
        (Component(deployment(0), [leaving(ready())]), None, False),
        (Component(None, [leaving(ready())]), None, False),
        (Component(deployment(), []), None, False),
        (Component(deployment(), []), NAMESPACE_TERMINATING.reason, True),
        (Component(deployment(), []), "Starting", False),
        (Component({"spec": {}}, [leaving(ready())]), None, True),
    ],
)
def test_whether_the_namespace_may_be_terminating(
    main: Component, previous: str | None, expected: bool
) -> None:
    before = {"conditions": [{"type": "Ready", "reason": previous}]} if previous else None
    assert may_be_terminating(Observed(main=main), resource(status=before)) is expected


def test_a_deployment_without_a_number_wants_one_replica() -> None:
    bare = deployment()
    del bare["spec"]["replicas"]
    main = Component(bare, [ready()])
    found = assess(parse(resource()), Observed(main=main, now=NOW))
    assert (found.ready, found.message) == (True, "1 of 1 replicas are ready")
    found = assess(parse(resource()), Observed(now=NOW))
    assert (found.ready, found.message) == (False, "0 of 1 replicas are ready")


# Events and writing


def test_an_event_is_about_the_api() -> None:
    live = resource()
    found = events.warning(live, "R", "m" * 2000, at(0))
    assert found == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "a.", "namespace": "n"},
        "involvedObject": {
            "apiVersion": "cortex.dev/v1alpha1",
            "kind": "RealtimeAPI",
            "name": "a",
            "namespace": "n",
            "uid": "u",
        },
        "type": "Warning",
        "reason": "R",
        "message": "m" * 1024,
        "source": {"component": "cortex-operator"},
        "reportingComponent": "cortex-operator",
        "firstTimestamp": at(0),
        "lastTimestamp": at(0),
        "count": 1,
    }


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "handler.py raised KeyError: 'x' (handler.py, line 3)\nTraceback (most recent call last):\n  File",
            "handler.py raised KeyError: 'x' (handler.py, line 3)",
        ),
        ("pip exited with status 1:\nLooking\nERROR: none found\n", "pip exited with status 1: ERROR: none found"),
        ("one line", "one line"),
    ],
)  # fmt: skip
def test_an_event_is_one_line(message: str, shown: str) -> None:
    assert events.warning(resource(), "R", message, at(0))["message"] == shown


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        *[
            (reason, "Normal")
            for reason in ("Starting", "Updating", "Paused", "ScaledToZero", "Deleting", "NamespaceTerminating")
        ],
        ("NotAnswering", "Warning"),
    ],
)  # fmt: skip
def test_a_normal_reason_has_a_normal_event(reason: str, kind: str) -> None:
    after = {"conditions": [condition("Ready", "False", reason=reason, message="m")]}
    event = events.of_transition(resource(), WAS_READY, after, at(0))
    assert event is not None
    assert (event["type"], event["reason"], event["message"]) == (kind, reason, "m")


@pytest.mark.parametrize(
    ("status", "reason", "has_event"),
    [("False", "Starting", False), ("True", "Ready", True), ("False", "InvalidSpec", True)],
)
def test_a_first_status_has_an_event_unless_the_api_just_starts(
    status: str, reason: str, has_event: bool
) -> None:
    after = {"conditions": [condition("Ready", status, reason=reason, message="m")]}
    event = events.of_transition(resource(), {}, after, at(0))
    assert (event is not None) == has_event


class World:
    """A reporter, its cluster, and one API."""

    def __init__(self) -> None:
        self.cache, self.cluster = Cache(), FakeCluster(lambda event, thing: None)
        self.reporter = StatusReporter(self.cache, self.cluster)
        live = resource()
        live["metadata"] |= {"resourceVersion": "1", "creationTimestamp": at(900)}
        self.key = Key("RealtimeAPI", "n", "a")
        self.cluster.put(live)
        self.cache.put_api(self.key, self.stored)

    @property
    def stored(self) -> Object:
        return copy.deepcopy(self.cluster.objects["RealtimeAPI", "n", "a"])

    async def report(self, found: Object) -> None:
        await self.reporter.report(self.key, self.stored, copy.deepcopy(found))


async def test_a_status_is_written_once_with_its_times_and_its_event() -> None:
    world = World()
    await world.report(status(ready(), before={**WAS_READY, "lastFailure": {"pod": "p", "reason": "R"}}))
    written = world.stored["status"]
    times = {c["lastTransitionTime"] for c in written["conditions"]} | {written["lastFailure"]["recoveredAt"]}
    (time,) = times
    assert time == datetime.fromisoformat(time).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert [event["reason"] for event in world.cluster.events] == ["Ready"]
    cached = world.cache.api(world.key)
    assert cached is not None
    assert (cached["status"], cached["kind"]) == (written, "RealtimeAPI")
    assert cached["apiVersion"] == "cortex.dev/v1alpha1"
    version = world.stored["metadata"]["resourceVersion"]
    await world.report(written)
    assert world.stored["metadata"]["resourceVersion"] == version
    kept = {**written, "lastFailure": {**written["lastFailure"], "recoveredAt": at(50)}}
    await world.report(kept)
    assert world.stored["status"] == kept


async def test_dropped_fields_are_written_once_until_the_api_is_forgotten() -> None:
    world = World()
    writes = []

    async def write(live: Object, found: Object) -> Object:
        writes.append(found)
        stored = {name: value for name, value in found.items() if name != "queueName"}
        return {**live, "status": stored}

    world.cluster.write_status = write  # type: ignore[method-assign]
    live, found = world.stored, {**status(ready()), "queueName": "q"}
    for entry in found["conditions"]:
        entry["lastTransitionTime"] = at(5)
    for _ in range(2):
        await world.reporter.report(world.key, live, copy.deepcopy(found))
        live = {**live, "status": {name: value for name, value in found.items() if name != "queueName"}}
    assert len(writes) == 1
    world.reporter.forget(world.key)
    await world.reporter.report(world.key, live, copy.deepcopy(found))
    assert len(writes) == 2
    world.reporter.forget(Key("AsyncAPI", "n", "unknown"))


@pytest.mark.parametrize(("fault", "raises"), [(404, False), (409, True), (500, True)])
async def test_a_status_of_a_deleted_api_is_dropped_and_other_errors_are_raised(
    fault: int, raises: bool
) -> None:
    world = World()
    world.cluster.fault = lambda: fault
    if raises:
        with pytest.raises(ApiException):
            await world.report(status(ready()))
    else:
        await world.report(status(ready()))
    assert "status" not in world.stored
    assert not world.cluster.events


async def test_no_event_is_written_to_a_terminating_namespace() -> None:
    world = World()
    await world.reporter.warn(resource(), "R", "m")
    assert [(event["type"], event["reason"]) for event in world.cluster.events] == [("Warning", "R")]
    world.cluster.terminating = {"n"}
    await world.reporter.warn(resource(), "R", "m")
    world.cluster.terminating = set()
    world.cluster.fault = lambda: 500
    with pytest.raises(ApiException):
        await world.reporter.warn(resource(), "R", "m")
