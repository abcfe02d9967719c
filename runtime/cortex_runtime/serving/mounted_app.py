"""An ASGI application that the handler mounts. It runs as it would on a server of its own, below a path.

It has its lifespan and the state of it, the path under which clients reach it (`root_path`), and WebSockets. A UserError that a
Starlette or FastAPI application raises is answered as everywhere.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cortex_runtime.errors import HttpError
from cortex_runtime.http import response

_PREFIX = b"x-forwarded-prefix"
"""Header in which a gateway passes the part of the path that it has removed."""
_VALID_PREFIX = re.compile(rb"(?:/[A-Za-z0-9._~%-]+)+").fullmatch
_OF_OUTER_APP = frozenset(("app", "app_root_path", "endpoint", "path_params", "route", "router"))
"""Scope keys of the Starlette application around it. With them, it would create URLs for the routes of that application."""


class MountedApp:
    """An ASGI application that passes requests to an application, below `path`.

    routes: those of Starlette that lead to it.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        if isinstance(app, Starlette) and app.middleware_stack is None:
            app.exception_handlers.setdefault(HttpError, _respond)
        self.mount = Mount(path, self)
        self.routes: list[BaseRoute] = [self.mount]
        if path != "/":
            # A mount does not match its path without a slash.
            self.routes.append(Route(path, _add_slash, methods=["GET"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request or a WebSocket."""
        inner = {key: value for key, value in scope.items() if key not in _OF_OUTER_APP}
        inner["state"] = self._state.copy()
        prefix = next((value for name, value in scope["headers"] if name == _PREFIX), b"").rstrip(b"/")
        if prefix and _VALID_PREFIX(prefix):
            text = prefix.decode("ascii")
            inner["root_path"] = text + scope["root_path"]
            inner["path"] = text + scope["path"]
            inner["raw_path"] = prefix + scope.get("raw_path", b"")
        await self._app(inner, receive, send)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Send the application the events of its lifespan. One that does not support them is left alone.

        Raises what the application raises at its start.
        """
        events: asyncio.Queue[Message] = asyncio.Queue()
        answers: asyncio.Queue[Message] = asyncio.Queue()
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        task = asyncio.ensure_future(_as_coroutine(self._app, scope, events.get, answers.put))

        async def answer_to(event: str) -> Message | None:
            await events.put({"type": event})
            waiting = asyncio.ensure_future(answers.get())
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            waiting.cancel()
            return None

        answer = await answer_to("lifespan.startup")
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            await asyncio.wait((task,))
            error = None if task.cancelled() else task.exception()
            raise error if isinstance(error, Exception) else RuntimeError(answer.get("message", ""))
        if answer is None and not task.cancelled():
            # It has returned, or raised because it does not support lifespan events.
            task.exception()
        try:
            yield
        finally:
            if not task.done():
                await answer_to("lifespan.shutdown")
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def _as_coroutine(
    app: ASGIApp, scope: Scope, receive: Callable[[], Any], send: Callable[[Message], Any]
) -> None:
    await app(scope, receive, send)


async def _respond(request: Request, error: Exception) -> Response:
    answer = response.error_of(error)
    made = Response(response.error_body(answer), answer.status, media_type="application/json")
    made.raw_headers.extend(answer.headers)
    return made


async def _add_slash(request: Request) -> Response:
    # Relative, because the path may have a prefix that the runtime does not see.
    query = f"?{request.url.query}" if request.url.query else ""
    return Response(status_code=307, headers={"location": f"{request.url.path.rpartition('/')[2]}/{query}"})
