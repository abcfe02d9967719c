"""What every model of the resources stands on: strict camelCase models, scalar types, and rules written once for two judges.

A `Rule` carries a CEL expression, which the API server evaluates, beside the same condition in Python, which `parse` evaluates.
A test holds the two to the same verdict.
"""

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


@dataclass(frozen=True)
class Rule:
    """A condition over several fields of one model.

    cel: the condition for the API server, where `self` is the object of the model and absent fields are absent.
    message: what the user reads when it does not hold.
    holds: the same condition over the model's instance, defaults filled.
    field: the field below the model that is wrong ("metadata.name"), where it is one alone; the message does not name it then.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str = ""


class Model(BaseModel):
    """A part of a resource: camelCase on the wire, no coercion of types, no unknown field.

    The string below a field is its description, which schema.py reads where it is needed: each program that reads a document
    would else parse these sources at its start.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        strict=True,
        defer_build=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        broken = [rule for rule in self.rules if not rule.holds(self)]
        if broken:
            text = "; ".join(rule.message for rule in broken)
            found = [(rule.field, rule.message) for rule in broken]
            raise PydanticCustomError("rules", "{text}", {"text": text, "broken": found})
        return self


def _is_duration(value: str) -> str:
    units.seconds(value)
    return value


def _is_quantity(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(
            f'{value} is not a quantity: write text with an optional unit, for example "500m" or "1Gi"'
        )
    units.parse_bytes(value)
    return str(value)


def _is_share(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value[:-1].isdecimal() and value.endswith("%"):
        return value
    raise ValueError(f'{value!r} is neither a number of pods nor a percentage such as "25%"')


Duration = Annotated[
    str,
    AfterValidator(_is_duration),
    WithJsonSchema({"type": "string", "pattern": units.DURATION_PATTERN, "maxLength": 32}),
]
"""A duration as text, such as "10ms", "60s" or "5m"."""

Quantity = Annotated[
    str,
    BeforeValidator(_is_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": units.QUANTITY_PATTERN, "maxLength": 32}),
]
"""A Kubernetes quantity, such as "200m", "1Gi" or 2; kept as text."""

Share = Annotated[
    int | str,
    BeforeValidator(_is_share),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": "^[0-9]+%$", "maxLength": 8}),
]
"""A number of pods, or a percentage of them such as "25%"."""

Text = Annotated[str, Field(min_length=1, max_length=1024)]
RelativePath = Annotated[str, Field(min_length=1, max_length=512)]
Anything = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
]
"""A mapping whose content is the user's own."""


def seconds_of(value: str | None) -> float:
    """A duration in seconds; 0.0 when absent."""
    return units.seconds(value) if value is not None else 0.0


def stays_inside(path: str) -> bool:
    """Whether a path is relative and never leaves the folder that it counts from."""
    return not path.startswith("/") and ".." not in path.split("/")
