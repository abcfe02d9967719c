# ruff: noqa: PT017 - these are programs, not tests of pytest
"""tritonclient over gRPC: each datatype, raw and typed, streams, health and reflection, and wrong requests."""

import queue

import grpc
import numpy as np
import tritonclient.grpc as grpcclient
from checks import Checks
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from triton_common import VALUES, equal, grpc_input, health, refused, repository, wrong_requests
from tritonclient.grpc import service_pb2

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def grpc_checks(url):
    client = grpcclient.InferenceServerClient(url)
    health(client, "grpc")
    for datatype, values in VALUES.items():
        model = f"same_{datatype.lower()}"
        for version in ("", "1", "2"):
            with Checks(f"grpc {datatype} version {version!r}"):
                result = client.infer(
                    model,
                    [grpc_input(grpcclient, datatype, values)],
                    model_version=version,
                    request_id="42",
                    outputs=[grpcclient.InferRequestedOutput("y")],
                )
                equal(result, "y", values)
                response = result.get_response()
                assert (response.model_name, response.id) == (model, "42")
                assert response.model_version == (version or "2")
        for number in (0, 1, 7):
            with Checks(f"grpc {datatype} all outputs, {number} rows"):
                rows = np.concatenate([values] * 4)[:number]
                equal(client.infer(model, [grpc_input(grpcclient, datatype, rows)]), "y", rows)
        with Checks(f"grpc {datatype} typed contents"):
            typed_contents(client, model, datatype, values)
    for algorithm in ("gzip", "deflate"):
        with Checks(f"grpc compression {algorithm}"):
            large = np.zeros((10000, 2), np.float32)
            result = client.infer(
                "same_fp32", [grpc_input(grpcclient, "FP32", large)], compression_algorithm=algorithm
            )
            equal(result, "y", large)
    with Checks("grpc async infer"):
        answers = queue.Queue()
        for i in range(20):
            client.async_infer(
                "same_fp32",
                [grpc_input(grpcclient, "FP32", VALUES["FP32"] + i)],
                lambda result, error, i=i: answers.put((i, result, error)),
            )
        for _ in range(20):
            i, result, error = answers.get(timeout=20)
            assert error is None, error
            equal(result, "y", VALUES["FP32"] + i)
    with Checks("grpc stream"):
        answers = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        for i in range(20):
            client.async_stream_infer(
                "same_fp32", [grpc_input(grpcclient, "FP32", VALUES["FP32"] + i)], request_id=str(i)
            )
        for i in range(20):
            result, error = answers.get(timeout=20)
            assert error is None, error
            assert result.get_response().id == str(i)
            equal(result, "y", VALUES["FP32"] + i)
        client.async_stream_infer("nothing", [grpc_input(grpcclient, "FP32", VALUES["FP32"])])
        result, error = answers.get(timeout=20)
        assert result is None
        assert "does not exist" in error.message()
        client.async_stream_infer("same_fp32", [grpc_input(grpcclient, "FP32", VALUES["FP32"])])
        assert answers.get(timeout=20)[1] is None
        client.stop_stream()
    with Checks("grpc generous deadline, parameters, headers"):
        client.infer(
            "same_fp32",
            [grpc_input(grpcclient, "FP32", VALUES["FP32"])],
            client_timeout=30,
            sequence_id=7,
            sequence_start=True,
            sequence_end=True,
            priority=3,
            timeout=1000,
            headers={"x-a": "b"},
            parameters={"own": "1", "n": 2},
        )
    wrong_requests(
        client,
        lambda t, v: grpc_input(grpcclient, t, v),
        grpcclient,
        "grpc",
        ("INVALID_ARGUMENT", "NOT_FOUND"),
    )
    with Checks("grpc large tensor"):
        large = np.random.rand(1000000, 2).astype(np.float32)
        equal(client.infer("same_fp32", [grpc_input(grpcclient, "FP32", large)]), "y", large)
    with Checks("grpc repository"):
        index = client.get_model_repository_index(as_json=True)["models"]
        names = {(each["name"], each["version"]): each["state"] for each in index}
        assert names["same_fp32", "2"] == "READY", index
        repository(client)
    with Checks("grpc unknown method"):
        refused(lambda: client.get_model_config("same_fp32"), "UNIMPLEMENTED")
    with Checks("grpc health"):
        channel = grpc.insecure_channel(url)
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"") == b"\x08\x01"
        assert check(b"\n\x1einference.GRPCInferenceService") == b"\x08\x01"
    with Checks("grpc reflection"):
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in database.get_services()
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        assert "ModelInfer" in service.methods_by_name
        fields = pool.FindMessageTypeByName("inference.ModelInferRequest").fields_by_name
        assert fields["raw_input_contents"].number == 7
    client.close()


def typed_contents(client, model, datatype, values):
    """Send and receive a tensor as a typed list."""
    request = service_pb2.ModelInferRequest(model_name=model)
    given = request.inputs.add(name="x", datatype=datatype, shape=values.shape)
    if datatype not in FIELDS:
        try:
            client._client_stub.ModelInfer(request)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "raw_input_contents" in error.details()
            return
        raise AssertionError("was accepted")
    getattr(given.contents, FIELDS[datatype]).extend(values.ravel().tolist())
    response = client._client_stub.ModelInfer(request)
    assert list(getattr(response.outputs[0].contents, FIELDS[datatype])) == values.ravel().tolist()
    assert not response.raw_output_contents
