"""A YAML loader that reads scalars as kubectl does, so that a value is the same locally and in a cluster.

kubectl converts YAML to JSON by the rules of go-yaml 2, and PyYAML has others: `1e-3` is text to PyYAML, `12:30` is a number, and
`2026-01-01` a date.
"""

import math
import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NULLS = ("", "~", "null", "Null", "NULL")
_INTEGER = re.compile(
    r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]{0,20}))"
).fullmatch
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?").fullmatch
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)").fullmatch
_MAX_NODES = 1_000_000
"""Nodes of a document, those behind an alias counted each time. An etcd object has at most 1.5 MiB."""


class KubectlLoader(yaml.SafeLoader):
    """Raises yaml.YAMLError, also for documents that cannot be JSON."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Return the tag of a node."""
        if kind is not yaml.ScalarNode:
            return super().resolve(kind, value, implicit)
        return _TAG + (_kind(value) if implicit[0] else "str")

    def next_document(self) -> yaml.Node | None:
        """Return the nodes of the next document, whose aliases are neither endless nor excessive; None if it is empty."""
        node = self.get_node()
        if node is not None:
            _count(node, {})
        return node


def _kind(text: str) -> str:
    if text in _NULLS:
        return "null"
    if text in _BOOLEANS:
        return "bool"
    if text == "<<":
        return "merge"
    if text[0] in "+-.0123456789" and (_SPECIAL(text) or _number(text) is not None):
        return "float"
    return "str"


def _number(text: str) -> int | float | None:
    """Return the number that the API server stores, or None for text.

    A float without a fraction becomes an integer, as in JSON of Go, and an integer of more than 64 bits a float.
    """
    plain = text.replace("_", "")
    if found := _INTEGER(plain):
        sign, hexadecimal, binary, octal, decimal = found.groups()
        digits, base = next(
            each
            for each in ((hexadecimal, 16), (binary, 2), (octal, 8), (decimal, 10))
            if each[0] is not None
        )
        number = int(sign + digits, base)
        if -(2**63) <= number < 2**63:
            return number
        if number < 2**64 and sign != "+":
            return float(number)
    if not _FLOAT(plain):
        return None
    value = float(plain)
    if math.isinf(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


def _construct_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    number = _number(node.value)
    if number is None:
        raise yaml.constructor.ConstructorError(
            None, None, f"{node.value:.40} is not a number that JSON can represent", node.start_mark
        )
    return number


def _construct_bool(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    if node.value not in _BOOLEANS:
        raise yaml.constructor.ConstructorError(
            None, None, f"{node.value!r:.40} is not a boolean", node.start_mark
        )
    return _BOOLEANS[node.value]


def _construct_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


for _name in ("int", "float"):
    KubectlLoader.add_constructor(_TAG + _name, _construct_number)
KubectlLoader.add_constructor(_TAG + "bool", _construct_bool)
KubectlLoader.add_constructor(_TAG + "timestamp", _construct_text)


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return the number of nodes below a node, aliases expanded. counts: by the id of a node; 0 while it is counted."""
    known = counts.get(id(node))
    if known == 0:
        raise yaml.constructor.ConstructorError(None, None, "an alias refers to itself", node.start_mark)
    if known is not None:
        return known
    counts[id(node)] = 0
    count = 1
    if isinstance(node, yaml.MappingNode):
        count += sum(_count(key, counts) + _count(value, counts) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_count(item, counts) for item in node.value)
    if count > _MAX_NODES:
        raise yaml.constructor.ConstructorError(
            None, None, f"its aliases expand to more than {_MAX_NODES} values", node.start_mark
        )
    counts[id(node)] = count
    return count
