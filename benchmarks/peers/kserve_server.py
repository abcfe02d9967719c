"""KServe's Python server: `kserve_server.py WORK PORT`. One process without access logs.

The v1 protocol without the gRPC server, or, for workloads v2-*, the Open Inference Protocol. In a cluster, an agent container
does the batching, so here each row is a separate call.
"""

import sys
from typing import Any

import numpy as np
import uvicorn
import work


class _Loopback(uvicorn.Config):
    """Listen only on the loopback interface and disable access logs; KServe has no options for this."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **{**options, "host": "127.0.0.1", "access_log": False})


uvicorn.Config = _Loopback  # type: ignore[misc]

import grpc.aio  # noqa: E402
import kserve  # noqa: E402
from kserve.utils.numpy_codec import from_np_dtype  # noqa: E402

_server = grpc.aio.server


def _loopback_server(*arguments: Any, **options: Any) -> Any:
    """Return a gRPC server that listens only on the loopback interface."""
    server = _server(*arguments, **options)
    listen = server.add_insecure_port
    server.add_insecure_port = lambda address: listen(address.replace("[::]", "127.0.0.1"))
    return server


grpc.aio.server = _loopback_server


class Trivial(kserve.Model):
    def load(self) -> bool:
        self.ready = True
        return True

    def predict(self, payload: dict[str, Any], headers: Any = None) -> dict[str, Any]:
        return work.trivial(payload)


class Iris(kserve.Model):
    def load(self) -> bool:
        self.model = work.Iris()
        self.ready = True
        return True

    def predict(self, payload: dict[str, float], headers: Any = None) -> dict[str, Any]:
        return self.model(payload)


class Batching(kserve.Model):
    def load(self) -> bool:
        self.model = work.Network()
        self.ready = True
        return True

    def predict(self, payload: dict[str, Any], headers: Any = None) -> dict[str, Any]:
        return {"predictions": self.model(payload["instances"])}


class _V2(kserve.Model):
    def load(self) -> bool:
        self.ready = True
        return True

    def answer(self, payload: kserve.InferRequest, outputs: dict[str, np.ndarray]) -> kserve.InferResponse:
        tensors = []
        for name, values in outputs.items():
            tensor = kserve.InferOutput(name, list(values.shape), from_np_dtype(values.dtype))
            tensor.set_data_from_numpy(values, binary_data=payload.use_binary_outputs)
            tensors.append(tensor)
        return kserve.InferResponse(
            payload.id or "", self.name, tensors, use_binary_outputs=payload.use_binary_outputs
        )


class V2Iris(_V2):
    def load(self) -> bool:
        self.model = work.Iris()
        return super().load()

    def predict(self, payload: kserve.InferRequest, headers: Any = None) -> kserve.InferResponse:
        return self.answer(payload, self.model.tensors(payload.inputs[0].as_numpy()))


class V2Tensor(_V2):
    def predict(self, payload: kserve.InferRequest, headers: Any = None) -> kserve.InferResponse:
        return self.answer(payload, {"y": work.double(payload.inputs[0].as_numpy())})


def main(name: str, port: int) -> None:
    classes: dict[str, type[kserve.Model]] = {"trivial": Trivial, "iris": Iris, "batching": Batching}
    model = classes.get(name, V2Tensor if name.endswith("-1mb") else V2Iris)("bench")
    model.load()
    is_grpc = name.startswith("v2-grpc")
    ports = {"http_port": work.free_port() if is_grpc else port, "grpc_port": port}
    server = kserve.ModelServer(**ports, workers=1, enable_grpc=is_grpc, enable_latency_logging=False)
    server.start([model])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
