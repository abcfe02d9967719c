"""The servers of `make bench-peers`: how each is installed (in its own virtual environment), started and requested.

peers/ contains the code of each peer, and peers/NAME.txt its pinned versions.
"""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import grpc
import numpy as np
import processes
import yaml
from bench_runtime import FLOWER, HERE, TRIVIAL, Contestant, Failed, free_port, pinned
from peer_tables import OURS
from questions import MODEL, V2, Question

import cortex_api

SERVERS = HERE / "peers"
BUILD = HERE.parent / "build" / "peers"
IRIS = HERE.parent / "examples" / "iris-onnx"
START_TIMEOUT = 90.0
LAYERS = (1024, 4096, 4096, 1000)
NUMBERS = [round(number / 7, 2) for number in range(LAYERS[0])]
ROW = json.dumps(NUMBERS)
V2_ROW = {"inputs": [{"name": "row", "shape": [1, LAYERS[0]], "datatype": "FP32", "data": NUMBERS}]}


@dataclass(frozen=True)
class Start:
    """Parameters for the start of a server. port: the measured one. scratch: a temporary folder."""

    work: str
    port: int
    scratch: Path

    @property
    def is_grpc(self) -> bool:
        return self.work.startswith("v2-grpc")

    @property
    def has_tensor(self) -> bool:
        """Whether the server doubles a tensor instead of running a model."""
        return self.work.endswith("-1mb")


@dataclass(frozen=True)
class PeerServer:
    """A model server.

    command: returns the command that starts it. questions: requests by workload. environment: additional environment variables.
    """

    name: str
    command: Callable[[Start], list[str]]
    questions: Mapping[str, Question]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        if self.name == OURS:
            return cortex_api.__version__
        found = re.search(rf"^{self.name}==(\S+)$", (SERVERS / f"{self.name}.txt").read_text(), re.MULTILINE)
        return found[1] if found else "?"


@dataclass(frozen=True)
class Serving:
    """A running server. start_s: time from the start of the process to the first response, in seconds."""

    process: subprocess.Popen[bytes]
    port: int
    start_s: float


def _cortex(start: Start) -> list[str]:
    if start.work in V2:
        command = Contestant(OURS, project=_v2_project(start))
        if start.is_grpc:
            ports = command.command(free_port(), free_port(), start.scratch)
            return [*ports, "--grpc-port", str(start.port)]
        return command.command(start.port, free_port(), start.scratch)
    project = {"trivial": HERE / "trivial", "iris": IRIS, "batching": BUILD / "mlp"}[start.work]
    return Contestant(OURS, project=project).command(start.port, free_port(), start.scratch)


def _v2_project(start: Start) -> Path:
    """Write a project that answers the Open Inference Protocol: the iris model without code, or a handler for the tensor."""
    project = start.scratch / "project"
    project.mkdir()
    if start.has_tensor:
        shutil.copy(HERE / "tensor" / "handler.py", project)
        handler: dict[str, object] = {"type": "python", "path": "handler.py"}
    else:
        shutil.copy(IRIS / "iris.onnx", project)
        handler = {"type": "onnx", "models": {"path": "iris.onnx"}}
    manifest = {
        "apiVersion": cortex_api.kinds.API_VERSION,
        "kind": "RealtimeAPI",
        "metadata": {"name": MODEL},
        "spec": {"handler": {**handler, "protocols": {"grpc": start.is_grpc}}},
    }
    (project / "api.yaml").write_text(yaml.safe_dump(manifest))
    return project


def _script(name: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        return [*_python(name), str(SERVERS / f"{name}_server.py"), start.work, str(start.port)]

    return command


def _bentoml(start: Start) -> list[str]:
    service = f"bentoml_server:{start.work.capitalize()}"
    command = [*_python("bentoml"), "-m", "bentoml", "serve", service, "--working-dir", str(SERVERS)]
    return [*command, "--host", "127.0.0.1", "--port", str(start.port)]


def _mlserver(start: Start) -> list[str]:
    settings = {"parallel_workers": 0, "host": "127.0.0.1", "debug": False, "gzip_enabled": False}
    measured, other = ("grpc_port", "http_port") if start.is_grpc else ("http_port", "grpc_port")
    ports = {measured: start.port, other: free_port(), "metrics_port": free_port()}
    classes = {"trivial": "Trivial", "iris": "Iris", "batching": "Batching"}
    implementation = classes.get(start.work, "V2Tensor" if start.has_tensor else "V2Iris")
    model = {"name": MODEL, "implementation": f"mlserver_server.{implementation}"}
    batches = {"max_batch_size": 16, "max_batch_time": 0.005} if start.work == "batching" else {}
    (start.scratch / "settings.json").write_text(json.dumps(settings | ports))
    (start.scratch / "model-settings.json").write_text(json.dumps(model | batches))
    return [str(BUILD / "mlserver" / "bin" / "mlserver"), "start", str(start.scratch)]


def _python(name: str) -> list[str]:
    return [str(BUILD / name / "bin" / "python")]


def _without(questions: Mapping[str, Question], *names: str) -> dict[str, Question]:
    return {name: question for name, question in questions.items() if name not in names}


def _questions(path: str, batching: Question) -> dict[str, Question]:
    return {"trivial": Question(path, TRIVIAL), "iris": Question(path, FLOWER), "batching": batching}


PREDICT = "/predict"
KSERVE = "/v1/models/bench:predict"
CORTEX = PeerServer(OURS, _cortex, {**_questions("/", Question("/", ROW)), **V2})
_PEERS = (
    PeerServer(
        "kserve",
        _script("kserve"),
        {**_questions(KSERVE, Question(KSERVE, f'{{"instances": [{ROW}]}}')), **V2},
    ),
    PeerServer(
        "mlserver",
        _mlserver,
        {
            **_questions(PREDICT, Question("/v2/models/bench/infer", json.dumps(V2_ROW))),
            # It does not implement tensors as bytes over HTTP.
            **_without(V2, "v2-binary-1mb"),
        },
    ),
    PeerServer("litserve", _script("litserve"), _questions(PREDICT, Question(PREDICT, ROW))),
    PeerServer(
        "bentoml",
        _bentoml,
        _questions(PREDICT, Question(PREDICT, f'{{"rows": [{ROW}]}}')),
        {"BENTOML_DO_NOT_TRACK": "True"},
    ),
    PeerServer(
        "ray",
        _script("ray"),
        _questions("/", Question("/", ROW)),
        {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
    ),
)
PEERS = {peer.name: peer for peer in _PEERS}


def prepare(peer: PeerServer) -> None:
    """Install a peer in its virtual environment, unless these versions are installed. Raises Failed with the output of pip."""
    folder, pins = BUILD / peer.name, SERVERS / f"{peer.name}.txt"
    stamp = folder / "installed.txt"
    if stamp.is_file() and stamp.read_text() == pins.read_text():
        return
    print(f"Installing {peer.name} {peer.version} into {folder} (once) ...", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    _run([*_python(peer.name), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(pins)])
    stamp.write_text(pins.read_text())


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed("installation failed: " + _last_lines(done.stderr))


def make_network() -> None:
    """Write the project for the workload "batching": a copy of mlp/ and the model, which all servers use."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder = BUILD / "mlp"
    if (folder / "mlp.onnx").is_file():
        return
    random = np.random.default_rng(1)
    nodes, weights, current = [], [], "row"
    for number, shape in enumerate(pairwise(LAYERS)):
        matrix = random.standard_normal(shape, dtype=np.float32) / np.float32(shape[0] ** 0.5)
        weights.append(numpy_helper.from_array(matrix, f"weights{number}"))
        nodes.append(helper.make_node("MatMul", [current, f"weights{number}"], [f"sum{number}"]))
        current = f"layer{number}"
        nodes.append(helper.make_node("Relu", [f"sum{number}"], [current]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("row", LAYERS[0]), (current, LAYERS[-1]))
    ]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    shutil.copytree(HERE / "mlp", folder, dirs_exist_ok=True)
    onnx.save(model, folder / "mlp.onnx")


@contextmanager
def serving(contestant: PeerServer, work: str, cores: list[int]) -> Iterator[Serving]:
    """Start a server on the given cores, wait until it responds, and yield it. Raises Failed."""
    model = IRIS / "iris.onnx" if work in ("iris", "v2-rest", "v2-grpc") else BUILD / "mlp" / "mlp.onnx"
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        start = Start(work, free_port(), scratch)
        command = pinned(cores, contestant.command(start))
        environment = os.environ | {"MODEL": str(model), "SCRATCH": folder, "BENTOML_HOME": folder}
        environment |= {"PYTHONPATH": str(SERVERS)} if contestant.name != OURS else {}
        with (scratch / "log").open("wb") as log:
            began = time.perf_counter()
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment | dict(contestant.environment), cwd=scratch
            )
        try:
            question = contestant.questions[work]
            while not answers(start.port, question):
                if process.poll() is not None or time.perf_counter() - began > START_TIMEOUT:
                    raise Failed("did not start: " + _last_lines((scratch / "log").read_text()))
                time.sleep(0.005)
            yield Serving(process, start.port, time.perf_counter() - began)
        finally:
            processes.end(process)


def answers(port: int, question: Question) -> bool:
    """Return whether the server answers the measured request."""
    body = question.body.encode() if isinstance(question.body, str) else question.body
    if question.is_grpc:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                return bool(channel.unary_unary(question.path)(body, timeout=5))
            except grpc.RpcError:
                return False
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", question.path, body, dict(question.headers))
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _last_lines(log: str) -> str:
    """Return the last two lines of a log as one line of limited length."""
    last = " / ".join(log.strip().splitlines()[-2:])
    return (f"... {last[-300:]}" if len(last) > 300 else last) or "no output"
