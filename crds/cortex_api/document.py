"""The one JSON document that passes from the operator (or `cortex run`) to the runtime.

It holds what the runtime reads and nothing else, so a change of autoscaling, replicas or networking leaves it as it is.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cortex_api.kinds import KINDS, AsyncAPI, RealtimeAPI
from cortex_api.problems import InvalidManifest, Problem, parse

VERSION = "1"
_READ_BY_THE_RUNTIME = {"handler", "tracker", "compute", "queue", "webhook"}


@dataclass(frozen=True)
class Document:
    """An API as the runtime sees it.

    kind: RealtimeAPI or AsyncAPI. spec: the spec, defaults filled; what the runtime does not read has its default.
    """

    kind: str
    name: str
    namespace: str
    spec: Any

    @classmethod
    def of(cls, api: RealtimeAPI | AsyncAPI) -> Self:
        """The document of a resource."""
        return cls(api.kind, api.metadata.name, api.metadata.namespace, api.spec)

    def to_json(self) -> bytes:
        """The document as JSON (UTF-8), the same bytes for the same document.

        What has its default is left out, for the reader to fill in: so an operator that knows more fields than the runtime of
        an image gets on with it, and its upgrade replaces no pod.
        """
        spec = self.spec.model_dump(by_alias=True, include=_READ_BY_THE_RUNTIME, exclude_defaults=True)
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
        """The document in a file.

        Raises OSError when the file can't be read and InvalidManifest when it is no such document.
        """
        try:
            content = json.loads(Path(path).read_bytes())
        except ValueError as error:
            raise InvalidManifest([Problem("", f"{path} is not JSON: {error}")]) from error
        if (
            not isinstance(content, dict)
            or content.get("version") != VERSION
            or content.get("kind") not in KINDS
        ):
            raise InvalidManifest([Problem("", f"{path} is not a Cortex document of version {VERSION}")])
        metadata = {"name": content.get("name"), "namespace": content.get("namespace")}
        return cls.of(parse({"kind": content["kind"], "metadata": metadata, "spec": content.get("spec")}))
