"""Spans inside requests: waits for a thread, batches, models; gRPC calls; requests that a candidate answers."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from cortex_runtime.inference.protos import inference_pb2 as pb
from tests.runtime.inference.test_replica import Grpc
from tests.runtime.onnx_models import write_model
from tests.runtime.queues.servers import free_port

from .test_requests import parent


def test_the_wait_for_a_thread_is_a_span(serve, collector, tmp_path):
    source = """
import os, time

class Handler:
    def handle_post(self, payload):
        while not os.path.exists(payload):
            time.sleep(0.01)
"""
    replica = serve(source, spec={"tracing": {"endpoint": collector.url, "sampling": 0}})
    gate = tmp_path / "gate"
    (first, _, first_header), (second, _, second_header) = parent(), parent()
    with ThreadPoolExecutor(2) as pool:
        try:
            pool.submit(replica.post, str(gate), headers={"traceparent": first_header})
            replica.wait_metric("cortex_requests_in_flight")
            pool.submit(replica.post, str(gate), headers={"traceparent": second_header})
            replica.wait_metric("cortex_queue_length")
        finally:
            gate.touch()
    spans = collector.trace(second, "POST /", "queue", "handler")
    assert spans["queue"].parent == spans["POST /"].id
    assert spans["queue"].end <= spans["handler"].start
    # It waited until the first call had ended.
    assert spans["queue"].end >= collector.trace(first, "handler")["handler"].end


def test_a_batch_is_linked_to_its_requests(serve, collector):
    source = """
class Handler:
    def handle_post(self, payload):
        return payload
"""
    replica = serve(
        source,
        spec={"tracing": {"endpoint": collector.url, "sampling": 0}},
        serverSideBatching={"maxBatchSize": 3, "batchInterval": "20s"},
    )
    traces = [parent(), parent()]
    headers = [{}, *({"traceparent": header} for _, _, header in traces)]
    threads = [threading.Thread(target=replica.post, args=(1,), kwargs={"headers": each}) for each in headers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batch = collector.wait(lambda spans: [each for each in spans if each.name == "batch"])[0]
    assert batch.attributes == {"cortex.batch.size": 3}
    requests = [collector.trace(trace, "POST /", "queue") for trace, _, _ in traces]
    assert set(batch.links) == {spans["POST /"].id for spans in requests}
    assert batch.parent in batch.links
    for spans in requests:
        # The batch has a span "queue" of its own if it had to wait for a thread.
        (queue,) = collector.wait(
            lambda found, request=spans["POST /"].id: [
                each for each in found if each.name == "queue" and each.parent == request
            ]
        )
        assert queue.links == (batch.id,)
        assert queue.end <= batch.end <= spans["POST /"].end
    assert collector.trace(batch.trace, "handler")["handler"].parent == batch.id


@pytest.fixture(scope="module")
def model(serve_for_module, collector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(folder / "model.onnx", 2)
    port = free_port()
    api = serve_for_module(
        None,
        "--grpc-port",
        str(port),
        spec={"tracing": {"endpoint": collector.url, "sampling": 0}},
        type="onnx",
        path=None,
        models={"path": str(folder)},
        protocols={"grpc": True},
    )
    api.grpc_port = port
    return api


def test_a_model_call_is_a_span(model, collector):
    trace, _, header = parent()
    assert model.post({"x": [[1.0, 2.0]]}, headers={"traceparent": header}).status_code == 200
    spans = collector.trace(trace, "POST /", "handler", "model")
    assert spans["model"].parent == spans["handler"].id
    assert spans["model"].kind == "client"
    assert spans["model"].attributes["cortex.model.version"] == "1"


def infer(model, header, inputs=("x",), call=None):
    """Run an inference over gRPC with a trace context."""
    request = pb.ModelInferRequest(model_name="tested")
    for name in inputs:
        request.inputs.add(name=name, datatype="FP32", shape=[1, 2])
        request.raw_input_contents.append(bytes(8))
    client = Grpc(model.grpc_port, (("traceparent", header),))
    return (
        client.stream([request]) if call == "stream" else client("ModelInfer", request, pb.ModelInferResponse)
    )


def test_grpc_calls_are_traced(model, collector):
    trace, span, header = parent()
    infer(model, header)
    name = "inference.GRPCInferenceService/ModelInfer"
    spans = collector.trace(trace, name, "handler", "model")
    assert spans[name].parent == span
    assert spans[name].kind == "server"
    assert spans[name].attributes["rpc.system.name"] == "grpc"
    assert spans[name].attributes["rpc.method"] == name
    assert spans[name].attributes["rpc.response.status_code"] == "OK"
    assert spans["handler"].parent == spans[name].id
    trace, _, header = parent()
    infer(model, header, call="stream")
    spans = collector.trace(trace, "inference.GRPCInferenceService/ModelStreamInfer", "handler", "model")
    trace, _, header = parent()
    with pytest.raises(grpc.RpcError):
        infer(model, header, inputs=("unknown",))
    spans = collector.trace(trace, name)
    assert spans[name].attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert not spans[name].is_error


def test_inline_grpc_calls_have_the_same_spans(model, collector):
    unsampled = parent("00")[2]
    for _ in range(200):
        infer(model, unsampled)
    trace, span, header = parent()
    infer(model, header)
    name = "inference.GRPCInferenceService/ModelInfer"
    spans = collector.trace(trace, name, "handler", "model")
    assert spans[name].parent == span
    assert spans["handler"].parent == spans[name].id
    assert len([each for each in collector.spans if each.trace == trace and each.name == name]) == 1


def test_a_forwarded_request_continues_its_trace_at_the_candidate(serve, collector, tmp_path):
    source = """
class Handler:
    def __init__(self, config):
        self.name = config["name"]

    def handle_post(self, payload):
        return self.name
"""
    path = tmp_path / "split.json"
    spec = {"tracing": {"endpoint": collector.url, "sampling": 0}}
    candidate = serve(source, config={"name": "candidate"}, spec=spec)
    split = {"version": "v1", "host": "127.0.0.1", "port": candidate.port, "weight": 100, "mirror": 0}
    path.write_text(json.dumps(split))
    stable = serve(source, "--split", str(path), config={"name": "stable"}, spec=spec)
    trace, span, header = parent()
    assert stable.post({}, headers={"traceparent": header}).text == "candidate"
    spans = collector.wait(
        lambda spans: (
            len(found := [each for each in spans if each.trace == trace and each.kind == "server"]) == 2
            and found
        )
    )
    first = next(each for each in spans if each.parent == span)
    (second,) = (each for each in spans if each is not first)
    assert second.parent == first.id
    assert first.resource["process.pid"] != second.resource["process.pid"]


def test_a_request_that_moves_to_another_worker_has_one_span(serve, collector):
    source = """
import os, time
from pathlib import Path

class Handler:
    def handle_post(self, payload):
        # Until both workers have got a request.
        Path(f"{os.getpid()}.worker").touch()
        while len(list(Path().glob("*.worker"))) < 2:
            time.sleep(0.01)
        return os.getpid()
"""
    spec = {"tracing": {"endpoint": collector.url, "sampling": 0}}
    replica = serve(source, spec=spec, processesPerReplica=2)
    traces = [parent() for _ in range(12)]
    with ThreadPoolExecutor(len(traces)) as pool:
        answers = list(pool.map(lambda each: replica.post(1, headers={"traceparent": each[2]}), traces))
    workers = {answer.json() for answer in answers}
    assert len(workers) == 2
    for trace, span, _ in traces:
        collector.trace(trace, "POST /", "handler")
        (server,) = [each for each in collector.spans if each.trace == trace and each.kind == "server"]
        assert server.parent == span
        assert server.attributes["http.response.status_code"] == 200
