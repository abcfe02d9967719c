"""JSON Schemas of type hints, as the runtime reads and writes values of these types.

pydantic writes the schemas, msgspec those of its Structs. A hint that neither knows has the schema of any value.
"""

import sys
from collections.abc import AsyncIterable, Iterable
from typing import Any, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, PydanticOmit

from cortex_runtime.handler.payload_type import kinds_of, with_supported_dicts

Schema = dict[str, Any]
COMPONENTS = "#/components/schemas/"
_TEMPLATE = COMPONENTS + "{model}"


class _Generator(GenerateJsonSchema):
    """Describes results as http/json_encoder.py writes them, and unknown types as any value."""

    @property
    def by_alias(self) -> bool:
        """Whether fields have the names of their aliases: payloads are validated with them, and results written without."""
        return self.mode == "validation"

    @by_alias.setter
    def by_alias(self, value: bool) -> None:
        """Do nothing."""

    def decimal_schema(self, schema: Any) -> Schema:
        return {"type": "number"} if self.mode == "serialization" else super().decimal_schema(schema)

    def bytes_schema(self, schema: Any) -> Schema:
        if self.mode == "validation":
            return super().bytes_schema(schema)
        content = {"type": "string", "contentEncoding": "base64"}
        return {"type": "object", "properties": {"b64": content}, "required": ["b64"]}

    def float_schema(self, schema: Any) -> Schema:
        described = super().float_schema(schema)
        if self.mode == "serialization":
            # NaN and the infinities.
            described["type"] = ["number", "null"]
        return described

    def default_schema(self, schema: Any) -> Schema:
        if self.mode == "validation":
            return super().default_schema(schema)
        # A result has a value of its own, and JSON may write the default in another way than pydantic.
        return self.generate_inner(schema["schema"])

    def is_instance_schema(self, schema: Any) -> Schema:
        return {"type": "array", "items": {}} if hasattr(schema["cls"], "tolist") else {}

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        return {}


class Schemas:
    """Collects type hints, and writes their schemas together, so that each named type has one component.

    `add` returns a dictionary that `finish` fills with the schema.
    """

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}
        self._adapters: list[tuple[int, JsonSchemaMode, TypeAdapter[Any]]] = []
        self._structs: list[Any] = []
        self._targets: list[Schema] = []
        self._struct_targets: list[Schema] = []

    def add(self, hint: Any, is_result: bool) -> Schema:
        """Return the schema of a hint. It is complete after `finish`."""
        target: Schema = {}
        if hint is None:
            return target
        if "msgspec" in kinds_of(hint):
            self._structs.append(hint)
            self._struct_targets.append(target)
            return target
        mode: JsonSchemaMode = "serialization" if is_result else "validation"
        adapter = _adapter(hint)
        if adapter is not None and _can_describe(adapter, mode):
            self._adapters.append((len(self._targets), mode, adapter))
            self._targets.append(target)
        return target

    def finish(self) -> None:
        """Write the schemas and the components."""
        if self._adapters:
            found, shared = TypeAdapter.json_schemas(
                self._adapters, ref_template=_TEMPLATE, schema_generator=_Generator
            )
            for (key, _), schema in found.items():
                self._targets[key].update(schema)
            self.components.update(shared.get("$defs", {}))
        if self._structs:
            described, components = sys.modules["msgspec"].json.schema_components(
                self._structs, ref_template=COMPONENTS + "{name}"
            )
            for target, schema in zip(self._struct_targets, described, strict=True):
                target.update(schema)
            for name, schema in components.items():
                self.components.setdefault(name, schema)


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        hint = with_supported_dicts(hint)
        try:
            return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:
            # A model, which has a configuration of its own.
            return TypeAdapter(hint)
    except Exception:
        # The hint is documentation here: whether it can be validated is checked at start, if it has to be.
        return None


def _can_describe(adapter: TypeAdapter[Any], mode: JsonSchemaMode) -> bool:
    try:
        adapter.json_schema(mode=mode, ref_template=_TEMPLATE, schema_generator=_Generator)
    except (PydanticUserError, PydanticSchemaGenerationError, PydanticOmit, TypeError, ValueError):
        return False
    return True


def item_of(hint: Any) -> Any:
    """Return X of a hint like Iterator[X] or AsyncGenerator[X, None]; None for any other hint."""
    origin = get_origin(hint) or hint
    is_iterator = isinstance(origin, type) and (
        (issubclass(origin, Iterable) and hasattr(origin, "__next__"))
        or (issubclass(origin, AsyncIterable) and hasattr(origin, "__anext__"))
    )
    if not is_iterator:
        return None
    arguments = get_args(hint)
    return arguments[0] if arguments else Any
