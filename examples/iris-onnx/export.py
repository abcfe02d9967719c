"""Trains the classifier and writes iris.onnx and code.yaml, the ConfigMap that carries it with its handler.

python examples/iris-onnx/export.py    (needs scikit-learn and skl2onnx)
"""

import base64
from pathlib import Path

import numpy as np
import yaml
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).resolve().parent


class _Text(str):
    """A string that YAML writes as a block, line by line."""


def _block(dumper: yaml.SafeDumper, text: _Text) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")


yaml.SafeDumper.add_representer(_Text, _block)


def train() -> bytes:
    """The classifier as ONNX: one input of four measurements, outputs label and probabilities."""
    flowers, species = load_iris(return_X_y=True)
    flowers = flowers.astype(np.float32)
    classifier = LogisticRegression(max_iter=1000).fit(flowers, species)
    model = to_onnx(classifier, flowers[:1], options={"zipmap": False}, target_opset=17)
    return bytes(model.SerializeToString())


def config_map(handler: str, model: bytes) -> str:
    """The manifest that `kubectl apply` takes."""
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "iris-code"},
        "data": {"handler.py": _Text(handler)},
        "binaryData": {"iris.onnx": base64.b64encode(model).decode()},
    }
    return "# Made by export.py from handler.py and iris.onnx.\n" + yaml.safe_dump(manifest, sort_keys=False)


if __name__ == "__main__":
    model = train()
    (HERE / "iris.onnx").write_bytes(model)
    (HERE / "code.yaml").write_text(config_map((HERE / "handler.py").read_text(), model))
    print(f"iris.onnx ({len(model)} bytes) and code.yaml are written")
