"""KServe's Python server: `kserve_server.py WORK PORT`. One process, the v1 protocol, without gRPC and access logs.

In a cluster, an agent container does the batching, so here each row is a separate call.
"""

import sys
from typing import Any

import uvicorn
import work


class _Loopback(uvicorn.Config):
    """Listen only on the loopback interface and disable access logs; KServe has no options for this."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **{**options, "host": "127.0.0.1", "access_log": False})


uvicorn.Config = _Loopback  # type: ignore[misc]

import kserve  # noqa: E402


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


if __name__ == "__main__":
    model = {"trivial": Trivial, "iris": Iris, "batching": Batching}[sys.argv[1]]("bench")
    model.load()
    server = kserve.ModelServer(
        http_port=int(sys.argv[2]), workers=1, enable_grpc=False, enable_latency_logging=False
    )
    server.start([model])
