"""Values that Kubernetes would refuse only when the operator creates an object are refused at once; all others are valid.

The schema in the CustomResourceDefinition agrees, except for keys of mappings and for spec.pod, which a schema cannot check.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cortex_api import InvalidManifest, RealtimeAPI, parse
from cortex_api.schema import crd

Make = Callable[..., dict[str, Any]]

DIGEST = "sha256:" + "0a" * 32
NAMES = (["iris", "1", "a.b-c", "a" * 253], ["", "My_Secret", "a b", "a.", "-a", "a/b", "a" * 254, "a\n"])
CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "handler.image": (
        [
            "iris",
            "iris:1.2",
            "a_b/c__d/e-f.g:V_1.x",
            f"team/iris@{DIGEST}",
            f"localhost:5000/iris:1@{DIGEST}",
            "[::1]:5000/iris",
            "Registry.example.com/a",
            "r:" + "t" * 128,
        ],
        [
            "my image",
            " iris",
            "iris\n",
            "Iris",
            "iris:",
            "iris:a b",
            "a//b",
            "/iris",
            "https://r.io/iris",
            "iris@sha256:12",
            "a___b",
            "r:" + "t" * 129,
            "",
        ],
    ),
    "handler.env[0].name": (
        ["A", "a.b-c", "1A", "a b", "A" * 256],
        ["", "A=B", "Ä", "A\nB", "A\tB", "A" * 257],
    ),
    "handler.source.configMap.name": NAMES,
    "handler.apiKeys.secret.name": NAMES,
    "handler.apiKeys.secret.key": (["key", ".a", "A_b-c.d", ".x"], ["", ".", "..", "..a", "a b", "a/b"]),
    "handler.models.path": (["a.onnx", "pvc://my-claim/a", "pvc://claim", "s3://b/a b"], ["pvc:///a", "pvc://My_Claim/a"]),
    "handler.requestTimeout": (["60s", "2562047h"], ["2562048h", "9999999999999999999h", "60", "1 s"]),
    "handler.shmSize": (["64Mi", 1000, "0"], ["64MB", "100mm", "-1", ""]),
    "compute.cpu": (["100m", 2, "0.5"], ["100mm", "m", "-1", "1 ", 0.5]),
    "compute.mem": (["1Gi", "1.5G"], ["1Gb", "1 Gi"]),
    "compute.gpuResource": (
        ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "a/B_c"],
        ["gpu", "-a/b", "a/-b", "a..b/c", "A/b", "a/b/c", "a/" + "b" * 64],
    ),
    "compute.nodeSelector.a": (["", "x", "A_b.c-1", "a" * 63], ["a b", "-a", "a-", "a" * 64]),
    "compute.tolerations[0].key": (
        ["a", "nvidia.com/gpu", "a.b/C_d"],
        ["a b", "-a", "/a", "a/", "A.b/c", "a" * 64],
    ),
    "compute.tolerations[0].value": (["", "x", "A_b.c"], ["a b", "a-", "a" * 64]),
    "updateStrategy.maxSurge": ([0, 2**31 - 1, "150%"], [2**31, "1.5%", "10", -1]),
    "networking.endpoint": (
        ["/iris", "/a/b.c/", "/.well-known/~x", "/...", "/..a"],
        ["/", "iris", "/a//b", "/..", "/a/./b", "/a/..", "/a b", "/a%2fb", "/a?b"],
    ),
}  # fmt: skip


REQUIRED: dict[str, dict[str, Any]] = {
    "handler.models.path": {"handler.type": "onnx"},
    "handler.apiKeys.secret.key": {"handler.apiKeys.secret.name": "keys"},
    "compute.tolerations[0].value": {"compute.tolerations[0].key": "a"},
}
"""What a manifest with the field must also have."""


def set_field(spec: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = re.findall(r"[^.\[\]]+", path)
    target: Any = spec
    for name, following in zip(parents, [*parents[1:], last], strict=True):
        if isinstance(target, list):
            target.append({}) if not target else None
            target = target[int(name)]
        else:
            target = target.setdefault(name, [] if following == "0" else {})
    target[last] = value


def cases(index: int) -> Iterator[Any]:
    for path, values in CASES.items():
        for number, value in enumerate(values[index]):
            yield pytest.param(path, value, id=f"{path}-{number}")


def with_value(manifest: Make, path: str, value: Any) -> dict[str, Any]:
    found = manifest()
    for other, required in REQUIRED.get(path, {}).items():
        set_field(found["spec"], other, required)
    set_field(found["spec"], path, value)
    return found


def schema_accepts(path: str, value: Any) -> bool:
    schema = crd(RealtimeAPI)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for name in re.findall(r"[^.\[\]]+", path):
        properties = schema.get("properties", {})
        schema = properties.get(name) or schema.get("items") or schema["additionalProperties"]
    if isinstance(value, str):
        is_short = schema.get("minLength", 0) <= len(value) <= schema["maxLength"]
        return is_short and re.search(schema["pattern"].replace("$", r"\Z"), value) is not None
    return isinstance(value, int) and schema.get("minimum", -value) <= value <= schema.get("maximum", value)


@pytest.mark.parametrize(("path", "value"), [*cases(0)])
def test_a_value_that_kubernetes_accepts_is_valid(manifest: Make, path: str, value: Any) -> None:
    parse(with_value(manifest, path, value))
    assert schema_accepts(path, value)


@pytest.mark.parametrize(("path", "value"), [*cases(1)])
def test_a_value_that_kubernetes_refuses_is_reported_with_its_field(
    manifest: Make, path: str, value: Any
) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(with_value(manifest, path, value))
    (problem,) = error.value.problems
    assert problem.path == f"spec.{path}"
    assert re.search(r"use |must|at most|maximum|not a quantity|not a valid", problem.message)
    # The API server evaluates the length of durations in rules, and integers that are negative are left to `parse`.
    if not path.endswith("Timeout") and not isinstance(value, float | int):
        assert not schema_accepts(path, value)


def test_the_message_shows_the_value_and_what_is_allowed(manifest: Make) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(with_value(manifest, "handler.image", "my image"))
    assert str(error.value) == (
        'spec.handler.image: "my image" is not an image reference; use [REGISTRY/]NAME[:TAG][@DIGEST] without spaces,'
        " NAME in lowercase, for example registry.example.com/team/model:1.2"
    )


def test_the_image_of_a_candidate_is_checked(manifest: Make) -> None:
    with pytest.raises(InvalidManifest, match=r"spec\.candidate\.handler\.image: .*my image"):
        parse(manifest(candidate={"handler": {"image": "my image"}}))


@pytest.mark.parametrize("key", ["a b", "a/b/c", "-a", "A.b/c"])
def test_keys_of_labels(manifest: Make, key: str) -> None:
    found = manifest(compute={"nodeSelector": {key: "x"}})
    found["metadata"]["labels"] = {key: "x"}
    with pytest.raises(InvalidManifest) as error:
        parse(found)
    assert [problem.path for problem in error.value.problems] == [
        "metadata.labels",
        "spec.compute.nodeSelector",
    ]
    assert all(f'"{key}" is not a key of a label' in problem.message for problem in error.value.problems)


def test_inline_files_must_fit_into_a_config_map(manifest: Make) -> None:
    def of_size(size: int) -> dict[str, Any]:
        files = {"handler.py": "x" * (size - 2), "b.py": "ä"}
        return manifest(handler={"type": "python", "path": "handler.py", "source": {"files": files}})

    parse(of_size(2**20))
    with pytest.raises(InvalidManifest, match=r"spec.handler.source.files: must be at most 1048576 bytes"):
        parse(of_size(2**20 + 1))


OF_KEY = {"name": "s", "key": "k"}


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({}, ""),
        ({"secretKeyRef": OF_KEY, "configMapKeyRef": OF_KEY}, ""),
        ({"secretKeyRef": {"name": "s"}}, ".secretKeyRef.key"),
        ({"secretKeyRef": {"name": "A_b", "key": "k"}}, ".secretKeyRef.name"),
        ({"configMapKeyRef": {"name": "s", "key": "a b"}}, ".configMapKeyRef.key"),
        ({"fieldRef": {}}, ".fieldRef.fieldPath"),
        ({"secretKeyRef": "s"}, ".secretKeyRef"),
    ],
)
def test_sources_of_variables(manifest: Make, source: dict[str, Any], path: str) -> None:
    handler = {"type": "python", "path": "h.py", "env": [{"name": "A", "valueFrom": source}]}
    with pytest.raises(InvalidManifest) as error:
        parse(manifest(handler=handler))
    assert [problem.path for problem in error.value.problems] == [f"spec.handler.env[0].valueFrom{path}"]


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({}, ""),
        ({"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}, ""),
        ({"secretRef": {"name": "A_b"}}, ".secretRef.name"),
        ({"configMapRef": {}}, ".configMapRef.name"),
        ({"secretRef": {"name": "a"}, "prefix": "a="}, ".prefix"),
    ],
)
def test_sources_of_all_variables(manifest: Make, source: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(manifest(handler={"type": "python", "path": "h.py", "envFrom": [source]}))
    assert [problem.path for problem in error.value.problems] == [f"spec.handler.envFrom[0]{path}"]


def test_variables_must_be_unique(manifest: Make) -> None:
    with pytest.raises(InvalidManifest, match=r"spec\.handler\.env: duplicate name: A"):
        parse(manifest(handler={"type": "python", "path": "h.py", "env": [{"name": "A"}, {"name": "A"}]}))


CONTAINER = {"name": "sidecar"}


@pytest.mark.parametrize(
    ("pod", "path"),
    [
        ({"labels": {"a b": "x"}}, "labels"),
        ({"labels": {"a": "b c"}}, "labels.a"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": {"cortex.dev/api": "other"}}, "labels"),
        ({"labels": None}, "labels"),
        ({"labels": ["a"]}, "labels"),
        ({"annotations": {"a b": "x"}}, "annotations"),
        ({"annotations": {"a": True}}, "annotations.a"),
        ({"metadata": None}, "metadata"),
        ({"spec": None}, "spec"),
        ({"metadata": {"labels": {"a": "b c"}}}, "metadata.labels.a"),
        ({"containers": None}, "containers"),
        ({"containers": {}}, "containers"),
        ({"containers": ["a"]}, "containers[0]"),
        ({"containers": [{"image": "a"}]}, "containers[0].name"),
        ({"containers": [{"name": "A b"}]}, "containers[0].name"),
        ({"spec": {"containers": [{**CONTAINER, "image": "my image"}]}}, "spec.containers[0].image"),
        ({"initContainers": [{**CONTAINER, "env": [{"name": "a="}]}]}, "initContainers[0].env[0].name"),
        ({"containers": [{**CONTAINER, "ports": [{"containerPort": 0}]}]}, "containers[0].ports[0].containerPort"),
        ({"containers": [{**CONTAINER, "ports": [{"containerPort": 65536}]}]}, "containers[0].ports[0].containerPort"),
        ({"containers": [{**CONTAINER, "ports": [{"containerPort": 1, "name": "-a"}]}]}, "containers[0].ports[0].name"),
        ({"containers": [{**CONTAINER, "ports": [{"containerPort": 1, "name": "1"}]}]}, "containers[0].ports[0].name"),
        ({"containers": [{**CONTAINER, "resources": {"limits": {"cpu": "1mm"}}}]}, "containers[0].resources.limits.cpu"),
        ({"containers": [{**CONTAINER, "volumeMounts": [{"mountPath": "a:b"}]}]}, "containers[0].volumeMounts[0].mountPath"),
        ({"volumes": [{"name": "a.b"}]}, "volumes[0].name"),
        ({"volumes": [{"emptyDir": {}}]}, "volumes[0].name"),
        ({"volumes": [{"name": "a", "emptyDir": {"sizeLimit": "1 Gi"}}]}, "volumes[0].emptyDir.sizeLimit"),
        ({"volumes": [{"name": "a", "persistentVolumeClaim": {}}]}, "volumes[0].persistentVolumeClaim.claimName"),
        ({"serviceAccountName": "My Account"}, "serviceAccountName"),
        ({"priorityClassName": "a_b"}, "priorityClassName"),
        ({"hostname": "a.b"}, "hostname"),
        ({"nodeSelector": {"a": "b c"}}, "nodeSelector.a"),
        ({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a_b"]}]}, "hostAliases[0].hostnames[0]"),
        ({"tolerations": {}}, "tolerations"),
        ({"topologySpreadConstraints": ["a"]}, "topologySpreadConstraints[0]"),
    ],
)  # fmt: skip
def test_the_pod_is_checked(manifest: Make, pod: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidManifest) as error:
        parse(manifest(pod=pod))
    assert [problem.path for problem in error.value.problems] == [f"spec.pod.{path}"]


def test_valid_pods(manifest: Make) -> None:
    container = {
        "name": "sidecar",
        "image": f"a/b@{DIGEST}",
        "env": [{"name": "a b", "value": "x"}, {"name": "C", "valueFrom": {"newSource": {"x": 1}}}],
        "envFrom": [{"prefix": "P_", "secretRef": {"name": "s", "optional": True}}],
        "ports": [{"containerPort": 65535, "name": "8-a-1", "hostPort": 0}],
        "resources": {
            "limits": {"cpu": 0.5, "memory": "1e3", "a.b/c": 1},
            "requests": {"cpu": ".5", "memory": "1.Ei"},
        },
        "volumeMounts": [{"mountPath": "/tmp", "subPath": "x"}],
        "unknown": {"a": 1},
    }
    pod = {
        "labels": {"a": "", "a.b/C_d": "x", "c": None},
        "annotations": {"Example.com/A": "any: value"},
        "containers": [container],
        "initContainers": [{"name": "model", "image": "alpine"}],
        "volumes": [{"name": "a", "secret": {"secretName": "s"}}],
        "imagePullSecrets": [{"name": "registry"}],
        "hostAliases": [{"ip": "::1", "hostnames": ["a.b"]}],
        "affinity": None,
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 5,
    }  # fmt: skip
    parse(manifest(pod=pod))
    metadata = {name: pod.pop(name) for name in ("labels", "annotations")}
    parse(manifest(pod={"metadata": metadata, "spec": pod}))
