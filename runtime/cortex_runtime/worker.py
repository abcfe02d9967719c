"""One serving process: the user's code lives here and only here. Started by the supervisor, and ends when that ends.

`python -m cortex_runtime.worker ORDER`, where ORDER is the JSON of an `Order`. Over the control socket it tells the supervisor, a
JSON line each, that it is ready or why it can't start, and is told "drain" (close connections as they are used) and "stop".
"""

import asyncio
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from cortex_api import Document, units
from cortex_runtime import handler as interfaces
from cortex_runtime import logs
from cortex_runtime.app import App
from cortex_runtime.board import Board
from cortex_runtime.errors import StartError, last_lines
from cortex_runtime.execution import Threads
from cortex_runtime.models.storage import local_path
from cortex_runtime.models.tree import Model, onnx_model
from cortex_runtime.order import Order
from cortex_runtime.protocol import InPlaceProtocol
from cortex_runtime.server import Server


def prepare(document: Document, project: Path, board: Board, slot: int) -> App:
    """Load models and code and construct the handler. Raises StartError."""
    spec = document.spec.handler
    python_path = [project, *([project / spec.python_path] if spec.python_path else [])]
    for folder in python_path:
        if not folder.is_dir():
            raise StartError("HandlerNotFound", f"handler.pythonPath: there is no folder {folder}")
    sys.path[:0] = [str(folder) for folder in python_path]
    os.chdir(project)
    code = interfaces.load(project / spec.path if spec.path else None, spec.type, document.kind)
    values: dict[str, Any] = {"config": spec.config, "metadata": spec.config}
    client = None
    if spec.type == "onnx":
        from cortex_runtime.clients import onnx

        models = _models(spec.models, project, onnx.DEFAULT_NAME)
        workers = spec.processes_per_replica * spec.threads_per_process
        client = values["onnx_client"] = onnx.ONNXClient(models, onnx.intra_op_threads(workers))
    row = board.row(slot)
    threads = Threads(spec.threads_per_process, row)
    instance = threads.call(lambda: interfaces.construct(code, values))
    info = {
        "api": document.name,
        "kind": document.kind,
        "type": spec.type,
        "models": client.info() if client else [],
    }
    return App(
        interfaces.methods(code, instance, values),
        threads,
        row,
        max_body=units.parse_bytes(spec.max_body_size),
        timeout=units.seconds(spec.request_timeout),
        limit=spec.max_replica_concurrency,
        info=lambda: info,
        access=logs.AccessLog(spec.log_level),
    )


def _models(models: Any, project: Path, default_name: str) -> dict[str, Model]:
    if models.path is not None:
        return {default_name: onnx_model(default_name, local_path(models.path, project))}
    if models.paths is not None:
        return {m.name: onnx_model(m.name, local_path(m.path, project)) for m in models.paths}
    folder = local_path(models.dir, project)
    if not folder.is_dir():
        raise StartError("ModelInvalid", f"handler.models.dir: {folder} is not a folder")
    found = {
        entry.name: onnx_model(entry.name, entry) for entry in sorted(folder.iterdir()) if entry.is_dir()
    }
    if not found:
        raise StartError("ModelNotFound", f"handler.models.dir: {folder} holds no model")
    return found


def serve(document: Document, app: App, listener: socket.socket, control: socket.socket) -> None:
    """Answer requests until told to stop and all running ones are over."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=InPlaceProtocol,
        interface="asgi3",
        proxy_headers=False,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_graceful_shutdown=max(1, int(units.seconds(document.spec.handler.request_timeout))),
    )
    server = Server(config, lambda: control.sendall(b'{"event": "ready"}\n'))
    threading.Thread(target=_obey, args=(control, server, app), daemon=True).start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[listener]))


def _obey(control: socket.socket, server: Server, app: App) -> None:
    with control.makefile("r") as orders:
        for order in orders:
            if order == "drain\n":
                app.draining = True
            elif order == "stop\n":
                app.draining = True
                server.should_exit = True
    # The supervisor is gone, and with it whoever would end this process.
    os._exit(1)


def main(argument: str) -> int:
    """Exit status: 0 after a stop, 1 when the API can't start."""
    order = Order(**json.loads(argument))
    control = socket.socket(fileno=order.control)
    listener = socket.socket(fileno=order.listener)
    try:
        document = Document.read(order.config)
        logs.configure(document.spec.handler.log_level, capture_prints=True)
        app = prepare(document, Path(order.project), Board(order.board, order.slots), order.slot)
    except StartError as error:
        return _fail(control, error.reason, error.message)
    except (OSError, ValueError) as error:
        return _fail(control, "InvalidSpec", last_lines(error))
    serve(document, app, listener, control)
    app.close()
    return 0


def _fail(control: socket.socket, reason: str, message: str) -> int:
    control.sendall(json.dumps({"event": "failed", "reason": reason, "message": message}).encode() + b"\n")
    return 1


if __name__ == "__main__":
    status = main(sys.argv[1])
    # A thread that still runs an overdue call must not hold the process.
    os._exit(status)
