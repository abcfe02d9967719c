"""The arguments that a function receives, for every way to declare them, and the message for an unknown one."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_runtime.errors import StartError
from cortex_runtime.handler.arguments import UNSUPPORTED, arguments_of, is_async, suggestion

KNOWN = ("payload", "query_params", "headers")


def traced(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("function", "bound", "first", "wanted"),
    [
        (lambda: 0, True, False, ()),
        (lambda headers, payload: 0, True, False, ("headers", "payload")),
        (lambda payload, *, headers: 0, True, False, ("payload", "headers")),
        (lambda payload, other=1, *, more=2: 0, True, False, ("payload",)),
        (lambda payload=None: 0, True, False, ("payload",)),
        (lambda **all: 0, True, False, KNOWN),
        (lambda headers, **all: 0, True, False, ("headers", "payload", "query_params")),
        (lambda *args: 0, True, False, ()),
        (lambda *args, headers: 0, True, False, ("headers",)),
        (lambda other=1, /, payload=2: 0, True, False, ("payload",)),
        (lambda self, payload: 0, False, False, ("payload",)),
        (lambda payload: 0, False, False, ()),
        (lambda self, /, payload: 0, False, False, ("payload",)),
        (lambda *args, payload: 0, False, False, ("payload",)),
        (lambda *args, **all: 0, False, False, KNOWN),
        (lambda x, payload: 0, True, True, ("payload",)),
        (lambda payload: 0, True, True, ()),
        (lambda x, /, headers: 0, True, True, ("headers",)),
        (lambda *args, headers: 0, True, True, ("headers",)),
        (lambda self, x, payload: 0, False, True, ("payload",)),
        (functools.partial(lambda payload, headers: 0, headers=1), True, False, ("payload", "headers")),
        (functools.partial(lambda x, payload: 0, 1), True, False, ("payload",)),
        (traced(lambda payload: 0), True, False, ("payload",)),
    ],
)
def test_arguments_come_by_name(function, bound, first, wanted):
    assert arguments_of(function, KNOWN, "f", bound=bound, first=first) == wanted


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lambda: 0, {"bound": False}, "f: the first argument must be self"),
        (lambda *, self: 0, {"bound": False}, "f: the first argument must be self"),
        (lambda **self: 0, {"bound": False}, "f: the first argument must be self"),
        (lambda: 0, {"first": True}, "f must take its input as the first argument"),
        (lambda *, x: 0, {"first": True}, "f must take its input as the first argument"),
        (lambda **x: 0, {"first": True}, "f must take its input as the first argument"),
        (lambda payload, /: 0, {}, "f: argument 'payload' must not be positional-only, because arguments are passed by name"),
        (
            lambda paylod: 0, {},
            "f: unknown argument 'paylod'; did you mean payload? (available: payload, query_params, headers)",
        ),
        (lambda *, x: 0, {}, "f: unknown argument 'x' (available: payload, query_params, headers)"),
        (
            lambda x: 0, {"unavailable": "; it needs a model"},
            "f: unknown argument 'x' (available: payload, query_params, headers); it needs a model",
        ),
        *[
            (eval(f"lambda {name}: 0"), {}, f"f: argument {name!r} is not supported: {reason}")
            for name, reason in UNSUPPORTED.items()
        ],
        (type, {}, "failed to read the signature of f: no signature found for builtin <class 'type'>"),
        (3, {}, "failed to read the signature of f: 3 is not a callable object"),
    ],
)  # fmt: skip
def test_an_unknown_argument_is_named(function, options, message):
    with pytest.raises(StartError) as error:
        arguments_of(function, KNOWN, "f", **{"bound": True, **options})
    assert (error.value.reason, error.value.message) == ("HandlerInvalid", message)


def test_remarks_on_kinds_that_no_longer_exist():
    batch = "BatchAPI is not supported; use a Kubernetes Job or an AsyncAPI"
    grpc = "custom gRPC services are not supported; use HTTP"
    assert {
        **dict.fromkeys(("job_spec", "batch_id", "handle_batch"), batch),
        **dict.fromkeys(("proto_module_pb2", "module_proto_pb2", "context"), grpc),
        "Task": "TaskAPI is not supported; use a Kubernetes Job",
    } == UNSUPPORTED


@given(st.permutations([*KNOWN, "other", "rest"]), st.integers(0, 5), st.integers(0, 5))
def test_a_function_is_called_with_the_arguments_that_it_names(names, required, keywords):
    """By name only, in any order, with any of them optional or keyword-only."""
    positional, keyword = names[: 5 - keywords], names[5 - keywords :]
    needs = [name for name in positional[:required] if name in KNOWN]
    words = [*needs, *(f"{name}=0" for name in positional if name not in needs)]
    words += ["*", *(f"{name}=0" for name in keyword)] if keyword else []
    function = eval(f"lambda {', '.join(words)}: dict(locals())")
    wanted = arguments_of(function, KNOWN, "f", bound=True)
    assert set(wanted) == set(KNOWN)
    assert function(**{name: name for name in wanted}) == {
        **dict.fromkeys(("other", "rest"), 0),
        **{name: name for name in KNOWN},
    }


async def coroutine():
    """Signature of a handler method."""


class Callable:
    async def __call__(self):
        """Signature of a handler method."""


class Plain:
    def __call__(self):
        """Signature of a handler method."""


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (coroutine, True),
        (lambda: 0, False),
        (functools.partial(coroutine), True),
        (functools.partial(functools.partial(coroutine)), True),
        (functools.partial(lambda: 0), False),
        (traced(coroutine), True),
        (functools.partial(traced(traced(coroutine))), True),
        (traced(lambda: 0), False),
        (Callable(), True),
        (Callable().__call__, True),
        (functools.partial(Callable()), True),
        (Plain(), False),
        (print, False),
    ],
)
def test_callables_that_return_awaitables(function, expected):
    assert is_async(function) is expected


def test_suggestions():
    assert suggestion("paylod", KNOWN) == "; did you mean payload?"
    assert suggestion("x", KNOWN) == ""
    assert suggestion("x", KNOWN, ["headers", "payload"]) == "; did you mean headers?"
    # Three of five letters are the same: 0.6 of both words.
    assert suggestion("abcde", ["abcxy"]) == "; did you mean abcxy?"
    assert suggestion("abcdef", ["abcxyz"]) == ""
