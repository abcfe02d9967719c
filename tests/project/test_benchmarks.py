"""The benchmarks: their options, their tables in the docs, and the load generator."""

import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
import uvloop

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
GRPC = runpy.run_path(str(BENCHMARKS / "grpc_loop.py"))
POISSON = runpy.run_path(str(BENCHMARKS / "open_loop.py"))
TABLES = runpy.run_path(str(BENCHMARKS / "peer_tables.py"))
Row, tables = TABLES["Row"], TABLES["tables"]


def bench(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("script", ["bench_runtime.py", "bench_peers.py", "bench_start.py"])
def test_help_shows_the_options(script: str) -> None:
    assert "--rounds" in bench(script, "--help")


def test_tables_in_the_docs_match_the_results() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    shown = re.findall(r"<!-- from benchmarks/(\S+) -->\n\n(.*?)\n\n<!-- end -->", page, re.DOTALL)
    assert shown
    for file, tables in shown:
        assert bench("bench_peers.py", "--from", file).rstrip("\n") == tables


def test_the_chart_in_the_docs_matches_the_results(tmp_path: Path) -> None:
    docs = ROOT / "docs"
    first = re.search(r"<!-- from benchmarks/(\S+) -->", (docs / "benchmarks.md").read_text())
    assert first
    bench("bench_peers.py", "--from", first[1], "--chart", str(tmp_path / "chart.svg"))
    assert (tmp_path / "chart.svg").read_text() == (docs / "benchmarks.svg").read_text()


def test_a_sample_of_a_profile_counts_for_its_innermost_component(tmp_path: Path) -> None:
    loop = "run (asyncio/runners.py:190);Reconciler.reconcile (cortex_operator/reconcile.py:130)"
    lines = [f"{loop};digest (cortex_operator/render/names.py:58);dumps (json/__init__.py:1) 6", f"{loop} 3"]
    (tmp_path / "profile.txt").write_text("\n".join([*lines, "run (unknown.py:1) 1", ""]))
    expected = ["| JSON | 60% |", "| reconcile, queue | 30% |", "| other | 10% |"]
    assert bench("cpu_shares.py", str(tmp_path / "profile.txt")).splitlines() == expected


def test_versions_of_peers_are_pinned() -> None:
    files = sorted((BENCHMARKS / "peers").glob("*.txt"))
    assert files
    for file in files:
        pins = file.read_text().splitlines()
        assert [pin for pin in pins if re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+]+", pin)] == pins
        assert any(pin.startswith(f"{file.stem}==") for pin in pins)


def test_ratios_compare_neighboring_slices() -> None:
    rates = {("cortex", 1): 100, ("peer", 1): 10, ("cortex", 2): 30, ("peer", 2): 6, ("cortex", 3): 90}
    rows = [
        Row("trivial", "peer", name, number, "requests_per_second", str(rate))
        for (name, number), rate in rates.items()
    ]
    assert "| peer | 8 | 7.50 (5.00 to 10.00) | - | - |" in tables(rows)


def test_a_goal_is_missed_if_the_spread_of_the_rounds_does_not_reach_it() -> None:
    run = runpy.run_path(str(BENCHMARKS / "bench_runtime.py"))
    server = run["Contestant"]
    work = run["Work"]("work", "", (server("cortex"), server("near"), server("far")), goals=(2.0, 2.0))
    rates = {"cortex": [18.0, 17.0, 22.0], "near": [10.0, 10.0, 10.0], "far": [10.0, 10.0, 20.0]}
    near, far = run["ratios"](work, rates)
    assert (near.median, near.spread, near.is_missed) == (1.8, pytest.approx(0.25), False)
    assert (far.median, far.spread, far.is_missed) == (1.7, pytest.approx(0.35), False)
    rates["far"] = [12.0, 12.0, 15.0]
    assert [ratio.is_missed for ratio in run["ratios"](work, rates)] == [False, True]


def test_workloads_with_goals_have_a_column_for_them() -> None:
    rows = [Row("v2-grpc", "kserve", name, 1, "requests_per_second", "10") for name in ("cortex", "kserve")]
    assert "| kserve | 10 | 1.00 (1.00 to 1.00) | - | - | 3 |" in tables(rows)


def test_failed_peers_are_listed_with_the_error() -> None:
    text = tables([Row("", "peer", "peer", 0, "failed", "installation failed: no disk")])
    assert "- peer: installation failed: no disk" in text


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.close_connection = self.path == "/once"
        self.send_response(200 if self.path in ("/", "/once") else 500)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # The load generator opens all connections at the same time.
    daemon_threads = True

    def handle_error(self, *_: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    server = Server(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def request(path: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}".encode()


def test_open_loop_load_waits_for_all_responses(port: int) -> None:
    due = POISSON["arrivals"](200, 0.2, 1)
    assert due == POISSON["arrivals"](200, 0.2, 1) != POISSON["arrivals"](200, 0.2, 2)
    measured = POISSON["load"](port, request("/"), due)
    assert len(measured.took) == len(due) > 0
    assert min(measured.took) > 0
    assert measured.reconnects == 0


def test_open_loop_load_reconnects_if_the_server_closes_connections(port: int) -> None:
    measured = POISSON["load"](port, request("/once"), [number / 1000 for number in range(100)])
    assert len(measured.took) == 100
    assert measured.reconnects >= 36  # Of 100 requests, the 64 open connections carry one each.


def test_open_loop_load_fails_on_an_error_response(port: int) -> None:
    with pytest.raises(RuntimeError, match=r"not 200: HTTP/1\.1 500"):
        POISSON["load"](port, request("/other"), [0.0])


@pytest.mark.parametrize(
    ("received", "is_complete"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
    ],
)
def test_complete_detects_the_end_of_a_response(received: bytes, is_complete: bool) -> None:
    assert POISSON["complete"](received) is is_complete


@pytest.fixture(scope="module")
def grpc_port() -> Iterator[int]:
    """The port of a server that returns messages, and fails a call of /echo/Fail."""

    class Echo(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def fail(message: bytes, context: grpc.ServicerContext) -> bytes:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wrong")

            return grpc.unary_unary_rpc_method_handler(
                fail if details.method == "/echo/Fail" else lambda message, context: message
            )

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.mark.parametrize("size", [1, 20_000, 3_000_000])
def test_grpc_load_sends_messages_of_every_size(grpc_port: int, size: int) -> None:
    assert uvloop.run(GRPC["load"](grpc_port, "/echo/Echo", 3, 0.5, b"x" * size)) > 0


def test_grpc_load_fails_on_a_call_that_fails(grpc_port: int) -> None:
    with pytest.raises(RuntimeError, match="a response has 0 bytes instead of a message"):
        uvloop.run(GRPC["load"](grpc_port, "/echo/Fail", 1, 0.3, b"x"))
