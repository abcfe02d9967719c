"""Handwritten servers that do the same work as the runtime, for comparison.

uvicorn serves each application as `handwritten_servers:NAME`, in one process, with uvloop and httptools like the runtime.
"""

import asyncio
import importlib.util
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

IRIS = Path(__file__).resolve().parents[1] / "examples" / "iris-onnx"
MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
LABELS = ("setosa", "versicolor", "virginica")


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A bare ASGI application: the maximum throughput of uvicorn."""
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    answer = orjson.dumps({"items": len(orjson.loads(body)["items"]), "ok": True})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _trivial(request: Request) -> Response:
    payload = orjson.loads(await request.body())
    answer = orjson.dumps({"items": len(payload["items"]), "ok": True})
    return Response(answer, media_type="application/json")


async def _compressed(request: Request) -> Response:
    payload = orjson.loads(zlib.decompress(await request.body(), zlib.MAX_WBITS | 16))
    answer = orjson.dumps({"items": len(payload["items"]), "ok": True})
    return Response(answer, media_type="application/json")


async def _binary(request: Request) -> Response:
    answer = (np.frombuffer(await request.body(), dtype=np.float32) * 2).tobytes()
    return Response(answer, media_type="application/octet-stream")


class _Iris:
    """The classifier of examples/iris-onnx."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(IRIS / "iris.onnx", options)
        self.input = self.session.get_inputs()[0].name

    async def __call__(self, request: Request) -> Response:
        payload = orjson.loads(await request.body())
        flower = np.array([[payload[name] for name in MEASUREMENTS]], dtype=np.float32)
        _, probabilities = self.session.run(None, {self.input: flower})
        best = int(probabilities[0].argmax())
        answer = {"label": LABELS[best], "probability": round(float(probabilities[0][best]), 4)}
        return Response(orjson.dumps(answer), media_type="application/json")


async def _iris(request: Request) -> Response:
    classifier: _Iris = request.app.state.iris
    return await classifier(request)


class _Batcher:
    """A simple batcher: a queue, a task that collects requests for the batch interval, and a thread for the handler."""

    def __init__(self) -> None:
        path = Path(__file__).resolve().parent / "batching" / "handler.py"
        spec = importlib.util.spec_from_file_location("batching_handler", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.handler, self.max_size = module.Handler(), module.ROWS
        self.queue: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        self.thread = ThreadPoolExecutor(1)
        self.task: asyncio.Task[None] | None = None

    async def __call__(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        if self.task is None:
            self.task = loop.create_task(self.work())
        answer: asyncio.Future[Any] = loop.create_future()
        await self.queue.put((orjson.loads(await request.body()), answer))
        return Response(orjson.dumps(await answer), media_type="application/json")

    async def work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            items = [await self.queue.get()]
            end = loop.time() + 0.005
            while len(items) < self.max_size and (remaining := end - loop.time()) > 0:
                try:
                    items.append(await asyncio.wait_for(self.queue.get(), remaining))
                except TimeoutError:
                    break
            rows = [row for row, _ in items]
            results = await loop.run_in_executor(self.thread, self.handler.handle_post, rows)
            for (_, answer), result in zip(items, results, strict=True):
                answer.set_result(result)


async def _batches(request: Request) -> Response:
    batches = request.app.state.batches
    if batches is None:
        batches = request.app.state.batches = _Batcher()
    answer: Response = await batches(request)
    return answer


trivial = Starlette(routes=[Route("/", _trivial, methods=["POST"])])
compressed = Starlette(routes=[Route("/", _compressed, methods=["POST"])])
binary = Starlette(routes=[Route("/", _binary, methods=["POST"])])
iris = Starlette(routes=[Route("/", _iris, methods=["POST"])])
iris.state.iris = _Iris()
batching = Starlette(routes=[Route("/", _batches, methods=["POST"])])
batching.state.batches = None
