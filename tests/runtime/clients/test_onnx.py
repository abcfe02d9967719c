"""Type onnx: models by path, version and name; an invalid input is a 400 with the reason."""

import pytest

from ..onnx_models import write_model

HANDLER = """
class Handler:
    def __init__(self, onnx_client, config):
        self.client = onnx_client
    def handle_post(self, payload, query_params):
        return self.client.predict(payload, query_params.get("model"), query_params.get("version"))[0]
"""


def test_a_model_with_versions_answers_with_the_latest_by_default(serve, tmp_path):
    for version in (1, 2, 10):
        write_model(tmp_path / "m" / str(version) / "model.onnx", float(version))
    api = serve(HANDLER, type="onnx", models={"path": str(tmp_path / "m")})
    assert api.post([[1, 2]]).json() == [[10.0, 20.0]]
    assert api.post(params={"version": "2"}, json={"x": [1, 2]}).json() == [[2.0, 4.0]]
    missing = api.post(params={"version": "3"}, json=[1, 2])
    assert (missing.status_code, "available: 1, 2, 10" in missing.json()["error"]) == (404, True)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ([1, 2, 3], "expected shape [n, 2], got [3]"),
        ([["a", "b"]], "expected numbers"),
        ([[1], [1, 2]], 'input "x" can\'t be read'),
        ({"z": [1, 2]}, "missing input x and unknown input z (the model takes x)"),
        ({"x": [1, 2], "y": [1]}, "unknown input y (the model takes x)"),
        ([1e39, 2], "1e+39 does not fit into float32"),
        ([10**300, 2], "does not fit into float32"),
        (None, "expected numbers"),
    ],
)
def test_an_invalid_input_is_a_user_error(serve, tmp_path, payload, words):
    write_model(tmp_path / "m.onnx", 1.0)
    api = serve(HANDLER, type="onnx", models={"path": "m.onnx"})
    answer = api.post(payload)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere.onnx", "ModelNotFound"),
        ("broken.onnx", "ModelInvalid"),
    ],
)
def test_a_model_that_is_not_there_or_broken_is_reported(serve, tmp_path, path, reason):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    found, message = serve(HANDLER, wait=False, type="onnx", models={"path": path}).cause_of_death()
    assert found == reason
    assert path.split("/")[0] in message
