"""Replicas are polled over real connections; their reports are not trusted, and a missing response is not an error."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cortex_api.contract import API_LABEL, KIND_LABEL
from cortex_operator.replicas import pod_client, poller, reports
from cortex_operator.replicas.pod_client import PodClient
from cortex_operator.replicas.poller import ReplicaPoller
from cortex_operator.watch.cache import Cache, Key

KEY = Key("RealtimeAPI", "default", "a")
OUT_OF_MEMORY = {"reason": "OutOfMemory", "message": "a worker was killed", "time": "2026-01-01T00:00:00Z"}


def pod(name: str = "p", ready: bool = True, uid: str = "u", **state: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid,
            "labels": {API_LABEL: "a", KIND_LABEL: "RealtimeAPI"},
        },
        "status": {
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "api", "state": state or {"running": {}}}],
        },
    }


@asynccontextmanager
async def answering(answer: Callable[[str], Awaitable[bytes]]) -> AsyncIterator[int]:
    """Serve the admin port of a pod; `answer` gets the path and returns the whole response."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(await answer(head.split()[1].decode()))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def response(body: Any, status: int = 200) -> bytes:
    content = json.dumps(body).encode()
    return b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n" % (status, len(content)) + content


class RecordingClient(PodClient):
    """A client that records the paths of its requests."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.requests: list[str] = []

    async def get(self, pod: dict[str, Any], path: str) -> tuple[int, Any] | None:
        self.requests.append(path)
        return await super().get(pod, path)


class World:
    """A cache, the replicas, and which APIs changed."""

    def __init__(self, port: int) -> None:
        self.cache = Cache()
        self.client = RecordingClient(port)
        self.changes: asyncio.Queue[Key] = asyncio.Queue()
        self.replicas = ReplicaPoller(self.cache, self.changes.put_nowait, self.client)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.replicas.run())
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def short_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "PERIOD", 0.05)
    monkeypatch.setattr(poller, "STARTING_PERIOD", 0.02)
    monkeypatch.setattr(pod_client, "RESPONSE_TIMEOUT", 60.0)


async def test_only_a_new_failure_of_a_worker_triggers_a_reconciliation() -> None:
    body: dict[str, Any] = {"ready": True, "inFlight": 1}
    asked = asyncio.Queue[str]()

    async def answer(path: str) -> bytes:
        asked.put_nowait(path)
        body["inFlight"] += 1
        return response(body)

    async with answering(answer) as port:
        world = World(port)
        async with world.running():
            world.cache.put_child(pod())
            assert world.replicas.reports(KEY) == {}
            for _ in range(3):
                assert await asyncio.wait_for(asked.get(), 60) == "/readyz"
            assert world.changes.empty()
            body["lastFailure"] = OUT_OF_MEMORY
            assert await asyncio.wait_for(world.changes.get(), 60) == KEY
            report = world.replicas.reports(KEY)["p"]
            assert report.failure == reports.WorkerFailure(*OUT_OF_MEMORY.values())
            assert report.load is not None
            assert report.load > 1


async def test_a_deleted_replaced_or_exited_pod_is_no_longer_polled() -> None:
    async def answer(path: str) -> bytes:
        return response({"ready": False, "reason": "Starting", "message": "x"}, 503)

    async with answering(answer) as port:
        world = World(port)
        async with world.running():
            world.cache.put_child(pod(ready=False))
            world.replicas.reports(KEY)
            await asyncio.wait_for(world.changes.get(), 60)
            assert world.replicas.reports(KEY)["p"].message == "x"
            world.cache.put_child(pod(ready=False, uid="another"))
            assert world.replicas.reports(KEY) == {}, "a namesake has not reported yet"
            world.cache.put_child(pod(ready=False, uid="another", waiting={"reason": "CrashLoopBackOff"}))
            assert world.replicas.reports(KEY) == {}
            before = len(world.client.requests)
            await asyncio.sleep(0.1)
            assert len(world.client.requests) == before


async def test_an_unreachable_pod_is_polled_with_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "MAX_PERIOD", 0.08)
    waits: asyncio.Queue[float] = asyncio.Queue()

    class RecordingReplicas(ReplicaPoller):
        def _schedule(self, replica: Any, seconds: float) -> None:
            waits.put_nowait(round(seconds, 3))
            super()._schedule(replica, seconds)

    world = World(1)
    world.replicas = RecordingReplicas(world.cache, world.changes.put_nowait, PodClient(1))
    async with world.running():
        world.cache.put_child(pod(ready=False))
        world.replicas.reports(KEY)
        found = [await asyncio.wait_for(waits.get(), 60) for _ in range(5)]
    assert found == [0.0, 0.04, 0.08, 0.08, 0.08]
    assert world.changes.empty()
    assert world.replicas.failed_polls == world.replicas.polls >= 4


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SSH-2.0\r\n\r\n{}",
        b"HTTP/1.1 OK\r\n\r\n{}",
        response([1]),
        response({"ready": "yes"}),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000,
        response({"ready": True, "message": "x" * 1_000_000}),
    ],
)
async def test_an_invalid_response_is_not_a_report(answer: bytes) -> None:
    async def given(_: str) -> bytes:
        return answer

    async with answering(given) as port:
        assert await World(port).replicas.poll(KEY, pod()) is None


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"reason": "Not a reason!"}, {"failure": None}),
        ({"reason": 5}, {"failure": None}),
        ({"message": None}, {"failure": None}),
        ({"time": "yesterday"}, {"failure": None}),
        ({"time": "2026-01-01T00:00:00"}, {"failure": None}),
        (
            {"message": "x" * 100_000},
            {"failure": reports.WorkerFailure("OutOfMemory", "x" * 4000, OUT_OF_MEMORY["time"])},
        ),
    ],
)
def test_values_of_an_unexpected_form_are_dropped(change: dict[str, Any], kept: dict[str, Any]) -> None:
    report = reports.parse({"ready": True, "lastFailure": {**OUT_OF_MEMORY, **change}, "average": "many"})
    assert report == reports.Report(True, **kept)
    assert report.load is None


async def test_concurrent_polls_of_a_pod_share_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "STARTING_PERIOD", 60.0)
    gate = asyncio.Event()
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def answer(path: str) -> bytes:
        asked.put_nowait(path)
        await gate.wait()
        return response({"ready": True, "average": 2.5})

    async with answering(answer) as port:
        world = World(port)
        async with world.running():
            world.cache.put_child(pod(ready=False))
            world.replicas.reports(KEY)
            both = asyncio.gather(*(world.replicas.poll(KEY, pod(ready=False)) for _ in range(2)))
            await asyncio.wait_for(asked.get(), 60)
            gate.set()
            found = await both
            assert [report and report.load for report in found] == [2.5, 2.5]
            assert asked.empty()
