"""The OpenAI-compatible routes below /v1: `handle_chat_completions`, `handle_completions` and `handle_embeddings`.

They call the method as any other method of the handler is called, and complete its result (openai/). Imported only for a class
with one of these methods.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cortex_runtime.errors import HttpError, StartError
from cortex_runtime.handler.interfaces import Method
from cortex_runtime.handler.payload_type import validator_of
from cortex_runtime.handler.user_context import copy_context_variables
from cortex_runtime.http import response
from cortex_runtime.http.request_body import parse, read_body
from cortex_runtime.logs.records import request_id
from cortex_runtime.openai import embeddings
from cortex_runtime.openai.completions import Completion
from cortex_runtime.openai.errors import ParameterError, error_object
from cortex_runtime.serving.admission import ROUTE
from cortex_runtime.serving.handler_service import HandlerService

CHAT, COMPLETIONS, EMBEDDINGS, MODELS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
)
_REQUIRED = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input"}
_DONE = "[DONE]"


class _Operation:
    """A method of the handler. name: of the method. validate: converts the request to the type of its hint, or None."""

    def __init__(self, service: HandlerService, path: str, method: Method) -> None:
        self.name = method.where.rpartition(".")[2]
        self.arguments = method.arguments
        self.endpoint = service.endpoint(method, path=path)
        self.validate = validator_of(method.payload_type, method.where)


class OpenAIRoutes:
    """The ASGI application. Raises errors for the caller to send. Raises StartError for a wrong `served_models`."""

    def __init__(self, service: HandlerService) -> None:
        handler = service.handler
        self._service = service
        self._operations = {
            path: _Operation(service, path, method) for path, method in handler.openai.items()
        }
        self._models = _served_models(handler.instance, handler.document.name)
        self._began = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises HttpError, and what the method raises."""
        path: str = scope["path"]
        operation = self._operations.get(path)
        if operation is not None:
            scope[ROUTE] = path
            _require(scope, "POST")
            await self._call(operation, path, scope, receive, send)
        elif path == MODELS or path.startswith(f"{MODELS}/"):
            scope[ROUTE] = MODELS
            _require(scope, "GET")
            await _send(send, self._describe(path[len(MODELS) + 1 :]))
        else:
            known = ", ".join((*self._operations, MODELS))
            raise HttpError(404, f"{path} not found; this API serves {known}")

    async def _call(
        self, operation: _Operation, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        request = await self._read(path, scope, receive)
        given = {
            "request": request if operation.validate is None else operation.validate(request),
            "headers": Headers(raw=scope["headers"]),
        }
        arguments = {name: given[name] for name in operation.arguments}
        result, callback = response.split_callback(await operation.endpoint.call(arguments, receive))
        if isinstance(result, Response):
            await result(scope, receive, send)
        elif path == EMBEDDINGS:
            await _send(send, embeddings.whole(result, request))
        else:
            answer = Completion(request, request_id.get() or "", operation.name, path == CHAT)
            await self._deliver(answer, result, request.get("stream") is True, receive, send)
        if callback is not None:
            await self._service.threads.run_after(callback, "its response had been sent")

    async def _deliver(
        self, answer: Completion, result: Any, as_stream: bool, receive: Receive, send: Send
    ) -> None:
        is_stream = response.is_stream(result)
        if isinstance(result, AsyncIterator):
            copy_context_variables()
        if as_stream:
            parts: Any
            if isinstance(result, AsyncIterator):
                parts = _events_async(answer, result)
            else:
                parts = _events(answer.chunks if is_stream else answer.in_chunks, answer, result, is_stream)
            await self._stream(parts, as_events=True).send(receive, send)
        elif is_stream:
            await _send(send, answer.joined(await self._stream(result).collect(receive)))
        else:
            await _send(send, answer.whole(result))

    def _stream(self, parts: Any, as_events: bool = False) -> response.Stream:
        service = self._service
        return response.Stream(parts, service.threads.run_plain, service.limits.timeout, as_events)

    async def _read(self, path: str, scope: Scope, receive: Receive) -> dict[str, Any]:
        """Return the checked request. Raises UserError."""
        limits = self._service.limits
        body = await read_body(receive, dict(scope["headers"]), limits.max_body, limits.timeout)
        request = await parse(body, response.JSON, limits.max_body)
        if not isinstance(request, dict):
            raise ParameterError("the body must be a JSON object", None)
        _check(request, path)
        model = request.setdefault("model", self._models[0])
        if model not in self._models:
            raise self._unknown(model)
        return request

    def _describe(self, name: str) -> dict[str, Any]:
        """Return a model; all models for the name ""."""
        models = {
            each: {"id": each, "object": "model", "created": self._began, "owned_by": "cortex"}
            for each in self._models
        }
        if not name:
            return {"object": "list", "data": list(models.values())}
        if name not in models:
            raise self._unknown(name)
        return models[name]

    def _unknown(self, name: Any) -> ParameterError:
        available = ", ".join(self._models)
        message = f"model {str(name)[:80]!r} does not exist (available: {available})"
        return ParameterError(message, "model", "model_not_found", 404)


def _check(request: dict[str, Any], path: str) -> None:
    """Raise ParameterError for a parameter that the runtime reads and that is wrong."""
    name = _REQUIRED[path]
    kinds = list if path == CHAT else (str, list)
    if name not in request:
        raise ParameterError(f"{name} is required", name, "missing_required_parameter")
    value = request[name]
    if not isinstance(value, kinds) or (isinstance(value, list) and not value):
        wanted = "a list of messages" if path == CHAT else "text, or a list"
        raise ParameterError(f"{name} must be {wanted}, and must not be empty", name)
    if "model" in request and not isinstance(request["model"], str):
        raise ParameterError("model must be a string", "model")
    if not isinstance(request.get("stream", False), bool | None):
        raise ParameterError("stream must be true or false", "stream")
    if not isinstance(request.get("stream_options", {}), dict | None):
        raise ParameterError("stream_options must be an object", "stream_options")
    if path == EMBEDDINGS and request.get("encoding_format", "float") not in ("float", "base64", None):
        raise ParameterError("encoding_format must be float or base64", "encoding_format")


def _events(
    chunks: Callable[[Any], Iterator[Any]], answer: Completion, result: Any, is_stream: bool
) -> Iterator[Any]:
    """Yield the events of a synchronous iterator, or of a result that is complete. Closes the iterator."""
    began = False
    try:
        for part in result if is_stream else (result,):
            for chunk in chunks(part):
                yield chunk
                began = True
        yield from answer.last_chunks() if is_stream else ()
        yield _DONE
    except Exception as error:
        if not began:
            # Nothing has been sent, so that the response can have the status of the error.
            raise
        yield {"error": error_object(response.error_of(error))}
    finally:
        close = getattr(result, "close", None) if is_stream else None
        if close is not None:
            close()


async def _events_async(answer: Completion, parts: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield the events of an async iterator, and close it."""
    began = False
    try:
        async for part in parts:
            for chunk in answer.chunks(part):
                yield chunk
                began = True
        for chunk in answer.last_chunks():
            yield chunk
        yield _DONE
    except Exception as error:
        if not began:
            raise
        yield {"error": error_object(response.error_of(error))}
    finally:
        close = getattr(parts, "aclose", None)
        if close is not None:
            await close()


def _served_models(instance: Any, api: str) -> list[str]:
    """Return the names of the models: the attribute `served_models` of the handler, or the name of the API. Raises StartError."""
    found = getattr(instance, "served_models", None)
    if found is None:
        return [api]
    names = list(found) if isinstance(found, list | tuple) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise StartError(
            "HandlerInvalid", f"served_models must be a list of names of models; got {found!r:.80}"
        )
    return names


def _require(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise HttpError(
            405,
            f"{scope['method']} is not allowed for {scope['path'][:80]}; use {method}",
            [(b"allow", method.encode())],
        )


async def _send(send: Send, content: Any) -> None:
    await response.send(send, 200, response.JSON, response.to_json(content))
