"""A minimal handler: counts the items in 200 bytes of JSON."""

from typing import Any


class Handler:
    def handle_post(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {"items": len(payload["items"]), "ok": True}
