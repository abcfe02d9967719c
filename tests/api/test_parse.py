"""Errors of invalid manifests: all at once, each with its field and the allowed values."""

from collections.abc import Callable
from typing import Any

import pytest

from cortex_api import AsyncAPI, InvalidManifest, RealtimeAPI, parse

Make = Callable[..., dict[str, Any]]


def problems(manifest: Any) -> dict[str, str]:
    with pytest.raises(InvalidManifest) as caught:
        parse(manifest)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_parsing_applies_defaults(manifest: Make) -> None:
    api = parse(manifest())
    assert isinstance(api, RealtimeAPI)
    assert api.spec.compute.cpu == "200m"
    assert api.spec.handler.max_replica_concurrency == 1024
    assert api.spec.handler.request_timeout == "60s"
    assert api.spec.update_strategy.max_surge == "25%"
    assert api.spec.autoscaling is None
    assert api.spec.replicas is None


def test_autoscaling_defaults_to_cpu_utilization(manifest: Make) -> None:
    assert parse(manifest(autoscaling={})).spec.autoscaling.target_cpu_utilization == 80


def test_async_api_scales_on_queue_length_and_to_zero(manifest: Make) -> None:
    api = parse(manifest("AsyncAPI", autoscaling={"minReplicas": 0}))
    assert isinstance(api, AsyncAPI)
    assert api.spec.autoscaling.target_in_flight == 1
    assert "spec.autoscaling.minReplicas" in problems(manifest(autoscaling={"minReplicas": 0}))


def test_all_problems_are_reported_at_once(manifest: Make) -> None:
    found = problems(
        manifest(
            handler={"type": "pithon", "pth": "handler.py", "processesPerReplica": "3"},
            compute={"cpu": 0.5, "mem": "1Gb", "gpu": True},
            autoscaling={"minReplicas": 5, "maxReplicas": 2},
        )
    )
    assert found["spec.handler.type"] == 'must be one of python, tensorflow or onnx; got "pithon"'
    assert found["spec.handler.pth"].startswith(
        "unknown field; did you mean path? allowed: apiKeys, config, "
    )
    assert found["spec.handler.processesPerReplica"] == 'must be an integer; got "3"'
    assert "0.5 is not a quantity" in found["spec.compute.cpu"]
    assert '"1Gb" is not a quantity' in found["spec.compute.mem"]
    assert found["spec.compute.gpu"] == "must be an integer; got true"
    assert found["spec.autoscaling"] == "minReplicas must not be greater than maxReplicas"


def test_more_than_one_model_source_is_rejected(manifest: Make) -> None:
    found = problems(manifest(handler={"type": "onnx", "models": {"path": "a.onnx", "dir": "models"}}))
    assert found == {"spec.handler.models": "exactly one of path, paths and dir must be set"}


def test_duplicate_model_names_are_rejected(manifest: Make) -> None:
    paths = [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]
    found = problems(manifest(handler={"type": "onnx", "models": {"paths": paths}}))
    assert "duplicate model name: a" in found["spec.handler.models"]


@pytest.mark.parametrize("field", ["serverSideBatching", "requestTimeout"])
def test_async_handler_rejects_realtime_fields(manifest: Make, field: str) -> None:
    handler = {"type": "python", "path": "h.py", field: None}
    assert f"spec.handler.{field}" in problems(manifest("AsyncAPI", handler=handler))


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        (None, ""),
        ([], ""),
        ({}, "kind"),
        ({"kind": "Realtime"}, "kind"),
        ({"kind": "RealtimeAPI", "apiVersion": "v1"}, "apiVersion"),
        ({"kind": ["RealtimeAPI"]}, "kind"),
    ],
)
def test_invalid_top_level_field_is_reported(bad: Any, path: str) -> None:
    assert list(problems(bad)) == [path]


def test_missing_fields_are_reported() -> None:
    assert problems({"kind": "RealtimeAPI", "metadata": {"name": "x"}, "spec": {}}) == {
        "spec.handler": "is required"
    }
