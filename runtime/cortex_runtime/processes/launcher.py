"""Starts worker processes: forks of a template process where that is possible and safe, otherwise fresh interpreters."""

import asyncio
import logging
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cortex_runtime.processes.child_process import Process, Spawned
from cortex_runtime.processes.template_process import Refused, Template, TemplateExited
from cortex_runtime.processes.worker_arguments import WorkerArguments

log = logging.getLogger("cortex")


class Launcher:
    """Starts the processes of one worker module.

    module: run as `python -m MODULE ARGUMENTS` in a fresh interpreter, or by its `main` in a fork. template: the process to fork;
    None where processes must not be forked.
    When it has exited, the next start replaces it.
    """

    def __init__(self, module: str, template: Template | None) -> None:
        self._module = module
        self.template = template
        self._forks = template is not None
        self._preloaded: Sequence[str] = ()

    def preload(self, modules: Sequence[str]) -> None:
        """Import modules into the template, so that workers share them."""
        self._preloaded = modules
        if self.template is not None and modules:
            self.template.preload(modules)

    async def renew(self) -> None:
        """Replace the template, for workers to be started with the current environment and the installed packages."""
        template, self.template = self.template, None
        if template is not None:
            await template.close()

    async def launch(self, arguments: WorkerArguments, folders: Iterable[str]) -> Spawned:
        """Start a process with these arguments and a control channel. folders: where the project's modules are.

        Raises OSError when the system can start no process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = replace(arguments, control=theirs.fileno())
            try:
                process = await self._fork(arguments, list(folders)) or await self._spawn(arguments)
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        return Spawned(process, writer, reader)

    async def close(self) -> None:
        """End the template. Workers keep running."""
        await self.renew()

    async def _fork(self, arguments: WorkerArguments, folders: Sequence[str]) -> Process | None:
        """Return None where the process must not be forked."""
        if not self._forks:
            return None
        template = self.template
        if template is None or not template.is_alive:
            template = self.template = Template.start(self._module)
            self.preload(self._preloaded)
        if template is None:
            return None
        try:
            return await template.fork_worker(self._module, arguments, folders)
        except Refused as refused:
            log.debug("a worker is started in a fresh interpreter: %s", refused)
        except TemplateExited:
            log.warning("the template process has exited; a worker is started without it")
            # If it never works, it costs time at each start of a worker.
            self._forks = template.has_forked
        return None

    async def _spawn(self, arguments: WorkerArguments) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            arguments.to_json(),
            pass_fds=arguments.descriptors(),
            stdin=asyncio.subprocess.DEVNULL,
            # Ctrl-C must reach only the supervisor, which drains.
            start_new_session=True,
        )
