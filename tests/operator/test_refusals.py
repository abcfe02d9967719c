"""A cluster that refuses objects: the refusal is reported, and the rest is applied."""

import json
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from cortex_operator.watch.cache import Key

from .test_any_order import World, resource

KEY = Key("RealtimeAPI", "default", "a")


class Refusing(World):
    """A world in which objects of one kind cannot be written or, with 403, read."""

    def __init__(self, kind: str = "", status: int = 403) -> None:
        super().__init__()
        apply, get = self.cluster.apply, self.cluster.get
        self.refusing = True

        def refuse(of: str) -> None:
            if self.refusing and of == kind:
                error = ApiException(status=status, reason="Forbidden")
                error.body = json.dumps({"message": f"{kind} is forbidden"})
                raise error

        async def applied(child: dict[str, Any], manager: str = "") -> dict[str, Any]:
            refuse(child["kind"])
            return await apply(child, manager)

        async def got(api_version: str, of: str, namespace: str, name: str) -> dict[str, Any] | None:
            if status == 403:
                refuse(of)
            return await get(api_version, of, namespace, name)

        self.cluster.apply, self.cluster.get = applied, got  # type: ignore[method-assign]

    async def process_events(self) -> None:
        """Deliver all events and reconcile once."""
        while self.pending:
            self.deliver(0)
        for key in sorted(self.due, key=str):
            await self.reconcile(key)

    def condition(self, kind: str) -> dict[str, Any]:
        conditions = self.cluster.objects["RealtimeAPI", "default", "a"]["status"]["conditions"]
        return next(condition for condition in conditions if condition["type"] == kind)

    def kinds(self) -> set[str]:
        return {kind for kind, _, _ in self.cluster.objects}


@pytest.mark.parametrize("kind", ["HTTPRoute", "PodDisruptionBudget"])
async def test_a_refused_optional_object_is_reported_and_the_rest_is_applied(kind: str) -> None:
    world = Refusing(kind, 403)
    world.cluster.put(resource("a", {"replicas": 2}))
    await world.process_events()
    assert {"Deployment", "Service", "ConfigMap"} <= world.kinds()
    assert world.condition("Degraded")["status"] == "True"
    assert f"{kind}Refused" in world.condition("Ready")["message"]
    assert f"{kind} is forbidden" in world.condition("Ready")["message"]
    assert KEY in world.due, "it is tried again"
    world.refusing = False
    await world.settle()
    assert kind in world.kinds()
    assert "Refused" not in world.condition("Ready")["message"]


@pytest.mark.parametrize("status", [403, 422])
async def test_a_refused_required_object_makes_the_api_unready(status: int) -> None:
    world = Refusing("Deployment", status)
    world.cluster.put(resource("a", {}))
    await world.process_events()
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "DeploymentRefused")
    assert "Deployment is forbidden" in ready["message"]
    world.refusing = False
    await world.settle()
    assert "Deployment" in world.kinds()


@pytest.mark.parametrize("kind", ["HTTPRoute", "Service"])
async def test_an_object_of_another_owner_is_left_alone(kind: str) -> None:
    world = Refusing()
    taken = {"kind": kind, "metadata": {"name": "api-a", "namespace": "default"}, "spec": {"theirs": 1}}
    world.cluster.put(taken)
    world.cluster.put(resource("a", {}))
    for _ in range(3):
        await world.process_events()
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NameTaken")
    assert f"{kind} api-a" in ready["message"]
    assert ("Deployment" in world.kinds()) == (kind == "HTTPRoute"), "no pod runs without a Service"
    theirs = world.cluster.objects[kind, "default", "api-a"]
    assert theirs["spec"] == {"theirs": 1}
    assert "labels" not in theirs["metadata"]
    assert KEY in world.due, "it is tried again"
    world.cluster.remove(kind, "api-a")
    await world.settle()
    assert "ownerReferences" in world.cluster.objects[kind, "default", "api-a"]["metadata"]
    assert world.condition("Ready")["reason"] != "NameTaken"


async def test_an_existing_object_of_the_api_without_labels_is_adopted() -> None:
    world = World()
    world.cluster.put(resource("a", {}))
    uid = world.cluster.objects["RealtimeAPI", "default", "a"]["metadata"]["uid"]
    metadata = {"name": "api-a", "namespace": "default", "ownerReferences": [{"uid": uid}]}
    world.cluster.put({"kind": "Service", "metadata": metadata, "spec": {"type": "NodePort"}})
    await world.settle()
    service = world.cluster.objects["Service", "default", "api-a"]
    assert service["spec"]["type"] == "ClusterIP"
    assert service["metadata"]["labels"]


async def test_an_older_crd_that_drops_a_field_is_logged_once_and_not_written_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    write = world.cluster.write_status

    async def pruned(live: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        return await write(live, {name: value for name, value in status.items() if name != "url"})

    world.cluster.write_status = pruned  # type: ignore[method-assign]
    world.cluster.put(resource("a", {}))
    await world.settle()
    writes = world.cluster.writes
    for _ in range(3):
        await world.reconcile(KEY)
        await world.settle()
    assert world.cluster.writes == writes
    assert sum("older than this operator" in message for message in caplog.messages) == 1
    assert "status.url" in caplog.text
