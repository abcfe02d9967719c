"""TCP connections to ports of pods through the API server, like `kubectl port-forward`.

Each connection is a WebSocket to the subresource `portforward` (subprotocol v4.channel.k8s.io). Each message starts with the
number of its channel: 0 for data, 1 for errors. The first message of a channel is the number of the port.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from cortex_cli.connection import Cluster, path

if TYPE_CHECKING:
    from kubernetes.client import Configuration

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_PART = 1 << 16
_HEARTBEAT = 20.0
"""Seconds between two pings, which detect a broken connection and keep an idle one open."""
_LINGER = 1.0
"""Seconds that the pod has to send more after the local end has closed its connection: a WebSocket cannot be half closed."""
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class PodPort:
    """A port of a pod."""

    namespace: str
    pod: str
    port: int


class PortForwarder:
    """Connections to pods. They are served by an event loop in a thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def connect(self, target: PodPort) -> socket.socket:
        """Return a local socket that is connected to a port of a pod. If that fails, the socket is closed by the other end."""
        ours, theirs = socket.socketpair()
        self._run(self._start(theirs, target))
        return ours

    def listen(
        self, host: str, port: int, target: Callable[[], PodPort | None], refusal: bytes = b""
    ) -> None:
        """Forward the connections to a local port.

        target: returns where a new connection is forwarded to, or None. refusal: is sent if there is no target or the pod refuses
        the connection. Raises OSError if the port is in use.
        """

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            where = target()
            if where is None or not await self._tunnel(reader, writer, where):
                writer.write(refusal)
            await _close(writer)

        self._run(asyncio.start_server(serve, host, port))

    def close(self) -> None:
        """Close all connections."""

        async def close() -> None:
            for task in self._tasks:
                task.cancel()
            if self._session is not None:
                await self._session.close()

        self._run(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self, theirs: socket.socket, target: PodPort) -> None:
        reader, writer = await asyncio.open_connection(sock=theirs)

        async def serve() -> None:
            await self._tunnel(reader, writer, target)
            await _close(writer)

        task = asyncio.create_task(serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tunnel(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: PodPort
    ) -> bool:
        """Forward a connection until it ends. Return False if no connection to the pod could be made."""
        try:
            async with await self._open(target) as websocket:
                return await _Tunnel(reader, writer, websocket).run()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def _open(self, target: PodPort) -> aiohttp.ClientWebSocketResponse:
        configuration = self._cluster.configuration
        if self._session is None:
            is_tls = configuration.host.startswith("https")
            connector = aiohttp.TCPConnector(limit=0, ssl=_ssl_context(configuration) if is_tls else True)
            self._session = aiohttp.ClientSession(connector=connector)
        url_path = path("v1/pods", target.namespace, target.pod, "portforward")
        async with asyncio.timeout(_CONNECT_SECONDS):
            return await self._session.ws_connect(
                f"{configuration.host.rstrip('/')}{url_path}?ports={target.port}",
                # Reading a token may run a credential plugin, which takes a while.
                headers=await asyncio.to_thread(self._cluster.authorization),
                protocols=[_PROTOCOL],
                proxy=self._cluster.proxy(),
                proxy_headers=configuration.proxy_headers,
                server_hostname=configuration.tls_server_name or None,
                heartbeat=_HEARTBEAT,
                max_msg_size=0,
            )


class _Tunnel:
    """A local connection and the WebSocket that it is forwarded through."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        websocket: aiohttp.ClientWebSocketResponse,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._websocket = websocket
        self._messages = 0

    async def run(self) -> bool:
        """Forward until either end closes the connection. Return False if the pod refused it."""
        sending = asyncio.create_task(self._send())
        seen: set[int] = set()
        has_received = is_refused = False
        try:
            async for message in self._websocket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    break
                self._messages += 1
                channel = message.data[0]
                if channel not in seen:
                    # The number of the port.
                    seen.add(channel)
                elif channel == _ERROR:
                    is_refused = not has_received
                    break
                else:
                    has_received = True
                    self._writer.write(message.data[1:])
                    await self._writer.drain()
        except OSError:
            pass  # The local end is closed.
        finally:
            sending.cancel()
        return not is_refused

    async def _send(self) -> None:
        with contextlib.suppress(OSError, aiohttp.ClientError):
            while part := await self._reader.read(_PART):
                await self._websocket.send_bytes(bytes([_DATA]) + part)
            messages = -1
            while messages != self._messages:
                messages = self._messages
                await asyncio.sleep(_LINGER)
            await self._websocket.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


def _ssl_context(configuration: "Configuration") -> ssl.SSLContext:
    """Return the TLS settings of the other requests, which urllib3 creates."""
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context(
        cert_reqs=ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE
    )
    if configuration.verify_ssl:
        context.check_hostname = configuration.assert_hostname is not False
    if configuration.ssl_ca_cert or configuration.ca_cert_data:
        context.load_verify_locations(configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    elif configuration.verify_ssl:
        context.load_default_certs()
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context
