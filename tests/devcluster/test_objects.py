"""The commands of kubectl on ConfigMaps and other plain objects, and what they print."""

from __future__ import annotations

import json
from typing import Any


def test_client_side_apply_creates_updates_and_changes_nothing_twice(kubectl: Any, make: Any) -> None:
    assert kubectl("apply", "-f", "-", stdin=make.configmap("a", x="1", y="2")) == "configmap/a created\n"
    assert kubectl("apply", "-f", "-", stdin=make.configmap("a", x="1", y="2")) == "configmap/a unchanged\n"
    assert kubectl("apply", "-f", "-", stdin=make.configmap("a", x="3")) == "configmap/a configured\n"
    assert kubectl.get("configmap", "a")["data"] == {"x": "3"}


def test_server_side_apply_keeps_the_fields_of_each_manager(kubectl: Any, make: Any) -> None:
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=make.configmap("a", x="1"))
    kubectl("apply", "--server-side", "--field-manager=two", "-f", "-", stdin=make.configmap("a", y="2"))
    assert kubectl.get("configmap", "a")["data"] == {"x": "1", "y": "2"}
    output = kubectl.fails(
        "apply", "--server-side", "--field-manager=two", "-f", "-", stdin=make.configmap("a", x="9")
    )
    assert 'Apply failed with 1 conflict: conflict with "one": .data.x' in output
    assert kubectl.get("configmap", "a")["data"] == {"x": "1", "y": "2"}
    force = ("apply", "--server-side", "--force-conflicts", "--field-manager=two")
    kubectl(*force, "-f", "-", stdin=make.configmap("a", x="9"))
    assert kubectl.get("configmap", "a")["data"] == {"x": "9"}
    shown = kubectl("get", "configmap", "a", "-o", "yaml", "--show-managed-fields")
    assert "manager: two" in shown
    assert "manager: one" not in shown


def test_apply_without_changes_writes_nothing(kubectl: Any, make: Any) -> None:
    kubectl("apply", "--server-side", "-f", "-", stdin=make.configmap("a", x="1"))
    before = kubectl.get("configmap", "a")["metadata"]["resourceVersion"]
    kubectl("apply", "--server-side", "-f", "-", stdin=make.configmap("a", x="1"))
    assert kubectl.get("configmap", "a")["metadata"]["resourceVersion"] == before


def test_create_of_an_existing_and_get_of_a_missing_object_fail(kubectl: Any, make: Any) -> None:
    kubectl("create", "-f", "-", stdin=make.configmap("a"))
    assert 'configmaps "a" already exists' in kubectl.fails("create", "-f", "-", stdin=make.configmap("a"))
    assert 'configmaps "b" not found' in kubectl.fails("get", "configmap", "b")


def test_kubectl_create_configmap_and_secret(kubectl: Any) -> None:
    kubectl("create", "configmap", "a", "--from-literal=x=1")
    kubectl("create", "secret", "generic", "s", "--from-literal=token=t")
    assert kubectl.get("configmap", "a")["data"] == {"x": "1"}
    assert kubectl.get("secret", "s")["data"] == {"token": "dA=="}


def test_list_is_applied_item_by_item(kubectl: Any, make: Any) -> None:
    both = {"apiVersion": "v1", "kind": "List", "items": [make.configmap("a", x="1"), make.configmap("b")]}
    assert kubectl("apply", "-f", "-", stdin=both) == "configmap/a created\nconfigmap/b created\n"
    assert kubectl("apply", "-f", "-", stdin=both) == "configmap/a unchanged\nconfigmap/b unchanged\n"
    kubectl("apply", "-f", "-", stdin=kubectl("get", "configmap", "a", "b", "-o", "yaml"))
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=both)
    assert kubectl("delete", "-f", "-", stdin=both).count("deleted") == 2


def test_patches_of_all_three_types(kubectl: Any, make: Any) -> None:
    kubectl("create", "-f", "-", stdin=make.deployment("web", replicas=0))
    two = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "other:1"}]}}}}
    kubectl("patch", "deployment", "web", "-p", json.dumps(two))
    containers = kubectl.get("deploy", "web")["spec"]["template"]["spec"]["containers"]
    assert {container["name"] for container in containers} == {"main", "side"}
    kubectl("patch", "deployment", "web", "--type=merge", "-p", '{"metadata":{"labels":{"a":"b"}}}')
    kubectl(
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        '[{"op":"replace","path":"/metadata/labels/a","value":"c"}]',
    )
    assert kubectl.get("deploy", "web")["metadata"]["labels"] == {"a": "c"}
    for operation in (
        '{"op":"remove","path":"/spec/none"}',
        '{"op":"test","path":"/spec/paused","value":true}',
    ):
        output = kubectl.fails("patch", "deploy", "web", "--type=json", "-p", f"[{operation}]")
        assert "the server rejected our request due to an error in our request" in output


def test_lists_by_label_and_field_selector(kubectl: Any, make: Any) -> None:
    for name, tier in (("a", "front"), ("b", "back")):
        body = make.configmap(name)
        body["metadata"]["labels"] = {"tier": tier}
        kubectl("create", "-f", "-", stdin=body)
    names = ("-o", "jsonpath={.items[*].metadata.name}")
    assert kubectl("get", "configmaps", "-l", "tier=front", *names) == "a"
    assert kubectl("get", "configmaps", "-l", "tier in (front,back),tier!=back", *names) == "a"
    assert kubectl("get", "configmaps", "--field-selector", "metadata.name=b", *names) == "b"
    assert kubectl("get", "configmaps", "-A", "-l", "tier").count(kubectl.namespace) == 2


def test_watch_prints_changes(kubectl: Any, make: Any) -> None:
    kubectl("create", "-f", "-", stdin=make.configmap("a", x="1"))
    watching = kubectl.popen("get", "configmaps", "-w")
    try:
        assert watching.stdout.readline().split() == ["NAME", "DATA", "AGE"]
        assert watching.stdout.readline().split()[:2] == ["a", "1"]
        kubectl("patch", "configmap", "a", "--type=merge", "-p", '{"data":{"y":"2"}}')
        assert watching.stdout.readline().split()[:2] == ["a", "2"]
    finally:
        watching.terminate()
        watching.wait()


def test_deletion_of_an_owner_deletes_its_dependents(kubectl: Any, make: Any) -> None:
    kubectl("create", "-f", "-", stdin=make.configmap("owner"))
    uid = kubectl.get("configmap", "owner")["metadata"]["uid"]
    for name in ("one", "two"):
        body = make.configmap(name)
        reference = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "owner",
            "uid": uid,
            "blockOwnerDeletion": True,
        }
        body["metadata"]["ownerReferences"] = [reference]
        kubectl("create", "-f", "-", stdin=body)
    kubectl("delete", "configmap", "owner", "--cascade=foreground")
    assert "No resources found" in kubectl.run("get", "configmaps").stderr


def test_deletion_of_a_namespace_deletes_its_contents(kubectl: Any, make: Any) -> None:
    kubectl("create", "namespace", f"{kubectl.namespace}-more")
    body = make.configmap("a")
    body["metadata"]["namespace"] = f"{kubectl.namespace}-more"
    kubectl("create", "-n", f"{kubectl.namespace}-more", "-f", "-", stdin=body)
    kubectl("delete", "namespace", f"{kubectl.namespace}-more", "--timeout=60s")
    assert "not found" in kubectl.fails("get", "namespace", f"{kubectl.namespace}-more")


def test_finalizer_delays_deletion(kubectl: Any, make: Any) -> None:
    body = make.configmap("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    kubectl("create", "-f", "-", stdin=body)
    kubectl("delete", "configmap", "a", "--wait=false")
    assert kubectl.get("configmap", "a")["metadata"]["deletionTimestamp"]
    kubectl("patch", "configmap", "a", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert "not found" in kubectl.fails("get", "configmap", "a")


def test_api_resources_lists_kinds_and_short_names(kubectl: Any) -> None:
    lines = [line.split() for line in kubectl("api-resources").splitlines()]
    assert ["deployments", "deploy", "apps/v1", "true", "Deployment"] in lines
