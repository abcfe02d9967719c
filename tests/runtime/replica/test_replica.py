"""A replica under load and with failures: full queues, workers that exit, shutdown, several processes."""

import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.runtime.queues.servers import listens

from ..conftest import PLAIN

GATED = """
import os, pathlib, time
class Handler:
    def handle_post(self, payload):
        pathlib.Path(payload["seen"]).touch()
        while not pathlib.Path(payload["gate"]).exists():
            time.sleep(0.01)
        return {"pid": os.getpid()}
    def handle_get(self):
        return {"pid": os.getpid()}
"""


def gate(api, name):
    return {
        "seen": str(api.project.parent / f"{name}.seen"),
        "gate": str(api.project.parent / f"{name}.gate"),
    }


def open_gate(payload):
    with open(payload["gate"], "w"):
        pass


def send_and_leave(api, payload):
    body = json.dumps(payload).encode()
    client = socket.create_connection(("127.0.0.1", api.port))
    client.sendall(
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (len(body), body)
    )
    return client


def test_above_the_limit_requests_get_503_with_retry_after_and_health_responds(serve):
    api = serve(GATED, maxReplicaConcurrency=2)
    payload = gate(api, "a")
    with ThreadPoolExecutor(2) as clients:
        running = [clients.submit(api.post, payload) for _ in range(2)]
        api.until(lambda: httpx.get(f"{api.admin}/load").json()["inFlight"] == 2)
        api.until(lambda: api.metric("cortex_queue_length") == 1)
        refused = api.post(payload)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "too many requests" in refused.json()["error"]
        assert httpx.get(f"{api.admin}/healthz").status_code == 200
        assert api.ready().status_code == 200
        open_gate(payload)
        assert [r.result().status_code for r in running] == [200, 200]
    api.until(lambda: httpx.get(f"{api.admin}/load").json()["inFlight"] == 0)


def test_a_request_beyond_its_timeout_gets_504(serve):
    api = serve(GATED, requestTimeout="200ms")
    payload = gate(api, "slow")
    answer = api.post(payload)
    assert answer.status_code == 504
    assert "0.2 s" in answer.json()["error"]
    open_gate(payload)
    api.until(lambda: httpx.get(api.url).status_code == 200)


def test_a_queued_request_of_a_disconnected_client_is_not_executed(serve):
    api = serve(GATED)
    first, second = gate(api, "first"), gate(api, "second")
    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(api.post, first)
        api.until(lambda: os.path.exists(first["seen"]))
        with send_and_leave(api, second):
            api.until(lambda: api.metric("cortex_queue_length") == 1)
        api.until(lambda: api.metric('cortex_requests_total{method="POST",status="499"}') == 1)
        open_gate(first)
        assert running.result().status_code == 200
    assert httpx.get(api.url).status_code == 200
    assert not os.path.exists(second["seen"])


def test_a_killed_worker_fails_only_its_own_requests(serve):
    api = serve(GATED, processesPerReplica=2)
    gates = [gate(api, str(i)) for i in range(6)]
    connections = {}
    # A connection to each worker, found by asking which worker answers.
    while len(connections) < 2:
        client = httpx.Client(base_url=api.url)
        connections.setdefault(client.get("/").json()["pid"], client)
    before = api.metric('cortex_requests_total{method="GET",status="200"}')
    (victim, lost), (_, kept) = connections.items()
    with ThreadPoolExecutor(2) as clients:
        failing = clients.submit(lost.post, "/", json=gates[0])
        going = clients.submit(kept.post, "/", json=gates[1])
        api.until(lambda: os.path.exists(gates[0]["seen"]) and os.path.exists(gates[1]["seen"]))
        os.kill(victim, signal.SIGKILL)
        assert isinstance(failing.exception(60), httpx.TransportError)
        open_gate(gates[1])
        assert going.result().status_code == 200
    api.until(lambda: api.metric("cortex_worker_restarts_total") == 1 and api.ready().status_code == 200)
    api.until(lambda: api.metric("cortex_requests_in_flight") == 0)
    assert api.metric('cortex_requests_total{method="GET",status="200"}') >= before
    assert httpx.get(api.url).json()["pid"] != victim


def test_metrics_are_summed_over_the_processes(serve):
    api = serve(GATED, processesPerReplica=2)
    pids = {PLAIN.get(api.url).json()["pid"] for _ in range(40)}
    assert api.wait_metric('cortex_requests_total{method="GET",status="200"}', 40) == 40
    assert api.wait_metric("cortex_request_duration_seconds_count", 40) == 40
    assert api.metric("cortex_workers_ready") == 2
    assert len(pids) <= 2


def test_sigterm_finishes_running_and_queued_requests_and_exits_0(serve):
    api = serve(GATED)
    payload = gate(api, "last")
    with ThreadPoolExecutor(3) as clients:
        running = [clients.submit(api.post, payload) for _ in range(3)]
        api.until(lambda: httpx.get(f"{api.admin}/load").json()["inFlight"] == 3)
        api.process.send_signal(signal.SIGTERM)
        api.until(lambda: api.ready().status_code == 503)
        assert api.ready().json()["reason"] == "Draining"
        open_gate(payload)
        assert [r.result().status_code for r in running] == [200, 200, 200]
    assert api.process.wait(60) == 0


def test_a_request_sent_during_shutdown_is_answered(serve):
    api = serve("class Handler:\n    def handle_post(self, payload):\n        return payload\n")
    with socket.create_connection(("127.0.0.1", api.port)) as halfway:
        halfway.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-le")
        # Answered after the server has read the earlier data.
        assert api.post(1).status_code == 200
        api.process.send_signal(signal.SIGTERM)
        api.until(lambda: not listens(api.port))
        halfway.sendall(b"ngth: 2\r\ncontent-type: application/json\r\n\r\n42")
        halfway.settimeout(60)
        answer = b"".join(iter(lambda: halfway.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer.lower()
    assert answer.endswith(b"\r\n\r\n42")
    assert api.process.wait(60) == 0


def test_reload_serves_a_change_and_keeps_the_last_working_code(serve):
    source = "class Handler:\n    def handle_get(self):\n        return 'one'\n"
    api = serve(source, "--reload")
    code = api.project / "handler.py"
    code.write_text(source.replace("one", "two"))
    api.until(lambda: httpx.get(api.url).text == "two")
    code.write_text("import nothing_like_it\n")
    api.until(lambda: "the previous version stays in use" in api.log.read_text())
    assert httpx.get(api.url).text == "two"
    assert api.ready().status_code == 200


def test_reload_serves_two_changes_within_the_same_second(serve, tmp_path, monkeypatch):
    """They have the same size, and the modification time of bytecode is in seconds."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    project = tmp_path / "with-helper"
    project.mkdir()
    (project / "helper.py").write_text("VALUE = 'one'\n")
    source = "import helper\nclass Handler:\n    def handle_get(self):\n        return helper.VALUE\n"
    api = serve(source, "--reload", project=project)
    for value in ("two", "six"):
        changed = tmp_path / "changed.py"
        changed.write_text(f"VALUE = '{value}'\n")
        os.utime(changed, (1_900_000_000, 1_900_000_000))
        changed.replace(api.project / "helper.py")
        api.until(lambda value=value: httpx.get(api.url).text == value)


def test_a_change_before_the_file_watch_starts_is_served(serve):
    """The file changes while the worker that has read it starts."""
    source = "class Handler:\n    def handle_get(self):\n        return 'one'\n"
    edit = "import pathlib\nme = pathlib.Path(__file__)\nme.write_text(me.read_text().split('# end')[1])\n# end\n"
    api = serve(edit + source.replace("one", "two"), "--reload")
    api.until(lambda: "restarting the workers" in api.log.read_text())
    api.until(lambda: httpx.get(api.url).text == "two")


def test_prints_and_logging_become_json_lines_with_the_request_id(serve):
    source = (
        "import logging\nclass Handler:\n    def handle_get(self):\n        print('printed')\n"
        "        logging.getLogger('mine').warning('logged', extra={'flower': 'iris'})\n"
    )
    api = serve(source)
    httpx.get(api.url, headers={"x-request-id": "r-1"})

    def found():
        lines = [line for line in api.lines() if line.get("requestId") == "r-1"]
        return lines if len(lines) >= 2 else None

    lines = api.until(found)
    assert [line["message"] for line in lines][:2] == ["printed", "logged"]
    assert lines[1]["flower"] == "iris"
