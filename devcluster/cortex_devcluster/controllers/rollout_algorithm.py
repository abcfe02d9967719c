"""The next sizes of a Deployment's ReplicaSets, and its status: pure functions.

The algorithm of the deployment controller of Kubernetes: scale the new ReplicaSet up within maxSurge, scale old ones down within
maxUnavailable, unavailable pods first.
"""

from __future__ import annotations

import hashlib
import json
import math

from cortex_devcluster.objects import Object, nested, updated_condition

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


def template_hash(template: Object) -> str:
    text = json.dumps(template, sort_keys=True)
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    return "".join(alphabet[byte % len(alphabet)] for byte in hashlib.sha256(text.encode()).digest()[:10])


def resolve_percentage(value: int | str, total: int, *, up: bool) -> int:
    """Return a number of pods from a number or a percentage of `total`; round up with `up`, else down."""
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total / 100
        return math.ceil(share) if up else math.floor(share)
    return int(value)


def surge_and_unavailable(deployment: Object) -> tuple[int, int]:
    """Return maxSurge and maxUnavailable in pods."""
    spec = deployment["spec"]
    rolling = nested(spec, "strategy.rollingUpdate") or {}
    if nested(spec, "strategy.type") == "Recreate":
        return 0, spec["replicas"]
    surge = resolve_percentage(rolling.get("maxSurge", "25%"), spec["replicas"], up=True)
    unavailable = resolve_percentage(rolling.get("maxUnavailable", "25%"), spec["replicas"], up=False)
    return surge, unavailable if surge or unavailable else 1


def available(replicaset: Object) -> int:
    return nested(replicaset, "status.availableReplicas") or 0


def plan(deployment: Object, new: Object | None, old: list[Object]) -> dict[str, int]:
    """Return the next size of each ReplicaSet that must change, by name."""
    desired: int = deployment["spec"]["replicas"]
    sizes = {rs["metadata"]["name"]: rs["spec"]["replicas"] for rs in [*old, *([new] if new else [])]}
    before = dict(sizes)
    if new is None:
        return {}
    name = new["metadata"]["name"]
    surge, unavailable = surge_and_unavailable(deployment)
    if nested(deployment, "spec.strategy.type") == "Recreate":
        for rs in old:
            sizes[rs["metadata"]["name"]] = 0
        if not any(nested(rs, "status.replicas") for rs in old):
            sizes[name] = desired
        return {key: size for key, size in sizes.items() if size != before[key]}
    if sizes[name] > desired:
        sizes[name] = desired
    elif sizes[name] < desired:
        room = desired + surge - sum(sizes.values())
        sizes[name] += max(0, min(room, desired - sizes[name]))
    minimum = desired - unavailable
    unready = max(0, before[name] - available(new))
    spare = sum(before.values()) - minimum - unready
    for rs in old:  # unavailable pods first
        key = rs["metadata"]["name"]
        cut = max(0, min(spare, sizes[key] - available(rs)))
        sizes[key] -= cut
        spare -= cut
    spare = min(spare, available(new) + sum(available(rs) for rs in old) - minimum)
    for rs in sorted(old, key=lambda rs: rs["metadata"]["creationTimestamp"]):
        key = rs["metadata"]["name"]
        cut = max(0, min(spare, sizes[key]))
        sizes[key] -= cut
        spare -= cut
    return {key: size for key, size in sizes.items() if size != before[key]}


def status(deployment: Object, new: Object | None, old: list[Object], *, deadline_exceeded: bool) -> Object:
    """The Deployment's status; `late` when the rollout made no progress within progressDeadlineSeconds."""
    sets = [*old, *([new] if new else [])]
    desired = deployment["spec"]["replicas"]
    total = sum(nested(rs, "status.replicas") or 0 for rs in sets)
    ready = sum(nested(rs, "status.readyReplicas") or 0 for rs in sets)
    usable = sum(available(rs) for rs in sets)
    updated = (nested(new, "status.replicas") or 0) if new else 0
    complete = bool(new) and updated == desired == total and usable >= desired
    _, unavailable = surge_and_unavailable(deployment)
    enough = usable >= desired - unavailable
    name = new["metadata"]["name"] if new else ""
    if complete:
        progress = ("True", "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.')
    elif deadline_exceeded:
        progress = ("False", "ProgressDeadlineExceeded", f'ReplicaSet "{name}" has timed out progressing.')
    else:
        progress = ("True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.')
    minimum = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    has = f"Deployment {'has' if enough else 'does not have'} minimum availability."
    before = {c["type"]: c for c in nested(deployment, "status.conditions") or ()}
    counts = {
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": usable,
        "unavailableReplicas": max(0, max(total, desired) - usable),
    }
    moved = any(
        nested(deployment, f"status.{name}") != count
        for name, count in counts.items()
        if name != "unavailableReplicas"
    )
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        **counts,
        "conditions": [
            updated_condition(before.get("Available"), "Available", str(enough), minimum, has),
            updated_condition(
                before.get("Progressing"), "Progressing", *progress, touch=moved and not deadline_exceeded
            ),
        ],
    }
