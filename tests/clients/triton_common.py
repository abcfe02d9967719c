# ruff: noqa: PT017 - these are programs, not tests of pytest
"""Checks of tritonclient that its HTTP and its gRPC form share."""

import ml_dtypes
import numpy as np
from checks import VALUES as WITHOUT_BF16
from checks import Checks, same
from tritonclient.utils import InferenceServerException

VALUES = {**WITHOUT_BF16, "BF16": np.array([[0.5, -3.0], [2.0**100, 2]], ml_dtypes.bfloat16)}


def refused(call, status, *words):
    """See that a call is refused with a status and a message."""
    try:
        call()
    except InferenceServerException as error:
        assert status is None or status in str(error.status()), (error.status(), error.message())
        for word in words:
            assert word in error.message(), error.message()
        assert "Traceback" not in error.message()
    else:
        raise AssertionError("was accepted")


def equal(result, name, wanted):
    same(result.as_numpy(name), wanted)


def http_input(module, datatype, values, binary=True):
    given = module.InferInput("x", list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def grpc_input(module, datatype, values):
    given = module.InferInput("x", list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def repository(client):
    """Unload a model and load it again."""
    client.unload_model("add_sub")
    for _ in range(100):
        if not client.is_model_ready("add_sub"):
            break
    else:
        raise AssertionError("still ready")
    client.load_model("add_sub")
    assert client.is_model_ready("add_sub")


def health(client, form):
    for name, call, wanted in (
        ("server live", lambda: client.is_server_live(), True),
        ("server ready", lambda: client.is_server_ready(), True),
        ("model ready", lambda: client.is_model_ready("same_fp32"), True),
        ("version ready", lambda: client.is_model_ready("same_fp32", "1"), True),
        ("unknown model is not ready", lambda: client.is_model_ready("nothing"), False),
        ("unknown version is not ready", lambda: client.is_model_ready("same_fp32", "9"), False),
    ):
        with Checks(f"{form} {name}"):
            assert call() is wanted
    as_json = {} if form == "http" else {"as_json": True}
    with Checks(f"{form} server metadata"):
        metadata = client.get_server_metadata(**as_json)
        assert metadata["name"]
        assert metadata["version"]
        assert "binary_tensor_data" in metadata["extensions"]
    for datatype in VALUES:
        for version in ("", "1"):
            with Checks(f"{form} metadata {datatype} {version!r}"):
                metadata = client.get_model_metadata(f"same_{datatype.lower()}", version, **as_json)
                assert metadata["versions"] == ["1", "2"]
                shape = [-1, 2] if form == "http" else ["-1", "2"]
                assert metadata["inputs"] == [{"name": "x", "datatype": datatype, "shape": shape}]
                assert metadata["outputs"] == [{"name": "y", "datatype": datatype, "shape": shape}]
    for name, version in (("nothing", ""), ("same_fp32", "9"), ("same_fp32", "x")):
        with Checks(f"{form} no metadata of {name} {version}"):
            refused(lambda name=name, version=version: client.get_model_metadata(name, version), None)


def wrong_requests(client, given, module, form, codes):
    bad, missing = codes
    ok = VALUES["FP32"]
    cases = [
        ("unknown model", "nothing", "", [given("FP32", ok)], missing, "does not exist"),
        ("unknown version", "same_fp32", "9", [given("FP32", ok)], missing, "does not exist"),
        ("version that is not a number", "same_fp32", "x", [given("FP32", ok)], bad, "must be a number"),
        (
            "wrong datatype",
            "same_fp32",
            "",
            [given("FP64", ok.astype(np.float64))],
            bad,
            "expected datatype FP32",
        ),
        (
            "wrong shape",
            "same_fp32",
            "",
            [given("FP32", np.zeros((2, 3), np.float32))],
            bad,
            "expected shape",
        ),
        ("wrong rank", "same_fp32", "", [given("FP32", np.zeros(4, np.float32))], bad, "expected shape"),
        ("no input", "same_fp32", "", [], bad, "missing input x"),
        ("too many inputs", "same_fp32", "", [given("FP32", ok), given("FP32", ok)], bad, "given twice"),
    ]
    for name, model, version, inputs, status, words in cases:
        with Checks(f"{form} {name}"):
            refused(
                lambda model=model, version=version, inputs=inputs: client.infer(
                    model, inputs, model_version=version
                ),
                status,
                words,
            )
    with Checks(f"{form} unknown output"):
        outputs = [module.InferRequestedOutput("z")]
        refused(
            lambda: client.infer("same_fp32", [given("FP32", ok)], outputs=outputs), bad, "does not exist"
        )
    with Checks(f"{form} unknown input"):
        unknown = module.InferInput("z", [2, 2], "FP32")
        unknown.set_data_from_numpy(ok)
        refused(lambda: client.infer("same_fp32", [unknown]), bad, "unknown input z")
    with Checks(f"{form} unknown datatype"):
        unknown = given("FP32", ok)
        unknown._datatype = "FP31"
        if hasattr(unknown, "_input"):
            unknown._input.datatype = "FP31"
        refused(lambda: client.infer("same_fp32", [unknown]), bad, "unknown datatype")
