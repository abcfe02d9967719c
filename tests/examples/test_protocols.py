"""The examples of tensors and of routes, with the commands in their READMEs."""

import json

import grpc
import httpx
import numpy as np

from cortex_runtime.inference.protos import inference_pb2 as pb
from tests.ports import free_port

from .conftest import Run, post

FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.3, 2.8, 5.1, 1.5]]


def test_one_class_answers_json_and_tensors(run: Run) -> None:
    grpc_port = free_port()
    url, _ = run("tensors", "--grpc-port", str(grpc_port))
    assert post(url, FLOWER).json() == {"species": "setosa", "distance": 0.14}
    assert post(url, {}).status_code == 400
    metadata = httpx.get(f"{url}/v2/models/nearest-species").json()
    assert metadata["inputs"] == [{"name": "flowers", "datatype": "FP32", "shape": [-1, 4]}]
    flowers = {"name": "flowers", "shape": [2, 4], "datatype": "FP32", "data": [*ROWS[0], *ROWS[1]]}
    answer = post(f"{url}/v2/models/nearest-species/infer", {"inputs": [flowers]}).json()
    assert answer["outputs"][0]["data"] == ["setosa", "virginica"]
    wrong = post(f"{url}/v2/models/nearest-species/infer", {"inputs": [{**flowers, "shape": [4, 2]}]})
    assert (wrong.status_code, "expected shape [-1, 4]" in wrong.json()["error"]) == (400, True)
    request = pb.ModelInferRequest(model_name="nearest-species")
    request.inputs.add(name="flowers", datatype="FP32", shape=[2, 4])
    request.raw_input_contents.append(np.array(ROWS, np.float32).tobytes())
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        outputs = {output.name: output for output in call(request, timeout=60).outputs}
    assert set(outputs) == {"species", "distance"}


def test_routes_answer_at_their_paths(run: Run) -> None:
    from websockets.sync.client import connect

    url, _ = run("routes")
    assert httpx.get(f"{url}/texts/1").json() == {"number": 1, "text": "a small red house"}
    assert httpx.get(f"{url}/texts/9").status_code == 404
    found = post(f"{url}/search", {"text": "the red house", "limit": 1}).json()
    assert found == [{"number": 1, "text": "a small red house", "similarity": 0.571}]
    assert len(post(f"{url}/search", {"text": "sea"}).json()) == 2
    wrong = post(f"{url}/search", {"limit": "many"})
    assert wrong.status_code == 400
    with connect(f"{url.replace('http', 'ws')}/search/live") as socket:
        socket.send("winter at the sea")
        assert json.loads(socket.recv(60))["number"] == 3
