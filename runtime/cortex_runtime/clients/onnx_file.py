"""Read from an ONNX file what sessions of onnxruntime do not report: whether an input without dimensions is a scalar, or of any
rank.

Reads only the required protobuf fields: the graph (7) of a ModelProto, its inputs (11), the name (1) and type (2) of an input,
its tensor type (1) and the shape (2) of that.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path


def inputs_of_any_rank(path: Path) -> set[str]:
    """Return the names of inputs that are tensors without a shape. Raises OSError and ValueError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = set()
        for graph in _fields(content, (0, len(content)), 7):
            for each in _fields(content, graph, 11):
                names = [bytes(content[start:end]).decode() for start, end in _fields(content, each, 1)]
                shapes = [
                    shape
                    for kind in _fields(content, each, 2)
                    for tensor in _fields(content, kind, 1)
                    for shape in _fields(content, tensor, 2)
                ]
                if not shapes:
                    found.update(names)
        return found


def _fields(content: mmap.mmap, within: tuple[int, int], wanted: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each field with this number, in a message within these bytes."""
    place, end = within
    while place < end:
        key, place = _varint(content, place)
        kind = key & 7
        if kind == 0:
            _, place = _varint(content, place)
            continue
        if kind == 2:
            length, place = _varint(content, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("not a protocol buffer")
        if key >> 3 == wanted and kind == 2:
            yield place, place + length
        place += length


def _varint(content: mmap.mmap, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7
