"""Type hints of a method: a payload annotated with a pydantic model, a dataclass, a TypedDict or a msgspec Struct is validated.

`hints_of` reads the hints, and `validator_of` returns what validates a payload. Without such a hint nothing happens.

msgspec validates a Struct, and pydantic everything else. Importing pydantic takes longer than loading a usual handler. So
msgspec validates simple dataclasses and TypedDicts first: what it accepts, pydantic would accept with the same result. pydantic
is imported when a payload has been refused: it accepts more (`"1"` for a number), and names all wrong fields.
"""

import asyncio
import dataclasses
import inspect
import logging
import re
import sys
import typing
from collections.abc import Callable, Iterable
from types import GenericAlias, NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, NotRequired, Required, Union

import msgspec
from starlette.datastructures import FormData

from cortex_runtime.errors import InvalidPayload, StartError

log = logging.getLogger("cortex")

_MSGSPEC_MESSAGE = re.compile(r"(?P<problem>.*?)(?: - at `(?P<path>.*)`)?", re.DOTALL)
_PREFIXES = ("Value error, ", "Assertion failed, ")
_SHOULD = re.compile(r"\w+ should ").match
_IN_JSON = {
    **dict.fromkeys(
        (
            "model_type",
            "model_attributes_type",
            "dataclass_type",
            "dataclass_exact_type",
            "dict_type",
            "mapping_type",
        ),
        "must be an object",
    ),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "must be a list"),
}
"""Problems that pydantic describes with types of Python, by their kind."""
_SIMPLE = (str, int, float, bool, NoneType, Any, list, dict)

Convert = Callable[[Any], Any]
"""Converts a payload to its annotated type. Raises InvalidPayload."""


class Undecided(Exception):
    """Only the validation that takes longer, because it first imports pydantic, can tell whether a payload is valid."""


class Validator:
    """Converts payloads to their annotated type.

    complete: decides about each payload. quick: for the event loop; raises Undecided where `complete` would take long.
    """

    def __init__(self, complete: Convert, quick: Convert | None = None) -> None:
        self.complete = complete
        self.quick = quick or complete

    async def validate(self, payload: Any) -> Any:
        """Convert a payload without blocking the event loop. Raises InvalidPayload."""
        try:
            return self.quick(payload)
        except Undecided:
            return await asyncio.to_thread(self.complete, payload)


def hints_of(function: Callable[..., Any], where: str, argument: str = "payload") -> tuple[Any, Any]:
    """Return the type hints of an argument and of the result, None for each that does not exist.

    where: for the log, which gets a warning about a hint that cannot be resolved.
    """
    while hasattr(function, "func"):
        function = function.func
    function = inspect.unwrap(function)
    annotations = getattr(function, "__annotations__", None) or {}
    found = []
    for name in (argument, "return"):
        hint = annotations.get(name)
        if isinstance(hint, str):
            hint = _resolved(hint, function, f"{where}: the type hint of {name}")
        found.append(hint)
    return found[0], found[1]


def first_hint_of(function: Callable[..., Any] | None, where: str) -> Any:
    """Return the type hint of the first argument of a function; None if it does not exist."""
    if function is None:
        return None
    first = next(iter(inspect.signature(function).parameters), None)
    return None if first is None else hints_of(function, where, first)[0]


def _resolved(hint: str, function: Callable[..., Any], what: str) -> Any:
    holder = SimpleNamespace(__annotations__={"hint": hint})
    try:
        names = getattr(function, "__globals__", {})
        return typing.get_type_hints(holder, globalns=names, include_extras=True)["hint"]
    except Exception as error:
        log.warning("%s cannot be resolved and is not used: %s", what, error)
        return None


def validator_of(hint: Any, where: str, is_batched: bool = False) -> Validator | None:
    """Return the validator of a payload with this hint, or None for a hint without a structured type.

    is_batched: whether the method takes a list of payloads, so that `list[X]` means that each is an X. Raises StartError if the
    type cannot be validated.
    """
    if is_batched and typing.get_origin(hint) is list:
        (hint,) = typing.get_args(hint)
    kinds = set(kinds_of(hint))
    if not kinds:
        return None
    try:
        if "msgspec" in kinds:
            return Validator(_msgspec_validator(hint))
        return _simple_validator(hint) if _is_simple(hint, set()) else Validator(_pydantic_validator(hint))
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise StartError(
            "HandlerInvalid", f"{where}: the type of payload cannot be validated: {reason}"
        ) from error


def kinds_of(hint: Any, seen: set[int] | None = None) -> Iterable[str]:
    """Yield the kinds of structured types in a hint, also in `list[X]`, `X | None` and the like."""
    seen = set() if seen is None else seen
    if id(hint) in seen:
        return
    seen.add(id(hint))
    for argument in typing.get_args(hint):
        yield from kinds_of(argument, seen)
    if not isinstance(hint, type):
        return
    if hasattr(hint, "__struct_fields__"):
        yield "msgspec"
    elif hasattr(hint, "__pydantic_validator__") or dataclasses.is_dataclass(hint) or _is_typed_dict(hint):
        yield "pydantic"


def _is_typed_dict(hint: Any) -> bool:
    """Return whether a type is a TypedDict, of `typing` or of `typing_extensions`."""
    return isinstance(hint, type) and hasattr(hint, "__required_keys__") and hasattr(hint, "__total__")


def _is_simple(hint: Any, seen: set[int]) -> bool:
    """Return whether msgspec accepts for this hint only what pydantic accepts, with the same result."""
    if hint in _SIMPLE or id(hint) in seen:
        return True
    seen.add(id(hint))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return all(type(value) is str for value in arguments)
    if origin in (list, Required, NotRequired):
        return _is_simple(arguments[0], seen)
    if origin is dict:
        return arguments[0] is str and _is_simple(arguments[1], seen)
    if origin in (Union, UnionType):
        return len(arguments) == 2 and NoneType in arguments and all(_is_simple(a, seen) for a in arguments)
    if origin is not None or not isinstance(hint, type):
        return False
    if _is_typed_dict(hint):
        is_known = not hasattr(hint, "__pydantic_config__")
    else:
        is_known = dataclasses.is_dataclass(hint) and _is_filled_alone(hint)
    # A hint in quotes may be one that is not resolved alike by both.
    return is_known and all(
        not isinstance(field, str | typing.ForwardRef) and _is_simple(field, seen)
        for base in hint.__mro__
        for field in getattr(base, "__annotations__", {}).values()
    )


def _is_filled_alone(hint: Any) -> bool:
    """Return whether a dataclass takes exactly its fields, and runs no code of its own."""
    fields = dataclasses.fields(hint)
    return (
        hint.__dataclass_params__.init
        and len(fields) == len(hint.__dataclass_fields__)
        and all(field.init for field in fields)
        and not hasattr(hint, "__post_init__")
        and not hasattr(hint, "__pydantic_validator__")
    )


def _simple_validator(hint: Any) -> Validator:
    decide: Convert | None = None

    def refused(payload: Any) -> Any:
        nonlocal decide
        if decide is None:
            decide = _pydantic_validator(hint)
        return decide(payload)

    def convert(payload: Any, otherwise: Convert) -> Any:
        try:
            return msgspec.convert(_as_value(payload), hint)
        except msgspec.ValidationError:
            pass
        return otherwise(payload)

    def quick(payload: Any) -> Any:
        if decide is None:
            raise Undecided
        return decide(payload)

    return Validator(lambda payload: convert(payload, refused), lambda payload: convert(payload, quick))


def _pydantic_validator(hint: Any) -> Convert:
    from pydantic import TypeAdapter, ValidationError

    adapter: TypeAdapter[Any] = TypeAdapter(with_supported_dicts(hint))
    if not adapter.pydantic_complete:
        adapter.rebuild(raise_errors=True)
    validate = adapter.validate_python

    def convert(payload: Any) -> Any:
        try:
            return validate(_as_value(payload))
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            first = problems[: InvalidPayload.MOST]
            fields = [(_path(each["loc"]), _problem(each["type"], each["msg"])) for each in first]
        raise InvalidPayload(fields, len(problems), isinstance(payload, bytes))

    return convert


def _msgspec_validator(hint: Any) -> Convert:
    def convert(payload: Any) -> Any:
        try:
            return msgspec.convert(_as_value(payload), hint)
        except msgspec.ValidationError as error:
            found = _MSGSPEC_MESSAGE.fullmatch(str(error))
            problem, path = (found["problem"], found["path"]) if found else (str(error), None)
        path = (path or "").removeprefix("$").removeprefix(".")
        fields = [(path, problem[:1].lower() + problem[1:].replace("`", ""))]
        raise InvalidPayload(fields, len(fields), isinstance(payload, bytes))

    return convert


def _as_value(payload: Any) -> Any:
    return dict(payload.items()) if isinstance(payload, FormData) else payload


def _path(location: Iterable[int | str]) -> str:
    """Return the path of a field as it is written in Python and JavaScript: `items[2].size`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _problem(kind: str, message: str) -> str:
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return "is not allowed"
    if kind in _IN_JSON:
        return _IN_JSON[kind]
    if _SHOULD(message):
        return f"must {message.partition(' should ')[2]}"
    for prefix in _PREFIXES:
        if message.startswith(prefix):
            return message.removeprefix(prefix)
    return f"is not valid: {message[:1].lower()}{message[1:]}"


def with_supported_dicts(hint: Any) -> Any:
    """Return the hint with each `typing.TypedDict` replaced: before Python 3.12, pydantic supports only typing_extensions."""
    if sys.version_info >= (3, 12):
        return hint
    if _is_typed_dict(hint) and type(hint).__module__ == "typing":
        from typing_extensions import TypedDict

        fields = {}
        for name, field in typing.get_type_hints(hint, include_extras=True).items():
            if typing.get_origin(field) in (Required, NotRequired):
                (field,) = typing.get_args(field)
            field = with_supported_dicts(field)
            fields[name] = field if name in hint.__required_keys__ else NotRequired[field]
        made = TypedDict(hint.__name__, fields)  # type: ignore[misc]
        for name in ("__doc__", "__module__", "__pydantic_config__"):
            if name in vars(hint):
                setattr(made, name, vars(hint)[name])
        return made
    arguments = typing.get_args(hint)
    if not arguments or typing.get_origin(hint) is typing.Literal:
        return hint
    replaced = tuple(map(with_supported_dicts, arguments))
    if replaced == arguments:
        return hint
    if isinstance(hint, UnionType):
        return Union[replaced]  # noqa: UP007
    if isinstance(hint, GenericAlias):
        return GenericAlias(typing.cast(type, hint.__origin__), replaced)
    return hint.copy_with(replaced)
