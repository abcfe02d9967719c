"""Queues on each backend. Their servers are those of tests/runtime/conftest.py."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from cortex_api import Document, parse
from cortex_runtime.queues.base import QueueError
from cortex_runtime.queues.connect import connect
from cortex_runtime.queues.queue import Queue


@pytest.fixture(params=["nats", "sqs"])
def queue_url(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn."""
    if request.param == "nats":
        return str(request.getfixturevalue("nats_server").url)
    return str(request.getfixturevalue("sqs_url"))


@pytest.fixture
async def queue_of() -> AsyncIterator[Callable[[str], Callable[..., Awaitable[Queue]]]]:
    """Return a function that returns a factory of queues at a URL, for one API unless named, with fields of spec.queue. The
    queues are removed at the end."""
    made: dict[str, list[Queue]] = {}
    main = f"t{uuid.uuid4().hex[:8]}"

    def of(url: str) -> Callable[..., Awaitable[Queue]]:
        async def make(name: str = "", **fields: Any) -> Queue:
            name = f"{main}-{name}" if name else main
            new = connect(url, document(name, **fields))
            await new.backend.open()
            made.setdefault(name, []).append(new)
            return new

        return make

    yield of
    for queues in made.values():
        with contextlib.suppress(QueueError):
            # Its server may have exited already.
            await queues[0].backend.destroy()
        for one in queues:
            await one.backend.close()


@pytest.fixture
def queue(queue_of: Any, queue_url: str) -> Callable[..., Awaitable[Queue]]:
    """Return a factory of queues at each backend in turn."""
    make: Callable[..., Awaitable[Queue]] = queue_of(queue_url)
    return make


def document(name: str, lease: str = "30s", **fields: Any) -> Document:
    handler = {"type": "python", "path": "handler.py"}
    spec = {"handler": handler, "queue": {"lease": lease, **fields}}
    metadata = {"name": name, "namespace": "default"}
    manifest = {"apiVersion": "cortex.dev/v1alpha1", "kind": "AsyncAPI", "metadata": metadata, "spec": spec}
    return Document.of(parse(manifest))
