"""ONNX models with tensors of one type each."""

from typing import Any

import onnx
from onnx import TensorProto, helper

IDENTITY = {
    name: getattr(TensorProto, code)
    for name, code in {
        "float16": "FLOAT16",
        "float32": "FLOAT",
        "float64": "DOUBLE",
        "int8": "INT8",
        "int16": "INT16",
        "int32": "INT32",
        "int64": "INT64",
        "uint8": "UINT8",
        "uint16": "UINT16",
        "uint32": "UINT32",
        "uint64": "UINT64",
        "bool": "BOOL",
        "str_": "STRING",
        "bfloat16": "BFLOAT16",
        "float8e4m3fn": "FLOAT8E4M3FN",
        "float8e4m3fnuz": "FLOAT8E4M3FNUZ",
        "float8e5m2": "FLOAT8E5M2",
        "float8e5m2fnuz": "FLOAT8E5M2FNUZ",
    }.items()
}
"""Types for which onnxruntime has Identity."""
CAST = {
    name: getattr(TensorProto, name.upper())
    for name in ("int4", "uint4", "int2", "uint2", "float8e8m0")
    if hasattr(TensorProto, name.upper())
}
"""Types that onnxruntime only converts to and from others."""
REFUSED = {name: getattr(TensorProto, name.upper()) for name in ("complex64", "complex128")}


def tensor(name: str, code: int, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, code, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Any = (),
) -> bytes:
    """Return a model of these nodes; a constant with the name of an input is its default."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", 25), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=13).SerializeToString())


def identity(code: int, shape: Any = ("n",)) -> bytes:
    """y is x, both of one type."""
    shape = None if shape is None else list(shape)
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return model(nodes, [tensor("x", code, shape)], [tensor("y", code, shape)])


def through(code: int) -> bytes:
    """Return a model in which only Cast supports the type of x: wide is x as float, and y is float z as that type."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["z"], ["y"], to=code),
    ]
    inputs = [tensor("x", code, ["n"]), tensor("z", TensorProto.FLOAT, ["m"])]
    return model(nodes, inputs, [tensor("wide", TensorProto.FLOAT, ["n"]), tensor("y", code, ["m"])])
