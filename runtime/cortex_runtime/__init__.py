"""The serving runtime: loads a user's handler and models, and answers HTTP requests or jobs with them.

Handlers import its public names from here: `from cortex_runtime import UserError, report_progress, route`.
"""

# First, before anything imports one of its modules.
from cortex_runtime import lazy_imports as _lazy_imports  # noqa: F401

# Next, so that every later `logging.getLogger` returns a logger of the runtime.
from cortex_runtime.errors import UserError
from cortex_runtime.handler.route import route
from cortex_runtime.jobs.progress import report_progress
from cortex_runtime.logs import records as _logs  # noqa: F401

__all__ = ["UserError", "report_progress", "route"]
