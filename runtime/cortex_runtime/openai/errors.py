"""Errors in the shape of OpenAI: {"error": {"message", "type", "param", "code"}}."""

from typing import Any

from starlette.types import Send

from cortex_runtime.errors import HttpError, UserError
from cortex_runtime.http import response

_CODES = {401: "invalid_api_key"}


class ParameterError(UserError):
    """A parameter of the request is wrong. param: its name. code: a word of OpenAI for the problem, or None."""

    def __init__(self, message: str, param: str | None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message, status)
        self.param = param
        self.code = code


def error_object(error: HttpError) -> dict[str, Any]:
    """Return an error as clients of OpenAI read it."""
    message = error.message if isinstance(error.message, str) else response.to_json(error.message).decode()
    fields = error.details.get("fields") or [{}]
    param = error.param if isinstance(error, ParameterError) else fields[0].get("path")
    code = error.code if isinstance(error, ParameterError) else _CODES.get(error.status)
    return {"message": message, "type": _type(error.status), "param": param or None, "code": code}


async def send_error(to: Send, error: HttpError) -> None:
    """Send an error."""
    body = response.to_json({"error": error_object(error)})
    await response.send(to, error.status, response.JSON, body, error.headers)


def _type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"
