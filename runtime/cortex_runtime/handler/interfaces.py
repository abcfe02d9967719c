"""The interfaces of user code, in one table; how its object is constructed and its methods are called.

recognition.py finds the interface of a file. `construct` then returns the user's object, and `methods` the methods that are
called for requests or jobs. Arguments are passed by name. Each problem is a StartError with its location.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any

from cortex_runtime.errors import StartError
from cortex_runtime.handler.arguments import arguments_of, is_async
from cortex_runtime.handler.payload_type import hints_of
from cortex_runtime.logs.tracebacks import brief, cause

REQUEST_ARGUMENTS = ("payload", "query_params", "headers")
JOB_ARGUMENTS = ("payload", "request_id")
INFER_ARGUMENTS = ("inputs", "parameters")
"""What `handle_infer` may ask for: the arrays by name, and the parameters of the request."""
OPENAI_ARGUMENTS = ("request", "headers")
"""What the methods for the OpenAI-compatible routes may ask for."""
JOB = "JOB"
"""Used instead of an HTTP verb for the method that runs the jobs of an AsyncAPI."""
CLIENTS: Mapping[str, tuple[str, ...]] = {
    "python": ("python_client", "model_client"),
    "tensorflow": ("tensorflow_client",),
    "onnx": ("onnx_client",),
}
"""By spec.handler.type: the names of the client in a constructor."""


class Form(Enum):
    """The kind of code that an interface consists of."""

    CLASS = "a class"
    FUNCTIONS = "functions of the module"
    STAGES = "functions around the model"
    MODEL = "no code"


@dataclass(frozen=True)
class Interface:
    """One way to write a handler.

    name: of the class, or a description. types: the values of spec.handler.type. methods: by kind of API, method name to HTTP
    verb (or JOB). constructor: arguments that the constructor may take. extra: arguments that methods may take in addition to
    those of the request. after: the method that runs after the response was sent. flat_outputs: whether its TensorFlow client
    returns flat lists, as in the original Cortex. since: the release of the original that introduced it. infer: the
    method for the Open Inference Protocol. openai: paths of the OpenAI-compatible routes by method name.
    """

    name: str
    form: Form
    types: tuple[str, ...]
    methods: Mapping[str, Mapping[str, str]]
    constructor: tuple[str, ...] = ("config", "metadata", "metrics_client")
    extra: tuple[str, ...] = ()
    after: str | None = None
    flat_outputs: bool = False
    since: str = ""
    infer: str | None = None
    openai: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, kind: str) -> tuple[str, ...]:
        """Return the arguments that a method may take. kind: RealtimeAPI or AsyncAPI."""
        own = JOB_ARGUMENTS if kind == "AsyncAPI" else REQUEST_ARGUMENTS
        return (*own, *self.extra)


_ALL = ("python", "tensorflow", "onnx")
VERBS = {f"handle_{verb.lower()}": verb for verb in ("POST", "GET", "PUT", "PATCH", "DELETE")}
"""HTTP verbs by method name of class Handler."""
_HANDLE = {"RealtimeAPI": VERBS, "AsyncAPI": {"handle_async": JOB}}
OPENAI = {
    "handle_chat_completions": "/v1/chat/completions",
    "handle_completions": "/v1/completions",
    "handle_embeddings": "/v1/embeddings",
}
_PREDICT = {"RealtimeAPI": {"predict": "POST"}, "AsyncAPI": {"predict": JOB}}

INTERFACES: tuple[Interface, ...] = (
    Interface("Handler", Form.CLASS, _ALL, _HANDLE, since="0.34", infer="handle_infer", openai=OPENAI),
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
        extra=("sample", "config", "metadata"),
        since="0.10",
    ),
    Interface(
        "pre_inference and post_inference",
        Form.STAGES,
        ("tensorflow", "onnx"),
        _PREDICT,
        extra=("config", "metadata", "signature"),
        since="0.6",
    ),
    Interface("the model itself", Form.MODEL, ("tensorflow", "onnx"), _PREDICT, since="0.5"),
)
"""All supported interfaces. The content of the file selects one; a class has precedence over functions."""

STAGES = ("pre_inference", "post_inference")


@dataclass(frozen=True)
class Method:
    """A method that is called for a request or a job.

    arguments: the names of those that it takes. inline: whether it may run on the event loop's thread if its calls are short.
    payload_type, return_type: type hints, or None. where: file and name, for messages.
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    is_async: bool
    inline: bool = True
    payload_type: Any = None
    return_type: Any = None
    where: str = ""

    @property
    def takes_payload(self) -> bool:
        """Whether the method needs the body, so that it is read and parsed."""
        return "payload" in self.arguments


@dataclass(frozen=True)
class Code:
    """The recognized content of a user's file.

    type: spec.handler.type. kind: RealtimeAPI or AsyncAPI. where: the file name, for messages. target: the class or the module;
    None without code. stages: pre_inference and post_inference, if defined.
    """

    interface: Interface
    type: str
    kind: str
    where: str = ""
    target: Any = None
    stages: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def verbs(self) -> Mapping[str, str]:
        """HTTP verbs (or JOB) by method name."""
        return self.interface.methods[self.kind]

    @property
    def infer(self) -> str | None:
        """Return the name of the method that answers the Open Inference Protocol; None for an interface or kind without it."""
        return self.interface.infer if self.kind == "RealtimeAPI" else None

    @property
    def openai(self) -> Mapping[str, str]:
        """Paths of the OpenAI-compatible routes by method name; none for an interface or kind without them."""
        return self.interface.openai if self.kind == "RealtimeAPI" else {}

    @property
    def clients(self) -> tuple[str, ...]:
        """The names of the client in the constructor."""
        return CLIENTS[self.type]

    @property
    def loads_models(self) -> bool:
        """Whether the code defines load_model."""
        return callable(getattr(self.target, "load_model", None))

    def takes_any(self, *names: str) -> bool:
        """Return whether the constructor takes one of these arguments."""
        return bool(set(names) & set(constructor_arguments(self)))


def construct(
    code: Code, values: Mapping[str, Any], loader: Callable[[Callable[..., Any]], Any] | None = None
) -> Any:
    """Return the user's object; for functions, run `init` and return the module.

    values: arguments that a constructor may take, by name. loader: called with the user's load_model before the constructor runs,
    because the constructor may already request models. Raises StartError (HandlerInitError) if the constructor raises.
    """
    if code.interface.form is Form.CLASS:
        return _construct_object(code, values, loader)
    if loader is not None and code.loads_models:
        loader(code.target.load_model)
    if code.interface.form is Form.FUNCTIONS and callable(getattr(code.target, "init", None)):
        names = constructor_arguments(code, values)
        run_constructor(
            f"{code.where}: init", partial(code.target.init, **{name: values[name] for name in names})
        )
    return code.target


def methods(code: Code, instance: Any, values: Mapping[str, Any]) -> dict[str, Method]:
    """Return the methods that the user's object defines, by HTTP verb (or JOB).

    values: the arguments that a method may take in addition to those of the request.
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
        method = _with_constants(Method(function, arguments, is_async(function), inline), values)
        method = _with_callback(method, instance, code, available)
        argument = "sample" if "sample" in arguments and "payload" not in arguments else "payload"
        found[verb] = with_hints(method, function, f"{where}.{name}", argument)
    return found


def with_hints(method: Method, function: Callable[..., Any], where: str, argument: str = "payload") -> Method:
    """Return the method with the type hints of the user's function.

    where: file and name, for messages. argument: the one with the body of the request.
    """
    payload_type, return_type = hints_of(function, where, argument)
    return replace(method, payload_type=payload_type, return_type=return_type, where=where)


def infer_method(code: Code, instance: Any) -> Method | None:
    """Return the method of the user's object that answers the Open Inference Protocol; None without one."""
    name = code.infer
    function = None if name is None else getattr(instance, name, None)
    if function is None:
        return None
    where = f"{code.where}: {code.interface.name}.{name}"
    arguments = arguments_of(function, INFER_ARGUMENTS, where, bound=True)
    return Method(function, arguments, is_async(function), bool(getattr(instance, "inline", True)))


def openai_methods(code: Code, instance: Any) -> dict[str, Method]:
    """Return the methods of the user's object for the OpenAI-compatible routes, by path."""
    found = {}
    for name, path in code.openai.items():
        function = getattr(instance, name, None)
        if function is None:
            continue
        where = f"{code.where}: {code.interface.name}.{name}"
        arguments = arguments_of(function, OPENAI_ARGUMENTS, where, bound=True)
        inline = bool(getattr(instance, "inline", True))
        method = Method(function, arguments, is_async(function), inline)
        found[path] = with_hints(method, function, where, "request")
    return found


def _with_callback(method: Method, instance: Any, code: Code, available: tuple[str, ...]) -> Method:
    """Return a method whose result includes a callback, which calls the interface's `after` once the response was sent."""
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
    # The callback runs on a handler thread in any case.
    return Method(call_async if method.is_async else call, arguments, method.is_async, inline=False)


def _with_constants(method: Method, values: Mapping[str, Any]) -> Method:
    """Return a method that takes only arguments of the request. The values that never change are bound to it."""
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
    """Return the arguments that the constructor takes. given: the available ones; None: all that could be available.

    Raises StartError (HandlerInvalid).
    """
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
    missing = ", ".join(name for name in known if name not in available)
    others = ", ".join(name for kind, names in CLIENTS.items() if kind != code.type for name in names)
    unavailable = (
        f"; {missing} requires handler.models" if missing else f"; {others} require another handler.type"
    )
    return arguments_of(function, available, where, bound=bound, unavailable=unavailable)


def _construct_object(
    code: Code, values: Mapping[str, Any], loader: Callable[[Callable[..., Any]], Any] | None
) -> Any:
    cls = code.target
    given = {name: values[name] for name in constructor_arguments(code, values)}
    where = f"{code.interface.name}.__init__"
    if loader is None or not code.loads_models:
        return run_constructor(where, partial(cls, **given))
    if cls.__new__ is object.__new__ and type(cls).__call__ is type.__call__:
        # In two steps, so that a constructor that requests a model from its client uses its own load_model.
        instance = cls.__new__(cls)
        loader(instance.load_model)
        run_constructor(where, partial(instance.__init__, **given))
        return instance
    # A class with its own __new__ or metaclass can't be constructed in two steps: until the object exists, self is None.
    instances: list[Any] = []
    loader(lambda path: (instances[0].load_model if instances else partial(cls.load_model, None))(path))
    instances.append(run_constructor(where, partial(cls, **given)))
    return instances[0]


def run_constructor(where: str, constructor: Callable[[], Any]) -> Any:
    """Call code of the user and return its result. Raises StartError (HandlerInitError) if it raises. where: for the message."""
    try:
        return constructor()
    except StartError:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        raise StartError("HandlerInitError", f"{where} raised {cause(error)}\n{brief(error)}") from error
