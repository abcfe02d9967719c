"""Decode text in the charset that a client declares."""

import codecs

from cortex_runtime.errors import UserError

_OF_PYTHON = frozenset(
    ("idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined", "unicode-escape")
)
"""Codecs of Python that are not charsets. The time that punycode and idna need grows with the square of the length."""


def require_charset(charset: str) -> None:
    """Raise UserError with status 415 if a charset is unknown."""
    try:
        known = codecs.lookup(charset).name not in _OF_PYTHON
    except (LookupError, ValueError):
        known = False
    if not known:
        raise UserError(f"charset {charset!r:.80} is unknown", 415)


def decode(data: bytes, charset: str) -> str:
    """Return text. Raises UserError: 415 for an unknown charset, 400 for bytes that are not valid in it."""
    require_charset(charset)
    try:
        return data.decode(charset)
    except LookupError as error:
        # A codec that is not for text, such as hex.
        raise UserError(f"charset {charset!r:.80} is unknown", 415) from error
    except ValueError as error:
        # Some codecs raise UnicodeError itself.
        raise UserError(f"the body is not valid {charset}: {error}") from error
