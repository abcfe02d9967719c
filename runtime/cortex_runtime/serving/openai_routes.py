"""The OpenAI-compatible routes below /v1: `handle_chat_completions`, `handle_completions` and `handle_embeddings`.

They call the method as any other method of the handler is called, and complete its result (openai/). Imported only for a class
with one of these methods.
"""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cortex_runtime.errors import HttpError
from cortex_runtime.handler.interfaces import Method
from cortex_runtime.handler.payload_type import validator_of
from cortex_runtime.handler.user_context import copy_context_variables
from cortex_runtime.http import response
from cortex_runtime.http.request_body import parse, read_body, require_method
from cortex_runtime.logs.records import request_id
from cortex_runtime.openai import embeddings
from cortex_runtime.openai.completions import Completion
from cortex_runtime.openai.errors import ParameterError, error_object
from cortex_runtime.openai.requests import CHAT, EMBEDDINGS, MODELS, check, served_models
from cortex_runtime.serving.admission import ROUTE
from cortex_runtime.serving.handler_service import HandlerService

_DONE = "[DONE]"


class _Operation:
    """A method of the handler. name: of the method. validator: of the type hint of the request, or None."""

    def __init__(self, service: HandlerService, path: str, method: Method) -> None:
        self.name = method.where.rpartition(".")[2]
        self.arguments = method.arguments
        self.endpoint = service.endpoint(method, path=path)
        self.validator = validator_of(method.payload_type, method.where)


class OpenAIRoutes:
    """The ASGI application. Raises errors for the caller to send. Raises StartError for a wrong `served_models`."""

    def __init__(self, service: HandlerService) -> None:
        handler = service.handler
        self._service = service
        self._operations = {
            path: _Operation(service, path, method) for path, method in handler.openai.items()
        }
        self._models = served_models(handler.instance, handler.document.name)
        self._began = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises HttpError, and what the method raises."""
        path: str = scope["path"]
        operation = self._operations.get(path)
        if operation is not None:
            scope[ROUTE] = path
            require_method(scope, "POST")
            await self._call(operation, path, scope, receive, send)
        elif path == MODELS or path.startswith(f"{MODELS}/"):
            scope[ROUTE] = MODELS
            require_method(scope, "GET")
            await _send(send, self._describe(path[len(MODELS) + 1 :]))
        else:
            known = ", ".join((*self._operations, MODELS))
            raise HttpError(404, f"{path[:80]} not found; this API serves {known}")

    async def _call(
        self, operation: _Operation, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        request = await self._read(path, scope, receive)
        validator = operation.validator
        given = {
            "request": request if validator is None else await validator.validate(request),
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
        is_stream, is_async = response.is_stream(result), isinstance(result, AsyncIterator)
        if is_async:
            copy_context_variables()
        if as_stream:
            parts = _events_async(answer, result) if is_async else _events(answer, result, is_stream)
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
        check(request, path)
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


def _events(answer: Completion, result: Any, is_stream: bool) -> Iterator[Any]:
    """Yield the events of a synchronous iterator, or of a result that is complete. Closes the iterator."""
    chunks = answer.chunks if is_stream else answer.in_chunks
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


async def _send(send: Send, content: Any) -> None:
    await response.send(send, 200, response.JSON, response.to_json(content))
