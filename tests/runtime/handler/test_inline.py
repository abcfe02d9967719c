"""A fast method is answered by the protocol itself, with correct responses to everything that HTTP/1.1 allows."""

import gzip
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ..conftest import INLINE, Replica

SOURCE = (
    INLINE
    + """
from starlette.responses import JSONResponse
from cortex_runtime.errors import UserError
from cortex_runtime.handler.inline_policy import InlinePolicy

# However long a call takes on a busy machine, it counts as quick.
InlinePolicy.QUICK = InlinePolicy.SLOW = InlinePolicy.SLOW_AVERAGE = float("inf")
after = []

class Handler:
    def handle_post(self, payload, query_params, headers):
        is_inline = inline()
        case = payload if isinstance(payload, str) else payload.get("case")
        if case == "user error":
            raise UserError("so not", 422)
        if case == "error":
            raise RuntimeError("secret")
        if case == "exit":
            raise SystemExit(3)
        if case == "response":
            return JSONResponse({"inline": is_inline}, status_code=201, headers={"x-own": "yes"})
        if case == "stream":
            return (part for part in ("a", "b"))
        if case == "callback":
            return {"inline": is_inline}, lambda: after.append(1)
        if case == "unserialisable":
            return {"inline": object()}
        return {
            "inline": is_inline, "case": case, "v": query_params.get("v"), "own": headers.get("X-Own"), "after": len(after),
        }
"""
)


@pytest.fixture(scope="module")
def served(serve_for_module: Callable[..., Replica]) -> Replica:
    replica = serve_for_module(SOURCE)
    with httpx.Client() as client:
        replica.until(lambda: client.post(replica.url, json={}).json()["inline"])
    return replica


@pytest.fixture(scope="module", params=["alone", "beside another connection"])
def replica(served: Replica, request: pytest.FixtureRequest) -> Iterator[Replica]:
    """The requests of several connections are answered together, those of a single one at once."""
    if request.param == "alone":
        yield served
        return
    with socket.create_connection(("127.0.0.1", served.port), timeout=60):
        yield served


def test_many_clients_get_their_own_answers(replica: Replica) -> None:
    def answers(client: int) -> list[str]:
        names = [f"{client}-{number}" for number in range(100)]
        with httpx.Client() as connection:
            return [
                name
                for name in names
                if connection.post(replica.url, json={"case": name}).json()["case"] != name
            ]

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(answers, range(16))) == [[]] * 16


def request(case: str, *headers: str, version: str = "1.1", target: str = "/") -> bytes:
    body = json.dumps({"case": case}).encode()
    head = [
        f"POST {target} HTTP/{version}",
        "host: x",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*head, *headers, "", ""]).encode() + body


def talk(replica: Replica, *parts: bytes, answers: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
    """Send each part separately, and read as many `answers`: status, headers, body."""
    got = []
    with socket.create_connection(("127.0.0.1", replica.port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def send() -> None:
            # Each part is sent after the previous one has been read.
            for part in parts:
                connection.sendall(part)
                threading.Event().wait(0.02 if len(parts) > 1 else 0)

        sender = threading.Thread(target=send)
        sender.start()
        with connection.makefile("rb") as stream:
            for _ in range(answers):
                status = int(stream.readline().split()[1])
                headers = {}
                while line := stream.readline().strip():
                    name, value = line.decode().split(": ", 1)
                    headers[name.lower()] = value
                got.append((status, headers, stream.read(int(headers["content-length"]))))
        sender.join()
    return got


def test_a_quick_method_answers_inline(replica: Replica) -> None:
    answer = httpx.post(
        f"{replica.url}/?v=7&v=8", json={"case": "x"}, headers={"X-Own": "mine", "X-Request-Id": "abc"}
    )
    assert answer.status_code == 200
    assert answer.json() | {"after": 0} == {
        "inline": True,
        "case": "x",
        "v": "8",
        "own": "mine",
        "after": 0,
    }
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "abc"
    assert re.match(r"\w{3}, \d\d \w{3} \d{4} ", answer.headers["date"])


def test_requests_in_one_piece_are_answered_in_order(replica: Replica) -> None:
    names = [str(number) for number in range(50)]
    answers = talk(replica, b"".join(request(name) for name in names), answers=50)
    assert [json.loads(body)["case"] for _, _, body in answers] == names


def test_inline_and_other_requests_in_one_piece_keep_their_order(replica: Replica) -> None:
    cases = ["a", "response", "b", "user error", "c", "error", "d"]
    answers = talk(replica, b"".join(request(case) for case in cases), answers=len(cases))
    assert [status for status, _, _ in answers] == [200, 201, 200, 422, 200, 500, 200]
    assert [json.loads(answers[i][2])["case"] for i in (0, 2, 4, 6)] == ["a", "b", "c", "d"]


def test_a_request_in_many_pieces(replica: Replica) -> None:
    whole = request("pieces")
    pieces = [whole[start : start + 25] for start in range(0, len(whole), 25)]
    ((status, _, body),) = talk(replica, *pieces)
    assert (status, json.loads(body)["case"]) == (200, "pieces")


@pytest.mark.parametrize("parts", [(request("x", "connection: close"),), (request("x", version="1.0"),)])
def test_the_connection_is_closed_when_the_client_wants_it(replica: Replica, parts: tuple[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", replica.port), timeout=60) as connection:
        connection.sendall(parts[0])
        with connection.makefile("rb") as stream:
            answer = stream.read()  # Ends when the server closes the connection.
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


def test_expect_continue(replica: Replica) -> None:
    whole = request("x", "expect: 100-continue")
    head, body = whole.split(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", replica.port), timeout=60) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("case", "status"),
    [("user error", 422), ("error", 500), ("exit", 500), ("unserialisable", 500), ("response", 201)],
)
def test_results_that_are_not_plain(replica: Replica, case: str, status: int) -> None:
    answer = replica.post({"case": case}, headers={"x-request-id": f"id-{status}"})
    assert answer.status_code == status
    assert answer.headers["x-request-id"] == f"id-{status}"
    if status == 500:
        assert answer.json() == {"error": "internal server error", "requestId": "id-500"}
    if status == 201:
        assert (answer.json(), answer.headers["x-own"]) == ({"inline": True}, "yes")


def test_a_stream_and_a_callback(replica: Replica) -> None:
    assert replica.post({"case": "stream"}).text == "ab"
    before = replica.post({}).json()["after"]
    assert replica.post({"case": "callback"}).json().keys() == {"inline"}
    replica.until(lambda: replica.post({}).json()["after"] == before + 1)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {"content-type": "application/json"}, 400),
        (b"plain", {"content-type": "text/plain"}, 200),
        (
            gzip.compress(b'{"case": "gz"}', mtime=0),
            {"content-type": "application/json", "content-encoding": "gzip"},
            200,
        ),
        (b'{"case": "\xff"}', {"content-type": "application/json"}, 400),
        (b'{"case": "u"}', {"content-type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_bodies(replica: Replica, content: bytes, headers: dict[str, str], status: int) -> None:
    answer = httpx.post(replica.url, content=content, headers=headers)
    assert answer.status_code == status, answer.text


def test_each_request_is_counted_once(replica: Replica) -> None:
    def counts() -> dict[int, float]:
        return {
            s: replica.metric(f'cortex_requests_total{{method="POST",status="{s}"}}')
            for s in (200, 201, 422, 500)
        }

    def finished() -> dict[int, float]:
        """Return the counts once all requests are counted, each a moment after its response is sent."""
        replica.until(lambda: replica.metric("cortex_requests_in_flight") == 0)
        return counts()

    before = finished()
    for case in ("x", "response", "user error", "error", "x", "stream"):
        replica.post({"case": case})
    after = finished()
    assert {status: after[status] - before[status] for status in after} == {200: 3, 201: 1, 422: 1, 500: 1}


def test_a_drain_closes_connections_in_order(serve: Callable[..., Replica]) -> None:
    replica = serve(SOURCE, "--drain-delay", "30")
    with httpx.Client() as client:
        replica.until(lambda: client.post(replica.url, json={}).json()["inline"])
        replica.process.terminate()
        replica.until(lambda: client.post(replica.url, json={}).headers.get("connection") == "close")
        assert client.post(replica.url, json={}).status_code == 200
