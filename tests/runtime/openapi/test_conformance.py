"""schemathesis sends valid and invalid requests to examples: no 5xx, and each response is as the document describes it."""

from pathlib import Path

import pytest
import yaml

from .conformance import conform

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.mark.parametrize("example", ["streaming", "openai-chat", "routes"])
def test_responses_are_as_the_document_describes_them(example, serve):
    project = EXAMPLES / example
    handler = yaml.safe_load((project / "api.yaml").read_text())["spec"]["handler"]
    handler.pop("source", None)
    conform(serve(None, project=project, **handler).url)


def test_responses_to_tensors_are_as_the_document_describes_them(serve):
    project = EXAMPLES / "iris-onnx"
    models, protocols = {"path": "iris.onnx"}, {"repository": True}
    conform(serve(None, project=project, type="onnx", path=None, models=models, protocols=protocols).url)
