"""Small ONNX models with different results."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def onnx_model(factor: float) -> bytes:
    """y = factor * x with x of shape [n, 2]."""
    shape = ["n", 2]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(np.array([factor], np.float32), "factor")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def write_model(path: Path, factor: float) -> None:
    """Write this model to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(onnx_model(factor))
