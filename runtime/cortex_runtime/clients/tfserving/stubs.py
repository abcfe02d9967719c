"""The calls of TensorFlow Serving's two services. Only the paths and the wire format count; both are TensorFlow Serving's."""

from collections.abc import Callable
from typing import Any

import grpc

from cortex_runtime.clients.tfserving import serving_pb2 as pb

METHODS: dict[str, tuple[str, Any, Any]] = {
    "predict": ("/tensorflow.serving.PredictionService/Predict", pb.PredictRequest, pb.PredictResponse),
    "get_model_metadata": (
        "/tensorflow.serving.PredictionService/GetModelMetadata",
        pb.GetModelMetadataRequest,
        pb.GetModelMetadataResponse,
    ),
    "get_model_status": (
        "/tensorflow.serving.ModelService/GetModelStatus",
        pb.GetModelStatusRequest,
        pb.GetModelStatusResponse,
    ),
    "reload_config": (
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
        pb.ReloadConfigRequest,
        pb.ReloadConfigResponse,
    ),
}
"""Name here to path, request and response."""

CHANNEL_OPTIONS = (
    # Tensors may be of any size.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A model server that restarts is found again within a second; the default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The server is in this pod: a proxy from the environment has no business here.
    ("grpc.enable_http_proxy", 0),
)


class Stubs:
    """One connection. Its calls may be made from any thread; each takes `timeout` in seconds and raises grpc.RpcError."""

    predict: Callable[..., pb.PredictResponse]
    get_model_metadata: Callable[..., pb.GetModelMetadataResponse]
    get_model_status: Callable[..., pb.GetModelStatusResponse]
    reload_config: Callable[..., pb.ReloadConfigResponse]

    def __init__(self, target: str) -> None:
        self.target = target
        self.channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)
        for name, (path, request, response) in METHODS.items():
            call = self.channel.unary_unary(
                path, request_serializer=request.SerializeToString, response_deserializer=response.FromString
            )
            setattr(self, name, call)

    def close(self) -> None:
        """End the connection and what is under way on it."""
        self.channel.close()
