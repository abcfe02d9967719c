"""The methods of TensorFlow Serving's two gRPC services, with its paths and wire format."""

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
"""Attribute to path, request type and response type."""

CHANNEL_OPTIONS = (
    # Tensors have no maximum size.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Reconnect within a second after a restart of the server; the default is up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The server is in this pod, so a proxy from the environment must not be used.
    ("grpc.enable_http_proxy", 0),
)


class Stubs:
    """One connection. Its methods are thread-safe; each takes `timeout` in seconds and raises grpc.RpcError."""

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
        """Close the connection and cancel running calls."""
        self.channel.close()
