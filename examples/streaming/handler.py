"""Stream a text word by word: as server-sent events if the client accepts text/event-stream, otherwise as JSON lines."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from cortex_runtime import UserError


class Handler:
    def __init__(self, config: dict[str, Any]) -> None:
        self.pause = config["pause"]

    async def handle_post(self, payload: Any) -> AsyncIterator[dict[str, Any]]:
        if not isinstance(payload, dict) or not isinstance(payload.get("text"), str):
            raise UserError('the body must be {"text": "..."}')
        return self.words(payload["text"])

    async def words(self, text: str) -> AsyncIterator[dict[str, Any]]:
        for number, word in enumerate(text.split()):
            yield {"number": number, "word": word}
            await asyncio.sleep(self.pause)
