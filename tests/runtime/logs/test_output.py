"""Lines reach every kind of stdout, in order; no writer waits for a slow reader."""

import os
import pty
import socket
import threading
from types import SimpleNamespace

import pytest

from cortex_runtime.logs import output
from cortex_runtime.logs.output import MAX_BUFFERED, Output


def ends(kind, tmp_path):
    """Return (descriptor to write to, descriptor to read from)."""
    if kind == "pipe":
        reader, writer = os.pipe()
    elif kind == "terminal":
        reader, writer = pty.openpty()
    elif kind == "socket":
        first, second = socket.socketpair()
        reader, writer = first.detach(), second.detach()
    else:
        writer = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        reader = os.open(tmp_path / "log", os.O_RDONLY)
    return writer, reader


def read_lines(reader, last):
    """Read lines up to one that ends with these words."""
    text = b""
    while not text.rstrip(b"\r\n").endswith(last):
        piece = os.read(reader, 1 << 16)
        assert piece, text[-100:]
        text += piece
    return text.replace(b"\r", b"").decode().splitlines()


@pytest.fixture
def opened(tmp_path):
    """Return a function that creates an Output on a kind of file, with its reader. Both are closed afterwards."""
    found = []

    def make(kind):
        writer, reader = ends(kind, tmp_path)
        found.extend((writer, reader))
        return Output(writer, lambda lines: b"%d lost\n" % lines), reader

    yield make
    for descriptor in found:
        os.close(descriptor)


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket", "file"])
def test_lines_arrive_in_order_and_complete(opened, kind):
    out, reader = opened(kind)
    for number in range(100):
        out.write(b"line %d\n" % number)
    out.write(*(b"line %d\n" % number for number in range(100, 120)))
    assert read_lines(reader, b"line 119") == [f"line {number}" for number in range(120)]


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket", "polled pipe"])
def test_no_writer_waits_and_dropped_lines_are_counted(opened, kind, monkeypatch):
    if kind == "polled pipe":
        # Like a container in which /proc cannot be used for it.
        # Only in this module: other threads of the process open files too.
        def refuse(*arguments):
            raise OSError

        monkeypatch.setattr(output, "os", SimpleNamespace(**{**vars(os), "open": refuse}))
        kind = "pipe"
    out, reader = opened(kind)
    line = b"x" * 999 + b"\n"
    number = 2 * MAX_BUFFERED // len(line)
    writing = threading.Thread(target=lambda: [out.write(line) for _ in range(number)], daemon=True)
    writing.start()
    writing.join(60)
    assert not writing.is_alive()
    out.flush(0.05)
    lines = read_lines(reader, b"lost")
    whole = lines.count("x" * 999)
    assert lines[-1] == f"{number - whole} lost"
    assert len(lines) == whole + 1
    assert whole * len(line) >= MAX_BUFFERED - len(line)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_closed_reader_does_not_affect_the_writer(kind, tmp_path):
    writer, reader = ends(kind, tmp_path)
    out = Output(writer, lambda lines: b"lost\n")
    os.close(reader)
    for _ in range(100):
        out.write(b"line\n")
    out.flush(5)
    os.close(writer)


def test_a_closed_stdout_does_not_affect_requests():
    # A number that no thread of this process gets for another file meanwhile.
    Output(1_000_000, lambda lines: b"lost\n").write(b"line\n")


def test_a_line_larger_than_the_pipe_arrives_completely(opened):
    out, reader = opened("pipe")
    out.write(b"a" * 500_000 + b"\n", b"after\n")
    assert read_lines(reader, b"after") == ["a" * 500_000, "after"]


def test_a_line_that_a_signal_handler_writes_within_another_arrives(opened):
    """It finds the lock held by its own thread."""
    out, reader = opened("pipe")
    send = out._send
    within = [b"of the handler\n"]

    def interrupted(data):
        if within:
            out.write(within.pop())
        return send(data)

    out._send = interrupted
    out.write(b"interrupted\n")
    assert read_lines(reader, b"of the handler") == ["interrupted", "of the handler"]
