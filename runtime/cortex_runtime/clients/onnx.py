"""`onnx_client`: runs ONNX models in this process. An input that a model cannot take is a UserError, a 400 for the client."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cortex_runtime.clients import record_version
from cortex_runtime.clients.legacy import LegacyONNXAttributes, NodeList
from cortex_runtime.clients.onnx_model import OnnxModel, load
from cortex_runtime.models.memory_cache import MemoryCache
from cortex_runtime.models.repository import ModelRepository
from cortex_runtime.processes import cpus


class ONNXClient(LegacyONNXAttributes[OnnxModel]):
    """The models of one API. A single model is selected without a name, several by name.

    threads: threads of a session for one operator. size, limit_bytes: what may be in memory; None for no limit.
    """

    argument = "onnx_client"

    def __init__(
        self, store: ModelRepository, threads: int, *, size: int | None = None, limit_bytes: int | None = None
    ) -> None:
        cache = MemoryCache(store, lambda version: load(version, threads), size=size, limit_bytes=limit_bytes)
        super().__init__(store, cache)
        self.may_wait = cache.is_limited

    def predict(
        self, model_input: Any, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> list[Any]:
        """Run a model. Returns its outputs in the model's order, as numpy arrays.

        model_input: a mapping from input names to values; or, if only one input is required, its value. Inputs with a default
        may be omitted. model_version: a number, or "latest".
        Raises UserError for an unknown model or version, missing and unknown inputs, values of the wrong type or shape, and an
        input that the model refuses; LoadFailed if the model cannot be loaded.
        """
        model = self._cache.get(model_name, model_version)
        outputs = model.predict(model_input)
        record_version(model.version.name, model.version.version)
        return outputs

    def run(self, model: OnnxModel, arrays: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[Any]:
        """Run a model in memory with arrays of its types and shapes. Returns the named outputs.

        Raises what `predict` raises.
        """
        feed = {name: model.inputs[name].convert(array) for name, array in arrays.items()}
        results = model.run(feed, outputs)
        record_version(model.version.name, model.version.version)
        return results

    def get_model(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Return the session of a model, its inputs as onnxruntime describes them, and as shapes and numpy types."""
        model = self._cache.get(model_name, model_version)
        record_version(model.version.name, model.version.version)
        return {
            "session": model.session,
            "signatures": model.session.get_inputs(),
            "input_signatures": {
                each.name: {"shape": list(each.shape or ()), "type": each.type_name}
                for each in model.inputs.values()
            },
        }

    def signature(
        self, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> dict[str, Any]:
        """Return the inputs and outputs of a model, with shapes and types. None in a shape is a free dimension."""
        return self._cache.get(model_name, model_version).signature()

    def classic_signature(
        self, part: str, model_name: str | None = None, model_version: str | int | None = "latest"
    ) -> NodeList:
        """Return the inputs or the outputs of a model as onnxruntime's list of nodes. part: "inputs" or "outputs"."""
        model = self._cache.get(model_name, model_version)
        session = model.session
        return NodeList(
            session.get_inputs() if part == "inputs" else session.get_outputs(), model.signature()
        )

    def _signature_of(self, model: OnnxModel) -> dict[str, Any]:
        return model.signature()


def intra_op_threads(workers: int) -> int:
    """Return the threads of one session, so that `workers` sessions that run at once share the CPUs of this process."""
    return max(1, int(cpus.available() // workers))
