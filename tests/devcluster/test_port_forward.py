"""TCP connections to pods through the API server, with the client of the `kubernetes` library."""

from __future__ import annotations

import json
from typing import Any

import kubernetes
from kubernetes.stream import portforward

from cortex_devcluster import DevCluster

ECHO = """
import os, socket
listener = socket.create_server((os.environ['CORTEX_HOST'], 7000))
while True:
    client, _ = listener.accept()
    while data := client.recv(65536):
        client.sendall(data.upper())
        if data.endswith(b'!'):
            break
    client.close()
"""


def test_bytes_are_forwarded_both_ways_until_the_pod_closes_the_connection(
    cluster: DevCluster, kubectl: Any, make: Any
) -> None:
    kubectl("create", "-f", "-", stdin=json.dumps(make.pod("echo", ECHO)))
    core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(str(cluster.kubeconfig)))
    kubectl("wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")

    def connect() -> Any:
        forwarded = portforward(
            core.connect_get_namespaced_pod_portforward, "echo", kubectl.namespace, ports="7000"
        )
        connection = forwarded.socket(7000)
        connection.settimeout(60)
        return forwarded, connection

    def is_served() -> bool:
        _, connection = connect()
        try:
            connection.sendall(b"ping!")
            return bool(connection.recv(5) == b"PING!")
        except OSError:
            return False

    kubectl.until(is_served)
    _, connection = connect()
    large = b"x" * 300_000
    connection.sendall(large + b"!")
    received = b""
    while part := connection.recv(65536):
        received += part
    assert received == large.upper() + b"!"


def test_a_refused_connection_is_reported(cluster: DevCluster, kubectl: Any, make: Any) -> None:
    kubectl("create", "-f", "-", stdin=json.dumps(make.pod("deaf", "import time; time.sleep(60)")))
    core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(str(cluster.kubeconfig)))
    kubectl("wait", "--for=condition=Ready", "pod/deaf", "--timeout=60s")
    forwarded = portforward(
        core.connect_get_namespaced_pod_portforward, "deaf", kubectl.namespace, ports="7000"
    )
    connection = forwarded.socket(7000)
    connection.settimeout(60)
    assert connection.recv(1) == b""
    assert "forwarding 7000" in forwarded.error(7000)
