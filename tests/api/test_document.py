"""The document from operator to runtime contains all fields that the runtime reads, and no others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cortex_api import Document, InvalidManifest, parse

Make = Callable[..., dict[str, Any]]
HANDLER = {"type": "onnx", "models": {"path": "iris.onnx"}, "config": {"a": None, "b": [1, 2.5, "ü"]}}


def test_document_survives_a_round_trip(manifest: Make, tmp_path: Path) -> None:
    document = Document.of(parse(manifest(handler=HANDLER, tracker={"modelType": "classification"})))
    path = tmp_path / "api.json"
    path.write_bytes(document.to_json())
    parsed = Document.read(path)
    assert parsed == document
    assert parsed.spec.handler.config == HANDLER["config"]


def test_the_spec_of_the_other_kind_is_refused(manifest: Make) -> None:
    document = Document.of(parse(manifest()))
    assert document.realtime_spec is document.spec
    with pytest.raises(TypeError, match="is of kind RealtimeAPI"):
        _ = document.async_spec


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 3},
        {"autoscaling": {"maxReplicas": 3}},
        {"networking": {"endpoint": "/x"}},
        {"updateStrategy": {"maxSurge": 1}},
        {"pod": {"spec": {}}},
        {"paused": True},
    ],
)
def test_fields_that_the_runtime_does_not_read_do_not_change_the_document(
    manifest: Make, change: dict[str, Any]
) -> None:
    assert Document.of(parse(manifest(**change))).to_json() == Document.of(parse(manifest())).to_json()


@pytest.mark.parametrize("content", ["", "[]", '{"version": "0"}', '{"version": "1", "kind": "RealtimeAPI"}'])
def test_invalid_documents_are_rejected(tmp_path: Path, content: str) -> None:
    path = tmp_path / "api.json"
    path.write_text(content)
    with pytest.raises(InvalidManifest):
        Document.read(path)


def test_default_values_are_omitted_so_that_older_runtimes_can_read_the_document(manifest: Make) -> None:
    content = json.loads(Document.of(parse(manifest(handler=HANDLER))).to_json())
    assert content["spec"] == {"handler": HANDLER}
