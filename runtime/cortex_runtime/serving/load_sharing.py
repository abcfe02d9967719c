"""Share load between the workers of a replica, so that no request waits for a thread while another worker has a free one.

A worker with a free thread asks a worker that has queued requests. That worker sends its oldest request with the connection, and
the receiver continues as if it had accepted the connection. A request moves only to a worker that has asked for it, never to one
that hangs. Imported only in replicas with several workers.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from time import perf_counter
from typing import Any

import uvicorn
from starlette.types import Receive
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from cortex_runtime.errors import ClientDisconnected, Moved, RequestTimeout
from cortex_runtime.handler.threads import Threads
from cortex_runtime.http.protocol import InlineProtocol
from cortex_runtime.http.server import Server
from cortex_runtime.mailboxes import ASK, NOTHING, REQUEST, TURN, WAITING, Mailboxes
from cortex_runtime.metrics.shared_memory import SharedMetrics, WorkerMetrics
from cortex_runtime.serving.admission import ARRIVED
from cortex_runtime.serving.connection_balancing import Acceptor

_BEGAN = struct.Struct("=d")
_REPLY_SECONDS = 0.05
"""Seconds to wait for a worker's reply before asking another."""
_LEFT_OUT = (b"content-length", b"transfer-encoding", b"expect")


class SharedThreads(Threads):
    """Threads whose queued requests can move to other workers."""

    def __init__(
        self, threads: int, metrics: WorkerMetrics, shared_metrics: SharedMetrics, slot: int
    ) -> None:
        super().__init__(threads, metrics)
        self.waiting: dict[Future[Any], RequestResponseCycle] = {}
        self.on_waiting: Callable[[], None] = lambda: None
        self.on_free: Callable[[], None] = lambda: None
        self._given: dict[RequestResponseCycle, bool] = {}
        self.shared_metrics, self.slot = shared_metrics, slot

    async def move_to_handler_thread(self, timeout: float) -> bool:
        """Do the same, but queue a call that would have to wait, because a queued call can move to another worker."""
        if self.pending and not self.inline:
            return False
        return await super().move_to_handler_thread(timeout)

    async def run(self, function: Callable[[], Any], receive: Receive, timeout: float) -> Any:
        """Do the same. Raises Moved when the request was moved to another worker."""
        cycle: RequestResponseCycle = receive.__self__  # type: ignore[attr-defined]
        left = timeout
        if isinstance(protocol := cycle.transport.get_protocol(), SharingProtocol) and protocol.began:
            left -= perf_counter() - protocol.began
        while True:
            try:
                return await super().run(function, receive, left)
            except RequestTimeout:
                raise RequestTimeout(timeout) from None
            except (asyncio.CancelledError, ClientDisconnected) as error:
                given = self._given.pop(cycle, None)
                if given:
                    raise Moved from None
                if given is None or isinstance(error, ClientDisconnected):
                    raise
                # The send failed, so the call is queued again.

    def send_oldest_request(self, send: Callable[[bytes, int], bool]) -> bool:
        """Send the oldest request that can move, with its connection. Returns whether a request was sent."""
        for future, cycle in list(self.waiting.items()):
            protocol = cycle.transport.get_protocol()
            assert isinstance(protocol, SharingProtocol)
            if protocol.can_move(cycle) and future.cancel():
                del self.waiting[future]
                self._given[cycle] = given = send(protocol.request(cycle), protocol.descriptor())
                if given:
                    protocol.leave(cycle)
                return given
        return False

    def _enqueue(self, function: Callable[[], Any], receive: Receive) -> "Future[Any]":
        future = super()._enqueue(function, receive)
        if self.pending > self.size:
            self.waiting[future] = receive.__self__  # type: ignore[attr-defined]
            self.shared_metrics.movable[self.slot] = len(self.waiting)
            self.on_waiting()
        return future

    def _count(self, change: int) -> None:
        super()._count(change)
        # Requests start in order of arrival.
        while self.waiting and ((first := next(iter(self.waiting))).running() or first.done()):
            del self.waiting[first]
        self.shared_metrics.movable[self.slot] = len(self.waiting)
        free = self.pending < self.size
        self.shared_metrics.free[self.slot] = free and self.shared_metrics.live[self.slot] > 0
        if free:
            self.on_free()


class SharingProtocol(InlineProtocol):
    """One connection, which can move to another worker between the arrival of a request and its start.

    began: arrival (perf_counter) of the request that the connection was moved with; 0 for any other request.
    """

    began = 0.0
    _first = b""
    _pieces: list[bytes]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start with the request that the connection was moved with."""
        super().connection_made(transport)
        first, self._first = self._first, b""
        if first:
            self.data_received(first)

    def connection_lost(self, exc: Exception | None) -> None:
        """Update the number of connections."""
        super().connection_lost(exc)
        self.on_lost()

    def on_lost(self) -> None:
        """Replaced for each connection."""

    def handle_websocket_upgrade(self) -> None:
        """Pass the connection to the WebSocket protocol, which then updates the number of connections."""
        super().handle_websocket_upgrade()
        self.transport.get_protocol().on_lost = self.on_lost  # type: ignore[attr-defined]

    def resume(self, content: bytes) -> None:
        """Start with a request that another worker has sent."""
        (self.began,) = _BEGAN.unpack_from(content)
        self._first = content[_BEGAN.size :]

    def on_message_begin(self) -> None:
        """Keep the body of the request until it is answered, because the request may move."""
        self._pieces = []
        self._arrived = perf_counter()
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._pieces.append(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """End the request that the connection was moved with."""
        self.began, self._pieces = 0.0, []
        super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.began:
            # The worker that sent it has already admitted it.
            cycle.scope[ARRIVED] = self.began  # type: ignore[literal-required]
        super()._start_asgi_task(cycle, app)

    def can_move(self, cycle: RequestResponseCycle) -> bool:
        """Return whether this is the connection's only request and its response has not started."""
        return (
            self.cycle is cycle
            and not cycle.more_body
            and not cycle.response_started
            and not cycle.disconnected
            and not self.pipeline
            and not self._begun
            and not self.transport.is_closing()
        )

    def request(self, cycle: RequestResponseCycle) -> bytes:
        """Return the request as bytes, preceded by its time of arrival."""
        scope, body = cycle.scope, b"".join(self._pieces)
        head = f"{scope['method']} ".encode() + self.url + f" HTTP/{scope['http_version']}\r\n".encode()
        lines = [b"%b: %b\r\n" % pair for pair in scope["headers"] if pair[0] not in _LEFT_OUT]
        length = b"content-length: %d\r\n\r\n" % len(body)
        return _BEGAN.pack(self.began or self._arrived) + head + b"".join(lines) + length + body

    def descriptor(self) -> int:
        """Return the file descriptor of the connection, on which all earlier responses are sent."""
        self.transport.flush()  # type: ignore[attr-defined]
        return int(self.transport.get_extra_info("socket").fileno())

    def leave(self, cycle: RequestResponseCycle) -> None:
        """Release the connection, which another worker uses now."""
        cycle.disconnected = True
        self._unset_keepalive_if_required()
        # Closes this process's descriptor; the connection stays open.
        self.transport.abort()


class SharingServer(Server):
    """The server of a worker that accepts connections in turn and exchanges requests with the other workers."""

    def __init__(
        self,
        config: uvicorn.Config,
        started: Callable[[], None],
        threads: SharedThreads,
        mailboxes: Mailboxes,
    ) -> None:
        super().__init__(config, started)
        self._threads = threads
        self._shared_metrics = threads.shared_metrics
        self._slot = threads.slot
        self._mailboxes = mailboxes
        self._reply_timer: asyncio.TimerHandle | None = None
        self._tried: set[int] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept from the shared socket in turn with the other workers, and read the mailbox."""
        assert sockets is not None
        (listener,) = sockets
        self._acceptor = Acceptor(listener, self._shared_metrics, self._slot, self._mailboxes, self._connect)
        self._acceptor.start()
        self._threads.on_waiting, self._threads.on_free = self._notify_idle_workers, self._request_work
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._mailboxes.reader(self._slot), self._read)
        await super().startup([])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down after the running requests. Queued requests can still move."""
        self._acceptor.stop()
        await super().shutdown([])

    async def on_tick(self, counter: int) -> bool:
        """Take a lost turn, and offer queued requests again."""
        self._acceptor.tick()
        if self._threads.waiting:
            self._notify_idle_workers()
        return await super().on_tick(counter)

    def _connect(self, connection: socket.socket, request: bytes = b"") -> None:
        protocol = SharingProtocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=self._loop,
        )
        protocol.on_lost = self._on_connection_lost  # type: ignore[method-assign]
        if request:
            protocol.resume(request)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._shared_metrics.connections[self._slot] += 1.0
        task = self._loop.create_task(self._serve_connection(protocol, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_connection(self, protocol: SharingProtocol, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError:
            # The client closed the connection at once.
            self._on_connection_lost()
            connection.close()

    def _on_connection_lost(self) -> None:
        self._shared_metrics.connections[self._slot] -= 1.0

    def _notify_idle_workers(self) -> None:
        """Notify workers with a free thread that a request is queued here."""
        for slot, free in enumerate(self._shared_metrics.free):
            if free and slot != self._slot:
                self._mailboxes.send(slot, WAITING, self._slot)

    def _request_work(self) -> None:
        """Request a queued request from another worker, if a thread is free."""
        shared_metrics = self._shared_metrics
        if self._reply_timer is not None or not shared_metrics.free[self._slot]:
            return
        most, best = 0.0, -1
        for slot, movable in enumerate(shared_metrics.movable):
            if movable > most and slot != self._slot and slot not in self._tried:
                most, best = movable, slot
        if best < 0:
            self._tried.clear()
        else:
            self._tried.add(best)
            if self._mailboxes.send(best, ASK, self._slot):
                self._reply_timer = self._loop.call_later(_REPLY_SECONDS, self._on_reply)
            else:
                self._request_work()

    def _on_reply(self) -> None:
        if self._reply_timer is not None:
            self._reply_timer.cancel()
            self._reply_timer = None
        self._request_work()

    def _read(self) -> None:
        for kind, sender, content, files in self._mailboxes.receive(self._slot):
            if kind == TURN:
                self._acceptor.take_turn()
            elif kind == WAITING:
                self._tried.discard(sender)
                self._request_work()
            elif kind == ASK:
                if not self._threads.send_oldest_request(partial(self._send, sender)):
                    self._mailboxes.send(sender, NOTHING, self._slot)
            elif kind == NOTHING:
                self._on_reply()
            elif kind == REQUEST:
                if self._reply_timer is not None:
                    self._reply_timer.cancel()
                    self._reply_timer = None
                self._tried.clear()
                self._connect(socket.socket(fileno=files.pop()), content)
            for file in files:
                os.close(file)

    def _send(self, slot: int, request: bytes, connection: int) -> bool:
        return self._mailboxes.send(slot, REQUEST, self._slot, request, (connection,))
