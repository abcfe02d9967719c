"""TensorFlow Serving as a sidecar of the handler, which requests the load of models over gRPC.

It is an init container with restartPolicy Always: it starts before the handler and stops after its last request.
"""

from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import CONFIG_FOLDER, TENSORFLOW_SERVING_CONTAINER, TENSORFLOW_SERVING_PORT
from cortex_api.units import seconds
from cortex_operator.platform import Platform
from cortex_operator.render import compute

Object = dict[str, Any]

ADDRESS = f"localhost:{TENSORFLOW_SERVING_PORT}"
MODELS_FILE, BATCHING_FILE = "tfs.conf", "batching.conf"
NO_MODELS = "# Models are loaded when the API's own container asks for them.\n"


def has_server(api: RealtimeAPI | AsyncAPI, platform: Platform) -> bool:
    """Return whether the pods of an API have TensorFlow Serving.

    Without an image of it TensorFlow runs in the process of the API, and must be in its image.
    """
    return api.spec.handler.type == "tensorflow" and image(api, platform) is not None


def image(api: RealtimeAPI | AsyncAPI, platform: Platform) -> str | None:
    """Return the image of TensorFlow Serving: that of the API or of the platform, with GPU support where the API has GPUs."""
    if api.spec.handler.tensorflow_serving_image:
        return api.spec.handler.tensorflow_serving_image
    if platform.tensorflow_serving_image and api.spec.compute.gpu:
        return platform.tensorflow_serving_gpu_image or f"{platform.tensorflow_serving_image}-gpu"
    return platform.tensorflow_serving_image


def server(api: RealtimeAPI | AsyncAPI, platform: Platform, mounts: list[Object]) -> Object:
    """Return the container. mounts: those of the models."""
    args = [
        f"--port={TENSORFLOW_SERVING_PORT}",
        "--rest_api_port=0",
        f"--model_config_file={CONFIG_FOLDER}/{MODELS_FILE}",
    ]
    args.append(
        "--max_num_load_retries=0"
    )  # The default retries a broken model for minutes, while the others wait.
    if batching_parameters(api):
        args += ["--enable_batching=true", f"--batching_parameters_file={CONFIG_FOLDER}/{BATCHING_FILE}"]
    return {
        "name": TENSORFLOW_SERVING_CONTAINER,
        "image": image(api, platform),
        "imagePullPolicy": platform.image_pull_policy,
        "command": ["tensorflow_model_server"],
        "args": args,
        "restartPolicy": "Always",
        "ports": [{"name": "tfs", "containerPort": TENSORFLOW_SERVING_PORT, "protocol": "TCP"}],
        "resources": compute.shared(api.spec.compute)[1],
        "startupProbe": {"tcpSocket": {"port": "tfs"}, "periodSeconds": 1, "failureThreshold": 300},
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            *mounts,
        ],
    }


def files(api: RealtimeAPI | AsyncAPI) -> dict[str, str]:
    """Return the files that TensorFlow Serving reads when it starts."""
    if api.spec.handler.type != "tensorflow":
        return {}
    batching = batching_parameters(api)
    return {MODELS_FILE: NO_MODELS, **({BATCHING_FILE: batching} if batching else {})}


def batching_parameters(api: RealtimeAPI | AsyncAPI) -> str | None:
    """Return `handler.serverSideBatching` as BatchingParameters of TensorFlow Serving, in the text format of protobuf."""
    if not isinstance(api, RealtimeAPI) or api.spec.handler.server_side_batching is None:
        return None
    batching = api.spec.handler.server_side_batching
    microseconds = round(seconds(batching.batch_interval) * 1e6)
    threads = max(1, api.spec.handler.processes_per_replica * api.spec.handler.threads_per_process)
    return (
        f"max_batch_size {{ value: {batching.max_batch_size} }}\n"
        f"batch_timeout_micros {{ value: {microseconds} }}\n"
        f"num_batch_threads {{ value: {threads} }}\n"
        f"max_enqueued_batches {{ value: {api.spec.handler.max_replica_concurrency} }}\n"
    )
