"""The serving runtime: loads a user's handler and models and answers HTTP requests with them.

A handler imports from here what it raises for its client, how it reports the progress of a job, and the decorator of its routes:
`from cortex_runtime import UserError, report_progress, route`.
"""

# First, since the loggers of the runtime and of uvicorn are then its own, whoever asks for them.
from cortex_runtime.errors import UserError
from cortex_runtime.handler.route import route
from cortex_runtime.jobs.progress import report_progress
from cortex_runtime.logs import records as _logs  # noqa: F401

__all__ = ["UserError", "report_progress", "route"]
