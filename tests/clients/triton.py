# ruff: noqa: PT017 - this is a program, not a test of pytest
"""tritonclient against a replica: HTTP, gRPC and their asyncio forms; each datatype, version and form of a tensor.

Run by tests/clients/run.py in an environment of its own: python triton.py HOST:PORT HOST:GRPC_PORT HANDLER_HOST:PORT HANDLER_GRPC
"""

import asyncio
import queue
import sys
import traceback

import ml_dtypes
import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpcaio
import tritonclient.http as httpclient
import tritonclient.http.aio as httpaio
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.utils import InferenceServerException

VALUES = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255], [1, 2]], np.uint8),
    "UINT16": np.array([[0, 65535], [1, 2]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1], [1, 2]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1], [2**53 + 1, 2]], np.uint64),
    "INT8": np.array([[-128, 127], [1, 2]], np.int8),
    "INT16": np.array([[-32768, 32767], [1, 2]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1], [1, 2]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1], [2**53 + 1, 2]], np.int64),
    "FP16": np.array([[0.5, -65504], [1e-7, 2]], np.float16),
    "FP32": np.array([[0.1, -3e38], [1e-45, 2]], np.float32),
    "FP64": np.array([[0.1, -1e308], [5e-324, 2]], np.float64),
    "BF16": np.array([[0.5, -3.0], [2.0**100, 2]], ml_dtypes.bfloat16),
    "BYTES": np.array([[b"a", b""], ["ü€".encode(), b"x" * 5000]], object),
}
passed, failed = [], []


class Checks:
    """Counts what passes and what fails, and goes on."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            passed.append(self.name)
        else:
            failed.append((self.name, "".join(traceback.format_exception(kind, error, trace)[-3:])))
        return True


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
    got = result.as_numpy(name)
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    if wanted.dtype == object:
        got = np.array([x.encode() if isinstance(x, str) else x for x in got.ravel()], object).reshape(
            got.shape
        )
    assert (got == wanted).all(), (got, wanted)


def http_input(module, datatype, values, binary=True):
    given = module.InferInput("x", list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def grpc_input(module, datatype, values):
    given = module.InferInput("x", list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def http_checks(url):
    client = httpclient.InferenceServerClient(url, concurrency=4)
    health(client, "http", "iris")
    for datatype, values in VALUES.items():
        model = f"same_{datatype.lower()}"
        for version in ("", "1", "2"):
            for binary_in in (True, False):
                if datatype == "BF16" and not binary_in:
                    continue
                for binary_out in (True, False):
                    with Checks(f"http {datatype} version {version!r} in {binary_in} out {binary_out}"):
                        result = client.infer(
                            model,
                            [http_input(httpclient, datatype, values, binary_in)],
                            model_version=version,
                            request_id="42",
                            outputs=[httpclient.InferRequestedOutput("y", binary_data=binary_out)],
                        )
                        equal(result, "y", values)
                        response = result.get_response()
                        assert (response["model_name"], response["id"]) == (model, "42")
                        assert response["model_version"] == (version or "2")
                        assert result.get_output("y")["datatype"] == datatype
        for number in (0, 1, 7):
            with Checks(f"http {datatype} all outputs, {number} rows"):
                rows = np.concatenate([values] * 4)[:number]
                result = client.infer(model, [http_input(httpclient, datatype, rows)])
                equal(result, "y", rows)
                assert result.get_response().get("id") is None
    for request in (None, "gzip", "deflate"):
        for response in (None, "gzip", "deflate"):
            for binary in (True, False):
                with Checks(f"http compression {request} {response} {binary}"):
                    result = client.infer(
                        "same_fp32",
                        [http_input(httpclient, "FP32", VALUES["FP32"], binary)],
                        request_compression_algorithm=request,
                        response_compression_algorithm=response,
                    )
                    equal(result, "y", VALUES["FP32"])
    with Checks("http compressed response is compressed"):
        pooled = client._post(
            "v2/models/same_fp32/infer",
            b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}',
            {"Accept-Encoding": "gzip"},
            None,
        )
        assert pooled.get("content-encoding") == "gzip"
    with Checks("http async infer"):
        pending = [
            client.async_infer("same_fp32", [http_input(httpclient, "FP32", VALUES["FP32"] + i)])
            for i in range(20)
        ]
        for i, each in enumerate(pending):
            equal(each.get_result(), "y", VALUES["FP32"] + i)
    two = [httpclient.InferInput(name, [1, 16], "INT32") for name in ("a", "b")]
    a, b = np.arange(16, dtype=np.int32)[None], np.ones((1, 16), np.int32)
    two[0].set_data_from_numpy(a, binary_data=False)
    two[1].set_data_from_numpy(b, binary_data=True)
    with Checks("http two inputs, mixed forms"):
        result = client.infer("add_sub", two)
        equal(result, "sum", a + b)
        equal(result, "difference", a - b)
    with Checks("http outputs in mixed forms"):
        outputs = [
            httpclient.InferRequestedOutput("difference", binary_data=False),
            httpclient.InferRequestedOutput("sum", binary_data=True),
        ]
        result = client.infer("add_sub", two, outputs=outputs)
        equal(result, "sum", a + b)
        equal(result, "difference", a - b)
    with Checks("http one output"):
        result = client.infer("add_sub", two, outputs=[httpclient.InferRequestedOutput("sum")])
        equal(result, "sum", a + b)
        assert result.as_numpy("difference") is None
    with Checks("http parameters, sequence, priority, timeout, headers, query"):
        client.infer(
            "same_fp32",
            [http_input(httpclient, "FP32", VALUES["FP32"])],
            sequence_id=7,
            sequence_start=True,
            sequence_end=True,
            priority=3,
            timeout=1000,
            headers={"x-a": "b"},
            query_params={"a": "b"},
            parameters={"own": "1", "n": 2},
        )
    with Checks("http body generated and parsed apart from the client"):
        body, size = httpclient.InferenceServerClient.generate_request_body(
            [http_input(httpclient, "FP32", VALUES["FP32"])]
        )
        answer = client._post(
            "v2/models/same_fp32/infer", body, {"Inference-Header-Content-Length": str(size)}, None
        )
        content = answer.read()
        result = httpclient.InferenceServerClient.parse_response_body(
            content, header_length=int(answer.get("inference-header-content-length"))
        )
        equal(result, "y", VALUES["FP32"])
    wrong_requests(client, lambda t, v: http_input(httpclient, t, v), httpclient, "http", ("400", "404"))
    with Checks("http large tensor"):
        large = np.random.rand(131072, 2).astype(np.float32)
        equal(client.infer("same_fp32", [http_input(httpclient, "FP32", large)]), "y", large)
    with Checks("http large tensor in JSON"):
        large = np.random.rand(20000, 2).astype(np.float32)
        outputs = [httpclient.InferRequestedOutput("y", binary_data=False)]
        equal(
            client.infer("same_fp32", [http_input(httpclient, "FP32", large, False)], outputs=outputs),
            "y",
            large,
        )
    with Checks("http shared memory is refused"):
        given = httpclient.InferInput("x", [2, 2], "FP32")
        given.set_shared_memory("region", 16)
        refused(lambda: client.infer("same_fp32", [given]), "400", "shared_memory_region is not supported")
    with Checks("http classification is refused"):
        outputs = [httpclient.InferRequestedOutput("y", class_count=1)]
        given = [http_input(httpclient, "FP32", VALUES["FP32"])]
        refused(lambda: client.infer("same_fp32", given, outputs=outputs), "400", "classification")
    with Checks("http repository"):
        index = client.get_model_repository_index()
        names = {(each["name"], each["version"]): each["state"] for each in index}
        assert names["same_fp32", "2"] == "READY", index
        repository(client)
    client.close()


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


def health(client, form, _):
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


def grpc_checks(url):
    client = grpcclient.InferenceServerClient(url)
    health(client, "grpc", "iris")
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
        from grpc import insecure_channel

        channel = insecure_channel(url)
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"") == b"\x08\x01"
        assert check(b"\n\x1einference.GRPCInferenceService") == b"\x08\x01"
    with Checks("grpc reflection"):
        from google.protobuf.descriptor_pool import DescriptorPool

        database = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in database.get_services()
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        assert "ModelInfer" in service.methods_by_name
        fields = pool.FindMessageTypeByName("inference.ModelInferRequest").fields_by_name
        assert fields["raw_input_contents"].number == 7
    client.close()


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


def typed_contents(client, model, datatype, values):
    """Send and receive a tensor as a typed list."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=model)
    given = request.inputs.add(name="x", datatype=datatype, shape=values.shape)
    if datatype not in FIELDS:
        import grpc

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


async def aio_checks(http_url, grpc_url):
    async with httpaio.InferenceServerClient(http_url) as client:
        with Checks("http aio health and metadata"):
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("same_fp32")
            assert not await client.is_model_ready("nothing")
            assert (await client.get_model_metadata("same_fp32"))["versions"] == ["1", "2"]
            assert (await client.get_server_metadata())["name"]
        for datatype, values in VALUES.items():
            for version in ("", "1"):
                for binary in (True, False):
                    if datatype == "BF16" and not binary:
                        continue
                    with Checks(f"http aio {datatype} {version!r} {binary}"):
                        result = await client.infer(
                            f"same_{datatype.lower()}",
                            [http_input(httpaio, datatype, values, binary)],
                            model_version=version,
                            outputs=[httpaio.InferRequestedOutput("y", binary_data=binary)],
                        )
                        equal(result, "y", values)
        for request in (None, "gzip", "deflate"):
            for response in (None, "gzip", "deflate"):
                with Checks(f"http aio compression {request} {response}"):
                    result = await client.infer(
                        "same_fp32",
                        [http_input(httpaio, "FP32", VALUES["FP32"])],
                        request_compression_algorithm=request,
                        response_compression_algorithm=response,
                    )
                    equal(result, "y", VALUES["FP32"])
        with Checks("http aio concurrent"):
            results = await asyncio.gather(
                *(
                    client.infer("same_fp32", [http_input(httpaio, "FP32", VALUES["FP32"] + i)])
                    for i in range(50)
                )
            )
            for i, result in enumerate(results):
                equal(result, "y", VALUES["FP32"] + i)
        with Checks("http aio error"):
            try:
                await client.infer("nothing", [http_input(httpaio, "FP32", VALUES["FP32"])])
            except InferenceServerException as error:
                assert error.status() == "404", error
            else:
                raise AssertionError("was accepted")
    async with grpcaio.InferenceServerClient(grpc_url) as client:
        with Checks("grpc aio health and metadata"):
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("same_fp32")
            assert not await client.is_model_ready("nothing")
            assert list((await client.get_model_metadata("same_fp32")).versions) == ["1", "2"]
        for datatype, values in VALUES.items():
            for version in ("", "1"):
                with Checks(f"grpc aio {datatype} {version!r}"):
                    result = await client.infer(
                        f"same_{datatype.lower()}",
                        [grpc_input(grpcaio, datatype, values)],
                        model_version=version,
                    )
                    equal(result, "y", values)
        with Checks("grpc aio concurrent"):
            results = await asyncio.gather(
                *(
                    client.infer("same_fp32", [grpc_input(grpcaio, "FP32", VALUES["FP32"] + i)])
                    for i in range(50)
                )
            )
            for i, result in enumerate(results):
                equal(result, "y", VALUES["FP32"] + i)
        with Checks("grpc aio stream"):

            async def requests():
                for i in range(20):
                    yield {
                        "model_name": "same_fp32" if i % 5 else "nothing",
                        "inputs": [grpc_input(grpcaio, "FP32", VALUES["FP32"] + i)],
                        "request_id": str(i),
                    }

            i = 0
            async for result, error in client.stream_infer(requests()):
                if i % 5:
                    assert error is None, error
                    equal(result, "y", VALUES["FP32"] + i)
                else:
                    assert "does not exist" in error.message()
                i += 1
            assert i == 20
        with Checks("grpc aio error"):
            try:
                await client.infer("nothing", [grpc_input(grpcaio, "FP32", VALUES["FP32"])])
            except InferenceServerException as error:
                assert error.status() == "StatusCode.NOT_FOUND", error.status()
            else:
                raise AssertionError("was accepted")


def handler_checks(http_url, grpc_url):
    """A handler in Python with handle_infer."""
    for form, module, url in (("http", httpclient, http_url), ("grpc", grpcclient, grpc_url)):
        client = module.InferenceServerClient(url)
        x = np.array([[1, 2], [3, 4]], np.float32)

        def given(module=module, x=x):
            each = module.InferInput("x", [2, 2], "FP32")
            each.set_data_from_numpy(x)
            return [each]

        for version in ("", "1"):
            with Checks(f"handler {form} version {version!r}"):
                result = client.infer("iris", given(), model_version=version)
                equal(result, "y", x * 2)
                equal(result, "text", np.array([b"a", b"b"], object))
        with Checks(f"handler {form} parameters"):
            equal(client.infer("iris", given(), parameters={"factor": 3}), "y", x * 3)
        with Checks(f"handler {form} output"):
            result = client.infer("iris", given(), outputs=[module.InferRequestedOutput("y")])
            assert result.as_numpy("text") is None
        with Checks(f"handler {form} metadata"):
            metadata = client.get_model_metadata("iris", **({} if form == "http" else {"as_json": True}))
            assert metadata["platform"] == "python"
            assert len(metadata["inputs"]) == 1
        with Checks(f"handler {form} failure is no traceback"):
            refused(
                lambda client=client, given=given: client.infer("iris", given(), parameters={"fail": True}),
                "500" if form == "http" else "INTERNAL",
                "internal server error",
            )
        if form == "grpc":
            with Checks("handler grpc deadline"):
                refused(
                    lambda client=client, given=given: client.infer(
                        "iris", given(), parameters={"sleep": 3}, client_timeout=0.2
                    ),
                    "DEADLINE_EXCEEDED",
                )
        client.close()


if __name__ == "__main__":
    http_checks(sys.argv[1])
    grpc_checks(sys.argv[2])
    asyncio.run(aio_checks(sys.argv[1], sys.argv[2]))
    handler_checks(sys.argv[3], sys.argv[4])
    for name, trace in failed:
        print(f"FAILED {name}\n{trace}", file=sys.stderr)
    print(f"tritonclient: {len(passed)} passed, {len(failed)} failed")
    sys.exit(bool(failed))
