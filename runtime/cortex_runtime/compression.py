"""gzip and deflate with ISA-L, which takes a fraction of the time of zlib. Imported only for compressed bodies."""

from isal import isal_zlib
from isal.isal_zlib import Decompress

WINDOW_BITS = {b"gzip": isal_zlib.MAX_WBITS | 16, b"deflate": isal_zlib.MAX_WBITS}
"""By the name of the coding in HTTP and gRPC. What they call deflate is the format of zlib (RFC 9110, section 8.4.1.2)."""
_LEVEL = 2
"""Of 0 to 3. Level 3 takes several times as long, and tensors of numbers hardly shrink further."""

# Its type stub says that it is an exception, not a class.
CompressionError: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment]


def decompressor(coding: bytes) -> Decompress:
    """Return a decompressor with the interface of those of zlib. It raises CompressionError. coding: a key of WINDOW_BITS."""
    return isal_zlib.decompressobj(WINDOW_BITS[coding])


def compress(content: bytes, coding: bytes) -> bytes:
    """Return compressed content. coding: a key of WINDOW_BITS."""
    return isal_zlib.compress(content, _LEVEL, WINDOW_BITS[coding])
