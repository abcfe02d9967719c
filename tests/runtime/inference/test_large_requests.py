"""Large requests and responses are converted in a thread, so that the worker answers other requests meanwhile."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from cortex_runtime.inference import rest
from cortex_runtime.inference.messages import InferResponse, Tensor
from cortex_runtime.inference.routes import Routes
from cortex_runtime.inference.service import LARGE

BODY = b'{"inputs": []}'


class Service:
    """Answers each inference with an output of some bytes."""

    draining = False

    def __init__(self, size: int) -> None:
        self._size = size

    async def infer(self, request: Any, receive: Any) -> InferResponse:
        return InferResponse("m", "1", [Tensor("y", "UINT8", np.zeros(self._size, np.uint8))])


async def call(routes: Routes, method: str, path: str, body: bytes = b"") -> int:
    """Return the status of the response."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    await routes({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("step", "body", "output"),
    [("decode", BODY + b" " * LARGE, 1), ("encode", BODY, LARGE + 1)],
    ids=["request", "response"],
)
async def test_other_requests_are_answered_meanwhile(
    monkeypatch: pytest.MonkeyPatch, step: str, body: bytes, output: int
) -> None:
    began, may_end = asyncio.Event(), threading.Event()
    loop, original = asyncio.get_running_loop(), getattr(rest, step)

    def blocked(*arguments: Any) -> Any:
        loop.call_soon_threadsafe(began.set)
        assert may_end.wait(60)
        return original(*arguments)

    monkeypatch.setattr(rest, step, blocked)
    routes = Routes(Service(output), 2 * LARGE, 60.0)  # type: ignore[arg-type]
    inference = asyncio.create_task(call(routes, "POST", "/v2/models/m/infer", body))
    await began.wait()
    assert await call(routes, "GET", "/v2/health/live") == 200
    may_end.set()
    assert await inference == 200
