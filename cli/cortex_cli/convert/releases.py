"""Fields of a cortex.yaml in each release of Cortex.

Releases are the minor numbers of 0.x: 18 is Cortex 0.18. UNRELEASED (9.5) is a state between 0.9 and 0.10 that was documented but
never released. Field paths start below the API. "[]" matches each item of a list, and a field with the suffix "*" has arbitrary
content.
"""

from dataclasses import dataclass

UNRELEASED = 9.5
CONTAINERS = 36
"""First release whose APIs consist of the user's own containers."""

_TABLE = """
name                                 1    42
kind                                 1    42
tags*                                1    9
# Models that Cortex trained, then exported models
model_name                           1    3
external_model.path external_model.region   4   4
model                                4    9
model_format                         6    9
request_handler                      6    9
tf_signature_key                     8    9
# The same without the parents tracker and compute
key model_type                       8    9
min_replicas max_replicas init_replicas target_cpu_utilization cpu gpu mem   6   9
tracker.key tracker.model_type       8    16
monitoring.key monitoring.model_type 17   25
compute.replicas                     1    5
compute.min_replicas compute.max_replicas compute.init_replicas compute.target_cpu_utilization  6  13
compute.max_surge compute.max_unavailable   13   13
compute.cpu compute.gpu compute.mem  1    35
compute.inf                          18   35
compute.node_groups                  34   35
# Functions
python.inference                     9.5  9.5
metadata*                            9.5  9.5
tensorflow.model tensorflow.request_handler tensorflow.signature_key   9.5  11
onnx.model onnx.request_handler      9.5  11
tensorflow.python_path tensorflow.metadata* onnx.python_path onnx.metadata*   10  11
predictor.metadata*                  10   11
predictor.model                      10   17
predictor.path predictor.python_path 10   33
endpoint                             10   17
# Classes
predictor.type predictor.config* predictor.env*   12   33
predictor.signature_key              12   24
predictor.image predictor.tensorflow_serving_image   16   33
local_port                           16   17
predictor.model_path                 18   24
predictor.models[].name predictor.models[].model_path predictor.models[].signature_key   18   21
predictor.models.paths[].model_path  22   24
predictor.models.paths[].name predictor.models.paths[].signature_key predictor.models.signature_key   22   33
predictor.models.dir predictor.models.cache_size predictor.models.disk_cache_size   22   33
predictor.models.path predictor.models.paths[].path   25   33
predictor.processes_per_replica predictor.threads_per_process   18   33
predictor.server_side_batching.max_batch_size predictor.server_side_batching.batch_interval   19   33
predictor.multi_model_reloading.path predictor.multi_model_reloading.dir   25   33
predictor.multi_model_reloading.paths[].name predictor.multi_model_reloading.paths[].path   25   33
predictor.multi_model_reloading.cache_size predictor.multi_model_reloading.disk_cache_size   25   33
predictor.multi_model_reloading.signature_key predictor.multi_model_reloading.paths[].signature_key   25   33
predictor.log_level predictor.shm_size   26   33
predictor.dependencies.pip predictor.dependencies.conda predictor.dependencies.shell   30   33
predictor.protobuf_path              32   33
networking.endpoint                  18   42
networking.api_gateway               18   25
networking.local_port                18   25
autoscaling.min_replicas autoscaling.max_replicas autoscaling.init_replicas   14   42
autoscaling.window autoscaling.downscale_stabilization_period autoscaling.upscale_stabilization_period   14   42
autoscaling.max_downscale_factor autoscaling.max_upscale_factor   14   42
autoscaling.downscale_tolerance autoscaling.upscale_tolerance   14   42
autoscaling.target_replica_concurrency autoscaling.max_replica_concurrency   14   35
autoscaling.workers_per_replica autoscaling.threads_per_worker   14   17
autoscaling.target_in_flight         36   42
update_strategy.max_surge update_strategy.max_unavailable   14   42
# Containers
pod*                                 36   42
node_groups                          36   42
"""

_HANDLER = """
type path python_path config* env* image tensorflow_serving_image processes_per_replica threads_per_process
models.path models.dir models.paths[].name models.paths[].path models.paths[].signature_key models.signature_key
models.cache_size models.disk_cache_size
multi_model_reloading.path multi_model_reloading.dir multi_model_reloading.paths[].name multi_model_reloading.paths[].path
multi_model_reloading.cache_size multi_model_reloading.disk_cache_size
multi_model_reloading.signature_key multi_model_reloading.paths[].signature_key
server_side_batching.max_batch_size server_side_batching.batch_interval
dependencies.pip dependencies.conda dependencies.shell protobuf_path log_level shm_size
"""


@dataclass(frozen=True)
class ReleaseRange:
    """A range of releases, including first and last."""

    first: float
    last: float

    def __and__(self, other: "ReleaseRange") -> "ReleaseRange":
        return ReleaseRange(max(self.first, other.first), min(self.last, other.last))

    @property
    def is_empty(self) -> bool:
        """Whether the range contains no release."""
        return self.first > self.last

    def __str__(self) -> str:
        if self.first == self.last:
            return _release(self.first)
        return f"{_release(self.first)} to {_release(self.last)}"


def _release(number: float) -> str:
    return "0.9+ (python.inference, never released)" if number == UNRELEASED else f"0.{int(number)}"


def _fields() -> dict[str, ReleaseRange]:
    found: dict[str, ReleaseRange] = {}
    for line in _TABLE.splitlines():
        if line and not line.startswith("#"):
            *names, first, last = line.split()
            found |= dict.fromkeys(names, ReleaseRange(float(first), float(last)))
    return found | {f"handler.{name}": ReleaseRange(34, 35) for name in _HANDLER.split()}


FIELDS = _fields()
TRAINING = {
    **dict.fromkeys(
        ("app", "environment", "raw_column", "transformed_column", "aggregate", "aggregator", "transformer"),
        ReleaseRange(1, 7),
    ),
    **dict.fromkeys(("constant", "model"), ReleaseRange(1, 7)),
    "app": ReleaseRange(1, 4),
    "estimator": ReleaseRange(4, 7),
}
"""Kinds of the releases in which Cortex trained models."""
TEXTS = {"template": ReleaseRange(1, 7), "embed": ReleaseRange(1, 7)}
"""Kinds that generated other entries of the file."""
JOBS = {
    "BatchAPI": ReleaseRange(19, 42),
    "TaskAPI": ReleaseRange(27, 42),
    "TrafficSplitter": ReleaseRange(19, 42),
}
"""Kinds without a handler or a model, which are not converted."""
KINDS = {
    **TRAINING,
    **TEXTS,
    "deployment": ReleaseRange(5, 12),
    "api": ReleaseRange(1, 12),
    "RealtimeAPI": ReleaseRange(19, 42),
    "AsyncAPI": ReleaseRange(31, 42),
    **JOBS,
}
WITHOUT_KIND = ReleaseRange(13, 18)
EVERY = ReleaseRange(1, 42)
DEBUG = ReleaseRange(8, 15)
"""Releases in which `?debug=true` logged the payload of a request without a setting in the file."""
