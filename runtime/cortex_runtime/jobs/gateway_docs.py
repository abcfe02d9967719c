"""The OpenAPI document of an AsyncAPI and its page. What they need is imported at the first request."""

import asyncio

from starlette.types import Scope

from cortex_api import Document
from cortex_runtime.http.response import TEXT
from cortex_runtime.jobs.interface import InterfaceReader
from cortex_runtime.queues.base import Backend

Found = tuple[int, bytes, bytes, list[tuple[bytes, bytes]]]
"""Status, content type, body and further headers."""
_DOCUMENT, _PAGE = "/openapi.json", "/docs"


class GatewayDocs:
    """Finds the requests for them, and answers these."""

    def __init__(self, api: Document, backend: Backend) -> None:
        self._api = api
        self._interface = InterfaceReader(backend)
        self._known: tuple[bytes, bytes] | None = None

    def asks_for_document(self, scope: Scope) -> bool:
        """Return whether a request reads the document."""
        return scope["path"] == _DOCUMENT and scope["method"] in ("GET", "HEAD")

    def serves(self, path: str) -> bool:
        """Return whether a path is that of the document or of the page."""
        return path in (_DOCUMENT, _PAGE)

    async def document(self) -> bytes:
        """Return the document, with the types of the handler if a worker has stored them."""
        interface = await self._interface.read()
        if self._known is None or self._known[0] != interface:
            self._known = interface, await asyncio.to_thread(self._write, interface)
        return self._known[1]

    def _write(self, interface: bytes) -> bytes:
        from cortex_runtime.openapi import jobs

        return jobs.document(self._api, jobs.read(interface))

    def page(self, scope: Scope) -> Found | None:
        """Return the response to a request for the page or one of its files, which need no API key; None for other requests."""
        path: str = scope["path"]
        is_root = path == "/" and _is_browser(scope)
        if scope["method"] not in ("GET", "HEAD") or not (
            is_root or path == _PAGE or path.startswith(f"{_PAGE}/")
        ):
            return None
        if path == f"{_PAGE}/":
            return 307, TEXT, b"", [(b"location", b"../docs")]
        from cortex_runtime.openapi import page

        found = page.entry() if is_root else page.read(path[len(_PAGE) + 1 :])
        if found is None:
            return None
        return 200, found.kind, found.content, found.headers


def _is_browser(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
