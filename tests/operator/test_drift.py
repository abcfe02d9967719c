"""Changes by other writers are found with field and manager; defaults of the API server are not changes."""

import copy
from typing import Any

import pytest

from cortex_operator.apply.conflicts import FIRST_BACKOFF, MAX_BACKOFF, Conflicts
from cortex_operator.apply.drift import changes, removal

Object = dict[str, Any]

WANTED: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "api-a", "labels": {"mine": "1"}},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "containers": [
                    {
                        "name": "api",
                        "image": "i",
                        "args": ["x"],
                        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            },
        },
    },
}
POD = ("spec", "template", "spec")
API = 'k:{"name":"api"}'


def live(change: Any = None, *managers: Object) -> Object:
    """Return the live Deployment, with defaults and a change by another writer."""
    made = copy.deepcopy(WANTED)
    made["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": list(managers)}
    made["spec"] |= {"replicas": 3, "revisionHistoryLimit": 10}
    pod = made["spec"]["template"]["spec"]
    pod |= {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always"}
    pod["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
    if change is not None:
        change(pod)
    return made


def owner(fields: Object, manager: str = "kubectl-edit", **more: Any) -> Object:
    """Return an entry of managedFields for fields of the pod template."""
    tree: Object = {"f:spec": {"f:template": {"f:spec": fields}}}
    return {"manager": manager, "operation": "Update", "fieldsV1": tree, **more}


def of_container(fields: Object) -> Object:
    return {"f:containers": {API: {".": {}, **fields}}}


ADDITIONS: dict[str, tuple[Any, Object, str, tuple[str | int, ...]]] = {
    "a sidecar": (
        lambda pod: pod["containers"].append({"name": "proxy", "image": "p"}),
        {"f:containers": {'k:{"name":"proxy"}': {".": {}, "f:name": {}, "f:image": {}}}},
        "spec.template.spec.containers[name=proxy]",
        (*POD, "containers", 1),
    ),
    "a sidecar that comes first": (
        lambda pod: pod["containers"].insert(0, {"name": "proxy", "image": "p"}),
        {"f:containers": {'k:{"name":"proxy"}': {".": {}, "f:name": {}}}},
        "spec.template.spec.containers[name=proxy]",
        (*POD, "containers", 0),
    ),
    "the first variable": (
        lambda pod: pod["containers"][0].update(env=[{"name": "A", "value": "1"}]),
        of_container({"f:env": {".": {}, 'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}}}),
        "spec.template.spec.containers[name=api].env",
        (*POD, "containers", 0, "env"),
    ),
    "an init container": (
        lambda pod: pod.update(initContainers=[{"name": "init"}]),
        {"f:initContainers": {".": {}, 'k:{"name":"init"}': {".": {}, "f:name": {}}}},
        "spec.template.spec.initContainers",
        (*POD, "initContainers"),
    ),
    "a volume": (
        lambda pod: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        {"f:volumes": {'k:{"name":"host"}': {".": {}, "f:name": {}}}},
        "spec.template.spec.volumes[name=host]",
        (*POD, "volumes", 1),
    ),
    "a mount": (
        lambda pod: pod["containers"][0]["volumeMounts"].append({"name": "tmp", "mountPath": "/a~b/c"}),
        of_container({"f:volumeMounts": {'k:{"mountPath":"/a~b/c"}': {".": {}}}}),
        "spec.template.spec.containers[name=api].volumeMounts[mountPath=/a~b/c]",
        (*POD, "containers", 0, "volumeMounts", 1),
    ),
    "a port": (
        lambda pod: pod["containers"][0]["ports"].append({"containerPort": 9}),
        of_container({"f:ports": {'k:{"containerPort":9,"protocol":"TCP"}': {".": {}}}}),
        "spec.template.spec.containers[name=api].ports[containerPort=9]",
        (*POD, "containers", 0, "ports", 1),
    ),
    "a field of the pod": (
        lambda pod: pod.update(hostNetwork=True),
        {"f:hostNetwork": {}},
        "spec.template.spec.hostNetwork",
        (*POD, "hostNetwork"),
    ),
    "a field of the container": (
        lambda pod: pod["containers"][0].update(securityContext={"privileged": True}),
        of_container({"f:securityContext": {".": {}, "f:privileged": {}}}),
        "spec.template.spec.containers[name=api].securityContext",
        (*POD, "containers", 0, "securityContext"),
    ),
}


@pytest.mark.parametrize("name", ADDITIONS)
def test_an_addition_is_found_with_its_manager(name: str) -> None:
    change, fields, path, pointer = ADDITIONS[name]
    (found,) = changes(live(change, owner(fields)), WANTED)
    assert (found.path, found.manager, found.pointer) == (path, "kubectl-edit", pointer)


@pytest.mark.parametrize("name", [name for name, (_, _, path, _) in ADDITIONS.items() if path.endswith("]")])
def test_an_item_without_a_field_manager_is_found(name: str) -> None:
    change, _, path, pointer = ADDITIONS[name]
    (found,) = changes(live(change), WANTED)
    assert (found.path, found.manager, found.pointer, found.item) == (path, "", pointer, True)


def test_a_changed_value_is_found_with_its_manager_and_not_removed() -> None:
    changed = live(
        lambda pod: pod["containers"][0].update(image="other"), owner(of_container({"f:image": {}}))
    )
    (found,) = changes(changed, WANTED)
    assert (found.path, found.manager, found.pointer) == (
        "spec.template.spec.containers[name=api].image",
        "kubectl-edit",
        None,
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"manager": "cortex-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:paused": {}}}},
        {
            "manager": "cortex-operator-replicas",
            "operation": "Apply",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        },
        {
            "manager": "kubectl",
            "operation": "Update",
            "subresource": "scale",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        },
        {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        {
            "manager": "kube-controller-manager",
            "operation": "Update",
            "fieldsV1": {
                "f:metadata": {"f:annotations": {"f:deployment.kubernetes.io/revision": {}}},
                "f:status": {"f:replicas": {}},
            },
        },
        {
            "manager": "kubectl-rollout",
            "operation": "Update",
            "fieldsV1": {
                "f:spec": {
                    "f:template": {
                        "f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}
                    }
                }
            },
        },
        # A dump of the object that was applied: it owns what it shares with us.
        owner(of_container({"f:image": {}, "f:args": {}})),
    ],
)
def test_fields_that_may_differ_are_not_changes(entry: Object) -> None:
    found = live(None, entry)
    found["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "1"}
    found["status"] = {"replicas": 3}
    template = {"labels": {"a": "b"}, "annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}
    found["spec"]["template"]["metadata"] = template
    assert changes(found, WANTED) == []


def test_rendered_replicas_are_compared() -> None:
    wanted = {**WANTED, "spec": {**WANTED["spec"], "replicas": 2}}
    entry = {"manager": "k", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    assert [found.path for found in changes(live(None, entry), wanted)] == ["spec.replicas"]


def test_a_key_of_a_config_map_is_found() -> None:
    wanted = {"metadata": {"name": "c"}, "data": {"mine": "1"}}
    entry = {"manager": "m", "operation": "Update", "fieldsV1": {"f:data": {"f:theirs": {}}}}
    found = changes(
        {"metadata": {"name": "c", "managedFields": [entry]}, "data": {"mine": "1", "theirs": "2"}}, wanted
    )
    assert [(change.path, change.pointer) for change in found] == [("data.theirs", ("data", "theirs"))]


def test_a_removal_patch_removes_all_additions_and_nothing_else() -> None:
    def change(pod: Object) -> None:
        pod["containers"].insert(0, {"name": "one"})
        pod["containers"].append({"name": "two"})
        pod["hostNetwork"] = True

    changed = live(change, owner({"f:hostNetwork": {}}))
    patch = removal(changed, changes(changed, WANTED))
    tests = {operation["path"]: operation["value"] for operation in patch if operation["op"] == "test"}
    assert tests == {f"/{'/'.join(POD)}/containers/{n}/name": name for n, name in ((0, "one"), (2, "two"))}
    for operation in patch[len(tests) :]:
        assert operation["op"] == "remove"
        *way, last = operation["path"].split("/")[1:]
        node: Any = changed
        for part in way:
            node = node[int(part)] if isinstance(node, list) else node[part]
        del node[int(last) if isinstance(node, list) else last]
    expected = live()
    expected["metadata"] = changed["metadata"]
    assert changed == expected


def test_a_path_is_escaped() -> None:
    changed = live(lambda pod: pod.update({"a/b~c": 1}), owner({"f:a/b~c": {}}))
    assert removal(changed, changes(changed, WANTED))[0]["path"] == "/spec/template/spec/a~1b~0c"


def test_a_removed_field_is_a_change() -> None:
    changed = live()
    del changed["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    (found,) = changes(changed, WANTED)
    path = "spec.template.spec.containers[name=api].volumeMounts"
    assert (found.path, found.value, found.pointer) == (path, "", None)


def test_a_variable_is_removed_from_its_own_container() -> None:
    change, fields, _, _ = ADDITIONS["the first variable"]
    changed = live(change, owner(fields))
    test = removal(changed, changes(changed, WANTED))[0]
    assert test == {"op": "test", "path": "/spec/template/spec/containers/0/name", "value": "api"}


def change_by_another(contests: Conflicts, now: float) -> float:
    """Let another writer change an object, which is reverted unless the operator backs off."""
    pause = contests.pause("u", now, "w")
    if not pause:
        contests.count("u", now)
    return pause


def test_a_few_changes_are_reverted_immediately_and_later_ones_with_backoff() -> None:
    contests = Conflicts()
    assert [change_by_another(contests, now) for now in (0.0, 0.1, 0.2)] == [0, 0, 0]
    assert contests.ongoing("u", 0.2) is None
    now, lengths = 0.3, []
    for _ in range(8):
        length = change_by_another(contests, now)
        lengths.append(length)
        assert 0 < contests.pause("u", now + length / 2, "w") < length, (
            "a pause is not prolonged by what happens in it"
        )
        now += length
        assert change_by_another(contests, now) == 0
        now += 0.1
        assert contests.ongoing("u", now) is not None
    assert lengths == [10, 20, 40, 80, 160, 300, 300, 300]
    assert (FIRST_BACKOFF, MAX_BACKOFF) == (10, 300)


def test_a_conflict_ends_when_the_other_writer_stops() -> None:
    contests = Conflicts()
    for now in (0.0, 0.1, 0.2, 0.3):
        change_by_another(contests, now)
    assert change_by_another(contests, 10.4) == 0
    ongoing = contests.ongoing("u", 10.4)
    assert ongoing is not None
    assert contests.ongoing("u", 10.4 + ongoing[1] + 0.1) is None
    assert contests.pause("u", 10.4 + ongoing[1] + 0.1, "w") == 0


def test_rare_changes_are_always_reverted_immediately() -> None:
    contests = Conflicts()
    assert {change_by_another(contests, 300.0 * n) for n in range(20)} == {0}
    assert contests.ongoing("u", 6000.0) is None
