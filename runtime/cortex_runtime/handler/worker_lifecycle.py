"""Start and end a worker process, which runs user code: serving/worker_main.py handles requests, jobs/worker_main.py runs jobs.

Its argument is the JSON of `WorkerArguments`. Over the control channel (messages.py) it reports to its supervisor: the steps of
its start, the cause of a failed start, and models that it failed to load.
"""

import faulthandler
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cortex_api import Document
from cortex_runtime.errors import StartError
from cortex_runtime.handler.loaded_handler import LoadedHandler, load
from cortex_runtime.handler.threads import Threads
from cortex_runtime.http.response import show_tracebacks
from cortex_runtime.logs import records
from cortex_runtime.logs.tracebacks import brief
from cortex_runtime.messages import ControlChannel, ModelFailed, StartFailed, Step
from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.processes.parent_pipe import exit_with_parent
from cortex_runtime.processes.worker_arguments import WorkerArguments

log = logging.getLogger("cortex")

Prepare = Callable[[Document, WorkerArguments, ControlChannel], Callable[[], None]]
"""Loads models and code. Returns a function that serves until the process is stopped. Raises StartError."""


def run(arguments: WorkerArguments, prepare: Prepare) -> NoReturn:
    """Run a worker process and exit: with 0 after a stop, with 1 if it failed to start."""
    exit_with_parent(arguments.parent_pipe)
    control = ControlChannel(arguments.control)
    # If native code crashes, or the supervisor ends a hung process, write the stack of each thread to the log.
    faulthandler.enable(file=2)
    try:
        document = Document.read(arguments.config)
        records.configure(document.spec.handler.log_level, capture_prints=True)
        if arguments.show_tracebacks:
            show_tracebacks()
        serve = prepare(document, arguments, control)
    except StartError as error:
        control.send(StartFailed(error.reason, error.message))
    except (OSError, ValueError) as error:
        control.send(StartFailed("InvalidSpec", brief(error)))
    else:
        serve()
        exit_process(0)
    exit_process(1)


def load_handler(
    document: Document,
    arguments: WorkerArguments,
    control: ControlChannel,
    shared_metrics: SharedMetrics,
    threads: Threads,
) -> LoadedHandler:
    """Load models and code and construct the handler. Raises StartError."""
    return load(
        document,
        Path(arguments.project),
        Path(arguments.models),
        NamedSeries(shared_metrics.series_region(arguments.slot)),
        threads.call,
        lambda name: control.send(ModelFailed(name)),
        lambda description: control.send(Step(description)),
    )


def exit_process(status: int) -> NoReturn:
    """Exit at once. Running calls and threads of user code can't delay it."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        records.flush()
        os._exit(status)


def refresh_models(handler: LoadedHandler) -> None:
    """Serve the models that are in the index now. If it can't be read, continue with the current ones."""
    try:
        handler.refresh()
    except StartError as error:
        log.error("failed to update the models; serving the previous versions: %s", error)
