"""How long a deleted pod continues to serve: fields of the pod template, and the limit that the runtime gets where they differ.

A deleted pod first serves as before for PRE_STOP seconds, in which most proxies remove it from its Service. Then it gets SIGTERM,
and accepts connections until clients have stopped to connect (`cortex_runtime.replica.drain`).
"""

import math
from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI, contract
from cortex_api.contract import DRAIN_DELAY, DRAIN_LIMIT, DRAIN_LIMIT_VARIABLE, WORKER
from cortex_api.units import seconds

Object = dict[str, Any]

PRE_STOP = 3
"""Seconds for which a deleted pod serves as before."""
_JOB_GRACE = 60
"""Seconds that a worker has to finish its jobs after its deletion; unfinished jobs go to another worker."""
_GATEWAY_SECONDS = 25
"""Seconds that a gateway has to finish its requests."""
_SPARE = 5
"""Seconds to exit, after the last request."""


def grace(api: RealtimeAPI | AsyncAPI, component: str) -> int:
    """Return the seconds from a pod's deletion to its end by force: what it may still be doing, and some to spare."""
    if component == WORKER:
        return _JOB_GRACE + 15
    return PRE_STOP + math.ceil(DRAIN_LIMIT) + _request_seconds(api) + _SPARE


def lifecycle() -> Object:
    """Return the lifecycle of a container that serves requests."""
    return {"preStop": {"sleep": {"seconds": PRE_STOP}}}


def fit_limit(pod: Object, api: RealtimeAPI | AsyncAPI, component: str) -> None:
    """Limit the drain of a pod to the time that its grace period leaves for it, so that running requests can still end."""
    (container,) = (c for c in pod["spec"]["containers"] if c["name"] == contract.CONTAINERS[component])
    hook = (container.get("lifecycle") or {}).get("preStop")
    # The duration of hooks of other types is not known.
    sleep = (hook.get("sleep") or {}).get("seconds", PRE_STOP) if hook else 0
    left = max(0, pod["spec"].get("terminationGracePeriodSeconds", 30) - sleep)
    limit = max(min(DRAIN_DELAY, left / 2), left - _request_seconds(api) - _SPARE)
    variables = container.get("env", [])
    if limit != DRAIN_LIMIT and all(variable["name"] != DRAIN_LIMIT_VARIABLE for variable in variables):
        container["env"] = [*variables, {"name": DRAIN_LIMIT_VARIABLE, "value": f"{limit:g}"}]


def _request_seconds(api: RealtimeAPI | AsyncAPI) -> int:
    if isinstance(api, AsyncAPI):
        return _GATEWAY_SECONDS
    return math.ceil(seconds(api.spec.handler.request_timeout))
