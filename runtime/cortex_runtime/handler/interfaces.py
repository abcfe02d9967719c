"""The interfaces that user code may have, in one table, and what is called of code that has one of them.

`construct` makes the user's object of the code that recognition.py has found in his file; `methods` gives what is called for each
request or job. Arguments are injected by name. Whatever is wrong is a StartError that says where.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any

from cortex_runtime.errors import StartError
from cortex_runtime.handler.arguments import arguments_of, is_async
from cortex_runtime.logs.tracebacks import brief, in_one_line

REQUEST_ARGUMENTS = ("payload", "query_params", "headers")
JOB_ARGUMENTS = ("payload", "request_id")
INFER_ARGUMENTS = ("inputs", "parameters")
"""What `handle_infer` may ask for: the arrays by name, and the parameters of the request."""
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
    that runs once the response has been sent. flat_outputs: whether its TensorFlow client returns flat lists, as the original's
    did. since: the releases of the original that introduced it. infer: the method that answers the Open Inference Protocol.
    """

    name: str
    form: Form
    types: tuple[str, ...]
    methods: Mapping[str, Mapping[str, str]]
    constructor: tuple[str, ...] = ("config", "metadata", "metrics_client")
    more: tuple[str, ...] = ()
    after: str | None = None
    flat_outputs: bool = False
    since: str = ""
    infer: str | None = None

    def arguments(self, kind: str) -> tuple[str, ...]:
        """What a method may ask for, of a request or of a job."""
        own = JOB_ARGUMENTS if kind == "AsyncAPI" else REQUEST_ARGUMENTS
        return (*own, *self.more)


_ALL = ("python", "tensorflow", "onnx")
VERBS = {f"handle_{verb.lower()}": verb for verb in ("POST", "GET", "PUT", "PATCH", "DELETE")}
"""Method name of a class Handler to HTTP verb."""
_HANDLE = {"RealtimeAPI": VERBS, "AsyncAPI": {"handle_async": JOB}}
_PREDICT = {"RealtimeAPI": {"predict": "POST"}, "AsyncAPI": {"predict": JOB}}

INTERFACES: tuple[Interface, ...] = (
    Interface("Handler", Form.CLASS, _ALL, _HANDLE, since="0.34", infer="handle_infer"),
    Interface("PythonPredictor", Form.CLASS, ("python",), _PREDICT, after="post_predict", since="0.12"),
    Interface(
        "TensorFlowPredictor",
        Form.CLASS,
        ("tensorflow",),
        _PREDICT,
        after="post_predict",
        flat_outputs=True,
        since="0.12",
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


@dataclass(frozen=True)
class Method:
    """A method that is called for a request or a job.

    arguments: the names that it takes, of the request's or the job's. inline: whether it may run on the event loop's thread
    once it has proved quick.
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    is_async: bool
    inline: bool = True

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
    def infer(self) -> str | None:
        """Return the name of the method that answers the Open Inference Protocol; None for an interface or kind without it."""
        return self.interface.infer if self.kind == "RealtimeAPI" else None

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
        return bool(set(names) & set(constructor_arguments(self)))


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
        names = constructor_arguments(code, values)
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
        inline = bool(getattr(instance, "inline", True))
        method = _of_the_request(Method(function, arguments, is_async(function), inline), values)
        found[verb] = _followed(method, instance, code, available)
    return found


def infer_method(code: Code, instance: Any) -> Method | None:
    """Return the method of the user's object that answers the Open Inference Protocol; None without one."""
    name = code.infer
    function = None if name is None else getattr(instance, name, None)
    if function is None:
        return None
    where = f"{code.where}: {code.interface.name}.{name}"
    arguments = arguments_of(function, INFER_ARGUMENTS, where, bound=True)
    return Method(function, arguments, is_async(function), bool(getattr(instance, "inline", True)))


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
    return Method(call_async if method.is_async else call, arguments, method.is_async, inline=False)


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


def constructor_arguments(code: Code, given: Container[str] | None = None) -> tuple[str, ...]:
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
    given = {name: values[name] for name in constructor_arguments(code, values)}
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
            "HandlerInitError", f"{where} raised {in_one_line(error)}\n{brief(error)}"
        ) from error
