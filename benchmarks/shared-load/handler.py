"""A handler that takes 20 ms per request. With two processes, none should be idle while a request is queued."""

import time
from typing import Any


class Handler:
    def handle_post(self, payload: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.02)
        return {"items": len(payload["items"]), "ok": True}
