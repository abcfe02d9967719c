"""Mailboxes between the workers of one replica: one per slot, read by its worker and written by all others.

The supervisor creates them and keeps both ends open, so messages to a dead worker are not lost. A message has a kind, the slot of
its sender, a content and optionally open files.
"""

import contextlib
import errno
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ASK, NOTHING, WAITING, TURN, REQUEST = b"a", b"n", b"w", b"t", b"r"
"""Ask for a request; no request is queued; a request is queued; accept the next connection; a request with its connection."""
_LARGEST = 16_000
"""Bytes of content that fit in a message; larger content is passed as a file."""


class Message(NamedTuple):
    """A received message. files: descriptors that the receiver must close."""

    kind: bytes
    sender: int
    content: bytes
    files: list[int]


class Mailboxes:
    """The mailboxes of all slots. descriptors: a pair per slot, to read and to write."""

    def __init__(self, descriptors: Sequence[tuple[int, int]]) -> None:
        self.descriptors = list(descriptors)
        self._readers = [socket.socket(fileno=reader) for reader, _ in descriptors]
        self._writers = [socket.socket(fileno=writer) for _, writer in descriptors]

    @classmethod
    def create(cls, slots: int) -> "Mailboxes":
        """Create an empty mailbox for each slot."""
        descriptors = []
        for _ in range(slots):
            ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for end in ends:
                end.setblocking(False)
            descriptors.append((ends[0].detach(), ends[1].detach()))
        return cls(descriptors)

    def reader(self, slot: int) -> socket.socket:
        """Return the socket that the worker of a slot reads from."""
        return self._readers[slot]

    def send(
        self, slot: int, kind: bytes, sender: int, content: bytes = b"", files: Sequence[int] = ()
    ) -> bool:
        """Send a message. Return False when it could not be sent, for example to a full mailbox."""
        head = kind + bytes((sender,))
        if len(content) <= _LARGEST:
            try:
                socket.send_fds(self._writers[slot], [head, content], files)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    return False
            else:
                return True
        try:
            with _file(content) as file:
                socket.send_fds(self._writers[slot], [head], [*files, file])
        except OSError:
            return False
        return True

    def receive(self, slot: int) -> Iterator[Message]:
        """Yield the messages in the mailbox of a slot."""
        while True:
            try:
                data, files, _, _ = socket.recv_fds(self._readers[slot], 4 * _LARGEST, 2)
            except OSError:
                return
            content = data[2:]
            if len(files) == 2:
                with open(files.pop(), "rb") as file:
                    file.seek(0)
                    content = file.read()
            yield Message(data[:1], data[1], content, files)

    def forward(self, slot: int, to: int | None) -> None:
        """Forward the requests in the mailbox of an exited worker to another slot; None: close their connections."""
        for message in self.receive(slot):
            if message.kind == REQUEST and to is not None:
                self.send(to, REQUEST, message.sender, message.content, message.files)
            for file in message.files:
                os.close(file)


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("cortex-request")
            stack.callback(os.close, descriptor)
        else:
            descriptor = stack.enter_context(tempfile.TemporaryFile()).fileno()
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        yield descriptor
