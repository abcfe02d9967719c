"""What the stable replicas of an API report of its candidate."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cortex_api.contract import ADMIN_PORT
from cortex_cli import apis
from cortex_cli.connection import Cluster, ClusterError, Object

_MAX_THREADS = 16
_ABSENT = "(absent)"


def read_reports(
    cluster: Cluster, pods: list[Object], *paths: str, timeout: float = 10
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Read paths of the admin port of pods concurrently. Return the JSON of each path by pod, and errors by pod.

    pods: ready stable ones. A pod that does not use the candidate is in neither result.
    timeout: of a request, in seconds.
    """

    def read(pod: Object) -> list[Any]:
        return [
            json.loads(apis.proxy_get(cluster, pod, ADMIN_PORT, path.lstrip("/"), timeout=timeout))
            for path in paths
        ]

    found: dict[str, list[Any]] = {}
    errors: dict[str, str] = {}
    with ThreadPoolExecutor(_MAX_THREADS) as threads:
        for pod, future in [(pod["metadata"]["name"], threads.submit(read, pod)) for pod in pods]:
            try:
                found[pod] = future.result()
            except ClusterError as error:
                if error.status != 404:
                    errors[pod] = error.message
            except ValueError:
                errors[pod] = "its response is not JSON"
    return found, errors


def value_text(pair: Object, field: str) -> str:
    """Return a value of a differing pair as text, such as that of `stable` or `candidate`."""
    if field not in pair:
        return _ABSENT
    value = pair[field]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
