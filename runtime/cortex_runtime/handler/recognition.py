"""Which interface a user's file has, found out before anything of it is called.

`load` imports the file, sees what it defines, and checks that it keeps to its interface. Whatever is wrong is a StartError that
says where, and what was probably meant.
"""

import ast
import difflib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from cortex_runtime.errors import StartError
from cortex_runtime.handler.arguments import NOT_SERVED, arguments_of, suggestion
from cortex_runtime.handler.interfaces import (
    INFER_ARGUMENTS,
    INTERFACES,
    REQUEST_ARGUMENTS,
    STAGES,
    VERBS,
    Code,
    Form,
    Interface,
    constructor_arguments,
)
from cortex_runtime.logs.tracebacks import brief, in_one_line


def load(path: Path | None, handler_type: str, kind: str = "RealtimeAPI") -> Code:
    """What the one file defines or imports; without a file, the model as it is.

    kind: RealtimeAPI or AsyncAPI. Raises StartError: HandlerNotFound, HandlerImportError or HandlerInvalid.
    """
    if path is None:
        return Code(INTERFACES[-1], handler_type, kind)
    if not path.is_file():
        beside = sorted(file.name for file in path.parent.glob("*.py"))
        raise StartError(
            "HandlerNotFound",
            f"handler.path: file {path} does not exist{suggestion(path.name, beside)}"
            + (f" (Python files there: {', '.join(beside)})" if beside else ""),
        )
    _refuse_two_definitions(path)
    module = _import_file(path)
    code = _recognise(module, path.name, handler_type, kind)
    _check(code)
    return code


def _check(code: Code) -> None:
    """See that code keeps to its interface, before anything of it is called. Raises StartError (HandlerInvalid)."""
    available = code.interface.arguments(code.kind)
    if code.interface.form is Form.CLASS:
        _check_class(code, available)
    elif code.interface.form is Form.FUNCTIONS:
        arguments_of(code.target.predict, available, f"{code.where}: predict", bound=True)
        constructor_arguments(code)
    else:
        for name, function in code.stages.items():
            arguments_of(
                function,
                (*REQUEST_ARGUMENTS, *code.interface.more),
                f"{code.where}: {name}",
                bound=True,
                first=True,
            )


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
    lost = sorted(functions & (set(VERBS) | {"handle_async"}))
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
    if "predict" in functions:
        return StartError(
            "HandlerNotFound",
            f"{where}: a function predict is for handler.type python; with type {handler_type} define class Handler "
            f"{alternatives}",
        )
    if inspect.isclass(names.get("Task")):
        return StartError("HandlerNotFound", f"{where}: class Task: {NOT_SERVED['Task']} {alternatives}")
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
    constructor_arguments(code)
    _near_misses(code)
    defined = [name for name in code.verbs if getattr(cls, name, None) is not None]
    infers = code.infer is not None and getattr(cls, code.infer, None) is not None
    if not defined and not infers:
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
    checked: dict[str, tuple[str, ...]] = dict.fromkeys(defined, available)
    if interface.after and getattr(cls, interface.after, None) is not None:
        checked[interface.after] = ("response", *available)
    if code.infer is not None and infers:
        checked[code.infer] = INFER_ARGUMENTS
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
    if hasattr(cls, "handle_batch"):
        raise StartError(
            "HandlerInvalid", f"{where}: {interface.name}.handle_batch: {NOT_SERVED['handle_batch']}"
        )
    elsewhere = {
        name: kind for kind, names in interface.methods.items() for name in names if kind != code.kind
    }
    for name in dir(cls):
        if (
            name in (*code.verbs, code.infer)
            or not name.startswith("handle")
            or not callable(getattr(cls, name))
        ):
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


def _refuse_two_definitions(path: Path) -> None:
    """Of two definitions of one name Python keeps the last, which is rarely what was meant."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        raise StartError("HandlerImportError", f"{path.name} does not parse:\n{brief(error)}") from error
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


def _import_file(path: Path) -> ModuleType:
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
            "HandlerImportError", f"{path.name} raised {in_one_line(error)}\n{brief(error)}"
        ) from error
    return module
