"""Kubernetes Events: one when Ready or its reason changes, and one for each change by another writer that was reverted."""

from typing import Any

from cortex_operator.cluster import MANAGER

Object = dict[str, Any]

_NORMAL_REASONS = {"Starting", "Updating", "Paused", "ScaledToZero", "Deleting", "NamespaceTerminating"}

_CANDIDATE_EVENTS = {
    "Serving": ("Normal", "CandidateServing"),
    "RolledBack": ("Warning", "CandidateRolledBack"),
    "Failed": ("Warning", "CandidateFailed"),
}
"""Type and reason of the Event of each phase of a candidate."""


def of_transition(live: Object, before: Object, after: Object, now: str) -> Object | None:
    """Return the Event of the transition from one status to the next; None when Ready and its reason do not change, and for the
    first status of an API that starts as expected.
    """
    old, new = _condition(before, "Ready"), _condition(after, "Ready")
    if (old.get("status"), old.get("reason")) == (new["status"], new["reason"]):
        return None
    degraded = _condition(after, "Degraded").get("status") == "True"
    is_normal = not degraded and (new["status"] == "True" or new["reason"] in _NORMAL_REASONS)
    if is_normal and not old and new["status"] != "True":
        return None
    return _event(live, "Normal" if is_normal else "Warning", new["reason"], new["message"], now)


def of_candidate(live: Object, before: Object, after: Object, now: str) -> Object | None:
    """Return the Event of a candidate that has started to serve, was rolled back, or cannot start; None if neither is new."""
    old, new = before.get("candidate") or {}, after.get("candidate") or {}
    identity = ("phase", "version", "reason" if new.get("phase") == "Failed" else "phase")
    if new.get("phase") not in _CANDIDATE_EVENTS or all(old.get(field) == new[field] for field in identity):
        return None
    kind, reason = _CANDIDATE_EVENTS[new["phase"]]
    text = new["message"] if kind == "Normal" else f"{new['reason']}: {new['message']}"
    return _event(live, kind, reason, text, now)


def warning(live: Object, reason: str, message: str, now: str) -> Object:
    """Return a Warning Event for something that no condition shows."""
    return _event(live, "Warning", reason, message, now)


def _event(live: Object, kind: str, reason: str, message: str, now: str) -> Object:
    metadata = live["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": live["apiVersion"],
            "kind": live["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": kind,
        "reason": reason,
        "message": _one_line(message)[:1024],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _one_line(message: str) -> str:
    """Return the first line, which has the cause. If it only announces the output of a command, add the last line of that."""
    first, *more = [line for line in message.splitlines() if line.strip()] or [""]
    return f"{first} {more[-1].strip()}" if more and first.endswith(":") else first


def _condition(status: Object, kind: str) -> Object:
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})
