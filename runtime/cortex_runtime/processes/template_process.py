"""The template process as its supervisor sees it, and the worker processes that are forked from it.

template.py is the other end of the connection.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from cortex_runtime.processes import template
from cortex_runtime.processes.worker_arguments import WorkerArguments

log = logging.getLogger("cortex")

UNKNOWN_STATUS = 256
"""The exit status of a process whose parent, the template, had exited before it. No process exits with this status."""
_END_SECONDS = 2.0


class TemplateExited(Exception):
    """The template process has exited."""


class Refused(Exception):
    """The template must not be forked for this worker; the message says why."""


class ForkedProcess:
    """A process that the template has forked, with the interface of `asyncio.subprocess.Process`.

    returncode: the exit status, or the negated number of the signal; None while it runs.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """Return the exit status once the process has exited."""
        return await asyncio.shield(self._exit)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has exited."""
        if self.returncode is None:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        """Send SIGKILL, unless the process has exited."""
        self.send_signal(signal.SIGKILL)

    def set_exited(self, status: int) -> None:
        """Record the exit status that the template reports."""
        self.returncode = status
        os.close(self._pidfd)
        self._exit.set_result(status)

    def watch(self) -> None:
        """Notice the exit without the template."""
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        try:
            # The first process of a container adopts the children of an exited process.
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid = 0
        self.set_exited(os.waitstatus_to_exitcode(status) if pid else UNKNOWN_STATUS)


class Template:
    """A running template process. Used by one event loop, except for its creation."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._connection = connection
        self._workers: dict[int, ForkedProcess] = {}
        self._replies: deque[asyncio.Future[ForkedProcess]] = deque()
        self._lock = asyncio.Lock()
        self._exit: asyncio.Future[int] | None = None
        self.has_forked = False

    @property
    def is_alive(self) -> bool:
        """Whether the process is not known to have exited."""
        return self._exit is None or not self._exit.done()

    @classmethod
    def fork(cls, module: str) -> "Template | None":
        """Fork a template of this process after importing the module of its workers. None where processes must not be forked.

        Must be called before this process starts a thread or an event loop.
        """
        if not _is_supported():
            return None
        template.prepare(module)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError as error:
            log.warning("failed to fork the template process: %s", error.strerror)
            return None
        if pid == 0:
            ours.close()
            template.run(theirs)
        theirs.close()
        return cls(pid, ours)

    @classmethod
    def start(cls, module: str) -> "Template | None":
        """Start a template in a fresh interpreter, with the current environment. None where processes must not be forked."""
        if not _is_supported():
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Reaped by _on_exit.
            process = subprocess.Popen(
                [sys.executable, "-m", template.__name__, str(theirs.fileno()), module],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )
        process.returncode = 0
        return cls(process.pid, ours)

    def preload(self, modules: Iterable[str]) -> None:
        """Import more modules, before the next fork."""
        self._send({"preload": list(modules)})

    async def fork_worker(
        self, module: str, arguments: WorkerArguments, folders: Sequence[str]
    ) -> ForkedProcess:
        """Fork a process that runs a worker module. folders: where the project's modules are.

        Raises TemplateExited, Refused, and OSError when the system can start no process.
        """
        # One at a time: the messages and files of many requests would not fit into the buffer of the connection.
        async with self._lock:
            self._listen()
            if not self.is_alive:
                raise TemplateExited
            files = arguments.descriptors()
            while len(files) > template.MAX_FILES:
                self._send({}, files[: template.MAX_FILES])
                files = files[template.MAX_FILES :]
            self._send({"module": module, "arguments": arguments.to_json(), "folders": folders}, files)
            reply: asyncio.Future[ForkedProcess] = asyncio.get_running_loop().create_future()
            self._replies.append(reply)
            worker = await reply
            self.has_forked = True
            return worker

    async def close(self) -> None:
        """End the process. Workers keep running."""
        self._listen()
        assert self._exit is not None
        if self.is_alive:
            # Not closed: the loop still reads from it.
            self._connection.shutdown(socket.SHUT_WR)
        done, _ = await asyncio.wait((self._exit,), timeout=_END_SECONDS)
        if not done:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await self._exit

    def _listen(self) -> None:
        """Start to receive, in the running event loop."""
        if self._exit is None:
            loop = asyncio.get_running_loop()
            self._exit = loop.create_future()
            loop.add_reader(self._connection, self._receive)
            loop.add_reader(self._pidfd, self._on_exit)

    def _send(self, message: dict[str, Any], files: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._connection, [json.dumps(message).encode()], files)
        except OSError:
            # The template has exited; _on_exit handles it.
            return

    def _receive(self) -> bool:
        """Handle a message. Return False when none is left."""
        try:
            data, files, _, _ = socket.recv_fds(
                self._connection, template.MAX_MESSAGE, 1, socket.MSG_DONTWAIT
            )
        except OSError:
            return False
        if not data:
            return False
        message = json.loads(data)
        if "exited" in message:
            self._workers.pop(message["exited"]).set_exited(message["status"])
        elif "pid" in message:
            worker = ForkedProcess(message["pid"], files[0])
            self._workers[worker.pid] = worker
            self._answer(worker)
        elif "refused" in message:
            self._answer(Refused(message["refused"]))
        else:
            self._answer(OSError(message["failed"], os.strerror(message["failed"])))
        return True

    def _answer(self, result: ForkedProcess | Exception) -> None:
        reply = self._replies.popleft()
        if isinstance(result, Exception):
            if not reply.done():
                reply.set_exception(result)
        elif reply.done():
            # The request was cancelled.
            result.kill()
        else:
            reply.set_result(result)

    def _on_exit(self) -> None:
        assert self._exit is not None
        loop = asyncio.get_running_loop()
        while self._receive():
            pass
        loop.remove_reader(self._connection)
        loop.remove_reader(self._pidfd)
        self._connection.close()
        os.close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        self._exit.set_result(os.waitstatus_to_exitcode(status))
        while self._replies:
            self._answer(TemplateExited())
        for worker in self._workers.values():
            worker.watch()
        self._workers.clear()


def _is_supported() -> bool:
    """Whether forked processes can be used: on Linux with pidfds (5.3)."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError:
        return False
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True
