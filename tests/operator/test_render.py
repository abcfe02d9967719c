"""What is rendered of an API: valid Kubernetes, under Pod Security "restricted", and stable where nothing relevant changed."""

from typing import Any

import kubernetes_validate
import pytest

from cortex_api import RealtimeAPI, parse
from cortex_operator.platform import Platform
from cortex_operator.render import render
from cortex_operator.render.overlay import merge


def children(
    handler: dict[str, Any] | None = None, source: Any = None, **spec: Any
) -> dict[str, dict[str, Any]]:
    base = {"type": "python", "path": "handler.py", "source": {"files": {"handler.py": "x", "lib/a.py": "y"}}}
    manifest = {
        "kind": "RealtimeAPI",
        "metadata": {"name": "iris", "namespace": "default", "uid": "u-1"},
        "spec": {"handler": {**base, **(handler or {})}, **spec},
    }
    api = parse(manifest)
    assert isinstance(api, RealtimeAPI)
    return {f"{c['kind']}/{c['metadata']['name']}": c for c in render(api, Platform(), source)}


def template(**spec: Any) -> dict[str, Any]:
    return children(**spec)["Deployment/api-iris"]["spec"]["template"]


SPECS: list[dict[str, Any]] = [
    {},
    {"autoscaling": {"targetCpuUtilization": 50}},
    {
        "compute": {
            "cpu": 2,
            "mem": "1Gi",
            "gpu": 1,
            "nodeSelector": {"a": "b"},
            "tolerations": [{"key": "k"}],
        }
    },
    {"compute": {"inf": 1}, "handler": {"shmSize": "64Mi", "env": [{"name": "A", "value": "1"}]}},
    {"updateStrategy": {"maxSurge": 0, "maxUnavailable": "100%"}},
    {
        "pod": {
            "serviceAccountName": "x",
            "containers": [{"name": "api", "env": [{"name": "B", "value": "2"}]}],
        }
    },
]


@pytest.mark.parametrize("spec", SPECS)
def test_everything_is_valid_kubernetes(spec: dict[str, Any]) -> None:
    for child in children(**spec).values():
        kubernetes_validate.validate(child, "1.36", strict=True)


def test_every_pod_is_restricted() -> None:
    pod = template()["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_gpu_is_request_and_limit_and_tolerated_and_absent_otherwise() -> None:
    pod = template(compute={"gpu": 2, "gpuResource": "nvidia.com/mig-1g.10gb"})["spec"]
    resources = pod["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/mig-1g.10gb"] == "2"
    assert resources["limits"]["nvidia.com/mig-1g.10gb"] == "2"
    assert pod["tolerations"][0]["key"] == "nvidia.com/mig-1g.10gb"
    assert "nvidia" not in str(template())


def test_scaling_and_networking_leave_the_pods_as_they_are() -> None:
    before = template()
    assert template(autoscaling={"maxReplicas": 3}) == before
    assert template(replicas=3) == before
    assert template(networking={"endpoint": "/x"}) == before
    assert template(handler={"requestTimeout": "10s"}) != before
    assert template(handler={"source": {"files": {"handler.py": "z"}}}) != before


def test_an_autoscaler_owns_the_replicas() -> None:
    found = children(autoscaling={"minReplicas": 2, "maxReplicas": 5, "maxUpscaleFactor": 2})
    assert "replicas" not in found["Deployment/api-iris"]["spec"]
    hpa = found["HorizontalPodAutoscaler/api-iris"]["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (2, 5)
    assert hpa["behavior"]["scaleUp"]["policies"] == [{"type": "Percent", "value": 100, "periodSeconds": 15}]
    assert hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert "HorizontalPodAutoscaler/api-iris" not in children()


def test_the_pod_has_time_for_its_longest_request() -> None:
    assert template(handler={"requestTimeout": "90s"})["spec"]["terminationGracePeriodSeconds"] == 100


def test_files_are_mounted_under_their_paths() -> None:
    found = children()
    volume = next(v for v in template()["spec"]["volumes"] if v["name"] == "code")["configMap"]
    data = found["ConfigMap/api-iris-code"]["data"]
    assert {item["path"]: data[item["key"]] for item in volume["items"]} == {
        "handler.py": "x",
        "lib/a.py": "y",
    }


def test_everything_belongs_to_the_api() -> None:
    for child in children(autoscaling={}).values():
        assert child["metadata"]["ownerReferences"][0]["uid"] == "u-1"
        assert child["metadata"]["labels"]["cortex.dev/api"] == "iris"


def test_the_overlay_merges_by_name_and_takes_away_by_null() -> None:
    base = {"containers": [{"name": "api", "image": "a"}], "tolerations": [{"key": "x"}], "dnsPolicy": "None"}
    patch = {
        "containers": [{"name": "api", "tty": True}, {"name": "b"}],
        "tolerations": [{"key": "y"}],
        "dnsPolicy": None,
    }
    assert merge(base, patch) == {
        "containers": [{"name": "api", "image": "a", "tty": True}, {"name": "b"}],
        "tolerations": [{"key": "x"}, {"key": "y"}],
    }
