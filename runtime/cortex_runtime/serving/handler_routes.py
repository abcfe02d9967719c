"""The routes of the handler: its methods for "/", its methods with `@route`, and the applications that it mounts."""

import importlib.util
import math
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.routing import BaseRoute, Match, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from cortex_runtime.errors import StartError
from cortex_runtime.handler.interfaces import Method
from cortex_runtime.handler.routing import MOUNT, WEBSOCKET, BoundRoute, specificity
from cortex_runtime.logs.tracebacks import brief, cause
from cortex_runtime.serving.admission import ROUTE
from cortex_runtime.serving.endpoint import Resource
from cortex_runtime.serving.handler_service import HandlerService
from cortex_runtime.serving.mounted_app import MountedApp
from cortex_runtime.serving.route_limits import with_limits

_UNSUPPORTED, _INVALID = 1003, 1007
"""Close codes of WebSockets, of RFC 6455."""


class HandlerRoutes:
    """resources: the methods of the handler by path, "/" first. all: the routes of Starlette, the most specific first.

    Raises StartError.
    """

    def __init__(self, service: HandlerService) -> None:
        self._found = sorted(service.handler.routes, key=lambda found: specificity(found.route))
        self.resources = _resources(service, self._found)
        # A mounted application answers what has no method, also of "/".
        self.mounts_all = any(found.route.path == "/" for found in self.mounted)
        self.all: list[BaseRoute] = []
        for path, resource in self.resources.items():
            methods = list(resource.endpoints) if self.mounts_all else None
            kind = _RouteWithParameters if "{" in path else Route
            self.all.append(kind(path, resource, methods=methods))
        self.websockets = [found for found in self._found if found.route.verb == WEBSOCKET]
        if self.websockets:
            _require_websockets(self.websockets[0])
        for found in self.websockets:
            path = found.route.path
            self.all.append(_WebSocketRoute(path, WebSocketEndpoint(found.method, path)))
        self._apps = [(found, MountedApp(found.application, found.route.path)) for found in self.mounted]
        for _, app in self._apps:
            with_limits(app.mount, service.limits)
            self.all.extend(app.routes)

    @property
    def mounted(self) -> list[BoundRoute]:
        """The applications that the handler mounts."""
        return [found for found in self._found if found.route.verb == MOUNT]

    @property
    def paths(self) -> list[str]:
        """The paths of methods and of mounted applications."""
        return [*self.resources, *(found.route.path for found in self.mounted)]

    @property
    def may_have_websockets(self) -> bool:
        """Whether a client may open a WebSocket."""
        return bool(self.websockets) or (bool(self.mounted) and _websockets_exist())

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Start the mounted applications, and shut them down. Raises StartError."""
        async with AsyncExitStack() as stack:
            for found, mounted in self._apps:
                try:
                    await stack.enter_async_context(mounted.lifespan())
                except Exception as error:
                    raise StartError(
                        "HandlerInitError",
                        f"{found.route.name}: the application mounted at {found.route.path} failed to start: "
                        f"{cause(error)}\n{brief(error)}",
                    ) from error
            yield


def _resources(service: HandlerService, routes: list[BoundRoute]) -> dict[str, Resource]:
    methods = dict(service.handler.methods)
    by_path: dict[str, dict[str, Method]] = {"/": methods}
    for found in routes:
        if found.route.verb not in (WEBSOCKET, MOUNT):
            by_path.setdefault(found.route.path, {})[found.route.verb] = found.method
    batcher, post = None, service.handler.methods.get("POST")
    if post is not None or service.handler.infer is None:
        batcher = service.batcher(post)
    made = {}
    for path, by_verb in by_path.items():
        endpoints = {
            verb: service.endpoint(method, batcher if path == "/" and verb == "POST" else None, path)
            for verb, method in by_verb.items()
        }
        if endpoints:
            made[path] = Resource(endpoints, path)
    return made


class _RangeChecked(BaseRoute):
    """Does not match a path parameter that its type cannot represent: an `int` of thousands of digits, an infinite `float`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the route matches, and the parameters."""
        try:
            match, child = super().matches(scope)
        except ValueError:
            return Match.NONE, {}
        if math.inf in child.get("path_params", {}).values():
            return Match.NONE, {}
        return match, child


class _RouteWithParameters(_RangeChecked, Route):
    pass


class _WebSocketRoute(_RangeChecked, WebSocketRoute):
    pass


class WebSocketEndpoint:
    """A method of the handler that talks to a client over a WebSocket."""

    def __init__(self, method: Method, path: str) -> None:
        self._function = method.function
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the method, and close the WebSocket if the method has not."""
        scope[ROUTE] = self._path
        websocket = CheckedWebSocket(scope, receive, send)
        await self._function(websocket=websocket, **scope["path_params"])
        states = (websocket.application_state, websocket.client_state)
        if WebSocketState.DISCONNECTED not in states:
            await websocket.close()


class CheckedWebSocket(WebSocket):
    """Closes the connection when the client sends a message of the wrong kind, which is not an error of the handler."""

    async def receive_text(self) -> str:
        """Return the next message. Raises WebSocketDisconnect."""
        return await self._checked(super().receive_text(), "text")

    async def receive_bytes(self) -> bytes:
        """Return the next message. Raises WebSocketDisconnect."""
        return await self._checked(super().receive_bytes(), "binary")

    async def receive_json(self, mode: str = "text") -> Any:
        """Return the value of the next message. Raises WebSocketDisconnect."""
        return await self._checked(super().receive_json(mode), mode)

    async def _checked(self, receiving: Awaitable[Any], kind: str) -> Any:
        try:
            return await receiving
        except KeyError:
            code, reason = _UNSUPPORTED, f"the message must be {kind}"
        except (ValueError, RecursionError):
            code, reason = _INVALID, "the message is not valid JSON"
        await self.close(code, reason)
        raise WebSocketDisconnect(code, reason)


def _require_websockets(found: BoundRoute) -> None:
    if not _websockets_exist():
        raise StartError(
            "HandlerInvalid",
            f"{found.route.name}: WebSockets require the package websockets; add it to requirements.txt",
        )


def _websockets_exist() -> bool:
    return importlib.util.find_spec("websockets") is not None
