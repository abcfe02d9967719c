"""Cached objects are smaller than live ones, and lead to the same decisions."""

import copy
import json
from typing import Any

import pytest

from cortex_operator.apply.drift import changes
from cortex_operator.status import failures
from cortex_operator.watch.cache import Cache, Key
from cortex_operator.watch.compact import LAST_APPLIED, compact_api, compact_child

Object = dict[str, Any]
LABELS = {"cortex.dev/api": "iris", "cortex.dev/kind": "RealtimeAPI"}
OURS = {"manager": "cortex-operator", "operation": "Apply"}


def deployment(*managers: Object) -> Object:
    container = {"name": "api", "image": "x", "env": [{"name": "DEBUG", "value": "1"}]}
    metadata = {
        "name": "api-iris",
        "namespace": "default",
        "uid": "u",
        "resourceVersion": "7",
        "labels": LABELS,
    }
    return {
        "kind": "Deployment",
        "metadata": {**metadata, "managedFields": list(managers)},
        "spec": {"replicas": 2, "paused": True, "template": {"spec": {"containers": [container]}}},
    }


@pytest.mark.parametrize(
    "manager",
    [
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}},
        {
            "manager": "hpa",
            "operation": "Update",
            "subresource": "scale",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        },
        {**OURS, "fieldsV1": {"f:spec": {"f:paused": {}}}},
        {**OURS, "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}},
    ],
)
def test_the_changes_of_other_writers_are_found_in_the_cached_object(manager: Object) -> None:
    live, wanted = deployment(manager), deployment()
    del (
        wanted["metadata"]["managedFields"],
        wanted["spec"]["paused"],
        wanted["spec"]["template"]["spec"]["containers"][0]["env"],
    )
    assert changes(compact_child(live), wanted) == changes(live, wanted)


def test_only_the_owner_of_replicas_is_kept_in_managed_fields() -> None:
    fields = {"f:spec": {"f:replicas": {}, "f:template": {}}, "f:metadata": {"f:labels": {}}}
    (kept,) = compact_child(deployment({**OURS, "fieldsV1": fields}))["metadata"]["managedFields"]
    assert kept == {**OURS, "fieldsV1": {"f:spec": {"f:replicas": {}}}}


def test_a_pod_keeps_what_a_failure_is_explained_with() -> None:
    gpu = {"limits": {"nvidia.com/gpu": "1"}}
    pod = {
        "kind": "Pod",
        "metadata": {"name": "api-iris-1", "managedFields": [{"manager": "kubelet"}]},
        "spec": {
            "nodeName": "n",
            "volumes": [{}],
            "containers": [{"name": "api", "env": [{}], "resources": gpu}],
        },
        "status": {"phase": "Running"},
    }
    small = compact_child(pod)
    assert small["spec"] == {"nodeName": "n", "containers": [{"name": "api", "resources": gpu}]}
    waiting = failures.Failure("Unschedulable", "Insufficient nvidia.com/gpu", "p")
    assert (
        failures.blocking_device(waiting, [small])
        == failures.blocking_device(waiting, [pod])
        == "nvidia.com/gpu"
    )
    assert small["status"] == pod["status"]


def test_a_resource_keeps_its_spec_and_status_but_not_what_kubectl_stores() -> None:
    annotations = {LAST_APPLIED: "{}", "note": "x"}
    live = {
        "metadata": {"name": "iris", "annotations": annotations, "managedFields": [{}]},
        "spec": {"a": [1, "b"]},
    }
    before = copy.deepcopy(live)
    assert compact_api(live) == {**live, "metadata": {"name": "iris", "annotations": {"note": "x"}}}
    assert live == before, "the caller's object is unchanged"


def test_code_that_is_in_a_spec_and_in_a_config_map_is_stored_once() -> None:
    cache, key = Cache(), Key("RealtimeAPI", "default", "iris")
    code = json.dumps({"code": "class Handler: ...\n" * 100})
    metadata = {"name": "iris", "namespace": "default", "uid": "u"}
    spec = {"handler": {"source": {"files": json.loads(code)}}}
    cache.put_api(key, {"metadata": metadata, "spec": spec})
    config_map = {"kind": "ConfigMap", "metadata": {**metadata, "labels": LABELS}, "data": json.loads(code)}
    cache.put_child(config_map)
    api, child = cache.api(key), cache.child(key, "ConfigMap", "iris")
    assert api is not None
    assert child is not None
    assert api["spec"]["handler"]["source"]["files"]["code"] is child["data"]["code"]


def test_a_cached_spec_is_used_again_while_its_generation_is_the_same() -> None:
    live = deployment()
    live["metadata"]["generation"] = 1
    known = compact_child(live)
    later = {**copy.deepcopy(live), "status": {"replicas": 2}}
    small = compact_child(later, known)
    assert (small["spec"] is known["spec"], small["status"]) == (True, {"replicas": 2})


@pytest.mark.parametrize("change", [{"generation": 2}, {"uid": "another"}])
def test_the_spec_of_another_generation_or_object_replaces_the_cached_one(change: Object) -> None:
    live = deployment()
    live["metadata"]["generation"] = 1
    known = compact_child(live)
    later = copy.deepcopy(live)
    later["metadata"].update(change)
    later["spec"]["replicas"] = 5
    assert compact_child(later, known)["spec"]["replicas"] == 5


def test_a_change_of_an_object_without_a_generation_is_cached() -> None:
    service = {"kind": "Service", "metadata": {"name": "a", "uid": "u"}, "spec": {"ports": [1]}}
    later = {**service, "spec": {"ports": [2]}}
    assert compact_child(later, compact_child(service)) == later
