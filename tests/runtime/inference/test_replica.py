"""A replica that serves the Open Inference Protocol over HTTP and gRPC. tests/clients runs the clients of other projects."""

import gzip
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from cortex_runtime.inference.protos import health_pb2, reflection_pb2
from cortex_runtime.inference.protos import inference_pb2 as pb
from tests.clients.served import HANDLER, write_models
from tests.runtime.programs import PLAIN
from tests.runtime.queues.servers import free_port

X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2.5]}
SERVICE = "inference.GRPCInferenceService"


class Grpc:
    """Calls of a replica's gRPC services."""

    def __init__(self, port: int, metadata: Any = ()) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.metadata = metadata

    def __call__(
        self, method: str, request: Any, response: Any, timeout: float = 60, service: str = SERVICE
    ) -> Any:
        call = self.channel.unary_unary(
            f"/{service}/{method}", type(request).SerializeToString, response.FromString
        )
        return call(request, timeout=timeout, metadata=self.metadata)

    def infer(self, model: str = "same_fp32", version: str = "", **more: Any) -> Any:
        request = pb.ModelInferRequest(model_name=model, model_version=version, **more)
        if not more:
            request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
            request.raw_input_contents.append(np.array([1.5, 2.5], "<f4").tobytes())
        return self("ModelInfer", request, pb.ModelInferResponse)

    def stream(self, requests: list[Any]) -> list[Any]:
        call = self.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelStreamInferResponse.FromString,
        )
        return list(call(iter(requests), timeout=60, metadata=self.metadata))


@pytest.fixture(scope="module")
def replica(serve_for_module, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_models(models)
    port = free_port()
    api = serve_for_module(
        None,
        "--grpc-port",
        str(port),
        type="onnx",
        models={"dir": str(models)},
        protocols={"grpc": True, "repository": True},
        path=None,
        maxBodySize="1Mi",
    )
    api.grpc = Grpc(port)
    return api


@pytest.fixture(scope="module")
def handler(serve_for_module):
    port = free_port()
    api = serve_for_module(HANDLER, "--grpc-port", str(port), protocols={"grpc": True}, requestTimeout="2s")
    api.grpc = Grpc(port)
    return api


def infer(
    api: Any, content: Any = None, path: str = "/v2/models/same_fp32/infer", **more: Any
) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content or {"inputs": [X]}).encode()
    return httpx.post(f"{api.url}{path}", content=body, **more)


def test_server_and_models_are_described(replica):
    get = lambda path: httpx.get(f"{replica.url}{path}")  # noqa: E731
    assert get("/v2").json()["name"] == get("/v2/").json()["name"] == "cortex"
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    assert get("/v2/models/same_fp32/ready").json() == {"name": "same_fp32", "ready": True}
    assert get("/v2/models/same_fp32/versions/1/ready").status_code == 200
    assert get("/v2/models/same_fp32/versions/1").json() == {
        "name": "same_fp32",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }


def test_json_and_bytes_over_http(replica):
    response = infer(replica, {"inputs": [X], "id": "42"})
    assert response.json() == {
        "model_name": "same_fp32",
        "model_version": "2",
        "id": "42",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.5]}],
    }
    assert response.headers["x-model-version"] == "same_fp32=2"
    head = json.dumps(
        {
            "inputs": [{**X, "parameters": {"binary_data_size": 8}} | {"data": None}],
            "parameters": {"binary_data_output": True},
        }
    )
    head = head.replace(', "data": null', "")
    raw = np.array([1.5, 2.5], "<f4").tobytes()
    length = {"inference-header-content-length": str(len(head))}
    path = "/v2/models/same_fp32/versions/1/infer"
    response = infer(replica, head.encode() + raw, path, headers=length)
    size = int(response.headers["inference-header-content-length"])
    assert json.loads(response.content[:size])["model_version"] == "1"
    assert response.content[size:] == raw
    assert response.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests_and_responses(replica, coding, compress):
    body = compress(json.dumps({"inputs": [X]}).encode())
    response = infer(replica, body, headers={"content-encoding": coding, "accept-encoding": coding})
    assert response.headers["content-encoding"] == coding
    assert response.json()["outputs"][0]["data"] == [1.5, 2.5]
    # What HTTP libraries offer with each request does not ask for compression.
    assert "content-encoding" not in infer(replica, headers={"accept-encoding": "gzip, deflate"}).headers


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "message"),
    [
        ("POST", "/v2/models/nothing/infer", {"inputs": [X]}, 404, "model 'nothing' does not exist"),
        (
            "POST",
            "/v2/models/same_fp32/versions/9/infer",
            {"inputs": [X]},
            404,
            "does not exist (available: 1, 2)",
        ),
        (
            "POST",
            "/v2/models/same_fp32/versions/x/infer",
            {"inputs": [X]},
            400,
            "must be a number or 'latest'",
        ),
        ("POST", "/v2/models/same_fp32/infer", b"{", 400, "the request is not valid JSON"),
        ("POST", "/v2/models/same_fp32/infer", {"inputs": []}, 400, "missing input x"),
        ("POST", "/v2/models/same_fp32/infer", b" " * 2**21, 413, "maxBodySize"),
        ("GET", "/v2/models/nothing", None, 404, "model 'nothing' does not exist"),
        ("GET", "/v2/models/nothing/ready", None, 404, "model 'nothing' does not exist"),
        (
            "GET",
            "/v2/models/same_fp32/infer",
            None,
            405,
            "GET is not allowed for /v2/models/same_fp32/infer; use POST",
        ),
        ("DELETE", "/v2/models/same_fp32", None, 405, "use GET"),
        ("GET", "/v2/models", None, 404, "is not a path of the Open Inference Protocol"),
        ("GET", "/v2/models/same_fp32/versions", None, 404, "is not a path"),
        ("GET", "/v2/models/same_fp32/config", None, 404, "is not a path"),
        ("GET", "/v2/health", None, 404, "is not a path"),
    ],
)
def test_errors_over_http(replica, method, path, content, status, message):
    body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
    response = httpx.request(method, f"{replica.url}{path}", content=body)
    assert response.status_code == status
    assert message in response.json()["error"]


def test_grpc_has_the_same_metadata(replica):
    call = replica.grpc
    assert call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
    assert call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse).ready
    assert call("ModelReady", pb.ModelReadyRequest(name="same_fp32"), pb.ModelReadyResponse).ready
    assert not call("ModelReady", pb.ModelReadyRequest(name="nothing"), pb.ModelReadyResponse).ready
    assert call("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse).name == "cortex"
    metadata = call("ModelMetadata", pb.ModelMetadataRequest(name="same_fp32"), pb.ModelMetadataResponse)
    assert list(metadata.versions) == ["1", "2"]
    assert list(metadata.inputs[0].shape) == [-1, 2]


def test_inference_over_grpc(replica):
    response = replica.grpc.infer()
    assert response.model_version == "2"
    assert np.frombuffer(response.raw_output_contents[0], "<f4").tolist() == [1.5, 2.5]
    large = np.random.default_rng(0).random((60000, 2), np.float32)
    response = replica.grpc.infer(
        inputs=[{"name": "x", "datatype": "FP32", "shape": large.shape}], raw_input_contents=[large.tobytes()]
    )
    assert response.raw_output_contents[0] == large.tobytes()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ({"model": "nothing"}, grpc.StatusCode.NOT_FOUND, "model 'nothing' does not exist"),
        ({"version": "9"}, grpc.StatusCode.NOT_FOUND, "version 9 of model same_fp32 does not exist"),
        ({"inputs": [{"datatype": "F"}]}, grpc.StatusCode.INVALID_ARGUMENT, "unknown datatype 'F'"),
        ({"id": "ü"}, grpc.StatusCode.INVALID_ARGUMENT, "missing input x"),
        (
            {"raw_input_contents": [b" " * 2**21]},
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "larger than max (2097168 vs. 1048576)",
        ),
    ],
)
def test_errors_over_grpc(replica, more, code, message):
    with pytest.raises(grpc.RpcError) as caught:
        replica.grpc.infer(**more)
    assert caught.value.code() == code
    assert message in caught.value.details()


def test_a_method_that_does_not_exist(replica):
    with pytest.raises(grpc.RpcError) as caught:
        replica.grpc("ModelConfig", pb.ModelReadyRequest(), pb.ModelReadyResponse)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_stream_answers_each_message_in_order(replica):
    message = pb.ModelInferRequest(
        model_name="same_fp32", inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 2]}]
    )
    message.raw_input_contents.append(np.array([1.5, 2.5], "<f4").tobytes())
    requests = []
    for number in range(30):
        request = pb.ModelInferRequest()
        request.CopyFrom(message)
        request.id = str(number)
        if number == 7:
            request.model_name = "nothing"
        requests.append(request)
    responses = replica.grpc.stream(requests)
    assert [each.infer_response.id for each in responses] == [str(number) for number in range(30)]
    assert "does not exist" in responses[7].error_message
    assert not any(each.error_message for each in responses[8:])


def test_health_and_reflection(replica):
    call = replica.grpc
    health = "grpc.health.v1.Health"
    for service in ("", SERVICE):
        request = health_pb2.HealthCheckRequest(service=service)
        response = call("Check", request, health_pb2.HealthCheckResponse, service=health)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        call(
            "Check",
            health_pb2.HealthCheckRequest(service="x"),
            health_pb2.HealthCheckResponse,
            service=health,
        )
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    listed = call("List", health_pb2.HealthListRequest(), health_pb2.HealthListResponse, service=health)
    assert SERVICE in listed.statuses
    for version in ("v1", "v1alpha"):
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="nothing"),
        ]
        stream = call.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        services, file, error = stream(iter(asked), timeout=60)
        assert SERVICE in [each.name for each in services.list_services_response.service]
        assert b"ModelInfer" in file.file_descriptor_response.file_descriptor_proto[0]
        assert error.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_requests_are_counted_with_model_and_version(replica):
    count = 'cortex_inference_duration_seconds_count{model="same_int8",version="1"}'
    before = replica.metric(count)
    x = {"name": "x", "shape": [1, 2], "datatype": "INT8", "data": [1, 2]}
    assert infer(replica, {"inputs": [x]}, "/v2/models/same_int8/versions/1/infer").status_code == 200
    replica.grpc.infer(
        "same_int8",
        "1",
        inputs=[{"name": "x", "datatype": "INT8", "shape": [1, 2]}],
        raw_input_contents=[b"ab"],
    )
    assert replica.wait_metric(count, before + 2) == before + 2


@pytest.mark.parametrize(
    "path", [f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelReady", "/grpc.health.v1.Health/Check"]
)
def test_a_message_that_is_not_protobuf_is_an_invalid_argument(replica, path):
    with pytest.raises(grpc.RpcError) as caught:
        replica.grpc.channel.unary_unary(path)(b"\xff\xff", timeout=60)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "is not a valid" in caught.value.details()


def test_a_message_that_is_not_protobuf_does_not_end_a_stream(replica):
    whole = pb.ModelInferRequest(model_name="nothing", id="7").SerializeToString()
    stream = replica.grpc.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    first, second = map(pb.ModelStreamInferResponse.FromString, stream(iter([b"\xff", whole]), timeout=60))
    assert "is not a valid ModelInferRequest" in first.error_message
    assert ("does not exist" in second.error_message, second.infer_response.id) == (True, "7")


def test_a_handler_s_arrays(handler):
    response = infer(handler, {"inputs": [X], "parameters": {"factor": 3}}, "/v2/models/tested/infer").json()
    assert [each["data"] for each in response["outputs"]] == [[4.5, 7.5], ["a", "b"]]
    assert response["model_version"] == "1"
    assert httpx.get(f"{handler.url}/v2/models/tested").json()["platform"] == "python"
    assert httpx.post(handler.url).status_code == 404


def test_a_handler_that_fails_or_takes_too_long(handler):
    # The calls that are too slow come last: each of them occupies the thread of the handler after its request has ended.
    for name, parameter, value, status, code in (
        ("fail", True, {"bool_param": True}, 500, grpc.StatusCode.INTERNAL),
        ("sleep", 3, {"int64_param": 3}, 504, grpc.StatusCode.DEADLINE_EXCEEDED),
    ):
        body = {"inputs": [X], "parameters": {name: parameter}}
        response = infer(handler, body, "/v2/models/tested/infer")
        assert response.status_code == status
        assert name == "sleep" or response.json()["error"] == "internal server error"
        with pytest.raises(grpc.RpcError) as caught:
            handler.grpc.infer(
                "tested",
                inputs=[{"name": "x", "datatype": "FP32", "shape": [0, 2]}],
                raw_input_contents=[b""],
                parameters={name: value},
            )
        assert caught.value.code() == code
        assert "Traceback" not in response.text + caught.value.details()


def test_models_are_unloaded_and_loaded_again_in_all_workers(serve_for_module, tmp_path):
    write_models(tmp_path)
    api = serve_for_module(
        None,
        path=None,
        type="onnx",
        models={"dir": str(tmp_path)},
        protocols={"repository": True},
        processesPerReplica=2,
    )

    def post(path: str, content: Any = None) -> Any:
        # A connection for each request, so that each worker gets some of them.
        return PLAIN.post(f"{api.url}/v2/{path}", json=content or {})

    def answers() -> set[int]:
        return {post("models/same_fp32/infer", {"inputs": [X]}).status_code for _ in range(12)}

    assert answers() == {200}
    assert post("repository/models/same_fp32/unload").status_code == 200
    api.until(lambda: answers() == {404})
    # One of the workers may still have the model.
    api.until(lambda: PLAIN.get(f"{api.url}/v2/models/same_fp32/ready").status_code == 503)

    def index() -> dict[tuple[str, str], Any]:
        found = {(each["name"], each["version"]): each for each in post("repository/index").json()}
        return found if found["same_fp32", "1"]["state"] == "UNAVAILABLE" else {}

    states = api.until(index)
    assert states["same_fp32", "1"]["reason"] == "unloaded"
    api.until(
        lambda: "same_fp32" not in {each["name"] for each in post("repository/index", {"ready": True}).json()}
    )
    assert "same_int8" in {each["name"] for each in post("repository/index", {"ready": True}).json()}
    assert post("repository/models/same_fp32/load").status_code == 200
    api.until(lambda: answers() == {200})
    assert post("repository/models/nothing/load").status_code == 404
    refused = post("repository/models/same_fp32/load", {"parameters": {"config": "{}"}})
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        "a model is loaded from handler.models; parameter 'config' is not supported",
    )


def test_without_the_field_there_is_no_repository(handler):
    assert PLAIN.post(f"{handler.url}/v2/repository/index").status_code == 404
    with pytest.raises(grpc.RpcError) as caught:
        handler.grpc("RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_each_call_needs_a_key_over_grpc(serve, tmp_path, monkeypatch):
    (tmp_path / "key").write_text("secret")
    monkeypatch.setenv("CORTEX_API_KEYS", str(tmp_path))
    port = free_port()
    keys = {"secret": {"name": "keys"}}
    api = serve(HANDLER, "--grpc-port", str(port), protocols={"grpc": True}, apiKeys=keys)
    x = {"name": "x", "datatype": "FP32", "shape": [0, 2]}
    for metadata in ((), (("authorization", "Bearer wrong"),)):
        for method, request, response in (
            ("ModelInfer", pb.ModelInferRequest(model_name="tested"), pb.ModelInferResponse),
            ("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                Grpc(port, metadata)(method, request, response)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as caught:
            Grpc(port, metadata).stream([pb.ModelInferRequest(model_name="tested")])
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    for metadata in ((("authorization", "Bearer secret"),), (("x-api-key", "secret"),)):
        answer = Grpc(port, metadata).infer("tested", inputs=[x], raw_input_contents=[b""])
        assert answer.model_version == "1"
    assert httpx.get(f"{api.url}/v2").status_code == 401
    assert httpx.get(f"{api.url}/v2", headers={"x-api-key": "secret"}).status_code == 200


def test_without_tensors_the_api_does_not_start(serve):
    handler = "class Handler:\n    def handle_post(self, payload):\n        return payload\n"
    api = serve(handler, "--grpc-port", str(free_port()), protocols={"grpc": True}, wait=False)
    reason, message = api.cause_of_death()
    assert reason == "InvalidSpec"
    assert "handler.protocols.grpc: the API does not serve the Open Inference Protocol" in message


def test_concurrent_inferences_run_as_one_batch(serve):
    handler = """
import threading
class Handler:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    outputs = [{"name": "rows", "datatype": "INT64", "shape": [-1]}]
    def handle_infer(self, inputs):
        count = len(inputs["x"])
        return {"rows": [count] * count}
"""
    batching = {"maxBatchSize": 4, "batchInterval": "30s"}
    api = serve(handler, serverSideBatching=batching)
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(infer, api, None, "/v2/models/tested/infer") for _ in range(4)]
        outputs = [each.result().json()["outputs"][0] for each in sent]
    assert [each["data"] for each in outputs] == [[4]] * 4
