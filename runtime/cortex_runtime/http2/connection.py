"""One connection of an HTTP/2 client: frames, streams and flow control (RFC 9113).

A violation of the protocol ends the connection with GOAWAY. A client that floods it with frames that cost the server more than
the client is disconnected the same way.
"""

import asyncio
import logging
import struct
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from cortex_runtime.http2 import hpack
from cortex_runtime.http2.call import HEADERS, SUCCESS, Call, Code, Status, framed, trailers

if TYPE_CHECKING:
    from cortex_runtime.http2.server import Server

log = logging.getLogger("cortex")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RST, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = range(10)
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
_NO_ERROR, _PROTOCOL_ERROR, _FLOW_CONTROL_ERROR, _STREAM_CLOSED, _FRAME_SIZE_ERROR = 0, 1, 3, 5, 6
_REFUSED_STREAM, _COMPRESSION_ERROR, _ENHANCE_YOUR_CALM = 7, 9, 11
_MAX_STREAMS, _INITIAL_WINDOW, _MAX_FRAME = 3, 4, 5

_STREAMS = 1000
"""Streams that a client may have open at once."""
_STREAM_WINDOW, _CONNECTION_WINDOW = 4 * 2**20, 16 * 2**20
"""Bytes that a client may send before the server grants more: large enough for a tensor without waiting."""
_FRAME = 2**20
"""Bytes of the largest frame that a client may send."""
_DEFAULT_WINDOW, _DEFAULT_FRAME, _LARGEST_WINDOW = 65535, 16384, 2**31 - 1
_HEADER_BLOCK = 64 * 1024
_FRAME_HEADER = 9
_PENDING = 2**20
"""Bytes of a stream that wait for the client before `Call.send` waits."""
_FLOOD, _FLOOD_SECONDS = 10_000, 10.0
"""Frames that ask for work without a request, and the time in which a client may send so many."""
_PREFACE_SECONDS = 20.0
_LAST = 2**31 - 1
_SETTING = struct.Struct(">HI")


class _Violation(Exception):
    """A violation of the protocol. code: of HTTP/2."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def _frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    head = b"%b%c%c%b" % (len(payload).to_bytes(3), kind, flags, stream.to_bytes(4))
    return b"".join((head, payload))


_GREETING = _frame(
    _SETTINGS,
    0,
    0,
    _SETTING.pack(_MAX_STREAMS, _STREAMS)
    + _SETTING.pack(_INITIAL_WINDOW, _STREAM_WINDOW)
    + _SETTING.pack(_MAX_FRAME, _FRAME),
) + _frame(_WINDOW, 0, 0, (_CONNECTION_WINDOW - _DEFAULT_WINDOW).to_bytes(4))


class Connection(asyncio.Protocol):
    """One connection. Used on the event loop alone."""

    transport: asyncio.Transport

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.calls: dict[int, Call] = {}
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._expected = 0
        self._greeted = self._closing = self._draining = self._drained = self._paused = False
        self._decoder = hpack.Decoder()
        self._last = 0
        self._block: tuple[int, int, bytearray] | None = None
        self._in_window, self._out_window = _CONNECTION_WINDOW, _DEFAULT_WINDOW
        self._initial_window, self._max_frame = _DEFAULT_WINDOW, _DEFAULT_FRAME
        self._blocked: dict[int, Call] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._flood, self._flood_since = 0, self._loop.time()

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the settings."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        self.server.connections.add(self)
        self.transport.write(_GREETING)
        self._loop.call_later(_PREFACE_SECONDS, self._require_preface)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all calls."""
        self._closing = True
        self.server.remove(self)
        for call in list(self.calls.values()):
            self._cancel(call)
        self.calls.clear()
        self._wake()

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self._paused = True

    def resume_writing(self) -> None:
        """Continue the calls that wait."""
        self._paused = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Handle the frames that are complete."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._expected:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        place, end = 0, len(data)
        if not self._greeted:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                # Not HTTP/2; a client of HTTP/1.1 gets no answer that it could read as one.
                self._closing = True
                self.transport.close()
                return
            if end >= len(PREFACE):
                self._greeted, place = True, len(PREFACE)
        self._expected = _FRAME_HEADER
        try:
            while end - place >= _FRAME_HEADER and self._greeted and not self._closing:
                size = data[place] << 16 | data[place + 1] << 8 | data[place + 2]
                if size > _FRAME:
                    raise _Violation(_FRAME_SIZE_ERROR, "the frame is too large")
                after = place + _FRAME_HEADER + size
                if after > end:
                    self._expected = after - place
                    break
                stream = int.from_bytes(data[place + 5 : place + 9]) & _LAST
                if data[place + 3] == _DATA and self._block is None:
                    view = memoryview(data)[place + _FRAME_HEADER : after]
                    self._on_data(data[place + 4], stream, view)
                else:
                    payload = data[place + _FRAME_HEADER : after]
                    self._handle(data[place + 3], data[place + 4], stream, payload)
                place = after
        except _Violation as violation:
            self._abort(violation.code, str(violation))
        except hpack.CompressionError as error:
            self._abort(_COMPRESSION_ERROR, str(error))
        if place < end and not self._closing:
            self._buffer += data[place:]

    def _require_preface(self) -> None:
        if not self._greeted:
            self.transport.close()

    # Frames

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and kind != _CONTINUATION:
            raise _Violation(_PROTOCOL_ERROR, "a header block is not complete")
        if kind == _HEADERS:
            if not stream % 2:
                raise _Violation(_PROTOCOL_ERROR, "a client's streams have odd numbers")
            payload = _unpadded(flags, payload)
            if flags & _PRIORITIZED:
                payload = payload[5:]
            self._on_block(flags, stream, flags & _END_STREAM, bytearray(payload))
        elif kind == _WINDOW:
            self._on_window(stream, payload)
        elif kind == _RST:
            if len(payload) != 4 or not stream:
                raise _Violation(_FRAME_SIZE_ERROR, "RST_STREAM is not valid")
            self._count_flood()
            call = self.calls.pop(stream, None)
            if call is not None:
                self._cancel(call)
                self._settle()
        elif kind == _SETTINGS:
            self._on_settings(flags, stream, payload)
        elif kind == _PING:
            if len(payload) != 8 or stream:
                raise _Violation(_FRAME_SIZE_ERROR, "PING is not valid")
            if flags & _ACK:
                self._on_pong()
            else:
                self._count_flood()
                self.transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _CONTINUATION:
            if self._block is None or self._block[0] != stream:
                raise _Violation(_PROTOCOL_ERROR, "CONTINUATION without HEADERS")
            self._count_flood()
            self._on_block(flags, stream, self._block[1], self._block[2] + payload)
        elif kind == _PUSH:
            raise _Violation(_PROTOCOL_ERROR, "a client must not push")
        # GOAWAY, PRIORITY and unknown frames need no action.

    def _on_block(self, flags: int, stream: int, ends: int, block: bytearray) -> None:
        """A part of a header block has arrived."""
        if len(block) > _HEADER_BLOCK:
            raise _Violation(_ENHANCE_YOUR_CALM, "the headers are too large")
        if not flags & _END_HEADERS:
            self._block = stream, ends, block
            return
        self._block = None
        headers = dict(self._decoder.decode(bytes(block)))
        call = self.calls.get(stream)
        if call is not None:
            if not ends:
                raise _Violation(_PROTOCOL_ERROR, "headers within the data of a request")
            self._on_end(call)
        elif stream > self._last and not self._drained:
            self._last = stream
            self._open(stream, headers, bool(ends))
        # Else the server has ended the stream before the client did, or has told the client that it opens no more.

    def _open(self, stream: int, headers: dict[bytes, bytes], ends: bool) -> None:
        if b":path" not in headers or b":method" not in headers:
            raise _Violation(_PROTOCOL_ERROR, "a request without :method and :path")
        if len(self.calls) >= _STREAMS:
            self.transport.write(_frame(_RST, 0, stream, _REFUSED_STREAM.to_bytes(4)))
            return
        method = self.server.methods.get(headers[b":path"])
        grpc = headers.get(b"content-type", b"").startswith(b"application/grpc")
        if not grpc or headers[b":method"] != b"POST":
            # The status that gRPC asks for; what is not gRPC is HTTP of another port.
            block = hpack.encode([(b":status", b"415")])
            self.transport.write(_frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, block))
            return
        if method is None:
            path = headers[b":path"][:200].decode("latin-1")
            self._end_unopened(stream, Status(Code.UNIMPLEMENTED, f"method {path} does not exist"))
            return
        call = Call(self, stream, headers, method, (_STREAM_WINDOW, self._initial_window))
        self.calls[stream] = call
        if method.stream is not None:
            call.task = self._start(self._run_stream(call))
        if ends:
            self._on_end(call)

    def _on_data(self, flags: int, stream: int, payload: memoryview) -> None:
        size = len(payload)
        self._in_window -= size
        if self._in_window < 0:
            raise _Violation(_FLOW_CONTROL_ERROR, "more data than the window of the connection")
        if self._in_window <= _CONNECTION_WINDOW // 2:
            grant = _CONNECTION_WINDOW - self._in_window
            self._in_window = _CONNECTION_WINDOW
            self.transport.write(_frame(_WINDOW, 0, 0, grant.to_bytes(4)))
        call = self.calls.get(stream)
        if call is None:
            if not stream or (stream > self._last and not self._drained):
                raise _Violation(_PROTOCOL_ERROR, "data of a stream that is not open")
            return
        if call.ended:
            raise _Violation(_STREAM_CLOSED, "data after the end of a stream")
        call.in_window -= size
        if call.in_window < 0:
            raise _Violation(_FLOW_CONTROL_ERROR, "more data than the window of the stream")
        if not size and not flags & _END_STREAM:
            self._count_flood()
        try:
            call.feed(_unpadded(flags, payload) if flags & _PADDED else payload)
        except Status as status:
            self.end(call, status)
            return
        if flags & _END_STREAM:
            self._on_end(call)
        else:
            self.grant(call)

    def grant(self, call: Call) -> None:
        """Let a client send more of a request, unless its handler is slower."""
        if call.in_window <= _STREAM_WINDOW // 2 and not call.is_slow and not call.ended:
            grant = _STREAM_WINDOW - call.in_window
            call.in_window = _STREAM_WINDOW
            self.transport.write(_frame(_WINDOW, 0, call.identity, grant.to_bytes(4)))

    def _on_end(self, call: Call) -> None:
        """The client has sent its whole request."""
        if call.ended:
            raise _Violation(_STREAM_CLOSED, "headers after the end of a stream")
        try:
            call.end()
            if call.method.unary is None:
                return
            message = call.only_message()
            inline = call.method.inline
            if inline is not None and (response := inline(message, call)) is not None:
                self.respond(call, response)
                return
        except Status as status:
            self.end(call, status)
            return
        call.task = self._start(self._run_unary(call, message))

    def _on_window(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _Violation(_FRAME_SIZE_ERROR, "WINDOW_UPDATE is not valid")
        grant = int.from_bytes(payload) & _LAST
        if not grant:
            raise _Violation(_PROTOCOL_ERROR, "a window must grow")
        if not stream:
            self._out_window += grant
            if self._out_window > _LARGEST_WINDOW:
                raise _Violation(_FLOW_CONTROL_ERROR, "the window of the connection is too large")
            for call in list(self._blocked.values()):
                self._flush(call)
        elif stream in self.calls:
            call = self.calls[stream]
            call.out_window += grant
            if call.out_window > _LARGEST_WINDOW:
                raise _Violation(_FLOW_CONTROL_ERROR, "the window of a stream is too large")
            if call.out:
                self._flush(call)

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) % 6 or (flags & _ACK and payload):
            raise _Violation(_FRAME_SIZE_ERROR, "SETTINGS is not valid")
        if flags & _ACK:
            return
        self._count_flood()
        for name, value in _SETTING.iter_unpack(payload):
            if name == _INITIAL_WINDOW:
                if value > _LARGEST_WINDOW:
                    raise _Violation(_FLOW_CONTROL_ERROR, "the initial window is too large")
                for call in self.calls.values():
                    call.out_window += value - self._initial_window
                self._initial_window = value
            elif name == _MAX_FRAME:
                if not _DEFAULT_FRAME <= value < 2**24:
                    raise _Violation(_PROTOCOL_ERROR, "the frame size is not valid")
                self._max_frame = value
        self.transport.write(_frame(_SETTINGS, _ACK, 0))
        for call in list(self._blocked.values()):
            self._flush(call)

    # Calls

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a call in a context of its own."""
        return self._loop.create_task(coroutine, context=self.server.context.copy())

    async def _run_unary(self, call: Call, message: bytes) -> None:
        assert call.method.unary is not None
        try:
            response = await call.method.unary(message, call)
        except Exception as error:
            self.end(call, _status_of(error, call))
        else:
            self.respond(call, response)

    async def _run_stream(self, call: Call) -> None:
        assert call.method.stream is not None
        try:
            await call.method.stream(call)
        except Exception as error:
            self.end(call, _status_of(error, call))
        else:
            self.end(call, None)

    def respond(self, call: Call, message: bytes) -> None:
        """Send the only message of a response, and its end."""
        size, stream = len(message) + 5, call.identity
        if (
            size <= self._out_window
            and size <= call.out_window
            and size <= self._max_frame
            and not call.started
        ):
            if self.calls.pop(stream, None) is None:
                return
            self._out_window -= size
            head = HEADERS + call.added
            # Joined at once: these are all bytes of a small response.
            self.transport.write(
                b"%b\1\4%b%b%b\0\0%b\0%b%b%b\1\5%b%b"
                % (
                    len(head).to_bytes(3),
                    stream.to_bytes(4),
                    head,
                    size.to_bytes(3),
                    stream.to_bytes(4),
                    (size - 5).to_bytes(4),
                    message,
                    len(SUCCESS).to_bytes(3),
                    stream.to_bytes(4),
                    SUCCESS,
                )
            )
            self._settle()
            return
        self.send_message(call, message)
        self.end(call, None)

    def send_message(self, call: Call, message: bytes) -> None:
        """Send a message; what exceeds the client's window is sent later."""
        if call.identity not in self.calls:
            return
        self._send_headers(call)
        call.out.append(memoryview(framed(message)))
        self._flush(call)

    def end(self, call: Call, status: Status | None) -> None:
        """Send the trailers after the messages. status: None for success."""
        if call.identity not in self.calls:
            return
        if call.started:
            call.trailers = SUCCESS if status is None else hpack.encode(trailers(status))
            self._flush(call)
            return
        block = HEADERS + call.added + hpack.encode(trailers(status))
        self.transport.write(_frame(_HEADERS, _END_HEADERS | _END_STREAM, call.identity, block))
        self._close_stream(call)

    def _end_unopened(self, stream: int, status: Status) -> None:
        block = HEADERS + hpack.encode(trailers(status))
        self.transport.write(_frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, block))

    def _send_headers(self, call: Call) -> None:
        if not call.started:
            call.started = True
            block = HEADERS + call.added
            self.transport.write(_frame(_HEADERS, _END_HEADERS, call.identity, block))

    def _flush(self, call: Call) -> None:
        """Send what the windows allow."""
        out, parts = call.out, []
        while out:
            size = min(len(out[0]), self._out_window, call.out_window, self._max_frame)
            if size <= 0:
                break
            parts.append(_frame(_DATA, 0, call.identity, out[0][:size]))
            self._out_window -= size
            call.out_window -= size
            if size == len(out[0]):
                out.popleft()
            else:
                out[0] = out[0][size:]
        if parts:
            self.transport.write(b"".join(parts))
        if out:
            self._blocked[call.identity] = call
            return
        self._blocked.pop(call.identity, None)
        if call.trailers is not None:
            self.transport.write(_frame(_HEADERS, _END_HEADERS | _END_STREAM, call.identity, call.trailers))
            self._close_stream(call)
        self._wake()

    async def writable(self, call: Call) -> None:
        """Wait until the client has read most of what it was sent."""
        while not self._closing and (self._paused or sum(map(len, call.out)) > _PENDING):
            waiter = self._loop.create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _close_stream(self, call: Call) -> None:
        del self.calls[call.identity]
        if not call.ended:
            self.transport.write(_frame(_RST, 0, call.identity, _NO_ERROR.to_bytes(4)))
            if call.task is not None and call.task is not asyncio.current_task():
                call.task.cancel()
        self._settle()

    def _cancel(self, call: Call) -> None:
        """End a call that the client has left."""
        self._blocked.pop(call.identity, None)
        if call.task is not None:
            call.task.cancel()

    # The end of the connection

    def drain(self) -> None:
        """Ask the client to open no further streams on this connection, and close it after the last call."""
        if self._draining or self._closing:
            return
        self._draining = True
        self.transport.write(_goaway(_LAST, _NO_ERROR) + _frame(_PING, 0, 0, b"draining"))
        # A client that does not answer gets the final message later.
        self._loop.call_later(1.0, self._on_pong)

    def _on_pong(self) -> None:
        """The client knows that the connection drains, so it sends no further calls."""
        if self._draining and not self._drained and not self._closing:
            self._drained = True
            self.transport.write(_goaway(self._last, _NO_ERROR))
            self._settle()

    def _settle(self) -> None:
        """Close a connection that drains after its last call."""
        if self._drained and not self.calls and not self._closing:
            self._closing = True
            self.transport.close()

    def _count_flood(self) -> None:
        self._flood += 1
        if self._flood > _FLOOD:
            now = self._loop.time()
            if now - self._flood_since < _FLOOD_SECONDS:
                raise _Violation(_ENHANCE_YOUR_CALM, "too many frames without a request")
            self._flood, self._flood_since = 0, now

    def _abort(self, code: int, message: str) -> None:
        self._closing = True
        self.transport.write(_goaway(self._last, code, message.encode()))
        self.transport.close()


def _goaway(last: int, code: int, message: bytes = b"") -> bytes:
    return _frame(_GOAWAY, 0, 0, last.to_bytes(4) + code.to_bytes(4) + message)


def _unpadded(flags: int, payload: Any) -> Any:
    """Return the payload of a frame without its padding."""
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise _Violation(_PROTOCOL_ERROR, "the padding is not valid")
    return payload[1 : len(payload) - payload[0]]


def _status_of(error: Exception, call: Call) -> Status:
    if isinstance(error, Status):
        return error
    log.error("the call %s failed", call.path.decode("latin-1"), exc_info=error)
    return Status(Code.INTERNAL, "internal server error")
