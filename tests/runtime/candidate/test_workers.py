"""A stable replica with several workers, API keys and WebSockets. Real replicas."""

import json

import pytest
from websockets.sync.client import connect

from tests.runtime.programs import PLAIN

HANDLER = """
import os, time

from cortex_runtime import route


class Handler:
    def __init__(self, config):
        self.name = config["name"]

    def handle_post(self, payload):
        time.sleep(0.002)
        return {"by": self.name, "pid": os.getpid()}

    @route("/talk", method="WEBSOCKET")
    async def talk(self, websocket):
        await websocket.accept()
        await websocket.send_json({"by": self.name})
"""


@pytest.fixture(scope="module")
def shared_pair(start_pair, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys")
    (keys / "key").write_text("secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORTEX_API_KEYS", str(keys))
        yield start_pair(HANDLER, processesPerReplica=2, apiKeys={"secret": {"name": "keys"}})


KEY = {"x-api-key": "secret"}


def test_requests_that_move_between_workers_are_selected_once(pair):
    pair.split(weight=25)
    answers = pair.load(1000, clients=12, headers=lambda number: KEY)
    assert answers.lost == 0
    assert answers.answered_by("candidate") == pytest.approx(250, abs=5)
    assert pair.report()["requests"] == answers.answered_by("candidate")


def test_the_stable_version_checks_the_key(pair):
    pair.split(weight=100)
    before = pair.candidate.metric('cortex_requests_total{method="POST",status="401"}')
    answer = pair.client.post("/", json=1, headers={"x-api-key": "wrong"})
    assert (answer.status_code, answer.headers["x-cortex-version"]) == (401, "stable")
    assert pair.candidate.metric('cortex_requests_total{method="POST",status="401"}') == before
    assert pair.client.post("/", json=1, headers=KEY).json()["by"] == "candidate"


def test_websockets_are_answered_by_the_stable_version(pair):
    pair.split(weight=100)
    with connect(
        f"ws://127.0.0.1:{pair.stable.port}/talk", additional_headers=KEY, open_timeout=60
    ) as socket:
        assert json.loads(socket.recv()) == {"by": "stable"}


def test_the_interface_lists_the_routes(pair):
    interface = PLAIN.get(f"{pair.stable.admin}/interface").json()
    assert interface["routes"] == [
        {"path": "/", "method": "POST"},
        {"path": "/talk", "method": "WEBSOCKET"},
    ]
    assert interface["models"] == {}
    assert PLAIN.get(f"{pair.candidate.admin}/interface").json() == interface
