"""Parse requests: the target of the path, the body, patches, write options and selectors."""

from __future__ import annotations

from typing import Any

import jsonpatch
import orjson
from starlette.requests import Request

from cortex_devcluster.apiserver import patch, protobuf
from cortex_devcluster.apiserver.errors import APIError
from cortex_devcluster.apiserver.registry import Registry, WriteOptions
from cortex_devcluster.apiserver.resources import Resource
from cortex_devcluster.objects import Object
from cortex_devcluster.selectors import Matcher, fields, labels


class Target:
    """The kind, namespace, name and subresource that a path names; "" where it names none. Raises APIError (404)."""

    def __init__(self, registry: Registry, group: str, version: str, path: str) -> None:
        parts = [part for part in path.split("/") if part]
        self.namespace = ""
        if parts[:1] == ["namespaces"] and len(parts) >= 3 and parts[2] not in ("status", "finalize"):
            self.namespace, parts = parts[1], parts[2:]
        self.plural = parts[0] if parts else ""
        self.name = parts[1] if len(parts) > 1 else ""
        self.sub = "/".join(parts[2:])
        found = registry.kinds.find(group, version, self.plural)
        if found is None or (self.name and found.namespaced and not self.namespace):
            raise APIError(404, "the server could not find the requested resource")
        self.resource: Resource = found


def write_options(request: Request, target: Target) -> WriteOptions:
    """Return the field manager and options of a write. Raises APIError (422) for an apply patch without a field manager."""
    query = request.query_params
    apply = request.headers.get("content-type", "").startswith("application/apply-patch")
    if apply and not query.get("fieldManager"):
        raise APIError(
            422,
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
        )
    agent = request.headers.get("user-agent", "unknown").split("/")[0]
    return WriteOptions(
        query.get("fieldManager") or agent,
        query.get("fieldValidation") or "Warn",
        bool(query.get("dryRun")),
        target.sub,
        apply,
        query.get("force") == "true",
    )


async def parse_body(request: Request, optional: bool = False) -> Any:
    """Return the body, which must be JSON or protobuf. Raises APIError."""
    raw = await request.body()
    if not raw and optional:
        return {}
    kind = request.headers.get("content-type", "application/json")
    if "protobuf" in kind:
        try:
            return protobuf.decode(raw)
        except protobuf.DecodeError as error:
            raise APIError(415, f"the body of the request was in an unknown format - {error}") from error
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise APIError(400, f"invalid JSON in the body of the request: {error}") from error


def apply_patch(old: Object, content: Any, kind: str, resource: Resource) -> Object:
    """Return the object with a patch applied. Raises APIError: 422 if the patch fails, 415 if its format is not supported."""
    try:
        if kind == "application/json-patch+json":
            return dict(jsonpatch.apply_patch(old, content))
        if kind == "application/merge-patch+json":
            return dict(patch.merge(old, content))
        if kind == "application/strategic-merge-patch+json" and resource.schema is None:
            return dict(patch.strategic(old, content))
    except (patch.PatchError, jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise APIError(
            422, f"the server rejected our request due to an error in our request: {error}"
        ) from error
    raise APIError(
        415,
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    )


def parse_selectors(query: Any) -> Matcher:
    """Return a function that matches `labelSelector` and `fieldSelector`. Raises APIError (400)."""
    try:
        by_label, by_field = labels(query.get("labelSelector", "")), fields(query.get("fieldSelector", ""))
    except ValueError as error:
        raise APIError(400, str(error)) from error
    return lambda obj: by_label(obj) and by_field(obj)


def accept_header(request: Request) -> str:
    """Return the Accept header."""
    return request.headers.get("accept", "")


def requested_version(request: Request) -> tuple[str, str]:
    """Return the API group ("" for the core group) and version of the path."""
    return request.path_params.get("group", ""), request.path_params.get("version", "v1")
