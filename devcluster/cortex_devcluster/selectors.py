"""Label selectors, field selectors and the JSONPath of printer columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cortex_devcluster.objects import Object

Matcher = Callable[[Object], bool]


def labels(selector: str) -> Matcher:
    """Parse a label selector ("a=b,c!=d,e in (f,g),!h"). Raises ValueError."""
    tests = [_requirement(part.strip()) for part in re.split(r",(?![^(]*\))", selector) if part.strip()]

    def match(obj: Object) -> bool:
        have = obj["metadata"].get("labels") or {}
        return all(test(have) for test in tests)

    return match


def _requirement(text: str) -> Callable[[dict[str, str]], bool]:
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s*\(([^)]*)\)", text):
        key, expected, values = found[1], found[2] == "in", {v.strip() for v in found[3].split(",")}
        return lambda have: (have.get(key) in values) == expected
    if found := re.fullmatch(r"([^\s=!]+)\s*(=|==|!=)\s*(\S*)", text):
        key, equal, value = found[1], found[2] != "!=", found[3]
        return lambda have: (have.get(key) == value) == equal
    if found := re.fullmatch(r"(!?)\s*([\w./-]+)", text):
        absent, key = bool(found[1]), found[2]
        return lambda have: (key in have) != absent
    raise ValueError(f"unable to parse requirement: {text!r}")


def matches(selector: Object | None, have: dict[str, str] | None) -> bool:
    """Return whether labels match a LabelSelector object ({matchLabels, matchExpressions})."""
    have = have or {}
    if not selector:
        return False
    if any(have.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    tests: dict[str, Callable[[Any, list[str]], bool]] = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, values: value is not None,
        "DoesNotExist": lambda value, values: value is None,
    }
    expressions = selector.get("matchExpressions") or ()
    return all(tests[e["operator"]](have.get(e["key"]), e.get("values") or []) for e in expressions)


def fields(selector: str) -> Matcher:
    """Parse a field selector ("metadata.name=x,status.phase!=Running"); every field is supported. Raises ValueError."""
    tests: list[tuple[list[str], bool, str]] = []
    for part in filter(None, selector.split(",")):
        found = re.fullmatch(r"\s*([\w.]+)\s*(==|=|!=)\s*(.*?)\s*", part)
        if not found:
            raise ValueError(f"invalid field selector: {part!r}; can't understand it")
        tests.append((found[1].split("."), found[2] != "!=", found[3].replace("\\,", ",")))

    def match(obj: Object) -> bool:
        for path, equal, expected in tests:
            value: Any = obj
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if (("" if value is None else str(value)) == expected) != equal:
                return False
        return True

    return match


_STEP = re.compile(
    r"""\.?([\w-]+)|\.?\['([^']+)'\]|\[(\d+|\*)\]|\[\?\(@\.([\w.]+)\s*==\s*["']([^"']*)["']\)\]"""
)


def jsonpath(obj: Any, path: str) -> list[Any]:
    """Return the values at a path of names, indexes, `[*]` and `[?(@.a=="b")]`; none if the path is not supported."""
    found, position = [obj], 0
    path = path.strip().replace("\\.", "\x00")
    while position < len(path):
        step = _STEP.match(path, position)
        if not step:
            return []
        position = step.end()
        found = [below for value in found for below in _below(value, step)]
    return found


def _below(value: Any, step: re.Match[str]) -> list[Any]:
    name, quoted, index, key, expected = step.groups()
    if name or quoted:
        at = (name or quoted).replace("\x00", ".")
        return [value[at]] if isinstance(value, dict) and at in value else []
    if not isinstance(value, list):
        return []
    if key:
        return [item for item in value if isinstance(item, dict) and str(item.get(key)) == expected]
    if index == "*":
        return value
    return value[int(index) : int(index) + 1]
