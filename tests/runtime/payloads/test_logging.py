"""spec.payloadLogging: a sample of requests and responses as CloudEvents, to an HTTP sink or a bucket."""

import base64
import gzip
import json

import grpc
import httpx
import numpy as np
import pytest

from cortex_runtime.inference.protos import inference_pb2 as pb
from tests.runtime.conftest import INLINE
from tests.runtime.queues.servers import ADMIN, free_port, until

HANDLER = (
    INLINE
    + """
from starlette.responses import Response
from cortex_runtime import UserError, route
from cortex_runtime.handler.inline_policy import InlinePolicy

# However long a call takes on a busy machine, it counts as quick.
InlinePolicy.QUICK = InlinePolicy.SLOW = InlinePolicy.SLOW_AVERAGE = float("inf")

class Handler:
    def handle_post(self, payload):
        if isinstance(payload, dict) and payload.get("refuse"):
            raise UserError("refused", 422)
        if isinstance(payload, dict) and payload.get("fail"):
            raise RuntimeError("failed")
        return {"inline": inline(), "given": payload if isinstance(payload, (dict, list, int)) else str(payload)}

    def handle_get(self):
        yield "first "
        yield "second"

    def handle_put(self):
        return Response(bytes([0, 255]), media_type="image/x")

    @route("/information", method="GET")
    def information(self):
        return {}
"""
)


@pytest.fixture(scope="module")
def logged(serve_for_module, sink):
    return serve_for_module(HANDLER, spec={"payloadLogging": {"url": sink.url, "maxPayloadSize": "1Ki"}})


@pytest.fixture(scope="module")
def redacted(serve_for_module, sink):
    return serve_for_module(
        HANDLER,
        spec={"payloadLogging": {"url": sink.url, "redact": ["$..password", "$.given.rows[*].name"]}},
    )


def test_a_request_and_its_response_are_cloudevents(logged, sink):
    answer = logged.post({"a": 1.50, "big": 2**70}, headers={"authorization": "Bearer secret-key"})
    request, response = sink.pair(answer)
    assert sink.types == {"application/cloudevents+json"}
    common = {
        "specversion": "1.0",
        "source": "/namespaces/default/realtimeapis/tested",
        "subject": "/",
        "requestid": answer.headers["x-request-id"],
        "method": "POST",
        "datacontenttype": "application/json",
    }
    assert request.items() >= {**common, "type": "dev.cortex.request"}.items()
    assert response.items() >= {**common, "type": "dev.cortex.response", "status": 200}.items()
    assert request["data"] == {"a": 1.5, "big": 2**70}
    assert response["data"] == answer.json()
    assert request["datasize"] == len(answer.request.content)
    assert request["id"] != response["id"]
    assert request["time"] <= response["time"]
    assert "secret-key" not in json.dumps(sink.events)


def test_inline_requests_are_logged_alike(logged, sink):
    with httpx.Client(base_url=logged.url, trust_env=False) as client:
        for number in range(1000):
            answer = client.post("/", json={"n": number})
            if answer.json()["inline"]:
                break
        else:
            pytest.fail("no request was inline")
        request, response = sink.pair(answer)
        assert request["data"] == {"n": number}
        assert response["data"] == answer.json()
        assert response["status"] == 200
        for _ in range(50):
            client.post("/", json={})
        answer = client.post("/", json={"refuse": 1})
    request, response = sink.pair(answer)
    assert request["data"] == {"refuse": 1}
    assert response["status"] == 422
    assert response["data"]["error"] == "refused"


def test_errors_streams_and_binary_payloads_are_logged(logged, sink):
    answer = logged.post({"fail": 1})
    assert answer.status_code == 500
    assert sink.pair(answer)[1]["data"] == answer.json()
    answer = httpx.get(logged.url)
    request, response = sink.pair(answer)
    assert "data" not in request
    assert response["data"] == answer.text == "first second"
    answer = httpx.put(logged.url)
    response = sink.pair(answer)[1]
    assert base64.b64decode(response["data_base64"]) == bytes([0, 255])
    assert response["datacontenttype"] == "image/x"
    body = gzip.compress(json.dumps({"zipped": 1}).encode())
    answer = logged.post(
        content=body, headers={"content-type": "application/json", "content-encoding": "gzip"}
    )
    assert sink.pair(answer)[0]["data"] == {"zipped": 1}
    answer = logged.post(content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert base64.b64decode(sink.pair(answer)[0]["data_base64"]) == b"{"


def test_the_size_of_a_large_payload_is_logged_without_its_content(logged, sink):
    answer = logged.post({"large": "x" * 2000})
    request, response = sink.pair(answer)
    assert request["datasize"] == len(answer.request.content)
    assert request["omitted"] == response["omitted"] == "larger than 1024 bytes"
    assert "data" not in request
    bomb = gzip.compress(b'"' + b"x" * 10_000 + b'"')
    answer = logged.post(
        content=bomb, headers={"content-type": "application/json", "content-encoding": "gzip"}
    )
    assert answer.status_code == 200
    assert "omitted" in sink.pair(answer)[0]


def test_values_are_redacted(redacted, sink):
    payload = {"password": "s3cret", "n": 2**70, "rows": [{"name": "s3cret", "id": 1}]}
    answer = redacted.post(payload)
    assert answer.json()["given"] == payload
    request, response = sink.pair(answer)
    assert request["data"] == {"password": "[redacted]", "n": 2**70, "rows": payload["rows"]}
    assert response["data"]["given"]["rows"] == [{"name": "[redacted]", "id": 1}]
    assert response["data"]["given"]["password"] == "[redacted]"
    answer = redacted.post(content=b"s3cret text", headers={"content-type": "text/plain"})
    request, _ = sink.pair(answer)
    assert "omitted" in request
    assert "s3cret text" not in json.dumps(request)


def test_a_sink_that_fails_affects_no_request_and_is_logged_once(serve):
    replica = serve(HANDLER, spec={"payloadLogging": {"url": "http://127.0.0.1:9/"}})
    assert all(replica.post({}).status_code == 200 for _ in range(5))
    replica.wait_metric('cortex_payload_events_dropped_total{reason="sink"}', 10)
    # The events are counted before the failure is logged.
    (line,) = replica.until(lambda: [each for each in replica.lines() if each["level"] == "warning"])
    assert "failed to send payloads to http://127.0.0.1:9/" in line["message"]


def test_unauthorized_requests_and_a_sample_of_zero_are_not_logged(serve, sink, tmp_path, monkeypatch):
    (tmp_path / "key").write_text("the-key")
    monkeypatch.setenv("CORTEX_API_KEYS", str(tmp_path))
    replica = serve(
        HANDLER,
        spec={"payloadLogging": {"url": sink.url}},
        apiKeys={"secret": {"name": "keys", "key": "key"}},
    )
    refused = replica.post({})
    assert refused.status_code == 401
    httpx.get(f"{replica.url}/info", headers={"x-api-key": "the-key"})
    sink.pair(replica.post({}, headers={"x-api-key": "the-key"}))
    # Not a path of the runtime.
    sink.pair(httpx.get(f"{replica.url}/information", headers={"x-api-key": "the-key"}))
    mine = [each for each in sink.events if each["requestid"] == refused.headers["x-request-id"]]
    assert mine == []
    assert "the-key" not in json.dumps(sink.events)
    assert "/info" not in {each["subject"] for each in sink.events}


def test_events_are_written_to_a_bucket_before_a_replica_exits(serve, seaweedfs, monkeypatch):
    seaweedfs.create_bucket("payloads")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweedfs.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN[1])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    replica = serve(
        HANDLER,
        spec={"payloadLogging": {"url": "s3://payloads/logs/", "sampling": 100}},
        processesPerReplica=1,
    )
    for number in range(3):
        assert replica.post({"n": number}).status_code == 200
    # boto3 is imported after the start, which may take longer than an exit waits.
    replica.until(lambda: "botocore.credentials" in replica.log.read_text())
    replica.process.terminate()
    assert replica.process.wait(60) == 0, replica.log.read_text()
    import boto3

    client = boto3.client("s3")
    events = []
    # One object, unless the requests took longer than an object waits for more events.
    for found in client.list_objects_v2(Bucket="payloads", Prefix="logs/tested/")["Contents"]:
        stored = client.get_object(Bucket="payloads", Key=found["Key"])
        assert stored["ContentType"] == "application/x-ndjson"
        events += [json.loads(line) for line in stored["Body"].read().splitlines()]
    requests = [each["data"]["n"] for each in events if each["type"] == "dev.cortex.request"]
    assert sorted(requests) == [0, 1, 2]
    assert len({each["id"] for each in events}) == 6


TENSORS = """
import numpy as np
from cortex_runtime import UserError

class Handler:
    def handle_infer(self, inputs, parameters):
        if "refuse" in inputs:
            raise UserError("refused")
        return {"y": inputs["x"] * np.float32(2), "name": np.array([b"a", b"b"], object)}
"""


def test_inferences_over_grpc_are_logged_as_json(serve, sink):
    port = free_port()
    logging = {"url": sink.url, "redact": ["$.inputs[1].data"]}
    serve(TENSORS, "--grpc-port", str(port), spec={"payloadLogging": logging}, protocols={"grpc": True})

    def infer(**inputs):
        request = pb.ModelInferRequest(model_name="tested", id="7")
        for name, array in inputs.items():
            request.inputs.add(name=name, datatype="FP32", shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        try:
            _, call = call_infer.with_call(request, timeout=60)
        except grpc.RpcError as error:
            call = error
        identity = dict(call.trailing_metadata())["x-request-id"]
        return sink.pair(httpx.Response(200, headers={"x-request-id": identity})), request

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call_infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        x = np.array([[1.5, 2]], np.float32)
        # The first calls run in a thread, later ones inline.
        for _ in range(3):
            (request, response), message = infer(x=x, secret=x)
        assert request["method"] == "gRPC"
        assert request["subject"] == "/inference.GRPCInferenceService/ModelInfer"
        assert request["datasize"] == len(message.SerializeToString())
        assert request["data"] == {
            "id": "7",
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]},
                {"name": "secret", "datatype": "FP32", "shape": [1, 2], "data": "[redacted]"},
            ],
        }
        assert response["status"] == 0
        assert response["data"] == {
            "model_name": "tested",
            "model_version": "1",
            "id": "7",
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [3.0, 4.0]},
                {"name": "name", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
            ],
        }
        (_, refused), _ = infer(refuse=x)
        assert (refused["status"], refused["data"]) == (3, {"error": "refused"})
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelStreamInferResponse.FromString,
        )
        messages = []
        for name, identity in (("x", "s1"), ("refuse", "s2")):
            messages.append(pb.ModelInferRequest(model_name="tested", id=identity))
            messages[-1].inputs.add(name=name, datatype="FP32", shape=x.shape)
            messages[-1].raw_input_contents.append(x.tobytes())
        before = len(sink.events)
        assert [each.error_message for each in stream(iter(messages), timeout=60)] == ["", "refused"]
        until(lambda: len(sink.events) == before + 4, 60, "the messages of the stream are logged")
        asked, answered, asked_again, refused = sink.events[before:]
        assert asked["subject"] == "/inference.GRPCInferenceService/ModelStreamInfer"
        assert asked["datasize"] == len(messages[0].SerializeToString())
        assert (asked["data"]["id"], asked_again["data"]["id"]) == ("s1", "s2")
        assert asked["data"]["inputs"][0]["data"] == [1.5, 2.0]
        assert answered["data"]["outputs"][0]["data"] == [3.0, 4.0]
        assert (answered["status"], answered["requestid"]) == (0, asked["requestid"])
        assert (refused["status"], refused["data"]) == (3, {"error": "refused"})
        assert refused["requestid"] != answered["requestid"]


def test_without_payload_logging_nothing_is_imported(serve):
    source = """
import sys

class Handler:
    def handle_post(self, payload):
        return [name for name in sys.modules if "payloads" in name or "logged_app" in name]
"""
    assert serve(source).post({}).json() == []
