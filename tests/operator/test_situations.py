"""The conditions in each situation are those in docs/troubleshooting.md."""

from collections.abc import Callable
from typing import Any

import pytest

from cortex_api.contract import API_LABEL, COMPONENT_LABEL, KIND_LABEL
from cortex_api.situations import SITUATIONS, Situation
from cortex_operator.replicas.reports import Report
from cortex_operator.status import events
from cortex_operator.status.conditions import Component
from cortex_operator.watch.cache import Key

from .situations import (
    IMPORT_ERROR,
    OLD_FAILURE,
    SCALING,
    SEEN,
    TERMINATING,
    WAS_READY,
    at,
    crashed,
    deployment,
    died,
    ended,
    hpa,
    pod,
    quiet,
    ready,
    refusal,
    resource,
    status,
    unschedulable,
)
from .test_any_order import World
from .test_any_order import resource as any_resource

Object = dict[str, Any]


def of(status: Object, kind: str) -> Object:
    return next(condition for condition in status["conditions"] if condition["type"] == kind)


def held(status: Object) -> tuple[bool, ...]:
    return tuple(
        of(status, kind)["status"] == "True" for kind in ("Ready", "Available", "Progressing", "Degraded")
    )


@pytest.mark.parametrize("case", SITUATIONS, ids=lambda case: case.name)
def test_the_conditions_of_each_situation(case: Situation) -> None:
    found = SEEN[case.name]()
    assert held(found) == (case.ready, case.available, case.progressing, case.degraded)
    assert of(found, "Ready")["reason"] == case.reason
    assert of(found, "Ready")["message"]
    for kind in ("Progressing", "Degraded"):
        condition = of(found, kind)
        assert bool(condition["message"]) == (condition["status"] == "True")
    if case.degraded:
        assert of(found, "Degraded")["reason"] == case.reason


def test_the_table_has_every_situation() -> None:
    assert set(SEEN) == {case.name for case in SITUATIONS}


@pytest.mark.parametrize("wanted", range(1, 12))
def test_scaling_never_makes_an_api_unready(wanted: int) -> None:
    """For every number of wanted and ready replicas."""
    for answering in range(1, 12):
        pods = [ready(f"r{i}") for i in range(answering)] + [pod(f"s{i}") for i in range(wanted - answering)]
        found = status(*pods, replicas=wanted, before=WAS_READY)
        assert of(found, "Ready")["status"] == "True"
        assert of(found, "Degraded")["status"] == "False"
        assert (of(found, "Progressing")["status"] == "True") == (answering != wanted)


@pytest.mark.parametrize(
    ("answering", "is_ready"), [(0, False), (1, False), (2, False), (3, True), (4, True)]
)
def test_a_rollout_is_ready_when_enough_new_pods_are_ready(answering: int, is_ready: bool) -> None:
    new = [ready(f"n{i}") for i in range(answering)]
    found = status(*new, ready("o", "old"), replicas=4)
    assert (of(found, "Ready")["status"] == "True") == is_ready
    assert of(found, "Available")["status"] == "True"
    assert of(found, "Progressing")["reason"] == "Updating"
    assert "1 of the previous generation still ready" in of(found, "Ready")["message"]


def test_last_failure_keeps_the_last_failure_and_gets_a_recovery_time() -> None:
    found = status(ready(), reports={"p": died("OutOfMemory", 5)}, before=WAS_READY)
    assert found["lastFailure"] == {
        "pod": "p",
        "container": "api",
        "reason": "OutOfMemory",
        "message": "a worker process ended",
        "time": at(5),
    }
    starting = status(pod(), before={**WAS_READY, **OLD_FAILURE})
    assert "recoveredAt" not in starting["lastFailure"]
    over = status(ready(), before={**WAS_READY, **OLD_FAILURE})
    # Filled in by the writer of the status.
    assert over["lastFailure"] == {**OLD_FAILURE["lastFailure"], "recoveredAt": None}
    kept = {"lastFailure": {**OLD_FAILURE["lastFailure"], "recoveredAt": at(50)}}
    assert status(ready(), before={**WAS_READY, **kept})["lastFailure"] == kept["lastFailure"]
    assert "recoveredAt" not in status(crashed(), before={**WAS_READY, **kept})["lastFailure"]


def test_an_old_exit_of_a_container_does_not_explain_an_unready_pod() -> None:
    silent = quiet()
    silent["status"]["containerStatuses"][0]["lastState"] = ended(90_000, 137, reason="OOMKilled")
    assert of(status(silent), "Ready")["reason"] == "NotAnswering"
    unreachable = {"p": Report(False, "QueueUnreachable", "NATS: no answer")}
    assert of(status(silent, reports=unreachable), "Ready")["reason"] == "QueueUnreachable"


def test_the_message_of_a_start_has_the_activity_and_its_start_time() -> None:
    report = Report(False, "Starting", "constructing the handler", at(170))
    message = of(status(pod(), reports={"p": report}), "Ready")["message"]
    assert message == f"0 of 1 replicas are ready; pod p: constructing the handler since {at(170)}"
    waiting = pod(
        startTime=at(40), containerStatuses=[{"name": "api", "state": {"waiting": {"reason": "x"}}}]
    )
    waiting["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] = "ContainerCreating"
    message = of(status(waiting), "Ready")["message"]
    assert message == f"0 of 1 replicas are ready; pod p: pulling images and mounting volumes since {at(40)}"
    assert f"running since {at(600)}" in of(status(pod()), "Ready")["message"]


def test_pods_rejected_by_a_terminating_namespace_are_not_a_quota_problem() -> None:
    found = status(replicas=1, deployed=TERMINATING)
    assert of(found, "Ready")["reason"] == "NamespaceTerminating"


async def test_an_api_in_a_terminating_namespace_reports_that_until_it_is_deleted() -> None:
    world = World()
    world.cluster.put(any_resource("a", {}))
    await world.settle()

    def reason() -> str:
        return str(of(world.cluster.objects["RealtimeAPI", "default", "a"]["status"], "Ready")["reason"])

    labels = {API_LABEL: "a", KIND_LABEL: "RealtimeAPI", COMPONENT_LABEL: "api"}
    going = {"name": "p", "namespace": "default", "labels": labels, "deletionTimestamp": at(0)}
    world.cluster.put({"kind": "Pod", "metadata": going})
    await world.settle()
    assert reason() == "Starting", "pods may end for other reasons"
    world.cluster.ending = True
    world.due.add(Key("RealtimeAPI", "default", "a"))
    await world.settle()
    assert reason() == "NamespaceTerminating"
    world.cluster.remove("Pod", "p")
    await world.settle()
    assert reason() == "NamespaceTerminating"


@pytest.mark.parametrize(
    ("hpa_message", "advice"),
    [
        (
            "unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not"
            " find the requested resource (get pods.metrics.k8s.io)",
            "Install metrics-server",
        ),
        (
            "unable to fetch metrics from resource metrics API: the server is currently unable to handle the request",
            "APIS",
        ),
        ("no metrics returned from resource metrics API", "kubectl top pods"),
        ("did not receive metrics for targeted pods (pods might be unready)", "kubectl top pods"),
        ("missing request for cpu in container api of Pod a", "compute.cpu"),
    ],
)
def test_an_hpa_without_metrics_has_advice(hpa_message: str, advice: str) -> None:
    seen = hpa(300)
    seen["status"]["conditions"][1]["message"] = hpa_message
    message = of(status(ready(), spec=SCALING, hpa=seen), "Ready")["message"]
    assert hpa_message in message
    assert advice in message


@pytest.mark.parametrize(
    ("kind", "why"), [("ScalingActive", "AmbiguousSelector"), ("AbleToScale", "FailedGetScale")]
)
def test_an_hpa_that_cannot_scale_is_autoscaler_failed(kind: str, why: str) -> None:
    seen = {"status": {"conditions": [{**hpa(300)["status"]["conditions"][1], "type": kind, "reason": why}]}}
    ready_now = of(status(ready(), spec=SCALING, hpa=seen), "Ready")
    assert (ready_now["status"], ready_now["reason"]) == ("True", "AutoscalerFailed")
    assert why in ready_now["message"]


def test_an_hpa_that_is_disabled_at_zero_replicas_is_not_a_problem() -> None:
    seen = hpa(300)
    seen["status"]["conditions"][1]["reason"] = "ScalingDisabled"
    assert of(status(ready(), spec=SCALING, hpa=seen), "Degraded")["status"] == "False"


def test_a_rejected_api_reports_the_counts_and_failures_of_its_pods() -> None:
    before = {**WAS_READY, **OLD_FAILURE, "replicas": 7, "readyReplicas": 7, "url": "http://x"}
    found = refusal("InvalidSpec", ready("p"), pod("q"), before=before)
    assert (found["replicas"], found["readyReplicas"], found["url"]) == (2, 1, "http://x")
    assert found["lastFailure"] == OLD_FAILURE["lastFailure"]


def test_a_rejected_api_does_not_become_ready_by_a_second_reconciliation() -> None:
    first = refusal("SourceUnavailable", ready("p", "old"), before={"conditions": []})
    assert of(refusal("SourceUnavailable", ready(), before=first), "Ready")["status"] == "False"


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (lambda: WAS_READY, lambda: status(ready(), reports={"p": died("OutOfMemory", 5)}), "Warning"),
        (lambda: WAS_READY, lambda: status(pod()), "Normal"),
        (lambda: WAS_READY, lambda: status(ready("o", "old"), pod()), "Normal"),
        (lambda: WAS_READY, lambda: status(ready("o", "old"), crashed(message=IMPORT_ERROR)), "Warning"),
        (
            lambda: status(ready(), reports={"p": died("OutOfMemory", 5)}),
            lambda: status(ready()),
            "Normal",
        ),
        (lambda: WAS_READY, lambda: status(ready(), pod("q"), replicas=2), None),
        (lambda: status(crashed()), lambda: status(crashed()), None),
    ],
)
def test_each_new_reason_has_an_event_which_is_a_warning_for_problems(
    before: Callable[[], Object], after: Callable[[], Object], kind: str | None
) -> None:
    event = events.of_transition(resource(), before(), after(), at(0))
    assert (event and event["type"]) == kind
    if event:
        assert event["reason"] == of(after(), "Ready")["reason"]


def test_an_unschedulable_pod_has_the_advice_for_its_cause() -> None:
    cordoned = unschedulable(message="0/1 nodes are available: 1 node(s) were unschedulable.")
    message = of(status(cordoned), "Degraded")["message"]
    assert "kubectl uncordon" in message
    assert "compute" not in message


def test_a_component_without_a_deployment_is_starting() -> None:
    gateway = Component(deployment(), [ready("g")])
    found = status(kind="AsyncAPI", gateway=gateway)
    assert of(found, "Ready")["reason"] == "Starting"
