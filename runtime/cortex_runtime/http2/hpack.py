"""Header compression of HTTP/2 (RFC 7541): a decoder, and the encoding of headers that are not compressed."""

from collections import deque
from collections.abc import Iterable
from functools import lru_cache

Headers = list[tuple[bytes, bytes]]

_STATIC_NAMES = (
    ":authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200 :status=204 :status=206"
    " :status=304 :status=400 :status=404 :status=500 accept-charset accept-encoding=gzip,_deflate accept-language accept-ranges"
    " accept access-control-allow-origin age allow authorization cache-control content-disposition content-encoding"
    " content-language content-length content-location content-range content-type cookie date etag expect expires from host"
    " if-match if-modified-since if-none-match if-range if-unmodified-since last-modified link location max-forwards"
    " proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie strict-transport-security"
    " transfer-encoding user-agent vary via www-authenticate"
)
_STATIC: list[tuple[bytes, bytes]] = []
for _entry in _STATIC_NAMES.split(" "):
    _name, _, _value = _entry.partition("=")
    _STATIC.append((_name.encode(), _value.replace("_", " ").encode()))

_CODE_LENGTHS = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6f565"
    "65666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmnqqkjmnmp"
    "qqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)
"""For each byte, and for the end of a string, the length in bits of its Huffman code, as a digit of base 31. The code is
canonical: codes of one length are consecutive numbers, in the order of their symbols.
"""
_LARGEST_TABLE = 4096
"""Bytes of the dynamic table that a client may use: the default of the protocol."""
_LARGEST_LIST = 64 * 1024
"""Bytes of the headers of one request, each with the overhead of 32 that the protocol counts."""
_CACHED = 64
_OVERHEAD = 32


class CompressionError(Exception):
    """A header block that cannot be decoded, after which the connection cannot be used."""


class Decoder:
    """The decoder of one connection. Blocks that change no state are cached, since clients repeat them for each request."""

    def __init__(self) -> None:
        self._dynamic: deque[tuple[bytes, bytes]] = deque()
        self._size = 0
        self._limit = _LARGEST_TABLE
        self._cache: dict[bytes, Headers] = {}

    def decode(self, block: bytes) -> Headers:
        """Return the headers of a block, in order. Raises CompressionError."""
        known = self._cache.get(block)
        if known is not None:
            return known
        try:
            headers, changed = self._decode(block)
        except IndexError:
            raise CompressionError("the header block is incomplete") from None
        if changed:
            self._cache.clear()
        else:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[block] = headers
        return headers

    def _decode(self, block: bytes) -> tuple[Headers, bool]:
        headers: Headers = []
        changed, place, total = False, 0, 0
        while place < len(block):
            first = block[place]
            if first & 0x80:
                index, place = _integer(block, place, 7)
                header = self._entry(index)
            elif first & 0xE0 == 0x20:
                limit, place = _integer(block, place, 5)
                if limit > _LARGEST_TABLE or headers:
                    raise CompressionError("the size of the dynamic table is not valid")
                self._limit, changed = limit, True
                self._evict(0)
                continue
            else:
                indexed = first & 0x40
                index, place = _integer(block, place, 6 if indexed else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, place = _string(block, place)
                value, place = _string(block, place)
                header = name, value
                if indexed:
                    changed = True
                    size = len(name) + len(value) + _OVERHEAD
                    self._evict(size)
                    if size <= self._limit:
                        self._dynamic.appendleft(header)
                        self._size += size
            headers.append(header)
            total += len(header[0]) + len(header[1]) + _OVERHEAD
            if total > _LARGEST_LIST:
                raise CompressionError("the headers are too large")
        return headers, changed

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if 0 < index <= len(_STATIC):
            return _STATIC[index - 1]
        if not 0 < index <= len(_STATIC) + len(self._dynamic):
            raise CompressionError(f"header {index} does not exist")
        return self._dynamic[index - len(_STATIC) - 1]

    def _evict(self, needed: int) -> None:
        """Remove the oldest entries until there is room."""
        while self._dynamic and self._size + needed > self._limit:
            name, value = self._dynamic.pop()
            self._size -= len(name) + len(value) + _OVERHEAD


def encode(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the block of headers as literals that no table keeps."""
    parts = []
    for name, value in headers:
        parts += [b"\0", _length(len(name)), name, _length(len(value)), value]
    return b"".join(parts)


def _length(size: int) -> bytes:
    if size < 127:
        return bytes((size,))
    size -= 127
    coded = [127]
    while size >= 128:
        coded.append(size % 128 + 128)
        size //= 128
    return bytes((*coded, size))


def _integer(block: bytes, place: int, bits: int) -> tuple[int, int]:
    """Return the integer at a place, whose first byte has this many bits of it, and the place after it."""
    mask = (1 << bits) - 1
    value = block[place] & mask
    place += 1
    if value < mask:
        return value, place
    for shift in range(0, 28, 7):
        byte = block[place]
        place += 1
        value += (byte & 127) << shift
        if byte < 128:
            return value, place
    raise CompressionError("an integer in the header block is too large")


def _string(block: bytes, place: int) -> tuple[bytes, int]:
    """Return the string at a place, and the place after it."""
    compressed = block[place] & 0x80
    size, place = _integer(block, place, 7)
    end = place + size
    if end > len(block):
        raise CompressionError("a string reaches beyond the header block")
    content = block[place:end]
    return (_huffman(content) if compressed else content), end


def _symbols() -> dict[tuple[int, int], int]:
    """Return the symbol of each Huffman code, by its length and number."""
    lengths = [int(digit, 31) for digit in _CODE_LENGTHS]
    codes, code, previous = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code <<= length - previous
        codes[length, code] = symbol
        code, previous = code + 1, length
    return codes


_SYMBOLS = _symbols()
_END = 256


@lru_cache(256)
def _huffman(content: bytes) -> bytes:
    """Return a string from its Huffman code. Raises CompressionError."""
    decoded = bytearray()
    length = code = 0
    for byte in content:
        for shift in (7, 6, 5, 4, 3, 2, 1, 0):
            code = code << 1 | (byte >> shift & 1)
            length += 1
            symbol = _SYMBOLS.get((length, code))
            if symbol is not None:
                if symbol == _END:
                    raise CompressionError("a string contains the end of a string")
                decoded.append(symbol)
                length = code = 0
    if length > 7 or code != (1 << length) - 1:
        raise CompressionError("the end of a string is not valid")
    return bytes(decoded)
