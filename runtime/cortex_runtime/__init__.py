"""The serving runtime: loads a user's handler and models and answers HTTP requests with them.

A handler imports from here what it raises for its caller: `from cortex_runtime import UserError`.
"""

from cortex_runtime.errors import UserError

__all__ = ["UserError"]
