"""Label and field selectors, JSONPath and durations: the small languages of lists and tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
Matcher = Callable[[Object], bool]


def now() -> str:
    """The time as the API server writes it, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def when(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def labels(selector: str) -> Matcher:
    """Equality and set-based requirements ("a=b,c!=d,e in (f,g),!h"). Raises ValueError."""
    tests = [_requirement(part.strip()) for part in re.split(r",(?![^(]*\))", selector) if part.strip()]

    def match(obj: Object) -> bool:
        have = obj["metadata"].get("labels") or {}
        return all(test(have) for test in tests)

    return match


def _requirement(text: str) -> Callable[[dict[str, str]], bool]:
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s*\(([^)]*)\)", text):
        key, wanted, values = found[1], found[2] == "in", {v.strip() for v in found[3].split(",")}
        return lambda have: (have.get(key) in values) == wanted
    if found := re.fullmatch(r"([^\s=!]+)\s*(=|==|!=)\s*(\S*)", text):
        key, equal, value = found[1], found[2] != "!=", found[3]
        return lambda have: (have.get(key) == value) == equal
    if found := re.fullmatch(r"(!?)\s*([\w./-]+)", text):
        absent, key = bool(found[1]), found[2]
        return lambda have: (key in have) != absent
    raise ValueError(f"unable to parse requirement: {text!r}")


def matches(selector: Object | None, have: dict[str, str] | None) -> bool:
    """Whether labels satisfy a LabelSelector ({matchLabels, matchExpressions})."""
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
    """Field requirements on any scalar ("metadata.name=x,status.phase!=Running"). Raises ValueError."""
    tests: list[tuple[list[str], bool, str]] = []
    for part in filter(None, selector.split(",")):
        found = re.fullmatch(r"\s*([\w.]+)\s*(==|=|!=)\s*(.*?)\s*", part)
        if not found:
            raise ValueError(f"invalid field selector: {part!r}; can't understand it")
        tests.append((found[1].split("."), found[2] != "!=", found[3].replace("\\,", ",")))

    def match(obj: Object) -> bool:
        for path, equal, wanted in tests:
            value: Any = obj
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if (("" if value is None else str(value)) == wanted) != equal:
                return False
        return True

    return match


_STEP = re.compile(
    r"""\.?([\w-]+)|\.?\['([^']+)'\]|\[(\d+|\*)\]|\[\?\(@\.([\w.]+)\s*==\s*["']([^"']*)["']\)\]"""
)


def jsonpath(obj: Any, path: str) -> list[Any]:
    """Values at a CRD column's path: names, indexes, `[*]` and `[?(@.a=="b")]`."""
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
    name, quoted, index, key, wanted = step.groups()
    if name or quoted:
        at = (name or quoted).replace("\x00", ".")
        return [value[at]] if isinstance(value, dict) and at in value else []
    if not isinstance(value, list):
        return []
    if key:
        return [item for item in value if isinstance(item, dict) and str(item.get(key)) == wanted]
    if index == "*":
        return value
    return value[int(index) : int(index) + 1]


def at(obj: Any, path: str) -> Any:
    """The value at a dotted path (".spec.replicas"), None where there is none."""
    for name in path.strip(".").split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def age(timestamp: str | None) -> str:
    """How long ago, as kubectl prints it (7s, 2m10s, 3h, 5d)."""
    if not timestamp:
        return "<unknown>"
    seconds = max(0, int((datetime.now(UTC) - when(timestamp)).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"
