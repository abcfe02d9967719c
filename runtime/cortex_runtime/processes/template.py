"""The template process: it has imported what a worker needs, and forks a worker process for each request of its supervisor.

It runs no user code and has one thread, so each fork starts from a clean state: a worker starts in milliseconds, and shares the
memory of what the template has imported. It ends when the supervisor closes the connection, also by its exit.

The supervisor's end is `Template` in template_process.py. Each message is one packet of JSON; open files accompany it.
`python -m cortex_runtime.processes.template DESCRIPTOR MODULE` starts one without a fork of the supervisor.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NoReturn

from cortex_runtime.processes.heap import return_freed_memory
from cortex_runtime.processes.openblas import OpenBlas
from cortex_runtime.processes.worker_arguments import WorkerArguments

MAX_MESSAGE = 1 << 16
MAX_FILES = 250
"""Files that accompany one message; Linux allows 253."""


def prepare(module: str) -> None:
    """Import the module of a worker. All objects are then excluded from garbage collection, so that forks share their memory."""
    importlib.import_module(module)
    gc.collect()
    gc.freeze()


def run(connection: socket.socket) -> NoReturn:
    """Serve the requests of the supervisor until it closes the connection. A forked worker process ends here as well."""
    status = 1
    try:
        os.setsid()
        _set_title("cortex-template")
        request = _Forks(connection).run()
        if request is not None:
            _run_worker(*request)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


class _Forks:
    """The loop of the template process and its worker processes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._openblas = OpenBlas()
        self._workers: dict[int, int] = {}
        """Process ids by pidfd."""
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def run(self) -> tuple[str, WorkerArguments] | None:
        """Return None once the supervisor is gone; in a worker process, the module to run and its arguments."""
        files: list[int] = []
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._connection.fileno():
                    self._reap(descriptor)
                    continue
                try:
                    data, received, _, _ = socket.recv_fds(self._connection, MAX_MESSAGE, MAX_FILES)
                except ConnectionResetError:  # The supervisor was killed before it had read everything.
                    return None
                if not data:
                    return None
                files += received
                message = json.loads(data)
                if "preload" in message:
                    with self._openblas.without_threads():
                        _preload(message["preload"])
                elif "module" in message:
                    if self._fork(message["folders"]):
                        arguments = WorkerArguments.from_json(message["arguments"])
                        return message["module"], arguments.with_descriptors(files)
                    for file in files:
                        os.close(file)
                    files = []

    def _fork(self, folders: Sequence[str]) -> bool:
        """Fork and report the result. Return whether this is the worker process."""
        if (name := _find_shadowed(folders)) is not None:
            self._send({"refused": f"the project has a module {name}, which is also a module of the runtime"})
            return False
        if not self._openblas.restore():
            self._send({"refused": "this build of OpenBLAS cannot be forked"})
            return False
        # The worker waits until its start has been reported: if this process exits before, no process knows the worker.
        reading, writing = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            self._send({"failed": error.errno})
            pid = -1
        if pid == 0:
            os.close(writing)
            if not os.read(reading, 1):
                os._exit(1)
            os.close(reading)
            for pidfd in self._workers:
                os.close(pidfd)
            self._connection.close()
            return True
        os.close(reading)
        if pid > 0 and self._report(pid):
            # The worker may have been killed already.
            with contextlib.suppress(BrokenPipeError):
                os.write(writing, b"\n")
        os.close(writing)
        return False

    def _report(self, pid: int) -> bool:
        """Report the start of a worker to the supervisor. Return False if it must not run."""
        # Libraries with fork handlers, such as OpenBLAS, have ended their threads before the fork. Any thread that is left may
        # have held a lock, which is never released in the worker.
        if (threads := len(os.listdir("/proc/self/task"))) > 1:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._send({"refused": f"an imported library has started threads ({threads - 1})"})
            return False
        pidfd = os.pidfd_open(pid)
        self._workers[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        self._send({"pid": pid}, [pidfd])
        return True

    def _reap(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        pid, status = os.waitpid(self._workers.pop(pidfd), 0)
        self._send({"exited": pid, "status": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, Any], files: Sequence[int] = ()) -> None:
        # If the supervisor is gone, the next read ends the loop.
        with contextlib.suppress(OSError):
            socket.send_fds(self._connection, [json.dumps(message).encode()], files)


def _preload(modules: Iterable[str]) -> None:
    for module in modules:
        # An error is reported by the worker process, which imports it again.
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    gc.collect()
    return_freed_memory()
    gc.freeze()


def _find_shadowed(folders: Iterable[str]) -> str | None:
    """Return an imported module that another one in these folders would replace in a fresh interpreter."""
    for folder in folders:
        try:
            names = {name.partition(".")[0] for name in os.listdir(folder)}
        except OSError:
            # The worker reports it.
            continue
        for name in sorted(names & sys.modules.keys() - {"__main__"}):
            spec = PathFinder.find_spec(name, [folder])
            if (
                spec is not None
                and spec.loader
                and spec.origin != getattr(sys.modules[name], "__file__", None)
            ):
                return name
    return None


def _run_worker(module: str, arguments: WorkerArguments) -> None:
    """Run a worker module in this process, which has just been forked, as if an interpreter had been started for it."""
    os.setsid()
    _set_title("cortex-worker")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for descriptor in arguments.descriptors():
        os.set_inheritable(descriptor, False)
    if (random := sys.modules.get("numpy.random")) is not None:
        # `random` seeds itself again in a forked process; numpy's global generator does not.
        random.seed()
    worker: Any = importlib.import_module(module)
    sys.argv = [worker.__file__]
    worker.main(arguments)


def _set_title(name: str) -> None:
    """Set the name of this process in `ps` and `top`."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def main(descriptor: str, module: str) -> NoReturn:
    """Run a template that is not a fork of its supervisor."""
    prepare(module)
    run(socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    main(*sys.argv[1:])
