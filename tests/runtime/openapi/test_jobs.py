"""GET /openapi.json of an AsyncAPI: how jobs are submitted, read and canceled."""

import json

from openapi_spec_validator import validate

from cortex_api import Document, parse
from cortex_runtime.openapi.jobs import FORMAT, document
from cortex_runtime.openapi.jobs import read as read_interface


def read(spec=None, interface=None, **handler):
    manifest = {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "AsyncAPI",
        "metadata": {"name": "words", "namespace": "default"},
        "spec": {"handler": {"type": "python", "path": "code/handler.py", **handler}, **(spec or {})},
    }
    found = json.loads(document(Document.of(parse(manifest)), interface))
    validate(found)
    return found


def test_jobs_are_submitted_read_canceled_and_retried():
    paths = read()["paths"]
    assert {(path, verb) for path, verbs in paths.items() for verb in verbs} == {
        ("/", "post"),
        ("/{id}", "get"),
        ("/{id}", "delete"),
        ("/{id}/retry", "post"),
    }
    assert "409" in paths["/{id}/retry"]["post"]["responses"]
    assert [each["name"] for each in paths["/"]["post"]["parameters"]] == ["Idempotency-Key"]
    assert [each["name"] for each in paths["/{id}"]["get"]["parameters"]] == ["id", "wait"]
    assert {"202", "400", "413", "422", "503"} < paths["/"]["post"]["responses"].keys()


def test_the_header_of_webhooks_is_described_if_they_are_on():
    parameters = read({"webhook": {"timeout": "5s"}})["paths"]["/"]["post"]["parameters"]
    assert "X-Cortex-Webhook" in [each["name"] for each in parameters]


def test_the_sample_of_inline_code_is_the_example():
    files = {"code/handler.py": "", "code/sample.json": '{"text": "a"}'}
    body = read(source={"files": files})["paths"]["/"]["post"]["requestBody"]["content"]
    assert body["application/json"]["examples"]["sample"]["value"] == {"text": "a"}


def test_api_keys_are_described():
    assert read(apiKeys={"secret": {"name": "keys"}})["security"] == [{"bearer": []}, {"header": []}]


def test_the_interface_of_a_worker_describes_payload_and_result():
    interface = {
        "format": FORMAT,
        "summary": "Letters",
        "submit": {"summary": "Count letters"},
        "payload": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Text"}}}},
        "result": {"type": "integer"},
        "results": {"short": 1},
        "schemas": {"Text": {"type": "object", "properties": {"text": {"type": "string"}}}},
    }
    found = read(interface=interface)
    submit, job = found["paths"]["/"]["post"], found["paths"]["/{id}"]["get"]["responses"]["200"]
    assert (found["info"]["summary"], submit["summary"]) == ("Letters", "Count letters")
    assert submit["requestBody"] == interface["payload"]
    assert found["components"]["schemas"]["Text"] == interface["schemas"]["Text"]
    content = job["content"]["application/json"]
    assert content["schema"]["properties"]["result"]["type"] == "integer"
    assert content["examples"]["short"]["value"]["result"] == 1


def test_an_interface_in_another_format_is_not_used():
    assert read_interface(b"") is None
    assert read_interface(b"[]") is None
    assert read_interface(b'{"format": %d, "payload": {}}' % (FORMAT + 1)) is None
    assert read_interface(b'{"format": %d}' % FORMAT) == {"format": FORMAT}
