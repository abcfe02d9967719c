"""The split: which requests the candidate answers. The operator writes it as a file; supervisor and workers read it here.

A missing file, and one with weight 0 and mirror 0, mean that the stable version answers everything.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

Stamp = tuple[int, int, int]


class InvalidSplit(ValueError):
    """The file is not a split. The message names the field."""


@dataclass(frozen=True, slots=True)
class Compare:
    """How mirrored responses are compared. keep: differing pairs that are kept in memory."""

    tolerance: float = 0.0
    ignore: tuple[str, ...] = ()
    keep: int = 50


@dataclass(frozen=True, slots=True)
class Split:
    """version: changes with the candidate. host, port, grpc_port: of its Service; no grpc_port: it serves no gRPC.

    weight: percent of requests that it answers. mirror: percent of the other requests that it answers as well. key: name of the
    header, in lower case, whose value selects the version.
    """

    version: str
    host: str
    port: int
    grpc_port: int | None
    weight: float
    mirror: float
    key: bytes | None
    compare: Compare

    @property
    def target(self) -> tuple[str, str, int, int | None]:
        """What the connections to the candidate and its counters depend on."""
        return self.version, self.host, self.port, self.grpc_port


def read(path: Path) -> Split | None:
    """Return the active split; None if the stable version answers everything. Raises InvalidSplit."""
    try:
        content = path.read_bytes()
    except OSError:
        # No candidate: the ConfigMap, or the directory, does not exist.
        return None
    split = parse(content)
    return split if split.weight or split.mirror else None


def stamp(path: Path) -> Stamp | None:
    """Return a value that changes when the file is replaced; None if it does not exist. Follows the kubelet's link ..data."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def parse(content: bytes) -> Split:
    """Return the split of a file's content. Raises InvalidSplit."""
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidSplit(f"not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidSplit("must be a JSON object")
    key = _field(fields, "key", str, None)
    return Split(
        version=_field(fields, "version", str),
        host=_field(fields, "host", str),
        port=_field(fields, "port", int),
        grpc_port=_field(fields, "grpcPort", int, None),
        weight=_percent(fields, "weight"),
        mirror=_percent(fields, "mirror"),
        key=key.lower().encode() if key else None,
        compare=_compare(_field(fields, "compare", dict, None) or {}),
    )


def _compare(fields: dict[str, Any]) -> Compare:
    tolerance = _field(fields, "tolerance", (int, float), None) or 0.0
    keep = _field(fields, "keep", int, None)
    ignore = _field(fields, "ignore", list, None) or []
    return Compare(float(tolerance), tuple(map(str, ignore)), 50 if keep is None else keep)


def _percent(fields: dict[str, Any], name: str) -> float:
    value = _field(fields, name, (int, float))
    if not 0 <= value <= 100:
        raise InvalidSplit(f"{name} must be a percentage from 0 to 100; got {value}")
    return float(value)


_REQUIRED: Any = object()


def _field(fields: dict[str, Any], name: str, kind: Any, default: Any = _REQUIRED) -> Any:
    value = fields.get(name)
    if value is None and default is not _REQUIRED:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidSplit(f"{name} has the wrong type, or is missing; got {value!r:.80}")
    return value
