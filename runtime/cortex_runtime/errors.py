"""The errors of the runtime that more than one folder raises or handles. `http/response.py: error_of` turns them into responses.

    HttpError                     a client gets it: status, message, headers
    ├── UserError                 the request is wrong: 400 to 499; handlers raise it too
    │   ├── BodyTooLarge          413: maxBodySize
    │   └── InvalidPayload        400: the payload does not have the type of its hint
    └── RequestTimeout            504: requestTimeout
    StartError                    the API cannot start: reason and message of its status
    ClientDisconnected            the client has left; nothing is sent
    └── Moved                     another worker sends the response
    Stopped                       this process shuts down; what it has begun is abandoned

An error that one folder raises and handles is defined there:

    queues/base.py: QueueError    Unreachable, Full, Conflict, Missing, LeaseLost; OtherRequest in queues/queue.py
    handler/threads.py            HandlerExited: user code raised SystemExit or the like; the process keeps running
    serving/batching.py           WrongLength: a batch did not return one result per request
    http/json_encoder.py          NotSerializable: JSON cannot represent the result
    models/                       LoadFailed, DiskCacheFull, Changed, Busy, InvalidLayout, ...
    clients/tfserving/model.py    NotLoaded
    jobs/job_process.py           WorkerExited: the worker process of a job has exited
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cortex_runtime.logs.tracebacks import printable


class HttpError(Exception):
    """An error that the client gets.

    status: 200 to 599. message: text, or any value that JSON can represent. headers: further headers of the response.
    details: further fields of its JSON.
    """

    def __init__(self, status: int, message: Any, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = list(headers)
        self.details: Mapping[str, Any] = {}


class UserError(HttpError):
    """Raised by a handler when the request is wrong. The client gets status and message as JSON.

    status: 400 to 499.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        if not 400 <= status <= 499:
            raise ValueError(f"UserError is for statuses 400 to 499, not {status}")
        super().__init__(status, message)


class BodyTooLarge(UserError):
    """The body is larger than spec.handler.maxBodySize (bytes)."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than the limit of {limit} bytes (maxBodySize)", 413)


class InvalidPayload(UserError):
    """The payload does not have the annotated type.

    fields: path and problem of the first `MOST` wrong fields; the path of the payload itself is "". count: of all wrong fields.
    is_bytes: whether the payload is bytes, perhaps because the client has sent no content type.
    """

    MOST = 100
    """Fields in a response."""
    _MOST_IN_MESSAGE = 5

    def __init__(self, fields: Sequence[tuple[str, str]], count: int, is_bytes: bool = False) -> None:
        texts = [f"{path} {problem}".strip() for path, problem in fields[: self._MOST_IN_MESSAGE]]
        more = f"; and {count - len(texts)} more" if count > len(texts) else ""
        hint = "; send JSON with content-type: application/json" if is_bytes else ""
        super().__init__(f"the payload is not valid: {'; '.join(texts)}{more}{hint}")
        self.details = {"fields": [{"path": path, "problem": problem} for path, problem in fields]}


class RequestTimeout(HttpError):
    """A request, or the next part of its response, took longer than spec.handler.requestTimeout (seconds)."""

    def __init__(self, timeout: float) -> None:
        super().__init__(504, f"the request took longer than {timeout:g} s (requestTimeout)")


class StartError(Exception):
    """Why an API can't start: a reason as the API's status shows it, and a message that a user can act on."""

    def __init__(self, reason: str, message: str) -> None:
        # A client of the admin port and the operator read it as UTF-8.
        message = printable(message)
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class ClientDisconnected(Exception):
    """The client closed the connection before its request was handled."""


class Moved(ClientDisconnected):
    """The request and its connection were moved to another worker."""


class Stopped(Exception):
    """This process shuts down, so an installation or a download was ended; or another part of the download has failed."""
