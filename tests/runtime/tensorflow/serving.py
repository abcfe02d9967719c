"""A test double of TensorFlow Serving: PredictionService and ModelService over real SavedModels.

Tensors and signatures pass through TensorFlow's own messages, so that ours are compared with them. Like the real server, it
takes a complete list of models, unloads before it loads, waits for new models, loads nothing while a base path is missing, and
requires the types and shapes of the signature.
"""

import threading
import time
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2

from cortex_runtime.clients.tfserving import serving_pb2 as pb
from cortex_runtime.clients.tfserving.stubs import METHODS
from tests.ports import free_port

STATES = pb.ModelVersionStatus


@dataclass
class Loaded:
    """A version of a model. error: why it could not be loaded."""

    state: int = STATES.LOADING
    functions: Any = None
    signatures: Any = field(default_factory=dict)
    error: str = ""


class Refused(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code, self.message = code, message


class Double:
    """The services. reloads: every received list of names. most: maximum number of models that were loaded at once."""

    def __init__(self) -> None:
        self.configured: dict[str, pb.ModelConfig] = {}
        self.loaded: dict[tuple[str, int], Loaded] = {}
        self.lock = threading.Lock()
        self.slow = threading.Event()
        self.reloads: list[list[str]] = []
        self.most = 0
        self.server: grpc.Server | None = None
        self.port = free_port()

    def up(self) -> None:
        """Serve, always on the same port."""
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 2**31 - 1)]
        # With too few threads, slow predictions would delay everything else.
        self.server = grpc.server(futures.ThreadPoolExecutor(32), options=options)
        handlers: dict[str, dict[str, Any]] = {}
        for name, (path, request, response) in METHODS.items():
            _, service, method = path.split("/")
            handlers.setdefault(service, {})[method] = grpc.unary_unary_rpc_method_handler(
                answer(getattr(self, name)), request.FromString, response.SerializeToString
            )
        for service, methods in handlers.items():
            self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, methods)])
        self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def down(self) -> None:
        """Stop, and forget every model, like a container that restarts."""
        self.server.stop(0).wait()
        self.server = None
        self.configured, self.loaded = {}, {}

    def available(self) -> list[str]:
        """Return the names of the available models."""
        # A copy: models are loaded in other threads.
        loaded = list(self.loaded.items())
        return sorted(name for (name, _), model in loaded if model.state == STATES.AVAILABLE)

    def reload_config(self, request, context):
        if request.config.WhichOneof("config") != "model_config_list":
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "ServerModelConfig type not supported")
        with self.lock:
            wanted = {}
            for config in request.config.model_config_list.config:
                illegal = not config.base_path.startswith("/") or config.model_platform != "tensorflow"
                if illegal or config.name in wanted:
                    raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"illegal config of {config.name}")
                wanted[config.name] = config
            self.reloads.append(list(wanted))
            new = [name for name in wanted if name not in self.configured]
            self.configured = wanted
            for key in [key for key in self.loaded if key[0] not in wanted]:
                del self.loaded[key]
            while not all(Path(config.base_path).is_dir() for config in wanted.values()):
                if context.time_remaining() < 0.1:
                    return pb.ReloadConfigResponse()
                time.sleep(0.01)
            for name in new:
                for version in wanted[name].model_version_policy.specific.versions:
                    self._load(name, version, Path(wanted[name].base_path, str(version)))
            self.most = max(self.most, len(self.available()))
            failed = [
                f"{{name: {key[0]} version: {key[1]}}} due to error: {model.error}"
                for key, model in self.loaded.items()
                if key[0] in new and model.error
            ]
        if failed:
            words = f"{len(failed)} servable(s) did not become available: {failed}"
            raise Refused(grpc.StatusCode.UNKNOWN, words)
        return pb.ReloadConfigResponse()

    def _load(self, name: str, version: int, path: Path) -> None:
        model = self.loaded[name, version] = Loaded()
        try:
            content = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
            model.signatures = content.meta_graphs[0].signature_def
            model.functions = tf.saved_model.load(str(path))
            model.state = STATES.AVAILABLE
        except Exception as error:
            model.state, model.error = STATES.END, str(error)

    def get_model_status(self, request, context):
        name, version = request.model_spec.name, request.model_spec.version.value
        model = self.loaded.get((name, version))
        if model is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model {name}")
        response = pb.GetModelStatusResponse()
        status = pb.StatusProto(error_code=2 if model.error else 0, error_message=model.error)
        response.model_version_status.add(version=version, state=model.state, status=status)
        return response

    def get_model_metadata(self, request, context):
        model = self._find(request.model_spec)
        signatures = pb.SignatureDefMap()
        for key, signature in model.signatures.items():
            signatures.signature_def[key].ParseFromString(signature.SerializeToString())
        response = pb.GetModelMetadataResponse(model_spec=request.model_spec)
        packed = response.metadata["signature_def"]
        packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        packed.value = signatures.SerializeToString()
        return response

    def predict(self, request, context):
        while self.slow.is_set() and context.is_active():
            time.sleep(0.01)
        model = self._find(request.model_spec)
        key = request.model_spec.signature_name or "serving_default"
        signature = model.signatures.get(key)
        if signature is None:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.')
        if set(request.inputs) != set(signature.inputs):
            words = f"inputs do not match signature: {sorted(request.inputs)}"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, words)
        feed = {}
        for name, message in request.inputs.items():
            proto = tensor_pb2.TensorProto.FromString(message.SerializeToString())
            info = signature.inputs[name]
            if proto.dtype != info.dtype:
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{name} has the wrong type: {proto.dtype}")
            tensor = feed[name] = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype))
            if not tf.TensorShape(info.tensor_shape).is_compatible_with(tensor.shape):
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{name} has the wrong shape: {tensor.shape}")
        try:
            outputs = model.functions.signatures[key](**feed)
        except tf.errors.InvalidArgumentError as error:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, error.message) from error
        response = pb.PredictResponse(model_spec=request.model_spec)
        for name, tensor in outputs.items():
            response.outputs[name].ParseFromString(as_fields(tensor).SerializeToString())
        return response

    def _find(self, spec) -> Loaded:
        model = self.loaded.get((spec.name, spec.version.value))
        if model is None or model.state != STATES.AVAILABLE:
            which = f"Specific({spec.name}, {spec.version.value})"
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {which}")
        return model


def as_fields(tensor: tf.Tensor) -> tensor_pb2.TensorProto:
    """Return a tensor with its values in the list of its type, which is the default form of TensorFlow Serving."""
    shape = tf.TensorShape(tensor.shape).as_proto()
    proto = tensor_pb2.TensorProto(dtype=tensor.dtype.as_datatype_enum, tensor_shape=shape)
    values = tensor.numpy()
    flat = values.ravel() if isinstance(values, np.ndarray) else np.array([values], dtype=object)
    name = tensor.dtype.name
    if name == "string":
        proto.string_val.extend(flat.tolist())
    elif name in ("float16", "bfloat16"):
        proto.half_val.extend(np.asarray(flat, values.dtype).view(np.uint16).tolist())
    elif name.startswith("complex"):
        parts = np.asarray(flat, values.dtype).view(np.float32 if name == "complex64" else np.float64)
        (proto.scomplex_val if name == "complex64" else proto.dcomplex_val).extend(parts.tolist())
    else:
        lists = {"float32": "float", "float64": "double", "bool": "bool"}
        lists |= {same: same for same in ("uint32", "uint64", "int64")}
        getattr(proto, f"{lists.get(name, 'int')}_val").extend(flat.tolist())
    return proto


def answer(method):
    def call(request, context):
        try:
            return method(request, context)
        except Refused as refused:
            context.abort(refused.code, refused.message)

    return call
