"""Check API keys (handler.apiKeys), for the workers of a RealtimeAPI and the gateway of an AsyncAPI.

The operator mounts a Secret as a folder with one file per key. The folder is read again when it changes, so that keys are rotated
without a restart. Several keys may be valid at once. An API without apiKeys does not run any of this code.
"""

import hashlib
import hmac
import logging
import os
import time
from pathlib import Path

from cortex_api import Document
from cortex_api.contract import API_KEYS_FOLDER, API_KEYS_VARIABLE
from cortex_runtime.errors import StartError

log = logging.getLogger("cortex")

MESSAGE = "an API key is required: send Authorization: Bearer KEY or X-API-Key: KEY"
CHECK_SECONDS = 1.0
"""Seconds between two checks of the folder for changes."""
_BEARER = b"bearer "


def load(document: Document) -> "ApiKeys | None":
    """Return the keys of an API, or None without handler.apiKeys. Raises StartError if the folder contains no key."""
    spec = document.spec.handler.api_keys
    if spec is None:
        return None
    return ApiKeys(Path(os.environ.get(API_KEYS_VARIABLE, API_KEYS_FOLDER)), document.name, spec.secret.name)


class ApiKeys:
    """The valid keys.

    folder: contains one file per key. realm: sent in the challenge of a 401. secret: name of the Secret, for the error message.
    Raises StartError if the folder contains no key.
    """

    def __init__(self, folder: Path, realm: str, secret: str) -> None:
        self._folder = folder
        # In this order: keys that change in between are read again.
        self._stamp, self._digests = _stamp(folder), _read(folder)
        self._next_check = time.monotonic() + CHECK_SECONDS
        self.challenge = (b"www-authenticate", f'Bearer realm="{realm}"'.encode())
        if not self._digests:
            raise StartError(
                "InvalidSpec",
                f"handler.apiKeys: {folder} contains no key, so no client could call the API. Check that"
                f" Secret {secret} exists in its namespace and has a key. Outside a cluster, {API_KEYS_VARIABLE} names"
                " a folder with one file per key",
            )

    def admits(self, headers: dict[bytes, bytes]) -> bool:
        """Return whether the headers contain a valid key. Takes the same time for every invalid key."""
        if time.monotonic() >= self._next_check:
            self._renew()
        authorization = headers.get(b"authorization", b"")
        shown = [headers.get(b"x-api-key", b"").strip()]
        if authorization[: len(_BEARER)].lower() == _BEARER:
            shown.append(authorization[len(_BEARER) :].strip())
        # Digests have equal lengths, and all of them are compared, so that the duration does not depend on the key.
        matches = [
            hmac.compare_digest(_digest(candidate), known) for candidate in shown for known in self._digests
        ]
        return any(matches)

    def _renew(self) -> None:
        self._next_check = time.monotonic() + CHECK_SECONDS
        stamp = _stamp(self._folder)
        if stamp != self._stamp:
            self._digests, self._stamp = _read(self._folder), stamp
            log.info("API keys reloaded: %d are valid", len(self._digests))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return a value that changes with the content. Kubernetes updates a mounted Secret as a whole, through the link ..data."""
    try:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(folder)]
    except OSError:
        return ()
    return tuple(sorted((name, status.st_mtime_ns, status.st_ino) for name, status in found))


def _read(folder: Path) -> tuple[bytes, ...]:
    """Return the digests of all keys. Strips whitespace around a key and ignores empty files."""
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
        keys = [path.read_bytes().strip() for path in files]
    except OSError as error:
        log.warning("cannot read the API keys: %s", error)
        return ()
    return tuple(_digest(key) for key in keys if key)
