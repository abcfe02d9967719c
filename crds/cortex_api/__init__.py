"""Typed models of the Cortex resources, the only definition of RealtimeAPI and AsyncAPI.

The CustomResourceDefinitions are generated from these models. The operator, the runtime and `cortex validate` parse resources
with them. This package imports no other package of the project.
"""

__version__ = "0.2.0"

from typing import TYPE_CHECKING, Any

from cortex_api.document import Document

if TYPE_CHECKING:
    from cortex_api.kinds import GROUP, KINDS, VERSION, AsyncAPI, RealtimeAPI
    from cortex_api.parsing import InvalidManifest, Problem, parse

__all__ = [
    "GROUP",
    "KINDS",
    "VERSION",
    "AsyncAPI",
    "Document",
    "InvalidManifest",
    "Problem",
    "RealtimeAPI",
    "__version__",
    "parse",
]


def __getattr__(name: str) -> Any:
    """Import the models on first use: a process that only reads a document starts faster and smaller without them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cortex_api import kinds, parsing

    return getattr(kinds if hasattr(kinds, name) else parsing, name)
