"""The interfaces that user code may have, in one table, and how a user's file becomes an object whose methods can be called.

`load` finds out which interface a file has, `construct` makes the user's object, `methods` gives what is called for each request
or job. Arguments are injected by name. Whatever is wrong is a StartError that says where, and what was probably meant.
"""

import ast
import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from cortex_runtime.errors import StartError, in_one_line, last_lines
from cortex_runtime.signatures import arguments_of, is_async, suggestion

REQUEST_ARGUMENTS = ("payload", "query_params", "headers")
JOB_ARGUMENTS = ("payload", "request_id")
JOB = "JOB"
"""Stands where an HTTP verb does, for the method that works on the jobs of an AsyncAPI."""
CLIENTS: Mapping[str, tuple[str, ...]] = {
    "python": ("python_client", "model_client"),
    "tensorflow": ("tensorflow_client",),
    "onnx": ("onnx_client",),
}
"""spec.handler.type to the names of its client in a constructor."""


class Form(Enum):
    """What an interface consists of."""

    CLASS = "a class"
    FUNCTIONS = "functions of the module"
    STAGES = "functions around the model"
    MODEL = "no code"


@dataclass(frozen=True)
class Interface:
    """One way to write a handler.

    name: of the class, or of what a reader would call it. types: the spec.handler.type that it is for. methods: by kind of
    API, method name to HTTP verb (or JOB). more: what methods may ask for beside the parts of the request. after: the method
    that runs once the response has been sent. since: the releases of the original that introduced it.
    """

    name: str
    form: Form
    types: tuple[str, ...]
    methods: Mapping[str, Mapping[str, str]]
    constructor: tuple[str, ...] = ("config", "metadata", "metrics_client")
    more: tuple[str, ...] = ()
    after: str | None = None
    since: str = ""

    def arguments(self, kind: str) -> tuple[str, ...]:
        """What a method may ask for, of a request or of a job."""
        own = JOB_ARGUMENTS if kind == "AsyncAPI" else REQUEST_ARGUMENTS
        return (*own, *self.more)


_ALL = ("python", "tensorflow", "onnx")
_VERBS = {f"handle_{verb.lower()}": verb for verb in ("POST", "GET", "PUT", "PATCH", "DELETE")}
_HANDLE = {"RealtimeAPI": _VERBS, "AsyncAPI": {"handle_async": JOB}}
_PREDICT = {"RealtimeAPI": {"predict": "POST"}, "AsyncAPI": {"predict": JOB}}

INTERFACES: tuple[Interface, ...] = (
    Interface("Handler", Form.CLASS, _ALL, _HANDLE, since="0.34"),
    Interface("PythonPredictor", Form.CLASS, ("python",), _PREDICT, after="post_predict", since="0.12"),
    Interface(
        "TensorFlowPredictor", Form.CLASS, ("tensorflow",), _PREDICT, after="post_predict", since="0.12"
    ),
    Interface("ONNXPredictor", Form.CLASS, ("onnx",), _PREDICT, after="post_predict", since="0.12"),
    Interface(
        "predict",
        Form.FUNCTIONS,
        ("python",),
        _PREDICT,
        constructor=("config", "metadata", "metrics_client", "model_path"),
        more=("sample", "config", "metadata"),
        since="0.10",
    ),
    Interface(
        "pre_inference and post_inference",
        Form.STAGES,
        ("tensorflow", "onnx"),
        _PREDICT,
        more=("config", "metadata", "signature"),
        since="0.6",
    ),
    Interface("the model itself", Form.MODEL, ("tensorflow", "onnx"), _PREDICT, since="0.5"),
)
"""Every interface of every age. The file decides: a class goes before functions, and two classes are refused."""

STAGES = ("pre_inference", "post_inference")
_MODEL = INTERFACES[-1]


@dataclass(frozen=True)
class Method:
    """A method that is called for a request or a job.

    arguments: the names that it takes, of the request's or the job's. in_place: whether it may run on the event loop's thread
    once it has proved quick.
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    is_async: bool
    in_place: bool = True

    @property
    def takes_payload(self) -> bool:
        """Whether the body is read and parsed at all."""
        return "payload" in self.arguments


@dataclass(frozen=True)
class Code:
    """What a user's file holds. target: the class, or the module; None without code."""

    interface: Interface
    type: str
    kind: str
    where: str = ""
    target: Any = None
    stages: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def verbs(self) -> Mapping[str, str]:
        """Method name to HTTP verb, or JOB."""
        return self.interface.methods[self.kind]

    @property
    def clients(self) -> tuple[str, ...]:
        """The constructor's names for the client."""
        return CLIENTS[self.type]

    @property
    def loads_models(self) -> bool:
        """Whether the code has a load_model."""
        return callable(getattr(self.target, "load_model", None))

    def asks_for(self, *names: str) -> bool:
        """Whether the constructor takes one of these."""
        return bool(set(names) & set(_constructor_arguments(self)))


def load(path: Path | None, handler_type: str, kind: str = "RealtimeAPI") -> Code:
    """What the one file defines or imports; without a file, the model as it is.

    kind: RealtimeAPI or AsyncAPI. Raises StartError: HandlerNotFound, HandlerImportError or HandlerInvalid.
    """
    if path is None:
        return Code(_MODEL, handler_type, kind)
    if not path.is_file():
        beside = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise StartError(
            "HandlerNotFound",
            f"handler.path: there is no file {path}{suggestion(path.name, beside)}"
            + (f" (Python files there: {', '.join(beside)})" if beside else ""),
        )
    _refuse_two_definitions(path)
    module = import_file(path)
    code = _recognise(module, path.name, handler_type, kind)
    check(code)
    return code


def check(code: Code) -> None:
    """See that code keeps to its interface, before anything of it is called. Raises StartError (HandlerInvalid)."""
    available = code.interface.arguments(code.kind)
    if code.interface.form is Form.CLASS:
        _check_class(code, available)
    elif code.interface.form is Form.FUNCTIONS:
        arguments_of(code.target.predict, available, f"{code.where}: predict", bound=True)
        _constructor_arguments(code)
    else:
        for name, function in code.stages.items():
            arguments_of(
                function,
                (*REQUEST_ARGUMENTS, *code.interface.more),
                f"{code.where}: {name}",
                bound=True,
                first=True,
            )


def construct(
    code: Code, values: Mapping[str, Any], loader: Callable[[Callable[..., Any]], Any] | None = None
) -> Any:
    """The user's object; for functions the module, whose `init` has run.

    values: what a constructor may ask for, by name. loader: is told the user's load_model before the constructor runs, since
    that may ask for models already. Raises StartError (HandlerInitError) when the constructor raises.
    """
    if code.interface.form is Form.CLASS:
        return _construct_object(code, values, loader)
    if loader is not None and code.loads_models:
        loader(code.target.load_model)
    if code.interface.form is Form.FUNCTIONS and callable(getattr(code.target, "init", None)):
        names = _constructor_arguments(code, values)
        _run_constructor(
            f"{code.where}: init", partial(code.target.init, **{name: values[name] for name in names})
        )
    return code.target


def methods(code: Code, instance: Any, values: Mapping[str, Any]) -> dict[str, Method]:
    """HTTP verb (or JOB) to method of the user's object, for the methods that it defines.

    values: what a method may ask for beside the parts of the request.
    """
    available = code.interface.arguments(code.kind)
    found = {}
    for name, verb in code.verbs.items():
        function = getattr(instance, name, None)
        if function is None:
            continue
        where = code.where if code.interface.name == name else f"{code.where}: {code.interface.name}"
        arguments = arguments_of(function, available, f"{where}.{name}", bound=True)
        in_place = bool(getattr(instance, "in_place", True))
        method = _of_the_request(Method(function, arguments, is_async(function), in_place), values)
        found[verb] = _followed(method, instance, code, available)
    return found


def _followed(method: Method, instance: Any, code: Code, available: tuple[str, ...]) -> Method:
    """A method whose result carries what is to run once it has been sent: the interface's `after`."""
    name = code.interface.after
    after = getattr(instance, name, None) if name else None
    if after is None or code.kind == "AsyncAPI":
        return method
    wanted = arguments_of(after, ("response", *available), f"{code.where}: {name}", bound=True)
    function, own = method.function, method.arguments

    def with_callback(given: dict[str, Any], result: Any) -> tuple[Any, Callable[[], Any]]:
        values = {"response": result, **given}
        return result, partial(after, **{name: values[name] for name in wanted})

    def call(**given: Any) -> Any:
        return with_callback(given, function(**{name: given[name] for name in own}))

    async def call_async(**given: Any) -> Any:
        return with_callback(given, await function(**{name: given[name] for name in own}))

    arguments = tuple(dict.fromkeys((*own, *(name for name in wanted if name != "response"))))
    # What runs afterwards is handed over anyway.
    return Method(call_async if method.is_async else call, arguments, method.is_async, in_place=False)


def _of_the_request(method: Method, values: Mapping[str, Any]) -> Method:
    """A method that takes parts of the request alone; the rest is filled in."""
    constants = {name: values[name] for name in method.arguments if name in values}
    sample = "sample" in method.arguments
    if not constants and not sample:
        return method
    rest = tuple(name for name in method.arguments if name not in constants and name != "sample")
    if not sample:
        return replace(method, function=partial(method.function, **constants), arguments=rest)
    function, payload_too = method.function, "payload" in rest

    def with_sample(**given: Any) -> Any:
        given["sample"] = given["payload"] if payload_too else given.pop("payload")
        return function(**given, **constants)

    return replace(method, function=with_sample, arguments=rest if payload_too else ("payload", *rest))


def _recognise(module: ModuleType, where: str, handler_type: str, kind: str) -> Code:
    names = vars(module)
    classes = [i for i in INTERFACES if i.form is Form.CLASS and i.name in names]
    fitting = [i for i in classes if handler_type in i.types]
    if len(fitting) > 1:
        raise StartError(
            "HandlerInvalid",
            f"{where} defines {' and '.join(f'class {i.name}' for i in fitting)}: which one is meant? Keep one",
        )
    if fitting:
        target = names[fitting[0].name]
        if not inspect.isclass(target):
            raise StartError(
                "HandlerInvalid",
                f"{where}: {fitting[0].name} is a {type(target).__name__}, and must be a class",
            )
        return Code(fitting[0], handler_type, kind, where, target)
    functions = {name for name, value in names.items() if callable(value) and not inspect.isclass(value)}
    stages = {name: names[name] for name in STAGES if name in functions}
    if handler_type == "python" and "predict" in functions:
        interface = next(i for i in INTERFACES if i.form is Form.FUNCTIONS)
        return Code(interface, handler_type, kind, where, module)
    if handler_type != "python" and stages:
        interface = next(i for i in INTERFACES if i.form is Form.STAGES)
        return Code(interface, handler_type, kind, where, module, stages)
    raise _not_found(names, functions, classes, where, handler_type, kind)


def _not_found(
    names: Mapping[str, Any],
    functions: set[str],
    classes: list[Interface],
    where: str,
    handler_type: str,
    kind: str,
) -> StartError:
    """Why nothing in a file is an interface of this type."""
    wanted = [i for i in INTERFACES if handler_type in i.types]
    classes_wanted = [i.name for i in wanted if i.form is Form.CLASS]
    functions_wanted = ["predict"] if handler_type == "python" else list(STAGES)
    alternatives = f"(or class {classes_wanted[-1]}, or function {' / '.join(functions_wanted)})"
    if classes:
        return StartError(
            "HandlerNotFound",
            f"{where}: class {classes[0].name} is for handler.type {classes[0].types[0]}, and the type is {handler_type}; "
            f"rename it to {classes_wanted[-1]} or Handler, or change the type",
        )
    lost = sorted(functions & (set(_VERBS) | {"handle_async"}))
    if lost:
        return StartError(
            "HandlerNotFound",
            f"{where}: {lost[0]} is a function, and must be a method of class Handler {alternatives}",
        )
    if handler_type == "python" and functions & set(STAGES):
        return StartError(
            "HandlerNotFound",
            f"{where}: {sorted(functions & set(STAGES))[0]} belongs around a model of handler.type onnx or tensorflow; "
            f"with type python define class Handler {alternatives}",
        )
    if handler_type != "python" and "predict" in functions:
        return StartError(
            "HandlerNotFound",
            f"{where}: a function predict is for handler.type python; with type {handler_type} define class Handler "
            f"{alternatives}",
        )
    known = [name for name, value in names.items() if inspect.isclass(value) and not name.startswith("_")]
    for target in classes_wanted:
        near = [name for name in known if name.lower() == target.lower()]
        near = near or difflib.get_close_matches(target, known, 1, 0.6)
        if near:
            return StartError(
                "HandlerNotFound",
                f"{where} defines no class {target}; did you mean {near[0]}? It must have that name {alternatives}",
            )
    for target in functions_wanted:
        near = difflib.get_close_matches(target, sorted(functions), 1, 0.75)
        if near:
            return StartError(
                "HandlerNotFound",
                f"{where} defines no {target}; did you mean {near[0]}? It must have that name {alternatives}",
            )
    return StartError("HandlerNotFound", f"{where} defines no class Handler {alternatives}")


def _check_class(code: Code, available: tuple[str, ...]) -> None:
    cls, interface, where = code.target, code.interface, code.where
    _near_misses(code)
    defined = [name for name in code.verbs if getattr(cls, name, None) is not None]
    if not defined:
        close = difflib.get_close_matches(
            next(iter(code.verbs)), [n for n in dir(cls) if n[0] != "_"], 1, 0.6
        )
        raise StartError(
            "HandlerInvalid",
            f"{where}: class {interface.name} has no method to call; define "
            + ("" if len(code.verbs) == 1 else "at least one of ")
            + ", ".join(code.verbs)
            + (f"; did you mean {close[0]}?" if close else ""),
        )
    _constructor_arguments(code)
    checked: dict[str, tuple[str, ...]] = dict.fromkeys(defined, available)
    if interface.after and getattr(cls, interface.after, None) is not None:
        checked[interface.after] = ("response", *available)
    if getattr(cls, "load_model", None) is not None:
        checked["load_model"] = ("model_path",)
    for name, arguments in checked.items():
        attribute = inspect.getattr_static(cls, name)
        if not callable(getattr(cls, name)):
            raise StartError("HandlerInvalid", f"{where}: {interface.name}.{name} must be a method")
        bound = isinstance(attribute, staticmethod | classmethod) or not hasattr(attribute, "__get__")
        arguments_of(getattr(cls, name), arguments, f"{where}: {interface.name}.{name}", bound=bound)


def _near_misses(code: Code) -> None:
    """Methods that look as if they should be called and never are."""
    cls, interface, where = code.target, code.interface, code.where
    elsewhere = {
        name: kind for kind, names in interface.methods.items() for name in names if kind != code.kind
    }
    for name in dir(cls):
        if name in code.verbs or not name.startswith("handle") or not callable(getattr(cls, name)):
            continue
        if name in elsewhere and not any(hasattr(cls, verb) for verb in code.verbs):
            raise StartError(
                "HandlerInvalid",
                f"{where}: {interface.name}.{name} is for a {elsewhere[name]}, and this is a {code.kind}; "
                f"did you mean {next(iter(code.verbs))}?",
            )
        near = difflib.get_close_matches(name, (*code.verbs, *elsewhere), 1, 0.8)
        if near and name not in elsewhere:
            raise StartError(
                "HandlerInvalid",
                f"{where}: {interface.name}.{name} is never called; did you mean {near[0]}?",
            )


def _constructor_arguments(code: Code, given: Container[str] | None = None) -> tuple[str, ...]:
    """What the constructor wants. given: what there is; None for all that there could be."""
    known = (*code.interface.constructor, *code.clients)
    available = tuple(name for name in known if given is None or name in given)
    if code.interface.form is Form.FUNCTIONS:
        function, where, bound = getattr(code.target, "init", None), f"{code.where}: init", True
    elif code.interface.form is Form.CLASS:
        function, where, bound = code.target.__init__, f"{code.where}: {code.interface.name}.__init__", False
    else:
        return ()
    if function is None or function is object.__init__:
        return ()
    needs = ", ".join(name for name in known if name not in available)
    others = ", ".join(name for kind, names in CLIENTS.items() if kind != code.type for name in names)
    unavailable = (
        f"; {needs} needs handler.models" if needs else f"; {others} come with other values of handler.type"
    )
    return arguments_of(function, available, where, bound=bound, unavailable=unavailable)


def _construct_object(
    code: Code, values: Mapping[str, Any], loader: Callable[[Callable[..., Any]], Any] | None
) -> Any:
    cls = code.target
    given = {name: values[name] for name in _constructor_arguments(code, values)}
    where = f"{code.interface.name}.__init__"
    if loader is None or not code.loads_models:
        return _run_constructor(where, partial(cls, **given))
    if cls.__new__ is object.__new__ and type(cls).__call__ is type.__call__:
        # In two steps, so that a constructor that asks its client for a model gets one from its own load_model.
        instance = cls.__new__(cls)
        loader(instance.load_model)
        _run_constructor(where, partial(instance.__init__, **given))
        return instance
    made: list[Any] = []
    loader(lambda model_path: (made[0].load_model if made else partial(cls.load_model, None))(model_path))
    made.append(_run_constructor(where, partial(cls, **given)))
    return made[0]


def _run_constructor(where: str, constructor: Callable[[], Any]) -> Any:
    try:
        return constructor()
    except StartError:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        raise StartError(
            "HandlerInitError", f"{where} raised {in_one_line(error)}\n{last_lines(error)}"
        ) from error


def _refuse_two_definitions(path: Path) -> None:
    """Of two definitions of one name Python keeps the last, which is rarely what was meant."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        raise StartError(
            "HandlerImportError", f"{path.name} does not parse:\n{last_lines(error, 4)}"
        ) from error
    for interface in INTERFACES:
        lines = [
            str(node.lineno)
            for node in tree.body
            if isinstance(node, ast.ClassDef) and node.name == interface.name
        ]
        if len(lines) > 1:
            raise StartError(
                "HandlerInvalid",
                f"{path.name} defines class {interface.name} {len(lines)} times, in lines {', '.join(lines)}",
            )


def import_file(path: Path) -> ModuleType:
    """The module of a file. Raises StartError (HandlerImportError)."""
    # The plain stem, so that what was pickled beside the handler finds its module again.
    name = path.stem
    if not name.isidentifier() or name in sys.modules or name in sys.stdlib_module_names:
        name = f"cortex_handler_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StartError("HandlerImportError", f"{path} can't be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise StartError(
            "HandlerImportError", f"{path.name} raised {in_one_line(error)}\n{last_lines(error)}"
        ) from error
    return module
