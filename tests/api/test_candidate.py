"""A candidate is merged over the stable version; the merge is validated, and its errors name the fields of the candidate."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from cortex_api import Document, InvalidManifest, RealtimeAPI, parse
from cortex_api.candidate import candidate_api, candidate_manifest, merge, promoted

Make = Callable[..., dict[str, Any]]
ONNX = {"type": "onnx", "models": {"path": "s3://bucket/iris/1/", "cacheSize": 2}}


def candidate(manifest: dict[str, Any]) -> RealtimeAPI:
    api = parse(manifest)
    assert isinstance(api, RealtimeAPI)
    return candidate_api(api)


@pytest.mark.parametrize(
    ("stable", "patch", "merged"),
    [
        (
            {"config": {"a": 1, "b": {"c": 2, "d": 3}}},
            {"config": {"b": {"c": 4}, "e": 5}},
            {"config": {"a": 1, "b": {"c": 4, "d": 3}, "e": 5}},
        ),
        ({"env": [{"name": "A"}, {"name": "B"}]}, {"env": [{"name": "C"}]}, {"env": [{"name": "C"}]}),
        ({"pythonPath": "src", "path": "a.py"}, {"pythonPath": None}, {"path": "a.py"}),
        (
            {"path": "a.py"},
            {"pythonPath": None, "config": {"a": None, "b": {"c": None}}},
            {"path": "a.py", "config": {"b": {}}},
        ),
        (
            {"models": {"path": "a", "pollInterval": "0s"}},
            {"models": {"dir": "b"}},
            {"models": {"dir": "b", "pollInterval": "0s"}},
        ),
        (
            {"models": {"path": "a"}},
            {"models": {"pollInterval": "0s"}},
            {"models": {"path": "a", "pollInterval": "0s"}},
        ),
        (
            {"models": {"paths": [{"name": "x"}]}},
            {"models": {"path": "a", "paths": None}},
            {"models": {"path": "a"}},
        ),
        (
            {"source": {"configMap": {"name": "code"}}},
            {"source": {"files": {"a.py": "x"}}},
            {"source": {"files": {"a.py": "x"}}},
        ),
        (
            {"source": {"files": {"a.py": "x", "b.py": "y"}}},
            {"source": {"files": {"b.py": "z"}}},
            {"source": {"files": {"a.py": "x", "b.py": "z"}}},
        ),
        ({"models": {"path": "a"}, "path": "h.py"}, {"models": None}, {"path": "h.py"}),
    ],
)
def test_a_merge(stable: dict[str, Any], patch: dict[str, Any], merged: dict[str, Any]) -> None:
    before = copy.deepcopy((stable, patch))
    assert merge(stable, patch, ("handler",)) == merged
    assert (stable, patch) == before


def test_the_choice_between_fields_applies_to_the_models_of_the_handler_alone() -> None:
    assert merge({"config": {"path": "a"}}, {"config": {"dir": "b"}}, ("handler",)) == {
        "config": {"path": "a", "dir": "b"}
    }


def test_the_candidate_is_an_api_of_its_own(manifest: Make) -> None:
    made = manifest(
        handler=ONNX,
        compute={"cpu": "1", "mem": "1Gi"},
        candidate={
            "handler": {"models": {"path": "s3://bucket/iris/2/"}},
            "compute": {"mem": "2Gi"},
            "weight": 5,
            "replicas": 3,
        },
    )
    api = candidate(made)
    assert api.metadata.name == "iris"
    assert api.spec.candidate is None
    assert (
        api.spec.handler.models is not None and api.spec.handler.models.path,
        api.spec.handler.models.cache_size,
    ) == (
        "s3://bucket/iris/2/",
        2,
    )
    assert (api.spec.compute.cpu, api.spec.compute.mem, api.spec.replicas) == ("1", "2Gi", 3)


def test_the_document_of_the_stable_version_does_not_depend_on_the_candidate(manifest: Make) -> None:
    without = parse(manifest(handler=ONNX))
    with_candidate = parse(manifest(handler=ONNX, candidate={"handler": {"debug": True}, "weight": 5}))
    assert Document.of(with_candidate).to_json() == Document.of(without).to_json()


@pytest.mark.parametrize(
    ("spec", "weight", "mirror", "replicas"),
    [
        ({"replicas": 10}, 5, 0, 1),
        ({"replicas": 10}, 11, 10, 3),
        ({"replicas": 10}, 0, 0, 1),
        ({"replicas": 10}, 100, 100, 10),
        ({"replicas": 0}, 50, 0, 0),
        ({}, 50, 0, 1),
    ],
)
def test_fixed_replicas_are_scaled_by_the_share(
    manifest: Make, spec: dict[str, Any], weight: int, mirror: int, replicas: int
) -> None:
    made = manifest(**spec, candidate={"weight": weight, "mirror": mirror})
    assert candidate(made).spec.replicas == replicas


def test_autoscaling_starts_with_the_share(manifest: Make) -> None:
    scaling = {"minReplicas": 4, "maxReplicas": 20, "initReplicas": 10, "targetInFlight": 2}
    found = candidate(manifest(autoscaling=scaling, candidate={"weight": 30})).spec.autoscaling
    assert found is not None
    assert (found.min_replicas, found.max_replicas, found.init_replicas, found.target_in_flight) == (
        2,
        20,
        None,
        2,
    )


def test_own_replicas_replace_the_autoscaling_of_the_stable_version(manifest: Make) -> None:
    api = candidate(manifest(autoscaling={"minReplicas": 4}, candidate={"replicas": 2}))
    assert (api.spec.replicas, api.spec.autoscaling) == (2, None)


def test_a_promotion_keeps_the_scaling_of_the_stable_version(manifest: Make) -> None:
    made = manifest(
        handler=ONNX,
        replicas=10,
        candidate={
            "handler": {"models": {"path": "s3://bucket/iris/2/"}},
            "compute": {"mem": "2Gi"},
            "replicas": 1,
            "weight": 5,
        },
    )
    before = copy.deepcopy(made)
    assert promoted(made)["spec"] == {
        "handler": {"type": "onnx", "models": {"path": "s3://bucket/iris/2/", "cacheSize": 2}},
        "replicas": 10,
        "compute": {"mem": "2Gi"},
    }
    assert made == before


def test_the_promoted_version_runs_what_the_candidate_ran(manifest: Make) -> None:
    made = manifest(handler=ONNX, candidate={"handler": {"config": {"a": 1}}, "compute": {"cpu": 2}})
    assert (
        Document.of(parse(promoted(made))).to_json() == Document.of(parse(candidate_manifest(made))).to_json()
    )


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"handler": {"modles": {}}}, "spec.candidate.handler.modles: unknown field; did you mean models?"),
        (
            {"handler": {"models": None}},
            "spec.candidate.handler: models is required with type tensorflow or onnx",
        ),
        ({"handler": {"type": "python"}}, "spec.candidate.handler: path is required with type python"),
        (
            {"handler": {"logLevel": 3}},
            "spec.candidate.handler.logLevel: must be one of debug, info, warning or error; got 3",
        ),
        (
            {"compute": {"gpu": -1}},
            "spec.candidate.compute.gpu: must be greater than or equal to 0; got -1",
        ),
        (
            {"handler": {"shmSize": "2Gi"}, "compute": {"mem": "1Gi"}},
            "spec.candidate: handler.shmSize must not be greater than compute.mem",
        ),
        ({"handler": []}, "spec.candidate.handler: must be a mapping; got a list"),
        ({"weight": 101}, "spec.candidate.weight: must be less than or equal to 100; got 101"),
        ({"key": "a b"}, 'spec.candidate.key: "a b" is not a name of a header; use letters'),
        (
            {"compare": {"ignore": ["timestamp"]}},
            'spec.candidate.compare.ignore[0]: "timestamp" is not a JSON pointer; use /KEY',
        ),
        (
            {"rollback": {"errorRate": "x%"}},
            'spec.candidate.rollback.errorRate: "x%" is not a percentage; use',
        ),
    ],
)
def test_an_invalid_candidate_is_refused_with_the_field_of_the_candidate(
    manifest: Make, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(manifest(handler=ONNX, candidate=fields))
    assert str(error.value).startswith(problem)


def test_an_error_of_the_merge_names_both_fields(manifest: Make) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(manifest(handler=ONNX, candidate={"handler": {"models": {"cacheSize": 0}}}))
    assert str(error.value).endswith("got 0 (after the merge with spec.handler)")
    assert error.value.problems[0].path == "spec.candidate.handler.models.cacheSize"


def test_an_async_api_has_no_candidate(manifest: Make) -> None:
    with pytest.raises(InvalidManifest, match=r"^spec\.candidate: unknown field; allowed: "):
        parse(manifest("AsyncAPI", candidate={"weight": 5}))
