"""With one thread, the thread that constructs a handler also runs it, whether its methods are fast or slow."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ..conftest import INLINE

BOUND = (
    INLINE
    + """
import sqlite3, threading, time

class Handler:
    def __init__(self, config):
        self.thread = threading.get_ident()
        self.database = sqlite3.connect(":memory:")
        self.database.execute("create table seen (number integer)")
        self.inside = 0

    def handle_post(self, payload):
        self.inside += 1
        assert self.inside == 1, "two calls at once"
        time.sleep(payload.get("seconds", 0))
        self.database.execute("insert into seen values (1)")
        (count,) = self.database.execute("select count(*) from seen").fetchone()
        self.inside -= 1
        return {"count": count, "same": threading.get_ident() == self.thread, "inline": inline()}

    def handle_put(self):
        for part in range(3):
            self.database.execute("select 1")
            yield str(part)

    def handle_get(self):
        return self.database.execute("select count(*) from seen").fetchone()[0], lambda: self.database.execute("select 1")

    async def handle_delete(self):
        return "gone"
"""
)

QUICK_AT_LAST = 120
"""Seconds. On a busy machine, few calls are fast."""


def test_an_object_bound_to_its_thread_works_with_fast_and_slow_calls(serve):
    api = serve(BOUND)
    count = 0
    with httpx.Client() as client:

        def post(**payload):
            nonlocal count
            answer = client.post(api.url, json=payload)
            assert answer.status_code == 200, answer.text
            count += 1
            assert (answer.json()["same"], answer.json()["count"]) == (True, count)
            return answer.json()

        api.until(lambda: any(post()["inline"] for _ in range(100)), QUICK_AT_LAST)
        # A slow call, a stream and a callback each move the loop away; fast calls move it back.
        assert client.put(api.url).text == "012"
        assert not post(seconds=0.03)["inline"]
        assert client.get(api.url).json() == count
        assert client.delete(api.url).text == "gone"
        api.until(lambda: any(post()["inline"] for _ in range(100)), QUICK_AT_LAST)
    assert not [line for line in api.lines() if line["level"] == "error"]


def test_calls_from_many_clients_never_overlap_while_the_loop_moves(serve):
    api = serve(BOUND)
    waits = [0.0] * 60 + [0.021] + [0.0] * 60 + [0.03] + [0.0] * 60

    def post(seconds):
        with httpx.Client() as client:
            return [client.post(api.url, json={"seconds": wait}) for wait in seconds]

    with ThreadPoolExecutor(4) as clients:
        answers = [answer for batch in clients.map(post, [waits] * 4) for answer in batch]
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json()["same"] for answer in answers)
    assert sorted(answer.json()["count"] for answer in answers) == list(range(1, len(answers) + 1))


def test_async_methods_run_on_the_thread_of_their_constructor(serve):
    source = """
import threading
class Handler:
    def __init__(self):
        self.thread = threading.get_ident()
    async def handle_get(self):
        return threading.get_ident() == self.thread and threading.current_thread() is threading.main_thread()
"""
    api = serve(source)
    assert [httpx.get(api.url).json() for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("threads", [3])
def test_several_threads_run_several_calls_concurrently(serve, threads):
    source = f"""
import threading
together = threading.Barrier({threads})
class Handler:
    def handle_get(self):
        together.wait(60)
        return "met"
"""
    api = serve(source, threadsPerProcess=threads)
    with ThreadPoolExecutor(threads) as clients:
        answers = clients.map(lambda _: httpx.get(api.url, timeout=90).text, range(threads))
        assert set(answers) == {"met"}
