"""The HTTP client of a stable replica's worker for the candidate: kept-alive connections that are renewed."""

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

Headers = list[tuple[bytes, bytes]]
Propagate = Callable[[MutableMapping[str, str]], None]
"""Adds the trace context of the current request to the headers of an outgoing one."""

RENEW_SECONDS = 10.0
"""Seconds after which new connections are used. The Service selects a pod for each connection, so that pods which were added get
requests after this time."""
_IDLE_SECONDS = 3.0
"""Seconds that an unused connection stays open: fewer than in the server, which would close it under the next request."""
_BUFFERED = 256 * 1024
"""Bytes of a response up to which it is read completely before its first byte is sent on."""
_LONGEST_HEADERS = 64 * 1024
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Headers of one connection (RFC 9110, section 7.6.1). They are not forwarded."""
_SET_BY_CLIENT = HOP_BY_HOP | {b"content-length", b"expect"}


class CandidateFailed(Exception):
    """The candidate has not answered; the message is the reason.

    status: of a response from 500 on; 0 without a response. is_late: whether no response arrived in time.
    """

    def __init__(self, reason: str, status: int = 0, is_late: bool = False) -> None:
        super().__init__(reason)
        self.status, self.is_late = status, is_late


@dataclass(slots=True)
class Request:
    """A request with its whole body. target: path and query as they were received. headers: names in lower case."""

    method: str
    target: str
    headers: Headers
    body: bytes
    request_id: str


@dataclass(slots=True)
class Response:
    """A response whose first byte has arrived. body: all of it, or None where it is read from `rest`."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes | None
    rest: aiohttp.ClientResponse
    connections: "_Connections"

    async def read(self, most: int) -> bytes:
        """Return the first bytes of a body that was not read yet."""
        parts, size = [], 0
        async for part in self.rest.content.iter_any():
            parts.append(part)
            size += len(part)
            if size >= most:
                break
        return b"".join(parts)

    def close(self) -> None:
        """Release the connection. It is closed unless the whole body was read."""
        self.rest.release()
        self.connections.release()


class _Connections:
    """The connections of some seconds. They are closed when they are retired and no request uses them."""

    def __init__(self) -> None:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE),
            auto_decompress=False,
            max_line_size=_LONGEST_HEADERS,
            max_field_size=_LONGEST_HEADERS,
        )
        self._used = 0
        self._is_retired = False
        self._closing: asyncio.Task[None] | None = None

    def acquire(self) -> None:
        self._used += 1

    def release(self) -> None:
        self._used -= 1
        self._close_if_unused()

    def retire(self) -> None:
        self._is_retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_retired and not self._used and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.session.close())


class Client:
    """Sends requests to the candidate. propagate: adds headers to each request, or None."""

    def __init__(self, host: str, port: int, propagate: Propagate | None = None) -> None:
        self._propagate = propagate
        self._base = f"http://{host}:{port}" if ":" not in host else f"http://[{host}]:{port}"
        self._connections: _Connections | None = None
        self._renew_at = 0.0
        self._is_closed = False

    async def send(self, request: Request, added: Iterable[tuple[str, str]] = ()) -> Response:
        """Return a response once its headers have arrived, and its whole body if it is short. Raises CandidateFailed.

        The caller limits the time, and must close the response. added: further headers.
        """
        headers = self._headers(request, added)
        connections = self._current()
        connections.acquire()
        if self._is_closed:
            connections.retire()
        response = None
        try:
            response = await connections.session.request(
                request.method,
                URL(self._base + request.target, encoded=True),
                headers=headers,
                data=request.body or None,
                allow_redirects=False,
            )
            if response.status >= 500:
                raise CandidateFailed(f"status {response.status}", response.status)
            length = response.content_length
            body = await response.read() if length is not None and length <= _BUFFERED else None
        except BaseException as error:
            if response is not None:
                response.close()
            connections.release()
            if isinstance(error, aiohttp.ClientError | OSError | ValueError) and not isinstance(
                error, TimeoutError
            ):
                raise CandidateFailed(f"{type(error).__name__}: {error}"[:200]) from None
            raise
        return Response(response.status, response.raw_headers, body, response, connections)

    def close(self) -> None:
        """Close the connections, each after its current request. Later requests get connections of their own."""
        self._is_closed = True
        self._retire()

    def _retire(self) -> None:
        if self._connections is not None:
            self._connections.retire()
            self._connections = None

    def _current(self) -> _Connections:
        if self._is_closed:
            # For a request that had begun before the split was changed.
            return _Connections()
        now = asyncio.get_running_loop().time()
        if self._connections is None or now >= self._renew_at:
            self._retire()
            self._connections = _Connections()
            self._renew_at = now + RENEW_SECONDS
        return self._connections

    def _headers(self, request: Request, added: Iterable[tuple[str, str]]) -> "CIMultiDict[str]":
        headers: CIMultiDict[str] = CIMultiDict()
        try:
            for name, value in request.headers:
                if name not in _SET_BY_CLIENT and name != b"x-request-id":
                    headers.add(name.decode("ascii"), value.decode())
        except UnicodeDecodeError:
            # aiohttp would send other bytes.
            raise CandidateFailed(f"header {name!r} is not valid UTF-8") from None
        headers["x-request-id"] = request.request_id
        if self._propagate is not None:
            self._propagate(headers)
        headers.extend(added)
        return headers
