"""Charts from a Prometheus server."""

import http.server
import json
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs

import promql_parser
import pytest

from cortex_cli.connection import ClusterError
from cortex_cli.ui.api_charts import Period
from cortex_cli.ui.prometheus import Prometheus

KEY = ("RealtimeAPI", "shop", "iris")
PERIOD = Period(1_000_000.0, 1_000_000.0 + 7 * 86400)


class Server(http.server.ThreadingHTTPServer):
    """Answers each query whose expression contains a key of `answers` with its series."""

    answers: dict[str, list[dict]]
    queries: list[dict[str, str]]
    raw: bytes | None = None


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        query = {name: values[0] for name, values in form.items()}
        self.server.queries.append(query)
        found = next((series for key, series in self.server.answers.items() if key in query["query"]), [])
        body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": found}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body if self.server.raw is None else self.server.raw)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        found.answers, found.queries = {}, []
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def prometheus(server: Server) -> Prometheus:
    return Prometheus(f"http://127.0.0.1:{server.server_port}/")


def series(values: list, **labels: str) -> dict:
    return {"metric": labels, "values": values}


@pytest.mark.parametrize("kind", ["RealtimeAPI", "AsyncAPI"])
def test_every_query_is_valid_and_selects_the_api(server, prometheus, kind):
    charts = prometheus.charts((kind, "shop", "iris"), PERIOD)
    assert [chart.has_data for chart in charts] == [False] * 4
    assert len(server.queries) == (6 if kind == "AsyncAPI" else 7)
    for query in server.queries:
        promql_parser.parse(query["query"])
        assert f'namespace="shop", api="iris", kind="{kind}", component!="candidate"' in query["query"]
        assert float(query["end"]) % 15 == 0
        assert 0 <= PERIOD.end - float(query["end"]) < 15
        assert (float(query["end"]) - float(query["start"])) / float(query["step"]) <= 152


def test_requests_are_summed_by_status_class(server, prometheus):
    server.answers["cortex_requests_total"] = [
        series([[1_000_000, "1.5"], [1_004_032, "2"]], status="200"),
        series([[1_000_000, "0.5"]], status="204"),
        series([[1_004_032, "0.25"]], status="503"),
    ]
    requests = prometheus.charts(KEY, PERIOD)[0]
    assert [(each.name, list(each.values)) for each in requests.series] == [
        ("2XX", [(1_000_000, 2.0), (1_004_032, 2.0)]),
        ("5XX", [(1_004_032, 0.25)]),
    ]


def test_missing_steps_and_nan_are_gaps(server, prometheus):
    step = 7 * 86400 / 150
    start = 1_000_000
    server.answers["histogram_quantile(0.5"] = [
        series(
            [[start, "0.01"], [start + step, "NaN"], [start + 2 * step, "0.02"], [start + 9 * step, "0.03"]]
        )
    ]
    latency = prometheus.charts(KEY, PERIOD)[1]
    assert [value for _, value in latency.series[0].values] == [0.01, None, 0.02, None, 0.03]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"status": "error", "error": "query timed out"}', "Prometheus: query timed out"),
        (b"<html>", "is not a Prometheus server: status 200"),
    ],
)
def test_errors_are_explained(server, prometheus, raw, message):
    server.raw = raw
    with pytest.raises(ClusterError, match=message):
        prometheus.charts(KEY, PERIOD)


def test_an_unreachable_server_is_explained():
    with pytest.raises(ClusterError, match=r"Prometheus at .* does not respond"):
        Prometheus("http://127.0.0.1:1").charts(KEY, PERIOD)
