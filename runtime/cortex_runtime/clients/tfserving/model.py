"""A loaded SavedModel."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from cortex_runtime.clients.tfserving.signature import Signature
from cortex_runtime.models.repository import Version

H = TypeVar("H")


class NotLoaded(Exception):
    """The server does not have the model: it was unloaded, or the server has restarted."""


@dataclass(frozen=True)
class Model(Generic[H]):
    """A version with the served signature. handle: the object that runs it, used only by its backend."""

    version: Version
    signature: Signature
    handle: H
