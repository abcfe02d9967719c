"""A proxy in front of the API server that injects faults."""

import asyncio
import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web


class FaultyProxy:
    """Forwards requests to `upstream` (http://host:port), with the faults in `fault`.

    fault: None; a number: every request is answered with this status; "cut": connections are closed without an answer; "gone":
    watches start with an error that their resource version expired (410). `cut_streams` ends the open watches.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._streams: set[web.StreamResponse] = set()
        self.fault: int | str | None = None
        self.refused = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig for the proxy."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": "none"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(content))
        return path

    def cut_streams(self) -> None:
        """Close all open watches without an error."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for stream in list(self._streams):
            if stream._req is not None and stream._req.transport is not None:
                stream._req.transport.abort()

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(
            self._upstream, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        )
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def _end(self) -> None:
        self._cut()
        await self._runner.cleanup()
        await self._session.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        watches = "watch=true" in request.query_string
        if self.fault == "cut" and request.transport is not None:
            self.refused += 1
            request.transport.abort()
        elif isinstance(self.fault, int):
            self.refused += 1
            status = {
                "kind": "Status",
                "status": "Failure",
                "code": self.fault,
                "message": "a fault of the test",
            }
            return web.json_response(status, status=self.fault, headers={"Retry-After": "1"})
        elif self.fault == "gone" and watches:
            self.refused += 1
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            return web.json_response({"type": "ERROR", "object": status})
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "authorization")}
        async with self._session.request(
            request.method, request.path_qs, headers=headers, data=await request.read() or None
        ) as answer:
            kept = {"Content-Type", "Content-Encoding"}
            response = web.StreamResponse(
                status=answer.status, headers={k: v for k, v in answer.headers.items() if k in kept}
            )
            await response.prepare(request)
            if watches:
                self._streams.add(response)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            except (aiohttp.ClientError, ConnectionError):
                pass  # The connection was cut.
            finally:
                self._streams.discard(response)
            return response
