"""GET /openapi.json of a RealtimeAPI: from type hints, docstrings, examples and the signatures of models."""

import pytest
from openapi_spec_validator import validate

from ..conftest import PLAIN, Replica
from ..onnx_models import write_model

HANDLER = '''
"""Species of flowers.

A nearest neighbor decides.
"""
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NotRequired, TypedDict

import msgspec
import numpy as np
from pydantic import BaseModel, Field
from starlette.datastructures import FormData
from starlette.responses import Response

from cortex_runtime import UserError, route


class Flower(BaseModel):
    """Measurements in centimeters."""

    length: float = Field(gt=0, description="Length of a petal")
    width: float = Field(0.2, alias="petalWidth")


@dataclass
class Prediction:
    species: str
    score: float


class Aliased(BaseModel):
    value: Decimal = Field(Decimal(1), alias="theValue")


class Text(TypedDict):
    text: str
    language: NotRequired[str]


class Point(msgspec.Struct):
    x: float
    y: float = 0.0


class Error(BaseModel):
    own: int


class Handler:
    def handle_post(self, payload: Flower) -> Prediction:
        """Return the species of a flower.

        The nearest flower decides.

        Examples:
            setosa: {"length": 1.4} -> {"species": "setosa", "score": 1}
            {"length": 5.1}
        """
        return Prediction("setosa", 1.0)

    def handle_put(self, payload):
        return payload

    @route("/texts/{number:int}/{name}", method="GET")
    def text(self, number, name, query_params) -> str:
        return name * number

    @route("/points", method="PUT")
    @route("/points")
    async def points(self, payload: list[Point]) -> np.ndarray:
        return np.array([[point.x, point.y] for point in payload])

    @route("/words")
    def words(self, payload: Text) -> Iterator[Prediction]:
        for word in payload["text"].split():
            yield Prediction(word, float("nan"))

    @route("/bytes")
    def bytes(self, payload: bytes) -> tuple[bytes | Response, Callable[[], None]]:
        return payload, print

    @route("/form")
    def form(self, payload: FormData) -> Aliased:
        return Aliased(theValue="1.50")

    @route("/errors")
    def errors(self, payload: "Unknown") -> Error:
        return Error(own=1)

    @route("/live", method="WEBSOCKET")
    async def live(self, websocket):
        """Send each text in upper case."""
        await websocket.accept()

    @route("/app", method="MOUNT")
    def app(self):
        return Response("mounted")
'''


@pytest.fixture(scope="module")
def replica(serve_for_module) -> Replica:
    return serve_for_module(HANDLER)


@pytest.fixture(scope="module")
def document(replica):
    return read(replica)


def read(replica):
    answer = PLAIN.get(f"{replica.url}/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    validate(found)
    return found


def resolved(document, schema):
    """Return a schema with all references replaced."""
    if isinstance(schema, list):
        return [resolved(document, each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return resolved(document, found)
    return {key: resolved(document, value) for key, value in schema.items()}


def body(document, path, verb="post", kind="application/json"):
    content = document["paths"][path][verb]["requestBody"]["content"]
    return resolved(document, content[kind]["schema"])


def result(document, path, verb="post"):
    return resolved(document, document["paths"][path][verb]["responses"]["200"]["content"])


def test_the_title_is_the_name_and_the_text_that_of_the_module(document):
    assert document["openapi"] == "3.1.0"
    info = document["info"]
    assert (info["title"], info["summary"]) == ("tested", "Species of flowers")
    assert info["description"] == "A nearest neighbor decides."


def test_urls_are_relative_to_the_document_so_that_a_prefix_is_kept(document):
    assert document["servers"] == [{"url": "."}]


def test_an_operation_has_summary_description_and_examples_of_the_docstring(document):
    operation = document["paths"]["/"]["post"]
    assert operation["operationId"] == "handle_post"
    assert operation["summary"] == "Return the species of a flower"
    assert operation["description"] == "The nearest flower decides."
    request = operation["requestBody"]["content"]["application/json"]["examples"]
    assert request == {"setosa": {"value": {"length": 1.4}}, "example-2": {"value": {"length": 5.1}}}
    response = operation["responses"]["200"]["content"]["application/json"]["examples"]
    assert response == {"setosa": {"value": {"species": "setosa", "score": 1}}}


def test_payloads_have_the_schemas_of_their_types(document):
    flower = body(document, "/")
    assert flower["description"] == "Measurements in centimeters."
    assert flower["properties"]["length"]["exclusiveMinimum"] == 0
    assert flower["properties"]["length"]["description"] == "Length of a petal"
    assert flower["required"] == ["length"]
    assert "petalWidth" in flower["properties"]
    assert body(document, "/words")["required"] == ["text"]
    points = body(document, "/points")
    assert points["items"]["properties"]["x"] == {"type": "number"}
    assert body(document, "/points", "put") == points
    assert body(document, "/form", kind="multipart/form-data") == {"type": "object"}
    assert list(document["paths"]["/bytes"]["post"]["requestBody"]["content"]) == ["application/octet-stream"]


def test_a_payload_without_a_usable_hint_may_be_anything(document):
    for path, verb in (("/", "put"), ("/errors", "post")):
        content = document["paths"][path][verb]["requestBody"]["content"]
        assert content["application/json"] == {"schema": {}}
        assert {"text/plain", "application/octet-stream"} < content.keys()


def test_results_have_the_media_types_and_schemas_of_their_types(document):
    assert result(document, "/")["application/json"]["schema"]["required"] == ["species", "score"]
    assert list(result(document, "/texts/{number}/{name}", "get")) == ["text/plain"]
    assert result(document, "/points")["application/json"]["schema"] == {"type": "array", "items": {}}
    assert set(result(document, "/bytes")) == {"application/octet-stream", "*/*"}
    # As JSON is written: the digits of a Decimal, and fields without their aliases.
    assert result(document, "/form")["application/json"]["schema"]["properties"]["value"]["type"] == "number"
    assert result(document, "/", "put") == {"*/*": {"schema": {}}}


def test_a_stream_is_lines_or_events_of_its_items(document):
    found = result(document, "/words")
    assert set(found) == {"application/x-ndjson", "text/event-stream"}
    item = found["text/event-stream"]["schema"]["contentSchema"]
    assert item["properties"]["score"]["type"] == ["number", "null"]


def test_path_parameters_have_their_types_and_query_parameters_are_free(document):
    number, name, query = document["paths"]["/texts/{number}/{name}"]["get"]["parameters"]
    assert (number["name"], number["in"], number["schema"]) == (
        "number",
        "path",
        {"type": "integer", "minimum": 0},
    )
    assert name["schema"] == {"type": "string", "minLength": 1}
    assert (query["in"], query["schema"]["additionalProperties"]) == ("query", {"type": "string"})


def test_operations_have_unique_ids(document):
    names = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(names) == len(set(names))


def test_a_type_of_the_handler_does_not_replace_the_errors_of_the_runtime(document):
    assert list(result(document, "/errors")["application/json"]["schema"]["properties"]) == ["own"]
    bad = resolved(document, document["paths"]["/"]["post"]["responses"]["400"])
    assert set(bad["content"]["application/json"]["schema"]["properties"]) == {"error", "fields", "requestId"}


def test_websockets_and_mounted_applications_are_listed(document):
    assert document["x-cortex-websockets"] == [{"path": "/live", "summary": "Send each text in upper case"}]
    assert document["x-cortex-mounts"] == [{"path": "/app"}]
    assert "/app" not in document["paths"]


def test_the_version_changes_only_with_the_content(replica, document, serve_for_module):
    assert read(replica)["info"]["version"] == document["info"]["version"]
    other = serve_for_module(HANDLER.replace("gt=0", "gt=1"))
    assert read(other)["info"]["version"] != document["info"]["version"]


def test_sample_json_is_the_example_of_the_first_method(serve_for_module, tmp_path):
    (tmp_path / "sample.json").write_text('{"text": "hello"}')
    source = "class Handler:\n    def handle_post(self, payload):\n        return payload\n"
    found = read(serve_for_module(source, project=tmp_path))
    content = found["paths"]["/"]["post"]["requestBody"]["content"]
    assert content == {
        "application/json": {"schema": {}, "examples": {"sample": {"value": {"text": "hello"}}}}
    }


BATCHED = """
from pydantic import BaseModel

class Item(BaseModel):
    size: int

class Handler:
    def handle_post(self, payload: list[Item]) -> list[int]:
        return [each.size for each in payload]
"""


def test_with_batching_a_request_is_one_item_of_the_list(serve_for_module):
    batching = {"maxBatchSize": 4, "batchInterval": "1ms"}
    found = read(serve_for_module(BATCHED, serverSideBatching=batching))
    assert body(found, "/")["required"] == ["size"]
    assert result(found, "/")["application/json"]["schema"] == {"type": "integer"}


def test_a_model_without_code_is_described_by_its_signature(serve_for_module, tmp_path):
    write_model(tmp_path / "model.onnx", 2)
    replica = serve_for_module(None, project=tmp_path, type="onnx", path=None, models={"path": "model.onnx"})
    found = read(replica)
    operation = found["paths"]["/"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    example = content["examples"]["generated"]["value"]
    assert PLAIN.post(replica.url, json=example).status_code == 200
    infer = found["paths"]["/v2/models/tested/infer"]["post"]["requestBody"]["content"]["application/json"]
    request = infer["examples"]["generated"]["value"]
    assert PLAIN.post(f"{replica.url}/v2/models/tested/infer", json=request).status_code == 200
    names = found["paths"]["/v2/models/{name}"]["get"]["parameters"][0]["schema"]["enum"]
    assert names == ["tested"]


INFER = """
class Handler:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1]}]

    def handle_infer(self, inputs, parameters):
        return {"y": inputs["x"].sum(axis=1)}
"""


def test_the_declared_tensors_of_handle_infer_are_described(serve_for_module):
    replica = serve_for_module(INFER)
    found = read(replica)
    assert "/" not in found["paths"]
    assert [each["name"] for each in found["tags"]] == ["Open Inference Protocol", "Runtime"]
    operation = found["paths"]["/v2/models/tested/infer"]["post"]
    tensor = body(found, "/v2/models/tested/infer")["properties"]["inputs"]["items"]
    assert tensor["properties"]["datatype"] == {"const": "FP32"}
    request = operation["requestBody"]["content"]["application/json"]["examples"]["generated"]["value"]
    assert PLAIN.post(f"{replica.url}/v2/models/tested/infer", json=request).json()["outputs"]


def test_docs_false_turns_document_and_page_off(serve_for_module):
    replica = serve_for_module(INFER, docs=False)
    for path in ("/openapi.json", "/docs", "/docs/page.js"):
        assert PLAIN.get(replica.url + path).status_code == 404
    assert PLAIN.get(replica.url, headers={"accept": "text/html"}).status_code == 404


def test_only_a_browser_at_a_root_without_get_is_sent_to_the_page(replica, serve_for_module):
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    answer = PLAIN.get(replica.url, headers=browser)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert PLAIN.get(replica.url).status_code == 405
    own = serve_for_module("class Handler:\n    def handle_get(self):\n        return {'own': 1}\n")
    assert PLAIN.get(own.url, headers=browser).json() == {"own": 1}


def test_api_keys_protect_the_document_and_not_the_page(serve_for_module, tmp_path, monkeypatch):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "one").write_text("secret")
    monkeypatch.setenv("CORTEX_API_KEYS", str(tmp_path / "keys"))
    source = "class Handler:\n    def handle_get(self):\n        return 1\n"
    replica = serve_for_module(source, apiKeys={"secret": {"name": "keys"}})
    assert PLAIN.get(f"{replica.url}/openapi.json").status_code == 401
    key = {"authorization": "Bearer secret"}
    found = PLAIN.get(f"{replica.url}/openapi.json", headers=key).json()
    validate(found)
    assert found["security"] == [{"bearer": []}, {"header": []}]
    assert "401" in found["paths"]["/"]["get"]["responses"]
    assert PLAIN.get(f"{replica.url}/docs").status_code == 200
    # GET / is a method of the handler: that a browser asks does not open it.
    assert PLAIN.get(replica.url, headers={"accept": "text/html"}).status_code == 401
    assert PLAIN.get(f"{replica.url}/docs/../info").status_code == 401


def test_nothing_is_imported_before_the_first_request(serve_for_module):
    source = """
import sys

class Handler:
    def handle_get(self):
        return sorted(name for name in sys.modules if name.startswith(("cortex_runtime.openapi", "pydantic")))
"""
    replica = serve_for_module(source)
    assert PLAIN.get(replica.url).json() == []
    read(replica)
    assert "cortex_runtime.openapi.realtime" in PLAIN.get(replica.url).json()
