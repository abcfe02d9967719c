"""The protocol over HTTP: an ASGI application for the paths below /v2, which raises errors for the caller to send."""

from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from cortex_runtime.errors import HttpError, UserError
from cortex_runtime.http import response
from cortex_runtime.http.request_body import read_body, require_method
from cortex_runtime.inference import rest
from cortex_runtime.inference.messages import InferRequest, InferResponse
from cortex_runtime.inference.service import InferenceService, convert

PREFIX = "/v2"
CODINGS = (b"gzip", b"deflate")
"""The values of Accept-Encoding with which a response is compressed. Only a client that asks for one coding gets it. HTTP
libraries offer several with every request, and compressing each tensor for them would take longer than sending it."""


class Routes:
    """The application. max_body: bytes of a request body, before and after decompression. timeout: seconds for it to arrive."""

    def __init__(self, service: InferenceService, max_body: int, timeout: float) -> None:
        self._service = service
        self._max_body = max_body
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises HttpError, and what an inference raises."""
        path = scope["path"]
        parts = path[len(PREFIX) :].strip("/").split("/")
        service, kind = self._service, parts[0]
        if kind == "models" and len(parts) > 1 and parts[1]:
            name, version, action = _model(parts[1:], path)
            if action == "infer":
                require_method(scope, "POST")
                await self._infer(name, version, scope, receive, send)
                return
            require_method(scope, "GET")
            if action == "ready":
                ready = service.model_ready(name, version)
                await _send(send, {"name": name, "ready": ready}, 200 if ready else 503)
            else:
                await _send(send, await service.model_metadata(name, version))
        elif parts == [""]:
            require_method(scope, "GET")
            await _send(send, service.server_metadata())
        elif parts == ["health", "live"]:
            require_method(scope, "GET")
            await _send(send, {"live": True})
        elif parts == ["health", "ready"]:
            require_method(scope, "GET")
            await _send(send, {"ready": not service.draining}, 503 if service.draining else 200)
        elif kind == "repository" and service.has_repository:
            await self._repository(parts[1:], scope, receive, send)
        else:
            raise _not_found(path)

    async def _infer(self, name: str, version: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        body = await self._body(headers, receive)
        length = headers.get(rest.HEADER_LENGTH)
        request = await convert(len(body), rest.decode, name, version, body, length)
        answer = await self._service.infer(request, receive)
        encoding = headers.get(b"accept-encoding", b"").strip().lower()
        kind, content, more = await convert(answer.size, _encode, answer, request, encoding)
        await response.send(send, 200, kind, content, more)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        return await read_body(receive, headers, self._max_body, self._timeout)

    async def _repository(self, parts: list[str], scope: Scope, receive: Receive, send: Send) -> None:
        is_model = len(parts) == 3 and parts[0] == "models" and parts[2] in ("load", "unload")
        if parts != ["index"] and not is_model:
            raise _not_found(scope["path"])
        require_method(scope, "POST")
        body = await self._body(dict(scope["headers"]), receive)
        try:
            given = orjson.loads(body) if body.strip() else {}
        except ValueError as error:
            raise UserError(f"the request is not valid JSON: {error}") from error
        if not isinstance(given, dict):
            raise UserError("the request must be a JSON object")
        if not is_model:
            only_ready = given.get("ready", False)
            if not isinstance(only_ready, bool):
                raise UserError(f"ready must be true or false; got {only_ready!r:.40}")
            await _send(send, self._service.repository_index(only_ready))
            return
        parameters = given.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise UserError("parameters must be an object")
        if parts[2] == "load":
            await self._service.load(parts[1], parameters)
        else:
            await self._service.unload(parts[1])
        await _send(send, {})


def _encode(
    answer: InferResponse, request: InferRequest, encoding: bytes
) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """Return content type, body and further headers of a response. encoding: what the client accepts."""
    kind, length, content = rest.encode(answer, request)
    more = [] if length is None else [(rest.HEADER_LENGTH, length)]
    if encoding in CODINGS:
        from cortex_runtime import compression

        more.append((b"content-encoding", encoding))
        content = compression.compress(content, encoding)
    return kind, content, more


def parse_path(path: bytes) -> tuple[str, str] | None:
    """Return name and version of the model of an inference at a path as it is in a request; None for any other path."""
    if not path.startswith(b"/v2/models/") or not path.endswith(b"/infer") or b"%" in path:
        return None
    try:
        text = path.decode("ascii")
        name, version, action = _model(text[len(PREFIX) :].strip("/").split("/")[1:], text)
    except (HttpError, ValueError, IndexError):
        return None
    return (name, version) if action == "infer" and name else None


def _model(parts: list[str], path: str) -> tuple[str, str, str]:
    """Return name, version and action of a path below models. Raises HttpError."""
    name, version, rest_of = parts[0], "", parts[1:]
    if len(rest_of) >= 2 and rest_of[0] == "versions" and rest_of[1]:
        version, rest_of = rest_of[1], rest_of[2:]
    if rest_of in ([], ["ready"], ["infer"]):
        return name, version, rest_of[0] if rest_of else ""
    raise _not_found(path)


def _not_found(path: str) -> HttpError:
    return HttpError(404, f"{path} is not a path of the Open Inference Protocol served here")


async def _send(send: Send, content: Any, status: int = 200) -> None:
    await response.send(send, status, response.JSON, orjson.dumps(content))
