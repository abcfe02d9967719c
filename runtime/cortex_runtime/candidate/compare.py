"""Compare the responses of the stable version and of the candidate to one request. Pure functions over bytes.

Two numbers are equal if |stable - candidate| <= tolerance * max(1, |stable|): the tolerance is absolute for numbers from -1 to 1,
and relative to the stable number beyond. 1 equals 1.0, true does not equal 1, NaN equals NaN. Everything else must be equal.

- JSON is compared by structure. The order of keys is irrelevant, and a missing key is not null.
- A response of the Open Inference Protocol is compared output by output and element by element. The version of the model, the id
  and the parameters are not part of it: they differ between two versions of one model.
- Other bodies are compared byte by byte.
- Two errors (a status from 400 on) are equal if their statuses are: their messages contain the request id.

A comparison stops at MOST_DIFFERENCES, and bodies beyond LARGEST_BODY or LARGEST_JSON are not compared unless they are identical.
"""

import codecs
import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from cortex_runtime.http import json_parser

if TYPE_CHECKING:
    import numpy as np

LARGEST_BODY = 4 * 1024 * 1024
"""Bytes of a response that is compared."""
LARGEST_JSON = 256 * 1024
"""Bytes of its JSON, which takes some 30 ms to compare; tensors in bytes take 1 ms for a megabyte."""
MOST_DIFFERENCES = 10
"""Differences that are reported of one pair."""
_JSON_SIZE = b"inference-header-content-length"
_LONGEST_VALUE = 200
"""Characters of a value in a report."""
_LONGEST_CLASS = 64
"""Characters of a class."""
_LONG_LIST = 64
"""Elements from which on numpy is faster than a loop."""

Pointer = tuple[Any, ...]
"""The path to a value: the path of its parent, and its key or index; () for the document. Formatted only for a report."""
_Ignored = tuple[tuple[str, ...], ...]
"""The JSON pointers that can match below a value, each without what has matched so far."""


class _Missing:
    """The absence of a value, which is not null."""


MISSING: Final = _Missing()


@dataclass(slots=True)
class Answer:
    """A response, as far as it is compared.

    json_size: bytes of the JSON before the tensors, from the header Inference-Header-Content-Length; None without it. The body
    must not be compressed.
    """

    status: int
    content_type: str
    body: bytes
    json_size: int | None = None

    @classmethod
    def received(cls, status: int, fields: Mapping[bytes, bytes], body: bytes) -> "Answer":
        """Return a response by its header fields, whose names are in lower case."""
        size = fields.get(_JSON_SIZE, b"")
        content_type = fields.get(b"content-type", b"").decode("latin-1")
        return cls(status, content_type, body, int(size) if size.isdigit() else None)

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.content_type.partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. path: a JSON pointer, or "status", "content-type" or "body". stable, candidate: MISSING where absent."""

    path: str
    stable: Any
    candidate: Any

    def as_json(self) -> dict[str, Any]:
        """Return path, stable and candidate for JSON. Long values are shortened to text, and a missing one has no key."""
        shown = {"path": self.path}
        for name, value in (("stable", self.stable), ("candidate", self.candidate)):
            if value is not MISSING:
                shown[name] = _shortened(value)
        return shown


@dataclass(slots=True)
class Comparison:
    """The result for one pair. classes: of the tracker, stable and candidate; None if either response has none."""

    differences: list[Difference] = field(default_factory=list)
    classes: tuple[str, str] | None = None


class Comparator:
    """Compares pairs as spec.candidate.compare configures it.

    ignore: JSON pointers (RFC 6901) to values that may differ, with all that is below them; `*` matches every key and index.
    tracker_key: spec.tracker.key; None if the body itself is the class. has_classes: whether the API counts classes.
    """

    def __init__(
        self,
        tolerance: float = 0.0,
        ignore: Sequence[str] = (),
        *,
        has_classes: bool = False,
        tracker_key: str | None = None,
    ) -> None:
        self._tolerance = tolerance
        self._ignored: _Ignored = tuple(_parts(pointer) for pointer in ignore)
        self._has_classes = has_classes
        self._key = tracker_key

    def compare(self, stable: Answer, candidate: Answer) -> Comparison | None:
        """Return the differences of a pair. None if the bodies are too large to be compared."""
        identical = (
            stable.status == candidate.status
            and stable.body == candidate.body
            and stable.media_type == candidate.media_type
        )
        too_large = any(
            len(each.body) > LARGEST_BODY or (_is_json(each) and _json_size(each) > LARGEST_JSON)
            for each in (stable, candidate)
        )
        if identical and (too_large or not self._has_classes or not _is_json(stable)):
            return Comparison()
        if stable.status != candidate.status:
            return Comparison([Difference("status", stable.status, candidate.status)])
        if stable.status >= 400:
            return Comparison()
        if stable.media_type != candidate.media_type:
            return Comparison([Difference("content-type", stable.content_type, candidate.content_type)])
        if too_large:
            return None
        try:
            values = _parsed(stable), _parsed(candidate)
        except ValueError:
            values = None
        if values is None:
            if stable.body == candidate.body or () in self._ignored:
                return Comparison()
            return Comparison([_bodies(stable, candidate)])
        return Comparison(
            [] if identical else self._differences(values, stable, candidate), self._classes(*values)
        )

    def _differences(self, values: tuple[Any, Any], stable: Answer, candidate: Answer) -> list[Difference]:
        if () in self._ignored:
            return []
        if _is_inference(values[0]) and _is_inference(values[1]):
            walk = _inference(values, (stable, candidate), self._tolerance, self._ignored)
        else:
            walk = _walk(((), *values, self._ignored), self._tolerance)
        try:
            return list(itertools.islice(walk, MOST_DIFFERENCES))
        except (ValueError, TypeError):
            # Tensors that do not have the size, or a shape, that their JSON states.
            return [_bodies(stable, candidate)]

    def _classes(self, stable: Any, candidate: Any) -> tuple[str, str] | None:
        if not self._has_classes:
            return None
        first, second = self._class(stable), self._class(candidate)
        return None if first is None or second is None else (first, second)

    def _class(self, value: Any) -> str | None:
        if self._key is not None:
            value = value.get(self._key) if isinstance(value, dict) else None
        return class_name(value)


def class_name(value: Any) -> str | None:
    """Return a class as the tracker names it, shortened and printable; None for a value that is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int):
        return None
    name = str(value)[:_LONGEST_CLASS]
    return name if name.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in name)


def _is_json(answer: Answer) -> bool:
    return (
        answer.json_size is not None
        or answer.media_type == "application/json"
        or answer.media_type.endswith("+json")
    )


def _json_size(answer: Answer) -> int:
    return len(answer.body) if answer.json_size is None else answer.json_size


def _parsed(answer: Answer) -> Any:
    """Return the JSON of a body. Raises ValueError if it is none."""
    if not _is_json(answer):
        raise ValueError
    text = answer.body[: _json_size(answer)]
    try:
        return json_parser.loads(text)
    except ValueError:
        try:
            # A handler that encodes its own JSON may write NaN.
            return json.loads(text)
        except RecursionError:
            raise ValueError from None


def _parts(pointer: str) -> tuple[str, ...]:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _formatted(pointer: Pointer) -> str:
    keys: list[str] = []
    while pointer:
        pointer, key = pointer
        keys.append("/" + str(key).replace("~", "~0").replace("/", "~1"))
    return "".join(reversed(keys))


def _below(ignored: _Ignored, key: Any) -> _Ignored:
    """Return what is ignored below a key. An empty pointer among it ignores the value itself."""
    text = str(key)
    return tuple(parts[1:] for parts in ignored if parts and parts[0] in (text, "*"))


def _walk(start: tuple[Pointer, Any, Any, _Ignored], tolerance: float) -> Iterator[Difference]:
    """Yield the differences of two values. Not recursive: a body may be nested more deeply than Python's stack."""
    open_values = [start]
    while open_values:
        pointer, stable, candidate, ignored = open_values.pop()
        if type(stable) is dict and type(candidate) is dict:
            pairs: Any = _members(stable, candidate)
        elif type(stable) is list and type(candidate) is list:
            if len(stable) != len(candidate):
                yield Difference(_formatted(pointer), _count(stable), _count(candidate))
                continue
            if not ignored:
                places = _differing_items(stable, candidate, tolerance)
                pairs = ((place, stable[place], candidate[place]) for place in places)
            else:
                pairs = zip(range(len(stable)), stable, candidate, strict=True)
        else:
            if not _is_equal(stable, candidate, tolerance):
                yield Difference(_formatted(pointer), stable, candidate)
            continue
        nested = []
        for key, first, second in pairs:
            inner = _below(ignored, key) if ignored else ()
            if () in inner:
                continue
            kind = type(first)
            if (kind is dict or kind is list) and type(second) is kind:
                nested.append(((pointer, key), first, second, inner))
            elif not _is_equal(first, second, tolerance):
                yield Difference(_formatted((pointer, key)), first, second)
        open_values += reversed(nested)


def _members(stable: dict[str, Any], candidate: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key, value in stable.items():
        yield key, value, candidate.get(key, MISSING)
    for key, value in candidate.items():
        if key not in stable:
            yield key, MISSING, value


def _differing_items(stable: list[Any], candidate: list[Any], tolerance: float) -> Sequence[int]:
    """Return the places of two lists of one length that may differ."""
    types = {*map(type, stable), *map(type, candidate)}
    if types <= {int, float} or types <= {str}:
        if stable == candidate:
            return ()
        # Without an import: a handler that does not use numpy must not pay for it.
        np: Any = sys.modules.get("numpy")
        if types == {float} and len(stable) >= _LONG_LIST and hasattr(np, "isfinite"):
            return _differing_numbers(np.array(stable), np.array(candidate), tolerance)
    return range(len(stable))


def _is_equal(stable: Any, candidate: Any, tolerance: float) -> bool:
    """Return whether two values, not both lists or both objects, are equal."""
    kinds = {type(stable), type(candidate)}
    if not kinds <= {int, float}:
        return len(kinds) == 1 and stable == candidate
    if stable == candidate:
        return True
    if stable != stable or candidate != candidate:
        return stable != stable and candidate != candidate
    try:
        if not (tolerance and math.isfinite(stable) and math.isfinite(candidate)):
            return False
        return bool(abs(stable - candidate) <= tolerance * max(1, abs(stable)))
    except OverflowError:
        # An integer beyond float64.
        return False


def _differing_numbers(stable: Any, candidate: Any, tolerance: float) -> "list[int]":
    """Return the first places of two arrays of one shape that differ, in order of the flat array."""
    import numpy as np

    stable, candidate = stable.reshape(-1), candidate.reshape(-1)
    differing = stable != candidate
    if not differing.any():
        return []
    places = np.flatnonzero(differing)
    if stable.dtype.kind in "iuf":
        first, second = stable[places].astype(np.float64), candidate[places].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            close = np.abs(first - second) <= tolerance * np.maximum(1.0, np.abs(first))
        finite = np.isfinite(first) & np.isfinite(second)
        both_nan = np.isnan(first) & np.isnan(second)
        places = places[~(both_nan | (close & finite & (tolerance > 0)))]
    return [int(place) for place in places]


def _is_inference(value: Any) -> bool:
    """Return whether JSON is a response of the Open Inference Protocol."""
    outputs = value.get("outputs") if type(value) is dict else None
    return (
        type(outputs) is list
        and "model_name" in value
        and all(type(each) is dict and {"name", "datatype", "shape"} <= each.keys() for each in outputs)
    )


def _inference(
    values: tuple[Any, Any], answers: tuple[Answer, Answer], tolerance: float, ignored: _Ignored
) -> Iterator[Difference]:
    """Yield the differences of two responses of the protocol. Raises ValueError for tensors of a wrong size."""
    stable, candidate = (_outputs(value, answer) for value, answer in zip(values, answers, strict=True))
    ignored = _below(ignored, "outputs")
    if () in ignored:
        return
    for name, (place, mine, raw) in stable.items():
        inner, pointer = _below(ignored, place), (((), "outputs"), place)
        if () in inner:
            continue
        if name not in candidate:
            yield Difference(_formatted(pointer), name, MISSING)
            continue
        _, theirs, other = candidate[name]
        first, second = ({key: each[key] for key in each if key != "parameters"} for each in (mine, theirs))
        header = list(itertools.islice(_walk((pointer, first, second, inner), tolerance), MOST_DIFFERENCES))
        yield from header
        if not header and raw is not None and other is not None and raw != other:
            yield from _tensors(
                (mine, raw), (theirs, other), (pointer, "data"), tolerance, _below(inner, "data")
            )
    for name, (place, *_rest) in candidate.items():
        if name not in stable and () not in _below(ignored, place):
            yield Difference(_formatted((((), "outputs"), place)), MISSING, name)


def _outputs(
    value: Mapping[str, Any], answer: Answer
) -> dict[str, tuple[int, dict[str, Any], memoryview | None]]:
    """Return place, JSON and bytes of each output, by its name."""
    rest = memoryview(answer.body)[answer.json_size :] if answer.json_size is not None else memoryview(b"")
    outputs: dict[str, tuple[int, dict[str, Any], memoryview | None]] = {}
    for place, output in enumerate(value["outputs"]):
        parameters = output.get("parameters")
        size = parameters.get("binary_data_size") if type(parameters) is dict else None
        raw = None
        if type(size) is int:
            if not 0 <= size <= len(rest):
                raise ValueError
            raw, rest = rest[:size], rest[size:]
        outputs[str(output["name"])] = (place, output, raw)
    return outputs


def _tensors(
    stable: tuple[dict[str, Any], memoryview],
    candidate: tuple[dict[str, Any], memoryview],
    pointer: Pointer,
    tolerance: float,
    ignored: _Ignored,
) -> Iterator[Difference]:
    """Yield the differing elements of two tensors, each given by its JSON and its bytes."""
    if () in ignored:
        return
    # Not imported by a worker that serves no tensors.
    from cortex_runtime.inference.datatypes import DATATYPES, from_raw

    arrays = []
    for output, raw in (stable, candidate):
        if output["datatype"] not in DATATYPES:
            raise ValueError
        arrays.append(from_raw(DATATYPES[output["datatype"]], output["shape"], raw).reshape(-1))
    first, second = arrays
    if first.size != second.size:
        yield Difference(_formatted(pointer), f"{first.size} elements", f"{second.size} elements")
        return
    for place in _differing_numbers(first, second, tolerance):
        if not (ignored and () in _below(ignored, place)):
            yield Difference(_formatted((pointer, place)), _plain(first[place]), _plain(second[place]))


def _plain(element: "np.generic | bytes") -> Any:
    if isinstance(element, bytes):
        return element.decode(errors="replace")
    value = element.item()
    # JSON has no NaN.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _count(items: list[Any]) -> str:
    return f"{len(items)} item{'' if len(items) == 1 else 's'}"


def _bodies(stable: Answer, candidate: Answer) -> Difference:
    return Difference("body", text_of(stable, _LONGEST_VALUE), text_of(candidate, _LONGEST_VALUE))


def text_of(answer: Answer, longest: int) -> str:
    """Return a body as text of at most `longest` characters, or its size and type if it is not text."""
    start = answer.body[: 4 * longest]
    try:
        # A character may be cut at the end.
        text = codecs.getincrementaldecoder("utf-8")().decode(start, len(start) == len(answer.body))
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return f"{len(answer.body)} bytes of {answer.media_type or 'unknown type'}"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _shortened(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)[:_LONGEST_VALUE]
    if not isinstance(value, str | list | dict):
        return value
    try:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
    except (TypeError, ValueError):
        # Nested too deeply.
        text = _count(list(value))
    return value if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
