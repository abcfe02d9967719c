"""Reading a manifest: a typed resource, or every problem in it at once, each with its field and what is allowed."""

import difflib
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cortex_api.kinds import API_VERSION, KINDS, AsyncAPI, RealtimeAPI

_TYPES = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    path: the field, such as "spec.handler.type" ("" for the manifest as a whole). message: what is wrong and what is allowed.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidManifest(ValueError):
    """A manifest that is no valid resource; `problems` lists everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


def parse(manifest: Any) -> RealtimeAPI | AsyncAPI:
    """The resource that a manifest (parsed YAML or JSON) describes. Raises InvalidManifest."""
    if not isinstance(manifest, dict):
        raise InvalidManifest(
            [Problem("", "a manifest is a mapping with apiVersion, kind, metadata and spec")]
        )
    kind = manifest.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise InvalidManifest([Problem("kind", f"must be one of {', '.join(KINDS)}, not {_shown(kind)}")])
    version = manifest.get("apiVersion", API_VERSION)
    if version != API_VERSION:
        raise InvalidManifest([Problem("apiVersion", f"must be {API_VERSION}, not {_shown(version)}")])
    try:
        return model.model_validate(manifest)
    except ValidationError as error:
        problems = [problem for detail in error.errors() for problem in _problems(model, detail)]
        raise InvalidManifest(list(dict.fromkeys(problems))) from None


def _problems(model: type[BaseModel], detail: ErrorDetails) -> list[Problem]:
    location = detail["loc"]
    path = _path(location)
    match detail["type"]:
        case "rules":
            return [
                Problem(".".join(filter(None, (path, field))), message)
                for field, message in detail["ctx"]["broken"]
            ]
        case "extra_forbidden":
            allowed = _fields(model, location[:-1])
            near = difflib.get_close_matches(str(location[-1]), allowed, 1)
            hint = f", did you mean {near[0]}?" if near else ";"
            return [Problem(path, f"unknown field{hint} allowed: {', '.join(allowed)}")]
        case "missing":
            # metadata has one field that a manifest must have.
            return [Problem("metadata.name" if path == "metadata" else path, "is required")]
        case "literal_error":
            allowed_values = detail["ctx"]["expected"].replace("'", "")
            return [Problem(path, f"must be one of {allowed_values}, not {_shown(detail['input'])}")]
        case "string_pattern_mismatch":
            return [Problem(path, f"must match {detail['ctx']['pattern']}, not {_shown(detail['input'])}")]
        case "value_error":
            return [Problem(path, str(detail["ctx"]["error"]))]
        case kind if kind in _TYPES:
            return [Problem(path, f"must be {_TYPES[kind]}, not {_shown(detail['input'])}")]
        case _:
            return [
                Problem(path, f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {_shown(detail['input'])}")
            ]


def _path(location: tuple[str | int, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _fields(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Names of the fields that are allowed at a location."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        fields = {info.alias or name: info for name, info in current.model_fields.items()}
        if part not in fields:
            return []
        found = _model_in(fields[part].annotation)
        if found is None:
            return []
        current = found
    return sorted(info.alias or name for name, info in current.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Annotated, Union, UnionType, list):
        for argument in get_args(annotation):
            found = _model_in(argument)
            if found is not None:
                return found
    return None


def _shown(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"' if len(value) <= 80 else f'"{value[:77]}..."'
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)
