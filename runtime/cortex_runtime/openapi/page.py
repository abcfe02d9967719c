"""The page at /docs, which shows the OpenAPI document of an API. It contains nothing of the API, so it needs no API key.

Its files are in the folder `page`. A browser loads them, and the document, by relative URLs: a route may strip a prefix of the
path, and the runtime does not know it.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parent / "page"
_INDEX = "index.html"
_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; {scripts}; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; media-src blob:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_GO = "location.replace(location.pathname.replace(/\\/*$/, '/docs') + location.hash)"
"""Opens the page from the root of the API. Only the browser knows whether the path before the prefix was stripped ends with /."""
_ENTRY = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>API</title>
<script>{_GO}</script>
<p>The documentation of this API is at <a href="docs">docs</a>.</p>
</html>
""".encode()


class File(NamedTuple):
    """A file as a response. kind: content type. headers: further headers."""

    kind: bytes
    headers: list[tuple[bytes, bytes]]
    content: bytes


def read(name: str) -> File | None:
    """Return a file of the page; None if it does not exist. name: "" for the page itself."""
    return _files().get(name or _INDEX)


@cache
def _files() -> dict[str, File]:
    """Return all files of the page by name. Names in requests never become paths of files."""
    return {
        file.name: _file(_TYPES[file.suffix], "script-src 'self'", file.read_bytes())
        for file in _FOLDER.iterdir()
        if file.suffix in _TYPES
    }


@cache
def entry() -> File:
    """Return the response to a browser that opens the root of the API."""
    digest = base64.b64encode(hashlib.sha256(_GO.encode()).digest()).decode()
    return _file(_TYPES[".html"], f"script-src 'sha256-{digest}'", _ENTRY)


def _file(kind: bytes, scripts: str, content: bytes) -> File:
    headers = [
        (b"content-security-policy", _POLICY.format(scripts=scripts).encode()),
        (b"cache-control", b"no-cache"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
        # Responses to requests for / depend on it.
        (b"vary", b"accept"),
    ]
    return File(kind, headers, content)
