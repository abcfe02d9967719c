"""The autoscaler of `targetInFlight` scales both versions, each by the load of its own replicas."""

from typing import Any

import pytest

from cortex_api.contract import object_name
from cortex_operator.autoscaling.scaling_loop import Scaler
from cortex_operator.replicas.reports import Report
from cortex_operator.watch.cache import Cache, Key

from .test_any_order import resource

Object = dict[str, Any]
KEY = Key("RealtimeAPI", "default", "a")
IN_FLIGHT = {"minReplicas": 1, "targetInFlight": 2, "window": "10s", "maxUpscaleFactor": 100}


class Replicas:
    """Reports a load for each component."""

    def __init__(self, **loads: float) -> None:
        self.loads = loads

    async def poll(self, key: Key, pod: Object) -> Report:
        return Report(True, load=self.loads[pod["metadata"]["labels"]["cortex.dev/component"]])


class Scales:
    """A cluster that notes how many replicas each Deployment gets."""

    def __init__(self) -> None:
        self.replicas: dict[str, int] = {}

    async def scale(self, deployment: Object, replicas: int) -> None:
        self.replicas[deployment["metadata"]["name"]] = replicas


async def scaled(spec: Object, **loads: float) -> dict[str, int]:
    """Return the number of replicas that each Deployment is scaled to, from one."""
    cache, cluster = Cache(), Scales()
    live = resource("a", spec)
    live["metadata"] |= {"uid": "u", "generation": 1, "resourceVersion": "1"}
    cache.put_api(KEY, live)
    for number, component in enumerate(("api", "candidate")):
        labels = {"cortex.dev/api": "a", "cortex.dev/kind": "RealtimeAPI", "cortex.dev/component": component}
        metadata = {"namespace": "default", "labels": labels, "resourceVersion": "1"}
        name = object_name("a", component)
        deployment = {"metadata": {**metadata, "name": name, "uid": f"d{number}"}, "spec": {"replicas": 1}}
        status = {"conditions": [{"type": "Ready", "status": "True"}]}
        pod = {"metadata": {**metadata, "name": f"{name}-1", "uid": f"p{number}"}, "status": status}
        cache.put_child({**deployment, "kind": "Deployment"})
        cache.put_child({**pod, "kind": "Pod"})
    scaler = Scaler(cache, cluster, lambda key: None, Replicas(**loads))  # type: ignore[arg-type]
    await scaler._evaluate_all()
    return cluster.replicas


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"autoscaling": IN_FLIGHT, "candidate": {"weight": 50}}, {"api-a": 5, "api-a-candidate": 2}),
        ({"autoscaling": IN_FLIGHT, "candidate": {"replicas": 1}}, {"api-a": 5}),
        ({"candidate": {"autoscaling": IN_FLIGHT}}, {"api-a-candidate": 2}),
        ({"autoscaling": IN_FLIGHT}, {"api-a": 5}),
        ({"autoscaling": IN_FLIGHT, "candidate": {"weight": 50}, "paused": True}, {}),
    ],
)
async def test_each_version_is_scaled_by_its_own_load(spec: Object, expected: dict[str, int]) -> None:
    assert await scaled(spec, api=10.0, candidate=4.0) == expected
