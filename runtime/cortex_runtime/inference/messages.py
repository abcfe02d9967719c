"""An inference request and its response, independent of how they travel."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cortex_runtime.inference.datatypes import DATATYPES, Datatype


@dataclass(slots=True)
class Tensor:
    """A named array. array: as `datatypes` describes it for this datatype."""

    name: str
    datatype: str
    array: np.ndarray
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def type(self) -> Datatype:
        """The datatype's description."""
        return DATATYPES[self.datatype]


@dataclass(slots=True)
class RequestedOutput:
    """An output that a client asks for. binary: whether as bytes; None where the request decides."""

    name: str
    binary: bool | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class InferRequest:
    """A request. version: "" for the server's choice. outputs: None for all. binary: whether outputs are sent as bytes unless the
    output requests otherwise.
    """

    model: str
    version: str
    inputs: list[Tensor]
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    outputs: list[RequestedOutput] | None = None
    binary: bool = False

    def output_names(self) -> list[str] | None:
        """Return the names of the requested outputs; None for all."""
        return None if self.outputs is None else [output.name for output in self.outputs]


@dataclass(slots=True)
class InferResponse:
    """A response. version: of the model that produced it."""

    model: str
    version: str
    outputs: list[Tensor]
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of its arrays; of those of BYTES, only the references."""
        return sum(output.array.nbytes for output in self.outputs)
