"""Several workers of one replica: none is idle while a request waits in another, and connections are balanced.

Handlers wait for each other: a request that waited behind another would never be answered by two that have met.
"""

import asyncio
import hashlib
import os
import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count, groupby
from types import SimpleNamespace

import httpx
import pytest

from cortex_runtime.http.server import plain
from cortex_runtime.mailboxes import ASK, NOTHING, REQUEST, TURN, WAITING, Mailboxes
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.serving.load_sharing import SharedThreads, SharingServer

SOURCE = """
import asyncio, hashlib, os, time, uuid
from pathlib import Path

class Handler:
    def handle_get(self):
        return os.getpid()

    def handle_post(self, query_params):
        return meet(query_params)

    def handle_put(self, payload, headers, query_params):
        met = meet(query_params)
        return met | {"hash": hashlib.sha256(payload).hexdigest(), "own": headers.get("X-Own"), "v": query_params["v"]}

    def handle_patch(self, payload):
        # Runs until its gate is there.
        Path(payload["seen"]).touch()
        while not os.path.exists(payload["gate"]):
            time.sleep(0.005)
        return os.getpid()

    async def handle_delete(self, query_params):
        while not os.path.exists(query_params["gate"]):
            await asyncio.sleep(0.005)
        return os.getpid()

def meet(query):
    # Returns once so many calls run at the same time.
    folder, end = query["folder"], time.monotonic() + 45
    Path(folder, uuid.uuid4().hex).touch()
    while len(os.listdir(folder)) < int(query["calls"]):
        if time.monotonic() > end:
            return {"pid": os.getpid(), "met": False}
        time.sleep(0.005)
    return {"pid": os.getpid(), "met": True}
"""


def client(api):
    return httpx.Client(base_url=api.url, timeout=60, trust_env=False)


@pytest.fixture(scope="module")
def api(serve_for_module):
    return serve_for_module(SOURCE, processesPerReplica=2)


@pytest.fixture
def folders(tmp_path):
    """Create folders in which calls meet."""

    def make():
        folder = tmp_path / str(len(os.listdir(tmp_path)))
        folder.mkdir()
        return str(folder)

    return make


def clients_of_one_worker(api, stack, count):
    """Return kept-alive connections to one worker, which may be either of the two."""
    found = {}
    while True:
        connection = stack.enter_context(client(api))
        same = found.setdefault(connection.get("/").json(), [])
        same.append(connection)
        if len(same) == count:
            return connection.get("/").json(), same


def all_at_once(calls):
    with ThreadPoolExecutor(len(calls)) as threads:
        running = [threads.submit(call) for call in calls]
        return [call.result() for call in running]


def all_meet(posts, folder):
    """Return the responses to concurrent requests, one by each function, that wait for each other."""
    params = {"folder": folder, "calls": len(posts)}
    return all_at_once([partial(each, params=params, timeout=60) for each in posts])


@pytest.mark.parametrize(("processes", "threads"), [(2, 1), (4, 1), (2, 2)])
def test_concurrent_requests_use_all_threads_of_all_processes(serve, folders, processes, threads):
    api = serve(SOURCE, processesPerReplica=processes, threadsPerProcess=threads)
    calls = processes * threads
    for _ in range(8):
        answers = all_meet([partial(httpx.post, api.url)] * calls, folders())
        assert all(answer.json()["met"] for answer in answers)
        assert set(Counter(answer.json()["pid"] for answer in answers).values()) == {threads}


def test_requests_on_connections_of_one_worker_run_in_other_workers(serve, folders):
    """A request that moves is not counted twice against the limit."""
    api = serve(SOURCE, processesPerReplica=2, maxReplicaConcurrency=2)
    with ExitStack() as stack:
        _, clients = clients_of_one_worker(api, stack, 2)
        for _ in range(5):
            answers = all_meet([partial(c.post, "/") for c in clients], folders())
            assert [answer.status_code for answer in answers] == [200, 200]
            assert all(answer.json()["met"] for answer in answers)
            # Bring both connections into one worker again, wherever they are.
            _, clients = clients_of_one_worker(api, stack, 2)
    assert api.wait_metric('cortex_requests_total{method="POST",status="200"}', 10) == 10
    api.until(lambda: api.metric("cortex_requests_in_flight") == 0)
    assert api.metric('cortex_requests_total{method="POST",status="499"}') == 0


def test_an_idle_worker_takes_requests_queued_in_another(api, tmp_path):
    def gate(name):
        return {"seen": str(tmp_path / f"{name}.seen"), "gate": str(tmp_path / f"{name}.gate")}

    with ExitStack() as stack:
        blocked, (first, *others) = clients_of_one_worker(api, stack, 4)
        other = stack.enter_context(client(api))
        while other.get("/").json() == blocked:
            other = stack.enter_context(client(api))
        threads = stack.enter_context(ThreadPoolExecutor(8))
        running = threads.submit(first.patch, "/", json=gate("first"))
        api.until(lambda: os.path.exists(gate("first")["seen"]))
        ending = threads.submit(other.patch, "/", json=gate("other"))
        api.until(lambda: os.path.exists(gate("other")["seen"]))
        waiting = [threads.submit(c.patch, "/", json=gate(f"w{i}")) for i, c in enumerate(others)]
        api.until(lambda: api.metric("cortex_queue_length") == 3)
        for i in range(3):
            open(gate(f"w{i}")["gate"], "w").close()
        open(gate("other")["gate"], "w").close()
        free = ending.result().json()
        assert free != blocked
        assert [request.result().json() for request in waiting] == [free] * 3
        assert not running.done()
        open(gate("first")["gate"], "w").close()
        assert running.result().json() == blocked


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_a_moved_request_is_unchanged(api, folders, size, chunked):
    body = os.urandom(size)

    def put(connection):
        content = iter([body[:10], body[10:]]) if chunked else body
        headers = {"x-own": "mine", "x-request-id": "moved", "content-type": "application/octet-stream"}
        return connection.put("/", params=params, content=content, headers=headers)

    with ExitStack() as stack:
        _, clients = clients_of_one_worker(api, stack, 2)
        params = {"folder": folders(), "calls": 2, "v": "ä b"}
        answers = all_at_once([lambda c=c: put(c) for c in clients])
        for answer in answers:
            assert answer.json() | {"pid": 0} == {
                "pid": 0,
                "met": True,
                "hash": hashlib.sha256(body).hexdigest(),
                "own": "mine",
                "v": "ä b",
            }
            assert answer.headers["x-request-id"] == "moved"
        # The connections continue.
        assert {c.get("/").status_code for c in clients} == {200}


@pytest.mark.parametrize("keep", [True, False], ids=["kept alive", "closed"])
def test_connections_are_balanced_over_the_workers(serve, keep):
    api = serve(SOURCE, processesPerReplica=2)

    def are_balanced():
        with ExitStack() as stack:
            pids = []
            for _ in range(60):
                connection = stack.enter_context(client(api)) if keep else httpx
                pids.append(connection.get("/" if keep else api.url).json())
        longest_run = max(len(list(run)) for _, run in groupby(pids))
        return longest_run <= 2 and min(pids.count(pid) for pid in set(pids)) >= 27

    # A worker that a busy machine stops for some 100 ms is left out for a second.
    api.until(are_balanced)


def test_connections_of_async_methods_are_balanced(api, tmp_path):
    gates = count()

    def are_balanced():
        gate = str(tmp_path / str(next(gates)))
        with ThreadPoolExecutor(20) as threads:
            running = [
                threads.submit(httpx.delete, api.url, params={"gate": gate}, timeout=60) for _ in range(20)
            ]
            api.until(lambda: httpx.get(f"{api.admin}/load").json()["inFlight"] == 20)
            open(gate, "w").close()
            pids = [call.result().json() for call in running]
        return min(pids.count(pid) for pid in set(pids)) in (9, 10)

    api.until(are_balanced)


def test_a_hung_worker_takes_no_requests_from_another(serve, folders):
    api = serve(SOURCE, processesPerReplica=2)
    seen = set()
    api.until(lambda: seen.add(httpx.get(api.url).json()) or len(seen) == 2)
    hanging, other = seen
    os.kill(hanging, signal.SIGSTOP)
    try:
        assert {httpx.get(api.url).json() for _ in range(10)} == {other}
        params = {"folder": folders(), "calls": 1}
        answers = all_at_once([lambda: httpx.post(api.url, params=params)] * 4)
        assert {answer.json()["pid"] for answer in answers} == {other}
    finally:
        os.kill(hanging, signal.SIGCONT)
    api.until(lambda: httpx.get(api.url).json() == hanging)


def test_a_restarted_worker_takes_its_share_of_requests(serve, folders):
    api = serve(SOURCE, processesPerReplica=2)
    with ExitStack() as stack:
        victim, _ = clients_of_one_worker(api, stack, 3)
        os.kill(victim, signal.SIGKILL)
    api.until(lambda: api.metric("cortex_worker_restarts_total") == 1 and api.ready().status_code == 200)
    api.until(lambda: api.metric("cortex_workers_ready") == 2)
    for _ in range(5):
        answers = all_meet([partial(httpx.post, api.url)] * 2, folders())
        assert all(answer.json()["met"] for answer in answers)


def test_requests_sent_to_a_dead_worker_are_forwarded_or_closed():
    mail = Mailboxes.create(3)
    for other in (2, None):
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                assert mail.send(1, REQUEST, 0, b"x" * 100_000, (theirs.fileno(),))
            mail.send(1, TURN, 0)
            mail.forward(1, other)
            assert list(mail.receive(1)) == []
            if other is None:
                assert ours.recv(1) == b""
                continue
            (message,) = mail.receive(other)
            assert (message.kind, message.sender, len(message.content)) == (REQUEST, 0, 100_000)
            with socket.socket(fileno=message.files[0]) as passed:
                passed.sendall(b"here")
            assert ours.recv(4) == b"here"


def test_workers_share_free_threads_and_queued_requests_at_once():
    """One worker only, whose messages to another are read here, and whose periodic tasks do not run."""

    async def run():
        metrics, mail = SharedMetrics.create(2), Mailboxes.create(2)
        threads = SharedThreads(2, metrics.worker(0), metrics, 0)
        server = SharingServer(plain(None, http="httptools"), lambda: None, threads, mail)
        server.lifespan = SimpleNamespace(startup=lambda: asyncio.sleep(0), should_exit=False, state={})
        await server.startup([socket.create_server(("127.0.0.1", 0))])
        sent = []

        async def until(kind):
            while kind not in sent:
                await asyncio.sleep(0.001)
                sent.extend(message.kind for message in mail.receive(1))
            sent.clear()

        metrics.movable[1] = 1.0
        await asyncio.create_task(threads.run_plain(lambda: None))  # A task for each request.
        await until(ASK)
        mail.send(0, NOTHING, 1)
        metrics.movable[1], metrics.free[1] = 0.0, 1.0
        end = threading.Event()
        cycle = SimpleNamespace(transport=SimpleNamespace(get_protocol=lambda: None))
        receive = asyncio.Queue().get
        calls = [
            asyncio.create_task(threads.run(partial(end.wait, 60), method_of(cycle, receive), 60))
            for _ in range(3)
        ]
        await until(WAITING)
        assert (metrics.movable[0], metrics.free[0]) == (1, 0)
        end.set()
        assert await asyncio.gather(*calls) == [True] * 3
        assert (metrics.movable[0], metrics.free[0]) == (0, 1)

    asyncio.run(asyncio.wait_for(run(), 60))


def method_of(cycle, receive):
    """Return a `receive` that is a method of a request cycle, like the server's."""

    async def method(self):
        return await receive()

    return method.__get__(cycle)
