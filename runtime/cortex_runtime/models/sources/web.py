"""Files over HTTP: http:// and https://. A location is one file, because HTTP can't list folders."""

import base64
import binascii
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import httpx

from cortex_runtime.errors import StartError
from cortex_runtime.logs.own_requests import unlogged_requests
from cortex_runtime.models.download_progress import Progress
from cortex_runtime.models.sources.base import Changed, Entry, Listing
from cortex_runtime.models.sources.transfer import ContentPart, TransientError, retry, transfer

_HEADERS = {"accept-encoding": "identity", "user-agent": "cortex"}
_TIMEOUT = httpx.Timeout(20, connect=10)
_BUSY = (408, 425, 429)
_NO_HEAD = (400, 401, 403, 405, 501)
"""Statuses of HEAD after which GET may succeed: a signed URL is valid for one method."""


class WebSource:
    """One file. User and password in the URL are sent as basic authentication; messages contain neither them nor the query."""

    local: Path | None = None

    def __init__(self, location: str, wait: Callable[[float], object]) -> None:
        try:
            self._url = httpx.URL(location)
        except httpx.InvalidURL as error:
            raise StartError(
                "InvalidSpec", f"{location.partition('?')[0]} is not a valid URL: {error}"
            ) from error
        port = f":{self._url.port}" if self._url.port else ""
        self.shown = f"{self._url.scheme}://{self._url.host}{port}{self._url.path}"
        self._wait = wait
        if not self._url.host or self._url.path.endswith("/"):
            raise StartError(
                "InvalidSpec",
                f"{self.shown} must be the URL of a file, such as an .onnx file or an archive; HTTP can't list folders",
            )

    def listing(self, below: str = "") -> Listing:
        """Return the file. Raises StartError (ModelNotFound, ModelAccessDenied, ModelUnavailable)."""
        headers = retry(self._describe, self.shown, self._wait)
        length = headers.get("content-length", "")
        size = int(length) if length.isdecimal() else None
        return Listing((Entry(self._name(headers), size, _tag(headers)),), is_file=True)

    def fetch(self, entry: Entry, target: Path, progress: Progress) -> None:
        """Download the file. Raises StartError, and Changed if it has changed since it was listed."""

        @contextmanager
        def read(offset: int) -> Iterator[ContentPart]:
            headers = {}
            if offset:
                headers["range"] = f"bytes={offset}-"
                if entry.tag.startswith('"'):
                    headers["if-range"] = entry.tag
            with self._request("GET", headers) as answer:
                if not _same(entry.tag, _tag(answer.headers)):
                    raise Changed
                begin = _offset(answer)
                if begin not in (0, offset):
                    raise TransientError(
                        f"requested the content from byte {offset}; the server sent it from byte {begin}"
                    )
                yield ContentPart(
                    begin,
                    answer.iter_bytes(),
                    _md5(answer.headers) if answer.status_code == 200 else None,
                )

        transfer(read, target, entry.size, self.shown, progress)

    def _describe(self) -> Mapping[str, str]:
        with unlogged_requests(), _client() as client, self._translate_errors():
            head = client.head(self._url)
        if head.status_code in _NO_HEAD:
            with self._request("GET", {}) as answer:
                return answer.headers
        self._require_success(head)
        return head.headers

    @contextmanager
    def _request(self, method: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        with (
            unlogged_requests(),
            self._translate_errors(),
            _client() as client,
            client.stream(method, self._url, headers=headers) as answer,
        ):
            if answer.status_code == 416:
                raise TransientError("the server refused the requested range", restart=True)
            self._require_success(answer)
            yield answer

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.UnsupportedProtocol as error:
            raise StartError("ModelUnavailable", f"{self.shown}: {error}") from error
        except httpx.TransportError as error:
            if isinstance(_root(error), ssl.SSLCertVerificationError):
                raise StartError("ModelUnavailable", f"{self.shown}: {error}") from error
            raise TransientError(str(error) or type(error).__name__) from error
        except httpx.TooManyRedirects as error:
            raise StartError("ModelUnavailable", f"{self.shown}: {error}") from error

    def _require_success(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status in (200, 206):
            return
        text = f"{status} {answer.reason_phrase}".strip()
        if status in _BUSY or status >= 500:
            after = answer.headers.get("retry-after", "")
            raise TransientError(f"the server responded {text}", float(after) if after.isdecimal() else None)
        if status in (404, 410):
            raise StartError("ModelNotFound", f"{self.shown} does not exist ({text})")
        if status in (401, 403, 407):
            raise StartError("ModelAccessDenied", f"{self.shown}: access denied ({text})")
        raise StartError("ModelUnavailable", f"{self.shown}: the server responded {text}")

    def _name(self, headers: Mapping[str, str]) -> str:
        """Return the name of the file: from Content-Disposition, else the end of the URL."""
        named = re.search(r'filename="?([^";]+)"?', headers.get("content-disposition", ""))
        name = named[1] if named else unquote(self._url.path)
        return name.replace("\\", "/").rpartition("/")[2]


def _client() -> httpx.Client:
    return httpx.Client(headers=_HEADERS, timeout=_TIMEOUT, follow_redirects=True, max_redirects=10)


def _tag(headers: Mapping[str, str]) -> str:
    """Return a tag that changes with the content; "" if the server sends none, so that changes are not noticed."""
    return headers.get("etag") or headers.get("last-modified") or ""


def _same(listed: str, now: str) -> bool:
    """Return whether two tags may belong to the same content. An ETag and a time can't be compared."""
    return not listed or not now or listed == now or listed.endswith('"') != now.endswith('"')


def _offset(answer: httpx.Response) -> int:
    """Return the offset of the content of a response."""
    found = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
    return int(found[1]) if answer.status_code == 206 and found else 0


def _md5(headers: Mapping[str, str]) -> str | None:
    try:
        return base64.b64decode(headers["content-md5"], validate=True).hex()
    except (KeyError, binascii.Error):
        return None


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
