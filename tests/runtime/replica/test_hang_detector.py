"""A hung worker process is reported, killed with the stacks of its threads in the log, and replaced."""

import pytest

from cortex_runtime.messages import Pong
from cortex_runtime.replica.hang_detector import PERIOD, HangDetector


class Worker:
    """A simulated worker, advanced second by second."""

    def __init__(self, timeout: float = 10) -> None:
        self.pings = 0
        self.hang_detector = HangDetector(self.on_ping, timeout)
        self.busy = self.answers = True
        self.finished = 0

    def on_ping(self) -> None:
        self.pings += 1

    def run(self, seconds: int) -> str | None:
        """Advance the time. Return the problem at the end."""
        for _ in range(seconds):
            before = self.pings
            self.hang_detector.advance(1.0)
            if self.pings > before and self.answers:
                self.hang_detector.on_pong(Pong(self.busy, self.finished))
        problem = self.hang_detector.problem()
        return problem.message if problem else None


def test_a_worker_that_responds_and_finishes_calls_is_not_hung() -> None:
    worker = Worker()
    for _ in range(50):
        worker.finished += 1
        assert worker.run(2) is None
    worker.busy = False
    assert worker.run(100) is None
    assert worker.pings == pytest.approx(200 / PERIOD, abs=1)


def test_a_blocked_event_loop_is_reported_after_the_timeout_and_killed_after_twice_the_timeout() -> None:
    worker = Worker()
    worker.answers = False
    assert worker.run(int(PERIOD) + 9) is None
    assert "its event loop has been blocked for longer than handler.requestTimeout (10 s)" in (
        worker.run(2) or ""
    )
    assert not worker.hang_detector.is_expired
    worker.run(10)
    assert worker.hang_detector.is_expired


def test_busy_threads_are_reported_until_one_finishes_a_call() -> None:
    worker = Worker()
    assert worker.run(int(PERIOD) + 9) is None
    assert "all its threads have run calls for longer" in (worker.run(3) or "")
    worker.finished += 1
    assert worker.run(2) is None
    assert not worker.hang_detector.is_expired


def test_the_timeout_is_at_least_five_seconds() -> None:
    worker = Worker(timeout=0.1)
    worker.answers = False
    assert worker.run(int(PERIOD) + 4) is None
    assert worker.run(2) is not None


HANGS = """
import asyncio, os, threading, time

class Handler:
    def handle_get(self):
        return os.getpid()

    def handle_post(self, payload):
        threading.Lock().acquire()
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()  # deadlock

    async def handle_put(self, payload):
        time.sleep(1000)  # blocks the event loop
"""


@pytest.mark.parametrize(
    ("verb", "words", "line"),
    [("POST", "all its threads", "handle_post"), ("PUT", "its event loop", "handle_put")],
)
def test_a_hung_handler_is_reported_killed_and_replaced(serve, verb, words, line):
    import httpx

    api = serve(HANGS, requestTimeout="1s")
    before = httpx.get(api.url).json()
    if verb == "POST":
        assert httpx.post(api.url, json=1).status_code == 504
    else:
        # A blocked loop cannot answer.
        with pytest.raises(httpx.TimeoutException):
            httpx.put(api.url, json=1, timeout=3)

    def hung():
        answer = api.ready()
        return answer if answer.json().get("reason") == "WorkerHung" else None

    answer = api.until(hung)
    assert answer.status_code == 503
    assert words in answer.json()["message"]
    api.until(lambda: api.ready().status_code == 200 and "lastFailure" in api.ready().json())
    assert httpx.get(api.url).json() != before
    last = api.ready().json()["lastFailure"]
    assert last["reason"] == "WorkerHung"
    api.until(lambda: f"in {line}" in api.log.read_text())


def test_a_starting_replica_reports_its_step_and_since_when(serve, tmp_path):
    gate = tmp_path / "gate"
    source = f"""
import os, time

class Handler:
    def __init__(self, config):
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.02)

    def handle_post(self, payload):
        return payload
"""
    api = serve(source, wait=False)
    api.until(
        lambda: (r := api.ready()) is not None and r.json().get("message") == "constructing the handler"
    )
    said = api.ready()
    assert (said.status_code, said.json()["reason"]) == (503, "Starting")
    since = said.json()["since"]
    assert since.endswith("Z")
    assert api.ready().json()["since"] == since
    gate.touch()
    api.wait_ready()
    assert "since" not in api.ready().json()
