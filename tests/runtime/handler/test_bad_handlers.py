"""Handlers that misbehave: each fails only its own request, and no request hangs."""

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx

GREEDY = """
import os, resource, signal, threading
class Handler:
    def handle_post(self, payload):
        if payload == "bounded":
            # What a container's limit does to a process that asks for more.
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, hard))
            try:
                return len(bytearray(8 << 30))
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        if payload == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if payload == "exit":
            os._exit(7)
        if payload == "recursion":
            return self.handle_post(payload)
        if payload == "generator exit":
            raise GeneratorExit
        if payload == "stop iteration":
            raise StopIteration
        if payload == "interrupt":
            raise KeyboardInterrupt
        if payload == "cycle":
            cycle = []
            cycle.append(cycle)
            return cycle
        if payload == "surrogate":
            return "\\ud800"
        return os.getpid()
"""


CASES = ("bounded", "recursion", "stop iteration", "interrupt", "cycle", "surrogate", "generator exit")


def test_no_error_of_a_handler_ends_the_process(serve):
    api = serve(GREEDY)
    process = api.post("hello").json()
    for case in CASES * 3:
        answer = api.post(case)
        assert answer.status_code == 500, case
        expected = (
            "the result is nested more than 250 levels deep" if case == "cycle" else "internal server error"
        )
        assert answer.json()["error"].startswith(expected), case
    # The same with methods that run inline.
    with httpx.Client() as client:
        for _ in range(200):
            client.post(api.url, json="hello")
    for case in CASES:
        assert api.post(case).status_code == 500, case
    assert api.post("hello").json() == process
    api.until(lambda: api.metric("cortex_requests_in_flight") == 0)


def test_a_process_that_exits_loses_its_request_and_is_restarted(serve):
    api = serve(GREEDY, processesPerReplica=2)
    for case, words in (("killed", "killed by SIGKILL (out of memory?)"), ("exit", "exited with status 7")):
        try:
            status = api.post(case).status_code
        except httpx.TransportError:
            status = None
        assert status is None
        # The other process answers in the meantime, and readiness reports the failure.
        assert api.post("hello").status_code == 200
        api.until(lambda words=words: words in api.log.read_text())
        # Readiness also reports the recovery.
        api.until(
            lambda words=words: (
                (answer := api.ready())
                and answer.status_code == 200
                and words in answer.json()["lastFailure"]["message"]
            )
        )
    # A process is restarted after a pause.
    api.until(lambda: api.metric("cortex_worker_restarts_total") == 2)


LEFT = """
import pathlib, time
class Handler:
    def handle_post(self, payload):
        pathlib.Path(payload + ".begun").touch()
        while not pathlib.Path(payload + ".end").exists():
            time.sleep(0.005)
        pathlib.Path(payload + ".ended").touch()
    def handle_get(self):
        return "here"
"""


def test_a_client_that_leaves_a_running_call_does_not_affect_others(serve, tmp_path):
    api = serve(LEFT)
    gate = tmp_path / "gate"
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        body = json.dumps(str(gate)).encode()
        head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        api.until(lambda: os.path.exists(f"{gate}.begun"))
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(httpx.get, api.url)
        open(f"{gate}.end", "w").close()
        assert waiting.result().text == "here"
    api.until(lambda: os.path.exists(f"{gate}.ended"))
    api.until(lambda: api.metric("cortex_requests_in_flight") == 0)
