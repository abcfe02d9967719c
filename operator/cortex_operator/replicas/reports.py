"""The report of a replica about itself, from its admin port. Pure.

A report comes from a pod that runs user code, so it is not trusted: values of an unexpected form are dropped.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Object = dict[str, Any]

_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_MAX_MESSAGE = 4000


@dataclass(frozen=True)
class WorkerFailure:
    """How a worker process of the replica last exited. time: RFC 3339."""

    reason: str
    message: str
    time: str


@dataclass(frozen=True)
class Report:
    """reason, message: why the replica is not ready; empty when it is. since: when the activity in the message began (RFC 3339).
    failure: how a worker process last exited, even if another one serves by now. load: average number of in-flight requests.
    """

    ready: bool
    reason: str = ""
    message: str = ""
    since: str | None = None
    failure: WorkerFailure | None = None
    load: float | None = field(default=None, compare=False)

    @property
    def starting(self) -> bool:
        """Whether the replica is starting, so that its message shows the progress."""
        return self.reason == "Starting"


def parse(answer: Any) -> Report | None:
    """Return the report in a response of /readyz; None when it has another form."""
    if not isinstance(answer, dict) or not isinstance(answer.get("ready"), bool):
        return None
    failure = None
    if (last := _cause(answer.get("lastFailure"))) and (when := _time(answer["lastFailure"].get("time"))):
        failure = WorkerFailure(*last, when)
    reason, message = _cause(answer) or ("", "")
    load = answer.get("average", answer.get("inFlight"))
    load = float(load) if isinstance(load, int | float) and 0 <= load < 1e9 else None
    return Report(answer["ready"], reason, message, _time(answer.get("since")), failure, load)


def _cause(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, dict):
        return None
    reason, message = value.get("reason"), value.get("message")
    if not isinstance(reason, str) or not _REASON.fullmatch(reason) or not isinstance(message, str):
        return None
    return reason, message[-_MAX_MESSAGE:]


def _time(value: Any) -> str | None:
    try:
        when = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return value if when.tzinfo is not None else None


def activity(pod: Object, report: Report | None) -> str:
    """Return what a pod that is not ready is doing, and since when; empty when that is unknown."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if report is not None and report.starting and report.message:
        since = f" since {report.since}" if report.since else ""
        return f"pod {name}: {report.message}{since}"
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    waiting = [c for c in containers if c.get("state", {}).get("waiting")]
    if waiting and status.get("startTime"):
        return f"pod {name}: pulling images and mounting volumes since {status['startTime']}"
    begun = [c["state"]["running"].get("startedAt") for c in containers if c.get("state", {}).get("running")]
    latest = max((time for time in begun if time), default=None)
    return f"pod {name} running since {latest}" if latest else ""
