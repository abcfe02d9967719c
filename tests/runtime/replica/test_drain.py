"""A replica after SIGTERM: it accepts connections until clients have stopped to connect."""

import os
import re
import signal
import socket
import time

import httpx
import pytest

from cortex_runtime.replica.drain import QuietPeriod

from ..conftest import PLAIN

SOURCE = """
import os
class Handler:
    def handle_get(self):
        return {"pid": os.getpid()}
"""
OPEN = ("--drain-delay", "1000", "--drain-limit", "1000")


def start_drain(api):
    """Return the number of connections until it drains."""
    made = 0

    def is_draining():
        nonlocal made
        made += 1
        return PLAIN.get(api.url).headers.get("connection") == "close"

    api.process.send_signal(signal.SIGTERM)
    api.until(is_draining)
    return made


def end_drain(api):
    """End it as Ctrl-C does, and return the number of connections that were accepted."""
    api.process.send_signal(signal.SIGINT)
    assert api.process.wait(60) == 0
    return int(re.search(r"refusing new connections; (\d+) were", api.log.read_text())[1])


@pytest.mark.parametrize(
    ("connections", "end"),
    [
        ({}, 3),
        ({1: 1}, 4),
        ({1: 5, 3: 6, 5: 7}, 8),
        ({second: second for second in range(100)}, 10),
        # A worker has exited, and its count with it.
        ({2: -4}, 5),
    ],
)
def test_a_drain_ends_after_a_time_without_a_new_connection(connections, end):
    """connections: their number from a second on."""
    period, number = QuietPeriod(3, 10, 0, 0), 0
    for second in range(end + 1):
        number = connections.get(second, number)
        assert period.is_over(number, second) == (second == end)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_draining_replica_counts_and_answers_new_connections(serve, processes):
    api = serve(SOURCE, *OPEN, processesPerReplica=processes)
    with httpx.Client() as kept:
        assert "connection" not in kept.get(api.url).headers
        start_drain(api)
        # A second signal changes nothing.
        api.process.send_signal(signal.SIGTERM)
        for _ in range(5):
            assert PLAIN.get(api.url).status_code == 200
        assert kept.get(api.url).headers["connection"] == "close"
        # The Service uses it as long as no other replica is ready.
        assert api.ready().status_code == 200
    assert end_drain(api) >= 5


def test_connections_to_the_admin_port_do_not_prolong_a_drain(serve):
    api = serve(SOURCE, *OPEN)
    made = start_drain(api)
    PLAIN.get(f"{api.admin}/metrics")
    for _ in range(made + 10):
        assert api.ready().status_code == 200
    assert end_drain(api) <= made


def test_a_drain_ends_at_its_limit_while_clients_still_connect(serve):
    api = serve(SOURCE, "--drain-delay", "1000", "--drain-limit", "0.5")
    api.process.send_signal(signal.SIGTERM)

    def is_refused():
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", api.port)) != 0

    while not is_refused():
        time.sleep(0.02)
    assert api.process.wait(60) == 0


def test_the_limit_is_read_from_the_environment(serve, monkeypatch):
    monkeypatch.setenv("CORTEX_DRAIN_LIMIT", "0")
    api = serve(SOURCE, "--drain-delay", "1000")
    api.process.send_signal(signal.SIGTERM)
    assert api.process.wait(60) == 0


def test_a_worker_that_replaces_a_killed_one_drains_too(serve):
    api = serve(SOURCE, *OPEN)
    start_drain(api)
    victim = PLAIN.get(api.url).json()["pid"]
    os.kill(victim, signal.SIGKILL)
    api.until(lambda: api.metric("cortex_worker_restarts_total") == 1)

    def replacement():
        try:
            return PLAIN.get(api.url, timeout=30)
        except httpx.TransportError:
            return None

    answer = api.until(replacement)
    assert answer.json()["pid"] != victim
    api.until(lambda: PLAIN.get(api.url).headers.get("connection") == "close")
    assert api.ready().status_code == 200
    end_drain(api)
