"""Kubernetes objects as plain dictionaries: fields by path, timestamps and conditions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]


def nested(obj: Any, path: str) -> Any:
    """Return the value at a dotted path (".spec.replicas"), or None if it does not exist."""
    for name in path.strip(".").split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def now() -> str:
    """Return the current time as the API server writes it, in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Return the time of a timestamp."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def format_age(timestamp: str | None) -> str:
    """Return the time since a timestamp as kubectl prints it (7s, 2m10s, 3h, 5d)."""
    if not timestamp:
        return "<unknown>"
    seconds = max(0, int((datetime.now(UTC) - parse_time(timestamp)).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"


def ready_condition(pod: Object) -> Object | None:
    """Return a pod's Ready condition if its status is True."""
    conditions = nested(pod, "status.conditions") or ()
    return next((c for c in conditions if c["type"] == "Ready" and c["status"] == "True"), None)


def port_of(value: int | str, container: Object) -> int:
    """Return the number of a port, which may be given by name. Raises ValueError."""
    if isinstance(value, int) or value.isdigit():
        return int(value)
    for port in container.get("ports") or ():
        if port.get("name") == value:
            return int(port["containerPort"])
    raise ValueError(f"couldn't find port: {value}")


def updated_condition(
    before: Object | None, kind: str, value: str, reason: str, message: str, *, touch: bool = False
) -> Object:
    """Return a condition that keeps the timestamps of `before` where nothing changed.

    The transition time changes with the status. The update time changes with anything, and always with `touch`.
    """
    before = before or {}
    same = before.get("status") == value
    known = same and before.get("reason", "") == reason and before.get("message", "") == message and not touch
    return {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message,
        "lastTransitionTime": before["lastTransitionTime"] if same else now(),
        "lastUpdateTime": before.get("lastUpdateTime", now()) if known else now(),
    }
