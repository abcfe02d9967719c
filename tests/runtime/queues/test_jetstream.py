"""The connection to NATS: when a server counts as unreachable."""

import asyncio
import time
from typing import Any

import pytest

from cortex_runtime.queues import jetstream


async def test_a_process_that_was_paused_reads_the_responses_that_arrived_meanwhile(
    queue_of: Any, nats_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "_MAX_LATENESS", 1.0)
    one = await queue_of(nats_server.url)()
    taking = asyncio.create_task(one.take(1, 0.3))
    await asyncio.sleep(0.1)
    # Longer than both limits: nothing runs in this process meanwhile.
    time.sleep(1.5)  # noqa: ASYNC251
    assert await taking == []
