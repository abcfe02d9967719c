"""Modules of the standard library that other packages import, but that most processes of the runtime never use.

Importing this module replaces them. Each is imported on the first access to one of its attributes, so a start does not take
their time, and no process their memory.
"""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterable
from types import ModuleType
from typing import Any

NAMES = ("calendar", "difflib", "html", "http.client", "http.cookies", "logging.config", "pickle")
"""Imported by starlette, uvicorn, numpy and the standard library; `difflib` by the runtime, for messages about names.

No module that one of them imports may use one of them during its own import: two threads could then wait for each other.
"""

_lock = threading.RLock()
_loading: set[str] = set()
"""Modules whose code is running, in the thread that holds the lock."""


class _LazyModule(ModuleType):
    """A module whose code has not run. It becomes an ordinary module when it is used."""

    def __getattr__(self, name: str) -> Any:
        # For missing attributes only. A module that is being imported by this thread does not have it yet.
        if _load(self):
            return getattr(self, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("__"):
            # Its code would replace the value.
            _load(self)
        ModuleType.__setattr__(self, name, value)

    def __dir__(self) -> Iterable[str]:
        _load(self)
        return ModuleType.__dir__(self)


def _load(module: ModuleType) -> bool:
    """Run the code of a module unless it has run. Return False if this thread is running it."""
    with _lock:
        if not isinstance(module, _LazyModule):
            return True
        name = module.__name__
        if name in _loading:
            return False
        spec = module.__spec__
        assert spec is not None
        assert spec.loader is not None
        _loading.add(name)
        try:
            spec.loader.exec_module(module)
            module.__class__ = ModuleType  # type: ignore[assignment]
        finally:
            _loading.discard(name)
        return True


def _install() -> None:
    """Replace the modules that are not imported yet."""
    for name in NAMES:
        if name in sys.modules:
            continue
        parent, _, child = name.rpartition(".")
        if parent:
            importlib.import_module(parent)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _LazyModule
        sys.modules[name] = module
        if parent:
            setattr(sys.modules[parent], child, module)


_install()
