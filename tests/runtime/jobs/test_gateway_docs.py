"""The gateway serves an OpenAPI document and its page."""

from collections.abc import Callable

import httpx
import pytest
from openapi_spec_validator import validate

from tests.runtime.jobs.conftest import Api
from tests.runtime.openapi.conformance import conform
from tests.runtime.queues.servers import until

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


TYPED = '''
"""Counts letters."""
from dataclasses import dataclass
from typing import TypedDict

import msgspec
from pydantic import BaseModel, Field

class Text(BaseModel):
    text: str = Field(min_length=1)
    upper: bool = False

class Count(TypedDict):
    letters: int

class Handler:
    def handle_async(self, payload: Text) -> Count:
        """Count the letters of a text.

        Examples:
            short: {"text": "abc"} -> {"letters": 3}
        """
        return {"letters": len(payload.text)}
'''


def described(api: Api, part: str) -> dict:
    """Return the document once it contains a text."""
    found: list[dict] = []

    def contains() -> bool:
        answer = httpx.get(f"{api.url}/openapi.json")
        found.append(answer.json())
        return part in answer.text

    until(contains, what=part)
    validate(found[-1])
    return found[-1]


def test_a_worker_describes_its_handler_to_the_gateway(api: Callable[..., Api]) -> None:
    made = api(TYPED)
    made.gateway()
    before = httpx.get(f"{made.url}/openapi.json").json()
    assert before["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]["schema"] == {}
    worker = made.consumer()
    found = described(made, "Count the letters")
    assert found["info"]["summary"] == "Counts letters"
    assert found["info"]["version"] != before["info"]["version"]
    content = found["paths"]["/"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json"}
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/Text"}
    assert content["application/json"]["examples"] == {"short": {"value": {"text": "abc"}}}
    assert found["components"]["schemas"]["Text"]["required"] == ["text"]
    job = found["paths"]["/{id}"]["get"]["responses"]["200"]["content"]["application/json"]
    assert job["schema"]["properties"]["result"]["$ref"] == "#/components/schemas/Count"
    assert job["examples"]["short"]["value"]["result"] == {"letters": 3}
    # Scaled to zero, and another gateway.
    assert worker.stop() == 0
    made.programs[0].stop()
    made.gateway()
    assert described(made, "Count the letters") == found


def test_responses_are_as_the_typed_document_describes_them(shared: Callable[..., Api]) -> None:
    made = shared(TYPED)
    made.gateway()
    made.consumer()
    described(made, "Count the letters")
    conform(made.url)


UNTYPED = """
import sys

class Handler:
    def handle_async(self, payload):
        '''Return the modules.'''
        return [name for name in sys.modules if name in ("pydantic", "cortex_runtime.openapi.schemas")]
"""


def test_a_project_has_the_example_and_a_handler_without_hints_imports_no_pydantic(
    api: Callable[..., Api],
) -> None:
    made = api(UNTYPED)
    (made.folder / "project" / "sample.json").write_text('{"from": "the project"}')
    made.gateway()
    made.consumer()
    content = described(made, "Return the modules")["paths"]["/"]["post"]["requestBody"]["content"]
    assert content["application/json"]["examples"]["sample"]["value"] == {"from": "the project"}
    assert made.end(made.submit({}))["result"] == ["cortex_runtime.openapi.schemas"]


BROKEN = """
class Code:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        raise SystemError("not possible")

class Handler:
    def handle_async(self, payload: Code):
        return 1
"""


def test_a_type_that_cannot_be_described_stops_no_job(api: Callable[..., Api]) -> None:
    made = api(BROKEN)
    made.gateway()
    made.consumer()
    assert made.end(made.submit({}))["result"] == 1
    validate(httpx.get(f"{made.url}/openapi.json").json())
