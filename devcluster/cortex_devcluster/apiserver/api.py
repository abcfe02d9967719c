"""The HTTP routes of the API server: parse the request, call the registry, return JSON.

It has the routes that kubectl, helm, kopf and the Kubernetes clients use. It has no authentication: every request is allowed, so
it must listen on loopback only.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from cortex_devcluster.apiserver import discovery, forwarding, portforward, tables, watches
from cortex_devcluster.apiserver.errors import APIError
from cortex_devcluster.apiserver.registry import Registry
from cortex_devcluster.apiserver.requests import (
    Target,
    accept_header,
    apply_patch,
    parse_body,
    parse_selectors,
    requested_version,
    write_options,
)
from cortex_devcluster.apiserver.resources import Resource
from cortex_devcluster.apiserver.scale import object_with_scale, scale_from_object
from cortex_devcluster.objects import Object, nested

VERSION = {"major": "1", "minor": "37", "gitVersion": "v1.37.0+cortex-dev", "platform": "linux/amd64"}
OPENAPI_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class APIServer:
    """The Starlette application (`app`) that serves one registry."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.app = Starlette(
            routes=[
                Route("/api", self._versions),
                Route("/apis", self._groups),
                Route("/api/v1", self._resources),
                Route("/apis/{group}/{version}", self._resources),
                Route("/version", lambda request: json_response(VERSION)),
                Route("/version/", lambda request: json_response(VERSION)),
                *(Route(path, lambda request: Response("ok")) for path in ("/healthz", "/livez", "/readyz")),
                # kubectl validates a `kind: List` with this document. It has no schemas, so that only the server validates.
                Route("/openapi/v2", lambda request: Response(b"", media_type=OPENAPI_V2)),
                Route("/openapi/v3", lambda request: json_response(discovery.openapi_index(registry.kinds))),
                Route("/openapi/v3/{prefix}/{path:path}", self._openapi),
                WebSocketRoute("/api/v1/namespaces/{namespace}/pods/{name}/portforward", self._forward_ports),
                Route("/api/v1/{path:path}", self._dispatch, methods=METHODS),
                Route("/apis/{group}/{version}/{path:path}", self._dispatch, methods=METHODS),
            ],
            exception_handlers={APIError: error_response, 404: _unknown_path},
        )

    async def _forward_ports(self, socket: WebSocket) -> None:
        await portforward.forward_ports(socket, self.registry)

    async def _versions(self, request: Request) -> Response:
        return self._aggregated(request, core=True) or json_response(discovery.core_versions())

    async def _groups(self, request: Request) -> Response:
        return self._aggregated(request, core=False) or json_response(
            discovery.group_list(self.registry.kinds)
        )

    def _aggregated(self, request: Request, core: bool) -> Response | None:
        requested = re.search(
            r"g=apidiscovery\.k8s\.io;v=(v2(?:beta1)?);as=APIGroupDiscoveryList", accept_header(request)
        )
        if not requested:
            return None
        found = discovery.aggregated(self.registry.kinds, core, requested[1])
        media = f"application/json;g=apidiscovery.k8s.io;v={requested[1]};as=APIGroupDiscoveryList"
        return Response(orjson.dumps(found), media_type=media)

    async def _resources(self, request: Request) -> Response:
        group, version = requested_version(request)
        if version not in self.registry.kinds.groups().get(group, {}):
            raise APIError(404, "the server could not find the requested resource")
        return json_response(discovery.resource_list(self.registry.kinds, group, version))

    async def _openapi(self, request: Request) -> Response:
        parts = request.path_params["path"].split("/")
        group, version = ("", parts[0]) if request.path_params["prefix"] == "api" else (parts[0], parts[-1])
        if version not in self.registry.kinds.groups().get(group, {}):
            raise APIError(404, "the server could not find the requested resource")
        return json_response(discovery.openapi(self.registry.kinds, group, version))

    async def _dispatch(self, request: Request) -> Response:
        group, version = requested_version(request)
        target = Target(self.registry, group, version, request.path_params["path"])
        if target.sub.split("/")[0] == "proxy" and target.resource.key in ("/pods", "/services"):
            return await self._proxy(request, target)
        if target.sub in ("log", "binding", "finalize"):
            return await self._special(request, target)
        if target.sub and target.sub not in target.resource.subresources:
            raise APIError(404, "the server could not find the requested resource")
        if target.sub == "scale":
            return await self._scale(request, target)
        if request.method == "GET":
            return self._read(request, target)
        if request.method == "DELETE":
            return await self._delete(request, target)
        return await self._write(request, target)

    def _read(self, request: Request, target: Target) -> Response:
        query = request.query_params
        match = parse_selectors(query)
        if query.get("watch") in ("true", "1"):
            stream = watches.Watch.from_request(
                target.resource, target.namespace, match, query, accept_header(request)
            )
            return StreamingResponse(stream.events(self.registry.store), media_type="application/json")
        include = query.get("includeObject", "Metadata")
        if target.name:
            obj = self.registry.get(target.resource, target.namespace, target.name)
            if watches.wants_table(accept_header(request)):
                meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
                return json_response(tables.table(target.resource, [obj], meta, include))
            return json_response(obj)
        found = [obj for obj in self.registry.store.list(target.resource.key, target.namespace) if match(obj)]
        found, meta = paginate(found, query, self.registry.store.version)
        if watches.wants_table(accept_header(request)):
            return json_response(tables.table(target.resource, found, meta, include))
        kind, version = f"{target.resource.kind}List", target.resource.api_version
        return json_response(
            {
                "kind": kind,
                "apiVersion": version,
                "metadata": meta,
                "items": self._versioned(found, target.resource),
            }
        )

    @staticmethod
    def _versioned(found: list[Object], resource: Resource) -> list[Object]:
        version = resource.api_version
        return [obj if obj["apiVersion"] == version else {**obj, "apiVersion": version} for obj in found]

    async def _write(self, request: Request, target: Target) -> Response:
        write, resource = write_options(request, target), target.resource
        if request.method == "POST":
            content = await parse_body(request)
            warnings = self.registry.check_unknown_fields(resource, content, write)
            space = target.namespace or (
                (content.get("metadata") or {}).get("namespace") if resource.namespaced else ""
            )
            return self._object_response(
                request, target, self.registry.create(resource, space or "", content, write), warnings, 201
            )
        if request.method == "PUT":
            content = await parse_body(request)
            warnings = self.registry.check_unknown_fields(resource, content, write)
            return self._object_response(
                request,
                target,
                self.registry.update(resource, target.namespace, target.name, content, write),
                warnings,
            )
        kind = request.headers.get("content-type", "").split(";")[0]
        content = await parse_body(request)
        if kind == "application/apply-patch+yaml":
            obj, created = self.registry.apply(resource, target.namespace, target.name, content, write)
            return self._object_response(request, target, obj, [], 201 if created else 200)
        old = self.registry.get(resource, target.namespace, target.name)
        new = apply_patch(old, content, kind, resource)
        warnings = self.registry.check_unknown_fields(resource, new, write)
        if nested(new, "metadata.resourceVersion") == nested(old, "metadata.resourceVersion"):
            new = {**new, "metadata": {k: v for k, v in new["metadata"].items() if k != "resourceVersion"}}
        obj = self.registry.update(resource, target.namespace, target.name, new, write)
        return self._object_response(request, target, obj, warnings)

    @staticmethod
    def _object_response(
        request: Request, target: Target, obj: Object, warnings: list[str], code: int = 200
    ) -> Response:
        if watches.wants_table(accept_header(request)):
            obj = tables.table(
                target.resource, [obj], {}, request.query_params.get("includeObject", "Metadata")
            )
        response = json_response(obj, code)
        for warning in warnings:
            response.headers.append("Warning", "299 - " + json.dumps(warning))
        return response

    async def _delete(self, request: Request, target: Target) -> Response:
        options = {**(await parse_body(request, optional=True))}
        for name in ("gracePeriodSeconds", "propagationPolicy", "dryRun"):
            if name in request.query_params:
                options[name] = request.query_params[name]
        resource = target.resource
        if target.name:
            obj, gone = self.registry.delete(resource, target.namespace, target.name, options)
            if not gone or resource.kind in ("Pod", "Namespace"):
                return json_response(obj)
            details = {
                "name": target.name,
                "group": resource.group,
                "kind": resource.plural,
                "uid": obj["metadata"]["uid"],
            }
            return json_response(
                {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "metadata": {},
                    "status": "Success",
                    "details": details,
                }
            )
        match = parse_selectors(request.query_params)
        found = [obj for obj in self.registry.store.list(resource.key, target.namespace) if match(obj)]
        for obj in found:
            self.registry.delete(
                resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], options
            )
        meta = {"resourceVersion": str(self.registry.store.version)}
        return json_response(
            {
                "kind": f"{resource.kind}List",
                "apiVersion": resource.api_version,
                "metadata": meta,
                "items": found,
            }
        )

    async def _scale(self, request: Request, target: Target) -> Response:
        obj = self.registry.get(target.resource, target.namespace, target.name)
        if request.method == "GET":
            return json_response(scale_from_object(obj, target.resource))
        content = await parse_body(request)
        if request.method == "PATCH":
            content = apply_patch(
                scale_from_object(obj, target.resource),
                content,
                request.headers["content-type"].split(";")[0],
                target.resource,
            )
        write = write_options(request, target)
        new = object_with_scale(obj, content, target.resource)
        return json_response(
            scale_from_object(
                self.registry.update(target.resource, target.namespace, target.name, new, write),
                target.resource,
            )
        )

    async def _special(self, request: Request, target: Target) -> Response:
        if target.sub == "log" and target.plural == "pods":
            return await self._log(request, target)
        content = await parse_body(request)
        if target.sub == "binding" and target.plural == "pods":
            self.registry.bind(target.namespace, target.name, content)
            return json_response(
                {"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}, 201
            )
        if target.sub == "finalize" and target.plural == "namespaces":
            return json_response(self.registry.finalize_namespace(target.name, content))
        raise APIError(404, "the server could not find the requested resource")

    async def _log(self, request: Request, target: Target) -> Response:
        """Forward the request to the node of the pod."""
        pod = self.registry.get(target.resource, target.namespace, target.name)
        names = [c["name"] for c in [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]]
        container = request.query_params.get("container") or (
            names[-1] if len(pod["spec"]["containers"]) == 1 else ""
        )
        if not container:
            raise APIError(
                400, f"a container name must be specified for pod {target.name}, choose one of: {names}"
            )
        if container not in names:
            raise APIError(400, f"container {container} is not valid for pod {target.name}")
        node = self.registry.store.get("/nodes", "", nested(pod, "spec.nodeName") or "")
        port = nested(node, "status.daemonEndpoints.kubeletEndpoint.Port") if node else None
        if not port:
            raise APIError(400, f"pod {target.name} does not have a host assigned")
        host = nested(node, "status.addresses")[0]["address"]
        url = f"http://{host}:{port}/containerLogs/{target.namespace}/{target.name}/{container}"
        answer = await forwarding.forward(request, url)
        if answer.status_code != 200:
            chunks = [chunk if isinstance(chunk, bytes) else b"" async for chunk in answer.body_iterator]
            raise APIError(answer.status_code, b"".join(chunks).decode())
        return answer

    async def _proxy(self, request: Request, target: Target) -> Response:
        """Forward the request to a port of a pod or a service."""
        name, port = forwarding.split_name_and_port(target.name)
        obj = self.registry.get(target.resource, target.namespace, name)
        base = (forwarding.pod_url if target.plural == "pods" else forwarding.service_url)(obj, port)
        # The path as sent: a trailing slash is significant.
        _, _, path = request.url.path.partition(f"/{target.name}/proxy")
        return await forwarding.forward(request, base + (path or "/"))


def json_response(content: Any, code: int = 200) -> Response:
    return Response(orjson.dumps(content), status_code=code, media_type="application/json")


async def error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return json_response(error.status(), error.code)


async def _unknown_path(request: Request, error: Exception) -> Response:
    return await error_response(request, APIError(404, "the server could not find the requested resource"))


def paginate(found: list[Object], query: Any, version: int) -> tuple[list[Object], Object]:
    """Return the page of a list that `limit` and `continue` select, and its metadata."""
    start = int(query.get("continue") or 0)
    limit = int(query.get("limit") or 0) or len(found)
    meta: Object = {"resourceVersion": str(version)}
    if start + limit < len(found):
        meta |= {"continue": str(start + limit), "remainingItemCount": len(found) - start - limit}
    return found[start : start + limit], meta
