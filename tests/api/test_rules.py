"""Each rule is evaluated by CEL (in the API server) and by Python (in `parse`). Both agree on valid and invalid objects."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from cel_expr_python import cel

from cortex_api import KINDS, InvalidManifest, parse
from cortex_api.schema import crd
from cortex_api.units import parse_bytes

PYTHON = {"type": "python", "path": "handler.py"}
ONNX = {"type": "onnx", "models": {"path": "iris.onnx"}}
TENSORFLOW = {"type": "tensorflow", "models": {"path": "s3://bucket/model/"}}


def spec(handler: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    return {"handler": handler or PYTHON, **rest}


def models(handler: dict[str, Any] = ONNX, **fields: Any) -> dict[str, Any]:
    return spec({**handler, "models": fields})


GOOD: list[dict[str, Any]] = [
    spec(),
    spec(ONNX),
    spec({**TENSORFLOW, "tensorflowServingImage": "tf:1"}),
    spec({**PYTHON, "pythonPath": "src", "env": [{"name": "A", "value": "1"}], "requestTimeout": "1m30s"}),
    spec({**PYTHON, "source": {"files": {"handler.py": "x", "lib/a.py": "y"}}}),
    spec({**PYTHON, "source": {"configMap": {"name": "code"}}}),
    spec({**PYTHON, "source": {"uri": "s3://bucket/code.zip"}}),
    models(TENSORFLOW, path="s3://bucket/model", signatureKey="predict"),
    models(
        TENSORFLOW, paths=[{"name": "a", "path": "s3://b/a", "signatureKey": "p"}, {"name": "b", "path": "b"}]
    ),
    models(dir="models", cacheSize=2, diskCacheSize=2, cacheBytes="1Gi"),
    spec({**PYTHON, "serverSideBatching": {"maxBatchSize": 32, "batchInterval": "5ms"}}),
    spec({**PYTHON, "shmSize": "64Mi"}),
    spec({**PYTHON, "shmSize": "64Mi"}, compute={"mem": "1Gi"}),
    spec({**PYTHON, "shmSize": 1000}, compute={"mem": 1000}),
    spec(compute={"cpu": 1, "gpu": 1, "inf": 0}),
    models(dir="models", diskCacheSize=2),
    spec({**PYTHON, "maxReplicaConcurrency": 2}, autoscaling={"targetInFlight": 2}),
    spec(replicas=0),
    spec(autoscaling={}),
    spec(autoscaling={"minReplicas": 2, "maxReplicas": 2, "initReplicas": 2, "targetCpuUtilization": 50}),
    spec(autoscaling={"targetInFlight": 4, "window": "10s"}),
    spec({**PYTHON, "maxReplicaConcurrency": 2}, autoscaling={"targetInFlight": 1.5}),
    spec(updateStrategy={"maxSurge": 0}),
    spec(updateStrategy={"maxSurge": 0, "maxUnavailable": 1}),
    spec(updateStrategy={"maxSurge": "0%", "maxUnavailable": "10%"}),
    spec(updateStrategy={"maxSurge": "200%", "maxUnavailable": "0100%"}),
    spec(updateStrategy={"maxSurge": 0, "maxUnavailable": 150}),
    spec(
        compute={
            "tolerations": [
                {"operator": "Exists"},
                {"key": "a", "operator": "Exists", "value": ""},
                {"key": "a", "effect": "NoExecute", "tolerationSeconds": 5},
            ]
        }
    ),
    spec(
        {
            **PYTHON,
            "env": [{"name": "A", "value": "", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        }
    ),
    spec(candidate={}),
    spec(candidate={"handler": {"path": "b.py"}, "weight": 100, "mirror": 100, "replicas": 0}),
    spec(ONNX, candidate={"handler": {"models": {"path": None, "dir": "models"}}, "autoscaling": {}}),
]

BAD: list[tuple[str, dict[str, Any]]] = [
    ("path is required with type python", spec({"type": "python"})),
    ("models is required with type tensorflow or onnx", spec({"type": "onnx"})),
    ("models is required with type tensorflow or onnx", spec({"type": "tensorflow", "path": "handler.py"})),
    ("signatureKey is only supported with type tensorflow", models(path="a.onnx", signatureKey="x")),
    (
        "signatureKey is only supported with type tensorflow",
        models(paths=[{"name": "a", "path": "a.onnx", "signatureKey": "x"}]),
    ),
    (
        "tensorflowServingImage is only supported with type tensorflow",
        spec({**PYTHON, "tensorflowServingImage": "tf:1"}),
    ),
    ("path must be a .py file", spec({**PYTHON, "path": "/handler.py"})),
    ("path must be a .py file", spec({**PYTHON, "path": "../handler.py"})),
    ("path must be a .py file", spec({**PYTHON, "path": "handler.txt"})),
    ("pythonPath must be relative", spec({**PYTHON, "pythonPath": "/src"})),
    ("pythonPath must be relative", spec({**PYTHON, "pythonPath": "a/../.."})),
    ("pythonPath must be relative", spec({**PYTHON, "pythonPath": "a..b"})),
    ("path must be a .py file", spec({**PYTHON, "path": "a..py"})),
    (
        "require processesPerReplica 1",
        spec({**ONNX, "processesPerReplica": 2, "models": {"dir": "m", "diskCacheSize": 1}}),
    ),
    ("must not both be zero", spec(updateStrategy={"maxSurge": "0%", "maxUnavailable": 0})),
    ("must not start with CORTEX_", spec({**PYTHON, "env": [{"name": "CORTEX_X", "value": "1"}]})),
    ("requestTimeout must be greater than 0", spec({**PYTHON, "requestTimeout": "0s"})),
    (
        "maxPayloadSize must not be greater",
        spec(payloadLogging={"url": "http://sink/", "maxPayloadSize": "17Mi"}),
    ),
    (
        "require processesPerReplica 1",
        spec({**ONNX, "processesPerReplica": 2, "models": {"dir": "m", "cacheSize": 1}}),
    ),
    ("exactly one of files, configMap and uri", spec({**PYTHON, "source": {}})),
    (
        "exactly one of files, configMap and uri",
        spec({**PYTHON, "source": {"files": {"a.py": ""}, "uri": "s3://b/c.zip"}}),
    ),
    ("paths in files must be relative", spec({**PYTHON, "source": {"files": {"/a.py": ""}}})),
    ("paths in files must be relative", spec({**PYTHON, "source": {"files": {"../a.py": ""}}})),
    ("exactly one of path, paths and dir", models()),
    ("exactly one of path, paths and dir", models(path="a.onnx", dir="models")),
    ("cacheSize must not be greater than diskCacheSize", models(dir="m", cacheSize=3, diskCacheSize=2)),
    (
        "batchInterval must be greater than 0",
        spec({**PYTHON, "serverSideBatching": {"maxBatchSize": 2, "batchInterval": "0ms"}}),
    ),
    ("gpu and inf are mutually exclusive", spec(compute={"gpu": 1, "inf": 1})),
    ("replicas and autoscaling are mutually exclusive", spec(replicas=1, autoscaling={})),
    ("handler.shmSize must not be greater", spec({**PYTHON, "shmSize": "2Gi"}, compute={"mem": "1Gi"})),
    ("compute.inf is not supported with handler.type onnx", spec(ONNX, compute={"inf": 1})),
    ("minReplicas must not be greater", spec(autoscaling={"minReplicas": 3, "maxReplicas": 2})),
    ("minReplicas must not be greater", spec(autoscaling={"minReplicas": 101})),
    ("initReplicas must be between", spec(autoscaling={"initReplicas": 101})),
    ("initReplicas must be between", spec(autoscaling={"minReplicas": 2, "initReplicas": 1})),
    (
        "targetCpuUtilization and targetInFlight are mutually exclusive",
        spec(autoscaling={"targetCpuUtilization": 50, "targetInFlight": 1}),
    ),
    ("window must be at least 10s", spec(autoscaling={"window": "9s"})),
    (
        "targetInFlight must not be greater than handler.maxReplicaConcurrency",
        spec(autoscaling={"targetInFlight": 2000}),
    ),
    ("must not both be zero", spec(updateStrategy={"maxSurge": 0, "maxUnavailable": "0%"})),
    ("must not both be zero", spec(updateStrategy={"maxSurge": "00%", "maxUnavailable": "000%"})),
    ("must not be greater than 100%", spec(updateStrategy={"maxUnavailable": "101%"})),
    ("must not be greater than 100%", spec(updateStrategy={"maxUnavailable": "1000%"})),
    ("operator must be Exists", spec(compute={"tolerations": [{}]})),
    ("operator must be Exists", spec(compute={"tolerations": [{"key": "", "value": "a"}]})),
    (
        "value must be absent",
        spec(compute={"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}),
    ),
    (
        "tolerationSeconds requires effect NoExecute",
        spec(compute={"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]}),
    ),
    (
        "value and valueFrom are mutually exclusive",
        spec(
            {
                **PYTHON,
                "env": [
                    {"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
                ],
            }
        ),
    ),
    (
        "replicas and autoscaling are mutually exclusive",
        spec(candidate={"replicas": 1, "autoscaling": {"minReplicas": 2}}),
    ),
]

ASYNC_GOOD = [
    spec(),
    spec(autoscaling={"minReplicas": 0, "initReplicas": 0}),
    spec(gateway={"minReplicas": 2}),
    spec(gateway={"minReplicas": 2, "maxReplicas": 2}),
]
ASYNC_BAD = [
    ("minReplicas must not be greater", spec(gateway={"minReplicas": 11})),
    ("replicas and autoscaling are mutually exclusive", spec(replicas=1, autoscaling={"minReplicas": 0})),
]
NAMES = [
    ("iris", True),
    ("a" * 50, True),
    ("a" * 51, False),
    ("1iris", False),
    ("Iris", False),
    ("iris-", False),
]


def resource(kind: str, spec: dict[str, Any], name: str = "iris") -> dict[str, Any]:
    return {"apiVersion": "cortex.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def create_environment() -> cel.Env:
    """Return a CEL environment with the functions of Kubernetes' quantity library that the rules use."""
    quantity = cel.Overload("q", cel.Type.INT, [cel.Type.STRING], False, impl=lambda s: parse_bytes(s))
    compare = cel.Overload(
        "c", cel.Type.INT, [cel.Type.INT, cel.Type.INT], True, impl=lambda a, b: (a > b) - (a < b)
    )
    functions = [cel.FunctionDecl("quantity", [quantity]), cel.FunctionDecl("compareTo", [compare])]
    return cel.NewEnv(variables={"self": cel.Type.DYN}, extensions=[cel.CelExtension("quantity", functions)])


ENVIRONMENT = create_environment()


def applicable_rules(schema: dict[str, Any], value: Any) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield each rule of a schema with each part of the value that it applies to."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule, value
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name in value:
                yield from applicable_rules(child, value[name])
        if extra := schema.get("additionalProperties"):
            for part in value.values():
                yield from applicable_rules(extra, part)
    if isinstance(value, list) and "items" in schema:
        for part in value:
            yield from applicable_rules(schema["items"], part)


def cel_errors(kind: str, manifest: dict[str, Any]) -> set[str]:
    """Return the messages of the rules that fail in the API server."""
    schema = crd(KINDS[kind])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    errors = set()
    for rule, part in applicable_rules(schema, manifest):
        result = ENVIRONMENT.compile(rule["rule"]).eval(data={"self": part}).value()
        assert result in (True, False), f"{rule['rule']}: {result}"
        if not result:
            errors.add(rule["message"])
    return errors


def python_error(manifest: dict[str, Any]) -> str:
    try:
        parse(copy.deepcopy(manifest))
    except InvalidManifest as error:
        return str(error)
    return ""


CASES_GOOD = [("RealtimeAPI", s) for s in GOOD] + [("AsyncAPI", s) for s in ASYNC_GOOD]
CASES_BAD = [("RealtimeAPI", m, s) for m, s in BAD] + [("AsyncAPI", m, s) for m, s in ASYNC_BAD]


@pytest.mark.parametrize(("kind", "spec"), CASES_GOOD)
def test_valid_objects_pass_in_cel_and_python(kind: str, spec: dict[str, Any]) -> None:
    manifest = resource(kind, spec)
    assert cel_errors(kind, manifest) == set()
    assert python_error(manifest) == ""


@pytest.mark.parametrize(("kind", "message", "spec"), CASES_BAD)
def test_invalid_objects_fail_in_cel_and_python_with_the_same_message(
    kind: str, message: str, spec: dict[str, Any]
) -> None:
    manifest = resource(kind, spec)
    assert any(message in error for error in cel_errors(kind, manifest))
    assert message in python_error(manifest)


@pytest.mark.parametrize(("name", "good"), NAMES)
def test_names_are_limited_so_that_child_object_names_are_valid(name: str, good: bool) -> None:
    manifest = resource("RealtimeAPI", spec(), name)
    assert (cel_errors("RealtimeAPI", manifest) == set()) == good
    assert (python_error(manifest) == "") == good


def test_the_names_of_the_candidates_objects_are_valid() -> None:
    for length, errors in (
        (49, set()),
        (50, {"must be at most 49 characters, because the API has a candidate"}),
    ):
        manifest = resource("RealtimeAPI", spec(candidate={}), "a" * length)
        assert cel_errors("RealtimeAPI", manifest) == errors
        assert (python_error(manifest) == "") == (not errors)


def test_every_rule_has_an_invalid_example() -> None:
    declared: set[str] = set()
    broken: set[str] = set()
    for name, kind in KINDS.items():
        schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        declared |= {rule["message"] for rule in all_rules(schema)}
        for case_kind, _, bad in CASES_BAD:
            if case_kind == name:
                broken |= cel_errors(name, resource(name, bad))
        broken |= cel_errors(name, resource(name, spec(), "Bad"))
    broken |= cel_errors("RealtimeAPI", resource("RealtimeAPI", spec(candidate={}), "a" * 50))
    assert declared == broken


def all_rules(schema: dict[str, Any]) -> Iterator[dict[str, str]]:
    yield from schema.get("x-kubernetes-validations", ())
    for child in schema.get("properties", {}).values():
        yield from all_rules(child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from all_rules(schema[key])
