"""The JSON document that the operator (or `cortex run`) passes to the runtime.

It contains only the fields that the runtime reads. A change of autoscaling, replicas or networking does not change it.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self, cast

from cortex_api.spec_fields import FIELDS, Field

if TYPE_CHECKING:
    from cortex_api.handler import ServerSideBatching
    from cortex_api.kinds import AsyncAPI, AsyncSpec, RealtimeAPI, RealtimeSpec

VERSION = "1"
RUNTIME_FIELDS = {"handler", "tracker", "tracing", "payload_logging", "compute", "queue", "webhook"}
"""The fields of a spec that are in a document."""


@dataclass(frozen=True)
class Document:
    """The part of an API that the runtime reads.

    kind: RealtimeAPI or AsyncAPI.
    spec: the spec with defaults. After `read`, it has only the fields that the runtime reads.
    """

    kind: str
    name: str
    namespace: str
    spec: "RealtimeSpec | AsyncSpec"

    @classmethod
    def of(cls, api: "RealtimeAPI | AsyncAPI") -> Self:
        """Return the document of a resource."""
        return cls(api.kind, api.metadata.name, api.metadata.namespace, api.spec)

    @property
    def realtime_spec(self) -> "RealtimeSpec":
        """The spec of a RealtimeAPI. Raises TypeError for an AsyncAPI."""
        if self.kind != "RealtimeAPI":
            raise TypeError(f"{self.name} is of kind {self.kind}")
        return cast("RealtimeSpec", self.spec)

    @property
    def async_spec(self) -> "AsyncSpec":
        """The spec of an AsyncAPI. Raises TypeError for a RealtimeAPI."""
        if self.kind != "AsyncAPI":
            raise TypeError(f"{self.name} is of kind {self.kind}")
        return cast("AsyncSpec", self.spec)

    @property
    def batching(self) -> "ServerSideBatching | None":
        """`handler.serverSideBatching`; None without it, and for an AsyncAPI."""
        return self.realtime_spec.handler.server_side_batching if self.kind == "RealtimeAPI" else None

    def to_json(self) -> bytes:
        """Return the document as UTF-8 JSON; equal documents have equal bytes.

        Fields with default values are omitted. A newer operator therefore works with an older runtime image as long as its new
        fields are not used, and an operator upgrade does not restart pods.
        """
        spec = self.spec.model_dump(by_alias=True, include=RUNTIME_FIELDS, exclude_defaults=True)
        if "queue" in spec:
            spec["queue"].pop("deletionPolicy", None)
        if spec.get("queue") == {}:
            del spec["queue"]
        content = {
            "version": VERSION,
            "kind": self.kind,
            "name": self.name,
            "namespace": self.namespace,
            "spec": spec,
        }
        return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False).encode()

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a document from a file.

        The models have validated the document before it was written, so they are not imported here: that would take longer than
        most of what a worker process does at start. They are used where the document is not what they write.
        Raises OSError if the file cannot be read and InvalidManifest if its content is not a valid document.
        """
        try:
            content = json.loads(Path(path).read_bytes())
            if content["version"] == VERSION:
                spec = _read("model", content["kind"], content["spec"])
                name, namespace = (_read("str", None, content[key]) for key in ("name", "namespace"))
                return cls(content["kind"], name, namespace, spec)
        except (ValueError, TypeError, LookupError):
            pass
        return cls._parse(path)

    @classmethod
    def _parse(cls, path: Path | str) -> Self:
        """Read a document with the models, which report what is wrong."""
        from cortex_api.parsing import InvalidManifest, Problem, parse

        try:
            content = json.loads(Path(path).read_bytes())
        except ValueError as error:
            raise InvalidManifest([Problem("", f"{path} is not valid JSON: {error}")]) from error
        if (
            not isinstance(content, dict)
            or content.get("version") != VERSION
            or content.get("kind") not in FIELDS
        ):
            raise InvalidManifest([Problem("", f"{path} is not a Cortex document of version {VERSION}")])
        metadata = {"name": content.get("name"), "namespace": content.get("namespace")}
        return cls.of(parse({"kind": content["kind"], "metadata": metadata, "spec": content.get("spec")}))


class _Unexpected(ValueError):
    """A value that the models may not have written."""


def _read(kind: str, argument: Any, value: Any) -> Any:
    """Return the value of a field. Raises _Unexpected. kind, argument: see spec_fields.py."""
    if kind == "model":
        return _read_model(FIELDS[argument], value)
    if kind == "models" and type(value) is list:
        return [_read_model(FIELDS[argument], each) for each in value]
    if value not in argument if kind == "choice" else type(value).__name__ != kind:
        raise _Unexpected
    return value


def _read_model(fields: dict[str, Field], content: Any) -> SimpleNamespace:
    if type(content) is not dict or not content.keys() <= fields.keys():
        raise _Unexpected
    found = SimpleNamespace()
    for name, (attribute, kind, argument, default) in fields.items():
        if name in content:
            value = _read(kind, argument, content[name])
        elif default is ...:
            raise _Unexpected
        elif default is None:
            value = None
        else:
            value = _read(kind, argument, copy.copy(default))
        setattr(found, attribute, value)
    return found
