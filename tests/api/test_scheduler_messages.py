"""Messages of kube-scheduler about unschedulable pods, and the remedies that Cortex suggests."""

import pytest

from cortex_api.scheduler_messages import explain, remedies

AVAILABLE = "0/3 nodes are available: "
NO_PREEMPTION = " preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
CPU, MEMORY = "compute.cpu", "compute.mem"
TAINT = "node(s) had untolerated taint"

MESSAGES: list[tuple[str, list[str]]] = [
    # Resources.
    ("3 Insufficient cpu. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.", [CPU]),
    ("3 Insufficient memory." + NO_PREEMPTION, [MEMORY]),
    ("1 Insufficient cpu, 2 Insufficient memory." + NO_PREEMPTION, [CPU, MEMORY]),
    ("3 Insufficient nvidia.com/gpu.", ["compute.gpu"]),
    ("3 Insufficient nvidia.com/mig-1g.5gb. preemption: none", ["compute.gpu"]),
    ("3 Insufficient ephemeral-storage.", ["ephemeral storage"]),
    ("3 Too many pods.", ["maximum number of pods"]),
    ("3 Insufficient pods.", ["maximum number of pods"]),
    # Cordoned nodes and taints.
    ("3 node(s) were unschedulable." + NO_PREEMPTION, ["kubectl uncordon"]),
    (f"1 {TAINT} {{node.kubernetes.io/unschedulable: }}, 2 node(s) were unschedulable.", ["kubectl uncordon"]),
    (f"1 {TAINT} {{dedicated: team-a}}, 2 Insufficient cpu.", [CPU, "toleration for dedicated"]),
    (f"3 {TAINT} {{nvidia.com/gpu: present}}.", ["toleration for nvidia.com/gpu"]),
    (f"3 {TAINT}(s)." + NO_PREEMPTION, ["compute.tolerations"]),
    (f"1 {TAINT}(s), 2 node(s) were unschedulable.", ["kubectl uncordon", "compute.tolerations"]),
    (f"1 {TAINT} {{node-role.kubernetes.io/control-plane: }}, 2 Insufficient cpu.", [CPU]),
    (f"3 {TAINT} {{node-role.kubernetes.io/control-plane: }}.", ["toleration for node-role.kubernetes.io/control-plane"]),
    (f"1 {TAINT} {{node.kubernetes.io/not-ready: }}, 2 Insufficient memory.", [MEMORY, "not ready"]),
    (f"3 {TAINT} {{node.kubernetes.io/unreachable: }}.", ["does not report"]),
    (f"3 {TAINT} {{node.kubernetes.io/disk-pressure: }}.", ["low on disk space"]),
    # Node selector, affinity, topology.
    ("3 node(s) didn't match Pod's node affinity/selector." + NO_PREEMPTION, ["compute.nodeSelector"]),
    ("3 node(s) didn't match node selector.", ["compute.nodeSelector"]),
    ("1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector.", ["compute.nodeSelector", CPU]),
    ("3 node(s) didn't match pod topology spread constraints.", ["topologySpreadConstraints"]),
    ("3 node(s) didn't match pod topology spread constraints (missing required label).", ["topologySpreadConstraints"]),
    ("3 node(s) didn't match pod affinity rules.", ["pod affinity rules"]),
    ("3 node(s) didn't match pod anti-affinity rules.", ["pod affinity rules"]),
    ("3 node(s) didn't satisfy existing pods anti-affinity rules.", ["pod affinity rules"]),
    ("3 node(s) didn't have free ports for the requested pod ports.", ["host port"]),
    # Volumes.
    ("pod has unbound immediate PersistentVolumeClaims." + NO_PREEMPTION, ["kubectl describe pvc"]),
    ("3 pod has unbound immediate PersistentVolumeClaims.", ["kubectl describe pvc"]),
    ('persistentvolumeclaim "models" not found.' + NO_PREEMPTION, ["create the PersistentVolumeClaim"]),
    ('persistentvolumeclaim "models" is being deleted.', ["create the PersistentVolumeClaim"]),
    ('persistentvolumeclaim "models" bound to non-existent persistentvolume "pv1".', ["no longer exists"]),
    ("3 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).", ["no longer exists"]),
    ("3 node(s) had volume node affinity conflict.", ["another zone"]),
    ("3 node(s) didn't match PersistentVolume's node affinity.", ["another zone"]),
    ("3 node(s) had no available volume zone.", ["another zone"]),
    ("3 node(s) didn't find available persistent volumes to bind.", ["no PersistentVolume matches"]),
    ("3 node(s) did not have enough free storage.", ["no PersistentVolume matches"]),
    ("3 node(s) exceed max volume count.", ["attach more volumes"]),
    (
        "3 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by"
        " another pod.",
        ["ReadOnlyMany"],
    ),
    # Several at once.
    (
        f"1 {TAINT} {{node-role.kubernetes.io/control-plane: }}, 1 node(s) were unschedulable, 1 Insufficient memory,"
        " 1 node(s) had volume node affinity conflict." + NO_PREEMPTION,
        ["another zone", MEMORY, "kubectl uncordon"],
    ),
    # Unknown causes.
    ("3 node(s) didn't match Pod's required features.", ["add a suitable node"]),
]  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), MESSAGES)
def test_each_cause_has_exactly_one_remedy(message: str, expected: list[str]) -> None:
    found = remedies(AVAILABLE + message)
    assert len(found) == len(expected)
    for part, remedy in zip(expected, found, strict=True):
        assert part in remedy


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("no nodes available to schedule pods", "has no nodes"),
        ("0/0 nodes are available.", "has no nodes"),
        ("waiting for scheduling gates: [example.com/gate]", "scheduling gates"),
        ("Scheduling is blocked due to non-empty scheduling gates", "scheduling gates"),
    ],
)
def test_messages_without_node_causes_have_a_remedy(message: str, remedy: str) -> None:
    (found,) = remedies(message)
    assert remedy in found


@pytest.mark.parametrize(
    ("message", "causes"),
    [
        (
            "1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 x.",
            "1 Insufficient cpu",
        ),
        ("1 Insufficient cpu. no new claims to deallocate,.", "1 Insufficient cpu"),
        ("1 Insufficient cpu. still not schedulable, preemption: 1 x.", "1 Insufficient cpu"),
        ('persistentvolumeclaim "a" not found. not found.', 'persistentvolumeclaim "a" not found'),
        ('persistentvolumeclaim "a" not found. preemption: 1 x.', 'persistentvolumeclaim "a" not found'),
    ],
)
def test_notes_that_scheduler_1_36_appends_are_removed(message: str, causes: str) -> None:
    assert explain(AVAILABLE + message).startswith(f"{AVAILABLE}{causes}. ")
    assert "not found. not" not in explain(message)
    assert "claims to" not in explain(message)


def test_explanation_is_the_message_without_preemption_followed_by_remedies() -> None:
    assert explain(AVAILABLE + "3 node(s) were unschedulable." + NO_PREEMPTION) == (
        "0/3 nodes are available: 3 node(s) were unschedulable. A node is cordoned: run `kubectl uncordon` after its"
        " maintenance, or add a node."
    )
