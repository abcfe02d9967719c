"""The OpenAPI document of the API and its page, as routes. What they need is imported at the first request.

The gateway of an AsyncAPI serves both in jobs/gateway_docs.py.
"""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from cortex_runtime.errors import HttpError
from cortex_runtime.http import response
from cortex_runtime.serving.endpoint import is_browser
from cortex_runtime.serving.handler_service import HandlerService

DOCUMENT, PAGE = "/openapi.json", "/docs"


class Docs:
    """The routes. The document is written at the first request, and again when the models have changed.

    answers_root: whether a browser that opens the root of the API gets the page, because no method of the handler answers it.
    """

    def __init__(self, service: HandlerService) -> None:
        self._service = service
        self.answers_root = False
        self._known: tuple[Any, bytes] = (None, b"")
        self.routes: list[BaseRoute] = [
            Route(DOCUMENT, self._document),
            Route(PAGE, self._page),
            Route(f"{PAGE}/{{name:path}}", self._page),
        ]

    async def _document(self, request: Request) -> Response:
        content = await asyncio.to_thread(self._write)
        return Response(content, media_type="application/json", headers={"cache-control": "no-cache"})

    def _write(self) -> bytes:
        from cortex_runtime.openapi.realtime import document

        handler = self._service.handler
        key = [] if handler.client is None else handler.client.info()
        known, content = self._known
        if known != key:
            has_keys = handler.document.spec.handler.api_keys is not None
            content = document(handler, has_keys, self._service.inference is not None)
            self._known = key, content
        return content

    async def _page(self, request: Request) -> Response:
        from cortex_runtime.openapi import page

        name = request.path_params.get("name", "")
        if name == "" and request.url.path.endswith("/"):
            # Relative, because the path may have a prefix that the runtime does not see.
            return RedirectResponse("../docs")
        found = page.read(name)
        if found is None:
            raise HttpError(404, f"{request.url.path[:80]} not found; the page is at {PAGE}")
        answer = Response(found.content, media_type=found.kind.decode())
        answer.raw_headers.extend(found.headers)
        return answer

    def is_open(self, scope: Scope) -> bool:
        """Return whether a request needs no API key: the page and its files contain nothing of the API."""
        if scope["type"] != "http":
            return False
        path = scope["path"]
        if path == "/":
            return self.answers_root and is_browser(scope)
        return path == PAGE or path.startswith(f"{PAGE}/")


async def send_entry(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a browser that opens the root of an API whose handler does not answer GET: it opens the page."""
    from cortex_runtime.openapi import page

    found = page.entry()
    await response.send(send, 200, found.kind, found.content, found.headers)
