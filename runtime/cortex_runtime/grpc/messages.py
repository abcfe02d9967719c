"""Messages on the wire: a flag, the length, and the message, which may be compressed."""

from collections import deque

from cortex_runtime.grpc.calls import CallError
from cortex_runtime.grpc.status import StatusCode

ENCODINGS = b"identity, deflate, gzip"
"""What requests may be compressed with. Responses are not compressed."""
_PREFIX = 5
_LARGE = 64 * 1024


def frame(message: bytes) -> tuple[bytes, ...]:
    """Return a message as it is sent, in one part, or in two if it is large: it is not copied then."""
    prefix = b"\0" + len(message).to_bytes(4)
    return (prefix + message,) if len(message) < _LARGE else (prefix, message)


class MessageReader:
    """Finds messages in the bytes of a request.

    encoding: the header grpc-encoding, or None. max_size: bytes of a message, after decompression too.
    """

    def __init__(self, encoding: bytes | None, max_size: int) -> None:
        self._encoding, self._max_size = encoding, max_size
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """Add bytes of the request."""
        if chunk:
            self._chunks.append(chunk)
            self._size += len(chunk)

    @property
    def is_empty(self) -> bool:
        """Whether no part of a message is left."""
        return self._size == 0

    def next(self) -> bytes | None:
        """Return the next message, or None if it is not complete. Raises CallError."""
        if self._size < _PREFIX:
            return None
        if len(self._chunks[0]) < _PREFIX:
            self._chunks = deque([b"".join(self._chunks)])
        first = self._chunks[0]
        length = int.from_bytes(first[1:_PREFIX])
        if length > self._max_size:
            raise _too_large(length, self._max_size)
        size = _PREFIX + length
        if self._size < size:
            return None
        is_compressed = first[0] != 0
        message = self._take(first, size)
        return self._decompress(message) if is_compressed else message

    def _take(self, first: bytes, size: int) -> bytes:
        """Remove a message, and return it without its prefix. size: bytes of both."""
        self._size -= size
        if len(first) >= size:
            if len(first) == size:
                self._chunks.popleft()
            else:
                self._chunks[0] = first[size:]
            return first[_PREFIX:size]
        self._chunks.popleft()
        parts, left = [memoryview(first)[_PREFIX:]], size - len(first)
        while left:
            chunk = self._chunks.popleft()
            parts.append(memoryview(chunk)[:left])
            if len(chunk) > left:
                self._chunks.appendleft(chunk[left:])
            left -= len(parts[-1])
        return b"".join(parts)

    def _decompress(self, message: bytes) -> bytes:
        if self._encoding in (None, b"identity"):
            # The specification of gRPC requires this code here, and UNIMPLEMENTED below.
            text = "a message is compressed, and the call has no grpc-encoding"
            raise CallError(StatusCode.INTERNAL, text)
        assert self._encoding is not None
        from cortex_runtime import compression

        if self._encoding not in compression.WINDOW_BITS:
            name = self._encoding.decode("latin-1")[:40]
            text = f"grpc-encoding {name!r} is not supported; use {ENCODINGS.decode()}"
            raise CallError(StatusCode.UNIMPLEMENTED, text)
        decompressor = compression.decompressor(self._encoding)
        try:
            content = decompressor.decompress(message, self._max_size + 1)
        except compression.CompressionError as error:
            name = self._encoding.decode()
            text = f"a message is not valid {name}: {error}"
            raise CallError(StatusCode.INVALID_ARGUMENT, text) from None
        if len(content) > self._max_size:
            raise _too_large(len(content), self._max_size)
        if not decompressor.eof:
            raise CallError(StatusCode.INVALID_ARGUMENT, "a compressed message is incomplete")
        return content


def _too_large(size: int, limit: int) -> CallError:
    text = f"the message is larger than max ({size} vs. {limit})"
    return CallError(StatusCode.RESOURCE_EXHAUSTED, text)
