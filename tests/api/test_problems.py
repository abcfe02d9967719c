"""The words for each way in which a field can be wrong, with its path."""

from collections.abc import Callable
from typing import Any

import pytest

from cortex_api import InvalidManifest, Problem, parse

Make = Callable[..., dict[str, Any]]
PYTHON = {"type": "python", "path": "h.py"}
NAMED = {"name": "b", "path": "x"}
LONG = "x" * 80


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"handler": 3}, "spec.handler", "must be a mapping; got 3"),
        ({"handler": {**PYTHON, "apiKeys": "k"}}, "spec.handler.apiKeys", 'must be a mapping with secret; got "k"'),
        ({"handler": None}, "spec.handler", "must be a mapping; got null"),
        ({"handler": []}, "spec.handler", "must be a mapping; got a list"),
        ({"handler": {**PYTHON, "config": []}}, "spec.handler.config", "must be a mapping; got a list"),
        ({"handler": {**PYTHON, "path": 3.5}}, "spec.handler.path", "must be a string; got 3.5"),
        ({"replicas": 1.5}, "spec.replicas", "must be an integer; got 1.5"),
        ({"replicas": {}}, "spec.replicas", "must be an integer; got a mapping"),
        ({"replicas": -1}, "spec.replicas", "must be greater than or equal to 0; got -1"),
        ({"paused": "yes"}, "spec.paused", 'must be true or false; got "yes"'),
        ({"paused": LONG}, "spec.paused", f'must be true or false; got "{LONG}"'),
        ({"paused": LONG + "y"}, "spec.paused", f'must be true or false; got "{LONG[:77]}..."'),
        ({"compute": {"tolerations": {}}}, "spec.compute.tolerations", "must be a list; got a mapping"),
        ({"autoscaling": {"maxUpscaleFactor": "x"}}, "spec.autoscaling.maxUpscaleFactor", 'must be a number; got "x"'),
        ({"autoscaling": {"maxUpscaleFactor": False}}, "spec.autoscaling.maxUpscaleFactor", "must be a number; got false"),
        ({"tracker": {}}, "spec.tracker.modelType", "is required"),
        ({"tracker": {"modelType": None}}, "spec.tracker.modelType", "must be one of classification or regression; got null"),
        (
            {"tracker": {"modelType": "regression", "foo": 1}},
            "spec.tracker.foo", "unknown field; allowed: key, modelType",
        ),
        (
            {"compute": {"tolerations": [{"key": "k"}, {"keyy": "a"}]}},
            "spec.compute.tolerations[1].keyy",
            "unknown field; did you mean key? allowed: effect, key, operator, tolerationSeconds, value",
        ),
        (
            {"handler": {**PYTHON, "models": {"paths": [NAMED, {**NAMED, "name": "a b"}]}}},
            "spec.handler.models.paths[1].name", '"a b" is not a name of a model; use letters, digits, \'_\' and \'-\'',
        ),
        ({"updateStrategy": {"maxSurge": 0, "maxUnavailable": 0}}, "spec.updateStrategy",
            "maxSurge and maxUnavailable must not both be zero"),
    ],
)  # fmt: skip
def test_an_invalid_field(manifest: Make, spec: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(manifest(**spec))
    assert error.value.problems == [Problem(path, message)]
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("metadata", "path", "message"),
    [
        ({}, "metadata.name", "is required"),
        (3, "metadata", "must be a mapping; got 3"),
        ({"name": 3}, "metadata.name", "must be a string; got 3"),
        ({"name": "a", "labels": {"x": 1}}, "metadata.labels.x", "must be a string; got 1"),
        *[
            (
                {"name": name}, "metadata.name",
                "must be at most 50 characters: lowercase letters, digits and '-', starting with a letter; got " + shown,
            )
            for name, shown in [
                ("A", '"A"'), ("1a", '"1a"'), ("a-", '"a-"'), ("a.b", '"a.b"'), ("a" * 51, f'"{"a" * 51}"'), ("a\n", r'"a\n"')
            ]
        ],
    ],
)  # fmt: skip
def test_invalid_metadata(manifest: Make, metadata: Any, path: str, message: str) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse({**manifest(), "metadata": metadata})
    assert error.value.problems == [Problem(path, message)]


def test_a_name_may_be_as_long_as_its_objects_allow(manifest: Make) -> None:
    for name in ("a", "a" * 50, "a-1"):
        assert parse({**manifest(), "metadata": {"name": name}}).metadata.name == name


@pytest.mark.parametrize(
    ("manifest_", "path", "message"),
    [
        (None, "", "a manifest must be a mapping with apiVersion, kind, metadata and spec"),
        ({}, "kind", "must be one of RealtimeAPI, AsyncAPI; got null"),
        ({"kind": "Deployment"}, "kind", 'must be one of RealtimeAPI, AsyncAPI; got "Deployment"'),
        ({"kind": {}}, "kind", "must be one of RealtimeAPI, AsyncAPI; got a mapping"),
        ({"kind": "AsyncAPI", "apiVersion": "v1"}, "apiVersion", 'must be cortex.dev/v1alpha1; got "v1"'),
    ],
)
def test_manifests_that_are_not_resources(manifest_: Any, path: str, message: str) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(manifest_)
    assert error.value.problems == [Problem(path, message)]
    assert str(error.value) == (f"{path}: {message}" if path else message)


def test_each_broken_rule_of_a_part_is_a_separate_problem(manifest: Make) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(manifest(autoscaling={"minReplicas": 5, "maxReplicas": 2, "window": "1s"}))
    assert error.value.problems == [
        Problem("spec.autoscaling", "minReplicas must not be greater than maxReplicas"),
        Problem("spec.autoscaling", "window must be at least 10s"),
    ]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"handler": {**PYTHON, "requestTimeout": "10s\n"}}, "spec.handler.requestTimeout"),
        ({"handler": {**PYTHON, "maxBodySize": "64Mi\n"}}, "spec.handler.maxBodySize"),
        ({"handler": {**PYTHON, "maxBodySize": "٣"}}, "spec.handler.maxBodySize"),
        ({"handler": {"type": "onnx", "models": {"path": "s3://b/m\n"}}}, "spec.handler.models.path"),
        ({"handler": {"type": "onnx", "models": {"path": "ftp://a"}}}, "spec.handler.models.path"),
        ({"updateStrategy": {"maxSurge": "25%\n"}}, "spec.updateStrategy.maxSurge"),
        ({"updateStrategy": {"maxSurge": "٣%"}}, "spec.updateStrategy.maxSurge"),
        ({"updateStrategy": {"maxSurge": "%"}}, "spec.updateStrategy.maxSurge"),
        ({"updateStrategy": {"maxSurge": "25"}}, "spec.updateStrategy.maxSurge"),
        ({"updateStrategy": {"maxSurge": -1}}, "spec.updateStrategy.maxSurge"),
        ({"updateStrategy": {"maxSurge": True}}, "spec.updateStrategy.maxSurge"),
        ({"updateStrategy": {"maxSurge": None}}, "spec.updateStrategy.maxSurge"),
        ({"compute": {"mem": True}}, "spec.compute.mem"),
        ({"compute": {"mem": [1]}}, "spec.compute.mem"),
    ],
)
def test_a_value_that_the_api_server_refuses_is_refused(manifest: Make, spec: Any, path: str) -> None:
    """Also where Python's regular expressions would allow more than those of the API server."""
    with pytest.raises(InvalidManifest) as error:
        parse(manifest(**spec))
    assert [problem.path for problem in error.value.problems] == [path]


def test_without_metadata_the_name_is_reported_as_missing(manifest: Make) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse({key: value for key, value in manifest().items() if key != "metadata"})
    assert error.value.problems == [Problem("metadata.name", "is required")]


def test_several_problems_are_one_line_each(manifest: Make) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(manifest(replicas={}, paused=1))
    assert str(error.value) == (
        "spec.replicas: must be an integer; got a mapping\nspec.paused: must be true or false; got 1"
    )


def test_a_field_has_only_the_name_of_the_schema(manifest: Make) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(manifest(handler={**PYTHON, "processes_per_replica": 2}))
    (problem,) = error.value.problems
    assert problem.path == "spec.handler.processes_per_replica"
    assert problem.message.startswith("unknown field; did you mean processesPerReplica? allowed: ")
