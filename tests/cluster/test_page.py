"""The page of `cortex ui` with the states of candidates as the operator and real replicas report them."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cortex_cli.connection import Cluster
from cortex_cli.ui import server

from .conftest import Kubectl, eventually
from .load import Load
from .test_candidates import release, wait_phase

RULES = {"rollback": {"minRequests": 100}}


@pytest.fixture
def page(kubeconfig: Path, kubectl: Kubectl) -> Iterator[httpx.Client]:
    """A client of the page of the namespace of the test."""
    serving = server.prepare(
        lambda: Cluster.open(str(kubeconfig), None, kubectl.namespace), kubectl.namespace, 0
    )
    thread = serving.start()
    with httpx.Client(base_url=serving.url.split("/?")[0], trust_env=False, timeout=30) as client:
        client.get(serving.url)
        yield client
    serving.stop()
    thread.join(30)
    assert not thread.is_alive()


def words(page: httpx.Client, path: str) -> str:
    """Return the text of a page; "" while it does not exist."""
    answer = page.get(path)
    text = html.unescape(re.sub(r"<[^>]+>", " ", answer.text))
    return " ".join(text.split()) if answer.status_code == 200 else ""


def wait_words(page: httpx.Client, path: str, *patterns: str) -> str:
    found: str = eventually(
        lambda: words(page, path), lambda text: all(re.search(each, text) for each in patterns)
    )
    return found


def test_a_candidate_from_its_start_to_its_rollback(kubectl: Kubectl, page: httpx.Client) -> None:
    api = f"/realtimeapi/{kubectl.namespace}/echo"
    kubectl.apply(release(None))
    kubectl.wait_reason("echo", "Ready")
    assert words(page, f"{api}/compare") == ""
    with Load(f"{kubectl.address('echo')}/", clients=2):
        waits = {"config": {"version": 2, "waits": True}}
        kubectl.apply(release({"weight": 50, "mirror": 40, "handler": waits, **RULES}))
        wait_words(page, f"{api}/compare", "Starting", "no request yet. Once it serves: 50% of the requests")
        kubectl.apply(release({"weight": 50, "mirror": 40, **RULES}))
        wait_phase(kubectl, "Serving")
        found = wait_words(
            page,
            f"{api}/compare",
            "Answers 50% of the requests; receives a copy of 40% of the others",
            r"p95 latency [\d.]+ ms [\d.]+ ms to the first byte",
            r"Requests [\d,]{2,} sent",
            r"Errors [\d.]+% share",
            "Disagreement 100% share",
            "/version 1 → 2",
        )
        assert "Replicas 1 / 1 1 / 1 ready / desired" in found
        wait_words(page, "/", r"Ready 1/1 .* Serving 50% \d+[sm]")

        broken = {"config": {"version": 2, "fail": True}}
        kubectl.apply(release({"weight": 50, "handler": broken, **RULES}))
        wait_phase(kubectl, "RolledBack")
        found = wait_words(
            page,
            f"{api}/compare",
            "Rolled back: Error rate for",
            "Receives no request: the stable version answers all of them",
            "What to do: cortex logs echo shows the log",
        )
        assert "rollback.errorRate is 5%" in found
        assert "`" not in found
        wait_words(
            page, api, r"echo Ready .* The candidate was rolled back: Error rate\. Why, and what to do"
        )
        wait_words(page, "/", r"Ready 1/1 .* Rolled back \d+[sm]")

        origin = {"origin": str(page.base_url).rstrip("/")}
        assert "cortex retry echo" in words(page, f"{api}/do/retry")
        assert page.post(f"{api}/do/retry", headers=origin).status_code == 303
        wait_phase(kubectl, "Serving")
    kubectl.apply(
        release({"weight": 100, "handler": {"source": {"files": {"handler.py": "import no_such"}}}})
    )
    found = wait_words(page, f"{api}/compare", "Failed: Handler import error", "no_such", "What to do: ")
    assert "Receives no request" in found
    assert "Retry candidate" in found
