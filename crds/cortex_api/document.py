"""The JSON document that the operator (or `cortex run`) passes to the runtime.

It contains only the fields that the runtime reads. A change of autoscaling, replicas or networking does not change it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cortex_api.handler import RealtimeHandler, ServerSideBatching
from cortex_api.kinds import KINDS, AsyncAPI, AsyncSpec, RealtimeAPI, RealtimeSpec
from cortex_api.parsing import InvalidManifest, Problem, parse

VERSION = "1"
_RUNTIME_FIELDS = {"handler", "tracker", "compute", "queue", "webhook"}


@dataclass(frozen=True)
class Document:
    """The part of an API that the runtime reads.

    kind: RealtimeAPI or AsyncAPI.
    spec: the spec with defaults; fields that the runtime does not read have their default values.
    """

    kind: str
    name: str
    namespace: str
    spec: RealtimeSpec | AsyncSpec

    @classmethod
    def of(cls, api: RealtimeAPI | AsyncAPI) -> Self:
        """Return the document of a resource."""
        return cls(api.kind, api.metadata.name, api.metadata.namespace, api.spec)

    @property
    def realtime_spec(self) -> RealtimeSpec:
        """The spec of a RealtimeAPI. Raises TypeError for an AsyncAPI."""
        if not isinstance(self.spec, RealtimeSpec):
            raise TypeError(f"{self.name} is of kind {self.kind}")
        return self.spec

    @property
    def async_spec(self) -> AsyncSpec:
        """The spec of an AsyncAPI. Raises TypeError for a RealtimeAPI."""
        if not isinstance(self.spec, AsyncSpec):
            raise TypeError(f"{self.name} is of kind {self.kind}")
        return self.spec

    @property
    def batching(self) -> ServerSideBatching | None:
        """`handler.serverSideBatching`; None without it, and for an AsyncAPI."""
        handler = self.spec.handler
        return handler.server_side_batching if isinstance(handler, RealtimeHandler) else None

    def to_json(self) -> bytes:
        """Return the document as UTF-8 JSON; equal documents have equal bytes.

        Fields with default values are omitted. A newer operator therefore works with an older runtime image as long as its new
        fields are not used, and an operator upgrade does not restart pods.
        """
        spec = self.spec.model_dump(by_alias=True, include=_RUNTIME_FIELDS, exclude_defaults=True)
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

        Raises OSError if the file cannot be read and InvalidManifest if its content is not a valid document.
        """
        try:
            content = json.loads(Path(path).read_bytes())
        except ValueError as error:
            raise InvalidManifest([Problem("", f"{path} is not valid JSON: {error}")]) from error
        if (
            not isinstance(content, dict)
            or content.get("version") != VERSION
            or content.get("kind") not in KINDS
        ):
            raise InvalidManifest([Problem("", f"{path} is not a Cortex document of version {VERSION}")])
        metadata = {"name": content.get("name"), "namespace": content.get("namespace")}
        return cls.of(parse({"kind": content["kind"], "metadata": metadata, "spec": content.get("spec")}))
