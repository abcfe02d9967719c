"""Parse manifests into typed resources. Errors list all invalid fields at once, each with its path and the allowed values."""

import difflib
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cortex_api.candidate import candidate_manifest
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
    """One error in a manifest.

    path: the field, such as "spec.handler.type"; "" for the manifest as a whole.
    message: what is wrong and which values are allowed.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidManifest(ValueError):
    """A manifest is not a valid resource. `problems` lists all errors."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


def parse(manifest: Any) -> RealtimeAPI | AsyncAPI:
    """Parse a manifest (a mapping from YAML or JSON) into a resource. Raises InvalidManifest."""
    if not isinstance(manifest, dict):
        raise InvalidManifest(
            [Problem("", "a manifest must be a mapping with apiVersion, kind, metadata and spec")]
        )
    kind = manifest.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise InvalidManifest([Problem("kind", f"must be one of {', '.join(KINDS)}; got {_format(kind)}")])
    version = manifest.get("apiVersion", API_VERSION)
    if version != API_VERSION:
        raise InvalidManifest([Problem("apiVersion", f"must be {API_VERSION}; got {_format(version)}")])
    api = _validate(model, manifest)
    if isinstance(api, RealtimeAPI) and api.spec.candidate is not None:
        _check_candidate(manifest)
    return api


def _validate(model: type[RealtimeAPI] | type[AsyncAPI], manifest: Any) -> RealtimeAPI | AsyncAPI:
    try:
        return model.model_validate(manifest)
    except ValidationError as error:
        problems = [problem for detail in error.errors() for problem in _convert(model, detail)]
        raise InvalidManifest(list(dict.fromkeys(problems))) from None


def _check_candidate(manifest: dict[str, Any]) -> None:
    """Validate the merge of a candidate with the stable version, which is valid. Raises InvalidManifest."""
    try:
        _validate(RealtimeAPI, candidate_manifest(manifest))
    except InvalidManifest as error:
        raise InvalidManifest([_of_candidate(problem) for problem in error.problems]) from None


def _of_candidate(problem: Problem) -> Problem:
    """Return a problem of the merged manifest with the path of the candidate's field."""
    stable = ".".join(problem.path.split(".")[:2])
    path = problem.path.replace("spec", "spec.candidate", 1)
    return Problem(path, f"{problem.message} (after the merge with {stable})")


def _convert(model: type[BaseModel], detail: ErrorDetails) -> list[Problem]:
    """Convert an error of pydantic to problems."""
    location = detail["loc"]
    path = _join_path(location)
    match detail["type"]:
        case "rules":
            return [
                Problem(
                    f"{path}{field}" if field.startswith("[") else ".".join(filter(None, (path, field))),
                    message + _given(detail["input"], field),
                )
                for field, message in detail["ctx"]["broken"]
            ]
        case "extra_forbidden":
            allowed = _allowed_fields(model, location[:-1])
            matches = difflib.get_close_matches(str(location[-1]), allowed, 1)
            hint = f"; did you mean {matches[0]}?" if matches else ";"
            return [Problem(path, f"unknown field{hint} allowed: {', '.join(allowed)}")]
        case "missing":
            # metadata has only one required field.
            return [Problem("metadata.name" if path == "metadata" else path, "is required")]
        case "literal_error":
            allowed_values = detail["ctx"]["expected"].replace("'", "")
            return [Problem(path, f"must be one of {allowed_values}; got {_format(detail['input'])}")]
        case "value_error":
            return [Problem(path, str(detail["ctx"]["error"]))]
        case kind if kind in _TYPES:
            fields = _allowed_fields(model, location) if kind.startswith("model") else []
            wanted = _TYPES[kind] + (f" with {', '.join(fields)}" if 0 < len(fields) < 5 else "")
            return [Problem(path, f"must be {wanted}; got {_format(detail['input'])}")]
        case _:
            message = detail["msg"].replace("Input should", "must", 1).replace("Keys should", "keys must", 1)
            return [Problem(path, f"{message[0].lower()}{message[1:]}; got {_format(detail['input'])}")]


def _given(value: Any, field: str) -> str:
    """Return the text at a field of a mapping, as the end of a message; "" for other values."""
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return f"; got {_format(value)}" if isinstance(value, str) else ""


def _join_path(location: tuple[str | int, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _allowed_fields(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Return the names of the fields that are allowed at a location."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        fields = {info.alias or name: info for name, info in current.model_fields.items()}
        if part not in fields:
            return []
        nested = _nested_model(fields[part].annotation)
        if nested is None:
            return []
        current = nested
    return sorted(info.alias or name for name, info in current.model_fields.items())


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Annotated, Union, UnionType, list):
        for argument in get_args(annotation):
            nested = _nested_model(argument)
            if nested is not None:
                return nested
    return None


def _format(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in value[:81])
            return f'"{text}"' if len(text) <= 80 else f'"{text[:77]}..."'
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)
