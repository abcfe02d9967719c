"""Requests that the API server forwards: to ports of pods and services (subresource `proxy`), and to the node for logs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import aiohttp
from starlette.requests import Request
from starlette.responses import StreamingResponse

from cortex_devcluster.apiserver.errors import APIError
from cortex_devcluster.objects import Object, nested

_NAME = re.compile(r"^(?:(?P<scheme>https?):)?(?P<name>[^:]+)(?::(?P<port>[^:]*))?$")
_HOP_BY_HOP = {"host", "connection", "authorization", "transfer-encoding", "content-length", "keep-alive"}


def split_name_and_port(name: str) -> tuple[str, str]:
    """Split "[scheme:]name[:port]", as in the paths of proxy subresources; the port is "" if absent. Raises APIError."""
    found = _NAME.match(name)
    if found is None or found["scheme"] == "https":
        raise APIError(400, f'invalid proxy request "{name}"')
    return found["name"], found["port"] or ""


def pod_url(pod: Object, port: str) -> str:
    """Return the URL of a port (number, name or "" for the first) of a pod. Raises APIError."""
    address = nested(pod, "status.podIP")
    if not address:
        raise APIError(400, f"pod {pod['metadata']['name']} does not have an IP address")
    ports = [p for c in pod["spec"]["containers"] for p in c.get("ports") or ()]
    if not port:
        port = str(ports[0]["containerPort"]) if ports else "80"
    named = next((p["containerPort"] for p in ports if p.get("name") == port), None)
    return f"http://{address}:{named or port}"


def service_url(service: Object, port: str) -> str:
    """Return the URL of a port (number, name or "" for the only one) of a service. Raises APIError."""
    ports = nested(service, "spec.ports") or []
    found = [p for p in ports if port in (p.get("name"), str(p["port"]))] if port else ports
    if len(found) != 1:
        raise APIError(503, f'no endpoints available for service "{service["metadata"]["name"]}"')
    return f"http://{nested(service, 'spec.clusterIP')}:{found[0]['port']}"


async def forward(request: Request, url: str) -> StreamingResponse:
    """Send the request to another server and stream its response. Raises APIError (503) if it cannot be reached."""
    headers = [(k, v) for k, v in request.headers.items() if k not in _HOP_BY_HOP]
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False)
    try:
        upstream = await session.request(
            request.method,
            url,
            params=list(request.query_params.multi_items()),
            headers=headers,
            data=await request.body() or None,
            allow_redirects=False,
        )
    except aiohttp.ClientError as error:
        await session.close()
        raise APIError(503, f"error trying to reach service: {error}") from error

    async def chunks() -> AsyncIterator[bytes]:
        try:
            async for chunk in upstream.content.iter_any():
                yield chunk
        except aiohttp.ClientError:
            return  # The connection broke; the response ends here.
        finally:
            await session.close()

    response = StreamingResponse(chunks(), upstream.status)
    response.raw_headers = [
        (k.lower().encode(), v.encode())
        for k, v in upstream.headers.items()
        if k.lower() not in _HOP_BY_HOP or k.lower() == "content-length"
    ]
    return response
