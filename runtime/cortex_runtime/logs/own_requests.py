"""Keep URLs of the runtime's own HTTP requests out of the log: their queries and passwords may be credentials.

httpx logs a line with the whole URL for each request. The lines for requests of the handler are not affected.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_own: ContextVar[bool] = ContextVar("is_own", default=False)


def _is_of_handler(_record: logging.LogRecord) -> bool:
    return not _is_own.get()


@contextmanager
def unlogged_requests() -> Iterator[None]:
    """Requests with httpx in this context are not logged by httpx."""
    logging.getLogger("httpx").addFilter(_is_of_handler)
    token = _is_own.set(True)
    try:
        yield
    finally:
        _is_own.reset(token)
