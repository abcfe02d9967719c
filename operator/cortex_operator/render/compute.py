"""The resources of containers, from `spec.compute`."""

from typing import Any

from cortex_api.deployment import Compute
from cortex_api.units import milli_cpu, parse_bytes

Object = dict[str, Any]
Amount = str | int | float | None


def whole(compute: Compute) -> Object:
    """Return the resources of a single container."""
    return resources(compute.cpu, compute.mem, devices(compute))


def shared(compute: Compute) -> tuple[Object, Object]:
    """Return the resources of the handler's container and of TensorFlow Serving: half of CPU and memory each, and all
    accelerators for TensorFlow Serving, which has the models.
    """
    cpu = None if compute.cpu is None else f"{max(1, milli_cpu(compute.cpu) // 2)}m"
    mem = None if compute.mem is None else str(parse_bytes(compute.mem) // 2)
    return resources(cpu, mem, {}), resources(cpu, mem, devices(compute))


def resources(cpu: Amount, mem: Amount, accelerators: Object) -> Object:
    """Return requests and limits. CPU has no limit, so that pods can use idle CPUs."""
    memory = {} if mem is None else {"memory": str(mem)}
    time = {} if cpu is None else {"cpu": str(cpu)}
    limits = {**memory, **accelerators}
    return {"requests": {**time, **limits}, **({"limits": limits} if limits else {})}


def devices(compute: Compute) -> Object:
    """Return GPUs and other accelerators by resource name."""
    found = {}
    if compute.gpu:
        found[compute.gpu_resource] = str(compute.gpu)
    if compute.inf:
        found["aws.amazon.com/neuron"] = str(compute.inf)
    return found


def tolerations(compute: Compute) -> list[Object]:
    """Return the tolerations of the spec, and those for taints of nodes with the accelerators."""
    found = [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in compute.tolerations]
    found += [{"key": name, "operator": "Exists", "effect": "NoSchedule"} for name in devices(compute)]
    return found
