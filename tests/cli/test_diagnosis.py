"""Findings of `cortex doctor` from the objects of an API."""

from typing import Any

import pytest

from cortex_cli.apis import API
from cortex_cli.diagnosis import Finding, Observed, diagnose, remedy


def live(reason: str = "Ready", **more: Any) -> API:
    condition = {"type": "Ready", "status": str(reason == "Ready"), "reason": reason, "message": "words"}
    content = {
        "kind": "RealtimeAPI",
        "metadata": {"name": "iris", "namespace": "default", "generation": 2, "creationTimestamp": None},
        "spec": {"handler": {}},
        "status": {"observedGeneration": 2, "conditions": [condition]},
    }
    return API({**content, **more})


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "api-iris-x"}, "spec": {"containers": [{"name": "api"}]}, "status": status}


def deployment(ready: int = 1, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "api-iris"},
        "spec": {"replicas": 1},
        "status": {"readyReplicas": ready, **status},
    }


def bad(api: API, *pods: dict[str, Any], **more: Any) -> list[Finding]:
    objects = {
        "deployments": [deployment(0)],
        "service": {"metadata": {"name": "api-iris"}},
        "events": [],
        "operators": [],
        **more,
    }
    return [
        finding
        for finding in diagnose(Observed(api=api, pods=list(pods), **objects))
        if finding.level == "bad"
    ]


READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def test_a_ready_api_has_only_good_findings():
    found = diagnose(Observed(live(), [deployment()], [pod(**READY)], {"metadata": {}}, [], []))
    assert {finding.level for finding in found} == {"good"}


@pytest.mark.parametrize("reason", ["Starting", "Paused", "ScaledToZero"])
def test_expected_reasons_are_not_bad(reason):
    assert bad(live(reason)) == []


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu"}
                ]
            },
            "is unschedulable: 0/3 nodes: Insufficient cpu",
            "request less cpu (compute.cpu)",
        ),
        (
            {
                "containerStatuses": [
                    {"name": "api", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}}
                ]
            },
            "container api is waiting: ImagePullBackOff: no",
            "Check the name and the tag",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "api",
                        "restartCount": 3,
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                    }
                ]
            },
            "container api exited with out of memory (OOMKilled); restarted 3 times",
            "cortex logs iris --previous",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "api",
                        "state": {
                            "terminated": {
                                "exitCode": 1,
                                "message": '{"reason": "ModelNotFound", "message": "no a"}',
                            }
                        },
                    }
                ]
            },
            "container api exited with exit code 1: ModelNotFound: no a",
            "cortex logs iris",
        ),
    ],
)
def test_cause_of_a_pod_failure_is_found(status, message, remedy):
    (found,) = bad(live("Starting"), pod(**status))
    assert (found.subject, found.message) == ("Pod api-iris-x", message)
    assert found.remedy.startswith(remedy)


def test_rejected_pods():
    refused = deployment(
        0, conditions=[{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]
    )
    (found,) = bad(live("Starting"), deployments=[refused])
    assert "exceeded quota" in found.message


def test_missing_child_objects():
    found = bad(live("Starting"), deployments=[])
    assert [finding.subject for finding in found] == ["Deployment"]
    assert bad(live("SourceUnavailable"), deployments=[])[0].subject == "Ready"
    assert len(bad(live("SourceUnavailable"), deployments=[])) == 1
    found = bad(live("Starting"), service=None)
    assert [finding.subject for finding in found] == ["Service api-iris"]


@pytest.mark.parametrize(
    ("operators", "words"),
    [
        ([], "no operator pod exists"),
        ([pod()], "no operator pod is ready"),
        ([pod(**READY)], "has not reconciled the latest change"),
        (None, "has not reconciled the latest change"),
    ],
)
def test_an_operator_that_does_not_reconcile(operators, words):
    (found,) = bad(live(status={}), operators=operators, deployments=[])
    assert (found.subject, words in found.message) == ("operator", True)


def test_warning_events_are_shown_while_the_api_is_not_ready():
    event = {
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'secret "x" not found',
        "involvedObject": {"kind": "Pod", "name": "api-iris-x"},
    }
    other = {**event, "involvedObject": {"kind": "Pod", "name": "another"}}
    resource = {"kind": "RealtimeAPI", "name": "iris"}
    repeated = {**event, "message": live("Starting").ready["message"], "involvedObject": resource}
    events = [event, other, repeated]
    found = diagnose(Observed(live("Starting"), [deployment(0)], [pod()], {"metadata": {}}, events, []))
    events = [finding for finding in found if finding.subject.startswith("Event")]
    # The message of a condition is not repeated.
    assert [(finding.subject, finding.message) for finding in events] == [
        ("Event on Pod api-iris-x", 'FailedMount: secret "x" not found')
    ]


@pytest.mark.parametrize(
    ("phase", "reason", "level", "remedy"),
    [
        ("Serving", "Serving", "good", ""),
        ("Starting", "Starting", "note", ""),
        ("RolledBack", "Disagreement", "bad", "`cortex diff iris` shows differing responses"),
        ("Failed", "HandlerImportError", "bad", "Fix the handler."),
    ],
)
def test_the_state_of_a_candidate_is_a_finding_of_its_own(phase, reason, level, remedy):
    api = live()
    api.live["status"]["candidate"] = {"phase": phase, "reason": reason, "message": "words"}
    found = diagnose(Observed(api, [deployment()], [pod(**READY)], {"metadata": {}}, [], []))
    (finding,) = [finding for finding in found if finding.subject == "candidate"]
    assert finding.level == level
    assert finding.message == (f"{phase}: words" if phase == reason else f"{phase}: {reason}: words")
    assert finding.remedy.startswith(remedy)
    assert {other.level for other in found if other is not finding} == {"good"}


def test_a_missing_module_is_named_in_the_remedy():
    message = "handler.py raised ModuleNotFoundError: No module named 'torchvision.ops' (handler.py, line 1)"
    assert "`torchvision.ops` to requirements.txt" in remedy("HandlerImportError", "iris", message)
    assert "Fix the handler" in remedy("HandlerImportError", "iris", "NameError: name 'np' is not defined")
