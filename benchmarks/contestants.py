"""The same work written by hand: the limits that the runtime is measured against.

uvicorn serves each of these by `contestants:NAME`, in one process, with uvloop and httptools as the runtime has them.
"""

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
    """An ASGI application with nothing in between: what uvicorn itself can do."""
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


class _Iris:
    """The classifier of examples/iris-onnx, its session in this process."""

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


trivial = Starlette(routes=[Route("/", _trivial, methods=["POST"])])
iris = Starlette(routes=[Route("/", _iris, methods=["POST"])])
iris.state.iris = _Iris()
