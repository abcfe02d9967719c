"""Ray Serve: `ray_server.py WORK PORT`. One node, one replica; orjson parses the body and writes the response."""

import asyncio
import os
import signal
import sys
import threading
from typing import Any

import orjson
import ray
import work
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.responses import Response

OPTIONS: dict[str, Any] = {
    "num_replicas": 1,
    "max_ongoing_requests": 256,
    "logging_config": LoggingConfig(enable_access_log=False, log_level="ERROR"),
}


def _answer(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


@serve.deployment(**OPTIONS)
class Trivial:
    async def __call__(self, request: Request) -> Response:
        return _answer(work.trivial(orjson.loads(await request.body())))


@serve.deployment(**OPTIONS)
class Iris:
    def __init__(self) -> None:
        self.model = work.Iris()

    async def __call__(self, request: Request) -> Response:
        return _answer(self.model(orjson.loads(await request.body())))


@serve.deployment(**OPTIONS)
class Batching:
    def __init__(self) -> None:
        self.model = work.Network()

    @serve.batch(max_batch_size=work.BATCH_ROWS, batch_wait_timeout_s=work.BATCH_WAIT_S)
    async def classify(self, rows: list[Any]) -> list[int]:
        return await asyncio.to_thread(self.model, rows)

    async def __call__(self, request: Request) -> Response:
        return _answer({"class": await self.classify(orjson.loads(await request.body()))})


if __name__ == "__main__":
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=os.environ["SCRATCH"],
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}, logging_config=OPTIONS["logging_config"]
    )
    serve.run({"trivial": Trivial, "iris": Iris, "batching": Batching}[sys.argv[1]].bind(), route_prefix="/")
    ended.wait()
    ray.shutdown()
