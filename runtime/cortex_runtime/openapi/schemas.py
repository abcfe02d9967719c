"""JSON Schemas of type hints, as the runtime reads and writes values of these types.

pydantic writes the schemas (pydantic_schemas.py, imported for the first hint), msgspec those of its Structs. A hint that neither
knows has the schema of any value.
"""

import sys
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, get_args, get_origin

from cortex_runtime.handler.payload_type import kinds_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic.json_schema import JsonSchemaMode

Schema = dict[str, Any]
COMPONENTS = "#/components/schemas/"


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
        from cortex_runtime.openapi import pydantic_schemas

        mode: JsonSchemaMode = "serialization" if is_result else "validation"
        adapter = pydantic_schemas.adapter(hint, mode)
        if adapter is not None:
            self._adapters.append((len(self._targets), mode, adapter))
            self._targets.append(target)
        return target

    def finish(self) -> None:
        """Write the schemas and the components."""
        if self._adapters:
            from cortex_runtime.openapi import pydantic_schemas

            found, shared = pydantic_schemas.write(self._adapters, COMPONENTS)
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
