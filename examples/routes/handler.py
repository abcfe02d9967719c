"""Compare texts by their words: several paths, path parameters, and a WebSocket in one class."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from cortex_runtime import UserError, route

TEXTS = {1: "a small red house", 2: "a large red house", 3: "the sea in winter"}


@dataclass
class Query:
    text: str
    limit: int = 2


def similarity(one: str, other: str) -> float:
    """Return the share of words that two texts have in common."""
    first, second = Counter(one.lower().split()), Counter(other.lower().split())
    return round(2 * (first & second).total() / max((first + second).total(), 1), 3)


class Handler:
    @route("/texts/{number:int}", method="GET")
    def text(self, number: int) -> dict[str, Any]:
        """Return a text by its number."""
        if number not in TEXTS:
            raise UserError(f"text {number} does not exist", status=404)
        return {"number": number, "text": TEXTS[number]}

    @route("/search")
    def search(self, payload: Query) -> list[dict[str, Any]]:
        """Return the texts that are most similar to a text."""
        return self.nearest(payload.text)[: payload.limit]

    @route("/search/live", method="WEBSOCKET")
    async def search_live(self, websocket: Any) -> None:
        """Answer each message with the most similar text."""
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_json(self.nearest(text)[0])

    def nearest(self, text: str) -> list[dict[str, Any]]:
        found = [
            {"number": number, "text": each, "similarity": similarity(text, each)}
            for number, each in TEXTS.items()
        ]
        return sorted(found, key=lambda each: each["similarity"], reverse=True)
