"""schemathesis sends valid and invalid requests to examples: no 5xx, and each response is as the document describes it."""

from pathlib import Path

import pytest
import yaml

from .conformance import conform

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
OTHERS = {"gpu", "scikit-learn", "tensorflow-iris", "tensorflow-multi-model"}
"""The first has its model in a bucket, the second must train it, and the others import TensorFlow, which takes seconds."""
SERVED = sorted(
    file.parent.name
    for file in (*EXAMPLES.glob("*/api.yaml"), EXAMPLES / "candidate" / "v1.yaml")
    if file.parent.name not in OTHERS and yaml.safe_load(file.read_text())["kind"] == "RealtimeAPI"
)


@pytest.mark.parametrize("example", SERVED)
def test_responses_are_as_the_document_describes_them(example, serve):
    project = EXAMPLES / example
    file = next(project / name for name in ("api.yaml", "v1.yaml") if (project / name).exists())
    spec = yaml.safe_load(file.read_text())["spec"]
    handler = {"path": None, **spec.pop("handler")}
    handler.pop("source", None)
    conform(serve(None, project=project, spec=spec, **handler).url)


def test_responses_to_tensors_are_as_the_document_describes_them(serve):
    project = EXAMPLES / "iris-onnx"
    models, protocols = {"path": "iris.onnx"}, {"repository": True}
    conform(serve(None, project=project, type="onnx", path=None, models=models, protocols=protocols).url)
