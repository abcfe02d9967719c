"""Where `cortex bench` sends the requests for an API of a cluster: its URL if this machine reaches it, or one of its pods."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from cortex_api.contract import PORT
from cortex_cli import apis
from cortex_cli.api_keys import headers
from cortex_cli.connection import Cluster, ClusterError
from cortex_cli.local.ports import HOST, free_port

_CONNECT_SECONDS = 2.0


@dataclass(frozen=True)
class Endpoint:
    """Where an API is measured.

    replicas: number of replicas that serve the load. headers: with the API key, if the API requires one. note: what to know about
    the result, or empty.
    """

    url: str
    replicas: int
    headers: dict[str, str]
    note: str = ""


@contextmanager
def endpoint_of(open_cluster: Callable[[], Cluster], name: str, api_key: str | None) -> Iterator[Endpoint]:
    """Provide the endpoint of an API of the cluster. Raises ClusterError, also if the API has no ready replica."""
    cluster = open_cluster()
    api = apis.find(cluster, name)
    if api.kind != "RealtimeAPI":
        raise ClusterError(
            f"{name} is an AsyncAPI: it accepts jobs at any rate into its queue, so there is no latency to measure.\n"
            "Its capacity is the rate at which it ends jobs while its queue is not empty. To measure it:\n"
            f"  1. submit a few hundred jobs: `cortex predict {name} @FILE --no-wait` in a loop\n"
            f"  2. read Jobs per second on the page of {name} (`cortex ui`), and divide by the ready replicas"
        )
    ready = [pod for pod in apis.pods(cluster, api) if apis.is_ready(pod)]
    if not ready:
        raise ClusterError(f"{name} has no ready replica: {api.ready['reason']}: {api.ready['message']}")
    url, sent = str(api.status.get("url") or ""), headers(api, api_key)
    if url and is_reachable(url):
        yield Endpoint(url, len(ready), sent)
        return
    from cortex_cli.development.port_forward import PodPort, PortForwarder

    pod, port = str(ready[0]["metadata"]["name"]), free_port()
    forwarder = PortForwarder(cluster)
    try:
        forwarder.listen(HOST, port, lambda: PodPort(api.namespace, pod, PORT))
        note = (
            f"This machine does not reach {url}, so one pod is measured through the API server of the cluster, which adds"
            " latency. Run this command in the cluster for exact results."
        )
        yield Endpoint(f"http://{HOST}:{port}", 1, sent, note)
    finally:
        forwarder.close()


def is_reachable(url: str) -> bool:
    """Return whether this machine can connect to the host and port of a URL."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS):
            return True
    except (OSError, ValueError):
        return False
