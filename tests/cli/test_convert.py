"""`cortex convert` converts the cortex.yaml of each release. Remarks list renamed and dropped fields with their lines."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from cortex_api import parse
from cortex_cli.__main__ import main
from cortex_cli.convert.legacy import LegacyFileError, fields, read
from cortex_cli.convert.releases import FIELDS, ReleaseRange
from tests.cli.legacy_files import FILES, REFUSED


@pytest.fixture
def convert(tmp_path):
    def run(text: str, *options: str, code: int = 0) -> tuple[list[dict[str, Any]], str]:
        file = tmp_path / "cortex.yaml"
        file.write_text(text)
        result: Result = CliRunner().invoke(main, ["convert", str(file), *options])
        assert result.exit_code == code, result.output
        found = [document for document in yaml.safe_load_all(result.stdout) if document]
        if code == 0:
            for document in found:
                parse(document)
        return found, result.stderr.replace(f"{tmp_path}/", "")

    return run


def test_a_model_with_a_request_handler(convert):
    (api,), stderr = convert(
        """\
- kind: deployment
  name: shop
- kind: api
  name: my-api
  model: s3://my-bucket/my-model.onnx
  request_handler: handler.py
  tracker: {key: label, model_type: classification}
  compute: {min_replicas: 2, max_replicas: 5, target_cpu_utilization: 60, cpu: 1, gpu: 1, mem: 2Gi}
"""
    )
    assert api == {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {"name": "my-api"},
        "spec": {
            "handler": {
                "type": "onnx",
                "models": {"path": "s3://my-bucket/my-model.onnx"},
                "path": "handler.py",
                "source": {"configMap": {"name": "my-api-code"}},
            },
            "tracker": {"key": "label", "modelType": "classification"},
            "compute": {"cpu": "1", "mem": "2Gi", "gpu": 1},
            "autoscaling": {"minReplicas": 2, "maxReplicas": 5, "targetCpuUtilization": 60},
            "networking": {"endpoint": "/shop/my-api"},
        },
    }
    assert stderr.startswith("cortex.yaml: format of Cortex 0.8 to 0.9\n")
    for expected in (
        "cortex.yaml:1: kind: deployment is removed",
        "cortex.yaml:5: model is now spec.handler.models.path",
        "cortex.yaml:6: request_handler is now spec.handler.path",
        "cortex.yaml:8: compute.min_replicas is now spec.autoscaling.minReplicas",
    ):
        assert expected in stderr


def test_fields_without_parents_and_indentation(convert):
    (api,), stderr = convert(
        "- kind: api\nname: a\nmodel: s3://b/model\nkey: label\nmodel_type: classification\nmin_replicas: 3\ngpu: 1\n"
    )
    assert api["spec"]["handler"]["type"] == "tensorflow"
    assert api["spec"]["tracker"] == {"key": "label", "modelType": "classification"}
    assert api["spec"]["autoscaling"]["minReplicas"] == 3
    assert "unindented fields are read as fields of the list item above" in stderr
    assert "cortex.yaml:6: min_replicas is now spec.autoscaling.minReplicas" in stderr


def test_python_inference(convert):
    (api,), stderr = convert(
        "- kind: api\n  name: a\n  python: {inference: inference.py}\n  metadata: {labels: [x, z]}\n  compute: {gpu: 1}\n"
    )
    assert api["spec"]["handler"] == {
        "type": "python",
        "path": "inference.py",
        "config": {"labels": ["x", "z"]},
        "source": {"configMap": {"name": "a-code"}},
    }
    assert "never released" in stderr


@pytest.mark.parametrize("kind", ["tensorflow", "onnx"])
def test_sections_by_framework(convert, kind):
    (api,), _ = convert(
        f"- kind: api\n  name: a\n  endpoint: /mine\n  {kind}: {{model: s3://b/m, request_handler: h.py, python_path: src/}}\n"
    )
    handler = api["spec"]["handler"]
    assert (handler["type"], handler["models"], handler["path"], handler["pythonPath"]) == (
        kind,
        {"path": "s3://b/m"},
        "h.py",
        "src",
    )
    assert api["spec"]["networking"] == {"endpoint": "/mine"}


def test_a_predictor_of_functions(convert):
    (api,), stderr = convert(
        "- kind: api\n  name: a\n  predictor: {path: p.py, model: s3://b/m, metadata: {a: 1}}\n  compute: {max_replicas: 2}\n"
    )
    assert api["spec"]["handler"]["type"] == "python"
    assert api["spec"]["handler"]["config"] == {"a": 1}
    assert "Cortex 0.10 to 0.11" in stderr


def test_a_predictor_class_without_kind(convert):
    (api,), stderr = convert(
        """\
- name: a
  predictor:
    type: tensorflow
    path: p.py
    model: s3://b/m
    signature_key: serve
    env: {DEBUG: true, SIZE: 3}
  tracker: {model_type: regression}
  autoscaling: {workers_per_replica: 2, threads_per_worker: 3, max_replica_concurrency: 50}
  update_strategy: {max_surge: 0}
"""
    )
    spec = api["spec"]
    assert spec["handler"]["models"] == {"path": "s3://b/m", "signatureKey": "serve"}
    assert spec["handler"]["env"] == [{"name": "DEBUG", "value": "true"}, {"name": "SIZE", "value": "3"}]
    assert (spec["handler"]["processesPerReplica"], spec["handler"]["threadsPerProcess"]) == (2, 3)
    assert spec["handler"]["maxReplicaConcurrency"] == 50
    assert spec["autoscaling"]["targetInFlight"] == 6.0
    assert spec["updateStrategy"] == {"maxSurge": 0}
    assert "Cortex 0.14 to 0.16" in stderr


def test_several_models(convert):
    (api,), stderr = convert(
        """\
- name: a
  kind: RealtimeAPI
  predictor:
    type: onnx
    path: p.py
    models:
      paths:
        - {name: one, model_path: s3://b/one/}
        - {name: two, model_path: s3://b/two/}
      cache_size: 1
      disk_cache_size: 2
  monitoring: {model_type: classification}
"""
    )
    assert api["spec"]["handler"]["models"] == {
        "paths": [{"name": "one", "path": "s3://b/one/"}, {"name": "two", "path": "s3://b/two/"}],
        "cacheSize": 1,
        "diskCacheSize": 2,
    }
    assert (
        "cortex.yaml:7: predictor.models.paths is now spec.handler.models.paths; its model_path is now path"
        in stderr
    )


def test_reloading_batching_and_dependencies(convert, tmp_path):
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (api,), stderr = convert(
        """\
- name: a
  kind: RealtimeAPI
  predictor:
    type: python
    path: p.py
    multi_model_reloading: {dir: "s3://b/models/", cache_size: 2, disk_cache_size: 4}
    server_side_batching: {max_batch_size: 8, batch_interval: 50ms}
    threads_per_process: 8
    dependencies: {conda: conda-packages.txt, shell: setup.sh}
  autoscaling: {target_replica_concurrency: 16, window: 30s, max_downscale_factor: 0.5}
""",
        "--source",
        "s3://bucket/project.zip",
    )
    handler = api["spec"]["handler"]
    assert handler["models"] == {"dir": "s3://b/models/", "cacheSize": 2, "diskCacheSize": 4}
    assert handler["serverSideBatching"] == {"maxBatchSize": 8, "batchInterval": "50ms"}
    assert handler["dependencies"] == {"pip": "requirements.txt", "shell": "setup.sh"}
    assert handler["source"] == {"uri": "s3://bucket/project.zip"}
    assert api["spec"]["autoscaling"]["targetInFlight"] == 16.0
    assert "! cortex.yaml:9: predictor.dependencies.conda is not converted: conda is not supported" in stderr


def test_an_async_handler_class(convert):
    (api,), stderr = convert(
        """\
- name: a
  kind: AsyncAPI
  handler: {type: tensorflow, path: h.py, models: {path: "s3://b/m/"}, config: {a: {b: 1}}, log_level: debug, shm_size: 1Gi}
  compute: {mem: 2Gi, node_groups: [gpu]}
  networking: {endpoint: mine}
""",
        "--source=image",
    )
    assert api["kind"] == "AsyncAPI"
    assert api["spec"]["handler"] == {
        "type": "tensorflow",
        "path": "h.py",
        "models": {"path": "s3://b/m/"},
        "config": {"a": {"b": 1}},
        "logLevel": "debug",
        "shmSize": "1Gi",
    }
    assert api["spec"]["networking"] == {"endpoint": "/mine"}
    assert "! cortex.yaml:4: compute.node_groups is not converted" in stderr
    assert "Cortex 0.34 to 0.35" in stderr


def test_fields_of_different_releases_are_rejected_with_both_lines(convert):
    found, stderr = convert(
        "- name: a\n  kind: RealtimeAPI\n  predictor: {type: python, path: p.py}\n"
        "- name: b\n  kind: RealtimeAPI\n  handler: {type: python, path: h.py}\n",
        code=1,
    )
    assert found == []
    assert stderr == (
        "cortex.yaml:3: predictor.type belongs to Cortex 0.12 to 0.33\n"
        "cortex.yaml:6: handler.type belongs to Cortex 0.34 to 0.35\n"
        "cortex.yaml: mixes formats of different Cortex releases; use the format of one release\n"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "cortex.yaml:1: not valid YAML"),
        ("", "cortex.yaml: contains no API"),
        ("- 1\n", "cortex.yaml:1: an API must be a mapping"),
        ("- name: a\n  kind: RealTimeAPI\n", "cortex.yaml:2: unknown kind RealTimeAPI"),
        (
            "- name: a\n  kind: RealtimeAPI\n  predictor:\n    type: python\n    procesess_per_replica: 2\n",
            "cortex.yaml:5: predictor.procesess_per_replica: unknown field;"
            " did you mean predictor.processes_per_replica?",
        ),
        ("apiVersion: cortex.dev/v1alpha1\nkind: RealtimeAPI\n", "is already a Kubernetes manifest"),
    ],
)
def test_files_in_another_format_are_rejected(convert, text, words):
    found, stderr = convert(text, code=1)
    assert (found, words in stderr) == ([], True), stderr


def test_contradicting_sections_and_formats_are_rejected(convert):
    _, stderr = convert(
        "- kind: api\n  name: a\n  onnx: {model: s3://m}\n  tensorflow: {model: s3://m}\n", code=1
    )
    assert "not valid: exactly one of tensorflow and onnx must be set" in stderr
    _, stderr = convert("- kind: api\n  name: a\n  model: s3://b/m.zip\n  model_format: onnx\n", code=1)
    assert "cortex.yaml:4: not valid: model_format onnx does not match model s3://b/m.zip" in stderr


def test_validation_errors_have_the_original_line(convert):
    _, stderr = convert(
        "- name: a\n  kind: RealtimeAPI\n  handler:\n    type: python\n    path: 3\n  autoscaling:\n    window: 1s\n",
        code=1,
    )
    assert "cortex.yaml:5: not valid: spec.handler.path: must be a string" in stderr
    assert "cortex.yaml:7: not valid: spec.autoscaling: window must be at least 10s" in stderr


def test_unsupported_kinds_are_reported_and_other_apis_are_converted(convert):
    found, stderr = convert(
        "- name: a\n  kind: RealtimeAPI\n  handler: {type: python, path: h.py}\n"
        "- name: s\n  kind: TaskAPI\n  definition: {path: t.py}\n",
        code=1,
    )
    assert [api["metadata"]["name"] for api in found] == ["a"]
    assert (
        "! cortex.yaml:5: TaskAPI is not converted: tasks are not supported: run a Kubernetes Job" in stderr
    )


def test_container_apis_are_not_converted(convert):
    found, stderr = convert(
        "- name: a\n  kind: RealtimeAPI\n  pod: {port: 80, containers: [{name: x, image: y}]}\n  node_groups: [a]\n",
        code=1,
    )
    assert found == []
    assert "! cortex.yaml:3: a is not converted: an API of Cortex 0.36 or later" in stderr


def test_unset_fields_are_not_added(convert):
    (api,), _ = convert(
        "- name: a\n  kind: RealtimeAPI\n  predictor: {type: python, path: p.py, config: null}\n  compute:\n"
    )
    assert set(api["spec"]["handler"]) == {"type", "path", "source"}
    assert "compute" not in api["spec"]


@pytest.mark.parametrize("release", FILES)
def test_every_field_of_every_release_is_converted_or_reported(convert, release):
    text = FILES[release]
    apis, stderr = convert(text, "--source=image")
    assert len(apis) == sum(entry.kind != "deployment" for entry in read(text).entries)
    lines = stderr.splitlines()
    for entry in read(text).entries:
        for path, _ in fields(entry):
            if path == "kind" or entry.kind == "deployment":
                continue  # Other tests cover these.
            top_path = path.split("[")[0]
            is_reported = any(
                f": {top_path} is " in line or f": {top_path} of the " in line for line in lines
            )
            value = entry.get(path)
            assert is_reported or value is None or any(_has(api, value) for api in apis), path


def test_the_example_files_contain_every_field():
    seen = {pattern for text, *_ in REFUSED.values() for pattern in _patterns(text)}
    seen |= {pattern for text in FILES.values() for pattern in _patterns(text)}
    missing = {name for name in FIELDS if name not in seen}
    assert not missing


def _patterns(text: str) -> set[str]:
    try:
        return {pattern for entry in read(text).entries for _, pattern in fields(entry)}
    except LegacyFileError:
        return set()


def _has(manifest: Any, value: Any) -> bool:
    """Return whether a manifest contains a value, unchanged or as text."""
    below = (
        manifest.values() if isinstance(manifest, dict) else manifest if isinstance(manifest, list) else ()
    )
    return str(manifest) == str(value) or any(_has(part, value) for part in below)


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_files_are_rejected_with_the_line(convert, case):
    text, line, words = REFUSED[case]
    _, stderr = convert(text, code=1)
    assert re.search(rf"cortex\.yaml:{line}: .*{re.escape(words)}", stderr), stderr


def test_defaults_of_the_release_are_set_explicitly(convert):
    (five,), _ = convert("- kind: api\n  name: a\n  model: s3://b/m.zip\n  compute: {replicas: 1}\n")
    assert five["spec"]["compute"] == {"cpu": "400m"}
    (seven,), _ = convert(
        "- {kind: api, name: a, model: s3://b/m.onnx, model_format: onnx, compute: {init_replicas: 2}}"
    )
    assert seven["spec"]["autoscaling"] == {
        "initReplicas": 2,
        "targetCpuUtilization": 80,
        "minReplicas": 1,
        "maxReplicas": 100,
    }


def test_valid_tags_become_labels(convert):
    api = "- kind: api\n  name: a\n  model: s3://b/m.onnx\n  tags: "
    (labelled,), _ = convert(api + "{team: flowers, year: 2019}\n")
    assert labelled["metadata"] == {"name": "a", "labels": {"team": "flowers", "year": "2019"}}
    (plain,), stderr = convert(api + "{team: flowers and trees}\n")
    assert plain["metadata"] == {"name": "a"}
    assert "! cortex.yaml:4: tags is not converted: not a valid label: team: flowers and trees" in stderr


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("- kind: api\n  name: a\n  model: s3://b/m.onnx\n  request_handler: h.py\n", True),
        ("- kind: api\n  name: a\n  python: {inference: i.py}\n", True),
        ("- name: a\n  predictor: {type: python, path: p.py}\n", True),
        ("- name: a\n  kind: RealtimeAPI\n  predictor: {type: python, path: p.py}\n", False),
    ],
)
def test_debug_parameter_has_a_remark_for_releases_that_had_it(convert, text, logged):
    _, stderr = convert(text)
    assert ("?debug=true (Cortex 0.8 to 0.15)" in stderr and "spec.handler.debug" in stderr) == logged


def test_other_fields_of_a_deployment_are_reported(convert):
    _, stderr = convert(
        "- kind: deployment\n  name: d\n  tags: {a: b}\n- kind: api\n  name: a\n  model: s3://b/m.onnx\n"
    )
    assert "! cortex.yaml:3: tags of the deployment is not converted: set it in each API" in stderr


def test_input_can_come_from_a_pipe():
    result = CliRunner().invoke(
        main, ["convert", "-"], input="- {name: a, kind: RealtimeAPI, handler: {type: python, path: h.py}}"
    )
    assert (result.exit_code, yaml.safe_load(result.stdout)["metadata"]["name"]) == (0, "a")


def test_missing_file(tmp_path):
    result = CliRunner().invoke(main, ["convert", str(Path(tmp_path) / "none.yaml")])
    assert (result.exit_code, "none.yaml: cannot be read: No such file or directory" in result.stderr) == (
        1,
        True,
    )


def test_releases_are_those_that_have_all_fields():
    old = read(
        "- {name: a, kind: RealtimeAPI, predictor: {type: python, path: p.py, model_path: s3://b/m}}\n"
    )
    assert (old.releases, old.is_repaired) == (ReleaseRange(19, 24), False)


def test_invalid_numbers_are_rejected_with_their_lines(convert):
    text = """\
- name: a
  kind: RealtimeAPI
  predictor:
    type: python
    path: p.py
    processes_per_replica: two
  autoscaling:
    target_replica_concurrency: many
"""
    _, stderr = convert(text, code=1)
    for line, field in ((6, "spec.handler.processesPerReplica"), (8, "spec.autoscaling.targetInFlight")):
        assert f":{line}: not valid: {field}: must be a" in stderr
