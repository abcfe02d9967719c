"""HTTP of the workers: uvicorn with our protocol, request bodies, responses, API keys."""

import importlib
import sys
from types import ModuleType
from typing import Any


def _import_uvicorn() -> None:
    """Import uvicorn without its command line, which imports click, a file watcher and multiprocessing.

    The command line is imported on use: `import uvicorn; uvicorn.run(...)` in user code works as usual. `configparser` is only
    imported for a type hint.
    """
    if "uvicorn" in sys.modules:
        return
    names = ("Server", "main", "run")
    replaced = {"uvicorn.main": names, "configparser": ("RawConfigParser",)}
    replaced = {name: values for name, values in replaced.items() if name not in sys.modules}
    for name, values in replaced.items():
        module = sys.modules[name] = ModuleType(name)
        vars(module).update(dict.fromkeys(values))
    try:
        uvicorn = importlib.import_module("uvicorn")
    finally:
        for name in replaced:
            del sys.modules[name]
    for name in names:
        delattr(uvicorn, name)

    def import_on_use(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module 'uvicorn' has no attribute {name!r}")
        command_line = importlib.import_module("uvicorn.main")
        vars(uvicorn).update((each, getattr(command_line, each)) for each in names)
        return getattr(command_line, name)

    vars(uvicorn)["__getattr__"] = import_on_use


_import_uvicorn()
