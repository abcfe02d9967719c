"""A payload is validated and given as the type of its hint: what is accepted, and what a client learns about what is wrong."""

import contextlib
import dataclasses
import functools
import subprocess
import sys
import textwrap
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pydantic
import pytest
import typing_extensions
from starlette.datastructures import FormData

from cortex_runtime.errors import InvalidPayload, StartError
from cortex_runtime.handler.payload_type import Undecided, hints_of, validator_of, with_supported_dicts
from cortex_runtime.http import response


class Size(pydantic.BaseModel):
    width: int
    unit: str = "cm"


class Box(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = pydantic.Field(max_length=5)
    sizes: list[Size] = []

    @pydantic.field_validator("name")
    @classmethod
    def no_digits(cls, name: str) -> str:
        if name.isdigit():
            raise ValueError("must not be a number")
        return name


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Plain(TypedDict):
    a: int
    b: NotRequired[Point]


class Nested(TypedDict):
    items: list[Plain]
    first: Plain | None


class Modern(typing_extensions.TypedDict):
    a: int


class Strict(TypedDict):
    """Text of the schema."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")  # type: ignore[misc]
    a: int


class Bounded(TypedDict):
    a: Annotated[int, pydantic.Field(gt=0)]
    b: NotRequired[Annotated[int, pydantic.Field(gt=0)]]


@pytest.mark.parametrize(
    ("hint", "payload", "value"),
    [
        (Box, {"name": "a", "sizes": [{"width": 2}]}, Box(name="a", sizes=[Size(width=2)])),
        (Point, {"x": 1}, Point(1.0)),
        (Plain, {"a": 1, "b": {"x": 2}}, {"a": 1, "b": Point(2.0)}),
        (Modern, {"a": 1}, {"a": 1}),
        (Nested, {"items": [{"a": 1}], "first": None}, {"items": [{"a": 1}], "first": None}),
        (list[Point], [{"x": 1}, {"x": 2, "y": 3}], [Point(1.0), Point(2.0, 3.0)]),
        (dict[str, Point], {"p": {"x": 1}}, {"p": Point(1.0)}),
        (Point | None, None, None),
        (Annotated[Point, "any"], {"x": 1}, Point(1.0)),
        (Size, FormData([("width", "2"), ("unit", "m")]), Size(width=2, unit="m")),
    ],
)
def test_a_payload_becomes_the_type_of_its_hint(hint, payload, value):
    validator = validator_of(hint, "where")
    assert validator is not None
    assert validator.complete(payload) == value
    assert type(validator.complete(payload)) is type(value)


@pytest.mark.parametrize(
    ("hint", "payload", "fields"),
    [
        (
            Box,
            {"name": "too long", "sizes": [{"width": 1}, {"width": "x"}, {}], "more": 1},
            [
                ("name", "must have at most 5 characters"),
                ("sizes[1].width", "must be a valid integer, unable to parse string as an integer"),
                ("sizes[2].width", "is required"),
                ("more", "is not allowed"),
            ],
        ),
        (
            Plain,
            {"a": "9" * 5000},
            [("a", "is not valid: unable to parse input string as an integer, exceeded maximum size")],
        ),
        (Box, {"name": "12"}, [("name", "must not be a number")]),
        (Point, {"x": None}, [("x", "must be a valid number")]),
        (Plain, {}, [("a", "is required")]),
        (Plain, {"a": 1, "b": {}}, [("b.x", "is required")]),
        (Strict, {"a": 1, "b": 2}, [("b", "is not allowed")]),
        (Bounded, {"a": 0, "b": 0}, [("a", "must be greater than 0"), ("b", "must be greater than 0")]),
        (list[Point], [{"x": 1}, {}], [("[1].x", "is required")]),
        (Size, [1], [("", "must be an object")]),
    ],
)
def test_every_wrong_field_is_named_with_its_path(hint, payload, fields):
    validator = validator_of(hint, "where")
    with pytest.raises(InvalidPayload) as error:
        validator.complete(payload)
    assert error.value.status == 400
    assert error.value.details == {"fields": [{"path": path, "problem": text} for path, text in fields]}


def test_the_message_is_short_and_the_list_bounded():
    with pytest.raises(InvalidPayload) as error:
        validator_of(list[Point], "where").complete([{}] * 200)
    assert error.value.message == (
        "the payload is not valid: [0].x is required; [1].x is required; [2].x is required; [3].x is required; "
        "[4].x is required; and 195 more"
    )
    assert len(error.value.details["fields"]) == 100


def test_bytes_are_answered_with_the_content_type_to_send():
    with pytest.raises(InvalidPayload, match="; send JSON with content-type: application/json"):
        validator_of(Size, "where").complete(b'{"width": 1}')


@pytest.mark.parametrize("hint", [None, Any, int, dict, dict[str, Any], list[float], bytes, "unresolved", 3])
def test_other_hints_change_nothing(hint):
    assert validator_of(hint, "where") is None


def test_with_batching_each_payload_has_the_type_of_the_items():
    assert validator_of(list[Point], "where", is_batched=True).quick({"x": 1}) == Point(1.0)


def test_a_type_that_cannot_be_validated_is_named_at_start():
    @dataclasses.dataclass
    class Strange:
        value: "Missing"  # noqa: F821

    with pytest.raises(StartError, match="where: the type of payload cannot be validated: "):
        validator_of(Strange, "where")


def test_hints_are_read_through_decorators():
    def method(self, payload: Point) -> "Size": ...

    @functools.wraps(method)
    def wrapped(*given, **more): ...

    for function in (method, wrapped, functools.partial(wrapped, 1)):
        assert hints_of(function, "where") == (Point, Size)
    assert hints_of(lambda payload: 1, "where") == (None, None)
    assert hints_of(print, "where") == (None, None)


def test_a_hint_that_cannot_be_resolved_is_not_used():
    def method(self, payload: "Unknown", other: "Unknown2") -> Size: ...  # noqa: F821

    assert hints_of(method, "where") == (None, Size)


def test_a_struct_of_msgspec():
    import msgspec

    class Inner(msgspec.Struct):
        size: int

    class Renamed(msgspec.Struct, rename="camel"):
        all_items: list[Inner]

    assert response.encode(Renamed([Inner(1)])) == (response.JSON, b'{"allItems":[{"size":1}]}')

    class Outer(msgspec.Struct, forbid_unknown_fields=True):
        inner: list[Inner]

    validator = validator_of(Outer, "where")
    assert validator.quick({"inner": [{"size": 1}]}) == Outer([Inner(1)])
    for payload, path, problem in (
        ({"inner": [{"size": "x"}]}, "inner[0].size", "expected int, got str"),
        ({}, "", "object missing required field inner"),
        ([1], "", "expected object, got array"),
    ):
        with pytest.raises(InvalidPayload) as error:
            validator.quick(payload)
        assert error.value.details == {"fields": [{"path": path, "problem": problem}]}


class Kinds(TypedDict):
    text: str
    flag: bool
    number: float
    count: int
    kind: Literal["a", "b"]
    values: list[float] | None
    table: dict[str, int]
    rest: NotRequired[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: float
    more: list[int] = dataclasses.field(default_factory=list)


KINDS = {"text": "", "flag": True, "number": 1, "count": 2, "kind": "a", "values": None, "table": {}}


@pytest.mark.parametrize(
    "hint", [Point, Plain, Nested, Kinds, Frozen, Point | None, list[Kinds], dict[str, Frozen]]
)
def test_simple_types_give_what_pydantic_gives(hint):
    reference = pydantic.TypeAdapter(with_supported_dicts(hint))
    values = [
        None,
        1,
        "1",
        True,
        1.5,
        2.0,
        2**63,
        2**80,
        10**400,
        [],
        {},
        "a",
        {"a": 1},
        [1.5],
        float("nan"),
        b"1",
    ]
    payloads = [
        *values,
        KINDS,
        {**KINDS, "unknown": 1},
        {"x": 1},
        {"x": 1, "y": "2", "more": [1]},
        {"a": 1, "b": {"x": 1}},
    ]
    payloads += [{**KINDS, name: value} for name in KINDS for value in values]
    payloads += [{"x": value} for value in values] + [{"x": 1, "more": [value]} for value in values]
    payloads += [{"a": value} for value in values] + [
        {"items": [{"a": value}], "first": None} for value in values
    ]
    payloads += [[each] for each in payloads] + [{"k": each} for each in payloads]
    accepted = 0
    for payload in payloads:
        validator = validator_of(hint, "where")
        try:
            wanted = repr(reference.validate_python(payload))
        except pydantic.ValidationError:
            with pytest.raises((InvalidPayload, Undecided)):
                validator.quick(payload)
            with pytest.raises(InvalidPayload):
                validator.complete(payload)
            continue
        with contextlib.suppress(Undecided):
            assert repr(validator.quick(payload)) == wanted
            accepted += 1
        assert repr(validator.complete(payload)) == wanted
        assert repr(validator.quick(payload)) == wanted
    assert accepted


class Configured(TypedDict):
    a: int


Configured.__pydantic_config__ = {"extra": "forbid"}


@dataclasses.dataclass
class Checked:
    x: float

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("must not be negative")


@dataclasses.dataclass
class Derived:
    x: float
    y: float = dataclasses.field(init=False, default=1)


@pytest.mark.parametrize(
    ("hint", "payload"),
    [(Configured, {"a": 1, "b": 2}), (Checked, {"x": -1}), (Bounded, {"a": 0}), (Box, {"name": "12"})],
)
def test_types_with_own_rules_are_decided_by_pydantic_alone(hint, payload):
    with pytest.raises(InvalidPayload):
        validator_of(hint, "where").quick(payload)


def test_a_field_that_is_not_given_to_a_dataclass_stays_its_own():
    assert validator_of(Derived, "where").quick({"x": 1, "y": 2}) == Derived(1.0)


def test_pydantic_is_imported_only_for_a_payload_or_a_type_that_needs_it():
    code = """
        import dataclasses
        import sys
        from typing import TypedDict
        from cortex_runtime.handler.payload_type import Undecided, hints_of, validator_of

        class Fields(TypedDict):
            a: int

        @dataclasses.dataclass
        class Point:
            x: float

        def method(self, payload: dict[str, int]) -> list: ...
        assert validator_of(hints_of(method, "")[0], "") is None
        assert validator_of(Fields, "").quick({"a": 1}) == {"a": 1}
        validator = validator_of(Point, "")
        assert validator.quick({"x": 1}) == Point(1.0)
        try:
            validator.quick({"x": "1"})
            raise AssertionError("decided")
        except Undecided:
            assert "pydantic" not in sys.modules, "imported"
        assert validator.complete({"x": "1"}) == Point(1.0)
        assert "pydantic" in sys.modules
        assert validator.quick({"x": "1"}) == Point(1.0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_typed_dict_keeps_its_docstring():
    schema = pydantic.TypeAdapter(with_supported_dicts(Strict)).json_schema()
    assert (schema["title"], schema["description"]) == ("Strict", "Text of the schema.")
