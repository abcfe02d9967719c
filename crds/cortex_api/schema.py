"""Build the CustomResourceDefinitions from the models: structural schemas, CEL rules, subresources, printer columns.

The schemas contain no defaults. Each program applies defaults when it parses a resource, so the stored object always equals the
object that the user applied.
"""

import ast
import functools
import inspect
import itertools
import textwrap
from typing import Any

from pydantic import BaseModel

from cortex_api.base import Model
from cortex_api.kinds import GROUP, VERSION, AsyncAPI, RealtimeAPI, Resource
from cortex_api.status import Status

_ALLOWED_KEYWORDS = {
    "type",
    "description",
    "properties",
    "required",
    "items",
    "enum",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
}


def crd(kind: type[RealtimeAPI] | type[AsyncAPI]) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind as a manifest."""
    name = kind.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural,
                "singular": name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["cortex"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _resource_schema(kind)},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": _columns(name),
                }
            ],
        },
    }


def _columns(kind: str) -> list[dict[str, Any]]:
    queued = {
        "name": "Queued",
        "type": "integer",
        "jsonPath": ".status.queue.queued",
        "description": "Number of queued jobs",
    }
    candidate = {
        "name": "Candidate",
        "type": "string",
        "jsonPath": ".status.candidate.phase",
        "description": "Phase of the candidate",
    }
    ready = '.status.conditions[?(@.type=="Ready")]'
    return [
        {"name": "Ready", "type": "string", "jsonPath": f"{ready}.status"},
        {"name": "Reason", "type": "string", "jsonPath": f"{ready}.reason"},
        {
            "name": "Replicas",
            "type": "integer",
            "jsonPath": ".status.readyReplicas",
            "description": "Number of ready pods",
        },
        *([queued] if kind == "AsyncAPI" else [candidate]),
        {"name": "URL", "type": "string", "jsonPath": ".status.url"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Message", "type": "string", "jsonPath": f"{ready}.message", "priority": 1},
    ]


def _resource_schema(kind: type[Resource]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": kind.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # The CEL rule on metadata.name needs this property.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": structural_schema(kind.model_fields["spec"].annotation),
            "status": structural_schema(Status),
        },
        "x-kubernetes-validations": _validations(kind),
    }


def structural_schema(model: Any) -> dict[str, Any]:
    """Return the structural schema of a model. Raises TypeError if the model has a type that it cannot express."""
    if not issubclass(model, BaseModel):
        raise TypeError(f"{model} is not a model")
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}), _models_by_name(model))


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each field of a model: the string below the field in the source."""
    merged: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Model):
            merged |= _own_descriptions(base)
    return merged


@functools.cache
def _own_descriptions(model: type[Model]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    result = {}
    for field, below in itertools.pairwise(definition.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            result[field.target.id] = inspect.cleandoc(below.value.value)
    return result


def _models_by_name(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return all subclasses of Model by class name. Names are unique and match the definitions of the JSON schema."""
    result: dict[str, type[BaseModel]] = {}
    pending: list[type[BaseModel]] = [Model, model]
    while pending:
        current = pending.pop()
        result[current.__name__] = current
        pending.extend(child for child in current.__subclasses__() if child.__name__ not in result)
    return result


def _convert(
    schema: dict[str, Any], definitions: dict[str, Any], models: dict[str, type[BaseModel]]
) -> dict[str, Any]:
    description = schema.get("description")
    if "x-partial" in schema:
        patch = _as_patch(structural_schema(models[schema["x-partial"]]))
        return {**patch, "description": " ".join(description.split())} if description else patch
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
        if len(choices) != 1:
            raise TypeError(f"a structural schema does not support unions: {schema}")
        return _convert(
            {**choices[0], **({"description": description} if description else {})}, definitions, models
        )

    result = {
        key: value
        for key, value in schema.items()
        if key in _ALLOWED_KEYWORDS or key.startswith("x-kubernetes-")
    }
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in schema:
            result[bound], result[exclusive] = schema[exclusive], True
    if "const" in schema:
        result["enum"] = [schema["const"]]
    titled = models.get(schema.get("title", ""))
    if "properties" in schema:
        described = {} if titled is None else _property_descriptions(titled)
        result["properties"] = {
            name: _convert({**child, **described.get(name, {})}, definitions, models)
            for name, child in schema["properties"].items()
        }
    if isinstance(schema.get("items"), dict):
        result["items"] = _convert(schema["items"], definitions, models)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict) and not result.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = _convert(extra, definitions, models)
    for bound in ("minimum", "maximum"):
        if bound in result and float(result[bound]).is_integer():
            result[bound] = int(result[bound])
    if result.get("description"):
        result["description"] = " ".join(result["description"].split())
    if titled is not None and (validations := _validations(titled)):
        result["x-kubernetes-validations"] = validations
    return result


def _as_patch(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a patch of an object: no field is required, and null removes a field.

    Rules apply to the merged object, so the patch has none.
    """
    dropped = ("required", "x-kubernetes-validations")
    result = {key: value for key, value in schema.items() if key not in dropped}
    if "properties" in schema:
        result["properties"] = {
            name: {**_as_patch(child), **({} if "enum" in child else {"nullable": True})}
            for name, child in schema["properties"].items()
        }
    if "additionalProperties" in schema:
        result["additionalProperties"] = {**schema["additionalProperties"], "nullable": True}
    return result


def _property_descriptions(model: type[BaseModel]) -> dict[str, dict[str, str]]:
    texts = descriptions(model)
    fields = model.model_fields.items()
    return {field.alias or name: {"description": texts[name]} for name, field in fields if name in texts}


def _validations(model: type[BaseModel]) -> list[dict[str, str]]:
    return [
        {"rule": rule.cel, "message": rule.message, **({"fieldPath": f".{rule.field}"} if rule.field else {})}
        for rule in getattr(model, "rules", ())
    ]
