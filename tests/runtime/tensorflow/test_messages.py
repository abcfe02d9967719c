"""Our messages have TensorFlow's wire format, type by type, and the generated modules match the .proto files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from cortex_runtime.clients.tfserving import serving_pb2, tensor_pb2, tensors
from cortex_runtime.clients.tfserving.signature import NUMPY_TYPES, Tensor

VALUES = {
    "float16": [0.5, -2.0, 65504.0],
    "bfloat16": [0.5, -3.0, 2.0**127],
    "float32": [0.1, -2.5, 3e38],
    "float64": [0.1, -2.5, 1e308],
    "int8": [-128, 0, 127],
    "int16": [-32768, 0, 32767],
    "int32": [-(2**31), 0, 2**31 - 1],
    "int64": [-(2**63), 0, 2**63 - 1],
    "uint8": [0, 1, 255],
    "uint16": [0, 1, 65535],
    "uint32": [0, 1, 2**32 - 1],
    "uint64": [0, 1, 2**64 - 1],
    "bool": [True, False, True],
    "complex64": [1 + 2j, -1j, 0.5],
    "complex128": [1 + 2j, -1j, 0.1],
    "string": ["", "grün", "a\0b"],
}


def test_the_generated_modules_match_the_proto_files(beside):
    generate = beside("generate")
    there = {path.name: path.read_text() for path in generate.FOLDER.glob("*_pb2.py*")}
    assert generate.generated() == there, "run python tests/runtime/tensorflow/generate.py"


def test_fields_have_the_published_names_numbers_and_types(tf):
    from tensorflow.core.framework import tensor_pb2 as tensor
    from tensorflow.core.framework import tensor_shape_pb2 as shape
    from tensorflow.core.protobuf import meta_graph_pb2 as meta_graph

    pairs = [
        (serving_pb2.SignatureDef, meta_graph.SignatureDef),
        (serving_pb2.TensorInfo, meta_graph.TensorInfo),
        (tensor_pb2.TensorProto, tensor.TensorProto),
        (tensor_pb2.TensorShapeProto, shape.TensorShapeProto),
    ]
    for ours, original in pairs:
        for field in ours.DESCRIPTOR.fields:
            published = original.DESCRIPTOR.fields_by_name[field.name]
            assert (field.number, field.type) == (published.number, published.type), field.full_name
    for name, number in tensor_pb2.DataType.items():
        assert number == 0 or tf.dtypes.DType(number).name == tensors.TYPES[number], name


@pytest.mark.parametrize("dtype", VALUES)
def test_values_of_every_type_go_to_tensorflow_unchanged(tf, dtype):
    array = Tensor("x", dtype, (1, None)).convert([VALUES[dtype]])
    proto = tensor_pb2.TensorProto()
    tensors.write(array, dtype, proto)
    there = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(dtype))
    assert there.shape == (1, 3)
    assert same(there.numpy(), VALUES[dtype])


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize("packed", [True, False])
def test_values_of_every_type_come_from_tensorflow_unchanged(tf, serving, dtype, packed):
    tensor = tf.constant([VALUES[dtype]], tf.as_dtype(dtype))
    message = tf.make_tensor_proto(tensor) if packed else serving.as_fields(tensor)
    array = tensors.read(tensor_pb2.TensorProto.FromString(message.SerializeToString()))
    assert array.shape == (1, 3)
    assert array.dtype == NUMPY_TYPES[dtype]
    assert array.flags.writeable
    assert same(array, VALUES[dtype])


@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", 1.5), ("int64", 7), ("string", "x"), ("bool", True)]
)
def test_a_list_that_is_too_short_repeats_its_last_value(tf, dtype, value):
    message = tf.make_tensor_proto(value, tf.as_dtype(dtype), [2, 2])
    array = tensors.read(tensor_pb2.TensorProto.FromString(message.SerializeToString()))
    assert array.tolist() == [[value, value], [value, value]]


@pytest.mark.parametrize(("dtype", "nothing"), [("float32", 0.0), ("int8", 0), ("string", "")])
def test_an_empty_list_is_zeros(dtype, nothing):
    proto = tensor_pb2.TensorProto(dtype=tensors.CODES[dtype])
    proto.tensor_shape.dim.add(size=2)
    assert tensors.read(proto).tolist() == [nothing, nothing]


def test_bytes_that_are_no_text_stay_bytes(tf):
    message = tf.make_tensor_proto([b"\xff\0", b"text"])
    array = tensors.read(tensor_pb2.TensorProto.FromString(message.SerializeToString()))
    assert array.tolist() == [b"\xff\0", b"text"]


def test_a_type_that_has_no_array_is_named():
    with pytest.raises(ValueError, match="resource"):
        tensors.read(tensor_pb2.TensorProto(dtype=tensor_pb2.DT_RESOURCE))


def test_bfloat16_rounds_to_the_nearest_as_tensorflow_does(tf):
    values = np.linspace(-3, 3, 1001, dtype=np.float32)
    values = np.concatenate([values, np.array([np.inf, -np.inf, np.nan, 3.4e38], np.float32)])
    proto = tensor_pb2.TensorProto()
    tensors.write(values, "bfloat16", proto)
    theirs = tf.cast(values, tf.bfloat16).numpy().astype(np.float32)
    np.testing.assert_array_equal(tensors.read(proto), theirs)


@given(
    arrays.arrays(
        arrays.boolean_dtypes()
        | arrays.integer_dtypes(endianness="=")
        | arrays.unsigned_integer_dtypes(endianness="=")
        | arrays.floating_dtypes(endianness="=", sizes=(16, 32, 64))
        | arrays.complex_number_dtypes(endianness="=", sizes=(64, 128)),
        arrays.array_shapes(min_dims=0, min_side=0),
    )
)
def test_written_tensors_are_read_unchanged(array):
    proto = tensor_pb2.TensorProto()
    tensors.write(array, array.dtype.name, proto)
    np.testing.assert_array_equal(tensors.read(proto), array, strict=True)


def same(array, values):
    """Return whether an array has the values, as far as its type is exact; texts may be bytes."""
    if array.dtype == object:
        flat = [value.encode() if isinstance(value, str) else value for value in array.ravel()]
        return flat == [value.encode() for value in values]
    return (array.ravel() == np.array(values, array.dtype)).all()


def test_types_that_are_not_served_have_tensorflows_names(tf):
    for number, name in tensors.TYPES.items():
        if number not in tensor_pb2.DataType.values():
            assert tf.dtypes.DType(number).name == name
