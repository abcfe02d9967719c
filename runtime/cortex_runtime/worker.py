"""One serving process: the user's code lives here and only here. Started by the supervisor, and ends when that ends.

`python -m cortex_runtime.worker ORDER`, where ORDER is the JSON of an `Order`. Over the control socket it tells the supervisor, a
JSON line each, that it is ready or why it can't start, and which model it can't load; and it is told "drain" (close connections
as they are used), "models" (their index has changed) and "stop".
"""

import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvicorn
import uvloop

from cortex_api import Document, units
from cortex_runtime import api_keys, logs
from cortex_runtime.app import App
from cortex_runtime.board import Board
from cortex_runtime.errors import StartError, last_lines
from cortex_runtime.execution import Threads
from cortex_runtime.lifeline import hold
from cortex_runtime.order import Order
from cortex_runtime.program import Program
from cortex_runtime.program import prepare as program_of
from cortex_runtime.protocol import InPlaceProtocol
from cortex_runtime.server import Server
from cortex_runtime.tally import Tally

log = logging.getLogger("cortex")


def prepare(
    document: Document, project: Path, models: Path, board: Board, slot: int, report: Callable[..., None]
) -> tuple[App, Program]:
    """Load models and code and construct the handler. Raises StartError."""
    spec = document.spec.handler
    keys = api_keys.of(document)
    row = board.row(slot)
    threads = Threads(spec.threads_per_process, row)
    program = program_of(
        document,
        project,
        models,
        Tally(board.region(slot)),
        threads.call,
        lambda name: report(event="model_failed", model=name),
    )
    app = App(
        program,
        threads,
        row,
        max_body=units.parse_bytes(spec.max_body_size),
        timeout=units.seconds(spec.request_timeout),
        limit=spec.max_replica_concurrency,
        batching=spec.server_side_batching if spec.type != "tensorflow" else None,
        access=logs.AccessLog(spec.log_level),
        keys=keys,
    )
    return app, program


def serve(
    document: Document, app: App, program: Program, listener: socket.socket, control: socket.socket
) -> None:
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
    threading.Thread(target=_obey, args=(control, server, app, program), daemon=True).start()
    app.threads.drive(uvloop.new_event_loop(), _serve(server, listener, app), together=app.all_async)


async def _serve(server: Server, listener: socket.socket, app: App) -> None:
    try:
        await server.serve(sockets=[listener])
        app.close()
        sys.stdout.flush()
    finally:
        # A call that is overdue still holds its thread, and must not hold the process.
        os._exit(0)


def _obey(control: socket.socket, server: Server, app: App, program: Program) -> None:
    with control.makefile("r") as orders:
        for order in orders:
            if order == "models\n":
                threading.Thread(target=_follow, args=(program,), daemon=True).start()
            elif order == "drain\n":
                app.draining = True
            elif order == "stop\n":
                app.draining = True
                server.should_exit = True
    # The supervisor is gone, and with it whoever would end this process.
    os._exit(1)


def _follow(program: Program) -> None:
    try:
        program.refresh()
    except StartError as error:
        log.error("the change of the models is not served: %s", error)


def main(argument: str) -> int:
    """Exit status: 0 after a stop, 1 when the API can't start."""
    order = Order(**json.loads(argument))
    hold(order.lifeline)
    control = socket.socket(fileno=order.control)
    listener = socket.socket(fileno=order.listener)
    try:
        document = Document.read(order.config)
        logs.configure(document.spec.handler.log_level, capture_prints=True)
        board = Board(order.board, order.slots)
        app, program = prepare(
            document, Path(order.project), Path(order.models), board, order.slot, partial(_report, control)
        )
    except StartError as error:
        return _fail(control, error.reason, error.message)
    except (OSError, ValueError) as error:
        return _fail(control, "InvalidSpec", last_lines(error))
    serve(document, app, program, listener, control)
    return 0


def _fail(control: socket.socket, reason: str, message: str) -> int:
    _report(control, event="failed", reason=reason, message=message)
    return 1


def _report(control: socket.socket, **report: str) -> None:
    control.sendall(json.dumps(report).encode() + b"\n")


if __name__ == "__main__":
    status = main(sys.argv[1])
    # A thread that the user's code started must not hold the process.
    os._exit(status)
