"""How far a job is, told by the method that works on it: `report_progress(0.5, "half of the pages")`."""

from collections.abc import Callable
from contextvars import ContextVar

LONGEST_NOTE = 200

reporter: ContextVar[Callable[[float, str], None] | None] = ContextVar("reporter", default=None)
"""Where reports of the current job go."""


def report_progress(fraction: float, note: str = "") -> None:
    """Tell how far the job is that is being worked on: 0 to 1, and a word on it; GET /ID shows both. Outside of a job, nothing.

    Cheap: what comes within a tenth of a second after the last report is left out.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"progress is between 0 and 1, not {fraction}")
    report = reporter.get()
    if report is not None:
        report(float(fraction), str(note)[:LONGEST_NOTE])
