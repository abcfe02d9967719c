"""CEL rules of CRDs (`x-kubernetes-validations`), with `self` bound to the value that has the rule.

Google's CEL with the extensions for strings and optionals, and of the Kubernetes libraries `quantity` and `compareTo`. A CRD with
other functions, or with `oldSelf`, is rejected because its rules do not compile.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext.ext_optional import ExtOptional
from cel_expr_python.ext.ext_strings import ExtStrings

from cortex_devcluster import quantity
from cortex_devcluster.apiserver.errors import FieldError

_T = cel.Type


def _compare(a: Any, b: Any) -> int:
    x, y = quantity.parse(a), quantity.parse(b)
    return (x > y) - (x < y)


def _quantity(text: Any) -> str:
    quantity.parse(text)
    return str(text)  # A quantity remains a string; `compareTo` parses both sides.


_QUANTITIES = cel.CelExtension(
    "quantities",
    [
        cel.FunctionDecl("quantity", [cel.Overload("k8s_quantity", _T.DYN, [_T.DYN], False, _quantity)]),
        cel.FunctionDecl(
            "compareTo", [cel.Overload("k8s_compareTo", _T.INT, [_T.DYN, _T.DYN], True, _compare)]
        ),
    ],
)

_RESERVED = {
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
}  # fmt: skip


@functools.cache
def _environment() -> Any:
    return cel.NewEnv(variables={"self": _T.DYN}, extensions=[ExtStrings(), ExtOptional(), _QUANTITIES])


@functools.cache
def compiled(expression: str) -> Any:
    """Return the compiled expression. Raises ValueError with the message of CEL."""
    try:
        return _environment().compile(expression)
    except RuntimeError as error:
        raise ValueError(f"compilation failed: {error}") from error


def validate_rules(schema: Mapping[str, Any], path: str = "") -> Iterator[FieldError]:
    """Yield the rules of a schema that do not compile."""
    for index, rule in enumerate(schema.get("x-kubernetes-validations", ())):
        try:
            compiled(rule["rule"])
        except ValueError as error:
            where = f"{path}.x-kubernetes-validations[{index}].rule".lstrip(".")
            yield FieldError(where, f"Invalid value: {rule['rule']!r}: {error}")
    for name, below in schema.get("properties", {}).items():
        yield from validate_rules(below, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from validate_rules(schema[name], f"{path}.{name}")


def escape(name: str) -> str:
    """Return the name of a property as it is written in CEL rules."""
    if name in _RESERVED:
        return f"__{name}__"
    if re.search(r"__|[-./]", name):
        name = name.replace("__", "__underscores__").replace("-", "__dash__")
        return name.replace(".", "__dot__").replace("/", "__slash__")
    return name


def to_cel(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return a value as rules see it: declared fields only, with escaped names."""
    if isinstance(value, dict):
        known = schema.get("properties")
        if known is None:
            extra = schema.get("additionalProperties")
            below = extra if isinstance(extra, dict) else {}
            return {name: to_cel(item, below) for name, item in value.items()}
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
        return {escape(k): to_cel(v, known.get(k, {})) for k, v in value.items() if k in known or open_ended}
    if isinstance(value, list):
        return [to_cel(item, schema.get("items", {})) for item in value]
    return value


def evaluate_rules(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[FieldError]:
    """Yield the rules of a schema that a value violates; `path` is the path of the value."""
    if value is None:
        return
    if rules := schema.get("x-kubernetes-validations"):
        bound = to_cel(value, schema)
        for rule in rules:
            result = compiled(rule["rule"]).eval(data={"self": bound})
            if result.type() != _T.BOOL or not result.plain_value():
                field = (path + rule.get("fieldPath", "")).lstrip(".")
                yield FieldError(field or "<nil>", _message(rule, result, value))
    if isinstance(value, dict):
        extra = schema.get("additionalProperties")
        for name, item in value.items():
            below = schema.get("properties", {}).get(name, extra)
            if isinstance(below, dict):
                yield from evaluate_rules(item, below, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            yield from evaluate_rules(item, schema["items"], f"{path}[{index}]")


def _message(rule: Mapping[str, Any], result: Any, value: Any) -> str:
    # The API server does not show objects and lists.
    shown = "" if isinstance(value, dict | list) else f"{json.dumps(value)}: "
    if result.type() != _T.BOOL:
        return f"Invalid value: {shown}rule evaluation error: {result.plain_value()}"
    text = rule.get("message", "").strip() or f"failed rule: {rule['rule'].strip()}"
    if rule.get("reason") == "FieldValueRequired":
        return f"Required value: {text}"
    if rule.get("reason") == "FieldValueForbidden":
        return f"Forbidden: {text}"
    return f"Invalid value: {shown}{text}"
