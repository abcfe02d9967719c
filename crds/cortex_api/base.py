"""Base class, scalar types and validation rules of the resource models.

A `Rule` states one condition twice: as a CEL expression for the API server and as a Python function for `parse`. A test checks
that both always agree.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from cortex_api import units

_PERCENTAGE = r"^[0-9]+%$"
_MAX_INT32 = 2**31 - 1
_MAX_SECONDS = 2**63 // 10**9
"""Durations are nanoseconds in 64 bits in Go, which the API server uses."""


@dataclass(frozen=True)
class Rule:
    """A condition on several fields of one model.

    cel: the condition in CEL; `self` is the object as submitted, without defaults.
    message: the error message when the condition is false.
    holds: the same condition in Python, on a model instance with defaults.
    field: the path of the invalid field below the model ("metadata.name"), if it is a single field. The message then omits it.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str = ""


class Model(BaseModel):
    """Base class of all parts of a resource: camelCase names in JSON, no type coercion, no unknown fields.

    The string below a field is its description. schema.py reads it from the source on demand, so that programs that only parse
    documents start faster.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        strict=True,
        defer_build=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        broken = [rule for rule in self.rules if not rule.holds(self)]
        if broken:
            errors = [(rule.field, rule.message) for rule in broken]
            raise PydanticCustomError("rules", "rules do not hold", {"broken": errors})
        return self


def _is_duration(value: str) -> str:
    if units.seconds(value) > _MAX_SECONDS:
        raise ValueError(f'"{value}" is too long; the maximum is {_MAX_SECONDS // 3600}h')
    return value


def _is_quantity(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(
            f'{value} is not a quantity; use a string with an optional unit, for example "500m" or "1Gi"'
        )
    units.parse_bytes(value)
    return str(value)


def _is_int_or_percentage(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INT32:
        return value
    if isinstance(value, str) and re.fullmatch(_PERCENTAGE, value):
        return value
    raise ValueError(f'must be a number of pods or a percentage such as "25%"; got {value!r}')


Duration = Annotated[
    str,
    AfterValidator(_is_duration),
    WithJsonSchema({"type": "string", "pattern": units.DURATION_PATTERN, "maxLength": 32}),
]
"""A duration as a string, such as "10ms", "60s" or "5m"."""

Quantity = Annotated[
    str,
    BeforeValidator(_is_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": units.QUANTITY_PATTERN, "maxLength": 32}),
]
"""A Kubernetes quantity, such as "200m", "1Gi" or 2, stored as a string."""

IntOrPercentage = Annotated[
    int | str,
    BeforeValidator(_is_int_or_percentage),
    WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "pattern": _PERCENTAGE, "maxLength": 8, "maximum": _MAX_INT32}
    ),
]
"""A number of pods or a percentage such as "25%"."""

NonEmptyString = Annotated[str, Field(min_length=1, max_length=1024)]
RelativePath = Annotated[str, Field(min_length=1, max_length=512)]
FreeForm = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
]
"""A mapping with arbitrary content."""


def is_inside_project(path: str) -> bool:
    """Return whether a path is relative and does not contain `..`, as the rules for the API server have it."""
    return not path.startswith("/") and ".." not in path
