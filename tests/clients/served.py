"""The models that the clients of tests/clients call: one for each datatype, each in two versions, and a handler in Python."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}
HANDLER = '''
import time

import numpy as np


class Handler:
    """Returns its inputs, and what it got as parameters."""

    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]

    def handle_infer(self, inputs, parameters):
        x = inputs["x"]
        time.sleep(parameters.get("sleep", 0))
        if parameters.get("fail"):
            raise RuntimeError("asked to fail")
        return {"y": x * np.float32(parameters.get("factor", 2)), "text": np.array(["a", "b"], object)}
'''


def write_models(folder: Path) -> None:
    """Write a model for each datatype to folder/NAME/VERSION/model.onnx: x and y of shape [any, 2], y equal to x."""
    for name, kind in TYPES.items():
        for version in (1, 2):
            path = folder / f"same_{name.lower()}" / str(version) / "model.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_identity(kind))
    two = folder / "add_sub" / "1" / "model.onnx"
    two.parent.mkdir(parents=True, exist_ok=True)
    two.write_bytes(_add_sub())


def _identity(kind: int) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [helper.make_tensor_value_info("x", kind, ["n", 2])],
        [helper.make_tensor_value_info("y", kind, ["n", 2])],
    )
    return _model(graph)


def _add_sub() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        "add_sub",
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["n", 16]) for name in ("a", "b")],
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["n", 16]) for name in ("sum", "difference")],
    )
    return _model(graph)


def _model(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString()
    assert isinstance(content, bytes)
    return content
