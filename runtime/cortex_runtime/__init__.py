"""The serving runtime: loads a user's handler and models and answers HTTP requests with them.

A handler imports from here what it raises for its caller, and how it tells how far a job is:
`from cortex_runtime import UserError, report_progress`.
"""

# First, since the loggers of the runtime and of uvicorn are then its own, whoever asks for them.
from cortex_runtime.errors import UserError
from cortex_runtime.jobs.progress import report_progress
from cortex_runtime.logs import records as _logs  # noqa: F401

__all__ = ["UserError", "report_progress"]
