"""Compare the interfaces of both versions: whatever a client may send to the stable version, the candidate must accept. Pure.

The candidate may offer more. An interface comes from a pod that runs user code, so it is not trusted.
"""

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]
_MOST = 3
"""Differences in a message."""


def difference(stable: Any, candidate: Any) -> str:
    """Return what the candidate lacks or expects differently, in words; empty if it accepts what the stable version accepts.

    stable, candidate: responses of /interface.
    """
    found = list(_differences(stable, candidate))
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return "; ".join(found[:_MOST]) + more


def _differences(stable: Any, candidate: Any) -> Iterator[str]:
    offered = set(_routes(candidate))
    for method, path in _routes(stable):
        if (method, path) not in offered:
            yield f"the candidate has no route {method} {path}"
    offered_protocols = set(_strings(candidate, "protocols"))
    for protocol in _strings(stable, "protocols"):
        if protocol not in offered_protocols:
            yield f"the candidate does not serve {protocol}"
    offered_models = _mapping(candidate, "models")
    for name, model in _mapping(stable, "models").items():
        if name in offered_models:
            yield from _model_differences(name, model, offered_models[name])
        else:
            yield f"the candidate has no model {name}"


def _model_differences(name: str, stable: Any, candidate: Any) -> Iterator[str]:
    known, offered = _tensors(stable, "inputs"), _tensors(candidate, "inputs")
    for tensor in sorted(known.keys() | offered.keys()):
        before, after = known.get(tensor), offered.get(tensor)
        if after is None:
            yield f"model {name} of the candidate has no input {tensor}"
        elif before is None:
            yield f"model {name} of the candidate requires another input: {tensor}"
        elif before[0] != after[0] or not _fits(before[1], after[1]):
            yield f"input {tensor} of model {name} is {_text(before)}, that of the candidate {_text(after)}"
    offered = _tensors(candidate, "outputs")
    for tensor, before in sorted(_tensors(stable, "outputs").items()):
        after = offered.get(tensor)
        if after is None:
            yield f"model {name} of the candidate has no output {tensor}"
        elif before[0] != after[0]:
            yield f"output {tensor} of model {name} is {_text(before)}, that of the candidate {_text(after)}"


def _fits(stable: list[Any] | None, candidate: list[Any] | None) -> bool:
    """Return whether a tensor of the first shape may have the second one. Negative dimensions have any size."""
    if stable is None or candidate is None:
        return True
    if len(stable) != len(candidate):
        return False
    return all(
        mine == other or _is_any(mine) or _is_any(other)
        for mine, other in zip(stable, candidate, strict=True)
    )


def _is_any(dimension: Any) -> bool:
    return not isinstance(dimension, int) or dimension < 0


def _text(tensor: tuple[str, list[Any] | None]) -> str:
    datatype, shape = tensor
    return datatype if shape is None else f"{datatype} {shape}"


def _routes(interface: Any) -> Iterator[tuple[str, str]]:
    for route in _list(interface, "routes"):
        if isinstance(route, dict):
            yield str(route.get("method", ""))[:16], str(route.get("path", ""))[:256]


def _strings(interface: Any, name: str) -> list[str]:
    return [item[:64] for item in _list(interface, name) if isinstance(item, str)]


def _tensors(model: Any, name: str) -> dict[str, tuple[str, list[Any] | None]]:
    found = {}
    for tensor in _list(model, name):
        if isinstance(tensor, dict):
            shape = tensor.get("shape")
            found[str(tensor.get("name", ""))[:128]] = (
                str(tensor.get("datatype", ""))[:32],
                shape[:16] if isinstance(shape, list) else None,
            )
    return found


def _list(value: Any, name: str) -> list[Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _mapping(value: Any, name: str) -> Object:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}
