"""Development mode of a replica: `cortex dev` sends the files of the project, and the workers are restarted with them.

The endpoint listens on loopback only, so it is reached by `kubectl port-forward` and the like, which the API server authorizes.
A client sends `POST /missing` with checksums, `POST /files` with the content of those that are missing, and `POST /project` with
the paths of all files. The last response is a line of JSON for each step, and one with the result.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from cortex_runtime.errors import StartError
from cortex_runtime.http.server import Server, plain
from cortex_runtime.processes.listener import listen
from cortex_runtime.replica.project_files import InvalidFiles, ProjectFiles, Version, parse_version

log = logging.getLogger("cortex")

HEADER_BYTES = 32 + 8
"""Size of what precedes the content of each file in `POST /files`: its SHA-256 and its size, a big-endian integer."""
_JSON, _LINES = b"application/json", b"application/x-ndjson"
_KEEP_ALIVE_SECONDS = 3600
_STEP_SECONDS = 5.0
"""Seconds between two lines of a response that has no result yet, so that no proxy closes the connection as idle."""


SUPERSEDED = "Superseded"
"""Reason of the result for a version that was abandoned because a newer one was sent."""
_SUPERSEDED = StartError(SUPERSEDED, "a newer version of the project was sent")


class Development:
    """The development endpoint of a replica.

    project: the folder of the code. load: starts workers with the files in it, and raises StartError if that fails. step:
    returns what the replica is doing. problem: why the last version could not be loaded, while none is.
    """

    def __init__(
        self,
        host: str,
        port: int,
        project: Path,
        load: Callable[[], Awaitable[None]],
        step: Callable[[], str],
    ) -> None:
        self._files = ProjectFiles(project)
        self._load = load
        self._step = step
        self._lock = asyncio.Lock()
        self._wanted: Version | None = None
        self._loading: asyncio.Future[None] | None = None
        self._loaded: Version | None = None
        self.is_loaded = asyncio.Event()
        self.problem: StartError | None = None
        self._listener = listen("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)
        config = plain(
            self,
            loop="asyncio",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._server = Server(config, lambda: None)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def resume(self) -> None:
        """Load the version that a previous process of this container had loaded, if any."""
        async with self._lock:
            version = self._wanted = await asyncio.to_thread(self._files.saved)
            if version is not None and not self._files.missing(file.sha256 for file in version.values()):
                await self._load_version(version)

    async def close(self) -> None:
        """Stop the endpoint."""
        self._server.should_exit = True
        await self._serving
        self._listener.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            match scope["method"], scope["path"]:
                case "POST", "/missing":
                    checksums = orjson.loads(await request.body())
                    content: Any = self._files.missing(str(each) for each in checksums)
                    await _respond(send, 200, content)
                case "POST", "/files":
                    await _respond(send, 200, {"received": await self._receive(request)})
                case "POST", "/project":
                    await self._project(parse_version(orjson.loads(await request.body())), send)
                case _:
                    await _respond(send, 404, {"error": "not found; use POST /missing, /files or /project"})
        except (InvalidFiles, orjson.JSONDecodeError, TypeError) as error:
            await _respond(send, 400, {"error": str(error)})
        except OSError as error:
            await _respond(send, 507, {"error": f"failed to write the project: {error}"})
        except ClientDisconnect:
            return

    async def _receive(self, request: Request) -> int:
        """Store the files in a body. Return their number."""
        reader, received = _Reader(request.stream()), 0
        while header := await reader.read(HEADER_BYTES):
            remaining = int.from_bytes(header[32:], "big")
            with self._files.receive() as file:
                while remaining:
                    part = await reader.read_some(remaining)
                    file.write(part)
                    remaining -= len(part)
                file.finish(header[:32].hex())
            received += 1
        return received

    async def _project(self, version: Version, send: Send) -> None:
        if missing := self._files.missing(file.sha256 for file in version.values()):
            await _respond(send, 409, {"missing": missing})
            return
        await send(_start(200, _LINES))
        # It goes on when the client disconnects: a client that connects again gets the result for the same version.
        loading = asyncio.create_task(self._change(version))
        while not (await asyncio.wait((loading,), timeout=_STEP_SECONDS))[0]:
            line = orjson.dumps({"step": self._step()}) + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": orjson.dumps(loading.result()) + b"\n"})

    async def _change(self, version: Version) -> dict[str, Any]:
        """Load a version unless it is in use. A version that is still being loaded is abandoned. Return the result."""
        if version != self._wanted and self._loading is not None:
            self._loading.cancel()
        self._wanted = version
        async with self._lock:
            began = time.monotonic()
            if version == self._loaded:
                problem = None
            elif version == self._wanted:
                problem = await self._load_version(version)
            else:
                problem = _SUPERSEDED
        if problem is None:
            return {"ready": True, "seconds": round(time.monotonic() - began, 3)}
        has_previous = self._loaded is not None
        return {
            "ready": False,
            "reason": problem.reason,
            "message": problem.message,
            "servesPrevious": has_previous,
        }

    async def _load_version(self, version: Version) -> StartError | None:
        """Load a version. If that fails, restore the files of the previous one, which stays in use, and return the cause."""
        problem: StartError | None = None
        try:
            await asyncio.to_thread(self._files.place, version)
            self._loading = asyncio.ensure_future(self._load())
            await asyncio.wait((self._loading,))
            if self._loading.cancelled():
                problem = _SUPERSEDED
            else:
                self._loading.result()
                await asyncio.to_thread(self._files.save, version)
        except StartError as error:
            problem = error
        except OSError as error:
            problem = StartError("SourceUnavailable", f"failed to write the project: {error}")
        finally:
            self._loading = None
        if problem is None:
            self._loaded, self.problem = version, None
            self.is_loaded.set()
        elif self._loaded is not None:
            await asyncio.to_thread(self._files.place, self._loaded)
        elif problem is not _SUPERSEDED:
            self.problem = problem
        if problem is not None and problem is not _SUPERSEDED:
            # The client gets the message and shows it.
            log.debug("failed to load the project: %s", problem.reason)
        return problem


class _Reader:
    """Reads a body in parts of given sizes."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._part = memoryview(b"")

    async def read(self, size: int) -> bytes:
        """Return `size` bytes, or nothing at the end. Raises InvalidFiles if the body ends earlier."""
        content = b""
        while len(content) < size:
            part = await self.read_some(size - len(content), may_end=not content)
            if not part:
                return b""
            content += part
        return content

    async def read_some(self, most: int, may_end: bool = False) -> bytes:
        """Return the next bytes, at most `most`; nothing at the end. Raises InvalidFiles if it must not end here."""
        while not self._part:
            try:
                self._part = memoryview(await anext(self._stream))
            except StopAsyncIteration:
                if may_end:
                    return b""
                raise InvalidFiles("the body ends within a file") from None
        part, self._part = self._part[:most], self._part[most:]
        return bytes(part)


def _start(status: int, kind: bytes, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *headers]}


async def _respond(send: Send, status: int, content: Any) -> None:
    body = orjson.dumps(content)
    await send(_start(status, _JSON, (b"content-length", str(len(body)).encode())))
    await send({"type": "http.response.body", "body": body})
