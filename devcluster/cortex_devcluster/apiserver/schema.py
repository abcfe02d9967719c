"""Structural schemas of CRDs: unknown fields, pruning, defaults and validation, with the API server's messages.

Pure functions of a value and a schema. `registry` calls them in the API server's order; `cel` evaluates the rules.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cortex_devcluster.apiserver.errors import FieldError

Schema = Mapping[str, Any]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
}  # fmt: skip

META = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
"""The schema of metadata, which `builtin` validates instead."""


def with_standard_fields(schema: Schema) -> dict[str, Any]:
    """Return the schema of a version with apiVersion, kind and metadata."""
    names = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": META}
    return {**schema, "properties": {**schema.get("properties", {}), **names}}


def unknown_fields(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """Yield the paths of fields that the schema does not declare."""
    if isinstance(value, dict):
        extra = schema.get("additionalProperties")
        declared = schema.get("properties", {})
        for name, item in value.items():
            at = f"{path}.{name}" if path else name
            if name in declared:
                yield from unknown_fields(item, declared[name], at)
            elif isinstance(extra, dict):
                yield from unknown_fields(item, extra, at)
            elif not extra and not _preserves_unknown_fields(schema):
                yield at
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_fields(item, schema.get("items", {}), f"{path}[{index}]")


def _preserves_unknown_fields(schema: Schema) -> bool:
    """Return whether undeclared fields are kept, or are not the error because the value must not be an object."""
    preserved = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get(
        "x-kubernetes-embedded-resource"
    )
    return bool(preserved) or schema.get("type", "object" if "properties" in schema else "") != "object"


def prune(value: Any, schema: Schema) -> Any:
    """Return the value without undeclared fields."""
    if isinstance(value, dict):
        extra, declared, keep = (
            schema.get("additionalProperties"),
            schema.get("properties", {}),
            _preserves_unknown_fields(schema),
        )
        result = {}
        for name, item in value.items():
            if name in declared:
                result[name] = prune(item, declared[name])
            elif isinstance(extra, dict):
                result[name] = prune(item, extra)
            elif extra or keep:
                result[name] = item
        return result
    if isinstance(value, list):
        return [
            prune(item, schema.get("items", {"x-kubernetes-preserve-unknown-fields": True})) for item in value
        ]
    return value


def default(value: Any, schema: Schema) -> Any:
    """Return the value with the defaults of the schema. A null that is not allowed is replaced by the default."""
    if isinstance(value, dict):
        result = dict(value)
        for name, below in schema.get("properties", {}).items():
            if name in result and result[name] is None and not below.get("nullable") and "default" in below:
                del result[name]
            if name not in result and "default" in below:
                result[name] = copy.deepcopy(below["default"])
            if name in result:
                result[name] = default(result[name], below)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            result = {name: default(item, extra) for name, item in result.items()}
        return result
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [default(item, schema["items"]) for item in value]
    return value


def validate(value: Any, schema: Schema, path: str = "") -> Iterator[FieldError]:
    """Yield every violation of the schema; `path` is the path of the value."""
    if value is None:
        if not schema.get("nullable") and path:
            kind = schema.get("type", "object")
            yield FieldError(path, f'Invalid value: "null": {path} in body must be of type {kind}: "null"')
        return
    if not _has_type(value, schema):
        yield FieldError(path or "<nil>", _type_message(value, schema, path))
        return
    yield from _validate_limits(value, schema, path)
    if isinstance(value, dict):
        yield from _validate_properties(value, schema, path)
    elif isinstance(value, list):
        yield from _validate_items(value, schema, path)
    yield from _validate_combinations(value, schema, path)


def _has_type(value: Any, schema: Schema) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, (int, str)) and not isinstance(value, bool)
    kind = schema.get("type")
    if kind is None:
        return True
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(kind, object))


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {dict: "object", list: "array", str: "string", int: "integer", float: "number"}
    return names.get(type(value), "null")


def _type_message(value: Any, schema: Schema, path: str) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return f'Invalid value: "{_json_type(value)}": {path} in body must be of type integer,string: "{_json_type(value)}"'
    return f'Invalid value: "{_json_type(value)}": {path} in body must be of type {schema["type"]}: "{_json_type(value)}"'


def to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _validate_limits(value: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(to_json(item) for item in schema["enum"])
        yield FieldError(path, f"Unsupported value: {to_json(value)}: supported values: {supported}")
    invalid = f"Invalid value: {to_json(value)}: {path} in body should"
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            yield FieldError(path, f"{invalid} be at least {schema['minLength']} chars long")
        if len(value) > schema.get("maxLength", len(value)):
            yield FieldError(path, f"Too long: may not be more than {schema['maxLength']} bytes")
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield FieldError(path, f"{invalid} match '{schema['pattern']}'")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if value < low or (schema.get("exclusiveMinimum") and value == low):
            words = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
            yield FieldError(path, f"{invalid} be {words} {low}")
        if value > high or (schema.get("exclusiveMaximum") and value == high):
            words = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
            yield FieldError(path, f"{invalid} be {words} {high}")
        if "multipleOf" in schema and value % schema["multipleOf"]:
            yield FieldError(path, f"{invalid} be a multiple of {schema['multipleOf']}")
    elif isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield FieldError(
                path,
                f"Invalid value: {len(value)}: {path} in body should have at least {schema['minItems']} items",
            )
        if len(value) > schema.get("maxItems", len(value)):
            yield FieldError(path, f"Too many: {len(value)}: must have at most {schema['maxItems']} items")
    elif isinstance(value, dict):
        if len(value) < schema.get("minProperties", 0):
            yield FieldError(path, f"{invalid} have at least {schema['minProperties']} properties")
        if len(value) > schema.get("maxProperties", len(value)):
            yield FieldError(
                path, f"Too many: {len(value)}: must have at most {schema['maxProperties']} items"
            )


def _validate_properties(value: Mapping[str, Any], schema: Schema, path: str) -> Iterator[FieldError]:
    prefix = f"{path}." if path else ""
    for name in schema.get("required", ()):
        if name not in value:
            yield FieldError(prefix + name, "Required value")
    extra = schema.get("additionalProperties")
    for name, item in value.items():
        below = schema.get("properties", {}).get(name, extra)
        if isinstance(below, dict) and below is not META:
            yield from validate(item, below, prefix + name)


def _validate_items(value: list[Any], schema: Schema, path: str) -> Iterator[FieldError]:
    if isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            yield from validate(item, schema["items"], f"{path}[{index}]")
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if schema.get("x-kubernetes-list-type") not in ("map", "set"):
        return
    seen: list[Any] = []
    for index, item in enumerate(value):
        identity = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
        if identity in seen:
            yield FieldError(f"{path}[{index}]", f"Duplicate value: {to_json(identity)}")
        seen.append(identity)


def _validate_combinations(value: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    def fits(below: Schema) -> bool:
        return not any(True for _ in validate(value, below, path))

    for below in schema.get("allOf", ()):
        yield from validate(value, below, path)
    wrong = f"Invalid value: {to_json(value)}: {path} in body must"
    either = () if schema.get("x-kubernetes-int-or-string") else schema.get("anyOf", ())
    if either and not any(map(fits, either)):
        yield FieldError(path, f"{wrong} validate at least one schema (anyOf)")
    if "oneOf" in schema and sum(map(fits, schema["oneOf"])) != 1:
        yield FieldError(path, f"{wrong} validate one and only one schema (oneOf)")
    if "not" in schema and fits(schema["not"]):
        yield FieldError(path, f"{wrong} not validate the schema (not)")


def prevents_rules(problems: list[FieldError]) -> bool:
    """Return whether the API server skips CEL rules after these errors."""
    starts = ("Required value", "Unsupported value", "Too long", "Too many")
    return any(p.message.startswith(starts) or " must be of type " in p.message for p in problems)
