"""Changes of an API with a candidate: invalid, paused and deleted APIs, retries, and candidates that replace each other."""

from typing import Any

import pytest

from cortex_api.candidate import promoted
from cortex_api.contract import RETRY_ANNOTATION

from .test_any_order import resource
from .test_candidate_reconcile import KEY, Rollout

Object = dict[str, Any]


@pytest.fixture
def world() -> Rollout:
    return Rollout()


async def make_invalid(world: Rollout) -> None:
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"compute": {"cpu": "many"}}})
    await world.settle()
    assert world.ready()[1] == "InvalidSpec"


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_candidate_of_an_invalid_spec_is_still_rolled_back(world: Rollout, restarted: bool) -> None:
    await world.serve()
    await make_invalid(world)
    if restarted:
        world.restart()
        world.due.add(KEY)
        await world.settle()
    await world.report(requests=150, errors=1)
    assert (world.status["phase"], world.status["requests"], world.split["weight"]) == ("Serving", 150, 5)
    # The threshold of the spec is 200 requests, and the default is 100.
    await world.report(requests=199, errors=199)
    assert world.status["phase"] == "Serving"
    await world.report(requests=200, errors=200)
    status = world.status
    assert (status["phase"], status["reason"], status["weight"]) == ("RolledBack", "ErrorRate", 0)
    assert not world.has("ConfigMap", "api-a-split")
    assert world.annotation is None
    assert world.events() == ["CandidateServing", "CandidateRolledBack"]
    assert world.ready()[1] == "InvalidSpec"
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"compute": {"cpu": "200m"}}})
    await world.settle()
    assert (world.status["phase"], world.split["weight"]) == ("RolledBack", 0)


async def test_a_rollback_of_an_invalid_spec_is_finished_by_the_next_operator(world: Rollout) -> None:
    await world.serve()
    await make_invalid(world)
    delete = world.cluster.delete

    async def fail(child: Object, **rest: Any) -> None:
        raise ConnectionError("the operator ends here")

    world.cluster.delete = fail  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        await world.report(requests=200, errors=200)
    assert (world.status["phase"], world.split["weight"]) == ("RolledBack", 5)
    world.cluster.delete = delete  # type: ignore[method-assign]
    world.restart()
    world.due.add(KEY)
    await world.settle()
    assert not world.has("ConfigMap", "api-a-split")
    assert world.annotation is None


async def test_invalid_thresholds_are_replaced_by_the_defaults(world: Rollout) -> None:
    await world.serve()
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"candidate": {"rollback": {"errorRate": "some"}}}})
    await world.settle()
    assert world.ready()[1] == "InvalidSpec"
    await world.report(requests=1000, errors=51)
    assert world.status["message"].endswith(
        "rollback.errorRate is 5%. The stable version answers all requests. A changed candidate starts anew;"
        " `cortex retry a` starts this one anew"
    )


async def test_a_retry_starts_the_same_candidate_anew_in_new_pods(world: Rollout) -> None:
    await world.serve()
    await world.report(requests=1000, errors=1000)
    assert world.status["phase"] == "RolledBack"
    stable = world.object("Deployment", "api-a")
    for time in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"):
        pods = world.object("Deployment", "api-a-candidate")["spec"]["template"]
        world.cluster.edit("RealtimeAPI", "a", {"metadata": {"annotations": {RETRY_ANNOTATION: time}}})
        await world.settle()
        assert (world.status["phase"], world.split["weight"]) == ("Starting", 0)
        assert world.object("Deployment", "api-a-candidate")["spec"]["template"] != pods
        world.delete_pods("api-a-candidate")
        world.run_pod("api-a-candidate")
        await world.settle()
        assert (world.status["phase"], world.split["weight"]) == ("Serving", 5)
        assert "requests" not in world.status
    assert world.object("Deployment", "api-a") == stable


async def test_a_resumed_api_has_its_candidate_again(world: Rollout) -> None:
    await world.serve()
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"paused": True}})
    world.delete_pods("api-a")
    world.delete_pods("api-a-candidate")
    await world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Starting", "Paused")
    assert world.monitor._histories == {}
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"paused": False}})
    await world.settle()
    world.run_pod("api-a")
    await world.settle()
    assert (world.status["phase"], world.split["weight"]) == ("Starting", 0)
    world.run_pod("api-a-candidate")
    await world.settle()
    assert (world.status["phase"], world.split["weight"]) == ("Serving", 5)


async def test_a_deleted_api_is_not_polled(world: Rollout) -> None:
    await world.serve()
    poll = world.monitor._poll(KEY)  # It has begun when the API is deleted.
    world.cluster.remove("RealtimeAPI", "a")
    await world.settle()
    writes = world.cluster.writes
    await poll
    await world.settle()
    assert world.monitor._histories == {}
    assert world.cluster.writes == writes


async def test_of_candidates_that_replace_each_other_only_the_last_receives_requests(world: Rollout) -> None:
    await world.serve()
    first = world.status["version"]
    for version in (3, 4):
        change = {"candidate": {"handler": {"config": {"version": version}}}}
        world.cluster.edit("RealtimeAPI", "a", {"spec": change})
        await world.settle()
        assert (world.status["phase"], world.split["weight"]) == ("Starting", 0)
        world.run_pod("api-a-candidate")
        await world.settle()
        # Its own pod is ready, and pods of the earlier candidates still run.
        assert (world.status["phase"], world.status["reason"]) == ("Starting", "Updating")
    last = world.object("Deployment", "api-a-candidate")["spec"]["template"]["metadata"]["labels"]
    pods = [
        name
        for (kind, _, name), pod in world.cluster.objects.items()
        if kind == "Pod" and "candidate" in name
    ]
    *earlier, _ = sorted(pods, key=lambda name: world.object("Pod", name)["metadata"]["labels"] == last)
    assert len(earlier) == 2
    for name in earlier:
        world.cluster.edit("Pod", name, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
        await world.settle()
    # A proxy may still send requests to them.
    assert (world.status["phase"], world.status["reason"]) == ("Starting", "Updating")
    for name in earlier:
        world.cluster.remove("Pod", name)
    await world.settle()
    assert (world.status["phase"], world.split["weight"]) == ("Serving", 5)
    assert world.split["version"] == world.status["version"] != first


async def test_a_candidate_that_equals_the_stable_version_serves_and_is_promoted_without_a_rollout(
    world: Rollout,
) -> None:
    await world.serve({"weight": 10, "mirror": 100})
    assert world.split["weight"] == 10
    before = world.object("Deployment", "api-a")["spec"]
    world.cluster.put(resource("a", promoted(world.resource)["spec"]))
    await world.settle()
    assert world.object("Deployment", "api-a")["spec"] == before
    assert not world.has("Deployment", "api-a-candidate")
    assert "candidate" not in world.resource["status"]
