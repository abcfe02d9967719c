"""The Cortex resources as typed models: the one place where RealtimeAPI and AsyncAPI are defined.

The CustomResourceDefinitions are generated from these models, the operator reads resources with them, the runtime reads its
configuration with them, and `cortex validate` checks manifests with them. This package imports none of the others.
"""

__version__ = "0.1.0"

from cortex_api.document import Document
from cortex_api.kinds import GROUP, KINDS, VERSION, AsyncAPI, RealtimeAPI
from cortex_api.problems import InvalidManifest, Problem, parse

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
