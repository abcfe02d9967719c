"""Compare the responses of the stable version and of the candidate to one request. Pure functions over bytes.

- JSON is compared by structure (values.py).
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cortex_runtime.candidate.values import (
    LONGEST_VALUE,
    MISSING,
    Difference,
    Ignored,
    Pointer,
    below,
    differing_numbers,
    formatted,
    parts_of,
    walk_differences,
)
from cortex_runtime.http import json_parser

if TYPE_CHECKING:
    import numpy as np

LARGEST_BODY = 4 * 1024 * 1024
"""Bytes of a response that is compared."""
LARGEST_JSON = 256 * 1024
"""Bytes of its JSON, which takes far longer to compare than tensors in bytes."""
MOST_DIFFERENCES = 10
"""Differences that are reported of one pair."""
_JSON_SIZE = b"inference-header-content-length"
_LONGEST_CLASS = 64
"""Characters of a class."""


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
        self._ignored: Ignored = tuple(parts_of(pointer) for pointer in ignore)
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
            walk = walk_differences(((), *values, self._ignored), self._tolerance)
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


def _is_inference(value: Any) -> bool:
    """Return whether JSON is a response of the Open Inference Protocol."""
    outputs = value.get("outputs") if type(value) is dict else None
    return (
        type(outputs) is list
        and "model_name" in value
        and all(type(each) is dict and {"name", "datatype", "shape"} <= each.keys() for each in outputs)
    )


def _inference(
    values: tuple[Any, Any], answers: tuple[Answer, Answer], tolerance: float, ignored: Ignored
) -> Iterator[Difference]:
    """Yield the differences of two responses of the protocol. Raises ValueError for tensors of a wrong size."""
    stable, candidate = (_outputs(value, answer) for value, answer in zip(values, answers, strict=True))
    ignored = below(ignored, "outputs")
    if () in ignored:
        return
    for name, (place, mine, raw) in stable.items():
        inner, pointer = below(ignored, place), (((), "outputs"), place)
        if () in inner:
            continue
        if name not in candidate:
            yield Difference(formatted(pointer), name, MISSING)
            continue
        _, theirs, other = candidate[name]
        first, second = ({key: each[key] for key in each if key != "parameters"} for each in (mine, theirs))
        header = list(
            itertools.islice(walk_differences((pointer, first, second, inner), tolerance), MOST_DIFFERENCES)
        )
        yield from header
        if not header and raw is not None and other is not None and raw != other:
            yield from _tensors(
                (mine, raw), (theirs, other), (pointer, "data"), tolerance, below(inner, "data")
            )
    for name, (place, *_rest) in candidate.items():
        if name not in stable and () not in below(ignored, place):
            yield Difference(formatted((((), "outputs"), place)), MISSING, name)


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
    ignored: Ignored,
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
        yield Difference(formatted(pointer), f"{first.size} elements", f"{second.size} elements")
        return
    for place in differing_numbers(first, second, tolerance):
        if not (ignored and () in below(ignored, place)):
            yield Difference(formatted((pointer, place)), _plain(first[place]), _plain(second[place]))


def _plain(element: "np.generic | bytes") -> Any:
    if isinstance(element, bytes):
        return element.decode(errors="replace")
    value = element.item()
    # JSON has no NaN.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _bodies(stable: Answer, candidate: Answer) -> Difference:
    return Difference("body", text_of(stable, LONGEST_VALUE), text_of(candidate, LONGEST_VALUE))


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
