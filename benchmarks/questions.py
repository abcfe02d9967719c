"""The requests that `make bench-peers` sends, and those of the Open Inference Protocol, which all its servers answer alike."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from bench_runtime import JSON

from cortex_runtime.inference.protos import inference_pb2

MODEL = "bench"
"""The name of the model in all servers."""
INFER = "/inference.GRPCInferenceService/ModelInfer"
FLOWER = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
TENSOR = (np.arange(2**18, dtype=np.float32) / 7).reshape(1, -1)
"""1 MiB in bytes."""
SMALLER = np.round(TENSOR[:, : 2**17], 2)
"""About 1 MB in JSON."""


@dataclass(frozen=True)
class Question:
    """The request that is sent repeatedly. body: of an HTTP request, or the message of a gRPC call."""

    path: str
    body: str | bytes
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    is_grpc: bool = False


def _json(name: str, tensor: np.ndarray) -> Question:
    data = [float(f"{number:.2f}") for number in tensor.ravel()]
    given = {"name": name, "shape": tensor.shape, "datatype": "FP32", "data": data}
    return Question(f"/v2/models/{MODEL}/infer", json.dumps({"inputs": [given]}))


def _binary(name: str, tensor: np.ndarray) -> Question:
    size = {"binary_data_size": tensor.nbytes}
    given = {"name": name, "shape": tensor.shape, "datatype": "FP32", "parameters": size}
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return Question(f"/v2/models/{MODEL}/infer", head + tensor.tobytes(), headers)


def _grpc(name: str, tensor: np.ndarray) -> Question:
    message = inference_pb2.ModelInferRequest(model_name=MODEL)
    message.inputs.add(name=name, datatype="FP32", shape=tensor.shape)
    message.raw_input_contents.append(tensor.tobytes())
    return Question(INFER, message.SerializeToString(), is_grpc=True)


V2 = {
    "v2-rest": _json("X", FLOWER),
    "v2-grpc": _grpc("X", FLOWER),
    "v2-json-1mb": _json("x", SMALLER),
    "v2-binary-1mb": _binary("x", TENSOR),
    "v2-grpc-1mb": _grpc("x", TENSOR),
}
"""By workload: the iris model, and a tensor that is doubled."""
