"""The runtime as a child of this process: what `cortex run` starts, listens to and ends.

It leads a session of its own, so that Ctrl-C in a terminal reaches this process alone, which decides; and it stands under a
guard, so that it ends, and its files go, even when this process is killed.
"""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Self

import click
import httpx

from cortex_api import Document, RealtimeAPI
from cortex_cli.guard import Guard, kill_group
from cortex_cli.loglines import readable

HOST = "127.0.0.1"


def taken(port: int) -> bool:
    """Whether something on this machine listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


class Scratch:
    """The files that the operator would mount into a pod, in a folder that goes when this process goes."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cortex-run-"))
        self.guard = Guard(self.folder)
        self.models = self.folder / "models"
        self.models.mkdir()
        self.document = self.folder / "api.json"
        self.termination_log = self.folder / "termination-log"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.guard.close()

    def write(self, api: RealtimeAPI, project: Path) -> Path:
        """The API's document and, when they stand in the manifest, its files. Returns the folder of the project."""
        source = api.spec.handler.source
        for path, content in (source.files or {}).items() if source else ():
            project = self.folder / "project"
            target = project / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or target.read_text() != content:
                target.write_text(content)
        document = Document.of(api).to_json()
        if not self.document.exists() or self.document.read_bytes() != document:
            fresh = self.document.with_suffix(".new")
            fresh.write_bytes(document)
            fresh.replace(self.document)
        return project

    def cause_of_death(self, status: int) -> str:
        """What the runtime left as the reason of its end, for a person."""
        try:
            cause = json.loads(self.termination_log.read_bytes())
            return f"{cause['reason']}: {cause['message']}"
        except (OSError, ValueError, KeyError):
            return f"the runtime ended with status {status}; its log above says why"


class Runtime:
    """A running `cortex_runtime serve`. Its log is passed on: as JSON, or for a person when stdout is a terminal."""

    def __init__(self, scratch: Scratch, project: Path, port: int, admin_port: int, reload: bool) -> None:
        command = [sys.executable, "-m", "cortex_runtime", "serve", "--host", HOST]
        command += ["--config", str(scratch.document), "--project", str(project)]
        command += ["--models", str(scratch.models), "--termination-log", str(scratch.termination_log)]
        command += ["--port", str(port), "--admin-port", str(admin_port), *(["--reload"] if reload else [])]
        self._admin = f"http://{HOST}:{admin_port}"
        self._guard = scratch.guard
        self._signals: list[int] = []
        self._process: subprocess.Popen[str] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        for_person = sys.stdout.isatty()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if for_person else None,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._guard.watch(self._process.pid)
        self._reader = threading.Thread(target=self._show, daemon=True) if for_person else None
        if self._reader:
            self._reader.start()
        if self._signals:
            self._process.send_signal(self._signals[-1])

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """The first lets requests in flight end; the second ends everything at once."""
        self._signals.append(number)
        if self._process is None or self._process.poll() is not None:
            return
        if len(self._signals) == 1:
            self._process.send_signal(number)
        else:
            kill_group(self._process.pid)

    def _show(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            click.echo(readable(line.rstrip("\n")))

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit status once it has ended, or None when it still runs after that time.

        128 + the signal's number when the second signal ended it.
        """
        assert self._process is not None
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if self._reader:
            self._reader.join(1)
        self._guard.forget(self._process.pid)
        return 128 + self._signals[-1] if len(self._signals) > 1 and status < 0 else status

    def wait_ready(self) -> bool:
        """Whether the API got ready before its process ended."""
        with httpx.Client(base_url=self._admin, timeout=5, trust_env=False) as client:
            while self.wait(0) is None and not self._signals:
                try:
                    if client.get("/readyz").status_code == httpx.codes.OK:
                        return True
                except httpx.TransportError:
                    pass  # It doesn't listen yet.
                time.sleep(0.05)
        return False
