"""The gateway serves an OpenAPI document and its page."""

from collections.abc import Callable

import httpx
import pytest
from openapi_spec_validator import validate

from tests.runtime.jobs.conftest import Api
from tests.runtime.openapi.conformance import conform

JOBS = "class Handler:\n    def handle_async(self, payload):\n        return payload\n"


@pytest.fixture(scope="module")
def url(shared: Callable[..., Api]) -> str:
    made = shared(JOBS)
    made.gateway()
    return made.url


def test_document_and_page_are_served(url: str) -> None:
    validate(httpx.get(f"{url}/openapi.json").json())
    for path in ("/docs", "/"):
        answer = httpx.get(url + path, headers={"accept": "text/html"})
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert httpx.get(url).status_code == 405
    assert httpx.get(f"{url}/docs/", follow_redirects=True).url.path == "/docs"
    assert httpx.get(f"{url}/docs/none.js").status_code == 404
    for path in ("/docs", "/openapi.json"):
        refused = httpx.post(url + path)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert refused.json()["error"] == f"POST is not allowed for {path}; use GET, HEAD"


def test_head_is_get_without_a_body(url: str) -> None:
    identity = httpx.post(url, json=[1]).json()["id"]
    for path in ("/docs", "/openapi.json", f"/{identity}"):
        expected, answer = httpx.get(url + path), httpx.head(url + path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == expected.headers["content-length"]


def test_responses_are_as_the_document_describes_them(url: str) -> None:
    conform(url)


def test_the_document_requires_an_api_key_and_the_page_does_not(
    api: Callable[..., Api], tmp_path, nats_server
) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "a").write_text("job-key\n")
    made = api(JOBS, apiKeys={"secret": {"name": "keys"}})
    made.gateway(CORTEX_API_KEYS=str(tmp_path / "keys"))
    assert httpx.get(f"{made.url}/openapi.json").status_code == 401
    assert httpx.get(f"{made.url}/openapi.json", headers={"x-api-key": "job-key"}).status_code == 200
    assert httpx.get(f"{made.url}/docs").status_code == 200


def test_docs_false_turns_both_off(api: Callable[..., Api]) -> None:
    made = api(JOBS, docs=False)
    made.gateway()
    for path in ("/openapi.json", "/docs"):
        assert httpx.get(made.url + path).status_code == 404
    assert httpx.get(made.url, headers={"accept": "text/html"}).status_code == 405
