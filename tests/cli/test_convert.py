"""`cortex convert`: every age's cortex.yaml becomes manifests of today; what changes and what is lost is said with its line."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from cortex_api import parse
from cortex_cli.__main__ import main
from cortex_cli.convert.ages import FIELDS, Age
from cortex_cli.convert.reading import Unusable, fields, read
from tests.cli.former import FILES, REFUSED


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
    (api,), said = convert(
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
    assert said.startswith("cortex.yaml: written for Cortex 0.8 to 0.9\n")
    for expected in (
        "cortex.yaml:1: kind: deployment is gone",
        "cortex.yaml:5: model is spec.handler.models.path now",
        "cortex.yaml:6: request_handler is spec.handler.path now",
        "cortex.yaml:8: compute.min_replicas is spec.autoscaling.minReplicas now",
    ):
        assert expected in said


def test_fields_whose_parents_and_indentation_are_lost(convert):
    (api,), said = convert(
        "- kind: api\nname: a\nmodel: s3://b/model\nkey: label\nmodel_type: classification\nmin_replicas: 3\ngpu: 1\n"
    )
    assert api["spec"]["handler"]["type"] == "tensorflow"
    assert api["spec"]["tracker"] == {"key": "label", "modelType": "classification"}
    assert api["spec"]["autoscaling"]["minReplicas"] == 3
    assert "fields that were not indented below their list item are taken as its own" in said
    assert "cortex.yaml:6: min_replicas is spec.autoscaling.minReplicas now" in said


def test_python_inference(convert):
    (api,), said = convert(
        "- kind: api\n  name: a\n  python: {inference: inference.py}\n  metadata: {labels: [x, y]}\n  compute: {gpu: 1}\n"
    )
    assert api["spec"]["handler"] == {
        "type": "python",
        "path": "inference.py",
        "config": {"labels": ["x", "y"]},
        "source": {"configMap": {"name": "a-code"}},
    }
    assert "never released" in said


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
    (api,), said = convert(
        "- kind: api\n  name: a\n  predictor: {path: p.py, model: s3://b/m, metadata: {a: 1}}\n  compute: {max_replicas: 2}\n"
    )
    assert api["spec"]["handler"]["type"] == "python"
    assert api["spec"]["handler"]["config"] == {"a": 1}
    assert "Cortex 0.10 to 0.11" in said


def test_a_predictor_class_without_kind(convert):
    (api,), said = convert(
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
    assert "Cortex 0.14 to 0.16" in said


def test_several_models_behind_an_api(convert):
    (api,), said = convert(
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
        "cortex.yaml:7: predictor.models.paths is spec.handler.models.paths now; its model_path is path"
        in said
    )


def test_reloading_batching_and_dependencies(convert, tmp_path):
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (api,), said = convert(
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
    assert "! cortex.yaml:9: predictor.dependencies.conda is not carried over: conda is not installed" in said


def test_a_handler_class_and_its_queue(convert):
    (api,), said = convert(
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
    assert "! cortex.yaml:4: compute.node_groups is not carried over" in said
    assert "Cortex 0.34 to 0.35" in said


def test_ages_that_never_met_are_refused_with_both_lines(convert):
    found, said = convert(
        "- name: a\n  kind: RealtimeAPI\n  predictor: {type: python, path: p.py}\n"
        "- name: b\n  kind: RealtimeAPI\n  handler: {type: python, path: h.py}\n",
        code=1,
    )
    assert found == []
    assert said == (
        "cortex.yaml:3: predictor.type is of Cortex 0.12 to 0.33\n"
        "cortex.yaml:6: handler.type is of Cortex 0.34 to 0.35\n"
        "cortex.yaml: mixes ages of Cortex: these two never stood in one version. Spell all of it as one version did.\n"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "cortex.yaml:1: is not valid YAML"),
        ("", "cortex.yaml: has no API in it"),
        ("- 1\n", "cortex.yaml:1: an API is a mapping"),
        ("- name: a\n  kind: RealTimeAPI\n", "cortex.yaml:2: kind: RealTimeAPI was never one of Cortex's"),
        (
            "- name: a\n  kind: RealtimeAPI\n  predictor:\n    type: python\n    procesess_per_replica: 2\n",
            "cortex.yaml:5: predictor.procesess_per_replica: was never a field of Cortex's;"
            " did you mean predictor.processes_per_replica?",
        ),
        ("apiVersion: cortex.dev/v1alpha1\nkind: RealtimeAPI\n", "is a Kubernetes manifest already"),
    ],
)
def test_what_is_no_cortex_yaml(convert, text, words):
    found, said = convert(text, code=1)
    assert (found, words in said) == ([], True), said


def test_two_sections_or_formats_contradict_each_other(convert):
    _, said = convert(
        "- kind: api\n  name: a\n  onnx: {model: s3://m}\n  tensorflow: {model: s3://m}\n", code=1
    )
    assert "not valid: exactly one of tensorflow and onnx says what is served" in said
    _, said = convert("- kind: api\n  name: a\n  model: s3://b/m.zip\n  model_format: onnx\n", code=1)
    assert "cortex.yaml:4: not valid: model_format onnx does not go with model s3://b/m.zip" in said


def test_what_todays_rules_refuse_is_told_at_the_old_line(convert):
    _, said = convert(
        "- name: a\n  kind: RealtimeAPI\n  handler:\n    type: python\n    path: 3\n  autoscaling:\n    window: 1s\n",
        code=1,
    )
    assert "cortex.yaml:5: not valid: spec.handler.path: must be a string" in said
    assert "cortex.yaml:7: not valid: spec.autoscaling: window must be at least 10s" in said


def test_kinds_that_have_no_successor_are_named_and_the_others_converted(convert):
    found, said = convert(
        "- name: a\n  kind: RealtimeAPI\n  handler: {type: python, path: h.py}\n"
        "- name: s\n  kind: TrafficSplitter\n  apis: [{name: a, weight: 100}]\n",
        code=1,
    )
    assert [api["metadata"]["name"] for api in found] == ["a"]
    assert (
        "! cortex.yaml:5: TrafficSplitter is not carried over: the platform's gateway splits traffic: apply an HTTPRoute"
        in said
    )


def test_apis_of_containers_are_none_of_ours(convert):
    found, said = convert(
        "- name: a\n  kind: RealtimeAPI\n  pod: {port: 80, containers: [{name: x, image: y}]}\n  node_groups: [a]\n",
        code=1,
    )
    assert found == []
    assert "! cortex.yaml:3: a is not carried over: an API of containers" in said


def test_a_lone_predictor_is_not_given_what_it_had_not(convert):
    (api,), _ = convert(
        "- name: a\n  kind: RealtimeAPI\n  predictor: {type: python, path: p.py, config: null}\n  compute:\n"
    )
    assert set(api["spec"]["handler"]) == {"type", "path", "source"}
    assert "compute" not in api["spec"]


@pytest.mark.parametrize("release", FILES)
def test_every_field_of_every_release_is_carried_over_or_named(convert, release):
    text = FILES[release]
    apis, said = convert(text, "--source=image")
    assert len(apis) == sum(entry.kind != "deployment" for entry in read(text).entries)
    lines = said.splitlines()
    for entry in read(text).entries:
        for path, _ in fields(entry):
            if path == "kind" or entry.kind == "deployment":
                continue  # They have tests of their own.
            whole = path.split("[")[0]
            named = any(f": {whole} is " in line or f": {whole} of the " in line for line in lines)
            value = entry.get(path)
            assert named or value is None or any(_has(api, value) for api in apis), path


def test_the_files_of_all_releases_have_every_field():
    seen = {pattern for text, *_ in REFUSED.values() for pattern in _patterns(text)}
    seen |= {pattern for text in FILES.values() for pattern in _patterns(text)}
    missing = {name for name in FIELDS if name not in seen}
    assert not missing


def _patterns(text: str) -> set[str]:
    try:
        return {pattern for entry in read(text).entries for _, pattern in fields(entry)}
    except Unusable:
        return set()


def _has(manifest: Any, value: Any) -> bool:
    """Whether a value is in a manifest, as text or as it is."""
    below = (
        manifest.values() if isinstance(manifest, dict) else manifest if isinstance(manifest, list) else ()
    )
    return str(manifest) == str(value) or any(_has(part, value) for part in below)


@pytest.mark.parametrize("what", REFUSED)
def test_what_can_not_be_served_is_refused_with_its_line(convert, what):
    text, line, words = REFUSED[what]
    _, said = convert(text, code=1)
    assert re.search(rf"cortex\.yaml:{line}: .*{re.escape(words)}", said), said


def test_what_was_the_default_of_its_release_is_written_out(convert):
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


def test_tags_are_labels_as_far_as_they_can_be(convert):
    api = "- kind: api\n  name: a\n  model: s3://b/m.onnx\n  tags: "
    (labelled,), _ = convert(api + "{team: flowers, year: 2019}\n")
    assert labelled["metadata"] == {"name": "a", "labels": {"team": "flowers", "year": "2019"}}
    (plain,), said = convert(api + "{team: flowers and trees}\n")
    assert plain["metadata"] == {"name": "a"}
    assert "! cortex.yaml:4: tags is not carried over: not valid as a label: team: flowers and trees" in said


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("- kind: api\n  name: a\n  model: s3://b/m.onnx\n  request_handler: h.py\n", True),
        ("- kind: api\n  name: a\n  python: {inference: i.py}\n", True),
        ("- name: a\n  predictor: {type: python, path: p.py}\n", True),
        ("- name: a\n  kind: RealtimeAPI\n  predictor: {type: python, path: p.py}\n", False),
    ],
)
def test_debug_by_a_request_is_remarked_on_where_it_was(convert, text, logged):
    _, said = convert(text)
    assert ("?debug=true (Cortex 0.8 to 0.15)" in said and "spec.handler.debug" in said) == logged


def test_what_else_a_deployment_had_is_named(convert):
    _, said = convert(
        "- kind: deployment\n  name: d\n  tags: {a: b}\n- kind: api\n  name: a\n  model: s3://b/m.onnx\n"
    )
    assert "! cortex.yaml:3: tags of the deployment is not carried over: set it on each API" in said


def test_files_are_read_from_a_pipe_too():
    result = CliRunner().invoke(
        main, ["convert", "-"], input="- {name: a, kind: RealtimeAPI, handler: {type: python, path: h.py}}"
    )
    assert (result.exit_code, yaml.safe_load(result.stdout)["metadata"]["name"]) == (0, "a")


def test_a_file_that_is_not_there(tmp_path):
    result = CliRunner().invoke(main, ["convert", str(Path(tmp_path) / "none.yaml")])
    assert (result.exit_code, "none.yaml: can't be read: No such file or directory" in result.stderr) == (
        1,
        True,
    )


def test_the_age_is_what_all_fields_have_in_common():
    old = read(
        "- {name: a, kind: RealtimeAPI, predictor: {type: python, path: p.py, model_path: s3://b/m}}\n"
    )
    assert (old.age, old.repaired) == (Age(19, 24), False)


def test_numbers_that_are_none_are_refused_with_their_lines(convert):
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
    _, said = convert(text, code=1)
    for line, field in ((6, "spec.handler.processesPerReplica"), (8, "spec.autoscaling.targetInFlight")):
        assert f":{line}: not valid: {field}: must be a" in said
