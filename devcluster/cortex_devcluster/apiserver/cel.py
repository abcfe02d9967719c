"""CEL rules of CRDs (`x-kubernetes-validations`), with `self` and `oldSelf` bound to the value that has the rule.

Google's CEL with the extensions for strings and optionals, and of the Kubernetes libraries quantities, `isSorted`, `find` and
`isURL`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext.ext_optional import ExtOptional
from cel_expr_python.ext.ext_strings import ExtStrings

from cortex_devcluster import quantity
from cortex_devcluster.apiserver.errors import FieldError

_T = cel.Type


def _overload(name: str, result: Any, count: int, member: bool, body: Any) -> Any:
    kinds = [_T.DYN] * count
    return cel.FunctionDecl(name, [cel.Overload(f"k8s_{name}", result, kinds, member, body)])


def _compare(a: Any, b: Any) -> int:
    x, y = quantity.parse(a), quantity.parse(b)
    return (x > y) - (x < y)


def _first(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found.group(0) if found else ""


_KUBERNETES = cel.CelExtension(
    "kubernetes",
    [
        _overload("isQuantity", _T.BOOL, 1, False, quantity.is_quantity),
        # A quantity remains a string; the functions that compare parse both sides.
        _overload(
            "quantity", _T.DYN, 1, False, lambda text: str(text) if quantity.parse(text) is not None else ""
        ),
        _overload("compareTo", _T.INT, 2, True, _compare),
        _overload("isGreaterThan", _T.BOOL, 2, True, lambda a, b: _compare(a, b) > 0),
        _overload("isLessThan", _T.BOOL, 2, True, lambda a, b: _compare(a, b) < 0),
        _overload("asInteger", _T.INT, 1, True, lambda text: int(quantity.parse(text))),
        _overload("isSorted", _T.BOOL, 1, True, lambda items: list(items) == sorted(items)),
        _overload("find", _T.STRING, 2, True, _first),
        _overload(
            "isURL", _T.BOOL, 1, False, lambda text: bool(re.match(r"^[a-zA-Z][\w+.-]*://\S+$", str(text)))
        ),
    ],
)

_RESERVED = {
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
}  # fmt: skip


@functools.cache
def _environment() -> Any:
    extensions = [ExtStrings(), ExtOptional(), _KUBERNETES]
    return cel.NewEnv(variables={"self": _T.DYN, "oldSelf": _T.DYN}, extensions=extensions)


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
        for field in ("rule", "messageExpression"):
            if rule.get(field):
                try:
                    compiled(rule[field])
                except ValueError as error:
                    where = f"{path}.x-kubernetes-validations[{index}].{field}".lstrip(".")
                    yield FieldError(where, f"Invalid value: {rule[field]!r}: {error}")
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


@dataclass(frozen=True)
class RuleChecker:
    """Evaluates the rules of a schema for a new value and, in transition rules, the old value."""

    schema: Mapping[str, Any]

    def check(self, value: Any, old: Any = None, *, updating: bool = False) -> list[FieldError]:
        return list(self._walk(value, old, self.schema, "", updating))

    def _walk(
        self, value: Any, old: Any, schema: Mapping[str, Any], path: str, updating: bool
    ) -> Iterator[FieldError]:
        if value is None:
            return
        if schema.get("x-kubernetes-validations"):
            yield from self._rules(value, old, schema, path, updating)
        if isinstance(value, dict):
            extra = schema.get("additionalProperties")
            for name, item in value.items():
                below = schema.get("properties", {}).get(name, extra)
                if isinstance(below, dict):
                    at = f"{path}.{name}" if path else name
                    was = old.get(name) if isinstance(old, dict) else None
                    yield from self._walk(item, was, below, at, updating)
        elif isinstance(value, list) and isinstance(schema.get("items"), dict):
            keys = schema.get("x-kubernetes-list-map-keys")
            for index, item in enumerate(value):
                was = None
                if keys and isinstance(old, list):
                    was = next((o for o in old if all(o.get(key) == item.get(key) for key in keys)), None)
                yield from self._walk(item, was, schema["items"], f"{path}[{index}]", updating)

    def _rules(
        self, value: Any, old: Any, schema: Mapping[str, Any], path: str, updating: bool
    ) -> Iterator[FieldError]:
        data = {"self": to_cel(value, schema)}
        for rule in schema["x-kubernetes-validations"]:
            if re.search(r"\boldSelf\b", rule["rule"]):
                if not updating or old is None:
                    continue
                data["oldSelf"] = to_cel(old, schema)
            result = compiled(rule["rule"]).eval(data=data)
            if result.type() == _T.BOOL and result.plain_value():
                continue
            where = path + rule.get("fieldPath", "") if path else rule.get("fieldPath", "").lstrip(".")
            yield FieldError(where or "<nil>", _message(rule, result, data, value))


def _message(rule: Mapping[str, Any], result: Any, data: Mapping[str, Any], value: Any) -> str:
    # The API server does not show objects and lists.
    shown = "" if isinstance(value, dict | list) else f"{json.dumps(value)}: "
    if result.type() != _T.BOOL:
        return f"Invalid value: {shown}rule evaluation error: {result.plain_value()}"
    text = rule.get("message", "").strip() or f"failed rule: {rule['rule'].strip()}"
    if rule.get("messageExpression"):
        evaluated = compiled(rule["messageExpression"]).eval(data=data)
        if evaluated.type() == _T.STRING:
            text = evaluated.plain_value()
    if rule.get("reason") == "FieldValueRequired":
        return f"Required value: {text}"
    if rule.get("reason") == "FieldValueForbidden":
        return f"Forbidden: {text}"
    return f"Invalid value: {shown}{text}"
