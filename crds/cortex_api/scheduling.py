"""What the scheduler says about a pod that no node can run, and what its owner can do about each cause. Pure.

Operator and command line use it. The patterns follow the messages of kube-scheduler 1.28 to 1.36.
"""

import re

_AFTERTHOUGHTS = re.compile(
    r"\.\s+(?:preemption: |no new claims to deallocate|still not schedulable|not found\b).*", re.DOTALL
)
"""What the scheduler adds after the causes: plugins that tried to make room."""
_TAINT = re.compile(r"taint(?:\(s\))? \{([^:}]+)")
_AUTOMATIC_TAINTS = {
    "node.kubernetes.io/not-ready": "a node is not ready: wait for it, or repair it",
    "node.kubernetes.io/unreachable": "a node does not report to the cluster: wait for it, or repair it",
    "node.kubernetes.io/network-unavailable": "a node has no network yet: wait for it, or repair it",
    "node.kubernetes.io/memory-pressure": "a node is short of memory: free some there, or add a node",
    "node.kubernetes.io/disk-pressure": "a node is short of disk space: free some there, or add a node",
    "node.kubernetes.io/pid-pressure": "a node runs too many processes: end some there, or add a node",
    "node.cloudprovider.kubernetes.io/uninitialized": "a node is still being initialized: wait for it",
    "node.cloudprovider.kubernetes.io/shutdown": "a node is shut down: start it, or add a node",
}
"""Taints that Kubernetes itself sets: tolerating them does not help."""
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_CORDONED = "a node is cordoned: `kubectl uncordon` it once its maintenance is over, or add a node"

_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"unbound immediate PersistentVolumeClaims",
        "a PersistentVolumeClaim is not bound: `kubectl describe pvc` says why"
        " (mostly its StorageClass does not exist or cannot provision)",
    ),
    (
        r'persistentvolumeclaim "[^"]*" (?:not found|is being deleted)',
        "create the PersistentVolumeClaim in the API's namespace, or correct its name in handler.models",
    ),
    (
        r"bound to non-existent",
        "the PersistentVolume of a claim does not exist any more: create the claim again",
    ),
    (
        r"volume node affinity conflict|PersistentVolume's node affinity|no available volume zone",
        "a volume is in another zone or on another node than the nodes that have room: use nodes next to the volume",
    ),
    (
        r"didn't find available persistent volumes to bind|not have enough free storage",
        "no PersistentVolume fits a claim: provide one, or correct the claim's size and StorageClass",
    ),
    (
        r"exceed max volume count",
        "the nodes cannot attach more volumes: add a node",
    ),
    (
        r"ReadWriteOncePod|no available disk",
        "another pod uses the volume, which one pod alone may use: use a claim with ReadOnlyMany or ReadWriteMany",
    ),
    (
        r"resourceclaim|allocate all claims",
        "a ResourceClaim cannot be allocated: `kubectl describe resourceclaim` says why",
    ),
    (
        r"didn't match (?:Pod's node affinity/selector|node selector)",
        "no other node matches compute.nodeSelector or the affinity in spec.pod: correct them, or label a node",
    ),
    (
        r"topology spread constraints",
        "the topologySpreadConstraints in spec.pod allow no node: relax them, or add a node",
    ),
    (
        r"pods? (?:anti-)?affinity rules|pod affinity terms conflict",
        "rules of affinity between pods exclude the nodes: relax those in spec.pod, or add a node",
    ),
    (
        r"free ports for the requested pod ports",
        "a host port of spec.pod is in use on the nodes: remove it, or add a node",
    ),
    (
        r"Too many pods|Insufficient pods",
        "the nodes run as many pods as they may: add a node",
    ),
    (
        r"scheduling gates",
        "the pod has scheduling gates: whoever set them must remove them",
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
    """The scheduler's message without its notes on making room, and after it what to do about each cause it names."""
    said = _AFTERTHOUGHTS.sub("", message.strip()).rstrip(". ")
    remedies = advice(said)
    text = "; ".join(remedies)
    return f"{said}. {text[:1].upper()}{text[1:]}."


def advice(message: str) -> list[str]:
    """What to do about each cause that a message names, the most specific first. Never empty."""
    found = [remedy for pattern, remedy in _CAUSES if re.search(pattern, message)]
    for resource in dict.fromkeys(re.findall(r"Insufficient ([^\s,.;]+(?:\.[^\s,;.]+)*)", message)):
        if resource != "pods":
            field = _RESOURCES.get(resource, "compute.gpu" if "/" in resource else resource)
            found.append(f"ask for less {resource} ({field}), or add a node that has it free")
    if "were unschedulable" in message:
        found.append(_CORDONED)
    found += _about_taints(message, alone=not found)
    return list(dict.fromkeys(found)) or ["free some room, or add a node that fits"]


def _about_taints(message: str, alone: bool) -> list[str]:
    """alone: whether the message names no other cause."""
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
    # Nodes of the control plane run no APIs where there are others.
    if not alone or found or len(others) > 1:
        others = [taint for taint in others if taint not in _CONTROL_PLANE]
    found += [
        f"add a toleration of {taint} to compute.tolerations if the API may run on such nodes"
        for taint in others
    ]
    return found
