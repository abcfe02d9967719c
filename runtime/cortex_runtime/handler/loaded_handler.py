"""Prepare the user's program: import the project, open the models and their client, construct the handler, find its methods.

`load` is called in worker processes.
"""

import gc
import os
import site
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cortex_api import Document
from cortex_runtime.clients import Client, open_client
from cortex_runtime.errors import StartError
from cortex_runtime.handler import dependencies, legacy_modules, pipeline, recognition, routing
from cortex_runtime.handler import interfaces as interfaces
from cortex_runtime.handler.interfaces import Code, Form, Method
from cortex_runtime.handler.routing import BoundRoute
from cortex_runtime.logs import tracebacks
from cortex_runtime.metrics.client import MetricsClient
from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.metrics.tracker import Tracker
from cortex_runtime.processes.heap import return_freed_memory
from cortex_runtime.processes.huge_pages import use_huge_pages

if TYPE_CHECKING:
    from cortex_api.handler import BaseHandler


@dataclass(frozen=True)
class LoadedHandler:
    """A constructed handler.

    methods: by HTTP verb, or under interfaces.JOB. tracker: counts the values of responses. series: the metrics of this worker.
    instance: the user's object. infer: its method for the Open Inference Protocol. openai: its methods for
    the OpenAI-compatible routes, by path. routes: its methods with @route.
    """

    document: Document
    code: Code
    methods: dict[str, Method]
    client: Client | None
    tracker: Tracker | None
    series: NamedSeries
    instance: Any = None
    infer: Method | None = None
    openai: Mapping[str, Method] = field(default_factory=dict)
    routes: Sequence[BoundRoute] = ()

    @property
    def may_wait(self) -> bool:
        """Whether a call may first have to load a model, which can take long."""
        return self.client is not None and self.client.may_wait

    def info(self) -> dict[str, Any]:
        """Return the content of GET /info."""
        models: dict[str, Any] = {"models": []}
        if self.client is not None:
            models = {"models": self.client.info(), "problems": self.client.problems()}
        return {
            "api": self.document.name,
            "kind": self.document.kind,
            "type": self.document.spec.handler.type,
            "interface": self.code.interface.name,
            **models,
            **(
                {"routes": [f"{each.route.verb} {each.route.path}" for each in self.routes]}
                if self.routes
                else {}
            ),
        }

    def refresh(self) -> None:
        """Load the models that the index lists now. Raises StartError if it can't be read."""
        if self.client is not None:
            self.client.refresh()
            return_freed_memory()
            use_huge_pages()

    def close(self) -> None:
        """Release the models."""
        if self.client is not None:
            self.client.close()


def load(
    document: Document,
    project: Path,
    models: Path,
    series: NamedSeries,
    call: Callable[[Callable[[], Any]], Any] = lambda function: function(),
    on_model_failed: Callable[[str], None] = lambda model: None,
    on_step: Callable[[str], None] = lambda description: None,
) -> LoadedHandler:
    """Load code and models and construct the handler. Raises StartError.

    call: runs a function on the handler's thread and waits for it. on_model_failed: called with the name of each model that can't
    be loaded. on_step: called with a description of each step.
    """
    spec = document.spec.handler
    tracebacks.set_project(project)
    _import_from(project, spec.python_path)
    _require_folder(spec, project)
    on_step("importing the code")
    code = recognition.load_code(project / spec.path if spec.path else None, spec.type, document.kind)
    _exclude_from_collection()
    values: dict[str, Any] = {
        "config": spec.config,
        "metadata": spec.config,
        "metrics_client": MetricsClient(series),
    }
    loaders: list[Callable[[str], Any]] = []
    load_model = (lambda path: loaders[0](path)) if code.loads_models else None
    if load_model is None and code.interface.form is Form.FUNCTIONS:
        # As in Cortex 0.10 and 0.11, `init` loads the model itself from its path.
        load_model = str
    client = open_client(document, models, project, load_model, on_model_failed)
    if code.interface.form is Form.FUNCTIONS:
        values["model_path"] = _model_path(code, client, spec)
    if client is not None:
        values |= dict.fromkeys((*code.clients, client.argument), _as_argument(code, client))
        _require_client(code)
    on_step("constructing the handler")
    instance = call(lambda: interfaces.construct(code, values, loaders.append))
    if client is None:
        _exclude_from_collection()
    else:
        # Models are replaced when they change, and a model may be part of a reference cycle.
        on_step("loading the models")
        call(client.preload)
    return_freed_memory()
    use_huge_pages()
    if code.interface.form in (Form.MODEL, Form.STAGES):
        if client is None:
            raise StartError(
                "InvalidSpec", "handler.models is required to serve a model without a handler class"
            )
        batched = document.batching is not None and spec.type == "onnx"
        methods = pipeline.methods(code, client, spec.config, batched)
    else:
        methods = interfaces.methods(code, instance, values)
    tracker = Tracker(document.spec.tracker, series) if document.spec.tracker else None
    infer = interfaces.infer_method(code, instance)
    openai = interfaces.openai_methods(code, instance)
    routes = call(lambda: routing.routes(code, instance))
    return LoadedHandler(document, code, methods, client, tracker, series, instance, infer, openai, routes)


def _exclude_from_collection() -> None:
    """Exclude all existing objects from garbage collection, because they live as long as the process.

    A large library has hundreds of thousands of objects. A full collection of them pauses all requests for a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def _require_folder(handler: "BaseHandler", project: Path) -> None:
    """Explain a missing file in a folder of a ConfigMap without an archive. Raises StartError."""
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
    """Change to the project's folder, and make the project and its dependencies importable."""
    folders = [project, *([project / python_path] if python_path else [])]
    for folder in folders:
        if not folder.is_dir():
            raise StartError("HandlerNotFound", f"handler.pythonPath: folder {folder} does not exist")
    sys.path[:0] = [str(folder) for folder in folders]
    os.chdir(project)
    installed = dependencies.installed()
    if installed is not None:
        # At the end of sys.path, so that it hides neither the packages of the runtime nor the standard library.
        site.addsitedir(str(installed))
    legacy_modules.install()


def _require_client(code: Code) -> None:
    """Check that a Python handler with models takes a client. Raises StartError."""
    names = (*code.clients, *(("model_path",) if code.interface.form is Form.FUNCTIONS else ()))
    if code.type != "python" or code.takes_any(*names):
        return
    where = "init" if code.interface.form is Form.FUNCTIONS else "the constructor"
    raise StartError(
        "HandlerInvalid",
        f"{code.where}: handler.models is set, so {where} must take {' or '.join(names)}; otherwise the handler "
        "cannot use the models",
    )


def _as_argument(code: Code, client: Client) -> Any:
    """Return the client in the form of the interface, for the constructor."""
    if not code.interface.flat_outputs:
        return client
    from cortex_runtime.clients.legacy import FlatTensorFlowClient

    return FlatTensorFlowClient(client)


def _model_path(code: Code, client: Any, spec: "BaseHandler") -> str | None:
    """Return the local path of the model, a file or a folder, for an `init` that takes it; None without a model."""
    if spec.models is None or not code.takes_any("model_path"):
        return None
    if spec.models.path is None:
        raise StartError(
            "HandlerInvalid",
            f"{code.where}: init takes model_path, so set handler.models.path to the path of one model",
        )
    return client.path()
