"""Who may use the page: only the browser that opened the URL with the token.

The server listens on a loopback address, but every process and every web page on this machine can connect to it. The token keeps
out other users and processes. The checks of Host and Origin keep out web pages: those whose name resolves to this machine (DNS
rebinding), and those that send requests from the user's browser.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, parse_qsl, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost", "[::1]")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy: no inline script or style, nothing from another origin, no frame around the page."""
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # With no-referrer, browsers send `Origin: null` with the forms of the page.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
"""Of all responses; the application may permit a cache to keep a file."""
_SAFE = ("GET", "HEAD")


class Guard:
    """ASGI middleware that refuses requests which do not come from the page itself.

    token: the secret of the URL. port: of the server. command: the command that serves the page and printed its URL.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, command: str) -> None:
        self._app = app
        self._token = token
        self._command = command
        self._hosts = {f"{name}:{port}" for name in NAMES}
        # Cookies of a host are shared by all its ports, so the name tells the pages of two servers apart.
        self._cookie = f"cortex-ui-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request, exchange the token for a cookie, or call the application."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._refusal(scope["method"], headers):
            await _answer(send, 403, refusal)
            return
        query = scope["query_string"].decode("latin-1")
        given = parse_qs(query).get("token", [""])[0]
        if given and self._is_token(given):
            rest = urlencode([(key, value) for key, value in parse_qsl(query) if key != "token"])
            # The path of the request, not the decoded one: the target must be a path of this server.
            path = "/" + scope["raw_path"].decode("latin-1").split("?")[0].lstrip("/")
            cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            location = path + (f"?{rest}" if rest else "")
            await _answer(send, 303, "", [(b"location", location.encode()), (b"set-cookie", cookie.encode())])
            return
        if not self._is_token(_cookie(headers.get("cookie", ""), self._cookie)):
            text = f"open the URL that `{self._command}` printed: it contains the token of this page"
            await _answer(send, 401, text)
            return
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, method: str, headers: dict[str, str]) -> str:
        host = headers.get("host", "")
        if host not in self._hosts:
            return f"the Host header must be one of {', '.join(sorted(self._hosts))}"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "requests from another origin are not allowed"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            is_link = method in _SAFE and headers.get("sec-fetch-mode") == "navigate"
            if not is_link:
                return "requests from another site are not allowed"
        if method not in _SAFE and origin is None:
            return "the Origin header is missing"
        return ""

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def wrapper(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in _HEADERS} - {b"cache-control"}
            kept = [(name, value) for name, value in message["headers"] if name.lower() not in names]
            is_kept = any(name == b"cache-control" for name, _ in kept)
            added = [header for header in _HEADERS if header[0] in names or not is_kept]
            message = {**message, "headers": [*kept, *added]}
        await send(message)

    return wrapper


async def _answer(send: Send, status: int, text: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    start = [*headers, (b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": f"{text}\n".encode() if text else b""})
