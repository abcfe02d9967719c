"""The document that passes from operator to runtime: complete for the runtime, silent about the rest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cortex_api import Document, InvalidManifest, parse

Make = Callable[..., dict[str, Any]]
HANDLER = {"type": "onnx", "models": {"path": "iris.onnx"}, "config": {"a": None, "b": [1, 2.5, "ü"]}}


def test_what_is_written_is_read_again(manifest: Make, tmp_path: Path) -> None:
    document = Document.of(parse(manifest(handler=HANDLER, tracker={"modelType": "classification"})))
    path = tmp_path / "api.json"
    path.write_bytes(document.to_json())
    again = Document.read(path)
    assert again == document
    assert again.spec.handler.config == HANDLER["config"]


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
def test_changes_that_the_runtime_does_not_see_leave_it_as_it_is(
    manifest: Make, change: dict[str, Any]
) -> None:
    assert Document.of(parse(manifest(**change))).to_json() == Document.of(parse(manifest())).to_json()


@pytest.mark.parametrize("content", ["", "[]", '{"version": "0"}', '{"version": "1", "kind": "RealtimeAPI"}'])
def test_what_is_no_document_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "api.json"
    path.write_text(content)
    with pytest.raises(InvalidManifest):
        Document.read(path)


def test_fields_at_their_defaults_are_left_out_so_that_an_older_runtime_reads_it(manifest: Make) -> None:
    plain = json.loads(Document.of(parse(manifest(handler=HANDLER))).to_json())
    assert plain["spec"] == {"handler": HANDLER}
