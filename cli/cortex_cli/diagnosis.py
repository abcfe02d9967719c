"""Diagnose an API from its resource, conditions, child objects, pods and events. Pure functions, without I/O.

The conditions of the operator come first. The findings about child objects, pods and events locate the cause.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from cortex_api import reasons, scheduler_messages
from cortex_cli import apis
from cortex_cli.apis import API

Object = dict[str, Any]
Level = Literal["good", "note", "bad"]
EXPECTED_REASONS = ("Starting", "Updating", "Paused", "ScaledToZero", "Deleting", "NamespaceTerminating")
"""Reasons of an unready API that need no fix."""
_MISSING_MODULE = re.compile(r"No module named '([\w.]+)'")
_WITHOUT_DEPLOYMENT = ("InvalidSpec", "NameTaken", "NoQueue", "SourceUnavailable", "DeploymentRefused")
"""Reasons for which the operator creates no Deployment."""


@dataclass(frozen=True)
class Finding:
    """One result of the diagnosis.

    subject: the object or condition, such as "Pod api-iris-x". message: its state. remedy: what to do if the level is bad.
    """

    level: Level
    subject: str
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Observed:
    """The existing objects of an API.

    operators: pods of the operator, or None if the user may not list them.
    """

    api: API
    deployments: list[Object]
    pods: list[Object]
    service: Object | None
    events: list[Object]
    operators: list[Object] | None


def diagnose(observed: Observed) -> list[Finding]:
    """Return all findings from the resource to its pods, good ones included. The first bad one is the likely cause."""
    api = observed.api
    return [
        _check_resource(api),
        *_check_operator(observed),
        *_check_conditions(api),
        *_check_candidate(api),
        *_check_deployments(observed),
        *_check_service(observed),
        *(_check_pod(pod, api) for pod in observed.pods),
        *_collect_warnings(observed),
    ]


def remedy(reason: str, name: str, message: str = "") -> str:
    """Return the remedy for a reason with the name of the API filled in, or "". message: of the failure; it may name a module."""
    if specific := missing_package(reason, message):
        return specific
    documented = reasons.lookup(reason)
    return re.sub(r"\bNAME\b", name, documented.remedy) if documented else ""


def missing_package(reason: str, message: str) -> str:
    """Return the remedy for a failure because a module does not exist; "" for all others."""
    if reason != "HandlerImportError" or (missing := _MISSING_MODULE.search(message)) is None:
        return ""
    return f"Add the package that contains `{missing[1]}` to requirements.txt, or correct the import."


def _check_resource(api: API) -> Finding:
    generation = api.live["metadata"].get("generation", 0)
    age = apis.age(api.live["metadata"].get("creationTimestamp"))
    return Finding("good", f"{api.kind} {api.name}", f"exists, age {age}, generation {generation}")


def _check_operator(observed: Observed) -> list[Finding]:
    api = observed.api
    if not api.is_outdated:
        return []
    running = [pod for pod in observed.operators or () if apis.is_ready(pod)]
    if observed.operators is not None and not running:
        state = "no operator pod is ready" if observed.operators else "no operator pod exists"
        return [
            Finding(
                "bad",
                "operator",
                f"has not reconciled the latest change: {state}",
                "check that Cortex is installed: `helm list -A`, `kubectl get pods -A -l"
                " app.kubernetes.io/name=cortex-operator`",
            )
        ]
    return [
        Finding(
            "bad",
            "operator",
            "has not reconciled the latest change",
            "wait a moment, then check the operator's log, and that the operator watches this namespace: `kubectl logs -A -l"
            " app.kubernetes.io/name=cortex-operator`",
        )
    ]


def _check_conditions(api: API) -> list[Finding]:
    found = []
    for condition in api.status.get("conditions") or ():
        holds, kind = condition["status"] == "True", condition["type"]
        text = f"{condition['status']}: {condition['reason']}" + (
            f": {condition['message']}" if condition.get("message") else ""
        )
        if kind == "Ready":
            level: Level = "good" if holds else "note" if condition["reason"] in EXPECTED_REASONS else "bad"
            found.append(
                Finding(level, "Ready", text, "" if holds else remedy(condition["reason"], api.name, text))
            )
        elif kind == "Degraded" and holds and api.ready["status"] == "True":
            found.append(Finding("bad", "Degraded", text, remedy(condition["reason"], api.name, text)))
    return found


def _check_candidate(api: API) -> list[Finding]:
    """Return the state of the candidate, which does not affect the conditions of the API."""
    state = api.status.get("candidate")
    if state is None:
        return []
    phase, reason = state["phase"], state["reason"]
    text = f"{phase}: {state['message']}" if reason == phase else f"{phase}: {reason}: {state['message']}"
    if phase in ("Failed", "RolledBack"):
        return [Finding("bad", "candidate", text, remedy(reason, api.name, text))]
    return [Finding("good" if reason == "Serving" else "note", "candidate", text)]


def _check_deployments(observed: Observed) -> list[Finding]:
    if not observed.deployments:
        if observed.api.is_outdated or observed.api.ready["reason"] in _WITHOUT_DEPLOYMENT:
            return [Finding("note", "Deployment", "does not exist yet")]
        return [
            Finding(
                "bad",
                "Deployment",
                "is missing",
                "the operator creates it; check the operator's log for missing permissions",
            )
        ]
    found = []
    for deployment in observed.deployments:
        status, desired = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
        ready = status.get("readyReplicas", 0)
        text = f"{ready} of {desired} pods are ready"
        failures = [
            c
            for c in status.get("conditions") or ()
            if c["type"] == "ReplicaFailure" and c["status"] == "True"
        ]
        subject = f"Deployment {deployment['metadata']['name']}"
        if failures:
            found.append(
                Finding(
                    "bad",
                    subject,
                    f"{text}: {failures[0].get('message', '')}",
                    remedy("PodsRefused", observed.api.name),
                )
            )
        else:
            found.append(Finding("good" if ready >= desired else "note", subject, text))
    return found


def _check_service(observed: Observed) -> list[Finding]:
    if observed.service is not None or not observed.deployments:
        return []
    subject = f"Service {observed.api.service}"
    return [
        Finding(
            "bad",
            subject,
            "is missing, so requests do not reach the pods",
            "the operator creates it; check the operator's log",
        )
    ]


def _check_pod(pod: Object, api: API) -> Finding:
    subject, status = f"Pod {pod['metadata']['name']}", pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return Finding("note", subject, "is terminating")
    restarts = sum(c.get("restartCount", 0) for c in status.get("containerStatuses") or ())
    restarts_text = f"; restarted {restarts} times" if restarts else ""
    if apis.is_ready(pod):
        return Finding("note" if restarts else "good", subject, f"is ready{restarts_text}")
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            message = str(condition.get("message", ""))
            return Finding(
                "bad",
                subject,
                f"is unschedulable: {message}",
                "; ".join(scheduler_messages.remedies(message)),
            )
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        terminated = (container.get("state") or {}).get("terminated") or (
            container.get("lastState") or {}
        ).get("terminated")
        if terminated and terminated.get("exitCode"):
            text = f"container {container['name']} exited with {_exit_text(terminated)}{restarts_text}"
            return Finding(
                "bad",
                subject,
                text,
                f"cortex logs {api.name} --previous" if restarts else f"cortex logs {api.name}",
            )
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            message = f": {waiting['message']}" if waiting.get("message") else ""
            reason = "ImagePullFailed" if "Image" in waiting["reason"] else "PodConfigInvalid"
            text = f"container {container['name']} is waiting: {waiting['reason']}{message}"
            return Finding("bad", subject, text, remedy(reason, api.name, text))
    return Finding("note", subject, f"is starting{restarts_text}")


def _exit_text(terminated: Object) -> str:
    if terminated.get("reason") == "OOMKilled":
        return "out of memory (OOMKilled)"
    text = str(terminated.get("message") or "").strip()
    try:
        cause = json.loads(text)
        text = f"{cause['reason']}: {cause['message']}"
    except (ValueError, KeyError, TypeError):
        pass  # The message is not from the runtime, so use it unchanged.
    return f"exit code {terminated['exitCode']}" + (f": {text.splitlines()[0][:300]}" if text else "")


def _collect_warnings(observed: Observed) -> list[Finding]:
    if observed.api.ready["status"] == "True":
        return []
    names = {observed.api.name, observed.api.service, *(pod["metadata"]["name"] for pod in observed.pods)}
    reported = {condition.get("message") for condition in observed.api.status.get("conditions") or ()}
    warnings = [
        event
        for event in observed.events
        if event.get("type") == "Warning"
        and (event.get("involvedObject") or {}).get("name") in names
        and event.get("message") not in reported
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
