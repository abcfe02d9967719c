"""`python -m cortex_runtime destroy`: the program that deletes a queue."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from cortex_api import Document, parse
from cortex_runtime.queues.base import Missing, Unreachable
from cortex_runtime.queues.connect import backend_of, connect
from cortex_runtime.queues.queue import Queue

from .test_queue import Make


def destroy(url: str, queue: str, log: Path) -> int:
    command = [
        sys.executable,
        "-m",
        "cortex_runtime",
        "destroy",
        "--queue",
        queue,
        "--termination-log",
        str(log),
    ]
    return subprocess.run(command, env={**os.environ, "CORTEX_QUEUE_URL": url}, timeout=60).returncode


async def test_destroy_removes_only_the_named_queue(queue: Make, queue_url: str, tmp_path: Path) -> None:
    mine: Queue = await queue()
    other: Queue = await queue("other")
    name = f"t{uuid.uuid4().hex[:8]}"
    handler = {"type": "python", "path": "h.py"}
    manifest = {
        "kind": "AsyncAPI",
        "metadata": {"name": "api"},
        "spec": {"handler": handler, "queue": {"name": name}},
    }
    named = connect(queue_url, Document.of(parse(manifest)))
    await named.backend.open()
    identity = await named.submit(os.urandom(300_000), "application/octet-stream")
    kept = [await one.submit(b"x", "text/plain") for one in (mine, other)]
    assert destroy(queue_url, f"cortex-default-{name}", tmp_path / "log") == 0
    await named.backend.open()
    assert await named.status(identity) is None
    await named.backend.destroy()
    await named.backend.close()
    assert await mine.status(kept[0]) is not None
    assert await other.status(kept[1]) is not None


async def test_destroying_a_missing_queue_succeeds(queue_url: str, tmp_path: Path) -> None:
    name = f"cortex-default-t{uuid.uuid4().hex[:8]}"
    assert destroy(queue_url, name, tmp_path / "log") == 0
    backend = backend_of(queue_url, name, {"jobs": 1.0, "hooks": 1.0})
    await backend.destroy()  # Connects.
    with pytest.raises((Missing, Unreachable)):
        await backend.depth("jobs")
    await backend.close()


def test_an_unreachable_server_is_in_the_termination_log(tmp_path: Path) -> None:
    assert destroy("nats://127.0.0.1:1", "cortex-default-x", tmp_path / "log") == 1
    assert json.loads((tmp_path / "log").read_text())["reason"] == "QueueUnreachable"
