"""TensorFlow Serving that is unavailable, slow, restarted or shared by several processes, and a runtime without TensorFlow."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.exceptions import HTTPException

from cortex_runtime.clients import tensorflow
from cortex_runtime.clients.tfserving import server as server_module
from cortex_runtime.errors import StartError

ONES = {"a": [[1.0, 1.0, 1.0]], "b": [[1.0, 1.0, 1.0]]}


def factor(client, version=None):
    return client.predict(ONES, None, version)["scores"][0, 0] - 1


def answer_or_error(client):
    try:
        return factor(client)
    except HTTPException as error:
        return error.status_code


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def restartable(double):
    """The double; it runs again after the test."""
    yield double
    if double.server is None:
        double.up()


@pytest.fixture
def slow(double):
    double.slow.set()
    yield double
    double.slow.clear()


def test_a_server_that_is_away_is_a_503_with_the_time_to_come_back(open_remote, models, restartable):
    client = open_remote({"path": str(models / "sum")})
    restartable.down()
    with pytest.raises(HTTPException) as raised:
        client.predict(ONES)
    assert (raised.value.status_code, raised.value.headers) == (503, {"Retry-After": "1"})
    assert "TensorFlow Serving is not available" in raised.value.detail


def test_a_restarted_server_loads_its_models_at_the_first_request(
    open_remote, models, restartable, monkeypatch
):
    monkeypatch.setattr(server_module, "WATCH_SECONDS", 1e6)
    client = open_remote({"path": str(models / "sum")})
    loaded = restartable.available()
    restartable.down()
    restartable.up()

    # A request gets 503 until the connection is re-established.
    until(lambda: answer_or_error(client) == 10)
    assert restartable.available() == loaded
    assert len(loaded) == 3


def test_a_restarted_server_loads_its_models_without_a_request(open_remote, models, restartable, monkeypatch):
    monkeypatch.setattr(server_module, "WATCH_SECONDS", 0.02)
    client = open_remote({"path": str(models / "sum")})
    loaded = restartable.available()
    restartable.down()
    restartable.up()
    until(lambda: restartable.available() == loaded)
    assert factor(client, 2) == 2


def test_a_prediction_that_exceeds_the_timeout_is_a_504(open_remote, models, slow):
    client = open_remote({"path": str(models / "sum")}, timeout=0.1)
    with pytest.raises(HTTPException) as raised:
        client.predict(ONES)
    assert raised.value.status_code == 504


def test_no_server_is_the_reason_why_the_api_does_not_start(open_remote, models, monkeypatch):
    monkeypatch.setattr(server_module, "LOAD_SECONDS", 0.1)
    monkeypatch.setattr(server_module, "REPORT_WAITING_SECONDS", 0.1)
    open_remote.address = "127.0.0.1:1"
    with pytest.raises(StartError) as raised:
        open_remote({"path": str(models / "sum")})
    assert raised.value.reason == "TensorFlowServingUnavailable"
    assert "127.0.0.1:1 (CORTEX_TENSORFLOW_SERVING)" in raised.value.message


def test_neither_a_server_nor_tensorflow_is_the_reason_why_the_api_does_not_start(
    open_remote, models, monkeypatch
):
    monkeypatch.setattr(tensorflow, "find_spec", lambda name: None)
    open_remote.address = None
    with pytest.raises(StartError) as raised:
        open_remote({"path": str(models / "sum")})
    assert raised.value.reason == "InvalidSpec"
    assert "pip install tensorflow-cpu" in raised.value.message
    assert "CORTEX_TENSORFLOW_SERVING" in raised.value.message


def test_processes_of_a_replica_report_the_same(open_remote, models, double):
    first = open_remote({"path": str(models / "sum")})
    told = list(double.reloads)
    second = open_remote({"path": str(models / "sum")}, again=True)
    assert factor(first) == factor(second) == 10
    assert double.reloads == told
    assert len(double.available()) == 3


def test_files_replaced_by_one_process_remain_readable_for_another(
    open_remote, models, savedmodels, tmp_path, double
):
    folder = tmp_path / "sum"
    savedmodels.write_sum(folder / "1", 1)
    first = open_remote({"path": str(folder)})
    second = open_remote({"path": str(folder)}, again=True)
    savedmodels.write_sum(folder / "1", 7)
    open_remote.poll(first)
    assert factor(first) == 7
    # This process has not learned of it yet.
    assert factor(second) == 1
    second.refresh()
    assert factor(second) == factor(first) == 7
    assert len(double.available()) == 1


def test_a_limit_holds_for_all_processes_together(open_remote, models, double):
    spec = {"path": str(models / "sum"), "cacheSize": 1}
    clients = [open_remote(spec), open_remote(spec, again=True)]
    asked = [(client, version) for version in (1, 2, 10) for client in clients] * 2
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda question: factor(*question), asked))
    assert answers == [version for _, version in asked]
    assert double.most == 1
    assert len(double.available()) == 1


def test_the_model_least_recently_used_by_any_process_is_evicted(open_remote, models):
    spec = {"path": str(models / "sum"), "cacheSize": 2}
    first, second = open_remote(spec), open_remote(spec, again=True)
    assert [factor(first, 1), factor(first, 2), factor(second, 1), factor(second, 10)] == [1, 2, 1, 10]
    assert first.info()[0]["loaded"] == ["1"]
    assert second.info()[0]["loaded"] == ["1", "10"]


def test_models_of_an_earlier_process_are_unloaded(open_remote, models, double):
    open_remote({"path": str(models / "sum")})
    open_remote({"path": str(models / "words")})
    assert [name.partition("@")[0] for name in double.available()] == ["_cortex_default"]


def test_predictions_go_on_while_a_model_is_loaded(open_remote, models, double, monkeypatch):
    client = open_remote({"path": str(models / "sum"), "cacheSize": 2})
    assert factor(client, 1) == 1
    loading, go_on = threading.Event(), threading.Event()
    load = double._load

    def waiting(*arguments):
        loading.set()
        assert go_on.wait(60)
        load(*arguments)

    monkeypatch.setattr(double, "_load", waiting)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(factor, client, 2)
        assert loading.wait(60)
        assert factor(client, 1) == 1
        assert not other.done()
        go_on.set()
        assert other.result() == 2


PROGRAM = """
import importlib.abc, json, sys
from pathlib import Path
from cortex_api import Document
from cortex_runtime.clients.tensorflow import open_client
from cortex_runtime.models.repository import ModelRepository

class NotThere(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "ml_dtypes"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotThere())
handler, folder, address = Document.read(sys.argv[1]).spec.handler, Path(sys.argv[2]), sys.argv[3]
client = open_client(ModelRepository.open(handler, folder, folder), handler.models, address)
print(json.dumps(client.predict(["a"])["upper"].tolist()))
client.close()
"""


def test_with_a_server_the_runtime_needs_no_tensorflow(open_remote, models, tmp_path):
    open_remote({"path": str(models / "words")})
    document = tmp_path / "api.json"
    document.write_bytes(open_remote.document.to_json())
    command = [sys.executable, "-c", PROGRAM, str(document), str(open_remote.folder), open_remote.address]
    environment = {"CORTEX_TENSORFLOW_SERVING": open_remote.address, "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout) == (0, '["A"]\n'), done.stderr
