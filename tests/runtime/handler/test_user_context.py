"""User code sees the same environment on the event loop's thread as on its own thread, and nothing of other requests."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..conftest import INLINE

SOURCE = (
    INLINE
    + """
import asyncio, contextvars, decimal, gc, json, locale, os, signal, sqlite3, sys, threading, time, warnings
import anyio, httpx
from cortex_runtime.handler.inline_policy import InlinePolicy
from cortex_runtime.logs.records import request_id

# However long a call takes, it counts as quick: the method runs inline from the 33rd call on.
InlinePolicy.QUICK = InlinePolicy.SLOW = InlinePolicy.SLOW_AVERAGE = float("inf")

at_start, of_request = contextvars.ContextVar("at_start"), contextvars.ContextVar("of_request", default="unset")
local = threading.local()
seen = []


async def number(value):
    await asyncio.sleep(0)
    assert asyncio.current_task() is not None
    return value


def failure(function):
    try:
        return repr(function())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def depth(level=1):
    try:
        return depth(level + 1)
    except RecursionError:
        return level


class Dropped:
    def __del__(self):
        seen.append(asyncio._get_running_loop() is None)


def dropped():
    seen.clear()
    Dropped()
    gc.collect()
    return list(seen)


def step_generator():
    async def parts():
        yield 1
    generator = parts()
    try:
        generator.asend(None).send(None)
    except StopIteration as stop:
        return stop.value


def handled():
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.signal(signal.SIGUSR1, previous)
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Handler:
    def __init__(self, config):
        at_start.set("constructor")
        decimal.getcontext().prec = 50
        local.value, self.thread = "constructor", threading.get_ident()
        self.loop = asyncio.new_event_loop()
        self.database = sqlite3.connect(":memory:")
        self.url = config["url"]
        self.inline = config["inline"]
        self.actions = {
            "loop": lambda: asyncio._get_running_loop(),
            "current task": lambda: failure(asyncio.current_task),
            "all tasks": lambda: failure(asyncio.all_tasks),
            "context": lambda: [at_start.get(), of_request.get()],
            "set context": lambda: of_request.set("client"),
            "variables": lambda: sorted(v.name for v in contextvars.copy_context() if v.name != "of_request"),
            "request id": lambda: request_id.get(),
            "change request id": lambda: request_id.set("stolen"),
            "thread": lambda: [
                threading.get_ident() == self.thread, threading.current_thread() is threading.main_thread(),
                threading.current_thread().name, threading.current_thread().daemon,
            ],
            "local": lambda: local.value,
            "set local": lambda: setattr(local, "value", "request"),
            "reset local": lambda: setattr(local, "value", "constructor"),
            "signal": handled,
            "exception": lambda: list(sys.exc_info()),
            "asynchronous generators": lambda: list(sys.get_asyncgen_hooks()),
            "coroutine origins": sys.get_coroutine_origin_tracking_depth,
            "step a generator": step_generator,
            "recursion": lambda: sys.getrecursionlimit() - depth() < 100,
            "precision": lambda: decimal.getcontext().prec,
            "set precision": lambda: setattr(decimal.getcontext(), "prec", 3),
            "divide": lambda: str(decimal.Decimal(1) / 3),
            "warnings": lambda: len(warnings.filters),
            "locale": lambda: locale.setlocale(locale.LC_ALL),
            "folder": lambda: os.path.basename(os.getcwd()),
            "finalizer": dropped,
            "asyncio.run": lambda: asyncio.run(number(1)),
            "run_until_complete": lambda: self.loop.run_until_complete(number(2)),
            "anyio.run": lambda: anyio.run(number, 3),
            "run in a context": lambda: contextvars.copy_context().run(of_request.get),
            "sqlite3": lambda: self.database.execute("select 4").fetchone()[0],
            "httpx": lambda: httpx.get(self.url, trust_env=False).status_code,
            "httpx.AsyncClient": lambda: asyncio.run(self.fetch()),
            "raise": lambda: failure(lambda: 1 / 0),
        }

    async def fetch(self):
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(self.url)).status_code

    def handle_post(self, payload):
        names = json.loads(payload) if isinstance(payload, str) else payload
        if names == ["list"]:
            return {"inline": inline(), "found": sorted(self.actions)}
        return {"inline": inline(), "found": {name: plain(self.actions[name]()) for name in names}}

    def handle_put(self):
        outside = of_request.get()
        token = of_request.set("function")

        def parts():
            yield f"{outside}, {of_request.get()}"
            inner = of_request.set("first part")
            yield f", {of_request.get()}, {asyncio._get_running_loop()}"
            of_request.reset(inner)
            of_request.reset(token)
            yield f", {of_request.get()}"
        return parts()

    def handle_patch(self):
        of_request.set("function")

        async def parts():
            yield of_request.get()
        return parts()

    def handle_get(self, query_params):
        if "seen" in query_params:
            return list(seen)
        seen.clear()
        of_request.set("function")

        async def later():
            seen.append([of_request.get(), at_start.get()])

        def after():
            seen.append([of_request.get(), at_start.get(), repr(asyncio._get_running_loop())])
        return inline(), later if "async" in query_params else after

    async def handle_delete(self):
        before = of_request.get()
        of_request.set("async")
        return (part for part in [before, ", ", of_request.get()])


def plain(value):
    return value if value is None or isinstance(value, (bool, int, float, str, list, dict)) else repr(type(value))

"""
)


@pytest.fixture(scope="module")
def replicas(serve_for_module):
    """Three replicas: one runs methods inline, one runs them on their own thread, one has several threads."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), BaseHTTPRequestHandler
    )  # Returns 501, which is sufficient.
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield {
            name: serve_for_module(SOURCE, config={"inline": name == "inline", "url": url}, **more)
            for name, more in {"inline": {}, "thread": {}, "threads": {"threadsPerProcess": 2}}.items()
        }
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def ways(replicas):
    """Return a function for each way to run: from names of actions to what they see, in one request or in several."""

    def way(name, kind):
        client = httpx.Client(trust_env=False, headers={"content-type": kind, "x-request-id": "mine"})

        def ask(names):
            answer = client.post(replicas[name].url, content=json.dumps(names))
            assert answer.status_code == 200, answer.text
            return answer.json()

        return ask

    found = {
        "thread": way("thread", "application/json"),
        "inline in the protocol": way("inline", "application/json"),
        "inline in a task": way("inline", "text/plain"),
    }
    ask = found["inline in the protocol"]
    replicas["inline"].until(lambda: ask([])["inline"])
    return found


def test_user_code_observes_the_same_inline_and_on_a_thread(ways):
    names = ways["thread"](["list"])["found"]
    seen = {}
    assert len(names) > 30
    for name in names:
        found = {way: ask([name]) for way, ask in ways.items()}
        assert {way: answer["inline"] for way, answer in found.items()} == {
            "thread": False,
            "inline in the protocol": True,
            "inline in a task": True,
        }
        observed = [answer["found"] for answer in found.values()]
        assert observed == [observed[0]] * len(observed), name
        seen |= observed[0]
    assert (
        seen
        | {
            "loop": None,
            "request id": "mine",
            "recursion": True,
            "finalizer": [True],
            "httpx": 501,
            "httpx.AsyncClient": 501,
            "asyncio.run": 1,
            "run_until_complete": 2,
            "anyio.run": 3,
            "sqlite3": 4,
        }
        == seen
    )


CHANGES = "set context, change request id, set local, reset local, set precision"
QUICK = (
    "context, request id, local, precision, divide, loop, current task, variables, exception, raise, sqlite3"
)
LOOPS = "asyncio.run, run_until_complete, anyio.run, asynchronous generators, step a generator"
NAMES = st.sampled_from(f"{CHANGES}, {QUICK}, {LOOPS}".split(", "))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(requests=st.lists(st.lists(NAMES, max_size=5), max_size=6))
def test_sequences_of_requests_observe_the_same(ways, requests):
    """What one request sets, the next one sees or does not see, in every way to run."""
    found = {}
    for way, ask in ways.items():
        ask(["reset local"])  # Two ways share one replica.
        found[way] = [ask(names)["found"] for names in requests]
    assert len({json.dumps(answers) for answers in found.values()}) == 1, found


@pytest.mark.parametrize("way", ["thread", "inline in the protocol", "inline in a task"])
def test_context_variables_of_a_request_end_with_it(ways, way):
    changed = ways[way](["set context", "set precision", "change request id", "context", "precision"])[
        "found"
    ]
    assert (changed["context"], changed["precision"]) == (["constructor", "client"], 3)
    assert ways[way](["context", "precision", "request id"])["found"] == {
        "context": ["constructor", "unset"],
        "precision": 50,
        "request id": "mine",
    }


@pytest.mark.parametrize("name", ["inline", "thread", "threads"])
class TestOneContextForARequest:
    """A method, the parts of its stream and its callback share one context; the next request has another."""

    def test_parts_of_a_generator(self, replicas, name):
        for _ in range(2):
            answer = httpx.put(replicas[name].url, trust_env=False)
            assert answer.text == "unset, function, first part, None, unset"

    def test_parts_of_an_asynchronous_generator(self, replicas, name):
        assert httpx.patch(replicas[name].url, trust_env=False).text == "function"

    def test_an_async_method_and_its_generator(self, replicas, name):
        for _ in range(2):
            assert httpx.delete(replicas[name].url, trust_env=False).text == "unset, async"

    @pytest.mark.parametrize(("query", "loop"), [("sync", ["None"]), ("async", [])])
    def test_callbacks_after_the_response(self, replicas, name, query, loop):
        api = replicas[name]
        for _ in range(40):
            assert httpx.get(api.url, params={query: 1}, trust_env=False).status_code == 200
            found = api.until(lambda: httpx.get(api.url, params={"seen": 1}, trust_env=False).json())
            assert found == [["function", "constructor", *loop]]

    def test_requests_that_wait_on_one_connection(self, replicas, name):
        """The second and third are started by the end of the first and second."""
        request = b"DELETE / HTTP/1.1\r\nhost: x\r\n%b\r\n"
        with socket.create_connection(("127.0.0.1", replicas[name].port), timeout=60) as connection:
            connection.sendall(request % b"" * 2 + request % b"connection: close\r\n")
            answers = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answers.count(b"unset") == 3


@pytest.mark.parametrize(
    ("prefix", "pause"), [("", "time.sleep(0.1)"), ("async ", "await asyncio.sleep(0.1)")]
)
def test_batches_do_not_see_each_other(serve, prefix, pause):
    """Batches that start when the previous one ends, because their requests have waited for it."""
    source = f"""
import asyncio, contextvars, time
of_batch = contextvars.ContextVar("of_batch", default="unset")
class Handler:
    {prefix}def handle_post(self, payload):
        before = of_batch.get()
        of_batch.set("an earlier batch")
        {pause}
        return [before] * len(payload)
"""
    api = serve(source, serverSideBatching={"maxBatchSize": 2, "batchInterval": "20ms"})
    with ThreadPoolExecutor(6) as clients:
        answers = set(clients.map(lambda number: api.post(number).text, range(12)))
    assert answers == {"unset"}
