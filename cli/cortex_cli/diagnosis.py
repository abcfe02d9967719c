"""What is wrong with an API, found by walking from the resource to its conditions, children, pods and events. Pure.

The operator's words come first, since it has judged; what follows says where it stands and what to do.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from cortex_api import reasons, scheduling
from cortex_cli import apis
from cortex_cli.apis import API

Object = dict[str, Any]
Level = Literal["good", "note", "bad"]
_WANTED = ("Starting", "Updating", "Paused", "ScaledToZero", "Deleting", "NamespaceTerminating")
"""Reasons of not being ready that nobody need mend."""
_BEFORE = ("InvalidSpec", "NameTaken", "NoQueue", "SourceUnavailable", "DeploymentRefused")
"""Reasons that keep the operator from making a Deployment."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. remedy: what to do, when it is bad."""

    level: Level
    where: str
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Seen:
    """What there is of one API. operators: pods of the operator, or None when they can't be looked for."""

    api: API
    deployments: list[Object]
    pods: list[Object]
    service: Object | None
    events: list[Object]
    operators: list[Object] | None


def diagnose(seen: Seen) -> list[Finding]:
    """Everything on the way from the resource to its pods, what is good too; the first that is bad explains the others."""
    api = seen.api
    return [
        _of_resource(api),
        *_of_operator(seen),
        *_of_conditions(api),
        *_of_deployments(seen),
        *_of_service(seen),
        *(_of_pod(pod, api) for pod in seen.pods),
        *_of_events(seen),
    ]


def remedy(reason: str, name: str) -> str:
    """What to do about a reason of the operator's, or ""."""
    found = reasons.lookup(reason)
    return re.sub(r"\bNAME\b", name, found.remedy) if found else ""


def _of_resource(api: API) -> Finding:
    generation = api.live["metadata"].get("generation", 0)
    age = apis.age(api.live["metadata"].get("creationTimestamp"))
    return Finding("good", f"{api.kind} {api.name}", f"is there, for {age}; generation {generation}")


def _of_operator(seen: Seen) -> list[Finding]:
    api = seen.api
    if not api.outdated:
        return []
    running = [pod for pod in seen.operators or () if apis.is_ready(pod)]
    if seen.operators is not None and not running:
        how = "none of its pods is ready" if seen.operators else "there is no pod of it"
        return [
            Finding(
                "bad",
                "operator",
                f"has not looked at the latest change, and {how}",
                "is Cortex installed? helm list -A; kubectl get pods -A -l app.kubernetes.io/name=cortex-operator",
            )
        ]
    return [
        Finding(
            "bad",
            "operator",
            "has not looked at the latest change",
            "wait a moment; then read its log: kubectl logs -A -l app.kubernetes.io/name=cortex-operator"
            " (does it serve this namespace?)",
        )
    ]


def _of_conditions(api: API) -> list[Finding]:
    found = []
    for condition in api.status.get("conditions") or ():
        holds, kind = condition["status"] == "True", condition["type"]
        text = f"{condition['status']}: {condition['reason']}" + (
            f": {condition['message']}" if condition.get("message") else ""
        )
        if kind == "Ready":
            level: Level = "good" if holds else "note" if condition["reason"] in _WANTED else "bad"
            found.append(
                Finding(level, "Ready", text, "" if holds else remedy(condition["reason"], api.name))
            )
        elif kind == "Degraded" and holds and api.ready["status"] == "True":
            found.append(Finding("bad", "Degraded", text, remedy(condition["reason"], api.name)))
    return found


def _of_deployments(seen: Seen) -> list[Finding]:
    if not seen.deployments:
        if seen.api.outdated or seen.api.ready["reason"] in _BEFORE:
            return [Finding("note", "Deployment", "is not made yet")]
        return [
            Finding(
                "bad",
                "Deployment",
                "is missing",
                "the operator makes it: read its log, which says what it may not do",
            )
        ]
    found = []
    for deployment in seen.deployments:
        status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
        ready = status.get("readyReplicas", 0)
        text = f"{ready} of {wanted} pods are ready"
        refused = [
            c
            for c in status.get("conditions") or ()
            if c["type"] == "ReplicaFailure" and c["status"] == "True"
        ]
        where = f"Deployment {deployment['metadata']['name']}"
        if refused:
            found.append(
                Finding(
                    "bad",
                    where,
                    f"{text}: {refused[0].get('message', '')}",
                    remedy("PodsRefused", seen.api.name),
                )
            )
        else:
            found.append(Finding("good" if ready >= wanted else "note", where, text))
    return found


def _of_service(seen: Seen) -> list[Finding]:
    if seen.service is not None or not seen.deployments:
        return []
    what = f"Service {seen.api.service}"
    return [
        Finding("bad", what, "is missing, so nobody finds the pods", "the operator makes it: read its log")
    ]


def _of_pod(pod: Object, api: API) -> Finding:
    where, status = f"Pod {pod['metadata']['name']}", pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return Finding("note", where, "is ending")
    restarts = sum(c.get("restartCount", 0) for c in status.get("containerStatuses") or ())
    again = f"; restarted {restarts} times" if restarts else ""
    if apis.is_ready(pod):
        return Finding("note" if restarts else "good", where, f"answers{again}")
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = str(condition.get("message", ""))
            return Finding("bad", where, f"no node can run it: {said}", "; ".join(scheduling.remedies(said)))
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        ended = (container.get("state") or {}).get("terminated") or (container.get("lastState") or {}).get(
            "terminated"
        )
        if ended and ended.get("exitCode"):
            text = f"container {container['name']} ended with {_ending(ended)}{again}"
            return Finding(
                "bad",
                where,
                text,
                f"cortex logs {api.name} --previous" if restarts else f"cortex logs {api.name}",
            )
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            said = f": {waiting['message']}" if waiting.get("message") else ""
            reason = "ImagePullFailed" if "Image" in waiting["reason"] else "PodConfigInvalid"
            text = f"container {container['name']} waits: {waiting['reason']}{said}"
            return Finding("bad", where, text, remedy(reason, api.name))
    return Finding("note", where, f"is starting{again}")


def _ending(ended: Object) -> str:
    if ended.get("reason") == "OOMKilled":
        return "no memory left (OOMKilled)"
    said = str(ended.get("message") or "").strip()
    try:
        cause = json.loads(said)
        said = f"{cause['reason']}: {cause['message']}"
    except (ValueError, KeyError, TypeError):
        pass  # Not of the runtime's: its last words as they are.
    return f"exit code {ended['exitCode']}" + (f": {said.splitlines()[0][:300]}" if said else "")


def _of_events(seen: Seen) -> list[Finding]:
    if seen.api.ready["status"] == "True":
        return []
    mine = {seen.api.name, seen.api.service, *(pod["metadata"]["name"] for pod in seen.pods)}
    said = {condition.get("message") for condition in seen.api.status.get("conditions") or ()}
    warnings = [
        event
        for event in seen.events
        if event.get("type") == "Warning"
        and (event.get("involvedObject") or {}).get("name") in mine
        and event.get("message") not in said
    ]
    latest: dict[tuple[str, str], Object] = {}
    for event in sorted(
        warnings, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or "")
    ):
        latest[event["involvedObject"]["name"], str(event.get("reason"))] = event
    return [
        Finding(
            "note",
            f"Event on {event['involvedObject']['kind']} {name}",
            f"{reason}: {event.get('message', '')}",
        )
        for (name, reason), event in list(latest.items())[-5:]
    ]
