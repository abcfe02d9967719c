"""Check `spec.pod`: the values whose format Kubernetes defines, and the types that the merge needs. Pure.

Only what Kubernetes refuses in every release is a problem. Fields that are not listed here are not checked: the API server
refuses the pods with its own message, which the status of the API shows.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import PydanticCustomError

from cortex_api import formats
from cortex_api.contract import API_LABEL, COMPONENT_LABEL, KIND_LABEL
from cortex_api.formats import Format

Problems = Iterator[tuple[str, str]]
"""The path of a field below the checked value, and what is wrong."""
Check = Callable[[Any], Problems]

_QUANTITY = re.compile(
    r"\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]+)?", re.ASCII
)
_MAX_PORT = 65535
_SELECTED = (API_LABEL, KIND_LABEL, COMPONENT_LABEL)


def check(overlay: dict[str, Any]) -> dict[str, Any]:
    """Return a valid overlay. Raises PydanticCustomError with all problems."""
    is_template = "spec" in overlay or "metadata" in overlay
    if broken := list((_TEMPLATE if is_template else _SHORT)(overlay)):
        raise PydanticCustomError("rules", "values are not valid", {"broken": broken})
    return overlay


def check_source(source: dict[str, Any]) -> dict[str, Any]:
    """Return a valid `valueFrom` of an environment variable. Raises PydanticCustomError with all problems."""
    broken = list(_VALUE_FROM(source))
    if not source:
        broken = [("", "set configMapKeyRef, secretKeyRef, fieldRef or resourceFieldRef")]
    elif len(source) > 1:
        broken.append(("", f"only one source is allowed; got {', '.join(source)}"))
    if broken:
        raise PydanticCustomError("rules", "values are not valid", {"broken": broken})
    return source


def check_sources(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a valid `envFrom`. Raises PydanticCustomError with all problems."""
    broken = list(_ENV_FROM(sources))
    for i, source in enumerate(sources):
        named = [name for name in ("configMapRef", "secretRef") if source.get(name) is not None]
        if len(named) != 1:
            broken.append((f"[{i}]", "exactly one of configMapRef and secretRef must be set"))
    if broken:
        raise PydanticCustomError("rules", "values are not valid", {"broken": broken})
    return sources


def _text(wanted: Format) -> Check:
    def problems(value: Any) -> Problems:
        if not isinstance(value, str):
            yield "", f"must be a string; got {_shown(value)}"
        elif problem := wanted.problem(value):
            yield "", problem

    return problems


def _mapping(fields: dict[str, Check], required: tuple[str, ...] = (), kept: tuple[str, ...] = ()) -> Check:
    """Check the fields of a mapping. Null removes a field, unless it is in `kept`: the pod must have it."""

    def problems(value: Any) -> Problems:
        if not isinstance(value, dict):
            yield "", f"must be a mapping; got {_shown(value)}"
            return
        for name in required:
            if value.get(name) is None:
                yield name, "is required"
        for name in kept:
            if name in value and value[name] is None:
                yield name, "must not be null"
        for name, check_field in fields.items():
            if value.get(name) is not None:
                yield from _below(name, check_field(value[name]))

    return problems


def _list(item: Check) -> Check:
    def problems(value: Any) -> Problems:
        if not isinstance(value, list):
            yield "", f"must be a list; got {_shown(value)}"
            return
        for i, each in enumerate(value):
            yield from _below(f"[{i}]", item(each))

    return problems


def _labels(value: Any) -> Problems:
    if not isinstance(value, dict):
        yield "", f"must be a mapping; got {_shown(value)}"
        return
    for key, each in value.items():
        if problem := formats.LABEL_KEY.problem(key):
            yield "", problem
        if each is not None:
            yield from _below(key, _LABEL_VALUE(each))


def _pod_labels(value: Any) -> Problems:
    yield from _labels(value)
    for key in _SELECTED if isinstance(value, dict) else ():
        if key in value:
            yield "", f"{key} must not be changed: Cortex finds the pods by it"


def _annotations(value: Any) -> Problems:
    if not isinstance(value, dict):
        yield "", f"must be a mapping; got {_shown(value)}"
        return
    for key, each in value.items():
        # Unlike that of a label, the prefix may have uppercase letters.
        if problem := formats.LABEL_KEY.problem(key.lower()):
            yield "", problem.replace("of a label", "of an annotation")
        if each is not None:
            yield from _below(key, _string(each))


def _string(value: Any) -> Problems:
    if not isinstance(value, str):
        yield "", f"must be a string; got {_shown(value)}"


def _port(lowest: int) -> Check:
    def problems(value: Any) -> Problems:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= _MAX_PORT:
            yield "", f"must be a port from {lowest} to {_MAX_PORT}; got {_shown(value)}"

    return problems


def _quantities(value: Any) -> Problems:
    if not isinstance(value, dict):
        yield "", f"must be a mapping; got {_shown(value)}"
        return
    for name, quantity in value.items():
        is_number = isinstance(quantity, int | float) and not isinstance(quantity, bool)
        is_valid = isinstance(quantity, str) and _QUANTITY.fullmatch(quantity) is not None
        if quantity is not None and not (is_valid or (is_number and quantity >= 0)):
            yield name, f'{_shown(quantity)} is not a quantity; use for example "500m" or "1Gi"'


def _mount_path(value: Any) -> Problems:
    if not isinstance(value, str) or not value or ":" in value:
        yield "", f"must be a path without ':'; got {_shown(value)}"


def _below(name: str, problems: Problems) -> Problems:
    for path, message in problems:
        yield name + (path if path.startswith("[") or not path else f".{path}"), message


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


_LABEL_VALUE = _text(formats.LABEL_VALUE)
_OF_KEY = _mapping({"name": _text(formats.OBJECT_NAME), "key": _text(formats.KEY)}, ("name", "key"))
_VALUE_FROM = _mapping(
    {
        "configMapKeyRef": _OF_KEY,
        "secretKeyRef": _OF_KEY,
        "fieldRef": _mapping({"fieldPath": _string}, ("fieldPath",)),
        "resourceFieldRef": _mapping({"resource": _string}, ("resource",)),
    }
)
_REQUIRED_NAME = _mapping({"name": _text(formats.OBJECT_NAME)}, ("name",))
_ENV_FROM = _list(
    _mapping({"configMapRef": _REQUIRED_NAME, "secretRef": _REQUIRED_NAME, "prefix": _text(formats.VARIABLE)})
)
_ENV = _list(
    _mapping({"name": _text(formats.VARIABLE), "value": _string, "valueFrom": _VALUE_FROM}, ("name",))
)
_CONTAINERS = _list(
    _mapping(
        {
            "name": _text(formats.LABEL_NAME),
            "image": _text(formats.IMAGE),
            "env": _ENV,
            "envFrom": _ENV_FROM,
            "ports": _list(
                _mapping(
                    {"containerPort": _port(1), "hostPort": _port(0), "name": _text(formats.PORT_NAME)},
                    ("containerPort",),
                )
            ),
            "resources": _mapping({"requests": _quantities, "limits": _quantities}),
            "volumeMounts": _list(_mapping({"name": _string, "mountPath": _mount_path}, ("mountPath",))),
        },
        ("name",),
    )
)
_VOLUMES = _list(
    _mapping(
        {
            "name": _text(formats.LABEL_NAME),
            "emptyDir": _mapping({"sizeLimit": lambda value: _quantities({"": value})}),
            "persistentVolumeClaim": _mapping({"claimName": _text(formats.OBJECT_NAME)}, ("claimName",)),
        },
        ("name",),
    )
)
_METADATA: dict[str, Check] = {"labels": _pod_labels, "annotations": _annotations}
_ANY = _mapping({})
_SPEC: dict[str, Check] = {
    "containers": _CONTAINERS,
    "initContainers": _CONTAINERS,
    "volumes": _VOLUMES,
    "serviceAccountName": _text(formats.OBJECT_NAME),
    "priorityClassName": _text(formats.OBJECT_NAME),
    "runtimeClassName": _text(formats.OBJECT_NAME),
    "hostname": _text(formats.LABEL_NAME),
    "imagePullSecrets": _list(_ANY),
    "nodeSelector": _labels,
    "tolerations": _list(_mapping({"key": _string, "value": _string})),
    "topologySpreadConstraints": _list(_ANY),
    "hostAliases": _list(_mapping({"hostnames": _list(_text(formats.OBJECT_NAME))}, ("ip",))),
    "affinity": _ANY,
    "securityContext": _ANY,
}
_TEMPLATE = _mapping(
    {
        "metadata": _mapping(_METADATA, kept=("labels",)),
        "spec": _mapping(_SPEC, kept=("containers",)),
    },
    kept=("metadata", "spec"),
)
_SHORT = _mapping(_METADATA | _SPEC, kept=("labels", "containers"))
