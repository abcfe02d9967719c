"""The life of a worker process: serving/worker_main.py answers requests, and jobs/worker_main.py runs jobs.

It is started with the JSON of a `WorkerArguments`. Over the control channel it reports to its supervisor (messages.py): that it
is ready or why it can't start, and which model it can't load.
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
from cortex_runtime.logs import records
from cortex_runtime.logs.tracebacks import brief
from cortex_runtime.messages import ControlChannel, ModelFailed, StartFailed, Step
from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.processes.parent_pipe import attach
from cortex_runtime.processes.worker_arguments import WorkerArguments

log = logging.getLogger("cortex")

Prepare = Callable[[Document, WorkerArguments, ControlChannel], Callable[[], None]]
"""Loads models and code, and returns what then runs until the process is told to stop. Raises StartError."""


def run(arguments: WorkerArguments, prepare: Prepare) -> NoReturn:
    """A process's whole life. Exit status: 0 after a stop, 1 when the API can't start."""
    attach(arguments.parent_pipe)
    control = ControlChannel(arguments.control)
    # A process that dies of its native code, or is ended because it hangs, leaves the stack of each thread in the log.
    faulthandler.enable(file=2)
    try:
        document = Document.read(arguments.config)
        records.configure(document.spec.handler.log_level, capture_prints=True)
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
    """Models and code, loaded, and the handler constructed. Raises StartError."""
    return load(
        document,
        Path(arguments.project),
        Path(arguments.models),
        NamedSeries(shared_metrics.series_region(arguments.slot)),
        threads.call,
        lambda name: control.send(ModelFailed(name)),
        lambda what: control.send(Step(what)),
    )


def exit_process(status: int) -> NoReturn:
    """Leave at once: neither a call that is overdue nor a thread that the user's code has started may hold the process."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        records.flush()
        os._exit(status)


def refresh_models(handler: LoadedHandler) -> None:
    """Serve models as their index has them now; as before, when that can't be read."""
    try:
        handler.refresh()
    except StartError as error:
        log.error("the change of the models is not served: %s", error)
