"""Requests are combined only if the model handles each row independently."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cortex_runtime.errors import UserError
from cortex_runtime.handler import stacking
from tests.runtime.dtypes import models
from tests.runtime.dtypes.models import IDENTITY, tensor

FLOAT = TensorProto.FLOAT


def mean(shape):
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)]
    return models.model(nodes, [tensor("x", FLOAT, ["n"])], [tensor("y", FLOAT, shape)])


def scaled():
    factor = onnx.numpy_helper.from_array(np.array([3], np.float32), "k")
    inputs = [tensor("x", FLOAT, ["n"]), tensor("k", FLOAT, ["m"])]
    return models.model(
        [helper.make_node("Mul", ["x", "k"], ["y"])], inputs, [tensor("y", FLOAT, ["n"])], [factor]
    )


@pytest.mark.parametrize(
    ("content", "joins"),
    [
        *[(models.identity(code), not name.startswith(("bf", "float8"))) for name, code in IDENTITY.items()],
        (models.identity(FLOAT, (2, "n")), False),
        (models.identity(FLOAT, None), False),
        (models.identity(FLOAT, ()), False),
        (mean([]), False),
        (scaled(), False),
    ],
)
def test_a_model_whose_outputs_are_no_rows_or_that_has_options_runs_one_by_one(open_model, content, joins):
    inputs = stacking.stackable_inputs(open_model(content).signature())
    assert (inputs is not None) == joins


def test_each_request_is_checked_before_it_is_joined(open_model):
    inputs = stacking.stackable_inputs(open_model(models.identity(TensorProto.INT8)).signature())
    assert stacking.to_feed([1, 2], inputs)["x"].dtype == np.int8
    for value in ([200], [0.5], {"y": [1]}, {"x": [1], "y": [1]}):
        with pytest.raises(UserError):
            stacking.to_feed(value, inputs)
