"""Waiting for a job: with an unreachable queue, and with a progress bar on a terminal."""

import io
import json
import sys
from typing import Any

import pytest

from cortex_cli import jobs
from cortex_cli.connection import ClusterError, Response

STEP = {"status": "in_progress", "progress": 0.33, "note": "text 2 of 3"}


class Gateway:
    """A fake cluster that returns responses in order and repeats the last one."""

    def __init__(self, *responses: tuple[int, Any]) -> None:
        self.responses = list(responses)
        self.requests: list[tuple[str, dict[str, str] | None]] = []

    def request(self, method: str, url_path: str, query: dict[str, str] | None, headers: object) -> Response:
        self.requests.append((url_path, query))
        status, content = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        return Response(status, {}, json.dumps(content).encode())


def wait(gateway: Any, timeout: float = 60) -> jobs.JobResult:
    return jobs.wait(gateway, "/proxy/", "a/b", {}, timeout)


def test_waits_while_the_queue_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_RETRY_SECONDS", 0)
    gateway = Gateway((200, {"status": "in_queue"}), (503, {}), (200, STEP), (200, {"status": "completed"}))
    assert wait(gateway).is_completed
    assert gateway.requests == [("/proxy/a%2Fb", {"wait": "20s"})] * 4


@pytest.mark.parametrize("last", [(200, {"status": "failed"}), (404, {"error": "unknown"}), (401, "no key")])
def test_failed_and_unknown_jobs_have_no_result(last: tuple[int, Any]) -> None:
    result = wait(Gateway(last))
    assert (result.is_completed, result.response.status) == (False, last[0])


def test_timeout_error_names_the_job() -> None:
    with pytest.raises(ClusterError, match="still running after 0 s; continue waiting with --job a/b"):
        wait(Gateway((200, STEP)), 0)


def test_a_terminal_shows_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert wait(Gateway((200, STEP), (200, {"status": "completed"}))).is_completed
    assert "text 2 of 3" in terminal.getvalue()
    assert "33%" in terminal.getvalue()


def test_a_refused_retry_returns_the_reason() -> None:
    class Refusing(Gateway):
        def request(self, method: str, url_path: str, query: Any = None, headers: object = None) -> Response:  # type: ignore[override]
            self.requests.append((f"{method} {url_path}", query))
            return super().request(method, url_path, query, headers)

    queued = Refusing((200, {"id": "a", "status": "in_queue"}))
    assert jobs.retry(queued, "/proxy/", "a/b", {}) == ""  # type: ignore[arg-type]
    assert queued.requests[0][0] == "POST /proxy/a%2Fb/retry"
    refused = Refusing((409, {"error": "the job is completed; only a failed job can be retried"}))
    assert "job a: the job is completed" in jobs.retry(refused, "/proxy/", "a", {})  # type: ignore[arg-type]
    assert jobs.retry(Refusing((502, "")), "/", "a", {}) == "job a: the gateway sent status 502"  # type: ignore[arg-type]
