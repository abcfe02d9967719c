"""Progress of a job, reported by the method that runs it: `report_progress(0.5, "half of the pages")`."""

from collections.abc import Callable
from contextvars import ContextVar

LONGEST_NOTE = 200

reporter: ContextVar[Callable[[float, str], None] | None] = ContextVar("reporter", default=None)
"""Sends the progress of the current job."""


def report_progress(fraction: float, note: str = "") -> None:
    """Report the progress of the current job, which GET /ID shows. Does nothing outside of a job.

    fraction: 0 to 1. note: a short text. A call within 0.1 seconds of the last report is ignored. Raises ValueError.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"progress must be between 0 and 1; got {fraction}")
    report = reporter.get()
    if report is not None:
        report(float(fraction), str(note)[:LONGEST_NOTE])
