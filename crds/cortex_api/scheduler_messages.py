"""Explain the scheduler's messages about unschedulable pods and suggest a remedy for each cause.

The operator and the command line use it. The patterns match the messages of kube-scheduler 1.28 to 1.36.
"""

import re

_PREEMPTION_NOTES = re.compile(
    r"\.\s+(?:preemption: |no new claims to deallocate|still not schedulable|not found\b).*", re.DOTALL
)
"""Text after the causes: results of the plugins that tried to free resources."""
_TAINT = re.compile(r"taint(?:\(s\))? \{([^:}]+)")
_AUTOMATIC_TAINTS = {
    "node.kubernetes.io/not-ready": "a node is not ready: wait for it or repair it",
    "node.kubernetes.io/unreachable": "a node does not report to the cluster: wait for it or repair it",
    "node.kubernetes.io/network-unavailable": "a node has no network yet: wait for it or repair it",
    "node.kubernetes.io/memory-pressure": "a node is low on memory: free memory on it, or add a node",
    "node.kubernetes.io/disk-pressure": "a node is low on disk space: free disk space on it, or add a node",
    "node.kubernetes.io/pid-pressure": "a node runs too many processes: stop some of them, or add a node",
    "node.cloudprovider.kubernetes.io/uninitialized": "a node is still being initialized: wait for it",
    "node.cloudprovider.kubernetes.io/shutdown": "a node is shut down: start it, or add a node",
}
"""Taints that Kubernetes sets. A toleration does not help."""
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_CORDONED = "a node is cordoned: run `kubectl uncordon` after its maintenance, or add a node"

_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"unbound immediate PersistentVolumeClaims",
        "a PersistentVolumeClaim is not bound: `kubectl describe pvc` shows the cause"
        " (usually its StorageClass does not exist or cannot provision a volume)",
    ),
    (
        r'persistentvolumeclaim "[^"]*" (?:not found|is being deleted)',
        "create the PersistentVolumeClaim in the API's namespace, or correct its name in handler.models",
    ),
    (
        r"bound to non-existent",
        "the PersistentVolume of a claim no longer exists: create the claim again",
    ),
    (
        r"volume node affinity conflict|PersistentVolume's node affinity|no available volume zone",
        "a volume is in another zone or on another node than the nodes with free resources: use nodes near the volume",
    ),
    (
        r"didn't find available persistent volumes to bind|not have enough free storage",
        "no PersistentVolume matches a claim: create one, or correct the size and the StorageClass of the claim",
    ),
    (
        r"exceed max volume count",
        "the nodes cannot attach more volumes: add a node",
    ),
    (
        r"ReadWriteOncePod|no available disk",
        "another pod uses the volume, and only one pod can use it: use a claim with ReadOnlyMany or ReadWriteMany",
    ),
    (
        r"resourceclaim|allocate all claims",
        "a ResourceClaim cannot be allocated: `kubectl describe resourceclaim` shows the cause",
    ),
    (
        r"didn't match (?:Pod's node affinity/selector|node selector)",
        "no other node matches compute.nodeSelector or the affinity in spec.pod: correct them, or label a node",
    ),
    (
        r"topology spread constraints",
        "no node satisfies the topologySpreadConstraints in spec.pod: relax them, or add a node",
    ),
    (
        r"pods? (?:anti-)?affinity rules|pod affinity terms conflict",
        "no node satisfies the pod affinity rules: relax the rules in spec.pod, or add a node",
    ),
    (
        r"free ports for the requested pod ports",
        "a host port of spec.pod is in use on the nodes: remove it, or add a node",
    ),
    (
        r"Too many pods|Insufficient pods",
        "the nodes run their maximum number of pods: add a node",
    ),
    (
        r"scheduling gates",
        "the pod has scheduling gates: their owner must remove them",
    ),
    (
        r"no nodes available|\b0/0 nodes",
        "the cluster has no nodes: add one",
    ),
)  # fmt: skip
_RESOURCES = {
    "cpu": "compute.cpu",
    "memory": "compute.mem",
    "ephemeral-storage": "ephemeral storage in spec.pod",
}


def explain(message: str) -> str:
    """Return the scheduler's message without its notes on preemption, followed by the remedies for its causes."""
    causes = _PREEMPTION_NOTES.sub("", message.strip()).rstrip(". ")
    text = "; ".join(remedies(causes))
    return f"{causes}. {text[:1].upper()}{text[1:]}."


def remedies(message: str) -> list[str]:
    """Return a remedy for each cause in a message, the most specific first; at least one."""
    found = [remedy for pattern, remedy in _CAUSES if re.search(pattern, message)]
    for resource in dict.fromkeys(re.findall(r"Insufficient ([^\s,.;]+(?:\.[^\s,;.]+)*)", message)):
        if resource != "pods":
            field = _RESOURCES.get(resource, "compute.gpu" if "/" in resource else resource)
            found.append(f"request less {resource} ({field}), or add a node with enough of it")
    if "were unschedulable" in message:
        found.append(_CORDONED)
    found += _taint_remedies(message, only_cause=not found)
    return list(dict.fromkeys(found)) or ["free resources on the nodes, or add a suitable node"]


def _taint_remedies(message: str, only_cause: bool) -> list[str]:
    """Return the remedies for the taints in a message.

    only_cause: whether the message names no cause other than taints.
    """
    if "taint" not in message:
        return []
    taints = list(dict.fromkeys(name.strip() for name in _TAINT.findall(message)))
    if not taints:
        return [
            "the other nodes have a taint: add a toleration to compute.tolerations if the API may run there"
        ]
    found = [_AUTOMATIC_TAINTS[taint] for taint in taints if taint in _AUTOMATIC_TAINTS]
    if "node.kubernetes.io/unschedulable" in taints:
        found.append(_CORDONED)
    others = [
        taint
        for taint in taints
        if taint not in _AUTOMATIC_TAINTS and taint != "node.kubernetes.io/unschedulable"
    ]
    # The taint of the control plane matters only if it is the only cause.
    if not only_cause or found or len(others) > 1:
        others = [taint for taint in others if taint not in _CONTROL_PLANE]
    found += [
        f"add a toleration for {taint} to compute.tolerations if the API may run on such nodes"
        for taint in others
    ]
    return found
