"""Promises about configurations of older releases, one by one, where no other test covers them."""

import httpx
import pytest
import yaml

from cortex_api import parse
from cortex_api.parsing import InvalidManifest
from cortex_cli.__main__ import main
from cortex_runtime.handler.interfaces import construct, methods
from cortex_runtime.handler.recognition import load_code

from .conftest import Replica


@pytest.fixture
def convert(tmp_path):
    """Return the spec of a converted old file, and the remarks."""
    from click.testing import CliRunner

    def run(text):
        file = tmp_path / "cortex.yaml"
        file.write_text(text)
        result = CliRunner().invoke(main, ["convert", "--source", "image", str(file)])
        return (yaml.safe_load(result.stdout) or {}).get("spec"), result.stderr, result.exit_code

    return run


@pytest.mark.parametrize(
    ("model", "kind"),
    [("s3://b/m.onnx", "onnx"), ("s3://b/m.zip", "tensorflow"), ("s3://b/exported", "tensorflow"), ("m.onnx", "onnx")],
)  # fmt: skip
def test_the_format_is_read_off_the_models_name(convert, model, kind):
    spec, _, code = convert(f"- kind: api\n  name: a\n  model: {model}\n")
    assert (spec["handler"]["type"], spec["handler"]["models"], code) == (kind, {"path": model}, 0)
    assert "path" not in spec["handler"]


WRONG = [
    ("  model: s3://b/m.onnx\n", "name is required"),
    ("  name: a\n  model: s3://b/m\n  model_format: pytorch\n", 'tensorflow or onnx; got "pytorch"'),
    (
        "  name: a\n  model: s3://b/m.onnx\n  model_format: tensorflow\n",
        "does not match model s3://b/m.onnx",
    ),
    (
        "  name: a\n  model: s3://b/m.onnx\n  tf_signature_key: k\n",
        "signatureKey is only supported with type tensorflow",
    ),
    (
        "  name: a\n  model: s3://b/m.onnx\n  tracker: {model_type: cluster}\n",
        "one of classification or regression",
    ),
    ("  name: a\n  model: s3://b/m.onnx\n  compute: {gpu: 0.5}\n", "gpu: must be an integer"),
    ("  name: a\n  python: {}\n", "spec.handler.type: is required"),
    (
        "  name: a\n  python: {inference: i.py}\n  tensorflow: {model: s3://b/m}\n",
        "exactly one of python and tensorflow",
    ),
]


@pytest.mark.parametrize(("fields", "words"), WRONG)
def test_an_invalid_old_file_is_refused_with_the_field(convert, fields, words):
    _, said, code = convert(f"- kind: api\n{fields}")
    assert (code, words in said) == (1, True), said


def test_fields_missing_in_an_old_file_have_their_old_defaults(convert):
    spec, _, _ = convert("- kind: api\n  name: a\n  model: s3://b/m.onnx\n")
    api = parse({"kind": "RealtimeAPI", "metadata": {"name": "a"}, "spec": spec}).spec
    assert (api.autoscaling.min_replicas, api.autoscaling.max_replicas) == (1, 100)
    # Absent: as many as minReplicas.
    assert api.autoscaling.init_replicas is None
    assert api.autoscaling.target_cpu_utilization == 80
    assert (api.compute.cpu, api.compute.gpu, api.compute.mem) == ("200m", 0, None)


@pytest.mark.parametrize(("cpu", "written"), [("200m", "200m"), (1, "1"), (0.5, "0.5")])
def test_processors_and_memory_in_every_spelling(convert, cpu, written):
    spec, _, code = convert(
        f"- kind: api\n  name: a\n  model: m.onnx\n  compute: {{cpu: {cpu}, mem: 2Gi, gpu: 1}}\n"
    )
    assert (spec["compute"], code) == ({"cpu": written, "mem": "2Gi", "gpu": 1}, 0)


@pytest.mark.parametrize(
    ("config", "given"),
    [(None, {}), ({"a": {"b": [1, 2.5, True, None, "x"]}}, {"a": {"b": [1, 2.5, True, None, "x"]}})],
)
def test_config_reaches_the_handler_with_its_types(tmp_path, config, given):
    handler = {"type": "python", "path": "handler.py", **({"config": config} if config else {})}
    spec = parse(
        {"kind": "RealtimeAPI", "metadata": {"name": "a"}, "spec": {"handler": handler}}
    ).spec.handler
    path = tmp_path / "handler.py"
    path.write_text(
        "def init(metadata): global got; got = metadata\ndef predict(payload, metadata): return [got, metadata]\n"
    )
    values = {"config": spec.config, "metadata": spec.config}
    code = load_code(path, "python")
    post = methods(code, construct(code, values), values)["POST"]
    assert post.function(payload=1) == [given, given]


def test_an_api_may_say_no_more_than_it_must():
    handler = {"type": "onnx", "models": {"path": "m.onnx"}}
    assert parse({"kind": "RealtimeAPI", "metadata": {"name": "a"}, "spec": {"handler": handler}})
    with pytest.raises(InvalidManifest, match="name"):
        parse({"kind": "RealtimeAPI", "metadata": {}, "spec": {"handler": handler}})


@pytest.mark.parametrize("source", [
    "import os, pathlib\ndef init(config):\n    pathlib.Path(f'{config[\"folder\"]}/{os.getpid()}').open('x').close()\n"
    "def predict(payload): return os.getpid()\n",
    "import os, pathlib\nclass Handler:\n    def __init__(self, config):\n"
    "        pathlib.Path(f'{config[\"folder\"]}/{os.getpid()}').open('x').close()\n"
    "    def handle_post(self, payload): return os.getpid()\n",
])  # fmt: skip
def test_the_constructor_runs_once_in_each_process_before_the_api_is_ready(serve, tmp_path, source):
    folder = tmp_path / "constructed"
    folder.mkdir()
    api: Replica = serve(source, processesPerReplica=2, config={"folder": str(folder)})
    assert len(list(folder.iterdir())) == 2
    answered = {str(api.post({}).json()) for _ in range(10)}
    assert answered <= {path.name for path in folder.iterdir()}
    assert len(list(folder.iterdir())) == 2


def test_a_failing_init_is_the_reason_of_the_exit(serve):
    source = "def init(config): raise RuntimeError('no weights')\ndef predict(payload): pass\n"
    reason, message = serve(source, wait=False).cause_of_death()
    assert (reason, "init raised RuntimeError: no weights" in message) == ("HandlerInitError", True)


PREDICTOR = """
class PythonPredictor:
    def predict(self, payload, query_params):
        return [payload, dict(query_params)]
"""


def test_gets_and_posts_are_distinguished_and_json_is_parsed(serve):
    api = serve(PREDICTOR)
    assert api.post(json={"a": 1}, params={"model": "m"}).json() == [{"a": 1}, {"model": "m"}]
    assert httpx.get(api.url).status_code == 405
