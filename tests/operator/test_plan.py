from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from cortex_api import RealtimeAPI, parse
from cortex_operator.kinds import CONFIG_MAP, child_kinds
from cortex_operator.plan import Plan, make_plan, parse_api, refused_by_cluster
from cortex_operator.platform import Platform
from cortex_operator.render import render
from cortex_operator.status.conditions import Problem
from cortex_operator.watch.cache import Key

Object = dict[str, Any]
BUDGET = next(kind for kind in child_kinds(Platform()) if kind.kind == "PodDisruptionBudget")


@pytest.fixture
def api() -> RealtimeAPI:
    live = {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {"name": "text", "namespace": "ml", "uid": "own", "generation": 1},
        "spec": {"handler": {"type": "python", "path": "handler.py"}},
    }
    api = parse(live)
    assert isinstance(api, RealtimeAPI)
    return api


def live(child: Object, owner: str = "own") -> Object:
    return {**child, "metadata": {**child["metadata"], "ownerReferences": [{"uid": owner}]}}


def test_objects_are_applied_in_the_order_in_which_they_are_rendered(api: RealtimeAPI) -> None:
    children = render(api, Platform(), None)
    existing = [live(children[0]), *([None] * (len(children) - 1))]
    plan = make_plan(api, Platform(), children, existing, [], None)
    assert isinstance(plan, Plan)
    assert plan.apply == list(zip(children, existing, strict=True))
    assert (plan.delete, plan.problem) == ([], None)


def test_an_object_that_is_no_longer_rendered_is_deleted(api: RealtimeAPI) -> None:
    children = render(api, Platform(), None)
    stale = live({"kind": "PodDisruptionBudget", "metadata": {"name": "api-text"}})
    plan = make_plan(api, Platform(), children, [None] * len(children), [(BUDGET, stale)], None)
    assert isinstance(plan, Plan)
    assert plan.delete == [{**stale, "apiVersion": "policy/v1"}]


def rolled_out(child: Object, **status: int) -> Object:
    """Return the live object of a rendered one, a Deployment with two updated and available replicas."""
    complete = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    there = live(child)
    there["metadata"]["generation"] = 2
    if child["kind"] == "Deployment":
        there |= {"spec": {**child["spec"], "replicas": 2}, "status": {**complete, **status}}
    return there


EARLIER = live({"kind": "ConfigMap", "metadata": {"name": "api-text-code-0"}})


@pytest.mark.parametrize(
    ("status", "is_deleted"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),
        ({"replicas": 3, "updatedReplicas": 2}, False),
        ({"updatedReplicas": 1}, False),
        ({"availableReplicas": 1}, False),
        # A pod of the previous generation was deleted a moment ago, and the new one does not start.
        ({"replicas": 1, "updatedReplicas": 1, "availableReplicas": 0}, False),
    ],
)
def test_earlier_code_is_deleted_after_the_rollout(
    api: RealtimeAPI, status: dict[str, int], is_deleted: bool
) -> None:
    children = render(api, Platform(), None)
    existing = [rolled_out(child, **status) for child in children]
    plan = make_plan(api, Platform(), children, existing, [(CONFIG_MAP, EARLIER)], None)
    assert isinstance(plan, Plan)
    assert bool(plan.delete) == is_deleted


def test_earlier_code_stays_until_the_deployment_has_the_new_template(api: RealtimeAPI) -> None:
    existing = [rolled_out(child) for child in render(api, Platform(), None)]
    children = render(api, Platform(runtimeImage="new"), None)
    plan = make_plan(api, Platform(), children, existing, [(CONFIG_MAP, EARLIER)], None)
    assert isinstance(plan, Plan)
    assert plan.delete == []


def test_an_object_of_another_owner_is_not_touched(api: RealtimeAPI) -> None:
    children = render(api, Platform(), None)
    existing = [live(child, owner="another") for child in children]
    plan = make_plan(api, Platform(), children, existing, [], None)
    assert isinstance(plan, Problem)
    assert plan.reason == "NameTaken"
    assert "Service api-text exists and is not owned by this API" in plan.message


def test_an_api_whose_endpoint_is_taken_is_applied_and_reported(api: RealtimeAPI) -> None:
    children = render(api, Platform(), None, routed=False)
    older = Key("RealtimeAPI", "ml", "older")
    plan = make_plan(api, Platform(), children, [None] * len(children), [], older)
    assert isinstance(plan, Plan)
    assert plan.problem is not None
    assert plan.problem.reason == "EndpointTaken"
    assert "endpoint /text belongs to RealtimeAPI ml/older" in plan.problem.message
    assert len(plan.apply) == len(children)


def test_a_resource_that_cannot_be_served_is_a_problem() -> None:
    resource: Object = {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "AsyncAPI",
        "metadata": {"name": "text", "namespace": "ml"},
        "spec": {"handler": {"type": "python", "path": "handler.py"}},
    }
    without_queue = parse_api(resource, Platform())
    assert isinstance(without_queue, Problem)
    assert without_queue.reason == "NoQueue"
    invalid = parse_api({**resource, "spec": {}}, Platform())
    assert isinstance(invalid, Problem)
    assert invalid.reason == "InvalidSpec"


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        (0, False),
        (403, True),
        (404, True),
        (409, False),
        (422, True),
        (429, False),
        (500, False),
        (503, False),
    ],
)
def test_errors_that_a_retry_may_solve_are_not_refusals(status: int, refused: bool) -> None:
    child = {"kind": "Service", "metadata": {"name": "api-text"}}
    problem = refused_by_cluster(child, ApiException(status=status, reason="no"))
    assert (problem is not None) == refused
    if problem is not None:
        assert problem.reason == "ServiceRefused"
        assert problem.message.startswith("the cluster refuses Service api-text: ")
