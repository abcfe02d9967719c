"""The webhooks of a queue that wait for delivery. jobs/webhook.py sends them; Records.announce adds one when a job ends."""

from dataclasses import dataclass

from cortex_runtime.queues.base import Backend, Delivery, Record
from cortex_runtime.queues.records import Records


@dataclass(frozen=True)
class Hook:
    """A webhook to deliver. record: the job that has ended."""

    record: Record
    delivery: Delivery


class Hooks:
    """The webhooks of one API's jobs. Each method raises Unreachable."""

    def __init__(self, backend: Backend, records: Records) -> None:
        self._backend = backend
        self._records = records

    async def take(self, limit: int, seconds: float) -> list[Hook]:
        """Wait for webhooks and return at most `limit`; an empty list after `seconds`. Each must be settled or retried."""
        hooks = []
        for delivery in await self._backend.take("hooks", limit, seconds):
            # A replica may not have the end of the job yet.
            entry = await self._backend.read(delivery.id, fresh=True)
            record = None if entry is None else Record.unpack(entry.data)
            if record is None or self._records.has_expired(record) or not record.ended:
                await self._backend.settle(delivery)
            else:
                hooks.append(Hook(record, delivery))
        return hooks

    async def settle(self, hook: Hook) -> None:
        """Delete a webhook that was delivered, or whose last attempt has failed."""
        await self._backend.settle(hook.delivery)

    async def retry(self, hook: Hook, delay: float) -> None:
        """Release a webhook, to be delivered again after `delay` seconds."""
        await self._backend.release(hook.delivery, delay)
