"""AsyncAPIs in a cluster: gateway, workers and queue, and their deletion."""

from typing import Any

import httpx
import nats as nats_client

from .conftest import Kubectl, api, eventually

DOUBLE = "class Handler:\n    def handle_async(self, payload):\n        return {'double': 2 * payload['x']}\n"


def jobs(**spec: Any) -> dict[str, Any]:
    return {**api("jobs", DOUBLE, **spec), "kind": "AsyncAPI"}


def submit(kubectl: Kubectl, x: int) -> str:
    answer = httpx.post(f"{kubectl.address('jobs')}/", json={"x": x}, timeout=60)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def outcome(kubectl: Kubectl, job: str) -> dict[str, Any]:
    url = f"{kubectl.address('jobs')}/{job}"
    return eventually(lambda: httpx.get(url, timeout=60).json(), lambda seen: seen["status"] == "completed")


def test_a_job_is_accepted_processed_and_completed(kubectl: Kubectl) -> None:
    kubectl.apply(jobs())
    kubectl.wait_reason("jobs", "Ready", "asyncapi")
    assert outcome(kubectl, submit(kubectl, 4))["result"] == {"double": 8}
    queue = eventually(
        lambda: kubectl.get("asyncapi", "jobs")["status"].get("queue"),
        lambda queue: queue and not queue["queued"],
    )
    assert queue["queued"] == 0


def test_workers_go_to_zero_and_come_back_with_the_first_job(kubectl: Kubectl) -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 2, "window": "10s", "downscaleStabilizationPeriod": "0s"}
    kubectl.apply(jobs(autoscaling={**scaling, "initReplicas": 1}))
    kubectl.wait_reason("jobs", "Ready", "asyncapi")
    eventually(lambda: kubectl.get("deployment", "api-jobs")["spec"]["replicas"], lambda n: n == 0, 120)
    ready = eventually(
        lambda: kubectl.ready("jobs", "asyncapi"), lambda ready: "no jobs are queued" in ready["message"]
    )
    assert ready["status"] == "True"
    assert outcome(kubectl, submit(kubectl, 5))["result"] == {"double": 10}


def test_an_update_keeps_what_waits(kubectl: Kubectl) -> None:
    kubectl.apply(jobs(replicas=0))
    eventually(
        lambda: [d for d in kubectl.list("deployments") if d.get("status", {}).get("readyReplicas")],
        lambda ready: [d["metadata"]["name"] for d in ready] == ["api-jobs-gateway"],
    )
    job = submit(kubectl, 6)
    waiting = httpx.get(f"{kubectl.address('jobs')}/{job}", timeout=60).json()
    assert waiting["status"] == "in_queue"
    kubectl.apply(jobs(replicas=1, handler={"config": {"new": True}}))
    assert outcome(kubectl, job)["result"] == {"double": 12}


def test_deletion_keeps_the_queue_unless_the_policy_is_delete(kubectl: Kubectl) -> None:
    kubectl.apply(jobs())
    kubectl.wait_reason("jobs", "Ready", "asyncapi")
    job = submit(kubectl, 7)
    outcome(kubectl, job)
    assert "finalizers" not in kubectl.get("asyncapi", "jobs")["metadata"]
    kubectl("delete", "asyncapi", "jobs")
    kubectl.apply(jobs())
    kubectl.wait_reason("jobs", "Ready", "asyncapi")
    assert outcome(kubectl, job)["result"] == {"double": 14}
    kubectl.apply(jobs(queue={"deletionPolicy": "Delete"}))
    eventually(lambda: kubectl.get("asyncapi", "jobs")["metadata"].get("finalizers"), bool)
    assert outcome(kubectl, job)["result"] == {"double": 14}
    kubectl("delete", "asyncapi", "jobs")
    kubectl.apply(jobs())
    kubectl.wait_reason("jobs", "Ready", "asyncapi")
    assert httpx.get(f"{kubectl.address('jobs')}/{job}", timeout=60).status_code == 404


async def streams(url: str, namespace: str) -> list[str]:
    """The streams of a namespace's queues."""
    connection = await nats_client.connect(url, connect_timeout=60)
    try:
        found = await connection.jetstream(timeout=60).streams_info()
        return [stream.config.name or "" for stream in found if namespace in (stream.config.name or "")]
    finally:
        await connection.close()


async def test_a_deleted_namespace_deletes_its_queues(kubectl: Kubectl, nats: str) -> None:
    kubectl.apply(jobs(queue={"deletionPolicy": "Delete"}))
    kubectl.wait_reason("jobs", "Ready", "asyncapi")
    uid = kubectl.get("asyncapi", "jobs")["metadata"]["uid"]
    assert {f"cortex-{kubectl.namespace}-{uid}-jobs"} <= set(await streams(nats, kubectl.namespace))
    kubectl("delete", "namespace", kubectl.namespace, "--timeout=100s")
    assert await streams(nats, kubectl.namespace) == []
    kubectl("create", "namespace", kubectl.namespace)
    pods = kubectl.list("pods", "--all-namespaces", "--selector=cortex.dev/component=destroy")
    assert [pod["metadata"]["name"] for pod in pods if uid in pod["metadata"]["name"]] == []
