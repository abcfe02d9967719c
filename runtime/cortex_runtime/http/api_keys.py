"""The keys that clients have to show (handler.apiKeys): for the workers of a RealtimeAPI and the gateway of an AsyncAPI.

They are the files of a folder, one key each, which the operator mounts from a Secret. The folder is read again when it changes,
so that keys come and go without a restart; several are valid at once. An API without apiKeys has none of this in its path.
"""

import hashlib
import hmac
import logging
import os
import time
from pathlib import Path

from cortex_api import Document
from cortex_runtime.errors import StartError

log = logging.getLogger("cortex")

VARIABLE = "CORTEX_API_KEYS"
"""Names the folder."""
MESSAGE = "an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"
CHECK_SECONDS = 1.0
"""How long a change of the folder may go unnoticed."""
_BEARER = b"bearer "


def of(document: Document) -> "ApiKeys | None":
    """The keys of an API; None when it asks for none. Raises StartError when it asks for some and none are there."""
    asked = document.spec.handler.api_keys
    if asked is None:
        return None
    return ApiKeys(Path(os.environ.get(VARIABLE, "/etc/cortex-keys")), document.name, asked.secret.name)


class ApiKeys:
    """Valid keys. folder: its files are the keys. realm: what a refused client is told that the keys are for. secret: where the
    keys come from in a cluster, for the message of the StartError when there are none.
    """

    def __init__(self, folder: Path, realm: str, secret: str) -> None:
        self._folder = folder
        self._digests, self._stamp = _read(folder), _stamp(folder)
        self._next_check = time.monotonic() + CHECK_SECONDS
        self.challenge = (b"www-authenticate", f'Bearer realm="{realm}"'.encode())
        if not self._digests:
            raise StartError(
                "InvalidSpec",
                f"handler.apiKeys: there is no key in {folder}, so nobody could call the API. Is there a Secret {secret} in its"
                f" namespace, with a key in it? Outside a cluster, {VARIABLE} names a folder with a file for each key",
            )

    def admits(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a request shows a valid key; takes the same time for every wrong one."""
        if time.monotonic() >= self._next_check:
            self._renew()
        authorization = headers.get(b"authorization", b"")
        shown = [headers.get(b"x-api-key", b"").strip()]
        if authorization[: len(_BEARER)].lower() == _BEARER:
            shown.append(authorization[len(_BEARER) :].strip())
        # Digests have one length, and no comparison ends early, nor does the list of them.
        matches = [
            hmac.compare_digest(_digest(candidate), known) for candidate in shown for known in self._digests
        ]
        return any(matches)

    def _renew(self) -> None:
        self._next_check = time.monotonic() + CHECK_SECONDS
        stamp = _stamp(self._folder)
        if stamp != self._stamp:
            self._digests, self._stamp = _read(self._folder), stamp
            log.info("API keys read again: %d are valid", len(self._digests))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes with the content. A mounted Secret changes as a whole, by a link (..data) in the folder."""
    try:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(folder)]
    except OSError:
        return ()
    return tuple(sorted((name, status.st_mtime_ns, status.st_ino) for name, status in found))


def _read(folder: Path) -> tuple[bytes, ...]:
    """The digests of all keys; space around a key is no part of it, and an empty file is none."""
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
        keys = [path.read_bytes().strip() for path in files]
    except OSError as error:
        log.warning("the API keys can't be read: %s", error)
        return ()
    return tuple(_digest(key) for key in keys if key)
