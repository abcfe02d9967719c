"""The logs of an API: what was not read because a connection failed is read by the next one."""

from typing import Any

import pytest

from cortex_cli.connection import ClusterError
from cortex_cli.ui import log_book
from cortex_cli.ui.log_book import LogBooks

from .test_overview import eventually

KEY = ("RealtimeAPI", "shop", "iris")


class Stream(list[bytes]):
    def close(self) -> None:
        pass


class Cluster:
    """answers: what each request for a log returns or raises. tails: the number of lines that each asked for."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.tails: list[str] = []

    def open_stream(self, path: str, query: dict[str, str]) -> Stream:
        self.tails.append(query["tailLines"])
        answer = self.answers.pop(0) if self.answers else Stream()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Store:
    def pods(self, key: object) -> list[dict[str, Any]]:
        status = {"name": "api", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        return [
            {
                "metadata": {"name": "iris-1", "namespace": "shop", "uid": "1"},
                "spec": {"containers": [{"name": "api"}]},
                "status": {"containerStatuses": [status]},
            }
        ]


@pytest.mark.parametrize(
    ("first", "tails"),
    [(ClusterError("no route to the pod"), ["500", "500"]), (Stream([b"first\n"]), ["500", "0"])],
    ids=["refused", "broken"],
)
def test_a_log_is_read_from_its_start_until_it_was_read_once(monkeypatch, first, tails):
    monkeypatch.setattr(log_book, "_PAUSE", 0.01)
    cluster = Cluster(first, Stream([b"second\n"]))
    books = LogBooks(cluster, Store(), lambda: None)  # type: ignore[arg-type]
    try:
        assert eventually(lambda: "second" in [line.message for line in books.lines(KEY)[0]])
    finally:
        books.close()
    assert cluster.tails[:2] == tails
