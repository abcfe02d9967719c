"""Decode the protobuf bodies that kubectl and helm send for a few kinds (`kubectl create configmap`, for example).

`TYPES` lists the supported fields. Other fields are an error, because ignoring them would lose data.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAGIC = b"k8s\x00"


class DecodeError(ValueError):
    """The body is not a Kubernetes protobuf message, or has an unsupported kind or field."""


@dataclass(frozen=True)
class Field:
    """A field of a message. type: text, bytes, int, bool, ignored or a message. shape: one, list or map."""

    name: str
    type: str = "text"
    shape: str = "one"


TYPES: Mapping[str, Mapping[int, Field]] = {
    "Unknown": {1: Field("typeMeta", "TypeMeta"), 2: Field("raw", "bytes"), 3: Field("contentEncoding"), 4: Field("contentType")},
    "TypeMeta": {1: Field("apiVersion"), 2: Field("kind")},
    "ObjectMeta": {
        1: Field("name"), 2: Field("generateName"), 3: Field("namespace"), 4: Field("selfLink"), 5: Field("uid"),
        6: Field("resourceVersion"), 7: Field("generation", "int"), 8: Field("creationTimestamp", "ignored"),
        11: Field("labels", shape="map"), 12: Field("annotations", shape="map"), 14: Field("finalizers", shape="list"),
    },
    "Namespace": {1: Field("metadata", "ObjectMeta"), 2: Field("spec", "Finalizers"), 3: Field("status", "ignored")},
    "Finalizers": {1: Field("finalizers", shape="list")},
    "ConfigMap": {
        1: Field("metadata", "ObjectMeta"), 2: Field("data", shape="map"), 3: Field("binaryData", "bytes", "map"),
        4: Field("immutable", "bool"),
    },
    "Secret": {
        1: Field("metadata", "ObjectMeta"), 2: Field("data", "bytes", "map"), 3: Field("type"),
        4: Field("stringData", shape="map"), 5: Field("immutable", "bool"),
    },
    "ServiceAccount": {1: Field("metadata", "ObjectMeta"), 4: Field("automountServiceAccountToken", "bool")},
    "DeleteOptions": {
        1: Field("gracePeriodSeconds", "int"), 2: Field("preconditions", "Preconditions"),
        3: Field("orphanDependents", "bool"), 4: Field("propagationPolicy"), 5: Field("dryRun", shape="list"),
    },
    "Preconditions": {1: Field("uid"), 2: Field("resourceVersion")},
}  # fmt: skip


def decode(body: bytes) -> dict[str, Any]:
    """Return the object in a Kubernetes protobuf message as its JSON. Raises DecodeError."""
    if not body.startswith(MAGIC):
        raise DecodeError("not a Kubernetes protobuf message")
    envelope = decode_message("Unknown", body[len(MAGIC) :], raw=True)
    kind = envelope["typeMeta"]["kind"]
    if kind not in TYPES:
        raise DecodeError(f"kind {kind} is not supported in protobuf; send JSON")
    return {**envelope["typeMeta"], **decode_message(kind, envelope.get("raw", b""))}


def decode_message(name: str, data: bytes, *, raw: bool = False) -> dict[str, Any]:
    """Return a message as JSON, without empty values. raw: return bytes instead of base64."""
    result: dict[str, Any] = {}
    for number, value in _fields(data):
        field = TYPES[name].get(number)
        if field is None:
            if value in (b"", 0):
                continue
            raise DecodeError(f"field {number} of {name} is not supported in protobuf; send JSON")
        if field.type == "ignored":
            continue
        if field.shape == "map":
            entry = dict(_fields(value if isinstance(value, bytes) else b""))
            key = _text(entry.get(1, b""))
            result.setdefault(field.name, {})[key] = _value(field, entry.get(2, b""), raw=raw)
        elif field.shape == "list":
            result.setdefault(field.name, []).append(_value(field, value, raw=raw))
        elif value not in (b"",) or field.type in TYPES:
            result[field.name] = _value(field, value, raw=raw)
    if name == "ObjectMeta":
        result = {key: value for key, value in result.items() if value not in (0, "")}
    return result


def _value(field: Field, value: bytes | int, *, raw: bool) -> Any:
    if isinstance(value, int):
        if field.type == "bool":
            return bool(value)
        return value if value < 1 << 63 else value - (1 << 64)
    if field.type in TYPES:
        return decode_message(field.type, value, raw=raw)
    if field.type == "bytes":
        return value if raw else b64encode(value).decode()
    return _text(value)


def _text(value: bytes | int) -> str:
    if isinstance(value, int):
        raise DecodeError("expected a string, got a number")
    return value.decode()


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield field numbers and values: integers, or the bytes of strings and messages."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            length, at = _varint(data, at)
            yield tag >> 3, data[at : at + length]
            at += length
        else:
            raise DecodeError(f"wire type {tag & 7} is not supported")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise DecodeError("the message is truncated")
