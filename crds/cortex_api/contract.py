"""What operator, runtime and command line agree on beyond the document: names, ports, paths, environment variables.

The operator renders these values into pods, the runtime reads them there, and the command line looks for them in a cluster. No
other module contains a literal of them (tests/project/test_contract.py).
"""

GROUP = "cortex.dev"
"""API group of the resources."""

PROJECT_ARCHIVES = ("project.zip", "project.tar.gz", "project.tgz")
"""Keys of a ConfigMap's binaryData that contain the whole project. A ConfigMap has at most one of them."""

# Ports of a pod
PORT = 8080
"""Requests. The Service of an API has the same port."""
ADMIN_PORT = 8081
"""Health, readiness, load and metrics."""
GRPC_PORT = 8082
"""The Open Inference Protocol over gRPC. The Service of an API that serves it has the same port."""
DEVELOPMENT_PORT = 8083
"""Files of `cortex dev`, in development mode. Only on the loopback interface of the pod."""
TENSORFLOW_SERVING_PORT = 9000
"""gRPC of TensorFlow Serving, within the pod."""

# Paths of the admin port
HEALTH_PATH = "/healthz"
READINESS_PATH = "/readyz"
LOAD_PATH = "/load"
METRICS_PATH = "/metrics"
QUEUE_PATH = "/queue"
"""The state of the queue, at the gateway of an AsyncAPI."""
JOBS_PATH = "/jobs"
"""The jobs that have not ended or have failed, at the gateway of an AsyncAPI."""
CANDIDATE_PATH = "/candidate"
"""What a stable replica reports about the candidate: requests, errors, latencies, comparisons."""
DIFFERENCES_PATH = "/candidate/differences"
"""The last pairs of responses that differ between the versions."""
DURATIONS_PATH = "/durations"
"""How long the requests of a replica took."""
INTERFACE_PATH = "/interface"
"""The routes, protocols and models of a replica."""

# Headers
VERSION_HEADER = "x-cortex-version"
"""Selects the version in a request, and names the version that answered in a response."""
MIRROR_HEADER = "x-cortex-mirror"
"""Is `true` in requests that only compare the candidate with the stable version."""

# Files and folders of a container
CONFIG_FOLDER = "/etc/cortex"
DOCUMENT_FILE = "api.json"
"""The document of the API, in the configuration folder and as the key of its ConfigMap."""
DOCUMENT_PATH = f"{CONFIG_FOLDER}/{DOCUMENT_FILE}"
PLATFORM_PATH = f"{CONFIG_FOLDER}/platform.yaml"
"""The operator's own configuration."""
API_KEYS_FOLDER = "/etc/cortex-keys"
"""The Secret with the keys that clients must present."""
SPLIT_DIRECTORY = "/etc/cortex-split"
"""The ConfigMap that tells stable replicas which requests the candidate answers. It is empty while there is no candidate."""
SPLIT_FILE = "split.json"
"""The file in that directory, and the key of the ConfigMap."""
PROJECT_FOLDER = "/mnt/project"
"""The user's code."""
ARCHIVE_FOLDER = "/mnt/packed"
"""The ConfigMap with the user's code as an archive, which the runtime extracts into the project folder."""
MODELS_FOLDER = "/mnt/models"
"""Downloaded models."""
CLAIMS_FOLDER = "/mnt/pvc"
"""Each PersistentVolumeClaim with models, in a folder of its name."""
SHARED_MEMORY_FOLDER = "/dev/shm"
TERMINATION_LOG = "/dev/termination-log"
"""Where a container writes why it exits: JSON with `reason` and `message`."""

# Environment variables of a container
QUEUE_URL_VARIABLE = "CORTEX_QUEUE_URL"
"""The server of the queue: nats://HOST:PORT or sqs://BUCKET/PREFIX."""
MAX_REPLICAS_VARIABLE = "CORTEX_MAX_REPLICAS"
"""The largest number of workers of an AsyncAPI, which bounds the length of its queue."""
WEBHOOK_SECRET_VARIABLE = "CORTEX_WEBHOOK_SECRET"
"""The key that webhooks are signed with."""
API_KEYS_VARIABLE = "CORTEX_API_KEYS"
"""The folder with the keys that clients must present."""
TENSORFLOW_SERVING_VARIABLE = "CORTEX_TENSORFLOW_SERVING"
"""HOST:PORT of TensorFlow Serving."""
HOST_VARIABLE = "CORTEX_HOST"
"""The address that the runtime listens on."""
DRAIN_LIMIT_VARIABLE = "CORTEX_DRAIN_LIMIT"
"""Seconds after SIGTERM for which a replica accepts connections at most, where it isn't DRAIN_LIMIT."""
SPLIT_VARIABLE = "CORTEX_SPLIT"
"""The file that tells a stable replica which requests the candidate answers."""
DEPENDENCIES_VARIABLE = "CORTEX_DEPENDENCIES"
"""The folder of the packages that were installed for the project; set by a replica for its worker processes."""

# The drain of a replica: after SIGTERM it accepts connections until clients have stopped to connect
DRAIN_DELAY = 3.0
"""Seconds without a new connection after which it accepts no more."""
DRAIN_LIMIT = 30.0
"""Seconds for which it accepts connections at most."""

# Components: the pods of an API by what they do. COMPONENT_LABEL has one of these values.
API = "api"
"""The pods of a RealtimeAPI, of its stable version if it has a candidate."""
CANDIDATE = "candidate"
"""The pods of the candidate of a RealtimeAPI."""
STABLE = "stable"
"""The name of the other version, in headers and reports."""
WORKER = "worker"
"""The pods of an AsyncAPI that run jobs."""
GATEWAY = "gateway"
"""The pods of an AsyncAPI that accept jobs and return results."""
DESTROY = "destroy"
"""The pod that deletes the queue of an AsyncAPI."""

# Commands of the runtime
SERVE_COMMAND, CONSUME_COMMAND, GATEWAY_COMMAND, DESTROY_COMMAND = "serve", "consume", "gateway", "destroy"
COMMANDS = {
    API: SERVE_COMMAND,
    CANDIDATE: SERVE_COMMAND,
    WORKER: CONSUME_COMMAND,
    GATEWAY: GATEWAY_COMMAND,
    DESTROY: DESTROY_COMMAND,
}
"""`python -m cortex_runtime COMMAND`, by component."""

# Containers
HANDLER_CONTAINER = "api"
"""The container that runs the user's handler, in pods of RealtimeAPIs and workers alike."""
GATEWAY_CONTAINER = GATEWAY
TENSORFLOW_SERVING_CONTAINER = "tensorflow-serving"
CONTAINERS = {
    API: HANDLER_CONTAINER,
    CANDIDATE: HANDLER_CONTAINER,
    WORKER: HANDLER_CONTAINER,
    GATEWAY: GATEWAY_CONTAINER,
    DESTROY: DESTROY,
}
"""The name of the runtime's container, by component."""

# Labels, annotations and finalizers
PREFIX = f"{GROUP}/"
API_LABEL = f"{PREFIX}api"
KIND_LABEL = f"{PREFIX}kind"
COMPONENT_LABEL = f"{PREFIX}component"
TEMPLATE_LABEL = f"{PREFIX}template"
"""The hash of the pod template, which distinguishes pods of the current generation from older ones."""
APPLIED_HASH_ANNOTATION = f"{PREFIX}applied-hash"
"""The hash of everything that the operator applied to the object."""
OPERATOR_ANNOTATION = f"{PREFIX}operator"
"""The namespace of the operator that manages the object."""
SPLIT_ANNOTATION = f"{PREFIX}split"
"""The hash of the split, in stable pods. A change of it makes the kubelet refresh the volume with the split at once."""
RETRY_ANNOTATION = f"{PREFIX}retry"
"""On an API: a changed value starts its candidate anew, also after a rollback. `cortex retry` writes the time."""
DEVELOPMENT_LABEL = f"{PREFIX}development"
"""On the development copies of `cortex dev`, with the name of the API that they copy."""
DEVELOPMENT_EXPIRES_ANNOTATION = f"{PREFIX}development-expires"
"""When the operator deletes a development copy: RFC 3339. `cortex dev` renews it."""
DEVELOPMENT_HOLDER_ANNOTATION = f"{PREFIX}development-holder"
"""The `cortex dev` process that a development copy belongs to."""
DEVELOPMENT_SUFFIX = "-dev"
"""End of the names of development copies. The operator ignores the annotations above on an API with another name."""
AWAITING_PROJECT = "waiting for the files of the project from `cortex dev`"
"""The message of a replica of a development copy before it has received code."""
CHANGED_AT_ANNOTATION = f"{PREFIX}changed-at"
"""When the spec of a ControllerRevision last became the spec of its API."""
QUEUE_FINALIZER = f"{PREFIX}queue"
"""Keeps an AsyncAPI until its queue is deleted."""


def object_name(api: str, component: str = API) -> str:
    """Return the name of an API's Deployment, Service and other objects; those of other components have a suffix."""
    suffix = "" if component in (API, WORKER) else f"-{component}"
    return f"api-{api}{suffix}"


def split_name(api: str) -> str:
    """Return the name of the ConfigMap with the split of an API."""
    return f"{object_name(api)}-split"


def full_queue_name(namespace: str, name: str) -> str:
    """Return the name of an AsyncAPI's queue on its server. name: of the spec, or that of the API."""
    return f"cortex-{namespace}-{name}"


def pod_selector(api: str, kind: str) -> str:
    """Return the label selector of all pods of an API."""
    return f"{API_LABEL}={api},{KIND_LABEL}={kind}"


# Traces
DEFAULT_SAMPLING = 1.0
"""Percentage of requests without trace context that are traced, where neither the API nor the installation sets one."""
