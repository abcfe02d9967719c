"""What containers ask for: `spec.compute` as Kubernetes resources."""

from typing import Any

from cortex_api.scaling import Compute
from cortex_api.units import milli_cpu, parse_bytes

Object = dict[str, Any]
Amount = str | int | float | None


def whole(compute: Compute) -> Object:
    """All of it for one container."""
    return resources(compute.cpu, compute.mem, devices(compute))


def shared(compute: Compute) -> tuple[Object, Object]:
    """Shared out to the API's own container and to TensorFlow Serving: half of processor time and memory each, and all
    accelerators to TensorFlow Serving, which is where the models are.
    """
    cpu = None if compute.cpu is None else f"{max(1, milli_cpu(compute.cpu) // 2)}m"
    mem = None if compute.mem is None else str(parse_bytes(compute.mem) // 2)
    return resources(cpu, mem, {}), resources(cpu, mem, devices(compute))


def resources(cpu: Amount, mem: Amount, accelerators: Object) -> Object:
    """Memory and accelerators are bounded by what is asked for; processor time is not, so that idle CPUs serve."""
    memory = {} if mem is None else {"memory": str(mem)}
    time = {} if cpu is None else {"cpu": str(cpu)}
    limits = {**memory, **accelerators}
    return {"requests": {**time, **limits}, **({"limits": limits} if limits else {})}


def devices(compute: Compute) -> Object:
    """GPUs and other accelerators by their resource names."""
    found = {}
    if compute.gpu:
        found[compute.gpu_resource] = str(compute.gpu)
    if compute.inf:
        found["aws.amazon.com/neuron"] = str(compute.inf)
    return found


def tolerations(compute: Compute) -> list[Object]:
    """The taints that are tolerated: those of the spec, and those that keep other pods off nodes with the accelerators."""
    found = [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in compute.tolerations]
    found += [{"key": name, "operator": "Exists", "effect": "NoSchedule"} for name in devices(compute)]
    return found
