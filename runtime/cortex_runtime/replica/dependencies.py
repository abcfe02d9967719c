"""The dependencies of a replica: installed again when their files change, and restored if that or the new code fails."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cortex_runtime.errors import Stopped
from cortex_runtime.handler.dependencies import Installer
from cortex_runtime.processes.launcher import Launcher
from cortex_runtime.processes.parent_pipe import ParentPipe

if TYPE_CHECKING:
    from cortex_api.handler import BaseHandler

_PRELOADED = {"onnx": ("cortex_runtime.clients.onnx",)}
"""Modules by handler type that every worker imports, and that start no threads which outlive a fork."""


class Installed(NamedTuple):
    """Installed dependencies, and the environment of this process with them."""

    installer: Installer | None
    environment: dict[str, str]


class Dependencies:
    """What is installed for a project, in the environment of this process, from which workers are started.

    launcher: its template is replaced when the environment changes. preloaded: modules that every worker imports.
    """

    def __init__(
        self,
        handler: "BaseHandler",
        project: Path,
        parent_pipe: ParentPipe,
        launcher: Launcher,
        preloaded: Sequence[str] = (),
    ) -> None:
        self._handler = handler
        self._preloaded = (*_PRELOADED.get(handler.type, ()), *preloaded)
        self._project = project
        self._parent_pipe = parent_pipe
        self._launcher = launcher
        self._original = dict(os.environ)
        self._installer: Installer | None = None
        self._unused: list[Installer] = []
        self._is_stopped = False

    def current(self) -> Installed:
        """Return what is installed, for `restore`."""
        return Installed(self._installer, dict(os.environ))

    async def update(self, on_step: Callable[[str], None]) -> None:
        """Install the dependencies unless their files are as they were. Raises StartError and Stopped.

        on_step: called with the description of the step before packages are installed.
        """
        earlier = self._installer
        if earlier is not None and not earlier.has_changed():
            return
        # Without what an earlier .env has set.
        _set_environment(self._original)
        installer = self._installer = Installer(self._handler, self._project, self._parent_pipe)
        if self._is_stopped:
            raise Stopped
        if installer.has_prepared:
            on_step("installing dependencies")
        await self._prepare(installer)
        if installer.has_prepared or (earlier is not None and earlier.has_prepared):
            await self._launcher.renew()
        self._preload()
        if earlier is not None:
            self._unused.append(earlier)

    async def restore(self, installed: Installed) -> None:
        """Return to what was installed before an `update`."""
        if self._installer is installed.installer:
            return
        failed, self._installer = self._installer, installed.installer
        if installed.installer in self._unused:
            self._unused.remove(installed.installer)
        _set_environment(installed.environment)
        await self._launcher.renew()
        self._preload()
        if failed is not None:
            failed.close()

    def stop(self) -> None:
        """End a running installation, which then raises Stopped, and start no other."""
        self._is_stopped = True
        if self._installer is not None:
            self._installer.stop()

    def remove_unused(self) -> None:
        """Remove the packages of earlier updates, which no worker uses any more."""
        while self._unused:
            self._unused.pop().close()

    def close(self) -> None:
        """Remove all installed packages."""
        self.remove_unused()
        if self._installer is not None:
            self._installer.close()

    async def _prepare(self, installer: Installer) -> None:
        preparing = asyncio.ensure_future(asyncio.to_thread(installer.prepare))
        try:
            await asyncio.shield(preparing)
        except asyncio.CancelledError:
            installer.stop()
            await asyncio.gather(preparing, return_exceptions=True)
            raise

    def _preload(self) -> None:
        self._launcher.preload(self._preloaded)


def _set_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
