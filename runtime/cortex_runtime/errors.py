"""The errors that carry a message for somebody: the caller of an API, or whoever deployed it."""

import traceback


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
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


def last_lines(error: BaseException, lines: int = 12) -> str:
    """The last lines of the traceback of an error."""
    text = "".join(traceback.format_exception(error))
    return "\n".join(text.rstrip().splitlines()[-lines:])


def in_one_line(error: BaseException) -> str:
    """Type and message of an error, as far as one line goes: what a table can show."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
