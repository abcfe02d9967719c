"""The document from operator to runtime contains all fields that the runtime reads, and no others."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cortex_api import KINDS, Document, InvalidManifest, parse

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Make = Callable[..., dict[str, Any]]
HANDLER = {"type": "onnx", "models": {"path": "iris.onnx"}, "config": {"a": None, "b": [1, 2.5, "ü"]}}


def test_document_survives_a_round_trip(manifest: Make, tmp_path: Path) -> None:
    document = Document.of(parse(manifest(handler=HANDLER, tracker={"modelType": "classification"})))
    path = tmp_path / "api.json"
    path.write_bytes(document.to_json())
    parsed = Document.read(path)
    assert (parsed.kind, parsed.name, parsed.namespace) == (document.kind, document.name, document.namespace)
    assert_equal(parsed.spec, document.spec)
    assert parsed.spec.handler.config == HANDLER["config"]


def test_the_spec_of_the_other_kind_is_refused(manifest: Make) -> None:
    document = Document.of(parse(manifest()))
    assert document.realtime_spec is document.spec
    with pytest.raises(TypeError, match="is of kind RealtimeAPI"):
        _ = document.async_spec


def assert_equal(read: Any, model: Any) -> None:
    """All fields of a document that was read are equal to those of a model, at each depth."""
    if isinstance(read, SimpleNamespace):
        assert vars(read)
        for name, value in vars(read).items():
            assert_equal(value, getattr(model, name))
    elif isinstance(read, list):
        assert len(read) == len(model)
        for one, other in zip(read, model, strict=True):
            assert_equal(one, other)
    else:
        assert (type(read), read) == (type(model), model)


FULL_HANDLER = {
    "type": "tensorflow",
    "path": "handler.py",
    "source": {"files": {"handler.py": "pass"}},
    "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
    "envFrom": [{"configMapRef": {"name": "c"}}],
    "dependencies": {"pip": "r.txt"},
    "pythonPath": "src",
    "models": {
        "paths": [{"name": "m", "path": "s3://b/m", "signatureKey": "k"}],
        "cacheBytes": 5,
        "pollInterval": "0s",
    },
    "serverSideBatching": {"maxBatchSize": 4, "batchInterval": "5ms"},
    "threadsPerProcess": 3,
    "shmSize": "64Mi",
    "apiKeys": {"secret": {"name": "s"}},
    "debug": True,
}
MANIFESTS = [
    {"spec": {"handler": FULL_HANDLER, "compute": {"cpu": 2, "mem": "1Gi", "tolerations": [{"key": "k"}]}}},
    {
        "kind": "AsyncAPI",
        "spec": {
            "handler": {"type": "python", "path": "h.py", "maxConcurrency": 2},
            "queue": {"maxAttempts": 5, "name": "q"},
            "webhook": {"url": "https://x", "secret": {"name": "s", "key": "k"}},
        },
    },
    *(
        resource
        for path in sorted(EXAMPLES.glob("*/api.yaml"))
        for resource in yaml.safe_load_all(path.read_text())
        if resource["kind"] in KINDS
    ),
]


@pytest.mark.parametrize("resource", MANIFESTS)
def test_a_document_that_is_read_without_the_models_has_their_values(
    resource: dict[str, Any], tmp_path: Path
) -> None:
    api = parse({"kind": "RealtimeAPI", "metadata": {"name": "x"}, **resource})
    (tmp_path / "api.json").write_bytes(Document.of(api).to_json())
    spec = Document.read(tmp_path / "api.json").spec
    assert isinstance(spec, SimpleNamespace)
    assert_equal(spec, api.spec)


def test_reading_a_document_imports_no_models(manifest: Make, tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    path.write_bytes(Document.of(parse(manifest(handler=HANDLER))).to_json())
    code = f"""
import sys
from cortex_api import Document
assert Document.read({str(path)!r}).spec.handler.models.path == "iris.onnx"
sys.exit("pydantic" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"handlers": {}}, "spec.handlers: unknown field; did you mean handler?"),
        ({"handler": {"type": "onnx", "models": {"path": 1}}}, "spec.handler.models.path: must be a string"),
        ({"handler": {"type": "torch"}}, "spec.handler.type: must be one of python, tensorflow or onnx"),
        ({"handler": {"models": {"path": "x"}}}, "spec.handler.type: is required"),
        ({"handler": None}, "spec.handler: must be a mapping"),
        ({"handler": {**HANDLER, "debug": "yes"}}, "spec.handler.debug: must be true or false"),
        ({"handler": {**HANDLER, "env": [{}]}}, "spec.handler.env[0].name: is required"),
    ],
)
def test_invalid_documents_are_reported_by_the_models(
    manifest: Make, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    content = json.loads(Document.of(parse(manifest(handler=HANDLER))).to_json())
    content["spec"] |= change
    (tmp_path / "api.json").write_text(json.dumps(content))
    with pytest.raises(InvalidManifest) as error:
        Document.read(tmp_path / "api.json")
    assert message in str(error.value)


def test_default_values_are_omitted_so_that_older_runtimes_can_read_the_document(manifest: Make) -> None:
    content = json.loads(Document.of(parse(manifest(handler=HANDLER))).to_json())
    assert content["spec"] == {"handler": HANDLER}
