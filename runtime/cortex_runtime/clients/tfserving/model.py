"""A SavedModel that is loaded somewhere."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from cortex_runtime.clients.tfserving.signature import Signature
from cortex_runtime.models.repository import Version

H = TypeVar("H")


class NotLoaded(Exception):
    """A server does not have the model any more: it was unloaded, or the server restarted."""


@dataclass(frozen=True)
class Model(Generic[H]):
    """A version with the signature that is served. handle: what runs it, known to who loaded it."""

    version: Version
    signature: Signature
    handle: H
