"""Delivers webhooks: when a job ends, POSTs what GET /ID returns, signed, and retries until it is accepted.

The signature is that of Standard Webhooks (https://www.standardwebhooks.com): headers webhook-id, webhook-timestamp and
webhook-signature, which is `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`. Runs in the gateway.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from typing import Literal

import httpx

from cortex_runtime.backoff import pause_after
from cortex_runtime.logs.own_requests import unlogged_requests
from cortex_runtime.queues.base import Missing, QueueError, Status
from cortex_runtime.queues.hooks import Hook
from cortex_runtime.queues.job_json import view
from cortex_runtime.queues.queue import Queue

log = logging.getLogger("cortex")

Outcome = Literal["delivered", "retried", "given_up"]

_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 3600.0
MAX_ATTEMPTS = 12
"""About five hours, with the pauses between the attempts."""
_AT_ONCE = 16
_POLL_SECONDS = 2.0


def signature(secret: bytes, identity: str, timestamp: int, body: bytes) -> str:
    """Return the value of webhook-signature."""
    content = b"%b.%d.%b" % (identity.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()


class Webhooks:
    """Delivers the webhooks of a queue. counted: called with each outcome."""

    def __init__(
        self, queue: Queue, secret: bytes, timeout: float, counted: Callable[[Outcome], None]
    ) -> None:
        self._queue = queue
        self._secret = secret
        self._counted = counted
        # A redirect would send the signature to another target.
        self._client = httpx.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Deliver until cancelled; running deliveries finish first."""
        try:
            while True:
                try:
                    hooks = await self._queue.hooks.take(_AT_ONCE, _POLL_SECONDS)
                except QueueError as error:
                    log.debug("failed to take webhooks from the queue; retrying: %s", error)
                    await asyncio.sleep(_POLL_SECONDS)
                    continue
                for hook in hooks:
                    task = asyncio.create_task(self._deliver(hook))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                while len(self._running) >= _AT_ONCE:
                    await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await asyncio.gather(*self._running, return_exceptions=True)
            await self._client.aclose()

    async def _deliver(self, hook: Hook) -> None:
        record = hook.record
        try:
            problem = await self._post(hook)
            if problem is None:
                await self._queue.hooks.settle(hook)
                self._counted("delivered")
            elif hook.delivery.times >= MAX_ATTEMPTS:
                await self._queue.hooks.settle(hook)
                self._counted("given_up")
                log.error(
                    "failed to deliver the webhook of job %s after %d attempts: %s",
                    record.id,
                    MAX_ATTEMPTS,
                    problem,
                )
            else:
                pause = pause_after(hook.delivery.times, _FIRST_PAUSE, _LONGEST_PAUSE)
                await self._queue.hooks.retry(hook, pause)
                self._counted("retried")
                log.warning(
                    "failed to deliver the webhook of job %s; retrying in %g s: %s", record.id, pause, problem
                )
        except QueueError as error:
            # The message is delivered again after its lease.
            log.warning("failed to update the webhook of job %s in the queue: %s", record.id, error)

    async def _post(self, hook: Hook) -> str | None:
        """Make one attempt. Return what went wrong, or None."""
        record = hook.record
        try:
            result = await self._queue.result(record) if record.status is Status.COMPLETED else b""
        except Missing:
            return "the result is not in the store"
        body = view(record, result)
        headers = {"content-type": "application/json", "webhook-id": record.id}
        timestamp = int(time.time())
        headers["webhook-timestamp"] = str(timestamp)
        if self._secret:
            headers["webhook-signature"] = signature(self._secret, record.id, timestamp, body)
        try:
            with unlogged_requests():
                answer = await self._client.post(record.webhook, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return str(error) or type(error).__name__
        return None if answer.is_success else f"status {answer.status_code}"
