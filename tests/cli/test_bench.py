"""`cortex bench` and its load generator, against servers of this test."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from cortex_cli.commands.bench import Goal, is_limited_by_generator, rates, summary
from cortex_cli.load_generator import Result, Target, generate

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


async def load(
    answer: Answer, rate: float = 200, seconds: float = 0.3, timeout: float = 60, **request
) -> Result:
    """Run a server that answers each request on a connection, and send it a load."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        target = Target.of(f"http://127.0.0.1:{port}/path?x=1", "POST", {"x-api-key": "k"}, b"{}")
        return await generate(target, rate, seconds, timeout)


def respond(content: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)

    return answer


async def test_requests_arrive_at_the_requested_rate():
    result = await load(respond(OK), rate=400, seconds=1.0)
    assert 300 < result.requests < 500
    assert (result.errors.total(), len(result.latencies)) == (0, result.requests)
    assert result.percentile(0.5) <= result.percentile(0.99)


async def test_a_chunked_response_is_read_completely():
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert (await load(respond(chunked))).errors.total() == 0


@pytest.mark.parametrize(
    ("content", "timeout", "cause"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", 60, "503"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", 0.5, "timeout"),
        (b"nonsense\r\n\r\n", 60, "invalid response"),
    ],
)
async def test_other_outcomes_are_counted_by_cause(content: bytes, timeout: float, cause: str) -> None:
    result = await load(respond(content), rate=50, timeout=timeout)
    assert set(result.errors) == {cause}
    assert result.latencies == []


async def test_a_closed_connection_is_opened_again():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        writer.close()

    assert (await load(answer)).errors.total() == 0


async def test_a_refused_connection_is_an_error():
    target = Target.of("http://127.0.0.1:1/", "GET", {}, None)
    result = await generate(target, 100, 0.1, 60.0)
    assert set(result.errors) == {"connection refused"}


def test_a_url_without_a_host_is_refused():
    with pytest.raises(ValueError, match="expected http://HOST:PORT/PATH"):
        Target.of("iris", "GET", {}, None)


def served(rate: float, latency: float, late: float = 0.0, errors: int = 0) -> Result:
    result = Result(rate, [latency] * 1000, seconds=1000 / rate, late=late)
    if errors:
        result.errors["503"] = errors
    return result


def test_the_search_finds_the_highest_rate_that_meets_the_goal():
    goal, capacity = Goal(0.1), 700.0
    search = rates(100.0, goal)
    rate, tried = next(search), []
    while True:
        tried.append(rate)
        try:
            rate = search.send(served(rate, 0.01 if rate <= capacity else 0.5))
        except StopIteration:
            break
    assert tried == [100, 200, 400, 800, 600, 700, 750, 560]


def test_failed_requests_miss_the_goal():
    assert Goal(0.1).is_met(served(100, 0.01, errors=1))
    assert not Goal(0.1).is_met(served(100, 0.01, errors=2))
    assert not Goal(0.1).is_met(Result(100))


def test_the_summary_derives_replicas_and_the_target_from_the_capacity():
    measured = [served(100, 0.02), served(200, 0.05), served(400, 0.5), served(160, 0.03)]
    lines = list(summary(measured, Goal(0.1), replicas=1, rate=1000))
    assert lines[0] == "Capacity: 200 requests/s for each replica with a p99 of at most 100 ms"
    assert lines[1].startswith("Settings for 160 requests/s for each replica")
    assert lines[-2:] == ["    targetInFlight: 4.8", "    minReplicas: 7    # for 1,000 requests/s"]


def test_a_limit_of_the_generator_is_not_reported_as_the_capacity():
    measured = [served(100, 0.02), served(200, 0.05, late=0.06)]
    assert is_limited_by_generator(measured[1], Goal(0.1))
    lines = list(summary(measured, Goal(0.1), replicas=1, rate=None))
    assert lines[0].startswith("Capacity: 100 requests/s")
    assert lines[1].startswith("This command was the limit, not the API")


def test_a_goal_that_is_never_met_is_stated():
    (line,) = summary([served(100, 0.5)], Goal(0.1), replicas=1, rate=None)
    assert line == "The API does not meet the goal (p99 of 100 ms) at any measured rate."


def test_a_load_that_could_not_be_sent_says_so_and_nothing_about_the_api():
    text = " ".join(summary([served(100, 0.05, late=0.06)], Goal(0.1), 1, None))
    assert "this machine was too busy to send 100 requests/s" in text
    assert "does not meet" not in text
    assert "--max-time must be at least --step" in " ".join(summary([], Goal(0.1), 1, None))


def test_a_slow_server_delays_the_latency_of_later_requests():
    ends: list[float] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The server stands still for 0.3 s after the first request.
        ends.append(ends[0] if ends else time.monotonic() + 0.3)
        await asyncio.sleep(max(0.0, ends[0] - time.monotonic()))
        writer.write(OK)

    result = asyncio.run(load(answer, rate=100, seconds=0.2))
    assert result.percentile(0.5) > 0.1
