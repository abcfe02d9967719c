"""Greet a person by name."""

from typing import Any

from cortex_runtime import UserError


class Handler:
    """The constructor runs once in each worker process; load a model here. `config` is handler.config of api.yaml."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.greeting = config["greeting"]

    def handle_post(self, payload: Any) -> dict[str, str]:
        """Return the response to a POST. payload: the parsed JSON body. A UserError becomes a response with status 400."""
        if not isinstance(payload, dict) or "name" not in payload:
            raise UserError('the body must be {"name": "..."}')
        return {"text": f"{self.greeting}, {payload['name']}"}
