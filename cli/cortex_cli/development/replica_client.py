"""Sends the project to a replica in development mode (the runtime's replica/development.py)."""

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cortex_cli.development.local_project import LocalFile, Version

_TIMEOUT = 30.0
"""Seconds without a byte from the replica. It sends a line every few seconds while it loads a version."""
_PART = 1 << 18
_UNASKED_BYTES = 1 << 20
"""Total size up to which changed files are sent without asking whether the replica has them."""
SUPERSEDED = "Superseded"


class Refused(Exception):
    """The replica did not accept the files: they changed while they were sent, or its disk is full."""


@dataclass(frozen=True)
class Outcome:
    """The result of loading a version.

    reason, message: why it could not be loaded; empty if it is in use. serves_previous: whether an earlier version is in use.
    """

    reason: str = ""
    message: str = ""
    serves_previous: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether the version is in use."""
        return not self.reason


class ReplicaClient:
    """A client of one replica. Threads may use it concurrently.

    connect: returns a new connection to the development port of the replica.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._idle: list[http.client.HTTPConnection] = []
        self._sent: set[str] = set()

    def load(
        self, version: Version, on_send: Callable[[int, int], None], on_step: Callable[[str], None]
    ) -> Outcome:
        """Send the files that the replica does not have, load the version, and return the result.

        on_send: called with the number of files and bytes before they are sent. on_step: called with what the replica does, if it
        takes longer. Raises OSError or HTTPException if the connection breaks, and Refused.
        """
        by_checksum = {file.sha256: file for file in version.values()}
        new = by_checksum.keys() - self._sent
        if new and (not self._sent or sum(by_checksum[each].size for each in new) > _UNASKED_BYTES):
            new = set(self._request("/missing", json.dumps(sorted(new)).encode()))
        paths = {name: [file.sha256, file.executable] for name, file in version.items()}
        body = json.dumps(paths).encode()
        while True:
            self._send([by_checksum[each] for each in sorted(new)], on_send)
            self._sent = set(by_checksum)
            result = self._load(body, on_step)
            if "missing" not in result:
                break
            new = set(result["missing"])
        if result["ready"]:
            return Outcome()
        return Outcome(result["reason"], result["message"], result["servesPrevious"])

    def _send(self, files: list[LocalFile], on_send: Callable[[int, int], None]) -> None:
        if not files:
            return
        size = sum(file.size for file in files)
        on_send(len(files), size)
        self._request("/files", _frames(files), str(size + 40 * len(files)))

    def _request(self, path: str, body: bytes | Iterable[bytes], length: str | None = None) -> Any:
        with self._connection() as connection:
            headers = {} if length is None else {"content-length": length}
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            content = json.loads(response.read())
            if response.status != 200:
                raise Refused(content["error"])
            return content

    def _load(self, body: bytes, on_step: Callable[[str], None]) -> dict[str, Any]:
        with self._connection() as connection:
            connection.request("POST", "/project", body)
            response = connection.getresponse()
            result: dict[str, Any] = {}
            for line in response:
                result = json.loads(line)
                if "step" in result:
                    on_step(result["step"])
            if not result or "step" in result:
                raise http.client.IncompleteRead(b"")
            if "error" in result:
                raise Refused(result["error"])
            return result

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        """Provide an idle or new connection. A connection with an error is closed."""
        connection = self._idle.pop() if self._idle else self._open()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def _open(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT)
        # A closed connection is not opened again by the library, which would connect to this machine.
        connection.auto_open = 0
        connection.sock = self._connect()
        connection.sock.settimeout(_TIMEOUT)
        return connection


def _frames(files: Iterable[LocalFile]) -> Iterator[bytes]:
    """Yield for each file its SHA-256, its size in 8 bytes, and its content. Raises Refused if a file has changed its size."""
    for file in files:
        yield bytes.fromhex(file.sha256) + file.size.to_bytes(8, "big")
        remaining = file.size
        with file.path.open("rb") as content:
            while remaining:
                part = content.read(min(_PART, remaining))
                if not part:
                    raise Refused(f"{file.path} was changed while it was sent")
                remaining -= len(part)
                yield part
