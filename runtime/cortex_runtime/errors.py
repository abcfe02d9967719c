"""The errors that carry a message for somebody: the caller of an API, or whoever deployed it."""

from cortex_runtime.logs.tracebacks import printable


class UserError(Exception):
    """What a handler raises when the request is wrong; the message and status reach the client as JSON.

    status: 400 to 499.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        if not 400 <= status <= 499:
            raise ValueError(f"UserError is for statuses 400 to 499, not {status}")
        super().__init__(message)
        self.message = message
        self.status = status


class StartError(Exception):
    """Why an API can't start: a reason as the API's status shows it, and a message that a user can act on."""

    def __init__(self, reason: str, message: str) -> None:
        # A client of the admin port and the operator read it as UTF-8.
        message = printable(message)
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
