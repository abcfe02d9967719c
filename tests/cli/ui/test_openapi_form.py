"""Forms from an OpenAPI document, and the payloads that they send."""

import json
from typing import Any

import pytest

from cortex_cli.ui.openapi_form import Operation, operations, payload

FLOWER = {
    "type": "object",
    "required": ["sepal_length", "color"],
    "properties": {
        "sepal_length": {"type": "number", "description": "in cm"},
        "count": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 3},
        "color": {"enum": ["red", "blue"]},
        "note": {"type": "string"},
        "is_fresh": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {
        "/items/{id}": {"get": {"summary": "Return an item"}},
        "/": {
            "post": {
                "summary": "Classify",
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Flower"},
                            "examples": {
                                "sample": {"value": {"sepal_length": 5.1, "color": "blue", "tags": ["a"]}}
                            },
                        }
                    }
                },
            }
        },
        "/image": {"post": {"requestBody": {"content": {"image/png": {}}}}},
    },
    "components": {"schemas": {"Flower": FLOWER}},
}


def main() -> Operation:
    return operations(DOCUMENT)[0]


def test_the_operation_of_the_root_is_first_and_others_than_json_are_left_out():
    assert [each.id for each in operations(DOCUMENT)] == ["POST /", "GET /items/{id}"]


def test_a_field_for_each_value_with_its_example():
    fields = main().fields or ()
    assert [(each.name, each.kind, each.is_required, each.value) for each in fields] == [
        ("sepal_length", "number", True, "5.1"),
        ("count", "integer", False, "3"),
        ("color", "choice", True, '"blue"'),
        ("note", "text", False, ""),
        ("is_fresh", "boolean", False, ""),
        ("tags", "json", False, '["a"]'),
    ]
    assert fields[0].description == "in cm"


def test_the_payload_has_the_types_of_the_schema():
    form = {
        "sepal_length": "5",
        "count": "",
        "color": '"red"',
        "note": "01",
        "is_fresh": "true",
        "tags": '["b"]',
    }
    sent = payload(main(), form)
    assert json.loads(sent) == {
        "sepal_length": 5,
        "color": "red",
        "note": "01",
        "is_fresh": True,
        "tags": ["b"],
    }
    assert '"sepal_length": 5,' in sent


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"color": '"red"'}, "sepal_length is required"),
        ({"sepal_length": "five"}, "sepal_length must be a number; got 'five'"),
        ({"sepal_length": "5", "count": "1.5"}, "count must be an integer; got '1.5'"),
        ({"sepal_length": "5", "color": '"red"', "tags": "a, b"}, "tags must be JSON; got 'a, b'"),
    ],
)
def test_invalid_values_name_the_field(form, message):
    with pytest.raises(ValueError, match=message):
        payload(main(), form)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"paths": []},
        {"paths": {"/": None}},
        {"paths": {"/": {"post": {"requestBody": {"$ref": "#/none"}}}}},
    ],
)
def test_invalid_documents_have_no_form(document):
    assert [each.fields for each in operations(document)] in ([], [None])


def test_references_to_themselves_end():
    loop = {"paths": {"/": {"post": {"requestBody": {"$ref": "#/paths/~1/post/requestBody"}}}}}
    assert operations(loop)[0].fields is None
