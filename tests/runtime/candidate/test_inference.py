"""The split for the Open Inference Protocol, over HTTP and gRPC. Real replicas."""

import grpc
import numpy as np
import pytest

from cortex_runtime.inference.protos import inference_pb2 as pb
from tests.runtime.programs import PLAIN
from tests.runtime.queues.servers import free_port

HANDLER = """
import os

import numpy as np

from cortex_runtime import UserError


class Handler:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]

    def __init__(self, config):
        self.factor = 1 if config["name"] == "stable" else 2
        self.fault = config.get("fault")

    def handle_infer(self, inputs, parameters):
        if self.fault is not None and os.path.exists(self.fault):
            raise RuntimeError("a fault")
        if parameters.get("refuse"):
            raise UserError("refused")
        return {"y": inputs["x"] * np.float32(self.factor)}
"""
SERVICE = "inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def shared_pair(start_pair):
    ports = free_port(), free_port()
    pair = start_pair(HANDLER, grpc_ports=ports, protocols={"grpc": True})
    pair.channel = grpc.insecure_channel(f"127.0.0.1:{ports[0]}")
    pair.grpc_port = ports[1]
    yield pair
    pair.channel.close()


def message(**parameters):
    request = pb.ModelInferRequest(model_name="tested", id="7")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([1.5, 2.5], "<f4").tobytes())
    for name, value in parameters.items():
        request.parameters[name].bool_param = value
    return request


def infer(pair, metadata=(), **parameters):
    """Return the first value of the response, and its trailing metadata."""
    method = pair.channel.unary_unary(
        f"/{SERVICE}/ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
    )
    response, call = method.with_call(message(**parameters), timeout=60, metadata=metadata)
    value = float(np.frombuffer(response.raw_output_contents[0], "<f4")[0])
    return value, dict(call.trailing_metadata())


def post(pair, **more):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.5]}
    return pair.client.post("/v2/models/tested/infer", json={"inputs": [tensor], **more})


def test_tensors_over_http(pair):
    pair.split(weight=50)
    found = [post(pair) for _ in range(40)]
    for answer in found:
        factor = 1 if answer.headers["x-cortex-version"] == "stable" else 2
        assert answer.json()["outputs"][0]["data"] == [1.5 * factor, 2.5 * factor]
    assert sum(answer.headers["x-cortex-version"] == "candidate" for answer in found) == pytest.approx(
        20, abs=4
    )
    # What does not infer is answered by the stable version.
    pair.split(weight=100)
    assert pair.client.get("/v2/models/tested").headers["x-cortex-version"] == "stable"
    answer = post(pair, parameters={"refuse": True})
    assert (answer.status_code, answer.headers["x-cortex-version"]) == (400, "candidate")


def test_tensors_over_grpc(pair):
    assert infer(pair)[0] == 1.5
    pair.split(weight=50, grpcPort=pair.grpc_port)
    versions = []
    for _ in range(40):
        value, trailing = infer(pair, (("x-request-id", "mine"),))
        assert value == (1.5 if trailing["x-cortex-version"] == "stable" else 3.0)
        assert trailing["x-request-id"] == "mine"
        versions.append(trailing["x-cortex-version"])
    assert versions.count("candidate") == pytest.approx(20, abs=4)
    assert pair.report()["requests"] == versions.count("candidate")
    for version, value in (("stable", 1.5), ("candidate", 3.0)):
        assert infer(pair, (("x-cortex-version", version),))[0] == value
    pair.remove_split()
    value, trailing = infer(pair)
    assert value == 1.5
    assert "x-cortex-version" not in trailing


def test_each_message_of_a_stream_is_a_request(pair):
    pair.split(weight=50, grpcPort=pair.grpc_port)
    call = pair.channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer",
        pb.ModelInferRequest.SerializeToString,
        pb.ModelStreamInferResponse.FromString,
    )
    requests = [message(refuse=number == 5) for number in range(20)]
    answers = list(call(iter(requests), timeout=60))
    assert [answer.error_message for answer in answers] == ["refused" if n == 5 else "" for n in range(20)]
    values = [
        float(np.frombuffer(answer.infer_response.raw_output_contents[0], "<f4")[0])
        for answer in answers
        if not answer.error_message
    ]
    assert {answer.infer_response.id for answer in answers} == {"7"}
    assert values.count(3.0) == pytest.approx(10, abs=4)
    assert values.count(1.5) + values.count(3.0) == 19


def test_an_error_of_the_candidate_that_the_client_has_caused_is_passed_on(pair):
    pair.split(weight=100, grpcPort=pair.grpc_port)
    with pytest.raises(grpc.RpcError) as caught:
        infer(pair, refuse=True)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "refused")
    assert pair.report()["errors"] == 0


def test_a_candidate_that_fails_over_grpc_loses_no_call(pair):
    for port in (pair.grpc_port, free_port()):
        pair.split(weight=50, grpcPort=port)
        pair.fault.write_text("500")
        assert {infer(pair)[0] for _ in range(40)} == {1.5}
        report = pair.report()
        assert report["errors"] == report["requests"] == pytest.approx(20, abs=4)
        assert report["breaker"] == "open"
    pair.split(weight=50, grpcPort=pair.grpc_port)
    pair.fault.unlink()
    pair.stable.until(lambda: infer(pair)[0] == 3.0)


@pytest.mark.parametrize("over_http", [False, True])
def test_tensors_are_compared_element_by_element(pair, over_http):
    pair.split(mirror=100, grpcPort=pair.grpc_port, compare={"tolerance": 0.1})

    def is_compared():
        # On a machine with much load, copies are dropped.
        if over_http:
            assert post(pair).json()["outputs"][0]["data"] == [1.5, 2.5]
        else:
            assert infer(pair)[0] == 1.5
        report = pair.stable.until(
            lambda: (found := pair.report())["compared"] + found["dropped"] > before and found
        )
        return report["compared"]

    before = 0
    while not is_compared():
        before += 1
    assert pair.report()["differing"] == 1
    (difference,) = PLAIN.get(f"{pair.stable.admin}/candidate/differences").json()
    assert difference["differences"] == [
        {"path": "/outputs/0/data/0", "stable": 1.5, "candidate": 3.0},
        {"path": "/outputs/0/data/1", "stable": 2.5, "candidate": 5.0},
    ]


def test_the_interface_of_a_replica_is_described(pair):
    for replica in (pair.stable, pair.candidate):
        interface = PLAIN.get(f"{replica.admin}/interface").json()
        assert {"v2", "grpc"} <= set(interface["protocols"])
        assert interface["models"] == {
            "tested": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": []}
        }
        assert interface["routes"] == []
