"""JSON Schemas that pydantic writes, as the runtime reads and writes values of these types. Imported for the first type hint."""

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, PydanticOmit

from cortex_runtime.handler.payload_type import with_supported_dicts

Schema = dict[str, Any]


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


def adapter(hint: Any, mode: JsonSchemaMode) -> TypeAdapter[Any] | None:
    """Return what describes a type hint; None if pydantic does not know it."""
    found = _adapter(hint)
    return found if found is not None and _can_describe(found, mode) else None


def write(
    adapters: Sequence[tuple[int, JsonSchemaMode, TypeAdapter[Any]]], prefix: str
) -> tuple[dict[tuple[int, JsonSchemaMode], Schema], Schema]:
    """Return the schemas by key and mode, and the definitions that they share. prefix: of references to these."""
    return TypeAdapter.json_schemas(adapters, ref_template=prefix + "{model}", schema_generator=_Generator)


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
        adapter.json_schema(mode=mode, schema_generator=_Generator)
    except (PydanticUserError, PydanticSchemaGenerationError, PydanticOmit, TypeError, ValueError):
        return False
    return True
