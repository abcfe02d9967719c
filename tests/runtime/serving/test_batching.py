"""serverSideBatching: concurrent requests are handled in one call, and none is affected by another."""

import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ..onnx_models import write_model

HANDLER = """
import pathlib, time
from cortex_runtime import UserError

class Handler:
    def __init__(self, config):
        self.calls = []
        self.inside = 0

    def handle_post(self, payload, query_params):
        self.inside += 1
        assert self.inside == 1, "two batches at once"
        assert type(payload) is list and type(query_params) is list and len(payload) == len(query_params)
        self.calls.append(len(payload))
        if any(item.get("wait") for item in payload):
            gate = pathlib.Path(next(item["wait"] for item in payload if item.get("wait")))
            gate.with_suffix(".seen").touch()
            while not gate.exists():
                time.sleep(0.005)
        try:
            if any(item.get("poison") for item in payload):
                raise RuntimeError("secret poison")
            if any(item.get("exit") for item in payload):
                raise SystemExit(3)
            if any(item.get("short") for item in payload):
                return payload[1:]
            if any(item.get("scalar") for item in payload):
                return {"not": "a list"}
            return [
                UserError("not this one", 422) if item.get("refuse") else {"n": item.get("n"), "of": len(payload)}
                for item in payload
            ]
        finally:
            self.inside -= 1

    def handle_get(self):
        return self.calls
"""


@pytest.fixture
def batched(serve):
    return lambda most=4, interval="10s", source=HANDLER, **more: serve(
        source, serverSideBatching={"maxBatchSize": most, "batchInterval": interval}, **more
    )


@pytest.fixture(scope="module")
def four(serve_for_module):
    """Batches of four; an incomplete batch waits longer than any test."""
    return serve_for_module(HANDLER, serverSideBatching={"maxBatchSize": 4, "batchInterval": "60s"})


def together(api, payloads):
    with ThreadPoolExecutor(len(payloads)) as clients:
        return list(clients.map(api.post, payloads))


def test_a_full_batch_starts_at_once_and_each_request_gets_its_own_result(four):
    def numbers():
        names = ("cortex_batch_size_count", "cortex_batch_size_sum", "cortex_batch_wait_seconds_count")
        return [four.metric(name) for name in names]

    before = numbers()
    answers = together(four, [{"n": number} for number in range(4)])
    assert [answer.json() for answer in answers] == [{"n": number, "of": 4} for number in range(4)]
    assert [after - was for after, was in zip(numbers(), before, strict=True)] == [1, 4, 4]


def test_the_interval_ends_the_wait_of_the_first(batched):
    api = batched(4, "50ms")
    assert [answer.json()["of"] for answer in together(api, [{"n": 1}])] == [1]


def test_a_batch_does_not_wait_when_no_other_client_is_connected(batched):
    api = batched(2, "60s")
    with httpx.Client(trust_env=False, timeout=30) as client:
        with httpx.Client(trust_env=False, timeout=30) as other, ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(lambda each: each.post(api.url, json={"n": 1}), (client, other)))
            assert [answer.json()["of"] for answer in answers] == [2, 2]
        # After this response, the server has noticed that the other connection is closed.
        assert client.get(api.url).json() == [2]
        assert client.post(api.url, json={"n": 1}).json()["of"] == 1


def test_requests_queued_during_a_batch_form_the_next_batch(batched, tmp_path):
    api = batched(3, "20ms")
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(5) as clients:
        first = clients.submit(api.post, {"wait": str(gate)})
        api.until(gate.with_suffix(".seen").exists)
        others = [clients.submit(api.post, {"n": number}) for number in range(4)]
        api.until(lambda: api.metric("cortex_queue_length") == 4)
        gate.touch()
        assert first.result().status_code == 200
        assert sorted(other.result().json()["of"] for other in others) == [1, 3, 3, 3]
    assert httpx.get(api.url).json() == [1, 3, 1]


@pytest.mark.parametrize("wrong", ["poison", "exit"])
def test_one_that_breaks_the_batch_fails_alone(four, wrong):
    answers = together(four, [{"n": 0}, {"n": 1}, {wrong: True}, {"n": 3}])
    assert [answer.status_code for answer in answers] == [200, 200, 500, 200]
    assert "secret" not in answers[2].text
    assert four.metric("cortex_worker_restarts_total") == 0


def test_a_result_may_be_the_error_of_one(four):
    answers = together(four, [{"n": 0}, {"refuse": True}, {"n": 2}, {"n": 3}])
    assert [answer.status_code for answer in answers] == [200, 422, 200, 200]
    assert answers[1].json()["error"] == "not this one"
    assert httpx.get(four.url).json()[-1] == 4


@pytest.mark.parametrize(
    ("wrong", "words"), [("short", "returned 3 results for a batch of 4 requests"), ("scalar", "got dict")]
)
def test_a_wrong_number_of_results_fails_all_requests_of_the_batch(four, wrong, words):
    answers = together(four, [{wrong: True}, {"n": 1}, {"n": 2}, {"n": 3}])
    assert [answer.status_code for answer in answers] == [500] * 4
    assert words in four.log.read_text()


def test_an_invalid_body_never_joins_a_batch(four):
    bad = four.post(content=b"{", headers={"content-type": "application/json"})
    assert bad.status_code == 400
    assert [answer.json()["of"] for answer in together(four, [{"n": 1}] * 4)] == [4] * 4


def test_a_request_that_times_out_leaves_the_queue(batched):
    api = batched(4, "10s", requestTimeout="300ms")
    assert api.post({"n": 1}).status_code == 504
    assert api.metric("cortex_queue_length") == 0


def test_a_client_that_leaves_while_it_waits_is_not_handled(batched):
    api = batched(2, "60s")
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        body = b'{"n": "left"}'
        client.sendall(
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        api.until(lambda: api.metric("cortex_queue_length") == 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert api.post({"n": "stays"}).json() == {"n": "stays", "of": 1}
    assert api.wait_metric('cortex_requests_total{method="POST",status="499"}') == 1


def test_an_async_method_and_numpy_results(batched):
    source = """
import numpy as np
class PythonPredictor:
    def __init__(self, config):
        pass
    async def predict(self, payload):
        return np.array(payload) * 2
"""
    api = batched(2, source=source)
    assert sorted(answer.json() for answer in together(api, [1, 2])) == [2, 4]


def test_each_process_has_its_batches(batched):
    api = batched(2, "20ms", processesPerReplica=2)
    answers = together(api, [{"n": number} for number in range(16)])
    assert sorted(answer.json()["n"] for answer in answers) == list(range(16))
    assert api.metric("cortex_batch_size_sum") == 16


def test_an_onnx_handler_also_gets_lists(batched, tmp_path):
    write_model(tmp_path / "m.onnx", 2.0)
    source = """
import numpy as np
class ONNXPredictor:
    def __init__(self, onnx_client, config):
        self.client = onnx_client
    def predict(self, payload):
        return self.client.predict(np.array(payload, np.float32))[0]
"""
    api = batched(2, source=source, type="onnx", models={"path": "m.onnx"})
    answers = together(api, [[1, 2], [3, 4]])
    assert [answer.json() for answer in answers] == [[2.0, 4.0], [6.0, 8.0]]
    assert {answer.headers["x-model-version"] for answer in answers} == {"1"}


def test_a_model_without_code_runs_once_for_a_batch(batched, tmp_path):
    write_model(tmp_path / "m.onnx", 2.0)
    source = """
def pre_inference(sample):
    if sample == "broken":
        raise RuntimeError("secret")
    return sample
def post_inference(prediction):
    return prediction[0]
"""
    api = batched(5, source=source, type="onnx", models={"path": "m.onnx"})
    payloads = [[[1, 2]], [[3, 4], [5, 6]], "broken", [[1, 2, 3]], {"x": [[7, 8]]}]
    answers = together(api, payloads)
    assert [answer.status_code for answer in answers] == [200, 200, 500, 400, 200]
    assert [answer.json() for answer in answers if answer.status_code == 200] == [
        [[2.0, 4.0]],
        [[6.0, 8.0], [10.0, 12.0]],
        [[14.0, 16.0]],
    ]
    assert "expected shape [n, 2]" in answers[3].json()["error"]
    assert answers[0].headers["x-model-version"] == "1"
    assert api.metric("cortex_batch_size_sum") == 5


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class Handler:\n    def handle_get(self): pass\n", "needs a method handle_post"),
        ("class Handler:\n    def handle_post(self): pass\n", "must take an argument"),
    ],
)
def test_a_method_that_can_not_be_batched_is_reported(batched, source, words):
    reason, message = batched(source=source, wait=False).cause_of_death()
    assert (reason, words in message) == ("HandlerInvalid", True)
