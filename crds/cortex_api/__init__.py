"""Typed models of the Cortex resources, the only definition of RealtimeAPI and AsyncAPI.

The CustomResourceDefinitions are generated from these models. The operator, the runtime and `cortex validate` parse resources
with them. This package imports no other package of the project.
"""

__version__ = "0.1.0"

from cortex_api.document import Document
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
