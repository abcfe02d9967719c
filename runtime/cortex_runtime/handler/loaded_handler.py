"""The user's program, made ready: project, dependencies, models, clients, the object that he wrote, and its methods.

`load` is called in worker processes.
"""

import os
import site
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex_api import Document
from cortex_api.handler import BaseHandler
from cortex_runtime.clients import Client, open_client
from cortex_runtime.errors import StartError
from cortex_runtime.handler import dependencies, legacy_modules, pipeline, recognition
from cortex_runtime.handler import interfaces as interfaces
from cortex_runtime.handler.interfaces import Code, Form, Method
from cortex_runtime.logs import tracebacks
from cortex_runtime.metrics.client import MetricsClient
from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.metrics.tracker import Tracker


@dataclass(frozen=True)
class LoadedHandler:
    """A constructed handler. methods: by HTTP verb, or under handler.JOB. tracker: to be told each final response. series: the
    worker's own metrics. instance: the user's object. infer: its method for the Open Inference Protocol.
    """

    document: Document
    code: Code
    methods: dict[str, Method]
    client: Client | None
    tracker: Tracker | None
    series: NamedSeries
    instance: Any = None
    infer: Method | None = None

    @property
    def may_wait(self) -> bool:
        """Whether a call may have to load a model first, and so take long."""
        return self.client is not None and self.client.may_wait

    def info(self) -> dict[str, Any]:
        """For GET /info."""
        of_models: dict[str, Any] = {"models": []}
        if self.client is not None:
            of_models = {"models": self.client.info(), "problems": self.client.problems()}
        return {
            "api": self.document.name,
            "kind": self.document.kind,
            "type": self.document.spec.handler.type,
            "interface": self.code.interface.name,
            **of_models,
        }

    def refresh(self) -> None:
        """The index of models has changed: follow it. Raises StartError when that can't be read."""
        if self.client is not None:
            self.client.refresh()

    def close(self) -> None:
        """Let go of the models."""
        if self.client is not None:
            self.client.close()


def load(
    document: Document,
    project: Path,
    models: Path,
    series: NamedSeries,
    call: Callable[[Callable[[], Any]], Any] = lambda function: function(),
    failed: Callable[[str], None] = lambda model: None,
    doing: Callable[[str], None] = lambda what: None,
) -> LoadedHandler:
    """Load code and models and construct the handler. Raises StartError.

    call: runs a function on the thread that the handler is to live on, and waits for it. failed: is told each model that can't
    be loaded. doing: is told what begins.
    """
    spec = document.spec.handler
    tracebacks.set_project(project)
    _import_from(project, spec.python_path)
    _require_folder(spec, project)
    doing("importing the code")
    code = recognition.load(project / spec.path if spec.path else None, spec.type, document.kind)
    values: dict[str, Any] = {
        "config": spec.config,
        "metadata": spec.config,
        "metrics_client": MetricsClient(series),
    }
    loaders: list[Callable[[str], Any]] = []
    load_model = (lambda path: loaders[0](path)) if code.loads_models else None
    if load_model is None and code.interface.form is Form.FUNCTIONS:
        # In 0.10 and 0.11 `init` got the path and loaded the model itself.
        load_model = str
    client = open_client(document, models, project, load_model, failed)
    if code.interface.form is Form.FUNCTIONS:
        values["model_path"] = _model_path(code, client, spec)
    if client is not None:
        values |= dict.fromkeys((*code.clients, client.argument), _as_argument(code, client))
        _require_client(code)
    doing("constructing the handler")
    instance = call(lambda: interfaces.construct(code, values, loaders.append))
    if client is not None:
        doing("loading the models")
        call(client.preload)
    if code.interface.form in (Form.MODEL, Form.STAGES):
        if client is None:
            raise StartError("InvalidSpec", "handler.models: a model that is served as it is must be named")
        batched = getattr(spec, "server_side_batching", None) is not None and spec.type == "onnx"
        methods = pipeline.methods(code, client, spec.config, batched)
    else:
        methods = interfaces.methods(code, instance, values)
    tracker = Tracker(document.spec.tracker, series) if document.spec.tracker else None
    infer = interfaces.infer_method(code, instance)
    return LoadedHandler(document, code, methods, client, tracker, series, instance, infer)


def _require_folder(handler: BaseHandler, project: Path) -> None:
    """A ConfigMap that is not packed can't hold a file that is in a folder."""
    path, source = handler.path, handler.source
    if path is None or source is None or source.config_map is None or "/" not in path:
        return
    if not (project / path).is_file():
        name = source.config_map.name
        raise StartError(
            "HandlerNotFound",
            f"handler.path: file {path} does not exist. Keys of a ConfigMap cannot contain folders, and {name}"
            f" has no archive with this file: pack the project with `cortex pack FOLDER --name {name}`",
        )


def _import_from(project: Path, python_path: str | None) -> None:
    """Make the project the working folder, and importable with what was installed for it."""
    folders = [project, *([project / python_path] if python_path else [])]
    for folder in folders:
        if not folder.is_dir():
            raise StartError("HandlerNotFound", f"handler.pythonPath: folder {folder} does not exist")
    sys.path[:0] = [str(folder) for folder in folders]
    os.chdir(project)
    installed = dependencies.installed()
    if installed is not None:
        # At the end: what the runtime brings goes before it, and nothing hides the standard library.
        site.addsitedir(str(installed))
    legacy_modules.install()


def _require_client(code: Code) -> None:
    """A Python handler that has models and takes no client could never reach them."""
    names = (*code.clients, *(("model_path",) if code.interface.form is Form.FUNCTIONS else ()))
    if code.type != "python" or code.asks_for(*names):
        return
    where = "init" if code.interface.form is Form.FUNCTIONS else "the constructor"
    raise StartError(
        "HandlerInvalid",
        f"{code.where}: handler.models is given, so {where} must take {' or '.join(names)}; without it the handler "
        "cannot reach the models",
    )


def _as_argument(code: Code, client: Client) -> Any:
    """Return the client as the constructor gets it."""
    if not code.interface.flat_outputs:
        return client
    from cortex_runtime.clients.legacy import FlatTensorFlowClient

    return FlatTensorFlowClient(client)


def _model_path(code: Code, client: Any, spec: BaseHandler) -> str | None:
    """Return the local path of the model, a file or a folder, for an `init` that asks for it; None without a model."""
    if spec.models is None or not code.asks_for("model_path"):
        return None
    if spec.models.path is None:
        raise StartError(
            "HandlerInvalid",
            f"{code.where}: init takes model_path, so name one model with handler.models.path",
        )
    return client.path()
