"""Modules that handlers of the original Cortex import: its logger, under both names.

`install` makes them importable, behind everything that is really installed or in the project.
"""

import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_NAMES = frozenset(
    name
    for package in ("cortex", "cortex_internal")
    for name in (package, f"{package}.lib", f"{package}.lib.log")
)
"""0.7 to 0.11 had `cortex.lib.log.get_logger`, 0.27 to 0.35 `cortex_internal.lib.log.logger`."""

_log = logging.getLogger("handler")


def get_logger() -> logging.Logger:
    """Return the logger for handlers, whose lines are JSON with the id of the request."""
    return _log


class _OldModules:
    """A finder and loader, without the base classes of `importlib.abc`, which imports much more."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _NAMES:
            return None
        return ModuleSpec(fullname, self, is_package=not fullname.endswith(".log"))  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__.endswith(".log"):
            vars(module).update(logger=_log, get_logger=get_logger)


def install() -> None:
    """Make the old modules importable in this process."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())
