"""The controller of HorizontalPodAutoscalers: measures the CPU usage of containers and scales Deployments.

It supports the metric that the operator renders: ContainerResource `cpu` with a target of type Utilization.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable

import aiohttp

from cortex_devcluster import quantity
from cortex_devcluster.client import Client, Informer, Key, StatusError
from cortex_devcluster.controllers.autoscaler_algorithm import History, decide, recommend
from cortex_devcluster.controllers.deployment_controller import DEPLOYMENTS, PODS
from cortex_devcluster.events import Recorder
from cortex_devcluster.objects import Object, nested, now, ready_condition
from cortex_devcluster.selectors import matches

HPAS = "autoscaling/v2/horizontalpodautoscalers"
PERIOD = 5.0
"""Seconds between two decisions, over which CPU usage is averaged. In Kubernetes 15."""
log = logging.getLogger(__name__)

ContainerPids = Callable[[str, str], dict[str, int]]
"""Returns the process id of each running container of a pod (namespace, name), by container name."""


class AutoscalerController:
    """Handles all autoscalers in one loop."""

    def __init__(self, client: Client, container_pids: ContainerPids, period: float = PERIOD) -> None:
        self._client = client
        self._leaders = container_pids
        self._period = period
        self._hpas, self._deployments, self._pods = (
            Informer(client, kind) for kind in (HPAS, DEPLOYMENTS, PODS)
        )
        self._events = Recorder(client, "horizontal-pod-autoscaler")
        self._histories: dict[str, History] = defaultdict(History)
        self._used: dict[tuple[str, str], tuple[float, float]] = {}

    async def run(self) -> None:
        """Scale in every period until cancelled."""
        informers = (self._hpas, self._deployments, self._pods)
        async with asyncio.TaskGroup() as tasks:
            for informer in informers:
                tasks.create_task(informer.run())
            for informer in informers:
                await informer.synced.wait()
            while True:
                await self._tick()
                await asyncio.sleep(self._period)

    async def _tick(self) -> None:
        hpas = self._hpas.list()
        if not hpas:
            self._used.clear()
            return
        usage = self._measure()
        known = {hpa["metadata"]["uid"] for hpa in hpas}
        self._histories = defaultdict(History, {u: h for u, h in self._histories.items() if u in known})
        for hpa in hpas:
            try:
                await self._sync(hpa, usage)
            except (StatusError, aiohttp.ClientError) as error:
                if not (isinstance(error, StatusError) and error.code in (404, 409)):
                    log.warning("autoscaler %s: %s", hpa["metadata"]["name"], error)

    def _measure(self) -> dict[tuple[str, str], float]:
        """Return the CPUs that each container used since the last call, by (pod uid, container name)."""
        seconds, moment = cpu_seconds(), time.monotonic()
        before, self._used = self._used, {}
        usage = {}
        for pod in self._pods.list():
            meta = pod["metadata"]
            for name, leader in self._leaders(meta["namespace"], meta["name"]).items():
                key = (meta["uid"], name)
                used = seconds.get(leader, 0.0)
                self._used[key] = used, moment
                if key in before and moment > before[key][1]:
                    # The sum decreases if a process exits and its parent does not wait for it.
                    usage[key] = max(0.0, used - before[key][0]) / (moment - before[key][1])
        return usage

    async def _sync(self, hpa: Object, usage: dict[tuple[str, str], float]) -> None:
        spec, meta = hpa["spec"], hpa["metadata"]
        key = meta["namespace"], spec["scaleTargetRef"]["name"]
        deployment = self._deployments.get(*key)
        if spec["scaleTargetRef"]["kind"] != "Deployment" or deployment is None:
            message = (
                f'the HPA controller was unable to get the target\'s current scale: "{key[1]}" not found'
            )
            await self._report(hpa, {}, {"AbleToScale": ("False", "FailedGetScale", message)})
            return
        current = deployment["spec"].get("replicas", 1)
        if current == 0:
            idle = (
                "False",
                "ScalingDisabled",
                "scaling is disabled since the replica count of the target is zero",
            )
            able = (
                "True",
                "SucceededGetScale",
                "the HPA controller was able to get the target's current scale",
            )
            await self._report(
                hpa,
                {"currentReplicas": 0, "desiredReplicas": 0},
                {"AbleToScale": able, "ScalingActive": idle},
            )
            return
        selector = deployment["spec"]["selector"]
        pods = self._pods.list(key[0], lambda pod: matches(selector, pod["metadata"].get("labels")))
        try:
            recommended, metric = self._recommend(spec, current, pods, usage)
        except LookupError as error:
            active = ("False", "FailedGetContainerResourceMetric", str(error))
            await self._report(hpa, {"currentReplicas": current}, {"ScalingActive": active})
            return
        history = self._histories[meta["uid"]]
        decision = decide(spec, history, time.monotonic(), current, recommended)
        able = decision.able
        numbers: Object = {
            "currentReplicas": current,
            "desiredReplicas": decision.replicas,
            "currentMetrics": [metric],
        }
        if decision.replicas != current:
            await self._scale(key, hpa, current, decision.replicas)
            history.changes = [*history.changes[-100:], (time.monotonic(), decision.replicas - current)]
            numbers["lastScaleTime"] = now()
            able = (
                "True",
                "SucceededRescale",
                f"the HPA controller was able to update the target scale to {decision.replicas}",
            )
        found = "the HPA was able to successfully calculate a replica count from cpu container resource utilization"
        active = ("True", "ValidMetricFound", f"{found} (percentage of request)")
        conditions = {"AbleToScale": able, "ScalingActive": active, "ScalingLimited": decision.limited}
        await self._report(hpa, numbers, conditions)

    def _recommend(
        self, spec: Object, current: int, pods: list[Object], usage: dict[tuple[str, str], float]
    ) -> tuple[int, Object]:
        """Return the recommended replicas, and the metric for the status. Raises LookupError."""
        metrics = spec.get("metrics") or []
        source = (metrics[0].get("containerResource") or {}) if len(metrics) == 1 else {}
        target, container = nested(source, "target.averageUtilization"), source.get("container", "")
        if source.get("name") != "cpu" or target is None:
            raise LookupError("the dev cluster supports only one metric: the CPU utilization of a container")
        requests = [_cpu_request(pod, container) for pod in pods]
        if not all(requests):
            raise LookupError("failed to get cpu utilization: missing request for cpu")
        ready = [pod["metadata"]["uid"] for pod in pods if ready_condition(pod)]
        measured = {uid: usage[uid, container] for uid in ready if (uid, container) in usage}
        if not measured:
            raise LookupError("failed to get cpu utilization: no metrics returned from the ready pods yet")
        request = requests[0]
        unknown = len(pods) - len(measured)
        recommended = recommend(spec, current, measured, request, target / 100, unknown)
        average = sum(measured.values()) / len(measured)
        value = {
            "averageUtilization": round(average / request * 100),
            "averageValue": f"{round(average * 1000)}m",
        }
        shown = {"name": "cpu", "container": container, "current": value}
        return recommended, {"type": "ContainerResource", "containerResource": shown}

    async def _scale(self, key: Key, hpa: Object, current: int, replicas: int) -> None:
        change = {"spec": {"replicas": replicas}}
        await self._client.patch(DEPLOYMENTS, *key, change, "scale")
        why = "cpu container resource utilization (percentage of request) " + (
            "above target" if replicas > current else "below target"
        )
        await self._events.record(hpa, "Normal", "SuccessfulRescale", f"New size: {replicas}; reason: {why}")

    async def _report(
        self, hpa: Object, numbers: Object, conditions: dict[str, tuple[str, str, str]]
    ) -> None:
        meta, before = hpa["metadata"], hpa.get("status") or {}
        known = {condition["type"]: condition for condition in before.get("conditions") or ()}
        for kind, (status, reason, message) in conditions.items():
            old = known.get(kind, {})
            since = old["lastTransitionTime"] if old.get("status") == status else now()
            known[kind] = {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": since,
            }
        after = {**before, **numbers, "conditions": list(known.values())}
        if after != before:
            name = meta["name"]
            self._hpas.update(
                await self._client.patch(HPAS, meta["namespace"], name, {"status": after}, "status")
            )


def _cpu_request(pod: Object, container: str) -> float:
    """Return the CPUs that a container requests, 0 if it has no request."""
    found: Object = next((c for c in pod["spec"]["containers"] if c["name"] == container), {})
    return float(quantity.parse(nested(found, "resources.requests.cpu") or 0))


def cpu_seconds() -> dict[int, float]:
    """Return the CPU seconds of each process on this machine by process id, including its descendants."""
    tick = os.sysconf("SC_CLK_TCK")
    own: dict[int, float] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The program name is in parentheses and can contain spaces and parentheses.
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children[int(fields[1])].append(int(name))
        own[int(name)] = sum(map(int, fields[11:15])) / tick
    total: dict[int, float] = {}

    def add(process: int) -> float:
        total[process] = own.get(process, 0.0) + sum(map(add, children.get(process, ())))
        return total[process]

    for process in own:
        if process not in total:
            add(process)
    return total
