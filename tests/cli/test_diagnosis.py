"""What `cortex doctor` makes of the objects of an API."""

from typing import Any

import pytest

from cortex_cli.apis import API
from cortex_cli.diagnosis import Finding, Seen, diagnose


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
    given = {
        "deployments": [deployment(0)],
        "service": {"metadata": {"name": "api-iris"}},
        "events": [],
        "operators": [],
        **more,
    }
    return [
        finding for finding in diagnose(Seen(api=api, pods=list(pods), **given)) if finding.level == "bad"
    ]


READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def test_an_api_that_answers_has_nothing_wrong():
    found = diagnose(Seen(live(), [deployment()], [pod(**READY)], {"metadata": {}}, [], []))
    assert {finding.level for finding in found} == {"good"}


@pytest.mark.parametrize("reason", ["Starting", "Paused", "ScaledToZero"])
def test_what_is_wanted_is_not_wrong(reason):
    assert bad(live(reason)) == []


@pytest.mark.parametrize(
    ("status", "what", "remedy"),
    [
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu"}
                ]
            },
            "no node can run it: 0/3 nodes: Insufficient cpu",
            "request less cpu (compute.cpu)",
        ),
        (
            {
                "containerStatuses": [
                    {"name": "api", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}}
                ]
            },
            "container api waits: ImagePullBackOff: no",
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
            "container api ended with no memory left (OOMKilled); restarted 3 times",
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
            "container api ended with exit code 1: ModelNotFound: no a",
            "cortex logs iris",
        ),
    ],
)
def test_what_keeps_a_pod_from_running_is_named(status, what, remedy):
    (found,) = bad(live("Starting"), pod(**status))
    assert (found.where, found.what) == ("Pod api-iris-x", what)
    assert found.remedy.startswith(remedy)


def test_pods_that_the_cluster_refuses():
    refused = deployment(
        0, conditions=[{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]
    )
    (found,) = bad(live("Starting"), deployments=[refused])
    assert "exceeded quota" in found.what


def test_children_that_are_missing():
    found = bad(live("Starting"), deployments=[])
    assert [finding.where for finding in found] == ["Deployment"]
    assert bad(live("SourceUnavailable"), deployments=[])[0].where == "Ready"
    assert len(bad(live("SourceUnavailable"), deployments=[])) == 1
    found = bad(live("Starting"), service=None)
    assert [finding.where for finding in found] == ["Service api-iris"]


@pytest.mark.parametrize(
    ("operators", "words"),
    [
        ([], "there is no pod of it"),
        ([pod()], "none of its pods is ready"),
        ([pod(**READY)], "has not looked at the latest change"),
        (None, "has not looked at the latest change"),
    ],
)
def test_an_operator_that_does_not_look(operators, words):
    (found,) = bad(live(status={}), operators=operators, deployments=[])
    assert (found.where, words in found.what) == ("operator", True)


def test_warnings_are_shown_while_it_does_not_answer():
    event = {
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'secret "x" not found',
        "involvedObject": {"kind": "Pod", "name": "api-iris-x"},
    }
    other = {**event, "involvedObject": {"kind": "Pod", "name": "another"}}
    mine = {"kind": "RealtimeAPI", "name": "iris"}
    again = {**event, "message": live("Starting").ready["message"], "involvedObject": mine}
    events = [event, other, again]
    found = diagnose(Seen(live("Starting"), [deployment(0)], [pod()], {"metadata": {}}, events, []))
    events = [finding for finding in found if finding.where.startswith("Event")]
    # What the operator has said already is not said again.
    assert [(finding.where, finding.what) for finding in events] == [
        ("Event on Pod api-iris-x", 'FailedMount: secret "x" not found')
    ]
