"""A job that is followed: through a queue that is away, and with a bar on a terminal."""

import io
import json
import sys
from typing import Any

import pytest

from cortex_cli import jobs
from cortex_cli.connection import Answer, ClusterError

STEP = {"status": "in_progress", "progress": 0.33, "note": "text 2 of 3"}


class Gateway:
    """Answers one thing after the other, the last again and again."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str] | None]] = []

    def request(self, method: str, where: str, query: dict[str, str] | None, headers: object) -> Answer:
        self.asked.append((where, query))
        status, said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Answer(status, {}, json.dumps(said).encode())


def follow(gateway: Any, seconds: float = 60) -> jobs.Ended:
    return jobs.follow(gateway, "/proxy/", "a/b", {}, seconds)


def test_a_queue_that_is_away_for_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PAUSE", 0)
    gateway = Gateway((200, {"status": "in_queue"}), (503, {}), (200, STEP), (200, {"status": "completed"}))
    assert follow(gateway).completed
    assert gateway.asked == [("/proxy/a%2Fb", {"wait": "20s"})] * 4


@pytest.mark.parametrize("last", [(200, {"status": "failed"}), (404, {"error": "unknown"}), (401, "no key")])
def test_what_ends_without_a_result(last: tuple[int, Any]) -> None:
    ended = follow(Gateway(last))
    assert (ended.completed, ended.answer.status) == (False, last[0])


def test_a_job_that_takes_too_long_is_named() -> None:
    with pytest.raises(ClusterError, match="it goes on: ask again with --job a/b"):
        follow(Gateway((200, STEP)), 0)


def test_on_a_terminal_a_bar_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert follow(Gateway((200, STEP), (200, {"status": "completed"}))).completed
    assert "text 2 of 3" in terminal.getvalue()
    assert "33%" in terminal.getvalue()
