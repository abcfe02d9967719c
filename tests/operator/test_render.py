"""Rendered objects are valid, conform to Pod Security "restricted", and change only when they must."""

import json
from typing import Any

import kubernetes_validate
import pytest

from cortex_api import AsyncAPI, RealtimeAPI, parse
from cortex_api.candidate import candidate_api
from cortex_operator.capabilities import Capabilities
from cortex_operator.platform import Platform
from cortex_operator.render import candidate, deployment, queue_deletion, render, route
from cortex_operator.render.overlay import merge

NOTHING, OLD = Platform(), Capabilities()
PLATFORM = Platform.model_validate(
    {
        "gateway": {"name": "g", "namespace": "n", "sectionName": "s", "hostname": "h", "scheme": "https"},
        "queue": {"url": "nats://nats:4222", "secretName": "queue"},
        "networkPolicy": {"adminFrom": [{"namespaceSelector": {}}]},
        "imagePullSecrets": ["registry"],
    }
)


def children(
    handler: dict[str, Any] | None = None,
    source: Any = None,
    kind: str = "RealtimeAPI",
    platform: Platform = NOTHING,
    capabilities: Capabilities = OLD,
    **spec: Any,
) -> dict[str, dict[str, Any]]:
    base = {"type": "python", "path": "handler.py", "source": {"files": {"handler.py": "x", "lib/a.py": "y"}}}
    manifest = {
        "kind": kind,
        "metadata": {"name": "iris", "namespace": "default", "uid": "u-1"},
        "spec": {"handler": {**base, **(handler or {})}, **spec},
    }
    rendered = render(parse(manifest), platform, source, capabilities)
    return {f"{child['kind']}/{child['metadata']['name']}": child for child in rendered}


def template(**spec: Any) -> dict[str, Any]:
    return children(**spec)["Deployment/api-iris"]["spec"]["template"]


SPECS: list[dict[str, Any]] = [
    {},
    {"autoscaling": {"targetCpuUtilization": 50}},
    {"handler": {"apiKeys": {"secret": {"name": "keys", "key": "a"}}}},
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
    {"platform": PLATFORM, "replicas": 2},
    {"platform": PLATFORM, "kind": "AsyncAPI", "autoscaling": {"minReplicas": 0}},
    {
        "platform": PLATFORM,
        "kind": "AsyncAPI",
        "gateway": {"minReplicas": 2, "maxReplicas": 2, "compute": {"cpu": 1, "mem": "64Mi"}},
        "webhook": {"url": "https://x", "secret": {"name": "s", "key": "k"}},
    },
    {
        "handler": {
            "type": "tensorflow",
            "models": {"paths": [{"name": "a", "path": "pvc://c/a"}, {"name": "b", "path": "pvc://d/b"}]},
            "serverSideBatching": {"maxBatchSize": 8, "batchInterval": "5ms"},
        },
        "compute": {"cpu": 2, "mem": "2Gi", "gpu": 1},
    },
    {"handler": {"source": {"uri": "s3://b/project.zip"}}},
    {"platform": Platform.model_validate({"ingress": {"className": "nginx", "tlsSecretName": "t"}})},
    {"capabilities": Capabilities(hpa_tolerance=True), "autoscaling": {}},
]


@pytest.mark.parametrize("spec", SPECS)
def test_everything_is_valid_kubernetes(spec: dict[str, Any]) -> None:
    for child in children(**spec).values():
        if child["kind"] in ("HTTPRoute", "GRPCRoute"):
            continue  # Not a kind of Kubernetes.
        kubernetes_validate.validate(child, "1.36", strict=True)


@pytest.mark.parametrize("spec", SPECS)
def test_every_pod_is_restricted(spec: dict[str, Any]) -> None:
    pods = [
        child["spec"]["template"]["spec"]
        for child in children(**spec).values()
        if child["kind"] == "Deployment"
    ]
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_gpu_is_requested_limited_and_tolerated() -> None:
    pod = template(compute={"gpu": 2, "gpuResource": "nvidia.com/mig-1g.10gb"})["spec"]
    resources = pod["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/mig-1g.10gb"] == "2"
    assert resources["limits"]["nvidia.com/mig-1g.10gb"] == "2"
    tolerated = {"key": "nvidia.com/mig-1g.10gb", "operator": "Exists", "effect": "NoSchedule"}
    assert pod["tolerations"] == [tolerated]
    assert "nvidia" not in str(template())


def test_changes_of_scaling_and_networking_do_not_replace_pods() -> None:
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
    (metric,) = hpa["metrics"]
    assert metric["containerResource"]["container"] == "api"
    assert metric["containerResource"]["target"] == {"type": "Utilization", "averageUtilization": 80}
    assert hpa["behavior"]["scaleUp"]["policies"] == [{"type": "Percent", "value": 100, "periodSeconds": 15}]
    assert hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert "HorizontalPodAutoscaler/api-iris" not in children()


def test_the_pod_has_time_for_its_longest_request() -> None:
    assert template(handler={"requestTimeout": "90s"})["spec"]["terminationGracePeriodSeconds"] == 128


@pytest.mark.parametrize(
    ("overlay", "limit"),
    [
        ({}, None),
        ({"terminationGracePeriodSeconds": 300}, "232"),
        ({"terminationGracePeriodSeconds": 80}, "12"),
        # Too short for the longest request: as long as without connections.
        ({"terminationGracePeriodSeconds": 30}, "3"),
        ({"terminationGracePeriodSeconds": 5}, "1"),
        ({"terminationGracePeriodSeconds": 0}, "0"),
        ({"terminationGracePeriodSeconds": 80, "containers": [{"name": "api", "lifecycle": None}]}, "15"),
        (
            {
                "terminationGracePeriodSeconds": 80,
                "containers": [{"name": "api", "lifecycle": {"preStop": {"sleep": {"seconds": 10}}}}],
            },
            "5",
        ),
        (
            {
                "terminationGracePeriodSeconds": 80,
                "containers": [{"name": "api", "env": [{"name": "CORTEX_DRAIN_LIMIT", "value": "2"}]}],
            },
            "2",
        ),
    ],
)
def test_the_drain_fits_into_the_grace_period_of_the_pod(overlay: dict[str, Any], limit: str | None) -> None:
    (container,) = template(pod=overlay)["spec"]["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert variables.get("CORTEX_DRAIN_LIMIT") == limit


def test_files_are_mounted_under_their_paths() -> None:
    found = children()
    volume = next(v for v in template()["spec"]["volumes"] if v["name"] == "code")["configMap"]
    config_map = found[f"ConfigMap/{volume['name']}"]
    data = config_map["data"]
    assert config_map["immutable"]
    assert {item["path"]: data[item["key"]] for item in volume["items"]} == {
        "handler.py": "x",
        "lib/a.py": "y",
    }


def test_code_of_a_config_map_is_copied_whole() -> None:
    contents = {"data": {"handler.py": "x"}, "binaryData": {"model.onnx": "AAAA"}}
    handler = {"path": "handler.py", "source": {"configMap": {"name": "code"}}}
    found = children(handler, source={"metadata": {"name": "code", "labels": {"theirs": "1"}}, **contents})
    (copy,) = (child for name, child in found.items() if name.startswith("ConfigMap/api-iris-code-"))
    assert {name: copy[name] for name in contents} == contents
    assert "theirs" not in copy["metadata"]["labels"]


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({}, set()),
        ({"replicas": 3}, set()),
        ({"handler": {"source": {"files": {"handler.py": "new"}}}}, {"code", "config"}),
        ({"handler": {"config": {"a": 1}}}, {"config"}),
    ],
)
def test_config_maps_are_named_by_their_content(change: Any, changed: set[str]) -> None:
    def names(**spec: Any) -> set[str]:
        return {name for name in children(**spec) if name.startswith("ConfigMap/")}

    before, after = names(), names(**change)
    assert {name.split("-")[2] for name in after - before} == changed
    assert len(before) == len(after) == 2


def test_every_object_has_the_labels_and_owner_of_the_api() -> None:
    for child in children(autoscaling={}).values():
        assert child["metadata"]["ownerReferences"][0]["uid"] == "u-1"
        assert child["metadata"]["labels"]["cortex.dev/api"] == "iris"


def test_the_overlay_merges_by_name_and_removes_by_null() -> None:
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


def test_the_overlay_replaces_the_source_of_a_volume() -> None:
    pod = template(pod={"volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "cache"}}]})[
        "spec"
    ]
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "models")
    assert volume == {"name": "models", "persistentVolumeClaim": {"claimName": "cache"}}


def test_claims_are_mounted_where_models_are_read() -> None:
    pod = template(handler={"models": {"path": "pvc://models/iris/1"}})["spec"]
    mount = next(m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == "/mnt/pvc/models")
    volume = next(volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    assert volume["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert mount["readOnly"] is True


def test_tensorflow_serving_has_the_gpu_and_its_half() -> None:
    handler = {"type": "tensorflow", "models": {"path": "s3://b/m/"}}
    pod = template(handler=handler, compute={"cpu": 2, "mem": "2Gi", "gpu": 1})["spec"]
    (server,), (own,) = pod["initContainers"], pod["containers"]
    assert server["restartPolicy"] == "Always"
    assert server["image"] == "tensorflow/serving:2.19.1-gpu"
    half = {"cpu": "1000m", "memory": str(2**30)}
    assert server["resources"]["requests"] == {**half, "nvidia.com/gpu": "1"}
    assert own["resources"]["requests"] == half
    assert {"name": "CORTEX_TENSORFLOW_SERVING", "value": "localhost:9000"} in own["env"]
    assert "initContainers" not in template()["spec"]


@pytest.mark.parametrize("gpu", [0, 1])
def test_the_image_of_tensorflow_serving_is_the_one_that_the_api_names(gpu: int) -> None:
    handler = {
        "type": "tensorflow",
        "models": {"path": "s3://b/m/"},
        "tensorflowServingImage": "own/serving:1",
    }
    (server,) = template(handler=handler, compute={"gpu": gpu})["spec"]["initContainers"]
    assert server["image"] == "own/serving:1"


def test_an_http_route_removes_the_endpoint_from_the_path() -> None:
    route = children(platform=PLATFORM, networking={"endpoint": "/a/b"})["HTTPRoute/api-iris"]["spec"]
    (rule,) = route["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/a/b"}}]
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
    prefix = {"set": [{"name": "X-Forwarded-Prefix", "value": "/a/b"}]}
    assert rule["filters"] == [
        {"type": "URLRewrite", "urlRewrite": rewrite},
        {"type": "RequestHeaderModifier", "requestHeaderModifier": prefix},
    ]


GRPC_GATEWAY = {"name": "g", "namespace": "n", "sectionName": "s", "grpcHostname": "{name}-{namespace}.h"}


@pytest.mark.parametrize(
    ("settings", "section"),
    [
        ({}, {"sectionName": "s"}),
        ({"grpcSectionName": "t"}, {"sectionName": "t"}),
        ({"sectionName": None}, {}),
    ],
)
def test_a_grpc_route_has_the_host_name_of_the_api(settings: dict[str, Any], section: dict[str, Any]) -> None:
    platform = Platform.model_validate({"gateway": {**GRPC_GATEWAY, **settings}})
    spec = children({"protocols": {"grpc": True}}, platform=platform)["GRPCRoute/api-iris"]["spec"]
    assert spec["hostnames"] == ["iris-default.h"]
    assert spec["rules"] == [{"backendRefs": [{"kind": "Service", "name": "api-iris", "port": 8082}]}]
    gateway = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g", "namespace": "n"}
    assert spec["parentRefs"] == [{**gateway, **section}]


@pytest.mark.parametrize(
    ("platform", "handler"),
    [
        (PLATFORM, {"protocols": {"grpc": True}}),
        (Platform.model_validate({"gateway": GRPC_GATEWAY}), {}),
        (Platform.model_validate({"ingress": {"className": "nginx"}}), {"protocols": {"grpc": True}}),
    ],
)
def test_without_grpc_or_host_names_for_it_there_is_no_grpc_route(
    platform: Platform, handler: dict[str, Any]
) -> None:
    assert "GRPCRoute/api-iris" not in children(handler, platform=platform)


@pytest.mark.parametrize("settings", [{"grpcHostname": "{name}.h"}, {"grpcSectionName": "s"}])
def test_host_names_for_grpc_are_different_for_each_api(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\{namespace\}|requires grpcHostname"):
        Platform.model_validate({"gateway": {"name": "g", "namespace": "n", **settings}})


def test_tensorflow_without_a_server_uses_that_of_the_image() -> None:
    handler = {"type": "tensorflow", "models": {"path": "s3://b/m/"}}
    found = children(handler, platform=Platform.model_validate({"tensorflowServingImage": None}))
    pod = found["Deployment/api-iris"]["spec"]["template"]["spec"]
    assert "initContainers" not in pod
    assert "CORTEX_TENSORFLOW_SERVING" not in str(pod["containers"][0]["env"])
    assert pod["containers"][0]["image"] == Platform().runtime_image
    settings = {"tensorflowServingImage": None, "runtimeTensorflowImage": "runtime-tensorflow:1"}
    images = [
        children({**handler, **more}, platform=Platform.model_validate(settings))["Deployment/api-iris"][
            "spec"
        ]["template"]["spec"]["containers"][0]["image"]
        for more in ({}, {"image": "own:1"}, {"type": "onnx"})
    ]
    assert images == ["runtime-tensorflow:1", "own:1", Platform().runtime_image]


def test_an_async_api_has_a_gateway_and_workers_and_one_queue() -> None:
    found = children(kind="AsyncAPI", platform=PLATFORM, autoscaling={"maxReplicas": 7})
    gateway, workers = found["Deployment/api-iris-gateway"]["spec"], found["Deployment/api-iris"]["spec"]
    (front,), (back,) = (d["template"]["spec"]["containers"] for d in (gateway, workers))
    assert front["command"][-1] == "gateway"
    assert back["command"][-1] == "consume"
    address = {"name": "CORTEX_QUEUE_URL", "value": "nats://nats:4222"}
    assert address in front["env"]
    assert address in back["env"]
    assert {"name": "CORTEX_MAX_REPLICAS", "value": "7"} in front["env"]
    assert found["Service/api-iris"]["spec"]["selector"] == gateway["selector"]["matchLabels"]
    assert gateway["selector"] != workers["selector"]
    assert all(volume["name"] != "code" for volume in gateway["template"]["spec"]["volumes"])
    assert "HorizontalPodAutoscaler/api-iris" not in found
    assert "HorizontalPodAutoscaler/api-iris-gateway" in found


def test_the_hpa_has_tolerances_where_the_api_server_supports_them() -> None:
    def behavior(version: dict[str, Any]) -> Any:
        found = children(autoscaling={"upscaleTolerance": 0.1}, capabilities=Capabilities.of(version))
        return found["HorizontalPodAutoscaler/api-iris"]["spec"]["behavior"]["scaleUp"].get("tolerance")

    assert behavior({"major": "1", "minor": "35+"}) == "0.1"
    assert behavior({"major": "1", "minor": "34"}) is None
    assert behavior({}) is None


def test_an_ingress_strips_the_endpoint_by_annotations() -> None:
    platform = Platform.model_validate({"ingress": {"className": "nginx", "hostname": "h"}})
    ingress = children(platform=platform, networking={"endpoint": "/a/b"})["Ingress/api-iris"]
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/rewrite-target"] == "/$2"
    assert annotations["nginx.ingress.kubernetes.io/x-forwarded-prefix"] == "/a/b"
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == "h"
    assert rule["http"]["paths"][0]["path"] == "/a/b(/|$)(.*)"


def keys_of(pod: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return the mounted Secret with API keys and its path, or None."""
    source = next((v["secret"] for v in pod["spec"]["volumes"] if "secret" in v), None)
    mounts = [m for c in pod["spec"]["containers"] for m in c["volumeMounts"] if m["name"] == "api-keys"]
    return source, [m["mountPath"] for m in mounts if m["readOnly"]]


def test_api_keys_are_mounted_only_where_requests_are_served() -> None:
    handler = {"apiKeys": {"secret": {"name": "keys"}}}
    source, places = keys_of(template(handler=handler))
    assert source["secretName"] == "keys"
    assert "items" not in source
    assert places == ["/etc/cortex-keys"]
    variable = {"name": "CORTEX_API_KEYS", "value": "/etc/cortex-keys"}
    assert variable in template(handler=handler)["spec"]["containers"][0]["env"]
    found = children(
        {"apiKeys": {"secret": {"name": "keys", "key": "b"}}}, kind="AsyncAPI", platform=PLATFORM
    )
    front, back = (
        found[f"Deployment/{name}"]["spec"]["template"] for name in ("api-iris-gateway", "api-iris")
    )
    assert keys_of(front)[0]["items"] == [{"key": "b", "path": "b"}]
    assert keys_of(back) == (None, [])
    assert keys_of(template()) == (None, [])


def test_the_pod_that_deletes_a_queue_needs_no_keys() -> None:
    manifest = {
        "kind": "AsyncAPI",
        "metadata": {"name": "iris", "namespace": "default", "uid": "u-1"},
        "spec": {"handler": {"type": "python", "path": "h.py", "apiKeys": {"secret": {"name": "keys"}}}},
    }
    api = parse(manifest)
    assert isinstance(api, AsyncAPI)
    assert keys_of(queue_deletion.in_namespace_of(api, PLATFORM, "cortex-default-iris")) == (None, [])


@pytest.mark.parametrize("kind", ["RealtimeAPI", "AsyncAPI"])
def test_rendered_objects_contain_no_credentials(kind: str) -> None:
    """Secrets are referenced by name and key. ConfigMaps do not contain references to the platform's Secrets."""
    handler: dict[str, Any] = {
        "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "t"}}}],
        "envFrom": [{"secretRef": {"name": "many"}}],
        "apiKeys": {"secret": {"name": "keys"}},
    }
    more = {"webhook": {"secret": {"name": "signing", "key": "s"}}} if kind == "AsyncAPI" else {}
    found = children(handler, kind=kind, platform=PLATFORM, **more)
    for name, child in found.items():
        assert child["kind"] != "Secret"
        if child["kind"] == "ConfigMap":
            assert "nats://" not in json.dumps(child), name
    for child in found.values():
        for container in (
            child["spec"]["template"]["spec"]["containers"] if child["kind"] == "Deployment" else ()
        ):
            for variable in container.get("env", ()):
                if variable["name"] in ("TOKEN", "CORTEX_WEBHOOK_SECRET"):
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}
                    assert "value" not in variable
            assert not any("SECRET" in word or "token" in word.lower() for word in container["args"])


def test_a_config_map_with_an_archive_is_mounted_and_replaces_the_pods() -> None:
    handler = {"path": "handlers/iris.py", "source": {"configMap": {"name": "iris-code"}}}

    def rendered(**sections: Any) -> Any:
        config_map = {"metadata": {"name": "iris-code"}, **sections}
        return template(handler=handler, source=config_map)

    plain = rendered(data={"handler.py": "x"})
    first, second = (rendered(binaryData={"project.zip": content}) for content in ("AAAA", "BBBB"))
    assert first["metadata"]["labels"] != second["metadata"]["labels"]
    (container,) = first["spec"]["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert (mounts["code"]["mountPath"], mounts["code"]["readOnly"]) == ("/mnt/packed", True)
    assert mounts["project"] == {"name": "project", "mountPath": "/mnt/project"}
    assert container["args"][container["args"].index("--packed") + 1] == "/mnt/packed"
    volumes = {volume["name"]: volume for volume in first["spec"]["volumes"]}
    assert volumes["code"]["configMap"]["name"].startswith("api-iris-code-")
    assert volumes["project"]["emptyDir"] == {}
    (container,) = plain["spec"]["containers"]
    assert {"name": "code", "mountPath": "/mnt/project", "readOnly": True} in container["volumeMounts"]
    assert "--packed" not in container["args"]
    inline = template(handler={"source": {"files": {"handler.py": "x", "project.zip": "y"}}})
    assert "--packed" not in inline["spec"]["containers"][0]["args"]


@pytest.mark.parametrize(
    ("surge", "unavailable", "strategy"),
    [
        (0, "100%", "Recreate"),
        ("0%", "100%", "Recreate"),
        (1, "100%", "RollingUpdate"),
        (0, 1, "RollingUpdate"),
        ("25%", "50%", "RollingUpdate"),
    ],
)
def test_pods_are_replaced_as_the_update_strategy_has_it(surge: Any, unavailable: Any, strategy: str) -> None:
    found = children(updateStrategy={"maxSurge": surge, "maxUnavailable": unavailable})
    bounds = {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    expected = {"type": strategy, **(bounds if strategy == "RollingUpdate" else {})}
    assert found["Deployment/api-iris"]["spec"]["strategy"] == expected


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        ({}, 1),
        ({"replicas": 3}, 3),
        ({"paused": True, "replicas": 3}, 0),
        ({"autoscaling": {"minReplicas": 2}}, 2),
        ({"autoscaling": {"minReplicas": 2, "initReplicas": 4}}, 4),
        ({"kind": "AsyncAPI", "autoscaling": {"minReplicas": 0}}, 0),
        ({"kind": "AsyncAPI", "autoscaling": {"minReplicas": 0, "initReplicas": 0}}, 0),
    ],
)
def test_the_replicas_at_birth(spec: dict[str, Any], first: int) -> None:
    kind = spec.pop("kind", "RealtimeAPI")
    handler = {"type": "python", "path": "h.py", "source": {"files": {"h.py": ""}}}
    manifest = {"kind": kind, "metadata": {"name": "a"}, "spec": {"handler": handler, **spec}}
    assert deployment.initial_replicas(parse(manifest)) == first


@pytest.mark.parametrize(
    ("platform", "routed", "endpoint", "url"),
    [
        ({}, True, None, "http://api-iris.default.svc:8080"),
        ({"gateway": {"name": "g", "namespace": "n"}}, True, None, "http://api-iris.default.svc:8080"),
        ({"gateway": {"name": "g", "namespace": "n", "hostname": "h"}}, True, None, "http://h/iris"),
        (
            {"gateway": {"name": "g", "namespace": "n", "hostname": "h", "scheme": "https"}},
            True,
            "/a/b/",
            "https://h/a/b",
        ),
        (
            {"gateway": {"name": "g", "namespace": "n", "hostname": "h"}},
            False,
            None,
            "http://api-iris.default.svc:8080",
        ),
        ({"ingress": {"className": "nginx", "hostname": "i"}}, True, "/a", "http://i/a"),
    ],
)
def test_the_address_that_clients_are_given(
    platform: dict[str, Any], routed: bool, endpoint: str | None, url: str
) -> None:
    handler = {"type": "python", "path": "h.py", "source": {"files": {"h.py": ""}}}
    networking = {"endpoint": endpoint} if endpoint else {}
    api = parse(
        {
            "kind": "RealtimeAPI",
            "metadata": {"name": "iris", "namespace": "default"},
            "spec": {"handler": handler, "networking": networking},
        }
    )
    assert route.best_url(api, Platform.model_validate(platform), routed) == url


def test_an_ingress_has_the_endpoint_where_its_platform_puts_it() -> None:
    ingress = {"className": "x", "annotations": {"a": "{endpoint}/b/{endpoint}"}, "path": "{endpoint}/*"}
    found = children(platform=Platform.model_validate({"ingress": ingress}), networking={"endpoint": "/e/"})[
        "Ingress/api-iris"
    ]
    assert found["metadata"]["annotations"]["a"] == "/e/b//e"
    assert found["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/e/*"


def test_tensorflow_without_a_request_for_processor_time_has_none_on_either_side() -> None:
    handler = {"type": "tensorflow", "models": {"path": "s3://b/m/"}}
    pod = template(handler=handler, compute={"cpu": None, "mem": "1Gi"})["spec"]
    half = {"memory": str(2**29)}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["resources"] == {"requests": half, "limits": half}


def test_tolerations_are_those_of_the_spec_word_for_word() -> None:
    toleration = {"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    assert template(compute={"tolerations": [toleration]})["spec"]["tolerations"] == [toleration]


@pytest.mark.parametrize(("factor", "value"), [(1.001, 1), (1.014, 1), (1.016, 2), (3, 200)])
def test_a_step_of_the_hpa_is_one_percent_at_least(factor: float, value: int) -> None:
    hpa = children(autoscaling={"maxUpscaleFactor": factor})["HorizontalPodAutoscaler/api-iris"]
    (policy,) = hpa["spec"]["behavior"]["scaleUp"]["policies"]
    assert policy["value"] == value


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("containers", "name"),
        ("initContainers", "name"),
        ("env", "name"),
        ("volumeMounts", "mountPath"),
        ("imagePullSecrets", "name"),
        ("topologySpreadConstraints", "topologyKey"),
        ("hostAliases", "ip"),
    ],
)
def test_the_overlay_merges_lists_by_the_keys_of_kubernetes(field: str, key: str) -> None:
    base = {field: [{key: "a", "x": 1}, {key: "b", "x": 2}]}
    overlay = {field: [{key: "b", "y": 3}, {key: "c"}]}
    merged = [{key: "a", "x": 1}, {key: "b", "x": 2, "y": 3}, {key: "c"}]
    assert merge(base, overlay) == {field: merged}
    # Other lists are replaced.
    assert merge({"args": [{key: "a"}]}, {"args": [{key: "b"}]}) == {"args": [{key: "b"}]}


@pytest.mark.parametrize("overlay", [{"spec": {"hostNetwork": True}}, {"metadata": {"labels": {"x": "y"}}}])
def test_the_overlay_may_be_a_pod_template(overlay: dict[str, Any]) -> None:
    found = template(pod=overlay)
    assert found["spec"].get("hostNetwork", False) == ("spec" in overlay)
    assert found["metadata"]["labels"].get("x") == ("y" if "metadata" in overlay else None)
    assert "spec" not in found["spec"]


@pytest.mark.parametrize(
    ("policy", "requests", "admin"),
    [
        ({}, {}, None),
        ({"allowFrom": [{"podSelector": {}}]}, {"from": [{"podSelector": {}}]}, None),
        ({"adminFrom": [{"podSelector": {}}]}, {}, {"from": [{"podSelector": {}}]}),
    ],
)
def test_a_network_policy_limits_who_may_connect(
    policy: dict[str, Any], requests: dict[str, Any], admin: dict[str, Any] | None
) -> None:
    found = children(platform=Platform.model_validate({"networkPolicy": policy}))["NetworkPolicy/api-iris"]
    expected = [{"ports": [{"port": 8080, "protocol": "TCP"}], **requests}]
    if admin:
        expected.append({"ports": [{"port": 8081, "protocol": "TCP"}], **admin})
    assert found["spec"]["ingress"] == expected
    assert found["spec"]["podSelector"] == {
        "matchLabels": {"cortex.dev/api": "iris", "cortex.dev/kind": "RealtimeAPI"}
    }


def test_the_gateway_of_an_async_api_runs_no_user_code() -> None:
    handler = {"image": "own:1", "type": "onnx", "models": {"path": "pvc://c/m.onnx"}}
    found = children(handler, kind="AsyncAPI", platform=PLATFORM, replicas=4)
    pod = found["Deployment/api-iris-gateway"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == Platform().runtime_image
    assert {"name": "CORTEX_MAX_REPLICAS", "value": "4"} in container["env"]
    assert "persistentVolumeClaim" not in json.dumps(pod)
    assert {volume["name"] for volume in pod["spec"]["volumes"]} == {"config", "tmp"}


TRACED = Platform.model_validate({"tracing": {"endpoint": "http://collector:4318", "sampling": 5}})


@pytest.mark.parametrize(
    ("platform", "tracing", "expected"),
    [
        (NOTHING, None, None),
        (NOTHING, {"sampling": 5}, None),
        (NOTHING, {"endpoint": "http://own:1"}, {"endpoint": "http://own:1", "sampling": 1.0}),
        (TRACED, None, {"endpoint": "http://collector:4318", "sampling": 5.0}),
        (TRACED, {"sampling": 0}, {"endpoint": "http://collector:4318", "sampling": 0.0}),
        (TRACED, {"endpoint": "http://own:1"}, {"endpoint": "http://own:1", "sampling": 5.0}),
    ],
    ids=["no endpoint", "sampling alone", "of the API", "of the platform", "own sampling", "own endpoint"],
)
def test_tracing_of_an_api_overrides_that_of_the_platform(platform, tracing, expected):
    spec = {} if tracing is None else {"tracing": tracing}
    (config,) = (
        child
        for name, child in children(platform=platform, **spec).items()
        if name.startswith("ConfigMap/") and "api.json" in child["data"]
    )
    assert json.loads(config["data"]["api.json"])["spec"].get("tracing") == expected


def candidate_children(**spec: Any) -> dict[str, dict[str, Any]]:
    """Return the objects of a candidate."""
    handler = {"type": "python", "path": "handler.py"}
    manifest = {
        "kind": "RealtimeAPI",
        "metadata": {"name": "iris", "namespace": "default", "uid": "u-1"},
        "spec": {"handler": handler, **spec},
    }
    api = parse(manifest)
    assert isinstance(api, RealtimeAPI)
    made = candidate.render(api, candidate_api(api), PLATFORM, None, OLD)
    split = candidate.split(api, made, "10.0.0.1", True, None)
    return {f"{child['kind']}/{child['metadata']['name']}": child for child in [*made.children, split]}


def test_the_objects_of_a_candidate_are_valid_and_apart_from_those_of_the_stable_version() -> None:
    spec = {"autoscaling": {"minReplicas": 4}, "candidate": {"weight": 50, "autoscaling": {"minReplicas": 2}}}
    found = candidate_children(**spec)
    assert sorted(name for name in found if not name.startswith("ConfigMap/")) == [
        "Deployment/api-iris-candidate",
        "HorizontalPodAutoscaler/api-iris-candidate",
        "PodDisruptionBudget/api-iris-candidate",
        "Service/api-iris-candidate",
    ]
    for child in found.values():
        kubernetes_validate.validate(child, "1.36", strict=True)
    stable = children(**spec)
    assert not found.keys() & stable.keys()
    pods = found["Deployment/api-iris-candidate"]["spec"]["selector"]["matchLabels"]
    assert found["Service/api-iris-candidate"]["spec"]["selector"] == pods
    assert stable["Service/api-iris"]["spec"]["selector"] == {**pods, "cortex.dev/component": "api"}
    scaled = found["HorizontalPodAutoscaler/api-iris-candidate"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == "api-iris-candidate"


def test_the_pods_of_a_candidate_have_no_split() -> None:
    spec = candidate_children(candidate={})["Deployment/api-iris-candidate"]["spec"]["template"]["spec"]
    assert "split" not in [volume["name"] for volume in spec["volumes"]]
    assert "env" not in spec["containers"][0]


def test_a_candidate_changes_no_pod_of_the_stable_version() -> None:
    assert template(candidate={"weight": 5, "compute": {"cpu": 2}}) == template()


def test_the_stable_replicas_may_send_requests_to_the_candidate() -> None:
    platform = Platform.model_validate({"networkPolicy": {"allowFrom": [{"namespaceSelector": {}}]}})
    requests, *_ = children(platform=platform, candidate={})["NetworkPolicy/api-iris"]["spec"]["ingress"]
    stable = {
        "podSelector": {"matchLabels": children()["Deployment/api-iris"]["spec"]["selector"]["matchLabels"]}
    }
    assert requests["from"] == [{"namespaceSelector": {}}, stable]
    requests, *_ = children(platform=platform)["NetworkPolicy/api-iris"]["spec"]["ingress"]
    assert requests["from"] == [{"namespaceSelector": {}}]
