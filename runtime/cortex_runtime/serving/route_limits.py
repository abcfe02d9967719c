"""maxBodySize and requestTimeout for routes that do not apply them: those of protocols, and applications of the handler."""

import asyncio
from typing import Any

from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cortex_runtime.errors import BodyTooLarge, RequestTimeout
from cortex_runtime.serving.admission import INFO, ROUTE
from cortex_runtime.serving.endpoint import Limits


class RouteLimits:
    """ASGI middleware. The time limit applies up to the start of the response, and then to each of its parts.

    route: the label of the metrics. Raises BodyTooLarge when more than max_body bytes are received, and RequestTimeout.
    """

    def __init__(self, app: ASGIApp, limits: Limits, route: str) -> None:
        self.app = app
        self._limits = limits
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request within the limits. Scopes other than HTTP pass unchanged."""
        if self._route != INFO:
            scope[ROUTE] = self._route
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limits = self._limits
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if length.isdigit() and int(length) > limits.max_body:
            raise BodyTooLarge(limits.max_body)
        body = LimitedBody(receive, limits.max_body)
        loop = asyncio.get_running_loop()
        timer = asyncio.timeout(limits.timeout)
        started = False

        async def send_part(message: Message) -> None:
            nonlocal started
            if body.exceeded and not started:
                # The application answers the exception in its own way.
                return
            started = True
            # The time in which a slow client receives a part is not counted.
            timer.reschedule(None)
            await send(message)
            if message["type"] == "http.response.start" or message.get("more_body", False):
                timer.reschedule(loop.time() + limits.timeout)

        try:
            async with timer:
                await self.app(scope, body, send_part)
        except Exception as error:
            if body.exceeded and not started:
                raise BodyTooLarge(limits.max_body) from None
            if isinstance(error, TimeoutError) and timer.expired():
                raise RequestTimeout(limits.timeout) from None
            raise
        if body.exceeded and not started:
            raise BodyTooLarge(limits.max_body)


def with_limits(route: BaseRoute, limits: Limits) -> BaseRoute:
    """Apply the limits to a route of Starlette, and return it."""
    assert isinstance(route, Route | WebSocketRoute | Mount)
    route.app = RouteLimits(route.app, limits, route.path or "/")
    return route


class LimitedBody:
    """An ASGI `receive` that raises BodyTooLarge. `__self__` is the server's request, as for the method that it wraps."""

    __slots__ = ("__self__", "_left", "_limit", "_receive")

    def __init__(self, receive: Receive, limit: int) -> None:
        self.__self__: Any = getattr(receive, "__self__", None)
        self._receive = receive
        self._left = self._limit = limit

    @property
    def exceeded(self) -> bool:
        """Whether the body is larger than the limit."""
        return self._left < 0

    async def __call__(self) -> Message:
        """Return the next message."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self.exceeded:
                raise BodyTooLarge(self._limit)
        return message
