"""Train three small digit classifiers and write them as ONNX, and a sample image digit.pgm.

python examples/onnx-multi-model/export.py    (requires scikit-learn and onnx)
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).resolve().parent
HIDDEN = {"resnet50": (16,), "mobilenet": (8,), "shufflenet": (12, 12)}


def as_onnx(classifier: MLPClassifier) -> onnx.ModelProto:
    """Return Gemm and Relu layers with a Softmax. The input is a batch of rows with 64 pixels."""
    nodes, weights, value = [], [], "pixels"
    last = len(classifier.coefs_) - 1
    for number, (matrix, bias) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True)):
        weights.append(numpy_helper.from_array(matrix.astype(np.float32), f"w{number}"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"b{number}"))
        nodes.append(helper.make_node("Gemm", [value, f"w{number}", f"b{number}"], [f"sum{number}"]))
        value = "probabilities" if number == last else f"layer{number}"
        nodes.append(helper.make_node("Softmax" if number == last else "Relu", [f"sum{number}"], [value]))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["images", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["images", 10])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    images, digits = load_digits(return_X_y=True)
    for name, hidden in HIDDEN.items():
        classifier = MLPClassifier(hidden, max_iter=600, random_state=1).fit(images / 16, digits)
        folder = HERE / "models" / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(as_onnx(classifier), folder / f"{name}.onnx")
        print(f"{name}: {classifier.score(images / 16, digits):.3f} right")
    (HERE / "digit.pgm").write_bytes(b"P5 8 8 16\n" + images[0].astype(np.uint8).tobytes())
