"""The protocols of a worker, each of which contributes routes. A protocol that an API does not use is not imported.

To add one, write a module with a function `routes(service: HandlerService) -> list[BaseRoute]` and call it below, importing the
module only if the API uses the protocol. The routes are those of Starlette. Their endpoints may be functions `async def
f(request)` that return a Response, or ASGI applications; they raise UserError, HttpError or HTTPException for the client.
RESERVED lists the first segments of the paths of all protocols, which a handler must not use.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from cortex_runtime.http import response
from cortex_runtime.serving.admission import INFO
from cortex_runtime.serving.handler_service import HandlerService


def routes(service: HandlerService) -> list[BaseRoute]:
    """Return the routes of all protocols that the API uses."""
    found: list[BaseRoute] = [Route(INFO, _info(service))]
    if (inference := service.inference) is not None:
        # A mount does not match its prefix without a slash.
        found += [Route(inference.PREFIX, inference.app), Mount(inference.PREFIX, inference.app)]
    return found


def _info(service: HandlerService) -> Callable[[Request], Awaitable[Response]]:
    async def info(request: Request) -> Response:
        # The model client may have to call TensorFlow Serving.
        content = await asyncio.to_thread(service.handler.info)
        return Response(response.to_json(content), media_type="application/json")

    return info
