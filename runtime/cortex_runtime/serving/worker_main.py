"""A worker process of a RealtimeAPI, which runs the user's code. Started by the supervisor; ends when the supervisor ends.

Run as `python -m cortex_runtime.serving.worker_main ARGUMENTS` (handler/worker_lifecycle.py). messages.py defines the messages of
the control channel.
"""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import orjson
import uvloop

from cortex_api import Document, units
from cortex_runtime.errors import StartError
from cortex_runtime.handler import worker_lifecycle
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.handler.threads import Threads
from cortex_runtime.http import api_keys
from cortex_runtime.http.protocol import InlineProtocol
from cortex_runtime.http.server import Config, Server, counted, plain
from cortex_runtime.logs.access_log import AccessLog
from cortex_runtime.messages import (
    ControlChannel,
    Describe,
    Description,
    Drain,
    ModelsChanged,
    Ping,
    Pong,
    Ready,
    ReloadModels,
    ReloadSplit,
    StartFailed,
    Stop,
)
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.processes.worker_arguments import WorkerArguments
from cortex_runtime.serving.app import App
from cortex_runtime.serving.endpoint import Limits
from cortex_runtime.serving.inference import open_inference
from cortex_runtime.serving.instrumentation import Instrumentation, instrumentation_of
from cortex_runtime.serving.worker_split import WorkerSplit

if TYPE_CHECKING:
    from cortex_runtime.serving.grpc_server import GrpcServer


def prepare(document: Document, arguments: WorkerArguments, control: ControlChannel) -> Callable[[], None]:
    """Load models and code and construct the handler. Returns a function that serves. Raises StartError."""
    listener = socket.socket(fileno=arguments.listener)
    spec = document.realtime_spec.handler
    keys = api_keys.load(document)
    shared_metrics = SharedMetrics(arguments.metrics, arguments.slots)
    metrics = shared_metrics.worker(arguments.slot)
    threads: Threads
    if arguments.mailboxes:
        from cortex_runtime.serving.load_sharing import SharedThreads

        threads = SharedThreads(spec.threads_per_process, metrics, shared_metrics, arguments.slot)
    else:
        threads = Threads(spec.threads_per_process, metrics)
    instrumentation = instrumentation_of(document, metrics)
    handler = worker_lifecycle.load_handler(document, arguments, control, shared_metrics, threads)
    instrumentation.log_payloads(document, handler.series)
    service = instrumentation.service(
        handler,
        threads,
        metrics,
        Limits(units.parse_bytes(spec.max_body_size), units.seconds(spec.request_timeout)),
        spec.server_side_batching if spec.type != "tensorflow" else None,
    )
    service.inference = open_inference(service, Path(arguments.models), lambda: control.send(ModelsChanged()))
    app = App(
        service,
        limit=spec.max_replica_concurrency,
        access=AccessLog(spec.log_level),
        keys=keys,
    )
    return partial(serve, document, app, handler, listener, control, arguments, instrumentation)


def serve(
    document: Document,
    app: App,
    handler: LoadedHandler,
    listener: socket.socket,
    control: ControlChannel,
    arguments: WorkerArguments,
    instrumentation: Instrumentation,
) -> None:
    """Answer requests until the supervisor sends "stop" and all running requests have ended."""
    instrumentation.activate()
    config = plain(
        instrumentation.wrap(app),
        loop="uvloop",
        http=counted(InlineProtocol, app.metrics.count_connection),
        interface="asgi3",
        proxy_headers=False,
        backlog=2048,
        timeout_graceful_shutdown=max(1, int(units.seconds(document.realtime_spec.handler.request_timeout))),
        **_websockets(document) if app.has_websockets else {},
    )
    server = _server(config, lambda: control.send(Ready()), app, arguments)
    grpc = _grpc_server(document, app, instrumentation) if arguments.grpc_address else None
    loop = uvloop.new_event_loop()
    split = WorkerSplit(document, app, server, loop, arguments, grpc, instrumentation)
    threading.Thread(
        target=_receive_commands, args=(control, server, app, handler, loop, grpc, split), daemon=True
    ).start()
    main = _serve(server, listener, app, control, grpc, arguments, split, instrumentation)
    app.threads.drive(loop, main, on_handler_thread=app.all_async)


def _grpc_server(document: Document, app: App, instrumentation: Instrumentation) -> "GrpcServer":
    from cortex_runtime.serving.grpc_server import GrpcServer

    spec = document.realtime_spec.handler
    assert app.inference is not None
    return GrpcServer(
        app.inference,
        app.admission,
        app.threads,
        max_message=units.parse_bytes(spec.max_body_size),
        timeout=units.seconds(spec.request_timeout),
        instrument=instrumentation.grpc,
        on_connection=app.metrics.count_connection,
    )


def _websockets(document: Document) -> dict[str, Any]:
    """Return the settings of uvicorn for WebSockets, whose implementation is imported only here."""
    from cortex_runtime.http.websocket import OrderlyWebSocket

    size = units.parse_bytes(document.realtime_spec.handler.max_body_size)
    return {"ws": OrderlyWebSocket, "ws_max_size": size}


def _server(config: Config, ready: Callable[[], None], app: App, arguments: WorkerArguments) -> Server:
    if not arguments.mailboxes:
        return Server(config, ready)
    from cortex_runtime.mailboxes import Mailboxes
    from cortex_runtime.serving.load_sharing import SharedThreads, SharingServer

    assert isinstance(app.threads, SharedThreads)
    return SharingServer(config, ready, app.threads, Mailboxes(arguments.mailboxes))


async def _serve(
    server: Server,
    listener: socket.socket,
    app: App,
    control: ControlChannel,
    grpc: "GrpcServer | None",
    arguments: WorkerArguments,
    split: WorkerSplit,
    instrumentation: Instrumentation,
) -> None:
    status = 0
    try:
        async with app.starlette.router.lifespan_context(app.starlette):
            if grpc is not None:
                await grpc.start(arguments.grpc_address)
            split.start()
            await server.serve(sockets=[listener])
            if grpc is not None:
                await grpc.stopped()
        app.close()
        instrumentation.close()
    except StartError as error:
        status = 1
        control.send(StartFailed(error.reason, error.message))
    finally:
        worker_lifecycle.exit_process(status)


def _receive_commands(
    control: ControlChannel,
    server: Server,
    app: App,
    handler: LoadedHandler,
    loop: asyncio.AbstractEventLoop,
    grpc: "GrpcServer | None",
    split: WorkerSplit,
) -> None:
    while (command := control.receive()) is not None:
        if isinstance(command, ReloadModels):
            threading.Thread(target=_refresh_models, args=(handler, app), daemon=True).start()
        elif isinstance(command, ReloadSplit):
            split.reload()
        elif isinstance(command, Describe):
            threading.Thread(target=_describe, args=(command, control, app, split), daemon=True).start()
        elif isinstance(command, Ping):
            # Answered on the event loop, so that a blocked loop does not answer.
            loop.call_soon_threadsafe(_send_pong, control, app.threads)
        elif isinstance(command, Drain):
            app.draining = True
            if grpc is not None:
                loop.call_soon_threadsafe(grpc.drain)
        elif isinstance(command, Stop):
            app.draining = True
            server.should_exit = True
            if grpc is not None:
                loop.call_soon_threadsafe(grpc.begin_stop)
    # The supervisor has exited.
    os._exit(1)


def _refresh_models(handler: LoadedHandler, app: App) -> None:
    worker_lifecycle.refresh_models(handler)
    if app.inference is not None:
        app.inference.service.refresh()


def _describe(command: Describe, control: ControlChannel, app: App, split: WorkerSplit) -> None:
    """Answer `Describe`, in a thread: a model may have to be loaded for its signature."""
    content = app.interface() if command.topic == "interface" else split.describe(command.topic)
    control.send(Description(command.id, orjson.dumps(content)))


def _send_pong(control: ControlChannel, threads: Threads) -> None:
    control.send(Pong(threads.pending >= threads.size, threads.finished))


def main(arguments: WorkerArguments) -> NoReturn:
    """Run the worker in this process."""
    worker_lifecycle.run(arguments, prepare)


if __name__ == "__main__":
    main(WorkerArguments.from_json(sys.argv[1]))
