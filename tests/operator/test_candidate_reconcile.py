"""The life of a candidate as a user sees it: objects, split, status and Events, with replicas that report what a test wants.

tests/cluster/test_candidates.py has the same with real replicas.
"""

import json
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from cortex_api.contract import (
    CANDIDATE_PATH,
    DURATIONS_PATH,
    INTERFACE_PATH,
    SPLIT_ANNOTATION,
    SPLIT_FILE,
    TEMPLATE_LABEL,
)
from cortex_operator.autoscaling.scaling_loop import Scaler
from cortex_operator.candidate.monitor import REPORT_PERIOD, CandidateMonitor
from cortex_operator.platform import Platform
from cortex_operator.reconcile import Reconciler
from cortex_operator.watch.cache import Key

from .test_any_order import World, resource

Object = dict[str, Any]
KEY = Key("RealtimeAPI", "default", "a")
INTERFACE = {"routes": [{"path": "/", "method": "POST"}], "protocols": ["v2"], "models": {}}
CANDIDATE = {
    "handler": {"config": {"version": 2}},
    "weight": 5,
    "mirror": 20,
    "key": "x-user-id",
    "compare": {"tolerance": 0.001},
    "rollback": {"minRequests": 200, "disagreement": "5%"},
}


class Replicas:
    """The admin ports of all pods. interfaces: by component. counts: what every stable replica reports; None: HTTP 404.
    durations: by component."""

    def __init__(self) -> None:
        self.interfaces: dict[str, Object] = {"api": INTERFACE, "candidate": INTERFACE}
        self.counts: Object | None = None
        self.durations: dict[str, Object] = {}
        self.requests: list[str] = []

    async def get(self, pod: Object, path: str) -> tuple[int, Any] | None:
        self.requests.append(path)
        component = pod["metadata"]["labels"]["cortex.dev/component"]
        if path == INTERFACE_PATH:
            found = self.interfaces.get(component)
        elif path == DURATIONS_PATH:
            found = self.durations.get(component)
        else:
            assert path == CANDIDATE_PATH
            assert component == "api"
            found = self.counts
        return (404, None) if found is None else (200, found)


class Rollout(World):
    """A world with pods, and an operator that may be restarted."""

    def __init__(self) -> None:
        super().__init__()
        self.replicas = Replicas()
        self.restart()

    def restart(self) -> None:
        self.monitor = CandidateMonitor(
            self.cache,
            self.due.add,
            self.replicas,  # type: ignore[arg-type]
            self.clock,
        )
        scaler = Scaler(self.cache, self.cluster, self.due.add)  # type: ignore[arg-type]
        self.reconciler = Reconciler(
            self.cache,
            self.cluster,
            Platform(),
            scaler,
            candidates=self.monitor,
            clock=self.clock,
        )

    async def start(self, candidate: Object | None = None, **spec: Any) -> None:
        """Create an API with a ready stable pod."""
        self.cluster.put(
            resource("a", {**spec, **({"candidate": candidate} if candidate is not None else {})})
        )
        await self.settle()
        self.run_pod("api-a")
        await self.settle()

    def run_pod(self, deployment: str, ready: bool = True, waiting: str = "") -> None:
        """Create or replace a pod of the present template of a Deployment."""
        template = self.object("Deployment", deployment)["spec"]["template"]
        state = {"waiting": {"reason": waiting, "message": "no such image"}} if waiting else {"running": {}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{deployment}-{template['metadata']['labels'][TEMPLATE_LABEL]}",
                "namespace": "default",
                "labels": template["metadata"]["labels"],
            },
            "spec": template["spec"],
        }
        self.cluster.put(pod)
        status = {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "api", "ready": ready, "state": state}],
        }
        self.cluster.edit("Pod", pod["metadata"]["name"], {"status": status})

    def delete_pods(self, deployment: str) -> None:
        component = self.object("Deployment", deployment)["spec"]["selector"]["matchLabels"]
        for (kind, _, name), thing in list(self.cluster.objects.items()):
            if kind == "Pod" and component.items() <= thing["metadata"]["labels"].items():
                self.cluster.remove("Pod", name)

    async def serve(self, candidate: Object | None = None, **spec: Any) -> None:
        """Create an API whose candidate serves."""
        await self.start(CANDIDATE if candidate is None else candidate, **spec)
        self.run_pod("api-a-candidate")
        await self.settle()
        assert self.status["phase"] == "Serving", self.status

    async def report(self, **counts: int) -> None:
        """Let the stable replicas report counts, and let the operator poll them."""
        names = ("requests", "errors", "compared", "differing", "failed")
        self.replicas.counts = {"version": self.status["version"], **dict.fromkeys(names, 0), **counts}
        await self.monitor._poll(KEY)
        await self.settle()

    def object(self, kind: str, name: str) -> Object:
        return self.cluster.objects[kind, "default", name]

    def has(self, kind: str, name: str) -> bool:
        return (kind, "default", name) in self.cluster.objects

    @property
    def resource(self) -> Object:
        return self.object("RealtimeAPI", "a")

    @property
    def status(self) -> Object:
        found: Object = self.resource["status"]["candidate"]
        return found

    @property
    def split(self) -> Object:
        found: Object = json.loads(self.object("ConfigMap", "api-a-split")["data"][SPLIT_FILE])
        return found

    @property
    def annotation(self) -> str | None:
        """The annotation of the stable pods; they all have the same."""
        (value,) = {
            thing["metadata"].get("annotations", {}).get(SPLIT_ANNOTATION)
            for (kind, _, name), thing in self.cluster.objects.items()
            if kind == "Pod" and not name.startswith("api-a-candidate")
        }
        return value

    def ready(self) -> tuple[str, str]:
        (found,) = [c for c in self.resource["status"]["conditions"] if c["type"] == "Ready"]
        return found["status"], found["reason"]

    def events(self) -> list[str]:
        return [event["reason"] for event in self.cluster.events if event["reason"].startswith("Candidate")]


@pytest.fixture
def world() -> Rollout:
    return Rollout()


async def test_a_candidate_receives_requests_when_its_pods_are_ready(world: Rollout) -> None:
    await world.start(CANDIDATE)
    assert world.has("Deployment", "api-a-candidate")
    assert world.has("Service", "api-a-candidate")
    assert (world.status["phase"], world.status["weight"]) == ("Starting", 0)
    assert (world.split["weight"], world.split["mirror"]) == (0, 0)
    world.run_pod("api-a-candidate")
    await world.settle()
    status = world.status
    assert (status["phase"], status["weight"], status["mirror"]) == ("Serving", 5, 20)
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert status["message"] == "5% of the requests are answered by the candidate, 20% are mirrored to it"
    assert world.split == {
        "version": status["version"],
        "host": "api-a-candidate.default.svc",
        "port": 8080,
        "weight": 5,
        "mirror": 20,
        "key": "x-user-id",
        "compare": {"tolerance": 0.001, "ignore": [], "keep": 50},
    }
    assert world.events() == ["CandidateServing"]


async def test_stable_pods_are_told_of_every_change_and_never_replaced(world: Rollout) -> None:
    await world.start()
    template = world.object("Deployment", "api-a")["spec"]["template"]
    annotations = [world.annotation]
    for change in (
        {"candidate": CANDIDATE},
        {"candidate": {**CANDIDATE, "weight": 50}},
        {"candidate": {**CANDIDATE, "handler": {"config": {"version": 3}}}},
        {},
    ):
        world.cluster.put(resource("a", change))
        await world.settle()
        if change:
            world.run_pod("api-a-candidate")
            await world.settle()
        annotations.append(world.annotation)
        assert world.object("Deployment", "api-a")["spec"]["template"] == template
    assert annotations[0] is None
    assert annotations[-1] is None
    assert len(set(annotations[:-1])) == 4


async def test_the_address_of_the_service_is_that_of_the_cluster(world: Rollout) -> None:
    await world.serve()
    world.cluster.edit("Service", "api-a-candidate", {"spec": {"clusterIP": "10.1.2.3"}})
    await world.settle()
    assert world.split["host"] == "10.1.2.3"


async def test_a_changed_weight_changes_the_split_alone(world: Rollout) -> None:
    await world.serve()
    deployment, version = world.object("Deployment", "api-a-candidate"), world.status["version"]
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"candidate": {"weight": 6}}})
    await world.settle()
    assert world.object("Deployment", "api-a-candidate") == deployment
    assert (world.status["version"], world.status["weight"]) == (version, 6)
    assert world.split["weight"] == 6


async def test_a_removed_candidate_leaves_nothing(world: Rollout) -> None:
    await world.start()
    before = set(world.cluster.objects)
    world.cluster.put(resource("a", {"candidate": {**CANDIDATE, "autoscaling": {"minReplicas": 2}}}))
    await world.settle()
    world.run_pod("api-a-candidate")
    await world.settle()
    assert world.has("HorizontalPodAutoscaler", "api-a-candidate")
    world.delete_pods("api-a-candidate")
    world.cluster.put(resource("a", {}))
    await world.settle()
    assert set(world.cluster.objects) == before
    assert "candidate" not in world.resource["status"]


async def test_a_removed_candidate_is_removed_from_the_split_first(world: Rollout) -> None:
    await world.serve()
    deleted: list[str] = []
    remove = world.cluster.remove

    def record(kind: str, name: str, namespace: str = "default") -> None:
        deleted.append(name)
        remove(kind, name, namespace)

    world.cluster.remove = record  # type: ignore[method-assign]
    world.cluster.put(resource("a", {}))
    await world.settle()
    assert deleted[0] == "api-a-split"
    assert "api-a-candidate" in deleted[1:]


@pytest.mark.parametrize("ready", [True, False])
async def test_a_candidate_that_cannot_start_does_not_touch_the_api(world: Rollout, ready: bool) -> None:
    await world.start()
    before = world.ready()
    world.cluster.put(resource("a", {"candidate": CANDIDATE}))
    await world.settle()
    world.run_pod("api-a-candidate", ready=False, waiting="ImagePullBackOff")
    await world.settle()
    assert world.ready() == before == ("True", "Ready")
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "ImagePullFailed")
    assert "no such image" in world.status["message"]
    assert world.split["weight"] == 0
    assert world.resource["status"]["replicas"] == 1
    assert world.events() == ["CandidateFailed"]
    if ready:
        world.run_pod("api-a-candidate")
        await world.settle()
        assert world.status["phase"] == "Serving"


@pytest.mark.parametrize("kind", ["Deployment", "Service", "ConfigMap"])
async def test_an_object_of_another_owner_fails_the_candidate_alone(world: Rollout, kind: str) -> None:
    await world.start()
    name = "api-a-split" if kind == "ConfigMap" else "api-a-candidate"
    world.cluster.put(
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": {}}
    )
    world.cluster.put(resource("a", {"candidate": CANDIDATE}))
    while world.pending:
        world.deliver(0)
    await world.reconcile(KEY)
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "NameTaken")
    assert world.ready() == ("True", "Ready")


async def test_code_that_does_not_exist_fails_the_candidate_alone(world: Rollout) -> None:
    await world.serve()
    deployment = world.object("Deployment", "api-a-candidate")
    candidate = {**CANDIDATE, "handler": {"source": {"configMap": {"name": "code"}}}}
    world.cluster.put(resource("a", {"candidate": candidate}))
    await world.settle()
    assert world.status["reason"] == "SourceUnavailable"
    assert 'ConfigMap "code"' in world.status["message"]
    assert world.ready() == ("True", "Ready")
    # What serves goes on.
    assert world.object("Deployment", "api-a-candidate") == deployment
    assert world.split["weight"] == 5
    code = {
        "kind": "ConfigMap",
        "metadata": {"name": "code", "namespace": "default"},
        "data": {"handler.py": "2"},
    }
    world.cluster.put(code)
    await world.settle()
    world.delete_pods("api-a-candidate")
    world.run_pod("api-a-candidate")
    await world.settle()
    assert world.status["phase"] == "Serving"
    volumes = world.object("Deployment", "api-a-candidate")["spec"]["template"]["spec"]["volumes"]
    (name,) = [v["configMap"]["name"] for v in volumes if v["name"] == "code"]
    assert world.object("ConfigMap", name)["data"] == {"handler.py": "2"}


async def test_a_candidate_without_its_code_is_still_rolled_back(world: Rollout) -> None:
    await world.serve()
    candidate = {**CANDIDATE, "handler": {"source": {"configMap": {"name": "code"}}}}
    world.cluster.put(resource("a", {"candidate": candidate}))
    await world.settle()
    await world.report(requests=1000, errors=1000)
    assert (world.status["phase"], world.status["reason"]) == ("RolledBack", "ErrorRate")
    assert not world.has("ConfigMap", "api-a-split")
    assert world.annotation is None
    assert world.has("Deployment", "api-a-candidate")


async def test_a_candidate_with_another_interface_receives_no_request(world: Rollout) -> None:
    world.replicas.interfaces["candidate"] = {**INTERFACE, "protocols": []}
    await world.start(CANDIDATE)
    world.run_pod("api-a-candidate")
    await world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "InterfaceChanged")
    assert world.status["message"].startswith("the candidate does not serve v2.")
    assert world.split["weight"] == 0
    assert world.ready() == ("True", "Ready")


async def test_a_runtime_without_interface_receives_no_request(world: Rollout) -> None:
    del world.replicas.interfaces["api"]
    await world.start(CANDIDATE)
    world.run_pod("api-a-candidate")
    await world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "InterfaceUnknown")
    assert "the stable version does not report its interface (HTTP 404)" in world.status["message"]


async def test_a_candidate_that_fails_is_rolled_back(world: Rollout) -> None:
    await world.serve()
    await world.report(requests=199, errors=199)
    assert world.status["phase"] == "Serving"
    await world.report(requests=200, errors=200)
    status = world.status
    assert (status["phase"], status["reason"], status["weight"]) == ("RolledBack", "ErrorRate", 0)
    assert status["message"] == (
        "the candidate failed to answer 200 of 200 requests (100%); rollback.errorRate is 5%."
        " The stable version answers all requests. A changed candidate starts anew; `cortex retry a` starts this one anew"
    )
    assert (status["requests"], status["errorRate"]) == (200, "100%")
    assert (world.split["weight"], world.split["mirror"]) == (0, 0)
    assert world.events() == ["CandidateServing", "CandidateRolledBack"]
    assert world.ready() == ("True", "Ready")
    assert "candidate" in world.resource["spec"]


async def test_a_candidate_that_is_slow_in_its_own_pods_is_rolled_back(world: Rollout) -> None:
    await world.serve({**CANDIDATE, "rollback": {"latencyRatio": 1.5}})
    bounds = [0.01, 0.02, 0.1]
    for stable, candidate in (([0, 0, 0, 0], [0, 0, 0, 0]), ([300, 0, 0, 0], [300, 0, 0, 0])):
        world.replicas.durations["api"] = {"bounds": bounds, "counts": stable}
        world.replicas.durations["candidate"] = {"bounds": bounds, "counts": candidate}
        await world.report(requests=300)
    assert world.status["phase"] == "Serving"
    world.replicas.durations["candidate"] = {"bounds": bounds, "counts": [300, 0, 300, 0]}
    await world.report(requests=600)
    assert (world.status["phase"], world.status["reason"]) == ("RolledBack", "Latency")
    assert world.status["latencyP95"] == "92ms"
    assert world.status["stableLatencyP95"] == "9.5ms"


async def test_a_candidate_that_fails_to_answer_copies_is_rolled_back(world: Rollout) -> None:
    await world.serve({**CANDIDATE, "weight": 0, "mirror": 100, "rollback": {"minRequests": 100}})
    await world.report(compared=94, failed=5)
    assert world.status["phase"] == "Serving"
    await world.report(compared=94, failed=6)
    assert (world.status["phase"], world.status["reason"]) == ("RolledBack", "ErrorRate")
    assert world.status["requests"] == 100


async def test_a_candidate_that_disagrees_is_rolled_back(world: Rollout) -> None:
    await world.serve()
    await world.report(requests=1000, compared=1000, differing=50)
    assert (world.status["phase"], world.status["disagreement"]) == ("Serving", "5%")
    await world.report(requests=2000, compared=2000, differing=120)
    assert (world.status["phase"], world.status["reason"]) == ("RolledBack", "Disagreement")


async def test_a_rollback_is_in_the_status_before_the_replicas_know(world: Rollout) -> None:
    await world.serve()
    phases = []
    apply = world.cluster.apply

    async def record(child: Object, *rest: Any) -> Object:
        if child["metadata"]["name"] == "api-a-split":
            phases.append(world.status["phase"])
        return await apply(child, *rest)

    world.cluster.apply = record  # type: ignore[method-assign]
    await world.report(requests=1000, errors=1000)
    assert phases == ["RolledBack"]


async def test_a_rollback_survives_the_operator_and_its_settings(world: Rollout) -> None:
    await world.serve()
    await world.report(requests=1000, errors=1000)
    before = world.status
    world.restart()
    world.due.add(KEY)
    await world.settle()
    assert world.status == before
    # Neither another weight nor another number of replicas makes it better.
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"candidate": {"weight": 50, "replicas": 3}}})
    await world.settle()
    assert (world.status["phase"], world.split["weight"]) == ("RolledBack", 0)


async def test_a_rollback_lasts_while_the_spec_is_invalid(world: Rollout) -> None:
    await world.serve()
    await world.report(requests=1000, errors=1000)
    before = world.status
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"compute": {"cpu": "many"}}})
    await world.settle()
    assert world.ready()[1] == "InvalidSpec"
    world.restart()
    world.due.add(KEY)
    await world.settle()
    assert (world.status, world.split["weight"]) == (before, 0)
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"compute": {"cpu": "200m"}}})
    await world.settle()
    assert world.ready() == ("True", "Ready")
    assert (world.status["phase"], world.split["weight"]) == ("RolledBack", 0)


async def test_a_rollback_does_not_wait_for_refused_objects_of_the_stable_version(world: Rollout) -> None:
    await world.serve()
    world.cluster.admission = lambda thing: refuse(thing, "Deployment", "api-a")
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"replicas": 2}})
    while world.pending:
        world.deliver(0)
    await world.reconcile(KEY)
    assert (world.ready(), world.split["weight"]) == (("False", "DeploymentRefused"), 5)
    world.replicas.counts = {
        **dict.fromkeys(("requests", "errors"), 1000),
        **dict.fromkeys(("compared", "differing", "failed"), 0),
        "version": world.status["version"],
    }
    before = world.annotation
    await world.monitor._poll(KEY)
    await world.reconcile(KEY)
    assert (world.status["phase"], world.split["weight"]) == ("RolledBack", 0)
    assert world.annotation != before


async def test_a_refused_autoscaler_leaves_the_candidate_to_the_thresholds(world: Rollout) -> None:
    autoscaling = {"autoscaling": {"targetCpuUtilization": 60, "maxReplicas": 5}}
    await world.start({**CANDIDATE, **autoscaling})
    world.cluster.remove("HorizontalPodAutoscaler", "api-a-candidate")
    world.cluster.admission = lambda thing: refuse(thing, "HorizontalPodAutoscaler", "api-a-candidate")
    world.run_pod("api-a-candidate")
    for _ in range(3):
        while world.pending:
            world.deliver(0)
        await world.reconcile(KEY)
    assert (world.status["phase"], world.status["weight"], world.split["weight"]) == ("Serving", 5, 5)
    assert world.status["reason"] == "HorizontalPodAutoscalerRefused"
    assert world.ready() == ("True", "Ready")


async def test_a_candidate_whose_split_is_refused_does_not_serve(world: Rollout) -> None:
    await world.start(CANDIDATE)
    world.cluster.admission = lambda thing: refuse(thing, "ConfigMap", "api-a-split")
    world.run_pod("api-a-candidate")
    while world.pending:
        world.deliver(0)
    await world.reconcile(KEY)
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "ConfigMapRefused")
    assert (world.status["weight"], world.split["weight"]) == (0, 0)
    world.cluster.admission = lambda thing: None
    await world.settle()
    assert (world.status["phase"], world.split["weight"]) == ("Serving", 5)


def refuse(thing: Object, kind: str, name: str) -> None:
    if (thing["kind"], thing["metadata"]["name"]) == (kind, name):
        raise ApiException(status=403, reason="Forbidden")


@pytest.mark.parametrize(
    "change",
    [
        {"handler": {"config": {"version": 3}}},
        {"rollback": {"errorRate": "100%"}},
        {"compare": {"tolerance": 1.0}},
    ],
)
async def test_a_changed_candidate_starts_anew(world: Rollout, change: Object) -> None:
    await world.serve()
    await world.report(requests=1000, errors=1000)
    assert world.status["phase"] == "RolledBack"
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"candidate": change}})
    await world.settle()
    world.delete_pods("api-a-candidate")
    world.run_pod("api-a-candidate")
    await world.settle()
    assert (world.status["phase"], world.split["weight"]) == ("Serving", 5)
    assert "requests" not in world.status


async def test_a_new_version_receives_no_request_while_pods_of_the_previous_one_run(world: Rollout) -> None:
    await world.serve()
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"candidate": {"handler": {"config": {"version": 3}}}}})
    await world.settle()
    assert (world.status["phase"], world.split["weight"]) == ("Starting", 0)
    world.run_pod("api-a-candidate")  # The pod of the previous template still runs.
    await world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Starting", "Updating")
    assert world.split["weight"] == 0


async def test_pods_that_fail_while_the_candidate_serves_do_not_end_it(world: Rollout) -> None:
    await world.serve()
    world.run_pod("api-a-candidate", ready=False, waiting="CrashLoopBackOff")
    await world.settle()
    assert world.status["phase"] == "Serving"
    assert world.status["reason"] != "Serving"
    assert world.split["weight"] == 5


async def test_a_paused_api_has_no_candidate_pods(world: Rollout) -> None:
    await world.serve()
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"paused": True}})
    await world.settle()
    assert world.object("Deployment", "api-a-candidate")["spec"]["replicas"] == 0
    assert (world.split["weight"], world.ready()) == (0, ("False", "Paused"))


async def test_replicas_are_polled_only_while_the_candidate_serves(world: Rollout) -> None:
    await world.serve()
    await world.report(requests=1000, errors=1000)
    world.replicas.requests.clear()
    for key in list(world.monitor._histories):
        await world.monitor._poll(key)
    assert world.replicas.requests == []


async def test_the_counts_in_the_status_follow_slowly(world: Rollout) -> None:
    await world.serve()
    await world.report(requests=100, errors=1)
    writes = world.cluster.writes
    for requests in range(101, 120):
        await world.report(requests=requests, errors=1)
    assert world.cluster.writes == writes
    assert (world.status["requests"], world.status["errorRate"]) == (100, "1%")
    world.now += REPORT_PERIOD
    await world.report(requests=120, errors=1)
    assert world.status["requests"] == 120


async def test_an_autoscaled_candidate_starts_with_its_share_of_the_present_replicas(world: Rollout) -> None:
    await world.start(autoscaling={"minReplicas": 2, "targetInFlight": 2})
    world.cluster.edit("Deployment", "api-a", {"spec": {"replicas": 40}})
    world.cluster.put(
        resource("a", {"autoscaling": {"minReplicas": 2, "targetInFlight": 2}, "candidate": CANDIDATE})
    )
    await world.settle()
    assert world.object("Deployment", "api-a-candidate")["spec"]["replicas"] == 10


async def test_an_autoscaled_candidate_gets_the_replicas_of_a_larger_weight_at_once(world: Rollout) -> None:
    await world.serve(autoscaling={"minReplicas": 2, "targetInFlight": 2})
    world.cluster.edit("Deployment", "api-a", {"spec": {"replicas": 40}})
    await world.settle()
    before = world.object("Deployment", "api-a-candidate")["spec"]["replicas"]
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"candidate": {"weight": 50}}})
    await world.settle()
    after = world.object("Deployment", "api-a-candidate")["spec"]["replicas"]
    assert (before, after) == (1, 28)
    # A smaller weight leaves the replicas to the autoscaler.
    world.cluster.edit("RealtimeAPI", "a", {"spec": {"candidate": {"weight": 5}}})
    await world.settle()
    assert world.object("Deployment", "api-a-candidate")["spec"]["replicas"] == 28
