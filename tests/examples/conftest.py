"""A fixture that runs examples with `cortex run`."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMIT = 150
"""In seconds. The import of TensorFlow is slow on a busy machine."""
Run = Callable[..., tuple[str, str]]


def metrics_with(url: str, *samples: str) -> None:
    """Wait until the metrics have these samples: a response is counted after it is sent."""
    end = time.monotonic() + 60
    while missing := [each for each in samples if each not in httpx.get(url).text]:
        assert time.monotonic() < end, missing
        time.sleep(0.05)


def post(url: str, payload: object, **query: str) -> httpx.Response:
    return httpx.post(url, json=payload, params=query)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a function that runs a command in the folder of an example, serves the example, and returns API and metrics URLs.

    Further arguments are options of `cortex run`.
    """
    processes = []

    def start(name: str, *options: str, prepare: list[str] | None = None) -> tuple[str, str]:
        # Use a copy, so that no files are written into the repository.
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / name, folder)
        if prepare is not None:
            subprocess.run(prepare, cwd=folder, check=True)
        port, admin_port = free_port(), free_port()
        command = [sys.executable, "-m", "cortex_cli", "run", "--port", str(port)]
        command += ["--admin-port", str(admin_port), *options, str(folder / "api.yaml")]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CORTEX_TENSORFLOW_SERVING": ""}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        processes.append(process)
        late = threading.Timer(LIMIT, process.kill)
        late.start()
        said = []
        for line in process.stdout or ():
            said.append(line)
            if f"http://127.0.0.1:{port}" in line:
                late.cancel()
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}/metrics"
        raise AssertionError("".join(said))

    yield start
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait(LIMIT)
