"""Replace values of a JSON payload that JSON paths select.

The supported part of RFC 9535: `.name` and `['name']` (a key), `[0]` (an element, counted from the start), `.*` and `[*]` (all
children), `..name` and `..*` (at any depth). A path that matches nothing has no effect.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

REDACTED = "[redacted]"
_SEGMENT = re.compile(
    r"(?P<deep>\.\.)?(?:\.?(?P<name>[A-Za-z_][A-Za-z0-9_-]*)|\['(?P<key>[^']+)'\]|\[(?P<index>[0-9]+)\]|\.?\*|\[\*\])"
)


class Step(NamedTuple):
    """One segment of a path. key: of an object, an index of an array, or None for all children. is_deep: at any depth."""

    key: str | int | None
    is_deep: bool


Path = tuple[Step, ...]


def parse(path: str) -> Path:
    """Return the steps of a path that `spec.payloadLogging.redact` accepts."""
    steps = []
    position = 1
    while position < len(path):
        found = _SEGMENT.match(path, position)
        if found is None:
            raise ValueError(f"{path} is not a supported JSON path")
        name = found["name"] or found["key"]
        index = found["index"]
        steps.append(Step(int(index) if index is not None else name, found["deep"] is not None))
        position = found.end()
    return tuple(steps)


def redact(value: Any, paths: Sequence[Path]) -> None:
    """Replace what the paths select in a JSON value, in place."""
    for path in paths:
        selected = [value]
        for step in path[:-1]:
            selected = [each[key] for node in selected for each, key in _matches(node, step)]
        for node in selected:
            # A list, because the matches are replaced.
            for each, key in list(_matches(node, path[-1])):
                each[key] = REDACTED


def _matches(node: Any, step: Step) -> Iterator[tuple[Any, Any]]:
    """Yield each match as its container and its key."""
    for container in _descendants(node) if step.is_deep else (node,):
        if isinstance(container, dict):
            if step.key is None:
                yield from ((container, key) for key in container)
            elif step.key in container:
                yield container, step.key
        elif isinstance(container, list):
            if step.key is None:
                yield from ((container, index) for index in range(len(container)))
            elif isinstance(step.key, int) and step.key < len(container):
                yield container, step.key


def _descendants(node: Any) -> Iterator[Any]:
    """Yield a value and all values in it."""
    pending = [node]
    while pending:
        value = pending.pop()
        yield value
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
